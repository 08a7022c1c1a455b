"""What the verbs share: the app, the consoles, the options that many of them take, and how a run is opened."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter
from rich.console import Console

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Data
    from ..models import Model

app = cyclopts.App(
    name="lowerbound",
    help="Variational autoencoders that are right by default.\n\n"
    "Train one: `lowerbound train digits`, `lowerbound train photos/ data.size=64`. "
    "Then `evaluate`, `sample`, `reconstruct`, `interpolate`, `traverse`, `encode` and `decode` take the run's folder.",
    help_format="markdown",
    version_flags=["--version"],
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
for console in (out, err):
    # between words on a terminal; in a file or a pipe a line stays a line
    console.soft_wrap = not console.is_terminal

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON only.")]
Run = Annotated[Path, Parameter(help="The folder of a run.")]
OutFile = Annotated[Path | None, Parameter(name=["--out", "-o"], help="Where to put it: .png, .npz, .parquet.")]
OutRows = Annotated[
    Path | None,
    Parameter(name=["--out", "-o"], help="Where to put it: .png, .npz, .parquet; of a table .csv, .parquet, ..."),
]
Count = Annotated[int, Parameter(name=["--count", "-n"], help="How many.")]
Draw = Annotated[bool, Parameter(negative="", help="Draw from p(x|z), instead of its mean.")]
Seed = Annotated[int, Parameter(help="Of the random draws.")]
Device = Annotated[str, Parameter(help="Where to compute: cpu, cuda.")]
Label = Annotated[
    str | None,
    Parameter(help="Of a model that is told labels: the class, by its name or number, or the numbers, as 0.5,1,2."),
]
Split = Annotated[str, Parameter(help="Which rows: train, valid or test.")]


def load(run: Path, device: str) -> tuple["Model", "Data"]:
    """The model of a run and its data, which must be those it was trained on."""
    from .. import checkpoint, experiment

    place = experiment.find_device(device)
    tables = experiment.read_run(run)
    model, _ = checkpoint.load_model(run, device=str(place))
    data = experiment.load_data(tables)
    experiment.check_unchanged(run, data)
    return model, data


def at_least(least: int, **given: int) -> None:
    """Refuse options that are too small.

    Raises:
        ValueError: One is.
    """
    for name, value in given.items():
        if value < least:
            raise ValueError(f"--{name} {value} is too small: give {least} or more.")


def part(data: "Data", split: str) -> "Tensor":
    """The rows of a split, as the likelihood sees them."""
    from ..run import hint

    if split not in data.split:
        raise ValueError(f"there is no split {split!r}{hint(split, data.split)}: {', '.join(data.split)}.")
    return data.fixed(split)
