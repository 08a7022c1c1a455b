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
from ..train import Ensemble, NotStackable, Step, Trainer, TrainingError, log
from .plan import Member, Plan

PLAN, PROGRESS, TOGETHER = "lab.toml", "progress.json", "together-seed{seed}.safetensors"
SECONDS_BETWEEN_SAVES = 60.0


@dataclass(frozen=True)
class Progress:
    """How far a laboratory has come.

    Attributes:
        what: What trains now.
        step: Its step, of `steps`.
        done: Steps of all models so far, of `total`.
        save: Write all that is needed to go on from here.
    """

    what: str
    step: int
    steps: int
    done: int
    total: int
    save: Callable[[], None]


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
        failed: Those whose training could not go on, and why.
        notes: What the reader should know of how it went.
        seconds: How long it has trained, in all its lives.
    """

    folder: Path
    plan: Plan
    data: Data
    choices: list[Choice]
    device: str = "cpu"
    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ended(self) -> set[str]:
        """The names of the members that are trained, or cannot be."""
        return {*self.finished, *self.failed}

    def end(self, members: Sequence[Member]) -> None:
        """Remember that members are trained, unless they have failed."""
        self.finished += [member.name for member in members if member.name not in self.failed]
        self.write_progress()

    def note(self, text: str) -> None:
        """Tell the reader something, once."""
        if text not in self.notes:
            self.notes.append(text)

    def write_progress(self) -> None:
        """Write which members are finished, and what is known of the rest."""
        choices = [[choice.key, choice.value, choice.reason] for choice in self.choices]
        known = {"finished": self.finished, "failed": self.failed, "notes": self.notes, "seconds": self.seconds}
        known |= {"choices": choices, "data": self.data.fingerprint()}
        write(self.folder / PROGRESS, json.dumps(known, indent=1) + "\n")


@dataclass(frozen=True)
class _Moment:
    """A step of what trains now: how many models it is, and how all of it is saved."""

    what: str
    step: int
    models: int
    save: Callable[[], None]


def proceed(lab: Lab) -> Iterator[Progress]:
    """Train what is not trained yet, saving as time goes by. Whoever leaves the loop early calls `Progress.save`.

    Yields:
        After each step, how far it has come.
    """
    steps = lab.plan.run["train"]["steps"]
    total = steps * len(lab.plan.members())
    before, began = lab.seconds, time.monotonic()
    for group in lab.plan.groups():
        for now in _train(lab, [member for member in group if member.name not in lab.ended]):
            lab.seconds = before + time.monotonic() - began
            yield Progress(now.what, now.step, steps, steps * len(lab.ended) + now.step * now.models, total, now.save)


def _train(lab: Lab, members: Sequence[Member]) -> Iterator[_Moment]:
    """Train members of one shape: together if there are several and it can be done, else one after another."""
    begun = _stack(lab, members) if len(members) > 1 else None
    if begun is not None:
        yield from _together(lab, members, *begun)
        return
    for member in members:
        yield from _alone(lab, member)


def _alone(lab: Lab, member: Member) -> Iterator[_Moment]:
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

    try:
        for step in experiment.proceed(run):
            yield _Moment(member.name, step.number, 1, save)
    except TrainingError as error:
        lab.failed[member.name] = str(error)
    lab.end([member])


Steps = tuple[Step | None, ...]


def _stack(lab: Lab, members: Sequence[Member]) -> tuple[Ensemble, Iterator[Steps]] | None:
    """Members as one, and the steps they make; None, and a note, where it cannot be done.

    Raises:
        ValueError: They were training as one, and their state is damaged, or cannot go on here.
    """
    state = lab.folder / _state_of(members)
    trainers = [experiment.make_trainer(member.run, lab.data, lab.device) for member in members]
    try:
        if trainers[0].device.type == "cpu" and _convolves(trainers[0].model):
            raise NotStackable("on a CPU, convolutions of several models at once take longer.")
        ensemble = Ensemble([t.model for t in trainers], [t.objective for t in trainers], trainers[0].options)
        if state.is_file():
            checkpoint.load_state(state, ensemble)
            for member, trainer in zip(members, ensemble.trainers, strict=True):
                log.rewind(lab.folder / member.name, trainer.step)
        steps = ensemble.fit(lab.data)
        first = next(steps, None)  # operations that cannot be stacked are refused here
        return ensemble, steps if first is None else chain([first], steps)
    except NotStackable as error:
        if state.is_file():
            raise ValueError(
                f"the models in {lab.folder} were training as one, and cannot on {lab.device!r}: {error} Go on where "
                "they were (--device), or start anew with --force."
            ) from None
        lab.note(f"The models are trained one after another: {error}")
        return None


def _convolves(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in model.modules())


def _together(lab: Lab, members: Sequence[Member], ensemble: Ensemble, made: Iterator[Steps]) -> Iterator[_Moment]:
    """Train members as one."""
    state = lab.folder / _state_of(members)
    runs = [
        _take_up(lab, member, trainer, state.is_file())
        for member, trainer in zip(members, ensemble.trainers, strict=True)
    ]

    def save() -> None:
        for run in runs:
            log.settle(run.folder)
        checkpoint.save_state(state, ensemble)
        lab.write_progress()

    began = saved = time.monotonic()
    try:
        for steps in made:
            for run, step in zip(runs, steps, strict=True):
                if step is not None:
                    log.record(run.folder, step, run.trainer.options.steps)
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                save()
                saved = time.monotonic()
            number = max(trainer.step for trainer in ensemble.trainers)
            yield _Moment(f"{len(members)} models at once", number, len(members), save)
    except TrainingError:
        pass  # the last one has given up, as the others had before
    for i, (member, trainer) in enumerate(zip(members, ensemble.trainers, strict=True)):
        if trainer.given_up:
            lab.failed[member.name] = ensemble.failed.get(i, "its updates could not be made.")
    for run in runs:
        run.seconds = (time.monotonic() - began) / len(runs)
        experiment.save(run)
    lab.end(members)
    state.unlink(missing_ok=True)


def _take_up(lab: Lab, member: Member, trainer: Trainer, again: bool) -> Experiment:
    """The run of a member that trains with others: begun, or as it was when all were last saved."""
    folder = lab.folder / member.name
    if not again:
        return experiment.begin(member.run, folder, lab.data, lab.choices, trainer)
    return Experiment(folder, member.run, lab.data, trainer, lab.choices)


def _state_of(members: Sequence[Member]) -> str:
    """The file that holds the state of members that are trained together."""
    return TOGETHER.format(seed=members[0].seed)
