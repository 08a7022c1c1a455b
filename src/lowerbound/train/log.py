"""The log of a training: one JSON object a line, for the steps that are kept.

Lines are added as training goes, and may lead beyond the last saved state: taken up again, those are left out and
written once more, the same, for a log holds nothing that depends on the clock.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import write
from .trainer import Step

LOG = "log.jsonl"
LINES = 500


def record(folder: Path, step: Step, steps: int, likelihood: bool = True) -> None:
    """Add a step to the log of a run, if it is one of those that are kept.

    Args:
        folder: Of the run.
        step: The step.
        steps: How many there will be.
        likelihood: Whether a likelihood is trained at all: bounds and distortions mean something.
    """
    if step.number % max(1, steps // LINES) == 0 or step.validation or step.done:
        with (folder / LOG).open("a", encoding="utf-8") as log:
            log.write(_line(entry(step, likelihood)))


def settle(folder: Path) -> None:
    """See that the log is on the disk: a state must not outlive the lines that lead to it."""
    if (folder / LOG).exists():
        with (folder / LOG).open("a", encoding="utf-8") as log:
            os.fsync(log.fileno())


def rewind(folder: Path, step: int) -> None:
    """Leave out the lines that lead beyond a step: they will be written again."""
    write(folder / LOG, "".join(_line(line) for line in read(folder) if line["step"] <= step))


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of a log; one that was cut short by a kill ends it."""
    path = folder / LOG
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines


def entry(step: Step, likelihood: bool = True) -> dict[str, Any]:
    """What the log says of a step. Nats for each datum; nothing that depends on the clock.

    Args:
        step: The step.
        likelihood: Whether it trained one: else there is no bound and no distortion.
    """
    said: dict[str, Any] = {
        "step": step.number,
        "loss": float(step.terms.loss),
        "bound": float(step.bound),
        "rate": float(step.terms.rate),
        "distortion": float(step.terms.distortion),
        "grad_norm": float(step.grad_norm),
        "lr": step.lr,
        "skipped": step.skipped,
    }
    if step.validation:
        for name, found in (("valid", step.validation.valid), ("train", step.validation.train)):
            said[f"{name}_bound"] = found.elbo.mean
            said[f"{name}_rate"] = found.rate.mean
            said[f"{name}_distortion"] = found.distortion.mean
    if not likelihood:
        said |= {key: math.nan for key in said if key.endswith(("bound", "distortion"))}
    return {key: value if math.isfinite(value) else None for key, value in said.items()}


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + "\n"
