"""What someone says of a table, against what would be inferred: a small TOML file, or a mapping.

    missing = ["?", "-999"]                  # instead of the usual tokens
    delimiter = ";"                          # and encoding, header, decimal: of a file of text

    [columns]
    age = "count"
    note = "out"                             # left out
    wind = { kind = "cyclic", period = 360 }
    size = { kind = "ordinal", levels = ["S", "M", "L"] }
    rank = { missing = ["0"] }               # of this column only
    gain = { spikes = [0, 99999] }           # numbers that recur, held apart from the others; [] for none

What is not said stays inferred.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ...columns import Kind
from ..dataset import nearest, one_of

KINDS = (*get_args(Kind), "out")
READING = {"delimiter": str, "encoding": str, "header": bool, "decimal": str}


@dataclass(frozen=True)
class Said:
    """What is said of one column.

    Attributes:
        kind: One of the kinds of columns, or "out"; None to infer it.
        levels: Of a column of levels, all of them, in their order.
        period: Of a cyclic column.
        missing: The texts that stand for a missing value; None for the usual ones.
        spikes: Of a column of numbers, those that are held apart; None to infer them.
    """

    kind: Kind | Literal["out"] | None = None
    levels: tuple[str, ...] = ()
    period: float | None = None
    missing: tuple[str, ...] | None = None
    spikes: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Overrides:
    """What is said of a table.

    Attributes:
        columns: By name.
        missing: The texts that stand for a missing value in all other columns; None for the usual ones.
        reading: Of a file of text: delimiter, encoding, header, decimal, as far as they are said.
    """

    columns: Mapping[str, Said] = field(default_factory=dict)
    missing: tuple[str, ...] | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)

    def of(self, name: str) -> Said:
        """What is said of a column."""
        said = self.columns.get(name, Said())
        return said if said.missing is not None else replace(said, missing=self.missing)


def read(path: str | None) -> Overrides:
    """What a TOML file says; nothing without one.

    Raises:
        ValueError: There is no such file, or it says what nothing can be made of; all offences are listed.
    """
    if path is None:
        return Overrides()
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"schema={path!r}: there is no such file. Write one, or leave schema out: it is inferred.")
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}.") from None
    return parse(said, path)


def parse(said: Mapping[str, Any], where: str = "schema") -> Overrides:
    """What a mapping of the same form says.

    Raises:
        ValueError: Nothing can be made of parts of it; all offences are listed.

    Example:
        >>> parse({"columns": {"age": "count"}}).of("age").kind
        'count'
    """
    known = ("columns", "missing", *READING)
    wrong = [f"{key!r} is not known.{nearest(key, known)}" for key in said if key not in known]
    wrong += [
        f"{key} = {said[key]!r} should be {'true or false' if kind is bool else 'text'}"
        for key, kind in READING.items()
        if not isinstance(said.get(key, kind()), kind)
    ]
    for key in ("delimiter", "decimal"):
        if isinstance(said.get(key), str) and len(said[key]) != 1:
            wrong.append(f"{key} = {said[key]!r} should be one character")
    columns = said.get("columns", {})
    if not isinstance(columns, Mapping):
        wrong.append(f"columns = {columns!r} should be a table")
        columns = {}
    if "missing" in said and not _texts(said["missing"]):
        wrong.append(f"missing = {said['missing']!r} should be a list of texts")
    found = {}
    for name, value in columns.items():
        try:
            found[name] = _of_column(value)
        except ValueError as error:
            wrong.append(f"column {name!r}: {error}")
    if wrong:
        listed = " ".join(text if text[-1] in ".?" else f"{text}." for text in wrong)
        raise ValueError(f"{where} cannot be used: {listed} It may say {', '.join(known)}.")
    reading = {key: said[key] for key in READING if key in said}
    return Overrides(found, tuple(said["missing"]) if "missing" in said else None, reading)


def _of_column(value: Any) -> Said:
    entries = {"kind": value} if isinstance(value, str) else value
    if not isinstance(entries, Mapping):
        raise ValueError(f"{value!r} should be a kind ({', '.join(KINDS)}) or a table")
    known = ("kind", "levels", "period", "missing", "spikes")
    if wrong := [f"{key!r} is not known.{nearest(key, known)}" for key in entries if key not in known]:
        raise ValueError(" ".join(wrong))
    kind: Any = entries.get("kind")
    if kind is not None:
        one_of("kind", kind, KINDS)
    for key in ("levels", "missing"):
        if key in entries and not _texts(entries[key]):
            raise ValueError(f"{key} = {entries[key]!r} should be a list of texts")
    period: Any = entries.get("period")
    if (kind == "cyclic") != (period is not None) or (
        period is not None and not (isinstance(period, int | float) and period > 0)
    ):
        raise ValueError('a cyclic column has a period above 0, and no other has: { kind = "cyclic", period = 360 }')
    if "levels" in entries and kind not in ("category", "ordinal", "binary"):
        raise ValueError("levels go with a kind that has them: category, ordinal or binary")
    spikes: Any = entries.get("spikes")
    if spikes is not None:
        if kind not in (None, "real", "positive", "count"):
            raise ValueError(f"spikes are of numbers (real, positive or count), and this column is said to be {kind}")
        if not isinstance(spikes, Sequence) or not all(_finite(spike) for spike in spikes):
            raise ValueError(f"spikes = {spikes!r} should be a list of numbers, [] for none")
        spikes = tuple(sorted({float(spike) for spike in spikes}))
    missing = tuple(entries["missing"]) if "missing" in entries else None
    return Said(kind, tuple(entries.get("levels", ())), None if period is None else float(period), missing, spikes)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(text, str) for text in value)
