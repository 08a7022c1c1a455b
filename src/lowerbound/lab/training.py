"""Training the members of a laboratory: those of one shape together, the others one after another.

What is on disk at any moment leads on: a member that is finished is a run like any other; members that train together
have their state in one file of the laboratory, so that a kill finds all of them at the same step.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from torch import nn

from .. import checkpoint, experiment
from ..choices import Choice
from ..data import Data
from ..experiment import Experiment
from ..files import write
from ..train import Ensemble, Step, Trainer
from .plan import Member, Plan

PLAN, PROGRESS = "lab.toml", "progress.json"
SECONDS_BETWEEN_SAVES = 60.0


@dataclass(frozen=True)
class Progress:
    """How far a laboratory has come.

    Attributes:
        what: What trains now.
        step: Its step, of `steps`.
        done: Steps of all models so far, of `total`.
    """

    what: str
    step: int
    steps: int
    done: int
    total: int


@dataclass
class Lab:
    """A laboratory on disk.

    Attributes:
        folder: Where its files are.
        plan: What it trains.
        data: On what.
        choices: What the data decided, with reasons.
        device: Where it trains.
        finished: The names of the members that are trained.
        notes: What the reader should know of how it went.
        seconds: How long it has trained, in all its lives.
        save: Write all that is needed to go on from here.
    """

    folder: Path
    plan: Plan
    data: Data
    choices: list[Choice]
    device: str = "cpu"
    finished: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    save: Callable[[], None] = lambda: None

    def write_progress(self) -> None:
        """Write which members are finished, and what is known of the rest."""
        choices = [[choice.key, choice.value, choice.reason] for choice in self.choices]
        known = {"finished": self.finished, "notes": self.notes, "seconds": self.seconds, "choices": choices}
        write(self.folder / PROGRESS, json.dumps(known | {"data": self.data.fingerprint()}, indent=1) + "\n")


def proceed(lab: Lab) -> Iterator[Progress]:
    """Train what is not trained yet, saving as time goes by. Whoever leaves the loop early calls `Lab.save`.

    Yields:
        After each step, how far it has come.
    """
    steps = lab.plan.run["train"]["steps"]
    total = steps * len(lab.plan.members())
    before, began = lab.seconds, time.monotonic()
    for group in lab.plan.groups():
        missing = [member for member in group if member.name not in lab.finished]
        for what, step, models in _train(lab, missing):
            lab.seconds = before + time.monotonic() - began
            yield Progress(what, step, steps, steps * len(lab.finished) + step * models, total)


def _train(lab: Lab, members: Sequence[Member]) -> Iterator[tuple[str, int, int]]:
    """Train members of one shape: what trains, its step, and how many models it is."""
    begun = _stack(lab, members) if len(members) > 1 else None
    if begun is not None:
        yield from _together(lab, members, *begun)
        return
    for member in members:
        for step in _alone(lab, member):
            yield member.name, step, 1


def _alone(lab: Lab, member: Member) -> Iterator[int]:
    """Train one member, as a run that is started or resumed."""
    folder = lab.folder / member.name
    if (folder / checkpoint.RUN).is_file():
        run = experiment.resume(folder, device=lab.device, data=lab.data)
    else:
        trainer = experiment.make_trainer(member.run, lab.data, lab.device)
        run = experiment.begin(member.run, folder, lab.data, lab.choices, trainer)

    def save() -> None:
        experiment.save(run)
        lab.write_progress()

    lab.save = save
    for step in experiment.proceed(run):
        yield step.number
    _finish(lab, [member])


Steps = tuple[Step | None, ...]


def _stack(lab: Lab, members: Sequence[Member]) -> tuple[Ensemble, Iterator[Steps]] | None:
    """Members as one, and the steps they make; None, and a note, where it cannot be done."""
    trainers = [experiment.make_trainer(member.run, lab.data, lab.device) for member in members]
    convolves = any(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in trainers[0].model.modules())
    if convolves and trainers[0].device.type == "cpu":
        _note(lab, "on a CPU, convolutions of several models at once take longer than one after another.")
        return None
    try:
        ensemble = Ensemble([t.model for t in trainers], [t.objective for t in trainers], trainers[0].options)
        state = lab.folder / _state_of(members)
        if state.is_file():
            checkpoint.load_state(state, ensemble)
            for member, trainer in zip(members, ensemble.trainers, strict=True):
                experiment.rewind_log(lab.folder / member.name, trainer.step)
        steps = ensemble.fit(lab.data)
        first = next(steps, None)  # what cannot be stacked is refused here
        return ensemble, steps if first is None else chain([first], steps)
    except ValueError as error:
        _note(lab, str(error))
        return None


def _note(lab: Lab, reason: str) -> None:
    """Remember, once, why models are not trained together."""
    note = f"The models are trained one after another: {reason}"
    if note not in lab.notes:
        lab.notes.append(note)


def _together(
    lab: Lab, members: Sequence[Member], ensemble: Ensemble, made: Iterator[Steps]
) -> Iterator[tuple[str, int, int]]:
    """Train members as one."""
    state = lab.folder / _state_of(members)
    runs = [
        _take_up(lab, member, trainer, state.is_file())
        for member, trainer in zip(members, ensemble.trainers, strict=True)
    ]

    def save() -> None:
        for run in runs:
            experiment.settle_log(run)
        checkpoint.save_state(state, ensemble)
        lab.write_progress()

    lab.save = save
    saved = time.monotonic()
    for steps in made:
        for run, step in zip(runs, steps, strict=True):
            if step is not None:
                experiment.record(run, step)
        if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
            save()
            saved = time.monotonic()
        yield f"{len(members)} models at once", max(step.number for step in steps if step is not None), len(members)
    for run in runs:
        run.seconds = lab.seconds / len(runs)
        experiment.save(run)
    _finish(lab, members)
    state.unlink(missing_ok=True)


def _take_up(lab: Lab, member: Member, trainer: Trainer, again: bool) -> Experiment:
    """The run of a member that trains with others: begun, or as it was when all were last saved."""
    folder = lab.folder / member.name
    if not again:
        return experiment.begin(member.run, folder, lab.data, lab.choices, trainer)
    return Experiment(folder, member.run, lab.data, trainer, lab.choices)


def _finish(lab: Lab, members: Sequence[Member]) -> None:
    lab.finished += [member.name for member in members]
    lab.write_progress()


def _state_of(members: Sequence[Member]) -> str:
    """The file that holds the state of members that are trained together."""
    return f"together-seed{members[0].seed}.safetensors"
