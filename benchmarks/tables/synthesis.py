"""Imitated rows of a table, judged by a classifier: it is trained on them, and tested on real rows (F1, macro).

A generator sees the training rows only, and imitates as many. The classifier is scikit-learn's histogram gradient
boosting with its defaults, where the published figures (TabDDPM, Kotelnikov et al. 2023,
https://arxiv.org/abs/2209.15421) have a tuned CatBoost: the same classifier trained on the real rows is the yardstick.
Ours is trained from a CSV file, as `lowerbound train` would; the peer is TVAE of the package ctgan, with its defaults.
"""

import csv
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score

from lowerbound.data import Data, table
from lowerbound.views import View, without_gradients

from ..report import Row, Table
from ..timing import Spread, stopwatch
from .asked import OURS, Asked, Found, Overrides
from .ours import described, train

Rows = Mapping[str, Sequence[Any]]

SAMPLINGS = 5
TVAE = "TVAE (ctgan), its defaults"
MISSING = ("", "?", None)


@dataclass(frozen=True)
class Task:
    """What is to be imitated, and predicted.

    Args:
        name: Of the data.
        numeric: The columns of numbers; the others hold categories.
        target: The column that is predicted.
        train: The rows that generators see.
        test: The rows that the classifier is tested on.
    """

    name: str
    numeric: frozenset[str]
    target: str
    train: Rows
    test: Rows

    @property
    def size(self) -> int:
        """Rows to train on."""
        return len(self.train[self.target])


@dataclass(frozen=True)
class Figure:
    """What is compared.

    Args:
        title: Of the table.
        published: The F1 of others, by name.
        bar: Where ours is to be.
        aim: Where it should be.
        notes: What else there is to say.
    """

    title: str
    published: Mapping[str, float]
    bar: float
    aim: float
    notes: Sequence[str] = ()


def measure(asked: Asked, task: Task, settings: Overrides, looking: bool = False) -> dict[str, list[Found]]:
    """What a classifier makes of real rows, of ours and of the peer's: a record for each training.

    Args:
        asked: How it was asked for.
        task: What is imitated.
        settings: Of ours.
        looking: Whether to look at ours as it learns.
    """
    found: dict[str, list[Found]] = {}
    settings = asked.overrides(settings)
    real = asked.records.measured(
        lambda: {"f1": [utility(task, task.train, seed) for seed in range(SAMPLINGS)]}, method="real"
    )
    found["real rows"] = [real] if real else []
    for seed in range(asked.seeds):
        attempts = {
            OURS: (lambda s=seed: ours(task, settings, s, looking), {"settings": settings}),
            TVAE: (lambda s=seed: tvae(task, s, asked.quick), {}),
        }
        for method, (attempt, key) in attempts.items():
            if method == TVAE and not _has_tvae():
                continue
            done = asked.records.measured(attempt, method=method, seed=seed, **key)
            found.setdefault(method, []).extend([done] if done else [])
    return found


def compare(asked: Asked, task: Task, figure: Figure, settings: Overrides, found: Mapping[str, list[Found]]) -> Table:
    """The F1 of each, and the seconds of training it."""
    lines, notes = [], [*figure.notes]
    for method, done in found.items():
        scores = [f1 for record in done for f1 in record["f1"]]
        if not scores:
            continue
        bars = (figure.bar, figure.aim) if method == OURS else (None, None)
        took = [record["training"] for record in done if "training" in record]
        lines.append(Row(method, median(took) if took else None, Spread.of(scores), *bars, seconds=took))
        notes.append(f"{method}: mean F1 {mean(scores):.4f}, of {len(scores)}")
    lines += [Row(f"{name}, published", None, Spread.of([f1])) for name, f1 in figure.published.items()]
    notes += [
        "classifier: scikit-learn's HistGradientBoosting, where the published have a tuned CatBoost",
        f"{SAMPLINGS} samplings of each of {asked.seeds} trainings; as many rows as the {task.size:,} real ones",
        described(asked.overrides(settings)),
    ]
    notes += [] if _has_tvae() else ["left out: TVAE, since ctgan is not installed"]
    return Table(figure.title, "s of training", "F1, macro", lines, notes)


def sooner(found: Mapping[str, list[Found]], bar: float, aim: float) -> Table:
    """How much sooner our rows are as good as the peer's: seconds of training until two looks in a row say so."""
    mine, theirs = found.get(OURS, []), found.get(TVAE, [])
    title = f"seconds of training until the F1 of {TVAE}"
    if not mine or not theirs:
        return Table(title, "", "", notes=["not measured: one of the two is not there"])
    target = median(f1 for record in theirs for f1 in record["f1"])
    took = [record["training"] for record in theirs]
    reached = [when for record in mine if (when := _reached(record["looks"], target)) is not None]
    notes = [f"F1 {target:.4f}; a look costs one sampling and one classifier, and the clock stands still for it"]
    lines = [Row(TVAE, median(took), seconds=took)]
    if len(reached) == len(mine):
        ratio = Spread.of_ratios([median(took)] * len(reached), reached)
        lines.append(Row(OURS, median(reached), ratio, bar, aim, seconds=reached))
    else:
        notes.append(f"NOT reached in {len(mine) - len(reached)} of {len(mine)} trainings")
    return Table(title, "s", "times sooner", lines, notes)


def _reached(looks: Sequence[tuple[float, float]], target: float) -> float | None:
    """When the second of two looks in a row was good enough."""
    for (_, before), (seconds, now) in pairwise(looks):
        if min(before, now) >= target:
            return seconds
    return None


def ours(task: Task, overrides: Overrides, seed: int, looking: bool) -> Found:
    """Train our model from a file, perhaps looking at it as it learns, and sample from it in the end."""
    looks: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / f"{task.name}.csv"
        write(file, task.train)
        with stopwatch() as read:
            data = table(path=str(file), target=task.target, **overrides.get("data", {}))

    def look(model: Any, seconds: float) -> None:
        looks.append((read() + seconds, utility(task, sample(model, data, task.size, seed), seed)))

    trained = train(data, overrides, seed, look if looking else None)
    f1 = [utility(task, sample(trained.model, data, task.size, 1000 * seed + s), s) for s in range(SAMPLINGS)]
    return {"f1": f1, "training": read() + trained.seconds, "steps": trained.steps, "looks": looks}


def sample(model: Any, data: Data, n: int, seed: int) -> Rows:
    """Rows as `lowerbound sample` writes them."""
    from lowerbound.data.tables.coding import Coding

    with without_gradients(model, seed):
        x = View.alone(model, data.event).generate(n, draw=True)
    return Coding(data.columns, data.aside).decode(x).to_pydict()


def tvae(task: Task, seed: int, quick: bool) -> Found:
    """Train the peer, and sample from it."""
    import pandas as pd
    from ctgan import TVAE as Peer

    frame = pd.DataFrame(dict(task.train))
    torch.manual_seed(seed)
    np.random.seed(seed)
    peer = Peer(enable_gpu=False, **({"epochs": 2} if quick else {}))
    with warnings.catch_warnings(), stopwatch() as took:
        warnings.simplefilter("ignore")
        peer.fit(frame, [name for name in frame if name not in task.numeric])
    f1 = [utility(task, peer.sample(task.size).to_dict("list"), s) for s in range(SAMPLINGS)]
    return {"f1": f1, "training": took()}


def utility(task: Task, rows: Rows, seed: int) -> float:
    """The F1 on real test rows of a classifier that was trained on some rows."""
    (x, y), (test, truth) = matrix(task, rows), matrix(task, task.test)
    if len(np.unique(y)) == 1:
        return float(f1_score(truth, np.full_like(truth, y[0]), average="macro"))
    levels = [name not in task.numeric for name in features(task)]
    model = HistGradientBoostingClassifier(categorical_features=levels, random_state=seed).fit(x, y)
    return float(f1_score(truth, model.predict(test), average="macro"))


def matrix(task: Task, rows: Rows) -> tuple[ndarray, ndarray]:
    """Features (n, d), categories as codes and NaN where missing, and the classes (n,)."""
    parts = []
    for name in features(task):
        if name in task.numeric:
            parts.append([np.nan if cell in MISSING else float(cell) for cell in rows[name]])
        else:
            known = sorted({str(cell) for cell in task.train[name] if cell not in MISSING})
            codes = {level: code for code, level in enumerate(known)}
            parts.append([codes.get(str(cell), np.nan) for cell in rows[name]])
    classes = {level: code for code, level in enumerate(sorted(set(map(str, task.train[task.target]))))}
    return np.array(parts, float).T, np.array([classes[str(cell)] for cell in rows[task.target]])


def features(task: Task) -> list[str]:
    """The columns that predict."""
    return [name for name in task.train if name != task.target]


def write(file: Path, rows: Rows) -> None:
    """Rows as CSV with a header."""
    with file.open("w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(rows)
        out.writerows(zip(*rows.values(), strict=True))


def _has_tvae() -> bool:
    try:
        import ctgan  # noqa: F401
    except ImportError:
        return False
    return True
