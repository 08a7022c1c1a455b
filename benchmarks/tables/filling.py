"""Holes in tables of numbers, filled by us and by the peers: the error of each over some seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, median, stdev

import numpy as np
from numpy import ndarray

from lowerbound import evaluation
from lowerbound.columns import Column

from ..report import Row, Table
from ..timing import Spread
from . import imputers
from .asked import Asked, Found, Overrides
from .imputers import Imputer
from .ours import described, rows, train


@dataclass(frozen=True)
class Figure:
    """What is compared.

    Args:
        title: Of the table.
        name: Of the data.
        error: What is measured.
        root: Whether that is the root of the mean square, rather than the mean square.
        published: Errors of others, by name.
        bar: Where our error is to be.
        aim: Where it should be.
        k: Importance samples of a filling.
        notes: What else there is to say.
    """

    title: str
    name: str
    error: str
    root: bool
    published: Mapping[str, float]
    bar: float
    aim: float
    k: int
    notes: Sequence[str] = ()


def compare(
    asked: Asked, figure: Figure, problems: Sequence[tuple[ndarray, ndarray]], variants: Mapping[str, Overrides]
) -> Table:
    """The error of every method on the holes of every problem.

    Args:
        asked: How it was asked for.
        figure: What is compared.
        problems: Of each seed, the true rows and the rows with holes.
        variants: Our settings, by name; the first is the one that is to reach the bar.
    """
    settings = {method: asked.overrides(own) for method, own in variants.items()}
    found: dict[str, list[Found]] = {}
    for seed, (truth, holed) in enumerate(problems):
        columns = [Column(f"column {i + 1}", "real") for i in range(truth.shape[1])]
        for method, (impute, key) in methods(figure.name, settings, figure.k).items():
            attempt = partial(_attempt, impute, truth, holed, columns, seed, figure.root)
            if record := asked.records.measured(attempt, method=method, seed=seed, **key):
                found.setdefault(method, []).append(record)
    first = next(iter(variants))
    notes = [*figure.notes, *imputers.NOTES]
    lines: list[Row] = []
    for method, done in found.items():
        errors = [record["error"] for record in done]
        bars = (figure.bar, figure.aim) if method == first else (None, None)
        took = [record["seconds"] for record in done]
        lines.append(Row(method, median(took), Spread.of(errors), *bars, under=True, seconds=took))
        spread = f" (standard deviation {stdev(errors):.4f})" if len(errors) > 1 else ""
        notes.append(f"{method}: mean {mean(errors):.4f}{spread}")
    lines += [Row(f"{name}, published", None, Spread.of([error])) for name, error in figure.published.items()]
    notes += [f"{method}: {described(own)}" for method, own in settings.items()]
    return Table(f"{figure.title}, {len(problems)} seeds", "s", figure.error, lines, notes)


def methods(name: str, variants: Mapping[str, Overrides], k: int) -> dict[str, tuple[Imputer, Found]]:
    """What fills holes: our variants, then the peers; and what a record of each is known by, beside the name.

    Args:
        name: Of the data.
        variants: Our settings, by name; "data.valid" is the part of the rows to hold out.
        k: Importance samples of a filling.
    """
    mine = {method: (ours(name, own, k), {"settings": own, "k": k}) for method, own in variants.items()}
    return mine | {method: (impute, {}) for method, impute in imputers.PEERS.items()}


def ours(name: str, overrides: Overrides, k: int) -> Imputer:
    """A model of the rows that are to be filled."""

    def impute(x: ndarray, columns: Sequence[Column], seed: int) -> ndarray:
        data = rows(name, x, columns, overrides.get("data", {}).get("valid", 0.0))
        trained = train(data, overrides, seed)
        return evaluation.impute(trained.model, data.x, k=k).double().numpy()

    return impute


def standardised(x: ndarray) -> ndarray:
    """Columns of mean 0 and deviation 1, before anything is removed, as the published figures have it."""
    return (x - x.mean(0)) / x.std(0)


def _attempt(
    impute: Imputer, truth: ndarray, holed: ndarray, columns: Sequence[Column], seed: int, root: bool
) -> Found:
    square = float(((truth - impute(holed, columns, seed))[np.isnan(holed)] ** 2).mean())
    return {"error": square**0.5 if root else square}
