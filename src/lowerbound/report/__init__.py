"""One self-contained page about a run: what the model has learned, in words, numbers and pictures.

The page says first what was measured, on which data and how; then it shows what the numbers cannot: reconstructions,
samples, paths between data, what each latent dimension does, where the data lie in the latent space, and whether
samples are copies of training data. Pictures show the mean of p(x|z), not a draw from it, and say so.

It works for every model, because it uses the two verbs that all have: `model(x)` infers a trace, and
`model.generate(n, z=...)` gives p(x|z) of latent variables that are held, changed or drawn from the prior.

The same run gives the same bytes. Writing it leaves the caller's random state and the model's mode as they were.
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..data import Data
from ..evaluation import Evaluation
from ..files import write as write_file
from ..models import Model
from ..page import html
from ..views import without_gradients
from .sections import SECTIONS
from .subject import SEED, Subject
from .words import duration, facts, headline

__all__ = ["write"]


def write(
    path: Path | str,
    *,
    run: Mapping[str, Mapping[str, Any]],
    model: Model,
    data: Data,
    evaluation: Evaluation,
    log: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
    seconds: float | None = None,
    split: str = "test",
) -> Path:
    """Write the page, and beside it the folder `figures/` with its pictures.

    Args:
        path: Of the page, ending in .html. An older one is replaced once the new one is complete.
        run: The tables "data", "model", "objective" and "train".
        model: The trained model, on any device.
        data: What it was trained on.
        evaluation: Its numbers on the split.
        log: One mapping for each logged step, as `figures.curves` takes them; "skipped" counts skipped updates.
        notes: What the reader should know: choices that were made, and why.
        seconds: How long training took.
        split: Which rows were evaluated, and are shown.

    Returns:
        The path.
    """
    path = Path(path)
    with without_gradients(model, SEED):
        subject = Subject.of(model, data, evaluation, log, split)
        sections = [section for make in SECTIONS if (section := make(subject)) is not None]
        summary = headline(evaluation, data, log, split, subject.strays)
    made = f"lowerbound {version('lowerbound')}, PyTorch {torch.__version__}, Python {platform.python_version()}"
    made += "" if seconds is None else f". Trained in {duration(seconds)}"
    page = html(
        kind="report",
        title=data.name,
        headline=summary,
        facts=facts(evaluation, data, model),
        sections=sections,
        tables=run,
        notes=[*notes, *data.notes],
        made=made + ".",
    )
    pictures = path.parent / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for figure in section.figures:
            write_file(pictures / f"{figure.name}.png", figure.png)
    write_file(path, page)
    return path
