"""The coding of a table: rows of numbers x (n, d) for its cells, and cells for rows of numbers.

    number          itself (less an origin, where that saves digits)      rounded, kept within what was seen
    date            days since 1970, with fractions                       rounded to its unit
    level           its place among the levels                            the level
    missing         NaN                                                   null
    not modelled    nothing                                               the constant, or null

What goes out has the columns of what came in: their names, order, Arrow types, decimals, levels and ranges. A text
that is no level, as a table to be scored may hold, becomes the level of the pooled ones where there is one, else
missing; a number that is no level of an ordinal column becomes the nearest. All of that is counted.

x is in single precision unless a column then lost digits that it is known to have: whole numbers or decimals with
more than seven digits, moments. Then all of x is in double precision (models see single precision in either case).
Numbers with more than six decimals keep seven digits, whole numbers beyond 2^53 sixteen, and a moment more than 44
years from 1970, in a column that spans as many, may be off by a microsecond.

Axes: n rows, d modelled columns.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor

from ...columns import Aside, Column
from ..dataset import nearest
from .cells import (
    ISO,
    MICROSECONDS,
    ZONED,
    arrow_type,
    days,
    first,
    is_number,
    is_text,
    number_of,
    numbers,
    texts,
    tidy,
)
from .kinds import SINGLE
from .reading import Source

UNITS = {"s": 1 / 86_400, "ms": 1 / 86_400e3, "us": 1 / MICROSECONDS, "ns": 1 / MICROSECONDS}
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}


@dataclass(frozen=True)
class Encoded:
    """Rows of a table as numbers, and what was noticed on the way.

    Attributes:
        x: The rows, NaN where a value is missing.
        missing: How many values each column lacks.
        unseen: Of each column, the texts that were no levels, and how often.
        notes: What else there was to say, a line each.
    """

    x: Float[Tensor, "n d"]
    missing: Mapping[str, int]
    unseen: Mapping[str, Counter[str]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Coding:
    """How the cells of a table stand for numbers, in full: nothing else is needed to read or write such a table.

    Args:
        columns: Those that are modelled, in the order of x.
        aside: Those that are not.

    Example:
        >>> from .reading import of_frame
        >>> from .schema import infer
        >>> frame = of_frame({"age": [30, None, 41, 57], "sex": ["F", "M", None, "F"], "v": [1, 1, 1, 1]})
        >>> found = infer(frame)
        >>> coding = Coding(found.columns, found.aside)
        >>> coding.encode(frame).x.tolist()
        [[30.0, 0.0], [nan, 1.0], [41.0, nan], [57.0, 0.0]]
        >>> coding.decode(torch.tensor([[35.2, 1.0]])).to_pylist()
        [{'age': 35, 'sex': 'M', 'v': 1}]
        >>> Coding.of(coding.table()) == coding
        True
    """

    columns: tuple[Column, ...]
    aside: tuple[Aside, ...] = ()

    def table(self) -> dict[str, list[dict[str, Any]]]:
        """The coding, JSON-able."""
        return {"columns": [c.table() for c in self.columns], "aside": [a.table() for a in self.aside]}

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Coding":
        """The coding of such a description, as the table of a model has one among its options.

        Raises:
            ValueError: It does not describe columns.
        """
        columns, aside = table.get("columns", ()), table.get("aside", ())
        return cls(tuple(Column.of(c) for c in columns), tuple(Aside.of(a) for a in aside))

    @property
    def names(self) -> tuple[str, ...]:
        """Of all columns, in the order of the table."""
        names = [column.name for column in self.columns]
        for aside in sorted(self.aside, key=lambda aside: aside.at):
            names.insert(aside.at, aside.name)
        return tuple(names)

    @property
    def dtype(self) -> torch.dtype:
        """Of x: single precision, unless a column then lost digits that it is known to have."""
        return torch.float64 if any(map(_needs_double, self.columns)) else torch.float32

    def encode(self, source: Source, absent: bool = False) -> Encoded:
        """The rows of a table as numbers, read batch by batch.

        Args:
            source: The table. Its columns may come in another order or type; it may have others, which are ignored.
            absent: Columns that are not there count as missing throughout, instead of being an error.

        Raises:
            ValueError: Columns are not there, or a cell is not what its column holds (the cell is named).
        """
        notes = self._check(source, absent)
        x = torch.full((source.count(), len(self.columns)), torch.nan, dtype=self.dtype)
        packed = x.numpy()
        unseen: dict[str, Counter[str]] = {column.name: Counter() for column in self.columns}
        row = 0
        for batch in source.batches():
            for i, column in enumerate(self.columns):
                if column.name in batch.schema.names:
                    cells, _ = tidy(batch.column(column.name), column.missing)
                    values, strange = _codes(column, cells, f"{source.name}, row", row)
                    with np.errstate(over="ignore"):  # infinite in single precision, which no likelihood takes
                        packed[row : row + len(batch), i] = values
                    unseen[column.name] += strange
            row += len(batch)
        missing = {column.name: int(x[:, i].isnan().sum()) for i, column in enumerate(self.columns)}
        unseen = {name: strange for name, strange in unseen.items() if strange}
        notes += tuple(self._unseen_line(name, strange) for name, strange in unseen.items())
        return Encoded(x, missing, unseen, notes)

    def decode(self, x: Float[Tensor, "n d"], within: bool = True) -> pa.Table:
        """The cells of rows of numbers, such as `encode` gives or a model draws; null where they are NaN.

        Args:
            x: The rows.
            within: Whether numbers are kept within what was seen in training: of rows that are made up, they should.
        """
        rows = x.detach().cpu().double().numpy()
        arrays = {column.name: _cells(column, rows[:, i], within) for i, column in enumerate(self.columns)}
        for aside in self.aside:
            # of a type that no model is for, there is nothing to write
            kind = pa.null() if aside.why == "type" else arrow_type(aside.source)
            array = pa.nulls(len(rows), kind)
            if aside.value is not None:
                array = _cast(pa.array([aside.value] * len(rows), pa.string()), kind)
            arrays[aside.name] = array
        return pa.table({name: arrays[name] for name in self.names})

    def holes(self, table: pa.Table) -> dict[str, pa.ChunkedArray]:
        """Which cells are missing, by column, of all columns of a table that were learnt.

        A level that is not known is no hole.
        """
        tokens = {column.name: column.missing for column in self.columns}
        tokens |= {aside.name: None for aside in self.aside}
        return {
            name: pa.chunked_array([tidy(chunk, tokens[name])[0].is_null() for chunk in table[name].chunks], pa.bool_())
            for name in table.column_names
            if name in tokens
        }

    def fill(self, table: pa.Table, x: Float[Tensor, "n d"]) -> pa.Table:
        """A table with its holes filled; what is known stays as it is, to the letter, and so do all columns.

        A hole stays where nothing is known of what it could hold, as in a column that is not modelled.

        Args:
            table: In the order of its rows, whatever types its columns have.
            x: The rows, without holes.
        """
        found = self.decode(x, within=False)
        for name, hole in self.holes(table).items():
            at = table.schema.get_field_index(name)
            if pc.any(pc.and_(hole, found[name].is_valid())).as_py():
                cells = _with(table[name], hole, found[name])
                table = table.set_column(at, table.field(at).with_type(cells.type), cells)
        return table

    def typed(self, table: pa.Table) -> pa.Table:
        """A table of texts, in the types that were learnt as far as they can hold its cells: of files with types."""
        for column in self.columns:
            kind, at = arrow_type(column.source), table.schema.get_field_index(column.name)
            if at >= 0 and is_text(table.field(at).type) and not is_text(kind):
                cells = [tidy(chunk, column.missing)[0] for chunk in table.column(at).chunks]
                with contextlib.suppress(pa.ArrowInvalid):
                    table = table.set_column(at, column.name, pa.chunked_array(cells, pa.string()).cast(kind))
        return table

    def _check(self, source: Source, absent: bool) -> tuple[str, ...]:
        names = source.schema.names
        lacking = [column.name for column in self.columns if column.name not in names]
        if len(lacking) == len(self.columns) or (lacking and not absent):
            named = ", ".join(map(repr, lacking[:10]))
            raise ValueError(
                f"{source.name} lacks {len(lacking)} of the {len(self.columns)} columns that were learnt: {named}."
                f"{nearest(lacking[0], names)} It has {', '.join(names[:20])}. Give a table with those."
            )
        more = [name for name in names if name not in self.names]
        notes = [f"{source.name}: no column {name!r}: missing throughout" for name in lacking]
        return (*notes, f"{source.name}: ignored, as not learnt: {', '.join(more[:20])}") if more else tuple(notes)

    def _unseen_line(self, name: str, strange: Counter[str]) -> str:
        column = next(column for column in self.columns if column.name == name)
        numeric = is_number(arrow_type(column.source))
        taken = f"as {column.levels[-1]!r}" if column.pooled else "as missing"
        if column.kind == "ordinal" and numeric:
            taken = "as the nearest level, or as missing where no number"
        listed = ", ".join(repr(text) for text, _ in strange.most_common(5))
        number = strange.total()
        what = "1 value that is" if number == 1 else f"{number:,} values that are"
        return f"{name}: {what} none of its levels, taken {taken}: {listed}"


def _with(cells: pa.ChunkedArray, hole: pa.ChunkedArray, found: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Cells with what was found where there is a hole, in their own type if that can hold it."""
    kind = cells.type
    levels = cells.unify_dictionaries().chunk(0).dictionary if pa.types.is_dictionary(kind) else None
    cells, found = (of.cast(of.type.value_type) if pa.types.is_dictionary(of.type) else of for of in (cells, found))
    if is_text(cells.type):
        found = pa.chunked_array([texts(chunk) for chunk in found.chunks], pa.string())
    try:
        own = found.cast(cells.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pc.if_else(hole, found, cells.cast(found.type))
    filled = pc.if_else(hole, pc.coalesce(own, cells), cells)
    return filled if levels is None else _encoded(filled.combine_chunks(), levels, kind)


def _needs_double(column: Column) -> bool:
    step = _step(column)
    if column.is_level or step is None or column.low is None or column.high is None:
        return False
    return max(abs(column.low), abs(column.high)) >= SINGLE * step


def _step(column: Column) -> float | None:
    """The least distance of two values of a column; None where it is not known."""
    if not column.is_date:
        return None if column.decimals is None else 10.0**-column.decimals
    kind = arrow_type(column.source)
    if is_text(kind):
        return UNITS["us"] if column.format in (ISO, ZONED) else UNITS["s"] if "%H" in str(column.format) else 1.0
    return UNITS[kind.unit] if pa.types.is_timestamp(kind) else 1.0


def _codes(column: Column, cells: pa.Array, where: str, row: int) -> tuple[Float64[ndarray, "n"], Counter[str]]:
    """The numbers that tidy cells stand for, and the texts that are no levels.

    Raises:
        ValueError: A cell is no number, or no date, or infinite.
    """
    if column.is_level:
        return _level_codes(column, cells)
    if column.is_date:
        values, wrong = days(cells, column.format, column.origin or 0.0)
        what = "date"
    else:
        values, wrong = numbers(cells)
        wrong |= np.isinf(values)
        values, what = values - (column.origin or 0.0), "finite number"
    if (i := first(wrong)) is not None:
        raise ValueError(
            f"{where} {row + i + 1}, column {column.name!r}: {str(cells[i].as_py())!r} is no {what}, and such were "
            "learnt. Mend the cell, or leave it empty if the value is not known."
        )
    return values, Counter()


def _level_codes(column: Column, cells: pa.Array) -> tuple[Float64[ndarray, "n"], Counter[str]]:
    """The place of each cell among the levels, and the texts that are none of them.

    What is no level becomes the level of the pooled ones; the nearest number; or missing: the first that there is.
    """
    kind = arrow_type(column.source)
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    codes = np.full(len(cells), np.nan)
    known = column.levels[:-1] if column.pooled else column.levels
    if is_number(kind):
        levels = np.array([number_of(level) for level in known], float)
        order = levels.argsort()
        values, _ = numbers(cells)
        there = ~np.isnan(values)
        right = order[np.searchsorted(levels[order], values[there]).clip(max=len(levels) - 1)]
        left = order[(np.searchsorted(levels[order], values[there]) - 1).clip(min=0)]
        near = np.where(np.abs(levels[left] - values[there]) < np.abs(levels[right] - values[there]), left, right)
        exact = levels[near] == values[there].astype("float32" if pa.types.is_float32(kind) else "float64")
        codes[there] = near if column.kind == "ordinal" else np.where(exact, near, np.nan)
        strange = cells.is_valid().to_numpy(zero_copy_only=False)
        strange[there] &= ~exact
    else:
        words, levels = texts(cells), pa.array(known, pa.string())
        # Some sets mark the labels of their test rows by a full stop, as UCI's Adult does.
        stopless = pc.index_in(pc.utf8_rtrim(words, characters="."), value_set=levels)
        found = pc.coalesce(pc.index_in(words, value_set=levels), stopless)
        codes = found.cast(pa.float64()).to_numpy(zero_copy_only=False).copy()
        strange = cells.is_valid().to_numpy(zero_copy_only=False) & np.isnan(codes)
    if column.pooled:
        codes[strange] = len(column.levels) - 1
    return codes, Counter(texts(cells.filter(pa.array(strange))).to_pylist())


def _cells(column: Column, x: Float64[ndarray, "n"], within: bool) -> pa.Array:
    """The cells that numbers stand for."""
    kind, missing = arrow_type(column.source), np.isnan(x)
    x = np.where(missing, 0.0, x)
    if column.is_level:
        places = pa.array(np.rint(x).clip(0, len(column.levels) - 1).astype("int64"), mask=missing)
        value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
        # "other" is no number, and no date.
        levels = [*column.levels[:-1], None] if column.pooled and not is_text(value_type) else column.levels
        return _cast(pa.array(levels, pa.string()).take(places), kind, levels)
    for spike in column.spikes:
        # models see single precision
        x = np.where(x.astype("float32") == np.float32(spike), spike, x)
    if column.period is not None:
        x = np.mod(x, column.period)
    elif within and column.low is not None and column.high is not None:
        x = x.clip(column.low, column.high)
    if column.is_date:
        return _dates(column, kind, x, missing)
    x = x + (column.origin or 0.0)
    x = x if column.decimals is None else np.round(x, column.decimals)
    if pa.types.is_integer(kind):
        return pa.array(np.rint(x), mask=missing).cast(kind, safe=False)
    array = pa.array(x, mask=missing)
    return texts(array) if is_text(kind) else array.cast(kind)


def _dates(column: Column, kind: pa.DataType, x: Float64[ndarray, "n"], missing: ndarray) -> pa.Array:
    iso = column.format in (None, ISO, ZONED)
    unit = ("us" if iso else "s") if is_text(kind) else kind.unit if pa.types.is_timestamp(kind) else "us"
    origin = int((column.origin or 0.0) * MICROSECONDS)
    moments = np.rint(x * MICROSECONDS).astype("int64") + origin
    step = 1 if unit == "ns" else 1_000_000 // PER_SECOND[unit]
    if pa.types.is_date(kind) or not (iso or "%H" in str(column.format)):
        step = MICROSECONDS
    moments = (moments + step // 2) // step * step
    zone = kind.tz if pa.types.is_timestamp(kind) else "UTC" if column.format == ZONED else None
    array = pa.array(moments, mask=missing).cast(pa.timestamp("us", zone))
    if not is_text(kind):
        return array.cast(kind)
    if not iso:
        return pc.strftime(array.cast(pa.timestamp("s")), format=column.format)
    return array.cast(pa.timestamp("s" if not (moments % 1_000_000).any() else "us", zone)).cast(kind)


def _cast(array: pa.Array, kind: pa.DataType, levels: Sequence[str | None] = ()) -> pa.Array:
    """Texts as values of a type; `levels` come first in a dictionary, in their order."""
    if not pa.types.is_dictionary(kind):
        return array.cast(kind)
    known = pa.array([level for level in levels if level is not None], pa.string())
    return _encoded(array.cast(kind.value_type), known.cast(kind.value_type), kind)


def _encoded(array: pa.Array, levels: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values by their places in a dictionary: the levels, in their order, and what else there is."""
    more = array.filter(pc.invert(pc.is_in(array, value_set=levels))).drop_null().unique()
    levels = pa.concat_arrays([levels, more])
    places = pc.index_in(array, value_set=levels).cast(kind.index_type)
    return pa.DictionaryArray.from_arrays(places, levels, ordered=kind.ordered)
