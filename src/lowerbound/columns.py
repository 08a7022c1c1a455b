"""Columns of a table: what each holds, and how its values stand for numbers.

A row of a table is a vector with a number for each column that is modelled, in the column's own units, NaN where the
value is missing: a number is itself, a category or an ordinal its place among the levels, a date the days since 1970.
The description is JSON-able, and goes into the model file with the model: it needs nothing beside it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Kind = Literal["real", "positive", "count", "ordinal", "category", "binary", "cyclic"]
Why = Literal["constant", "identifier", "text", "empty", "type", "asked"]


@dataclass(frozen=True)
class Column:
    """One column that is modelled.

    Attributes:
        name: As in the table.
        kind: What its values are: numbers of either sign; positive numbers; counts 0, 1, ...; levels in order; levels
            without order; two levels; numbers that come round again.
        levels: Of levels, what they are called, in the order of their codes 0, 1, ...
        source: The Arrow type that it had: "int64", "double", "string", "bool", "date32[day]", "timestamp[us]", ...
        decimals: Digits behind the point that its numbers have, at most; None where they are not decimal.
        low: The least number seen in training.
        high: The largest.
        period: Of a cyclic column, what it comes round after, from 0.
        origin: What was taken off each number, `low` and `high` too: nothing but for large numbers close together,
            such as times of one year, which single precision would blur. A density does not change by it.
        pooled: How many rare levels the last level stands for; None where no levels were pooled.
        format: How the text of a date is written, as strftime has it; None where the Arrow type says it.
        missing: The texts that stand for a missing value in this column; None for the usual ones.
        spikes: Of numbers, those that recur and are held apart from the others, less the origin: a row has one of them
            with a probability, and else a number of the kind.
        cycles: Of a date, the periods by which an encoder reads it beside its trend, in days.
    """

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()
    source: str = "double"
    decimals: int | None = None
    low: float | None = None
    high: float | None = None
    period: float | None = None
    origin: float | None = None
    pooled: int | None = None
    format: str | None = None
    missing: tuple[str, ...] | None = None
    spikes: tuple[float, ...] = ()
    cycles: tuple[float, ...] = ()

    @property
    def is_date(self) -> bool:
        """Whether a value is a day or a moment: a real number of days."""
        return self.kind == "real" and (self.format is not None or self.source.startswith(("date", "timestamp")))

    @property
    def is_level(self) -> bool:
        """Whether a value is one of its levels."""
        return self.kind in ("ordinal", "category", "binary")

    def table(self) -> dict[str, Any]:
        """The description, JSON-able; without what is not known."""
        found = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        # no missing tokens at all are something else than the usual ones
        return {key: value for key, value in found.items() if value is not None and (value != [] or key == "missing")}

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Column":
        """The column of a description.

        Raises:
            ValueError: It has entries that no column has, or no name or kind.
        """
        _check(table, {field.name for field in fields(cls)}, ("name", "kind"))
        named = ("levels", "missing", "spikes", "cycles")
        lists = {key: tuple(table[key]) for key in named if table.get(key) is not None}
        return cls(**{**table, **lists})


@dataclass(frozen=True)
class Aside:
    """One column that is not modelled, and what comes back in its place.

    Attributes:
        name: As in the table.
        at: Its place among all columns of the table, from 0.
        why: It always has one value; it only names the row; it is free text; it holds nothing; it has a type that no
            model is for; or it was asked for.
        source: The Arrow type that it had.
        value: Of a constant, its value as text; None, and nothing comes back, for the others.
    """

    name: str
    at: int
    why: Why
    source: str = "string"
    value: str | None = None

    def table(self) -> dict[str, Any]:
        """The description, JSON-able; without what is not known."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Aside":
        """The column of a description.

        Raises:
            ValueError: It has entries that no such column has, or lacks some.
        """
        _check(table, {field.name for field in fields(cls)}, ("name", "at", "why"))
        return cls(**table)


def _check(table: Mapping[str, Any], known: Collection[str], needed: Sequence[str]) -> None:
    wrong = [f"{key!r} is not known" for key in table if key not in known]
    wrong += [f"{key!r} is missing" for key in needed if key not in table]
    if wrong:
        raise ValueError(f"{dict(table)} describes no column: {'; '.join(wrong)}.")
