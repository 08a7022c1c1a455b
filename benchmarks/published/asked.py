"""How a row was asked for, and the clock that says when to stop."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lowerbound.run
from lowerbound import recipes
from lowerbound.run import Table

from ..problem import bits, pixels
from .rows import Row

Found = dict[str, Any]
# What every row is made small by, beside its own `tiny`.
TINY = {"train.steps": 6, "train.batch": 16, "train.valid_every": 3, "train.valid_rows": 16, "train.warmup": 2}
TINY_ROWS = 80
TINY_K = 7


class Clock:
    """Says when the time for this piece of work is over.

    Args:
        seconds: How long it may take.
    """

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """Whether it is time to stop where one can go on."""
        return time.monotonic() >= self.end


@dataclass(frozen=True)
class Asked:
    """How a row was asked for.

    Args:
        name: Of the row.
        row: The row.
        folder: Where its run is kept, and what else it has to go on from.
        clock: When to stop.
        seed: Of the weights, the order of the data and all noise.
        device: "cpu" or "cuda".
        smoke: Whether to be tiny: that the code runs, on a CPU in seconds. Its numbers mean nothing.
        overrides: table.key=value, of the row's file.
    """

    name: str
    row: Row
    folder: Path
    clock: Clock
    seed: int = 0
    device: str = "cpu"
    smoke: bool = False
    overrides: Sequence[str] = ()

    @property
    def k(self) -> int:
        """Importance samples for each datum."""
        return TINY_K if self.smoke else self.row.k

    def tables(self) -> dict[str, Table]:
        """The run of the row's file, with its seed, as it was asked for."""
        assert self.row.file is not None
        run = lowerbound.run.read(self.row.file)
        for assignment in self.overrides:
            lowerbound.run.override(run, assignment, recipes.annotation)
        run["train"]["seed"] = self.seed
        if self.smoke:
            run["data"] = self.tiny_data(run)
            for key, value in (*TINY.items(), *self.row.tiny.items()):
                kind, _, option = key.partition(".")
                run[kind][option] = value
            if "warmup" in run["objective"]:
                run["objective"]["warmup"] = 2
        elif run["data"].get("path"):
            run["data"]["path"] = str(of_data(Path(run["data"]["path"])))
        return run

    def tiny_data(self, run: Mapping[str, Table]) -> Table:
        """A few rendered images of the shape of the row's, so that nothing has to be at hand."""
        import numpy as np

        grey = self.row.unit == "bits/dim"
        x = pixels(TINY_ROWS, (3, 32, 32)) if grey else bits(TINY_ROWS)
        file = self.folder.parent / f"{self.name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, x.numpy())
        return {"name": "array", "path": str(file)}


def of_data(path: Path) -> Path:
    """A file of data: as it is named, or in $LOWERBOUND_DATA.

    Raises:
        FileNotFoundError: It is in neither place.
    """
    places = [path, Path(os.environ.get("LOWERBOUND_DATA", ".")) / path]
    for place in places:
        if place.is_file():
            return place.resolve()
    raise FileNotFoundError(
        f"{path} is not there: set LOWERBOUND_DATA to the folder that holds it, or say where it is by data.path=FILE."
    )
