"""All that there is to ask of a model of a table, beyond its bound: by column, of its rows, of what they give away."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..data import Data, some
from ..evaluation import evaluate
from ..evaluation.columns import ColumnBounds, Imputed, column_bounds, held_out_imputation
from ..metrics import Estimate
from ..models import Model
from .fidelity import Comparison, Fidelity, check, fidelity
from .privacy import Privacy, privacy
from .rows import affordable, draw_rows
from .utility import ROWS as MOST
from .utility import Utility, utility

# Rows whose bounds are taken, and importance samples of each.
ROWS, SAMPLES = 1000, 100
# Numbers in the rows that are drawn, at most.
VALUES = 2**24


@dataclass(frozen=True)
class Assessment:
    """How good a model of a table is, in all respects.

    Attributes:
        names: Of the columns.
        bounds: What each column adds to the bound; None of a model that has none.
        imputed: How well hidden entries of each are filled.
        fidelity: How alike its rows and held-out rows are.
        utility: How well a column is predicted by training on its rows; None where no column was asked for.
        privacy: What its rows, and it, say of the training rows.
        rows: How many held-out rows the columns were looked at on.
        k: Importance samples of each.
    """

    names: tuple[str, ...]
    bounds: ColumnBounds | None
    imputed: tuple[Imputed, ...]
    fidelity: Fidelity
    utility: Utility | None
    privacy: Privacy
    rows: int
    k: int

    def summary(self) -> dict[str, Any]:
        """The numbers, JSON-able; null where there is none."""
        columns = []
        for i, (name, imputed) in enumerate(zip(self.names, self.imputed, strict=True)):
            marginal = self.fidelity.marginals[i]
            columns.append(
                {
                    "name": name,
                    "kind": marginal.column.kind,
                    "nats": None if self.bounds is None else self.bounds.columns[i].summary(),
                    "known": None if self.bounds is None else self.bounds.known[i],
                    "imputation": _plain(imputed),
                    "distance": marginal.distance.summary(),
                    "wasserstein": None if marginal.shift is None else marginal.shift.summary(),
                }
            )
        return {
            "columns": columns,
            "code": None if self.bounds is None else self.bounds.code.summary(),
            "rows": self.rows,
            "k": self.k,
            "fidelity": _plain(self.fidelity),
            "utility": None if self.utility is None else _plain(self.utility),
            "privacy": _plain(self.privacy),
        }


def assess(
    model: Model, data: Data, *, split: str = "test", target: str | None = None, k: int = SAMPLES, seed: int = 0
) -> Assessment:
    """Everything about a model of a table. It takes seconds: large tables are looked at on some of their rows.

    Args:
        model: The model; it is left in the mode it was in.
        data: The table that it was trained on.
        split: The rows that it was not trained on: "valid" or "test".
        target: The column to predict by training on synthetic rows; none if not given.
        k: Importance samples of each row.
        seed: Of whatever is drawn. The caller's random state is left alone.

    Raises:
        ValueError: The data are no table, the rows are those it was trained on, there are fewer than ten of some sort,
            or there is no such column.
    """
    if not data.columns or split == "train":
        raise ValueError(
            f"data {data.name!r}, split {split!r}: only rows of a table can be held against synthetic ones, and only "
            'rows that were not trained on. Give a table, and the split "test" or "valid".'
        )
    train, held_out = data.fixed("train").cpu(), data.fixed(split).cpu()
    check(data.columns, train=train.numpy(), held_out=held_out.numpy())
    few = affordable(len(data.columns), ROWS)
    x = held_out[some(len(held_out), few, seed)]
    evaluations = [evaluate(model, rows, k=k, seed=seed) for rows in (train[some(len(train), few, seed)], x)]
    is_bound = evaluations[0].is_bound
    values = evaluations[0].values.numpy(), evaluations[1].values.numpy()
    # no comparison takes more
    count = min(MOST, max(len(train), len(held_out)), max(few, VALUES // len(data.columns)))
    synthetic = draw_rows(model, data, count, seed)
    sets = train.numpy(), held_out.numpy(), synthetic, data.columns
    return Assessment(
        names=tuple(column.name for column in data.columns),
        bounds=column_bounds(model, x, k=k, seed=seed) if is_bound else None,
        imputed=held_out_imputation(model, x, data.columns, k=k, seed=seed),
        fidelity=fidelity(*sets, seed=seed),
        utility=None if target is None else utility(*sets, target, seed=seed),
        privacy=privacy(*sets, bounds=values if is_bound else None, seed=seed),
        rows=len(x),
        k=k,
    )


def _plain(value: Any) -> Any:
    """A result as JSON has it: its fields by name, each estimate by its own summary."""
    match value:
        case Estimate() | Comparison():
            return value.summary()
        case Mapping():
            return {key: _plain(one) for key, one in value.items()}
        case float() if not math.isfinite(value):
            return None
        case None | float() | int() | str():
            return value
    # those of columns stand with the columns
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.name != "marginals"}
