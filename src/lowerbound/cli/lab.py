"""`lab`: what the KL term does, on the data at hand."""

import contextlib
import math
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from .terminal import Device, Json, app, err, out
from .training import Stopped, describe, interruptible, no_room, overridden, stoppable

if TYPE_CHECKING:
    from ..lab import Lab, Results


@app.command
def lab(
    what: Annotated[str, Parameter(help="Data, or a run as TOML, as `train` takes them; with --resume a laboratory.")],
    /,
    *overrides: Annotated[str, Parameter(help="Options of all members as table.key=value.")],
    weights: Annotated[str | None, Parameter(help="Values, by default 0,0.1,0.25,0.5,1,2,4,8.")] = None,
    vary: Annotated[str, Parameter(help="The option of the objective that takes them.")] = "beta",
    seeds: Annotated[int, Parameter(help="Models at each weight; with several, curves have bands.")] = 1,
    out_folder: Annotated[Path | None, Parameter(name=["--out", "-o"], help="Its folder; default labs/NAME.")] = None,
    resume: Annotated[bool, Parameter(negative="", help="Go on with one that was interrupted.")] = False,
    force: Annotated[bool, Parameter(negative="", help="Replace one that is there already.")] = False,
    device: Device = "cpu",
    json: Json = False,
) -> int:
    """The KL laboratory: one model at each weight of the KL term, side by side on one page.

    A plain autoencoder and a VAE at each weight are trained, as one where they can be, and compared: rate and
    distortion, samples, interpolations, codes. Any objective with a weight can be looked at:
    `lowerbound lab shapes objective.name=tc`.
    """
    from .. import lab as laboratory

    if resume:
        if overrides or weights is not None or seeds != 1 or vary != "beta" or force:
            raise ValueError(
                "a laboratory goes on as it began: give --resume with its name or folder, and nothing else."
            )
        begun = laboratory.resume(_folder_of(what, out_folder), device=device)
    else:
        run, name = overridden(what, overrides)
        _leave_out(run, overrides, vary, json)
        begun = laboratory.start(
            run,
            out_folder or Path("labs") / name,
            weights=None if weights is None else _numbers(weights),
            vary=vary,
            seeds=seeds,
            force=force,
            device=device,
        )
        if not json:
            _describe(begun)
    return _run(begun, json)


def _leave_out(run: dict[str, dict[str, Any]], overrides: tuple[str, ...], vary: str, quiet: bool) -> None:
    """Take out of a run that was read from a file what a laboratory sets itself, unless it was asked for."""
    for kind, key in (("objective", vary), ("train", "patience")):
        asked = any(assignment.partition("=")[0].strip() == f"{kind}.{key}" for assignment in overrides)
        if not asked and run[kind].pop(key, None) is not None and not quiet:
            out.print(f"{kind}.{key} of the file is left out: the laboratory sets it", markup=False)


def _folder_of(what: str, asked: Path | None) -> Path:
    """The folder of the laboratory that is meant: the path itself, or that of its name."""
    path = Path(what)
    return asked or (path if (path / "lab.toml").is_file() else Path("labs") / path.name)


def _numbers(text: str) -> tuple[float, ...]:
    """Numbers, with commas or blanks between them.

    Raises:
        ValueError: Some are none; all are listed.
    """
    found, wrong = [], []
    for word in text.replace(",", " ").split():
        try:
            found.append(float(word))
        except ValueError:
            wrong.append(word)
    if wrong or not found:
        listed = ", ".join(wrong) or "nothing"
        raise ValueError(
            f"--weights {text!r}: {listed} is no number. Write them with commas, as in --weights 0,0.5,1,2."
        )
    return tuple(found)


def _describe(begun: "Lab") -> None:
    """What will be trained on what, and every choice that the data made."""
    from ..lab import spell

    plan = begun.plan
    model = f"{plan.run['model']['name']} at objective.{plan.vary} = {', '.join(map(spell, plan.weights))}"
    model += "; a plain autoencoder" if plan.with_autoencoder else ""
    model += f"; {plan.seeds} seeds each" if plan.seeds > 1 else ""
    describe(begun.data, f"{model}; folder {begun.folder}", "chosen for the laboratory", begun.choices)


def _run(begun: "Lab", json: bool) -> int:
    """Train what is not trained, to the end or to a signal; then measure and write the page."""
    from .. import lab as laboratory

    again = f"lowerbound lab {shlex.quote(str(begun.folder))} --resume"
    try:
        with interruptible() as interrupted, _progress(quiet=json) as show:
            for progress in laboratory.proceed(begun):
                show(progress.what, progress.done, progress.total, f"step {progress.step:,} of {progress.steps:,}")
                if interrupted:
                    progress.save()
                    break
        if interrupted:
            err.print(f"stopped; {len(begun.finished)} models are finished and all is saved. Go on with:")
            err.print(again, markup=False, soft_wrap=True)
            return 128 + interrupted[0]
        if not json:
            out.print(f"trained {len(begun.finished)} models in {begun.seconds:,.0f} s")
            for note in (*begun.notes, *(f"{name} failed: {why}" for name, why in begun.failed.items())):
                out.print(f"[yellow]{escape(note)}[/yellow]")
        try:
            with stoppable(), _progress(quiet=json) as show:
                found = []
                for one in laboratory.measure(begun):
                    found.append(one)
                    show("measuring", len(found), len(begun.finished), one.member.name)
                results = laboratory.finish(begun, found)
        except Stopped as stopped:
            err.print("stopped while measuring; all models are trained and saved. Go on with:")
            err.print(again, markup=False, soft_wrap=True)
            return 128 + stopped.number
    except OSError as error:
        raise no_room(error, again) from None
    page = begun.folder / laboratory.PAGE
    if json:
        print((begun.folder / laboratory.RESULTS).read_text(encoding="utf-8"), end="")  # noqa: T201
        return 0
    for reason in results.left_out:
        out.print(f"[yellow]{escape(reason)}[/yellow]")
    _table(results)
    for paragraph in laboratory.headline(results):
        out.print(paragraph, markup=False)
    out.print(f"page  {page}", markup=False, soft_wrap=True)
    return 0


def _table(results: "Results") -> None:
    """The numbers that fit a line, a row for each weight."""
    from rich.table import Table

    from ..lab import spell

    columns = {"rate": "rate", "distortion": "distort.", "elbo": "ELBO", "active_units": "active"}
    columns |= {"classifier": "told apart", "probe": "probe"}
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(results.vary, no_wrap=True)
    for title in columns.values():
        table.add_column(title, justify="right", no_wrap=True)
    for weight in (*results.weights, None):
        found = [results.at(name, weight) for name in columns]
        if any(found):
            name = "autoencoder" if weight is None else spell(weight)
            table.add_row(name, *("" if estimate is None else _short(estimate) for estimate in found))
    out.print(table)


def _short(estimate: Any) -> str:
    return f"{estimate.mean:.4g}" if math.isfinite(estimate.mean) else "-"


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int, str], None]]:
    """A live line on a terminal, a plain line at each twentieth elsewhere: show(what, done, total, detail)."""
    if quiet or not out.is_terminal:
        said = -1

        def plain(what: str, done: int, total: int, detail: str) -> None:
            nonlocal said
            if not quiet and (20 * done // total > said):
                said = 20 * done // total
                out.print(f"{100 * done // total:3d} %  {what}: {detail}", markup=False)

        yield plain
        return

    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(16), TextColumn("{task.percentage:3.0f} %"), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(compact=True), console=out, transient=True) as progress:
        task = progress.add_task("")

        def live(what: str, done: int, total: int, detail: str) -> None:
            progress.update(task, completed=done, total=total, description=f"{what}: {detail}")

        yield live
