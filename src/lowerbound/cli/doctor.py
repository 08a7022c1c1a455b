"""`doctor`: what is wrong with a trained model, or with data before a model is trained on them."""

import json as jsonlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.padding import Padding
from rich.text import Text

from .terminal import Device, Json, app, err, out
from .training import overridden

if TYPE_CHECKING:
    from ..data import Data
    from ..doctor import Finding

OVERRIDE = re.compile(r"(data|model|objective|train)\.\w+=")
COLOURS = {"finding": "red", "healthy": "green", "unknown": "yellow"}


@app.command
def doctor(
    what: Annotated[str, Parameter(help="The folder of a run; or data, or a run as TOML, as `train` takes them.")],
    /,
    *overrides: Annotated[str, Parameter(help="Options of the run that would be trained, as table.key=value.")],
    device: Device = "cpu",
    json: Json = False,
) -> int:
    """What is wrong with a model or with data, in words, and what to type against it.

    Of a trained model: collapse, over-fitting, the prior, the scale of the likelihood, how good the bound is.
    Of data, before training: values, duplicates, leaks, outliers, how many latent dimensions they need.
    It exits with 0 if all is well, 1 if something was found, and 2 if that could not be told: data or weights are gone.
    """
    from ..doctor import status

    with err.status("looking"):
        if folder := _run_folder(what):
            kind, (title, findings) = "run", _of_run(folder, overrides, device)
            again = _Again.of_run(folder, overrides)
        else:
            kind, (title, findings) = "data", _of_data(what, overrides, device)
            again = _Again(f"lowerbound train {shlex.quote(what)}", overrides, "", what)
    code = status(findings)
    if json:
        answer = {"of": what, "kind": kind, "status": code, "findings": [finding.summary() for finding in findings]}
        print(jsonlib.dumps(answer))  # noqa: T201
        return code
    _show(title, findings, again)
    return code


@dataclass(frozen=True)
class _Again:
    """How a run is trained once more, with remedies.

    Attributes:
        command: The beginning of the command.
        overrides: What it was given already.
        end: The end of the command.
        path: What stands for RUN in a remedy that is a command of its own.
    """

    command: str
    overrides: Sequence[str]
    end: str
    path: str

    @classmethod
    def of_run(cls, folder: Path, overrides: Sequence[str]) -> "_Again":
        """Into the first folder beside it that is free."""
        number = next(n for n in range(2, 1000) if not folder.with_name(f"{folder.name}-{n}").exists())
        free = folder.with_name(f"{folder.name}-{number}")
        file = folder / "run.toml"
        command = f"lowerbound train {shlex.quote(str(file))}" if file.is_file() else "lowerbound train DATA"
        return cls(command, overrides, f"--out {shlex.quote(str(free))}", str(folder))

    def commands(self, remedy: Sequence[str]) -> list[str]:
        """The whole commands: one with all overrides together, the others as they are."""
        changes = [each for each in remedy if OVERRIDE.match(each)]
        commands = [re.sub(r"\bRUN\b", shlex.quote(self.path), each) for each in remedy if each not in changes]
        if changes:
            changed = {each.partition("=")[0] for each in changes}
            before = [each for each in self.overrides if each.partition("=")[0].strip() not in changed]
            words = [self.command, *map(shlex.quote, (*before, *changes)), self.end]
            commands.append(" ".join(word for word in words if word))
        return commands


def _run_folder(what: str) -> Path | None:
    """The folder of the run that a word stands for; None where it is data.

    Raises:
        ValueError: It is a laboratory, which holds many runs.
    """
    from ..catalogue import CATALOGUE

    path = Path(what)
    if what in CATALOGUE["data"]:
        return None
    folder = path.parent if path.name in ("model.safetensors", "lab.toml") else path
    folder = Path.cwd() if folder == Path() else folder
    if (folder / "lab.toml").is_file():
        raise ValueError(_many(folder))
    there = any((folder / name).is_file() for name in ("run.toml", "model.safetensors"))
    return folder if there and path.suffix != ".toml" else None


def _many(folder: Path) -> str:
    """What to type instead of the folder of a laboratory."""
    names = sorted(path.parent.name for path in folder.glob("*/run.toml"))
    if not names:
        again = f"lowerbound lab {shlex.quote(str(folder))} --resume"
        return f"{folder} is a laboratory, and none of its runs has begun. Go on with it: {again}."
    # the bound itself, where it is among them
    chosen = next((name for name in names if name.startswith("beta-1-") or name == "beta-1"), names[0])
    command = f"lowerbound doctor {shlex.quote(str(folder / chosen))}"
    return f"{folder} is a laboratory of {len(names)} runs: look at one, as in {command}. There are {', '.join(names)}."


def _of_run(folder: Path, overrides: Sequence[str], device: str) -> tuple[str, list["Finding"]]:
    """What is wrong with a trained model; without its data, what can still be told."""
    from .. import checkpoint, experiment
    from ..doctor import examine
    from ..recipes import annotation
    from ..run import override
    from ..train import log

    if wrong := [each for each in overrides if not each.strip().startswith("data.")]:
        raise ValueError(
            f"{', '.join(wrong)}: a run is looked at as it was trained, and only where its data are can be said anew "
            "(data.path=...). To look at what would be trained, give the data, or a run as TOML."
        )
    place = str(experiment.find_device(device))
    try:
        model, tables = checkpoint.load_model(folder, device=place)
    except (FileNotFoundError, ValueError) as error:
        if not (folder / checkpoint.RUN).is_file():
            raise
        return str(folder), [_gone("weights of the run", error)]
    for assignment in overrides:
        override(tables, assignment, annotation)
    data: Data | None = None
    gone = []
    try:
        data = experiment.load_data(tables)
        experiment.check_unchanged(folder, data)
    except (ValueError, OSError) as error:
        gone, data = [_gone("data of the run", error)], None
    findings = examine(model, tables, log.read(folder), data)
    return f"{folder}: {tables['model']['name']} on {tables['data']['name']}", [*gone, *findings]


def _gone(name: str, error: Exception) -> "Finding":
    """What could not be told, for it is not there or cannot be read."""
    from ..doctor import Finding

    reason = str(error)
    return Finding(name, "unknown", reason[0].upper() + reason[1:], blind=True)


def _of_data(what: str, overrides: Sequence[str], device: str) -> tuple[str, list["Finding"]]:
    """What is wrong with data for the model that would be trained on them."""
    from .. import experiment
    from ..doctor import examine_data

    experiment.find_device(device)
    tables, _ = overridden(what, overrides)
    data = experiment.open_data(tables)
    experiment.complete(tables, data)
    shape = "x".join(map(str, data.event))
    sizes = ", ".join(f"{len(rows):,} {part}" for part, rows in data.split.items())
    return f"{data.name}: rows of {shape}; {sizes}", examine_data(tables, data)


def _show(title: str, findings: Sequence["Finding"], again: _Again) -> None:
    """The findings at length, then in a line each what is healthy and what could not be told."""
    groups: dict[str, list[Any]] = {verdict: [] for verdict in COLOURS}
    for each in findings:
        groups[each.verdict].append(each)
    found = len(groups["finding"])
    counts = [f"{found} finding{'' if found == 1 else 's'}" if found else "no findings"]
    counts += [f"{len(groups['healthy'])} healthy", f"{len(groups['unknown'])} unknown"]
    _say(Text(title, "bold"))
    _say(Text(", ".join(counts)))
    for each in groups["finding"]:
        out.print()
        measure = "" if each.number is None else f"  {_short(each.number)}"
        measure += "" if each.threshold is None else f" (threshold {_short(each.threshold)})"
        _say(Text.assemble((each.name, "bold red"), (measure, "dim")))
        _say(Text(each.what), 2)
        for command in again.commands(each.remedy):
            # not broken into lines, so that it can be copied
            out.print(Text(f"  {command}", "cyan"), soft_wrap=True)
        if each.effect:
            _say(Text(each.effect), 2)
    for verdict, heading in (("healthy", "healthy"), ("unknown", "could not tell")):
        if groups[verdict]:
            out.print()
            _say(Text(heading, f"bold {COLOURS[verdict]}"))
            _lines(groups[verdict])


def _lines(findings: Sequence["Finding"]) -> None:
    """A line for each, the words in a column of their own."""
    from rich.table import Table

    width = max(len(each.name) for each in findings)
    if not out.is_terminal:
        for each in findings:
            out.print(Text(f"  {each.name:<{width}}  {each.what}"))
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for each in findings:
        table.add_row(Text(each.name), Text(each.what))
    out.print(Padding(table, (0, 0, 0, 2), expand=False))


def _say(text: Text, indent: int = 0) -> None:
    """A paragraph, indented; in a file or a pipe it stays one line."""
    out.print(Padding(text, (0, 0, 0, indent), expand=False) if out.is_terminal else Text(" " * indent) + text)


def _short(number: float) -> str:
    return f"{number:,.0f}" if 100 <= abs(number) < 1e6 and number == int(number) else f"{number:.3g}"
