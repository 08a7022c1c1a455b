"""`list` and `options`: what there is, and what can be set."""

import json as jsonlib
from typing import Annotated

from cyclopts import Parameter
from rich.markup import escape
from rich.text import Text

from .terminal import Json, app, out


@app.command(name="list")
def list_names(*, json: Json = False) -> int:
    """The data sets, models and objectives there are."""
    from ..catalogue import CATALOGUE

    if json:
        print(jsonlib.dumps(CATALOGUE))  # noqa: T201
        return 0
    for kind, entries in CATALOGUE.items():
        out.print(f"[bold]{kind}[/bold]")
        for name, line in entries.items():
            out.print(f"  [cyan]{name:<16}[/cyan] {line}")
    out.print("\nThe options of one: lowerbound options NAME")
    return 0


@app.command
def options(
    name: Annotated[str, Parameter(help="A data set, model or objective, or `train`.")], /, *, json: Json = False
) -> int:
    """The options of a recipe: types, defaults, and what they mean."""
    import inspect

    from .. import recipes
    from ..run import as_typed, describe, hint, plain
    from ..run import options as options_of

    homes = {"train": "train"} | {entry: kind for kind, entries in recipes.CATALOGUES.items() for entry in entries}
    if name not in homes:
        raise ValueError(f"there is no recipe {name!r}{hint(name, homes)}. There are: {', '.join(homes)}.")
    kind = homes[name]
    recipe = recipes.recipe(kind, name)
    summary, _, rest = (inspect.getdoc(recipe) or "").partition("\nArgs:\n")
    meanings = _meanings(rest)
    known = {key: parameter for key, parameter in options_of(recipe).items() if key != "event"}
    if json:
        listed = [
            {
                "option": f"{kind}.{key}",
                "type": describe(parameter.annotation),
                "required": parameter.default is parameter.empty,
                "default": None if parameter.default is parameter.empty else plain(parameter.default),
                "meaning": meanings.get(key, ""),
            }
            for key, parameter in known.items()
        ]
        print(jsonlib.dumps({"kind": kind, "name": name, "summary": summary.strip(), "options": listed}))  # noqa: T201
        return 0
    out.print(
        f"[bold]{kind} {name}[/bold]: {summary.strip()}\n" if kind != name else f"[bold]{summary.strip()}[/bold]\n"
    )
    for key, parameter in known.items():
        default = "" if parameter.default is parameter.empty else f"={as_typed(parameter.default)}"
        line = f"[cyan]{kind}.{key}[/cyan]{default}  [dim]{describe(parameter.annotation)}[/dim]"
        _indented(line, 0)
        if key in meanings:
            _indented(escape(meanings[key]), 4)
    return 0


def _indented(markup: str, indent: int) -> None:
    """Print a paragraph: on a terminal wrapped between words, its further lines indented a little more."""
    if not out.is_terminal:
        out.print(" " * indent + markup)
        return
    margin = max(4, indent)
    first, *rest = Text.from_markup(markup).wrap(out, max(20, out.width - margin))
    out.print(Text(" " * indent) + first)
    for line in rest:
        out.print(Text(" " * margin) + line)


def _meanings(section: str) -> dict[str, str]:
    """What the "Args:" of a docstring say of each argument, on one line each."""
    found: dict[str, str] = {}
    key = ""
    for line in section.splitlines():
        if not line.strip():
            break
        if not line.startswith("     "):
            key, _, text = line.strip().partition(": ")
            found[key] = text
        else:
            found[key] += " " + line.strip()
    return found
