"""A run is data: four tables, `data`, `model`, `objective` and `train`, each a name and the arguments of a function.

The functions are the recipes in `recipes`; their signatures are the schema. A table is checked against the
signature, completed with its defaults (so that a later change of a default cannot change an old run), and called. The
same few functions serve the command line, the checkpoint and anyone's script.
"""

import contextlib
import difflib
import inspect
import math
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

TABLES = ("data", "model", "objective", "train")

Table = dict[str, Any]
Catalogue = Mapping[str, Callable[..., Any]]


def hint(word: str, words: Iterable[str]) -> str:
    """A question in brackets, "did you mean", about the word that comes closest; nothing if none does."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def options(recipe: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments that a table may set: the keyword-only ones of a function, the fields of a dataclass."""
    parameters = inspect.signature(recipe).parameters
    keyword_only = {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    return keyword_only or dict(parameters)


def find(catalogue: Catalogue, kind: str, table: Mapping[str, Any]) -> Callable[..., Any]:
    """The recipe that a table names.

    Raises:
        ValueError: The table has no name, or one that is not in the catalogue.
    """
    name = table.get("name")
    if name is None:
        raise ValueError(f"the table {kind!r} names no recipe: give {kind}.name, one of {', '.join(catalogue)}.")
    if name not in catalogue:
        raise ValueError(f"there is no {kind} {name!r}{hint(str(name), catalogue)}. There are: {', '.join(catalogue)}.")
    return catalogue[name]


def full(recipe: Callable[..., Any], kind: str, table: Mapping[str, Any]) -> Table:
    """The table with every default written out, each value checked against the recipe's signature.

    Raises:
        ValueError: Options that the recipe does not have, or of another type; all are listed.
    """
    known = options(recipe)
    named = "name" in table and kind != "train"  # there is one way to train, and it has no name
    given = {key: value for key, value in table.items() if key != "name" or not named}
    label = f"{kind} {table['name']!r}" if named else kind
    wrong = [f"it has no option {key!r}{hint(key, known)}" for key in given if key not in known]
    for key, value in given.items():
        if key in known and not accepts(known[key].annotation, value):
            words = typing.get_args(known[key].annotation)
            near = hint(value, filter(lambda word: isinstance(word, str), words)) if isinstance(value, str) else ""
            wrong.append(f"{key}={value!r} should be {describe(known[key].annotation)}{near}")
    if wrong:
        listed = f" Its options: {', '.join(known)}." if given.keys() - known.keys() else ""
        raise ValueError(f"{label} cannot be built: {'; '.join(wrong)}.{listed}")
    defaults = {key: p.default for key, p in known.items() if p.default is not p.empty}
    name = {"name": table["name"]} if named else {}
    return name | {key: _typed(known[key].annotation, value) for key, value in (defaults | given).items()}


def _typed(annotation: Any, value: Any) -> Any:
    """A value as JSON has it, and a number as a fraction where one is meant: 1 is 1.0."""
    kinds = typing.get_args(annotation) or (annotation,)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and float in kinds and int not in kinds else plain(value)


def build(recipe: Callable[..., Any], kind: str, table: Mapping[str, Any], *runtime: Any) -> Any:
    """Call the recipe with the arguments of the table, after what only exists at run time.

    Raises:
        ValueError: As `full`, or an option without a default is missing.
    """
    arguments = full(recipe, kind, table)
    missing = [key for key, p in options(recipe).items() if p.default is p.empty and key not in arguments]
    if missing:
        raise ValueError(f"{kind} {table.get('name', '')!r} needs {', '.join(f'{kind}.{key}' for key in missing)}.")
    arguments.pop("name", None)
    return recipe(*runtime, **arguments)


def override(run: Mapping[str, Table], assignment: str, annotation: Callable[[str, str, str], Any]) -> None:
    """Set one option of a run from a text such as ``model.latent=64``.

    Args:
        run: The four tables, changed in place.
        assignment: ``table.key=value``; the value is TOML, or text as it stands.
        annotation: (table, recipe or "", key) -> the type of that option, or Any.

    Raises:
        ValueError: It is not of that form, or names no table.
    """
    target, equals, text = assignment.partition("=")
    kind, dot, key = target.strip().partition(".")
    if not (equals and dot and key):
        raise ValueError(f"{assignment!r} is no override: write table.key=value, such as model.latent=64.")
    if kind not in TABLES:
        raise ValueError(f"there is no table {kind!r}{hint(kind, TABLES)} in {assignment!r}: {', '.join(TABLES)}.")
    table = run[kind]
    if key == "name" and kind != "train":
        # the options of one recipe mean nothing to another
        table.clear()
        table["name"] = text.strip()
        return
    table[key] = parse(text, annotation(kind, table.get("name", ""), key))


def parse(text: str, annotation: Any) -> Any:
    """A value from the command line: TOML where that fits the type, else the text itself."""
    text = text.strip()
    candidates: list[Any] = []
    with contextlib.suppress(tomllib.TOMLDecodeError):
        value = tomllib.loads(f"value = {text}")["value"]
        candidates.append(value)
        if isinstance(value, float) and value.is_integer():
            candidates.append(int(value))  # 1e4 steps
        candidates.append([value])  # one width is a list of one
    if "," in text and not text.startswith(("[", '"', "'")):
        try:
            candidates.append(tomllib.loads(f"value = [{text}]")["value"])
        except tomllib.TOMLDecodeError:
            candidates.append([part.strip() for part in text.split(",")])
    if text.lower() in ("true", "false"):
        candidates.append(text.lower() == "true")
    if text.lower() == "none":
        candidates.append(None)
    candidates.append(text)
    fitting = (value for value in candidates if accepts(annotation, value))
    return next(fitting, candidates[0])


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a JSON value is of an annotated type: numbers, texts, truth values, sequences, unions, literals."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (Any, inspect.Parameter.empty):
        return True
    if origin is typing.Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(accepts(a, value) for a in arguments)
    if annotation is None or annotation is types.NoneType:
        return value is None
    if annotation is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (value in (math.inf, -math.inf) or abs(value) < 2**1023)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        inner = arguments[0] if arguments else Any
        return isinstance(value, list | tuple) and all(accepts(inner, v) for v in value)
    return isinstance(annotation, type) and isinstance(value, annotation)


def describe(annotation: Any) -> str:
    """An annotated type in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "none"}
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(a) for a in arguments)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each {describe(arguments[0])}"
    return names.get(annotation, str(annotation))


def as_typed(value: Any) -> str:
    """A value as it is written in an override.

    >>> as_typed((32, 64)), as_typed(None), as_typed(True)
    ('32,64', 'none', 'true')
    """
    if isinstance(value, list | tuple):
        return ",".join(map(as_typed, value)) or "[]"
    return {None: "none", True: "true", False: "false"}[value] if isinstance(value, bool | None) else str(value)


def plain(value: Any) -> Any:
    """A value as JSON and TOML have it: tuples become lists."""
    return [plain(v) for v in value] if isinstance(value, tuple | list) else value


def read(path: Path) -> dict[str, Table]:
    """The tables of a TOML file.

    Raises:
        ValueError: It is no TOML, or holds something that is not one of the four tables.
    """
    try:
        run = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}.") from None
    wrong = [f"{key!r}{hint(key, TABLES)}" for key in run if key not in TABLES]
    wrong += [f"{key}={run[key]!r}" for key in TABLES if not isinstance(run.get(key, {}), dict)]
    if wrong:
        raise ValueError(f"{path} holds {', '.join(wrong)}, but a run is made of the tables {', '.join(TABLES)} only.")
    return {kind: dict(run.get(kind, {})) for kind in TABLES}


def write(run: Mapping[str, Table]) -> str:
    """The tables as TOML. What is none is left out: TOML has no such value, and none is its default."""
    import tomli_w

    return tomli_w.dumps({kind: {k: v for k, v in run[kind].items() if v is not None} for kind in TABLES})
