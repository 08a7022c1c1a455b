"""A run on disk: started, continued, finished.

`start` checks everything that can be checked before the first file is written. `proceed` trains, and keeps a log and a
state from which `resume` goes on bit for bit: the log holds nothing that depends on the clock, and lines that were
written after the last saved state are written again, the same. `finish` evaluates on held-out data and reports.
"""

import json
import math
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from . import checkpoint, recipes
from .choices import Choice, choose
from .data import Data, table
from .evaluation import Evaluation, evaluate
from .recipes.objectives import WITHOUT_LIKELIHOOD
from .refusals import check_support
from .run import TABLES, Table, build, find, full, read, write
from .train import Options, Step, Trainer, TrainingError, fill, log, tensors

FINAL_ROWS = 1000
SECONDS_BETWEEN_SAVES = 20.0
EVALUATION, REPORT = "evaluation.json", "report.html"
FIGURES, ASIDE = "figures", ".replaced."
OWN = (
    checkpoint.RUN, log.LOG, checkpoint.STATE, checkpoint.MODEL, checkpoint.SPLIT, EVALUATION, REPORT
)  # fmt: skip
# What a run leaves under temporary names that was killed while it wrote.
LEFTOVERS = (*(f".{own}." for own in OWN), ASIDE)


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
    """The data set of a run; of a table with the columns that its model was built for, if it has been.

    What its model is told of each row belongs to it.
    """
    recipe = find(recipes.DATA, "data", run["data"])
    learnt = recipe is table and "columns" in run.get("model", {})
    data = build(recipe, "data", run["data"], *([run["model"]] if learnt else []))
    return _conditional(data, run)


def _conditional(data: Data, run: Mapping[str, Table]) -> Data:
    """The data, with what the model of the run is told of each row.

    Raises:
        ValueError: It cannot be told, or only of rows that a model is told labels of can so many be labelled.
    """
    labelled = int(run.get("train", {}).get("labelled", 0))
    given = recipes.given(run.get("model", {}))
    if labelled and given != "train label":
        raise ValueError(
            f"train.labelled={labelled} is how many labels a model learns from, and this one does not "
            "learn from few. Leave it out, or choose one that does (model.name=m2)."
        )
    return data.conditional(given, labelled) if given else data


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
    check_free(folder, force)
    data = open_data(run)
    choices = complete(run, data)
    return begin(run, folder, data, choices, make_trainer(run, data, device))


def open_data(run: dict[str, Table]) -> Data:
    """The data of a run that is to be, whose table is completed in place; what else it asks for is checked first.

    Raises:
        ValueError: Something in the tables cannot work.
    """
    run["data"] = full(find(recipes.DATA, "data", run["data"]), "data", run["data"])
    for key in ("path", "schema"):
        if run["data"].get(key):
            # the run must find its data from wherever it is opened
            run["data"][key] = str(Path(run["data"][key]).expanduser().resolve())
    for kind in TABLES[1:]:
        # what was asked for is checked before the data, which may take long to read, and before anything rests on it
        if kind == "train" or "name" in run[kind]:
            full(recipes.recipe(kind, run[kind].get("name", "")), kind, run[kind])
    # what columns a run from before had says nothing of those of other data, or with another schema
    return _conditional(load_data({"data": run["data"]}), run)


def complete(run: dict[str, Table], data: Data) -> list[Choice]:
    """Fill in the tables of a run, in place: what it leaves open is chosen from its data, and defaults are written out.

    Returns:
        What the data decided.

    Raises:
        ValueError: Something in the tables cannot work.
    """
    choices = choose(run, data)
    for kind in TABLES[1:]:
        run[kind] = full(recipes.recipe(kind, run[kind].get("name", "")), kind, run[kind])
    return choices


def begin(run: dict[str, Table], folder: Path, data: Data, choices: Sequence[Choice], trainer: Trainer) -> Experiment:
    """Write the folder of a run that is about to train. One that is there already is replaced."""
    text = write(run)

    # run.toml makes a folder a run: it goes first and comes last, so that a kill in between leaves no half a run
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    experiment = Experiment(folder, run, data, trainer, list(choices))
    # a run that is to be replaced is put aside until the new one has begun
    aside = Path(tempfile.mkdtemp(dir=folder, prefix=ASIDE))
    _move(folder, aside)
    try:
        checkpoint.save_split(folder / checkpoint.SPLIT, data.split, data.fingerprint(), choices)
        save(experiment)
        checkpoint.write(folder / checkpoint.RUN, text)
    except BaseException:
        for name in OWN:
            (folder / name).unlink(missing_ok=True)
        _move(aside, folder)
        aside.rmdir()
        for place in made:
            place.rmdir()
        raise
    shutil.rmtree(aside)
    return experiment


def _move(source: Path, target: Path) -> None:
    """Move the files of a run, and only these; run.toml, which makes it one, goes first when it leaves."""
    for name in (*OWN, FIGURES):
        if (source / name).exists():
            (source / name).replace(target / name)


def clear(folder: Path) -> None:
    """Delete the run in a folder, whole or half begun, and nothing else; the folder too, if nothing else is in it."""
    if not folder.is_dir():
        return
    shutil.rmtree(folder / FIGURES, ignore_errors=True)
    for path in list(folder.iterdir()):
        if path.name in OWN or path.name.startswith(LEFTOVERS):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def check_free(folder: Path, force: bool) -> None:
    """Refuse a folder that holds something of the user's.

    Raises:
        FileExistsError: There is something there that must not be lost.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; a run is kept in a folder. Choose another with --out.")
    ground = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not ground.is_dir() or not os.access(ground, os.W_OK | os.X_OK):
        why = "may not be written to" if ground.is_dir() else "is a file"
        raise PermissionError(f"cannot keep a run in {folder}: {ground} {why}. Choose another with --out.")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if checkpoint.RUN in names and not force:
        raise FileExistsError(
            f"{folder} holds a run already: go on with it (lowerbound resume {shlex.quote(str(folder))}), "
            "replace it with --force, or choose another with --out."
        )
    foreign = [name for name in names if name not in (*OWN, FIGURES) and not name.startswith(LEFTOVERS)]
    if foreign and checkpoint.RUN not in names:
        raise FileExistsError(
            f"{folder} is not empty, and holds no run ({foreign[0]} is there): choose another with --out."
        )


def resume(folder: Path, *, device: str = "cpu", data: Data | None = None) -> Experiment:
    """Take up a run where its last saved state is.

    Args:
        folder: Of the run.
        device: Where to go on.
        data: Its data, if they are at hand.

    Raises:
        FileNotFoundError: There is no run.
        ValueError: Its files are damaged, or its data have changed.
    """
    run = read_run(folder)
    if not (folder / checkpoint.STATE).is_file():
        raise ValueError(
            f"{folder} has no {checkpoint.STATE}: its prior was fitted after training, or the file is lost, so "
            "there is nothing to go on from. Train another run with its run.toml."
        )
    _check_whole(folder, run)
    data = load_data(run) if data is None else data
    check_unchanged(folder, data)
    trainer = make_trainer(run, data, device)
    seconds = checkpoint.load_state(folder / checkpoint.STATE, trainer)
    log.rewind(folder, trainer.step)
    # of a run that has ended no other step will write it, and it may be lost
    checkpoint.save_model(folder / checkpoint.MODEL, trainer.result(), run, trainer.step)
    choices = checkpoint.load_choices(folder / checkpoint.SPLIT)
    return Experiment(folder, run, data, trainer, choices, seconds)


def read_run(folder: Path) -> dict[str, Table]:
    """The tables of the run in a folder.

    Raises:
        FileNotFoundError: There is none.
    """
    if not (folder / checkpoint.RUN).is_file():
        usual = Path("runs") / folder.name
        meant = f" (did you mean {usual}?)" if (usual / checkpoint.RUN).is_file() else ""
        raise FileNotFoundError(
            f"there is no run in {folder}{meant}: it has no {checkpoint.RUN}. Train one: lowerbound train."
        )
    run = read(folder / checkpoint.RUN)
    if lacking := [kind for kind in TABLES if not run[kind]]:
        raise ValueError(
            f"{folder / checkpoint.RUN} has no table {' and no '.join(map(repr, lacking))}: it was cut short. Copy it "
            f"again; {checkpoint.MODEL} holds the tables too, as metadata."
        )
    return run


def _check_whole(folder: Path, run: Mapping[str, Table]) -> None:
    """Refuse tables that lost options since the run began: their defaults would silently take the place.

    Raises:
        ValueError: Options are missing; they are listed.
    """
    try:
        _, metadata = checkpoint.read_tensors(folder / checkpoint.MODEL)
    except (OSError, ValueError):
        return  # nothing to compare with; training writes it anew
    tables = metadata.get("run", {})
    begun = {f"{kind}.{key}" for kind in TABLES for key, value in tables.get(kind, {}).items() if value is not None}
    if lost := sorted(begun - {f"{kind}.{key}" for kind in TABLES for key in run[kind]}):
        raise ValueError(
            f"{folder / checkpoint.RUN} lacks {', '.join(lost)}, with which the run began: it was cut short or edited. "
            f"Put back what was there ({checkpoint.MODEL} holds it as metadata)."
        )


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
    before, began = experiment.seconds, time.monotonic()
    saved = began
    for step in experiment.trainer.fit(experiment.data):
        log.record(experiment.folder, step, experiment.trainer.options.steps, has_likelihood(experiment.run))
        now = time.monotonic()
        experiment.seconds = before + now - began
        if now - saved > SECONDS_BETWEEN_SAVES or step.done:
            save(experiment)
            saved = time.monotonic()
        yield step


def save(experiment: Experiment) -> None:
    """Write the model as it would be used now, and the state to go on from."""
    trainer, folder = experiment.trainer, experiment.folder
    log.settle(folder)
    checkpoint.save_state(folder / checkpoint.STATE, trainer, experiment.seconds)
    checkpoint.save_model(folder / checkpoint.MODEL, trainer.result(), experiment.run, trainer.step)


def finish(experiment: Experiment, *, k: int = 100, part: str = "test") -> Evaluation:
    """Evaluate on held-out data, on a thousand rows at most, and write what was found, with the report."""
    from .report import write as write_report

    model, trainer, data = experiment.trainer.averaged, experiment.trainer, experiment.data
    fill(model, trainer.result())
    bad = [name for name, weight in tensors(model).items() if not weight.isfinite().all()]
    if bad:
        raise TrainingError(
            f"training ended with weights that are not finite, {bad[0]} first: there is nothing to evaluate. Try a "
            "smaller learning rate (train.lr) or less weight decay (train.weight_decay)."
        )
    x, context = data.fixed(part, FINAL_ROWS), data.context(part, FINAL_ROWS)
    found = evaluate(
        model,
        x,
        *context,
        k=k,
        discrete=is_probability(model, data),
        dims=data.dims,
        labels=data.labels_of(part, FINAL_ROWS),
        likelihood=has_likelihood(experiment.run),
    )
    if math.isnan(found.distortion.mean):
        raise TrainingError(
            "training ended with a model whose log-likelihood is not a number: there is nothing to report. Try a "
            "smaller learning rate (train.lr) or a longer warm-up (train.warmup)."
        )
    checkpoint.write(experiment.folder / EVALUATION, json.dumps({"split": part} | found.summary(), indent=1) + "\n")
    write_report(
        experiment.folder / REPORT,
        run=experiment.run,
        model=model,
        data=data,
        evaluation=found,
        log=log.read(experiment.folder),
        notes=[str(choice) for choice in experiment.choices],
        seconds=experiment.seconds,
        split=part,
    )
    return found


def make_trainer(run: Mapping[str, Table], data: Data, device: str) -> Trainer:
    """The model of a run with its starting values, ready to train. The caller's random state is left alone.

    Raises:
        ValueError: The data do not fit the tables, or the tables each other.
    """
    place = find_device(device)
    options: Options = build(Options, "train", run["train"])
    if options.batch > len(data.split["train"]):
        n = len(data.split["train"])
        raise ValueError(
            f"train.batch={options.batch} is more than the {n:,} rows there are to train on: "
            f"set train.batch={n} or less, or give more data."
        )
    # what a recipe takes its starting values from: rows, and what is told of them if anything is
    rows = (data.fixed("train", recipes.START_ROWS), *data.context("train", recipes.START_ROWS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = build(find(recipes.MODELS, "model", run["model"]), "model", run["model"], *rows)
        # some objectives learn too, and start at random
        objective = build(find(recipes.OBJECTIVES, "objective", run["objective"]), "objective", run["objective"])
    for part, indices in data.split.items():
        check_support(run, model.decoder.family.support, data.fixed(part), indices)
    trainer = Trainer(model.to(place), objective, options)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            x, *context = (t[: options.batch].to(place) for t in rows)
            trainer.loss(x, torch.zeros((), device=place), *context)
    except TypeError as error:
        raise ValueError(str(error)) from None
    return trainer


def has_likelihood(run: Mapping[str, Table]) -> bool:
    """Whether the objective of a run trains a likelihood: without one no bound means anything."""
    return run["objective"]["name"] not in WITHOUT_LIKELIHOOD


def is_probability(model: Any, data: Data) -> bool:
    """Whether a bound is one on probabilities, and not on densities: bits/dim mean something of the former only."""
    return data.noise == "dequantize" or (data.discrete and bool(model.decoder.family.support.is_discrete))


def find_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        ValueError: There is none here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"there is no device {name!r}: give cpu, cuda, or one of several as cuda:1.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(
            f"device {name!r} is not here: torch {torch.__version__} finds {count} CUDA devices. Leave --device out, "
            "or install a torch with CUDA."
        )
    return device
