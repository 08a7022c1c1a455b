"""Conditions on rows, as people write them: "sex=F, age>=30 and state=Texas|Ohio".

A comparison is a column, one of = != < <= > >=, and a value: a number, a date as the column has it or in ISO 8601, a
level; after = and != there may be several, with | between them. Comparisons are joined by commas or "and", and all of
them hold. What holds a comma, a bar, an operator or "and" is put in quotes. Levels in order compare by their order.

Conditions are on cells: where a column has whole numbers or decimals, x counts as the cell that it is rounded to.

Axes: d modelled columns, r ranges of values.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch

from ...columns import Column
from ...evaluation.conditions import Conditions
from ..dataset import nearest
from .cells import arrow_type, days, is_number, number_of
from .coding import Coding
from .reading import of_frame

OPERATORS = ("=", "!=", "<", "<=", ">", ">=")
TOKEN = re.compile(
    r"""\s*(?: "(?P<double>[^"]*)" | '(?P<single>[^']*)' | (?P<mark>==|!=|<=|>=|[=<>|,]) | (?P<and>and(?=\s))
    | (?P<plain>(?!["'])(?:(?!\s+and\s|!=)[^=<>|,])+) )\s*""",
    re.VERBOSE | re.IGNORECASE,
)
# Of the distance of two cells: less than half, so that what is rounded to a cell is never taken for its neighbour.
HALF = 0.499999
Ranges = list[tuple[float, float]]
ALL: Ranges = [(-math.inf, math.inf)]


@dataclass(frozen=True)
class Where:
    """Conditions on the rows of a table.

    Attributes:
        conditions: In the numbers of x.
        coding: That of the table, with ranges that reach as far as the conditions do.
        notes: What there is to say, a line each.
    """

    conditions: Conditions
    coding: Coding
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Comparison:
    """One comparison, as it was written."""

    name: str
    operator: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{'|'.join(self.values)}"


def read_where(text: str, coding: Coding) -> Where:
    """The conditions that a text puts on the rows of a table.

    Raises:
        ValueError: It is no such text; a column, a level, a number or a date is none; or nothing can meet it.

    Example:
        >>> age = Column("age", "count", decimals=0, source="int64")
        >>> coding = Coding((age, Column("sex", "binary", ("F", "M"), source="string")))
        >>> found = read_where("sex=F, age>=30", coding).conditions
        >>> found.fixed.tolist(), [round(end) for end in found.limits[0][0].tolist()[:1]]
        ([nan, 0.0], [30])
    """
    comparisons = _parse(text)
    names = [column.name for column in coding.columns]
    for comparison in comparisons:
        _check_name(comparison, coding, names)
    fixed = torch.full((len(names),), math.nan, dtype=torch.float64)
    limits, columns, seen, notes = {}, list(coding.columns), [], []
    for i, column in enumerate(coding.columns):
        own = [comparison for comparison in comparisons if comparison.name == column.name]
        if not own:
            continue
        ranges = _ranges(column, own)
        value = _value(column, own, ranges)
        if value is not None:
            fixed[i] = value
        elif ranges != ALL:
            limits[i] = torch.tensor(ranges, dtype=torch.float64)
        if not column.is_level and column.low is not None and column.high is not None:
            seen.append(f"{column.name} went from {_shown(column, column.low)} to {_shown(column, column.high)}")
            columns[i] = _wider(column, ranges)
            if not any(low <= column.high and high >= column.low for low, high in ranges):
                notes.append(f"{_joined(own)} is beyond what was seen: in training, {seen[-1]}")
    said = _joined(comparisons) + f" (in training, {', '.join(seen)})" * bool(seen)
    wide = replace(coding, columns=tuple(columns))
    _check_cells(comparisons, wide, fixed)
    return Where(Conditions(fixed, limits, said), wide, tuple(notes))


def _parse(text: str) -> list[_Comparison]:
    """The comparisons in a text."""
    text = text.strip()
    tokens: list[tuple[str, bool]] = []
    at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if not found:
            raise ValueError(f"{text!r} cannot be read from {text[at:]!r} on: a quote is not closed. Close it.")
        kind, at = found.lastgroup, found.end()
        word = found[kind or 0].strip() if kind == "plain" else found[kind or 0]
        tokens.append(("," if kind == "and" else word, kind in ("mark", "and")))
    comparisons: list[_Comparison] = []
    part: list[tuple[str, bool]] = []
    for token in [*tokens, (",", True)]:
        if token == (",", True):
            comparisons.append(_comparison(text, part))
            part = []
        else:
            part.append(token)
    return comparisons


def _comparison(text: str, part: Sequence[tuple[str, bool]]) -> _Comparison:
    """The comparison that some tokens are: a name, an operator, values with | between."""
    words = [word for word, is_mark in part if not is_mark]
    marks = [mark for mark, is_mark in part if is_mark]
    operator = marks[0].replace("==", "=") if marks else ""
    in_turn = len(part) % 2 == 1 and all(is_mark == i % 2 for i, (_, is_mark) in enumerate(part))
    if not in_turn or operator not in OPERATORS or any(mark != "|" for mark in marks[1:]):
        given = f"{''.join(word for word, _ in part)!r} in {text!r}" if part else repr(text)
        raise ValueError(
            f'{given} is no comparison. Write COLUMN=VALUE, joined by commas, as in "sex=F, age>=30, state=Texas|Ohio" '
            f'(one of {" ".join(OPERATORS)}); put in quotes what holds one of these, a comma or "and".'
        )
    if len(words) > 2 and operator not in ("=", "!="):
        raise ValueError(f"{operator} compares with one value, and in {text!r} with {', '.join(words[1:])}. Give one.")
    return _Comparison(words[0], operator, tuple(words[1:]))


def _check_name(comparison: _Comparison, coding: Coding, names: Sequence[str]) -> None:
    name = comparison.name
    if any(aside.name == name for aside in coding.aside):
        raise ValueError(
            f"column {name!r} was not modelled, so nothing can be asked of it ({comparison}). Those that were: "
            f"{', '.join(names[:20])}."
        )
    if name not in names:
        raise ValueError(
            f"there is no column {name!r} ({comparison}).{nearest(name, names)} There are {', '.join(names[:20])}."
        )


def _ranges(column: Column, own: Sequence[_Comparison]) -> Ranges:
    """The values of a column that meet all comparisons.

    Raises:
        ValueError: None does.
    """
    count, period = len(column.levels) - 1.0, column.period or math.inf
    kinds: dict[str, Ranges] = {
        "real": ALL, "positive": [(math.ulp(0.0), math.inf)], "count": [(0.0, math.inf)], "cyclic": [(0.0, period)]
    }  # fmt: skip
    ranges = kinds.get(column.kind, [(0.0, count)])
    if column.kind == "positive":
        ranges = ranges + [(spike, spike) for spike in column.spikes if spike <= 0]
    for comparison in own:
        met = (_of_levels if column.is_level else _of_numbers)(column, comparison)
        ranges = [
            (max(low, least), min(high, most))
            for low, high in ranges
            for least, most in met
            if max(low, least) <= min(high, most)
        ]
    if not ranges:
        what = {"positive": ": it is above 0", "count": ": it is 0 or more"}.get(column.kind, "")
        what = f": it is from 0 to {column.period:g}" if column.period else what
        raise ValueError(
            f"nothing satisfies {_joined(own)}{what if len(own) == 1 else ''}. Leave out a condition on "
            f"{column.name!r}, or mend it."
        )
    return ranges


def _of_numbers(column: Column, comparison: _Comparison) -> Ranges:
    """The numbers that meet a comparison, as x has them."""
    step, origin = _step(column), column.origin or 0.0
    values = [_number(column, comparison, text) for text in comparison.values]
    recurring = {spike + origin for spike in column.spikes}
    if step is None and comparison.operator == "=" and len(values) > 1 and not set(values) <= recurring:
        raise ValueError(
            f"{column.name!r} has any numbers, so that the chance of each is 0, and {comparison} asks for one of "
            f"{len(values)}. Give one, or a range: {column.name}>=..., {column.name}<=..."
        )
    if step is None:
        return _of_any([value - origin for value in values], comparison.operator, bool(recurring & set(values)))
    cells = [(_cell(value, step, -1), _cell(value, step, 1)) for value in values]
    if comparison.operator == "=" and any(below != above for below, above in cells):
        what = f"numbers of {column.decimals} decimals" if column.decimals else "whole numbers"
        raise ValueError(f"{column.name!r} holds {what}, and {comparison} is none. Give one, or a range.")
    reach = HALF * step
    low, high = cells[0]
    match comparison.operator:
        case "=":
            ranges = [(low - reach, high + reach) for low, high in cells]
        case "!=":
            ends = sorted(cell for cell, upper in cells if cell == upper)
            edges = [(-math.inf, -math.inf), *((end - reach, end + reach) for end in ends), (math.inf, math.inf)]
            ranges = [(a, b) for (_, a), (b, _) in pairwise(edges)]
        case "<":
            ranges = [(-math.inf, high - step + reach)]
        case "<=":
            ranges = [(-math.inf, low + reach)]
        case ">":
            ranges = [(low + step - reach, math.inf)]
        case _:
            ranges = [(high - reach, math.inf)]
    return [(low - origin, high - origin) for low, high in ranges]


def _of_any(values: Sequence[float], operator: str, recurring: bool) -> Ranges:
    """The numbers that meet a comparison where there is no grid.

    Models draw in single precision, and what recurs is drawn as the nearest such number: a value stands for both.
    """
    single = [np.float32(value) for value in values]
    ends = sorted((min(v, float(s)), max(v, float(s))) for v, s in zip(values, single, strict=True))
    outside = sorted(
        (float(np.nextafter(s, -np.float32(np.inf))), float(np.nextafter(s, np.float32(np.inf)))) for s in single
    )
    match operator:
        case "=":
            return [(value, value) for value in values] if len(values) == 1 else ends
        case "!=":
            # what is left out is one number: it has a probability only where it recurs
            edges = [(-math.inf, -math.inf), *outside, (math.inf, math.inf)]
            return [(above, below) for (_, above), (below, _) in pairwise(edges)] if recurring else ALL
        case "<":
            return [(-math.inf, outside[0][0])]
        case "<=":
            return [(-math.inf, ends[0][1])]
        case ">":
            return [(outside[0][1], math.inf)]
        case _:
            return [(ends[0][0], math.inf)]


def _cell(value: float, step: float, side: int) -> float:
    """The cell that a value is, or the next one on a side of it: below for -1, above for 1."""
    places = value / step
    near = round(places)
    # 0.3 / 0.1 is not quite 3
    place = near if math.isclose(places, near, rel_tol=1e-12, abs_tol=1e-9) else math.floor(places) + (side > 0)
    return place * step


def _step(column: Column) -> float | None:
    """The distance of two cells of a column; None where it has any numbers, or moments."""
    if column.is_date:
        form = column.format or ""
        return 1.0 if column.source.startswith("date") or ("%d" in form and "%H" not in form) else None
    return None if column.decimals is None else 10.0**-column.decimals


def _number(column: Column, comparison: _Comparison, text: str) -> float:
    """The number that a text is in a column."""
    if not column.is_date:
        value = number_of(text)
        if value is None or math.isinf(value):
            raise ValueError(
                f"{text!r} is no number, and {column.name!r} holds numbers ({comparison}). Write it as in "
                f"{column.name}{comparison.operator}{_shown(column, column.high or 0.0)}."
            )
        return value
    for form in (column.format, None):
        found, wrong = days(pa.array([text]), form)
        if not wrong[0]:
            return float(found[0])
    raise ValueError(
        f"{text!r} is no date, and {column.name!r} holds dates ({comparison}). Write it as in "
        f"{column.name}{comparison.operator}{_shown(column, column.high or 0.0)}."
    )


def _of_levels(column: Column, comparison: _Comparison) -> Ranges:
    """The levels that meet a comparison, by their places."""
    kind = arrow_type(column.source)
    numbers = [number_of(level) for level in column.levels]
    operator = comparison.operator
    if is_number(kind) and (asked := number_of(comparison.values[0])) is not None and operator not in ("=", "!="):
        met = [value is not None and _compared(value, operator, asked) for value in numbers]
    elif operator in ("=", "!="):
        places = [_place(column, comparison, text) for text in comparison.values]
        met = [(place in places) == (operator == "=") for place in range(len(column.levels))]
    elif column.kind == "ordinal":
        asked = float(_place(column, comparison, comparison.values[0]))
        met = [_compared(float(place), operator, asked) for place in range(len(column.levels))]
    else:
        raise ValueError(
            f"the levels of {column.name!r} have no order, so {comparison} says nothing. Name them: "
            f"{column.name}={'|'.join(column.levels[:3])}."
        )
    return [(float(place), float(place)) for place, holds in enumerate(met) if holds]


def _compared(value: float, operator: str, asked: float) -> bool:
    return {"<": value < asked, "<=": value <= asked, ">": value > asked, ">=": value >= asked}[operator]


def _place(column: Column, comparison: _Comparison, text: str) -> int:
    """The place of a level: as it is written, or as the number it is, or but for capitals."""
    for same in (str, number_of, str.casefold):
        asked = same(text)
        places = [place for place, level in enumerate(column.levels) if asked is not None and same(level) == asked]
        if len(places) == 1:
            return places[0]
    pooled = f" Rare ones were pooled into {column.levels[-1]!r}." if column.pooled else ""
    listed = ", ".join(column.levels[:20]) + f", ... ({len(column.levels)} in all)" * (len(column.levels) > 20)
    raise ValueError(
        f"{text!r} is no level of {column.name!r} ({comparison}).{nearest(text, column.levels)} There are {listed}."
        f"{pooled}"
    )


def _value(column: Column, own: Sequence[_Comparison], ranges: Ranges) -> float | None:
    """The one value that is left of a column, if there is one."""
    if column.is_level:
        return ranges[0][0] if len(ranges) == 1 and ranges[0][0] == ranges[0][1] else None
    for comparison in own:
        if comparison.operator == "=" and len(comparison.values) == 1:
            return _number(column, comparison, comparison.values[0]) - (column.origin or 0.0)
    return None


def _wider(column: Column, ranges: Ranges) -> Column:
    """A column whose ends give way where a value beyond them, moved to them, would not be within the ranges."""
    least, most = min(low for low, _ in ranges), max(high for _, high in ranges)
    low, high = column.low, column.high
    assert low is not None and high is not None
    stays = [any(a <= end <= b for a, b in ranges) for end in (low, high)]
    return replace(
        column,
        low=low if stays[0] or least > low else -math.inf,
        high=high if stays[1] or most < high else math.inf,
    )


def _check_cells(comparisons: Sequence[_Comparison], coding: Coding, fixed: torch.Tensor) -> None:
    """Refuse values that no cell can hold."""
    again = coding.encode(of_frame(coding.decode(fixed[None]))).x[0].double()
    for column, value, held in zip(coding.columns, fixed, again, strict=True):
        if not torch.isclose(value, held, rtol=1e-6, atol=1e-6, equal_nan=True):
            said = _joined([c for c in comparisons if c.name == column.name])
            raise ValueError(
                f"{said}: no cell of {column.name!r} can hold that, it would come out as "
                f"{_shown(column, held.item())} ({column.source}). Give a value that it can hold, or a range."
            )


def _shown(column: Column, value: float) -> str:
    """A number as the cell that it is."""
    return str(
        Coding((replace(column, low=None, high=None),))
        .decode(torch.tensor([[value]], dtype=torch.float64))
        .column(0)[0]
        .as_py()
    )


def _joined(comparisons: Sequence[_Comparison]) -> str:
    return " and ".join(map(str, comparisons))
