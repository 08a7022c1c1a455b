"""Arrays and frames as rows of numbers x, and rows of numbers as what was given.

An array says nothing of its columns: each is real, and the density is one in its own units. A frame names its columns
and their types, and the schema of tables is inferred from it. In either case a column that always has one value is no
part of x, and comes back with that value.

Arrays need nothing else; frames, and arrays of which more is said, need pyarrow.

Axes: n rows, f columns of the input, d columns that are modelled.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor

from ..columns import Aside, Column
from ..data import Data, frame

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.tables.coding import Coding
    from ..data.tables.reading import Source

# Of a column of an array, in single precision: squares of such numbers are still numbers.
LEAST_SPREAD, LARGEST_SPREAD = 1e-15, 1e15
# So many spreads from 0, single precision keeps four digits of a value: more is taken off before.
FAR = 1000.0
# Below so many rows none is held out: what a few of them say is mostly chance.
FEW_ROWS = 20
CONTAINERS = ("pandas", "polars")


@runtime_checkable
class Frame(Protocol):
    """A table in memory that gives its columns by the Arrow C stream interface: pandas, polars, pyarrow, ..."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """A capsule with the stream."""


@dataclass(frozen=True)
class Arrays:
    """How an array stands for rows of numbers: each column is itself, less an origin where that saves digits.

    Args:
        columns: Those that are modelled, all real.
        aside: Those that have one value, or none.
    """

    columns: tuple[Column, ...]
    aside: tuple[Aside, ...]

    @classmethod
    def of(cls, X: Float64[ndarray, "n f"], names: Sequence[str]) -> "Arrays":
        """The columns of an array.

        Raises:
            ValueError: No column has two values, or some vary by more or less than single precision holds.
        """
        columns, aside, wrong = [], [], []
        for at, (name, values) in enumerate(zip(names, X.T, strict=True)):
            known = values[~np.isnan(values)]
            if not len(known):
                aside.append(Aside(name, at, "empty", "double"))
            elif known.min() == known.max():
                aside.append(Aside(name, at, "constant", "double", repr(float(known[0]))))
            else:
                with np.errstate(over="ignore", invalid="ignore"):
                    centre, spread = float(known.mean()), float(known.std())
                if not LEAST_SPREAD < spread < LARGEST_SPREAD:
                    wrong.append(f"{name} from {known.min():g} to {known.max():g}")
                origin = centre if abs(centre) > FAR * spread else None
                low, high = (float(end) - (origin or 0.0) for end in (known.min(), known.max()))
                columns.append(Column(name, "real", low=low, high=high, origin=origin))
        if wrong:
            raise ValueError(
                f"{len(wrong)} columns of X vary by more or less than a model in single precision can see: "
                f"{', '.join(wrong[:5])}. Give them in other units, which may differ by powers of ten."
            )
        if not columns:
            raise ValueError(
                f"none of the {X.shape[1]} columns of X has two different values, so there is nothing to learn. "
                "Look at how X was made."
            )
        return cls(tuple(columns), tuple(aside))

    def encode(self, X: Float64[ndarray, "n f"]) -> Float64[Tensor, "n d"]:
        """The rows as numbers, NaN where a value is missing."""
        return torch.from_numpy(X[:, self._places] - self._origins)

    def decode(self, x: Float[Tensor, "n d"]) -> Float64[ndarray, "n f"]:
        """Rows of numbers as an array."""
        rows = np.full((len(x), len(self.columns) + len(self.aside)), np.nan)
        rows[:, self._places] = x.double().numpy() + self._origins
        for aside in self.aside:
            rows[:, aside.at] = np.nan if aside.value is None else float(aside.value)
        return rows

    def fill(self, X: Float64[ndarray, "n f"], x: Float[Tensor, "n d"]) -> Float64[ndarray, "n f"]:
        """The array with its holes filled from rows of numbers."""
        return np.where(np.isnan(X), self.decode(x), X)

    @property
    def _places(self) -> list[int]:
        aside = {aside.at for aside in self.aside}
        return [at for at in range(len(self.columns) + len(self.aside)) if at not in aside]

    @property
    def _origins(self) -> Float64[ndarray, " d"]:
        return np.array([column.origin or 0.0 for column in self.columns])


@dataclass(frozen=True)
class Frames:
    """How a frame stands for rows of numbers: as tables do.

    Args:
        coding: Of the table.
        like: A frame of that kind, or an array: what rows are given back as, in its types.
    """

    coding: "Coding"
    like: Any

    @property
    def columns(self) -> tuple[Column, ...]:
        """Those that are modelled."""
        return self.coding.columns

    @property
    def aside(self) -> tuple[Aside, ...]:
        """Those that are not."""
        return self.coding.aside

    def encode(self, X: Any) -> Float[Tensor, "n d"]:
        """The rows as numbers, NaN where a value is missing; a warning of levels that are not known.

        Raises:
            ValueError: A cell is not what its column holds.
        """
        found = self.coding.encode(self._source(X))
        if found.notes:
            warnings.warn("; ".join(found.notes), stacklevel=4)
        return found.x

    def decode(self, x: Float[Tensor, "n d"]) -> Any:
        """Rows of numbers as a frame, or an array, such as was learnt from."""
        return contained(self.coding.decode(x), self.like)

    def fill(self, X: Any, x: Float[Tensor, "n d"]) -> Any:
        """The frame or array with its holes filled from rows of numbers; all else is as it was."""
        return contained(self.coding.fill(self._source(X).whole(), x), X)

    def _source(self, X: Any) -> "Source":
        from ..data.tables.reading import of_frame

        return of_frame(plain(X, self.coding.names), "X")


def read(X: Any, names: Sequence[str], said: Mapping[Any, Any] | None) -> tuple[Arrays | Frames, Tensor]:
    """How X stands for rows of numbers, and these.

    Args:
        X: A frame; or an array of numbers, NaN where one is missing.
        names: Of its columns.
        said: What is known better of columns, by name or place.

    Raises:
        ValueError: Something cannot be modelled, or is said of no column.
        ImportError: pyarrow is not installed, and X is a frame, or something is said of columns.
    """
    known = _by_name(said or {}, names)
    if not isinstance(X, Frame):
        rows = Arrays.of(X, names)
        if not known:
            return rows, rows.encode(X)
        known = {column.name: "real" for column in rows.columns} | known
    # its split is not used: ours may hold out more, or nothing
    data = frame(plain(X, names), name="X", columns=known, valid=1e-9, test=1e-9)
    from ..data.tables.coding import Coding

    return Frames(Coding(data.columns, data.aside), X[:0]), data.x


def data_of(rows: Arrays | Frames, x: Float[Tensor, "n d"], valid: float, seed: int) -> tuple[Data, int]:
    """The data set to train on, and how many of its rows are held out; those are its part "valid".

    Args:
        rows: How they stand for what was given.
        x: All of them.
        valid: The fraction to hold out. None is, where there are few.
        seed: Of the choice.
    """
    n = len(x)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held = max(1, round(valid * n)) if valid and n >= FEW_ROWS else 0
    if held and x[order[held:]].isnan().all(0).any():
        held = 0  # they alone know something of a column
    # A data set has three parts, and none is empty: copies of a row stand where nothing is read.
    parts = {"train": order[held:], "valid": order[:held] if held else torch.tensor([n]), "test": torch.tensor([n + 1])}
    whole = torch.cat([x, x[:1], x[:1]])
    return Data("X", whole, parts, columns=rows.columns, aside=rows.aside), held


def described(model: Mapping[str, Any], kind: str | None) -> Arrays | Frames:
    """How arrays or frames stand for rows of numbers, from the description in a model.

    Args:
        model: The table of a run.
        kind: What rows are given back as; None for the arrays of which nothing was said.
    """
    columns = tuple(Column.of(column) for column in model["columns"])
    aside = tuple(Aside.of(column) for column in model["aside"])
    if kind is None:
        return Arrays(columns, aside)
    from ..data.tables.coding import Coding

    coding = Coding(columns, aside)
    return Frames(coding, _empty(coding.decode(torch.empty(0, len(columns))), kind))


def as_frame(X: Any) -> Any:
    """A frame of pandas or polars as it is, any other as one of pyarrow."""
    if container(X) in CONTAINERS:
        return X
    import pyarrow as pa

    return pa.table(X)


def says_more(X: Any) -> bool:
    """Whether a frame says more than an array: names, or other things than numbers."""
    if container(X) != "pandas":
        return True
    return any(isinstance(name, str) for name in X.columns) or any(dtype.kind not in "biuf" for dtype in X.dtypes)


def plain(X: Any, names: Sequence[str]) -> Any:
    """A frame or array as a table that pyarrow reads."""
    match container(X):
        case "array":
            return {name: X[:, at] for at, name in enumerate(names)}
        case "pandas":
            return X.set_axis(names, axis=1)
        case _:
            return X


def container(X: Any) -> str:
    """What X is: "array", "pandas", "polars", or "pyarrow" for all other frames."""
    if isinstance(X, ndarray):
        return "array"
    package = type(X).__module__.partition(".")[0]
    return package if package in CONTAINERS else "pyarrow"


def contained(table: "pa.Table", like: Any) -> Any:
    """A table as a frame or array like another: of its kind, and of its types as far as they can hold what is there."""
    match container(like):
        case "array":
            return np.column_stack([column.to_numpy().astype(np.float64) for column in table.columns])
        case "pandas":
            found = table.to_pandas()
            found = type(like)({name: _as_pandas(found[name], of) for name, of in zip(found, like.dtypes, strict=True)})
            found.columns = like.columns
            return found.set_axis(like.index) if len(like) == len(found) else found
        case "polars":
            return _as_polars(table, like)
        case _:
            return table


def _empty(table: "pa.Table", kind: str) -> Any:
    """A frame or array of a kind, without rows, that is like a table."""
    if kind == "array":
        return np.empty((0, table.num_columns))
    if kind == "pandas":
        return table[:0].to_pandas()
    if kind == "polars":
        import polars

        return polars.DataFrame(table[:0])
    return table[:0]


def filled_in(like: Any, before: Float64[ndarray, "n f"], after: Float64[ndarray, "n f"]) -> Any:
    """A frame with its holes filled, from its array before and after; that array, if it is not of pandas or polars."""
    which = np.flatnonzero(np.isnan(before).any(0))
    match container(like):
        case "pandas":
            found = like.copy()
            for at in which:
                found.isetitem(at, after[:, at])
            return found
        case "polars":
            return like.with_columns(**{like.columns[at]: after[:, at] for at in which})
        case _:
            return after


def _as_pandas(column: Any, dtype: Any) -> Any:
    import pandas

    if isinstance(dtype, pandas.CategoricalDtype):
        more = [value for value in column.dropna().unique() if value not in dtype.categories]
        dtype = pandas.CategoricalDtype([*dtype.categories, *more], dtype.ordered)
    try:
        return column.astype(dtype)
    except (TypeError, ValueError):
        return column  # a hole that no whole number and no truth value stands for


def _as_polars(table: "pa.Table", like: Any) -> Any:
    import polars

    found = polars.DataFrame(table)
    for name, dtype in like.schema.items():
        try:
            found = found.with_columns(found[name].cast(dtype))
        except polars.exceptions.PolarsError:
            continue  # a level that the type does not have
    return found


def _by_name(said: Mapping[Any, Any], names: Sequence[str]) -> dict[str, Any]:
    """What is said of columns, by their names."""
    places = [key for key in said if not isinstance(key, str)]
    if wrong := [key for key in places if not (isinstance(key, int) and 0 <= key < len(names))]:
        raise ValueError(
            f"columns says something of {', '.join(map(repr, wrong))}, and X has {len(names)} columns: give their "
            f"names, or their places from 0 to {len(names) - 1}."
        )
    return {key if isinstance(key, str) else names[key]: value for key, value in said.items()}
