"""A run on disk: started, continued, finished.

`start` checks everything that can be checked before the first file is written. `proceed` trains, and keeps a log and a
state from which `resume` goes on bit for bit: the log holds nothing that depends on the clock, and lines that were
written after the last saved state are written again, the same. `finish` evaluates on held-out data and reports.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from . import checkpoint, recipes
from .choices import Choice, check_support, choose
from .data import Data
from .evaluate import Evaluation, evaluate
from .run import TABLES, Table, build, find, full, read, write
from .train import Options, Step, Trainer, fill

LOG_LINES = 500
SECONDS_BETWEEN_SAVES = 20.0
EVALUATION = "evaluation.json"


@dataclass
class Experiment:
    """A run, with its folder, its data and its trainer.

    Attributes:
        folder: Where its files are.
        run: The four tables, complete.
        data: The data set.
        trainer: The model in training.
        choices: What the data decided, with reasons.
        seconds: How long it has trained, in all its lives.
    """

    folder: Path
    run: dict[str, Table]
    data: Data
    trainer: Trainer
    choices: list[Choice] = field(default_factory=list)
    seconds: float = 0.0


def load_data(run: Mapping[str, Table]) -> Data:
    """The data set of a run."""
    return build(find(recipes.DATA, "data", run["data"]), "data", run["data"])


def start(run: dict[str, Table], folder: Path, *, force: bool = False, device: str = "cpu") -> Experiment:
    """Begin a run: complete its tables, build its model, write its folder.

    Args:
        run: The four tables; what they leave open is chosen from the data.
        folder: Where to keep it.
        force: Whether a run that is there already may be replaced.
        device: Where to train.

    Raises:
        FileExistsError: There is a run already.
        ValueError: Something in the tables cannot work, or the data do not fit them.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; a run is kept in a folder. Choose another with --out.")
    if folder.is_dir() and any(folder.iterdir()) and not (force and (folder / checkpoint.RUN).is_file()):
        what = "holds a run already" if (folder / checkpoint.RUN).is_file() else "is not empty, and holds no run"
        remedy = "go on with it (lowerbound resume), replace it with --force, or choose another with --out"
        raise FileExistsError(f"{folder} {what}: {remedy if 'already' in what else 'choose another with --out'}.")

    run["data"] = full(find(recipes.DATA, "data", run["data"]), "data", run["data"])
    data = load_data(run)
    choices = choose(run, data)
    for kind in TABLES[1:]:
        run[kind] = full(recipes.recipe(kind, run[kind].get("name", "")), kind, run[kind])
    trainer = _trainer(run, data, device)

    folder.mkdir(parents=True, exist_ok=True)
    for old in (checkpoint.LOG, checkpoint.STATE, checkpoint.MODEL, EVALUATION, "report.html"):
        (folder / old).unlink(missing_ok=True)
    checkpoint.write(folder / checkpoint.RUN, write(run))
    checkpoint.save_split(folder / checkpoint.SPLIT, data.split, data.fingerprint())
    experiment = Experiment(folder, run, data, trainer, choices)
    save(experiment)
    return experiment


def resume(folder: Path, *, device: str = "cpu") -> Experiment:
    """Take up a run where its last saved state is.

    Raises:
        FileNotFoundError: There is no run.
        ValueError: Its files are damaged, or its data have changed.
    """
    run = read_run(folder)
    data = load_data(run)
    check_unchanged(folder, data)
    trainer = _trainer(run, data, device)
    seconds = checkpoint.load_state(folder / checkpoint.STATE, trainer)
    lines = [line for line in read_log(folder) if line["step"] <= trainer.step]
    checkpoint.write(folder / checkpoint.LOG, "".join(_line(line) for line in lines))
    return Experiment(folder, run, data, trainer, seconds=seconds)


def read_run(folder: Path) -> dict[str, Table]:
    """The tables of the run in a folder.

    Raises:
        FileNotFoundError: There is none.
    """
    if not (folder / checkpoint.RUN).is_file():
        raise FileNotFoundError(
            f"there is no run in {folder}: it has no {checkpoint.RUN}. Train one: lowerbound train."
        )
    return read(folder / checkpoint.RUN)


def check_unchanged(folder: Path, data: Data) -> None:
    """Refuse data that are not those of the run.

    Raises:
        ValueError: Rows, labels or split differ from those that were trained on.
    """
    _, fingerprint = checkpoint.load_split(folder / checkpoint.SPLIT)
    if fingerprint != data.fingerprint():
        raise ValueError(
            f"the data {data.name!r} are not those that {folder} was trained on (fingerprint {fingerprint[:12]} then, "
            f"{data.fingerprint()[:12]} now): something was added, removed or changed, and what was held out then may "
            "not be now. Put it back, or train a new run."
        )


def proceed(experiment: Experiment) -> Iterator[Step]:
    """Train to the end, logging, and saving as time goes by. Whoever leaves the loop early calls `save`.

    Yields:
        Each step, after it was logged.
    """
    trainer, folder = experiment.trainer, experiment.folder
    every = max(1, trainer.options.steps // LOG_LINES)
    before, began = experiment.seconds, time.monotonic()
    saved = began
    with (folder / checkpoint.LOG).open("a", encoding="utf-8") as log:
        for step in trainer.fit(experiment.data):
            if step.number % every == 0 or step.validation or step.done:
                log.write(_line(log_entry(step)))
                log.flush()
            now = time.monotonic()
            experiment.seconds = before + now - began
            if now - saved > SECONDS_BETWEEN_SAVES or step.done:
                save(experiment)
                saved = time.monotonic()
            yield step


def save(experiment: Experiment) -> None:
    """Write the model as it would be used now, and the state to go on from."""
    trainer, folder = experiment.trainer, experiment.folder
    checkpoint.save_state(folder / checkpoint.STATE, trainer, experiment.seconds)
    checkpoint.save_model(folder / checkpoint.MODEL, trainer.result(), experiment.run, trainer.step)


def finish(experiment: Experiment, *, k: int = 100, part: str = "test") -> Evaluation:
    """Evaluate on held-out data and write what was found, with the report."""
    from .report import write as write_report

    model, trainer, data = experiment.trainer.averaged, experiment.trainer, experiment.data
    fill(model, trainer.result())
    found = evaluate(model, data.fixed(part), k=k, discrete=data.discrete)
    checkpoint.write(experiment.folder / EVALUATION, json.dumps({"split": part} | found.summary(), indent=1) + "\n")
    write_report(
        experiment.folder / "report.html",
        run=experiment.run,
        model=model,
        data=data,
        evaluation=found,
        log=read_log(experiment.folder),
        notes=[str(choice) for choice in experiment.choices],
        seconds=experiment.seconds,
        split=part,
    )
    return found


def log_entry(step: Step) -> dict[str, Any]:
    """What the log says of a step. Nats for each datum; nothing that depends on the clock."""
    entry: dict[str, Any] = {
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
            entry[f"{name}_bound"] = found.elbo.mean
            entry[f"{name}_rate"] = found.rate.mean
            entry[f"{name}_distortion"] = found.distortion.mean
    return {key: value if math.isfinite(value) else None for key, value in entry.items()}


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a log; one that was cut short by a kill ends it."""
    path = folder / checkpoint.LOG
    lines: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + "\n"


def _trainer(run: Mapping[str, Table], data: Data, device: str) -> Trainer:
    """The model of a run with its starting values, ready to train. The caller's random state is left alone."""
    options: Options = build(Options, "train", run["train"])
    objective = build(find(recipes.OBJECTIVES, "objective", run["objective"]), "objective", run["objective"])
    rows = data.fixed("train")[: recipes.START_ROWS]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = build(find(recipes.MODELS, "model", run["model"]), "model", run["model"], rows)
    for part in data.split:
        check_support(run, model.decoder.family.support, data.fixed(part))
    return Trainer(model.to(device), objective, options)
