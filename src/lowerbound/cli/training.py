"""`train` and `resume`: a run from its tables to its report, with a display that fits the place it is shown in."""

import contextlib
import errno
import json as jsonlib
import math
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from .numbers import in_words
from .terminal import Device, Json, Run, app, at_least, err, out

if TYPE_CHECKING:
    from ..choices import Choice
    from ..data import Data
    from ..experiment import Experiment


SIGNALS = (signal.SIGINT, signal.SIGTERM)


@app.command
def train(
    what: Annotated[str, Parameter(help="A data set by name, a folder of images, an array, or a run as TOML.")],
    /,
    *overrides: Annotated[str, Parameter(help="Options of the run as table.key=value, e.g. model.latent=64.")],
    out_folder: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="The run's folder; default runs/NAME.")
    ] = None,
    force: Annotated[bool, Parameter(negative="", help="Replace a run that is there already.")] = False,
    k: Annotated[int, Parameter(help="Importance samples of the final evaluation.")] = 100,
    device: Device = "cpu",
    json: Json = False,
) -> int:
    """Train a VAE, evaluate it on held-out data, and write a report.

    `lowerbound list` shows the data sets, models and objectives; `lowerbound options NAME` the options of one.
    """
    from .. import experiment

    at_least(1, k=k)
    run, name = overridden(what, overrides)
    begun = experiment.start(run, out_folder or Path("runs") / name, force=force, device=device)
    if not json:
        _describe(begun)
    return _train(begun, k, json)


@app.command
def resume(run: Run, /, *, k: int = 100, device: Device = "cpu", json: Json = False) -> int:
    """Go on with a run that was interrupted, exactly where it was.

    Args:
        run: The folder of the run.
        k: Importance samples of the final evaluation.
        device: Where to train: cpu, cuda.
        json: Print JSON only.
    """
    from .. import experiment

    at_least(1, k=k)
    taken_up = experiment.resume(run, device=device)
    trainer = taken_up.trainer
    at, steps, patience = trainer.step, trainer.options.steps, trainer.options.patience
    ended = at == steps or 0 < patience <= trainer.since_best
    if not json:
        out.print(f"training ended at step {at:,}: evaluating" if ended else f"going on from step {at:,} of {steps:,}")
    return _train(taken_up, k, json)


def overridden(what: str, overrides: Sequence[str]) -> tuple[dict[str, dict[str, Any]], str]:
    """The run that a word on the command line stands for, with its overrides, and a name for its folder."""
    from ..recipes import annotation
    from ..run import override

    run, name = _tables(what)
    # names first: a name empties its table, since the options of one recipe mean nothing to another
    for assignment in sorted(overrides, key=lambda text: text.partition("=")[0].strip().partition(".")[2] != "name"):
        override(run, assignment, annotation)
    return run, name


def _tables(what: str) -> tuple[dict[str, dict[str, Any]], str]:
    """The run that a word on the command line stands for, and a name for its folder."""
    from ..catalogue import CATALOGUE
    from ..run import TABLES, hint, read

    run: dict[str, dict[str, Any]] = {kind: {} for kind in TABLES}
    path = Path(what)
    if path.suffix == ".toml":
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no file {what}: give a run as TOML, a data set by name, or a path to data."
            )
        return run | read(path), path.stem
    if what in CATALOGUE["data"]:
        run["data"] = {"name": what}
        return run, what
    if (path / "run.toml").is_file():
        raise ValueError(
            f"{what} is a run: go on with it (lowerbound resume {shlex.quote(what)}), or train another one like it "
            f"(lowerbound train {shlex.quote(str(path / 'run.toml'))} --out FOLDER)."
        )
    if not path.exists() and os.sep not in what:
        names = [name for name in CATALOGUE["data"] if name not in ("folder", "array", "table")]
        raise FileNotFoundError(
            f"{what!r} is neither a data set{hint(what, names)} nor a path. Data sets: {', '.join(names)}."
        )
    from ..data import open_path

    run["data"] = open_path(what)
    return run, path.resolve().name.strip(".").split(".")[0] or "run"


def _describe(begun: "Experiment") -> None:
    """What will be trained on what, and every choice that the data made."""
    count = sum(p.numel() for p in begun.trainer.parameters)
    model = f"{begun.run['model']['name']}, {count:,} parameters; folder {begun.folder}"
    describe(begun.data, model, "chosen from the data", begun.choices)


def describe(data: "Data", model: str, chosen: str, choices: "Sequence[Choice]") -> None:
    """What is trained on what, and what the data decided."""
    shape = "x".join(map(str, data.event))
    sizes = ", ".join(f"{len(rows):,} {part}" for part, rows in data.split.items())
    out.print(f"[bold]data[/bold]   {escape(data.name)}: rows of {shape}; {sizes}")
    for note in data.notes:
        out.print(f"       {note}", markup=False)
    out.print(f"[bold]model[/bold]  {escape(model)}")
    if choices:
        out.print(f"[bold]{chosen}[/bold] (each is an override)")
    for choice in choices:
        out.print(f"  {choice}", markup=False)


def _train(begun: "Experiment", k: int, json: bool) -> int:
    """Train to the end or to a signal; then evaluate and report."""
    from .. import experiment

    options = begun.trainer.options
    again = f"lowerbound resume {shlex.quote(str(begun.folder))}"
    try:
        with interruptible() as interrupted, _progress(begun, quiet=json) as show:
            step = None
            for step in experiment.proceed(begun):
                show(step)
                if interrupted:
                    break
            if interrupted and (step is None or not step.done):
                experiment.save(begun)
        if interrupted:
            err.print(f"stopped at step {begun.trainer.step:,} of {options.steps:,}; everything is saved. Go on with:")
            err.print(again, markup=False, soft_wrap=True)
            return 128 + interrupted[0]

        if not json:
            early = begun.trainer.step < options.steps
            why = f", early: {options.patience} validations without a better bound" if early else ""
            out.print(f"trained {begun.trainer.step:,} steps in {begun.seconds:,.0f} s{why}")
        try:
            with stoppable():
                found = experiment.finish(begun, k=k)
        except Stopped as stopped:
            err.print("stopped while evaluating; the training is done and saved. Evaluate and report with:")
            err.print(again, markup=False, soft_wrap=True)
            return 128 + stopped.number
    except OSError as error:
        raise no_room(error, again) from None
    report = begun.folder / "report.html"
    if json:
        answer = {"run": str(begun.folder), "report": str(report), "split": "test", "steps": begun.trainer.step}
        print(jsonlib.dumps(answer | {"seconds": begun.seconds} | found.summary()))  # noqa: T201
        return 0
    for line in in_words(found, begun.data, "test"):
        out.print(line)
    if begun.trainer.skipped:
        out.print(f"[yellow]{begun.trainer.skipped} updates were skipped: their gradients were not sane[/yellow]")
    out.print(f"report  {report}", markup=False, soft_wrap=True)
    return 0


def no_room(error: OSError, again: str) -> OSError:
    """An error of the system; if it is for want of room, with what to do."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return OSError(f"{error.strerror}. Make room, then go on from the last save with: {again}")


class Stopped(BaseException):
    """A signal came while something ran that has nothing of its own to save."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """Within it, SIGINT and SIGTERM are noted in a list instead of killing; a second one kills."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    with _handled(note):
        yield received


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within it, SIGINT and SIGTERM raise `Stopped`."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(number)

    with _handled(stop):
        yield


@contextlib.contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    before = {each: signal.signal(each, handler) for each in SIGNALS}
    try:
        yield
    finally:
        for each, usual in before.items():
            signal.signal(each, usual)


@contextlib.contextmanager
def _progress(begun: "Experiment", quiet: bool) -> Iterator[Any]:
    """A live line on a terminal, a plain line at every validation elsewhere: show(step)."""
    import time

    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    from ..experiment import has_likelihood

    options, likelihood = begun.trainer.options, has_likelihood(begun.run)
    first, began = begun.trainer.step, time.monotonic()
    valid = "-"

    def numbers(step: Any) -> str:
        speed = (step.number - first) * options.batch / max(1e-9, time.monotonic() - began)
        left = (options.steps - step.number) * options.batch / max(1e-9, speed)
        bound, rate, distortion = float(step.bound), float(step.terms.rate), float(step.terms.distortion)
        if not likelihood:
            return f"no bound; loss {float(step.terms.loss):.1f} rate {rate:.1f} {_short(speed)}/s {_clock(left)} left"
        # a point posterior has an infinite rate, and no bound
        terms = f"bound {bound:.1f} valid {valid} rate {rate:.1f} dist {distortion:.1f}"
        if rate == math.inf:
            terms = f"no bound; dist {distortion:.1f} valid {valid}"
        return f"{terms} {_short(speed)}/s {_clock(left)} left"

    def validated(step: Any) -> str:
        found = step.validation.valid
        return f"{found.elbo.mean if found.is_bound else found.distortion.mean:.1f}"

    if quiet or not out.is_terminal:
        every = options.valid_every or max(1, options.steps // 40)

        def plain(step: Any) -> None:
            nonlocal valid
            valid = validated(step) if step.validation else valid
            if not quiet and (step.number % every == 0 or step.done):
                out.print(f"step {step.number:,}/{options.steps:,} {numbers(step)}")

        yield plain
        return

    count, line = TextColumn("{task.completed:,.0f}/{task.total:,.0f}"), Column(no_wrap=True, overflow="ellipsis")
    columns = (
        count,
        *([BarColumn(8)] if out.width >= 100 else []),
        TextColumn("{task.description}", table_column=line),
    )
    with Progress(*columns, console=out, transient=True) as progress:
        task = progress.add_task("", total=options.steps, completed=first)
        shown = 0.0

        def live(step: Any) -> None:
            nonlocal valid, shown
            if step.validation:
                valid = validated(step)
            now = time.monotonic()
            if now - shown > 0.2 or step.done:
                shown = now
                progress.update(task, completed=step.number, description=numbers(step))

        yield live


def _short(number: float) -> str:
    return f"{number / 1000:.1f}k" if number >= 1000 else f"{number:.0f}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
