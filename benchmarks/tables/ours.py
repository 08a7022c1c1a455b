"""Our model of a table, trained as `lowerbound train` trains it: what is not set is chosen from the data."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lowerbound import experiment
from lowerbound.columns import Column
from lowerbound.data import Data
from lowerbound.data.dataset import split
from lowerbound.run import TABLES, Table, as_typed
from lowerbound.train import fill

from .asked import Overrides

# Looks at a model in training, where someone looks.
LOOKS = 40


@dataclass(frozen=True)
class Trained:
    """A model, and how it came about.

    Attributes:
        model: With the weights that would be saved.
        run: Its tables, complete.
        steps: Updates made.
        seconds: Of choosing, building and training; without the looks.
    """

    model: Any
    run: dict[str, Table]
    steps: int
    seconds: float


def train(data: Data, overrides: Overrides, seed: int, look: Callable[[Any, float], None] | None = None) -> Trained:
    """Train a model of a data set.

    Args:
        data: The rows.
        overrides: By table of the run ("model", "objective", "train"), as on the command line.
        seed: Of the training.
        look: Called with the model so far and the seconds so far, on a stopped clock.
    """
    start = time.perf_counter()
    run: dict[str, Table] = {kind: dict(overrides.get(kind, {})) for kind in TABLES} | {"data": {"name": data.name}}
    run["train"].setdefault("seed", seed)
    experiment.complete(run, data)
    trainer = experiment.make_trainer(run, data, "cpu")
    every = max(1, trainer.options.steps // LOOKS)
    for step in trainer.fit(data):
        if look and (step.number % every == 0 or step.done):
            stopped = time.perf_counter()
            look(trainer.averaged, stopped - start)
            start += time.perf_counter() - stopped
    model = trainer.averaged
    fill(model, trainer.result())
    return Trained(model, run, trainer.step, time.perf_counter() - start)


def rows(name: str, x: np.ndarray, columns: Sequence[Column], valid: float = 0.0) -> Data:
    """Rows in memory whose holes are to be filled: all of them are trained on, but for a row of each other part.

    Args:
        name: Of the data.
        x: Numbers (n, d), levels as codes, NaN where a value is missing.
        columns: What each column holds.
        valid: The part to hold out, so that training stops when it no longer helps there.
    """
    parts = split(len(x), valid=max(valid, 1 / len(x)), test=1 / len(x))
    return Data(name, torch.from_numpy(x).float(), parts, columns=tuple(columns))


def described(overrides: Overrides) -> str:
    """The settings, as someone would type them."""
    typed = [f"{kind}.{key}={as_typed(value)}" for kind, table in overrides.items() for key, value in table.items()]
    return f"our settings: {' '.join(typed) or 'the defaults'}"
