"""Six tables of mixed columns with holes in given places: the error of filling them, column by column.

Tables, kinds of columns and masks are those of HI-VAE (Nazábal et al. 2020, https://arxiv.org/abs/1807.03653), and so
are the errors: of numbers the root mean square error over the column's range, of ordinals the mean distance over the
number of levels, of categories the part that is wrong; each is averaged over the columns of its kind, and "all" over
all columns. Nothing is held out but what training stops by, and rows with holes of their own, whose truth nobody
knows, are trained on too.

Axes: n rows, d columns.
"""

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
from numpy import ndarray

from lowerbound.columns import Column, Kind

from ..report import Row, Table
from ..timing import Spread
from . import imputers
from .asked import OURS, Asked, Found, Overrides, folder
from .filling import methods
from .imputers import Imputer
from .ours import described

SETTINGS: Overrides = {"data": {"valid": 0.1}}
# Of one table only, over those.
OWN: dict[str, Overrides] = {}
SEEDS = 1
K = 200

SETS = ("Adult", "Breast", "Wine", "defaultCredit", "letter", "spam")
MASKS = (10, 20, 50)
BETTER_ON, BEST_ON = 5, 4
# Larger whole numbers are no counts to us: `lowerbound.data.tables.kinds`.
LARGEST_COUNT = 10_000
KINDS = {"numeric": ("real", "positive", "count"), "ordinal": ("ordinal",), "categorical": ("category", "binary")}
QUICK_SETS, QUICK_ROWS = ("Breast", "Wine"), 300


def run(asked: Asked) -> Iterator[Table]:
    """A table of each set, and how often we are ahead."""
    place = folder("hivae")
    errors: dict[str, dict[str, float]] = {}
    for name in QUICK_SETS if asked.quick else SETS:
        found = measure(asked, place / name)
        yield of_set(asked, name, found)
        if len({len(done) for done in found.values()}) == 1:  # else a method broke off, and there is no comparison
            errors[name] = {method: mean(record["all"] for record in done) for method, done in found.items()}
    yield summary(errors)


def measure(asked: Asked, place: Path) -> dict[str, list[Found]]:
    """What each method reaches on one set: a record for each mask and seed."""
    truth, columns = read(place)
    truth = truth[: QUICK_ROWS if asked.quick else None]
    fillers = methods(place.name, {OURS: asked.overrides(settings_of(place.name))}, K)
    found: dict[str, list[Found]] = {method: [] for method in fillers}
    for part in MASKS[-1:] if asked.quick else MASKS:
        holed = np.where(mask(place / f"Missing{part}_1.csv.gz", truth.shape), np.nan, truth)
        for method, (impute, key) in fillers.items():
            for seed in range(asked.seeds):
                attempt = partial(fill, impute, truth, holed, columns, seed)
                named = {"set": place.name, "mask": part, "method": method, "seed": seed}
                if record := asked.records.measured(attempt, **named, **key):
                    found[method].append(record)
    return found


def fill(impute: Imputer, truth: ndarray, holed: ndarray, columns: Sequence[Column], seed: int) -> Found:
    """The errors of filling the holes; numbers are kept within what is known of their column, whoever fills them."""
    filled = impute(holed, columns, seed).clip(np.nanmin(holed, 0), np.nanmax(holed, 0))
    return errors_of(truth, filled, np.isnan(holed) & ~np.isnan(truth), columns)


def settings_of(name: str) -> dict[str, dict]:
    """Our settings for one set."""
    own = OWN.get(name, {})
    return {kind: {**SETTINGS.get(kind, {}), **own.get(kind, {})} for kind in {*SETTINGS, *own}}


def read(place: Path) -> tuple[ndarray, tuple[Column, ...]]:
    """The rows of a set (n, d), levels as codes, NaN where nobody knows the truth; and its columns."""
    x = np.genfromtxt(place / "data.csv.gz", delimiter=",")
    with (place / "data_types.csv").open(newline="") as file:
        kinds = [line["type"] for line in csv.DictReader(file)]
    columns = []
    for i, kind in enumerate(kinds):
        known = x[~np.isnan(x[:, i]), i]
        if kind in ("cat", "ordinal"):
            levels = np.unique(known)
            x[:, i] = np.where(np.isnan(x[:, i]), np.nan, np.searchsorted(levels, x[:, i]))
            of_levels: Kind = "ordinal" if kind == "ordinal" else "category" if len(levels) > 2 else "binary"
            columns.append(Column(f"column {i + 1}", of_levels, tuple(f"{level:g}" for level in levels), "int64"))
        else:
            columns.append(number(f"column {i + 1}", kind, known))
    return x, tuple(columns)


def number(name: str, kind: str, known: ndarray) -> Column:
    """A column of numbers. Those that are called positive and hold zeros are counts, or else real, to us."""
    whole, low, high = bool((known == np.rint(known)).all()), float(known.min()), float(known.max())
    found: Kind = "real"
    if kind == "pos" and low > 0:
        found = "positive"
    elif kind in ("pos", "count") and whole and low >= 0 and high < LARGEST_COUNT:
        found = "count"
    return Column(name, found, decimals=0 if whole else None)


def mask(path: Path, shape: tuple[int, ...]) -> ndarray:
    """Where a file of rows and columns, counted from 1, points to."""
    at = np.genfromtxt(path, delimiter=",", dtype=int) - 1
    at = at[at[:, 0] < shape[0]]
    found = np.zeros(shape, bool)
    found[at[:, 0], at[:, 1]] = True
    return found


def errors_of(truth: ndarray, filled: ndarray, hidden: ndarray, columns: Sequence[Column]) -> dict[str, float]:
    """The mean error of the columns of each kind, and of all."""
    found: dict[str, list[float]] = {kind: [] for kind in ("all", *KINDS)}
    for i, column in enumerate(columns):
        if not hidden[:, i].any():
            continue
        true, guess = truth[hidden[:, i], i], filled[hidden[:, i], i]
        if column.kind in KINDS["numeric"]:
            kind = "numeric"
            error = np.sqrt(((true - guess) ** 2).mean()) / (np.nanmax(truth[:, i]) - np.nanmin(truth[:, i]))
        elif column.kind == "ordinal":
            kind, error = "ordinal", np.abs(true - guess).mean() / len(column.levels)
        else:
            kind, error = "categorical", (true != guess).mean()
        found[kind].append(float(error))
        found["all"].append(float(error))
    return {kind: mean(errors) for kind, errors in found.items() if errors}


def of_set(asked: Asked, name: str, found: dict[str, list[Found]]) -> Table:
    """The errors on one set: the mean over the masks, of each seed."""
    lines, notes = [], []
    for method, done in found.items():
        seeds = {record["key"]["seed"] for record in done}
        errors = [mean(r["all"] for r in done if r["key"]["seed"] == seed) for seed in seeds]
        if errors:
            took = [record["seconds"] for record in done]
            lines.append(Row(method, mean(took), Spread.of(errors), seconds=took))
        for part in sorted({record["key"]["mask"] for record in done}):
            own = [record for record in done if record["key"]["mask"] == part]
            kinds = [f"{kind} {mean(r[kind] for r in own):.4f}" for kind in ("all", *KINDS) if kind in own[0]]
            notes.append(f"{part} % {method}: {', '.join(kinds)}")
    notes += [described(asked.overrides(settings_of(name))), *imputers.NOTES]
    title = f"{name}, with HI-VAE's masks of {', '.join(map(str, MASKS))} %; seeds: {asked.seeds}"
    return Table(title, "s a mask", "mean error over columns", lines, notes)


def summary(errors: dict[str, dict[str, float]]) -> Table:
    """On how many sets we are better than means and MICE, and better than all."""
    better = [e[OURS] < min(e[imputers.MEANS], e[imputers.CHAINED]) for e in errors.values()]
    best = [e[OURS] <= min(e.values()) for e in errors.values()]
    lines = (
        Row("better than means and modes and than MICE", None, Spread.of([sum(better)]), BETTER_ON),
        Row("better than all peers", None, Spread.of([sum(best)]), BEST_ON, BEST_ON),
    )
    ranked = [f"{name}: {' < '.join(sorted(e, key=lambda method: e[method]))}" for name, e in errors.items()]
    notes = ("the mean error over columns, masks and seeds decides", *ranked)
    return Table(f"of {len(errors)} sets, those where lowerbound is", "", "sets", lines, notes)
