"""The bound of a row: a run is trained, and each test image is given many samples. Both stop at any time and go on.

The samples of an image depend on its place in the test set alone, so the numbers are the same however often the work
was interrupted.
"""

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import lowerbound as lb
from lowerbound import experiment
from lowerbound.experiment import Experiment
from lowerbound.metrics import Estimate
from lowerbound.run import Table
from lowerbound.train import fill, log

from .asked import Asked, Clock, Found

# Images that are evaluated between two looks at the clock.
BLOCK = 50


def measure(asked: Asked) -> Found | None:
    """The bound on the test images, in the row's unit; None if there is more to do."""
    trained = train(asked.tables(), asked.folder, asked.device, asked.clock)
    if trained is None:
        return None
    model = trained.trainer.averaged
    fill(model, trained.trainer.result())
    x = trained.data.fixed("test")
    done = bounds(model, x, asked.k, asked.folder / f"bounds_{asked.k}.jsonl", asked.clock, chunk=asked.row.chunk)
    if done is None:
        return None
    values, elbo, seconds = done
    scale = -1 / (math.log(2) * x[0].numel()) if asked.row.unit == "bits/dim" else -1.0
    found = Estimate.of(values) * scale
    begun = experiment.read_run(asked.folder)
    valid = [line["valid_bound"] for line in log.read(asked.folder) if "valid_bound" in line]
    return {
        "value": found.mean,
        "standard_error": found.standard_error,
        "elbo": elbo * scale,
        "k": asked.k,
        "images": len(values),
        "valid_elbo": valid[-1] if valid else None,
        "steps": trained.trainer.step,
        "passes": trained.trainer.step * begun["train"]["batch"] / len(trained.data.split["train"]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_seconds": trained.seconds,
        "evaluation_seconds": seconds,
        "run": {kind: {key: v for key, v in table.items() if key != "path"} for kind, table in begun.items()},
    }


def train(run: dict[str, Table], folder: Path, device: str, clock: Clock) -> Experiment | None:
    """Train a run, or go on with it; None if the time is over before it ends.

    Args:
        run: The four tables.
        folder: Where the run is kept.
        device: Where to train.
        clock: When to stop.

    Raises:
        ValueError: The folder holds a run with other settings.
    """
    if (folder / "run.toml").is_file():
        begun = experiment.read_run(folder)
        wrong = [f"{t}.{key}" for t in run for key, v in run[t].items() if begun[t].get(key) != v]
        if wrong:
            raise ValueError(
                f"{folder} holds a run with another {', '.join(wrong)}: go on with it by the same command, choose "
                "another place with --runs, or delete that folder to begin again."
            )
        trained = experiment.resume(folder, device=device)
    else:
        trained = experiment.start(run, folder, device=device)
    for _ in experiment.proceed(trained):
        if clock.over:
            break
    experiment.save(trained)
    return trained if trained.trainer.done else None


def bounds(
    model: lb.Model, x: Tensor, k: int, file: Path, clock: Clock, chunk: int = 0
) -> tuple[Tensor, float, float] | None:
    """The importance-weighted bound of each datum and the mean evidence lower bound, in nats; the seconds it took.

    Args:
        model: The model.
        x: Data.
        k: Samples for each.
        file: Where what is known is kept, a line for each block of data.
        clock: When to stop.
        chunk: Samples decoded at once; 0 for as many as the evaluation chooses.

    Returns:
        None if the time is over before the end.
    """
    known = {line["start"]: line for line in lines(file)}
    blocks = range(0, len(x), BLOCK)
    for start in blocks:
        if start in known:
            continue
        if clock.over:
            return None
        began = time.perf_counter()
        found = lb.evaluate(model, x[start : start + BLOCK], k=k, chunk=chunk or None, seed=start)
        known[start] = {
            "start": start,
            "bound": found.values.tolist(),
            "elbo": found.elbo.mean * len(found.values),
            "seconds": time.perf_counter() - began,
        }
        with file.open("a") as out:
            out.write(json.dumps(known[start]) + "\n")
            out.flush()
            os.fsync(out.fileno())
    values = torch.cat([torch.tensor(known[start]["bound"], dtype=torch.float64) for start in blocks])
    totals = {key: sum(known[start][key] for start in blocks) for key in ("elbo", "seconds")}
    return values, totals["elbo"] / len(values), totals["seconds"]


def lines(file: Path) -> Sequence[Found]:
    """The lines of a file; one that was cut short is left out, here and in the file."""
    whole = []
    for text in file.read_text().splitlines() if file.is_file() else ():
        try:
            whole.append(json.loads(text))
        except json.JSONDecodeError:
            break
    if file.is_file():
        file.write_text("".join(json.dumps(line) + "\n" for line in whole))
    return whole
