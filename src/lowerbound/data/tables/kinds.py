"""The kind of a column, from what was seen of it.

    one value only             constant: dropped, put back on output
    days, moments              real: days since 1970
    true and false, two values binary
    an Arrow dictionary        category; ordinal where the type puts levels in order
    a whole number for each    identifier, where each is one more than the last, or the name says so: left out
    few whole numbers          ordinal
    whole numbers from 0       count
    numbers above 0            positive, where they span more than a factor of two; else real
    other numbers              real
    texts that recur           category, the rare ones pooled
    texts that do not          identifier or free text: left out

The first that fits is taken. Large numbers are real however whole they are: a likelihood of counts loses its digits
in single precision. Real numbers close together and far from 0 are counted from an origin near them, for the same
reason.

Among numbers that are many, one may recur: amounts are mostly 0, or what a register cannot hold is 99999. Such a spike
has a hundredth of the rows, or of those without the spikes found so, thirty rows at least, and five times the rows of
the numbers next to it. It is held apart, and the kind is that of the others.
"""

import math
import re
import statistics
from collections.abc import Collection, Sequence
from dataclasses import replace

import pyarrow as pa

from ...columns import Aside, Column, Kind, Why
from .cells import ISO, ZONED, is_date, is_text
from .profile import Profile

FEW_LEVELS = 32
ROWS_PER_LEVEL = 5
MOST_LEVELS = 100
LARGEST_COUNT = 10_000
LEAST_ROWS_TO_IDENTIFY = 10
SPIKE_SHARE = 0.01  # of the rows
SPIKE_ROWS = 30
SPIKE_HEIGHT = 5  # times the numbers next to it
BESIDE_SPIKES = 10  # other numbers at the least
SINGLE = 2.0**24  # whole numbers up to here are exact in single precision
NAMES_A_ROW = re.compile(r"((^|[\W_])(id|ids|uuid|guid|key|index|idx)|[a-z](Id|ID))$")
STEPS = {"D": 1.0, "s": 1 / 86_400, "us": 1 / 86_400e6}
YEAR = 365.2425  # days
CYCLES = {1.0: "day", 7.0: "week", YEAR: "year"}
SOURCES = {"D": "date32[day]", "s": "timestamp[s]", "us": "timestamp[us]"}
OTHER = ("other", "other (rare)", "other (pooled)")
Found = tuple[Column | Aside, str]


def kind_of(profile: Profile, spikes: Collection[float] | None = None) -> Found:
    """The column, or why it is not modelled, and the reason.

    Args:
        profile: Of a column all of numbers, or of none.
        spikes: Of a column of numbers, those that are held apart; None to infer them.
    """
    if not profile.supported:
        return put_aside(profile, "type"), f"there is no model of {profile.type}"
    if profile.seen == 0:
        return put_aside(profile, "empty"), "it holds nothing"
    levels = profile.levels()
    if len(levels) == 1:
        value = next(iter(levels))
        return put_aside(profile, "constant", value), f"always {value!r}{' where it is known' * (profile.missing > 0)}"
    if profile.dates:
        return date(profile)
    if len(levels) == 2 and not profile.order:
        return of_levels(profile, "binary", tuple(levels)), " or ".join(map(repr, levels))
    if profile.order:
        ordered = tuple(level for level in profile.order if level in levels)
        return of_levels(profile, "ordinal", ordered), f"{len(ordered)} levels, put in order by the type"
    if pa.types.is_dictionary(profile.type):
        return category(profile)
    return _number(profile, spikes) if profile.numbers else _text(profile)


def put_aside(profile: Profile, why: Why, value: str | None = None) -> Aside:
    """A column that is not modelled; its place is for others to say."""
    return Aside(profile.name, 0, why, _source(profile), value)


def of_levels(profile: Profile, kind: Kind, levels: tuple[str, ...]) -> Column:
    """A column of levels."""
    return Column(profile.name, kind, levels, _source(profile))


def numeric(profile: Profile, kind: Kind, spikes: Collection[float] = ()) -> Column:
    """A column of numbers."""
    extent = profile.extent
    column = Column(profile.name, kind, (), _source(profile), extent.decimals, extent.low, extent.high)
    column = replace(column, spikes=tuple(sorted(map(float, spikes))))
    return _shifted(column, None if extent.decimals is None else 10.0**-extent.decimals) if kind == "real" else column


def spikes_of(profile: Profile) -> tuple[float, ...]:
    """The numbers that recur among many others; none where the others are few."""
    left, rows, found = list(profile.frequencies().items()), profile.seen, []
    for _ in range(2):
        high = [
            value
            for i, (value, count) in enumerate(left)
            if count >= max(SPIKE_ROWS, SPIKE_SHARE * rows) and count >= SPIKE_HEIGHT * _beside(left, i)
        ]
        found += high
        rows -= sum(count for value, count in left if value in high)
        left = [(value, count) for value, count in left if value not in high]
    return tuple(sorted(found)) if profile.counts is None or len(left) >= BESIDE_SPIKES else ()


def said_of(spikes: Collection[float], profile: Profile) -> str:
    """What is held apart, and how often it is there, to follow a reason."""
    often = profile.frequencies()
    parts = [f"{spike:.7g} in {often.get(spike, 0) / profile.seen:.1%}" for spike in spikes]
    more = f" and {len(parts) - 4} more" * (len(parts) > 5)
    return f"; held apart: {', '.join(parts[: 4 if more else 5])}{more} of the rows" * bool(parts)


def least_of(profile: Profile, spikes: Collection[float]) -> float:
    """The least number beside spikes, as far as it tells whether they are positive."""
    extent = profile.extent
    return extent.above if extent.low == 0 and 0.0 in spikes else extent.low


def date(profile: Profile) -> Found:
    """A column of days or moments."""
    assert profile.dates
    form, extent = next(iter(profile.dates.items()))
    seen = (extent.unit != "D", True, extent.high - extent.low > YEAR)
    cycles = tuple(period for period, there in zip(CYCLES, seen, strict=True) if there)
    column = Column(profile.name, "real", (), _source(profile), None, extent.low, extent.high, cycles=cycles)
    if is_date(profile.type):
        pass
    elif profile.typed or form not in (ISO, ZONED):
        column = replace(column, format=form)
    elif form == ZONED:
        column = replace(column, source=f"timestamp[{'us' if extent.unit == 'us' else 's'}, tz=UTC]")
    else:
        column = replace(column, source=SOURCES[extent.unit])
    first, last = (_day(day) for day in (extent.low, extent.high))
    both = {form, form.replace("%d", "%_").replace("%m", "%d").replace("%_", "%m")}
    unclear = " (the day before the month; the other way round would fit too)" if both <= profile.dates.keys() else ""
    places = " and ".join(CYCLES[cycle] for cycle in cycles)
    days = f"days since 1970{' in UTC' * (form == ZONED)} and their place in the {places}"
    reason = f"dates from {first} to {last}{unclear * (len(both) == 2)}, as {days}"
    return _shifted(column, STEPS[extent.unit]), reason


def category(profile: Profile) -> Found:
    """A column of categories, those that are too rare to be learnt pooled."""
    levels = profile.levels()
    common = _common(profile)
    rare = len(levels) - len(common)
    other = next(name for name in OTHER if name not in common)
    kept = tuple(level for level in levels if level in common)
    column = of_levels(profile, "category", (*kept, other) if rare else kept)
    if not rare:
        return column, f"{len(kept)} levels"
    rows = sum(levels[level] for level in levels if level not in common)
    return replace(column, pooled=rare), f"{len(kept)} levels; {rare} rare ones, {rows:,} rows, pooled as {other!r}"


def _common(profile: Profile) -> set[str]:
    """The levels that are seen often enough to be learnt, the most frequent of them where they are many."""
    levels = profile.levels()
    least = min(3, 1 + profile.seen // 100)
    common = sorted((level for level in levels if levels[level] >= least), key=lambda level: -levels[level])
    # One rare level would be pooled with nothing.
    return set(levels) if len(levels) <= min(MOST_LEVELS, len(common) + 1) else set(common[:MOST_LEVELS])


def _number(profile: Profile, said: Collection[float] | None) -> Found:
    extent, levels = profile.extent, profile.levels()
    whole = extent.decimals == 0
    span = f"from {extent.low:,.7g} to {extent.high:,.7g}"
    each = profile.seen == profile.rows >= LEAST_ROWS_TO_IDENTIFY and profile.distinct == profile.counted
    if whole and each and profile.rises:
        return put_aside(profile, "identifier"), f"it numbers the rows, {span}"
    if whole and each and NAMES_A_ROW.search(profile.name):
        return put_aside(profile, "identifier"), "each row has its own, and the name says that it is one"
    if not said and whole and 0 < len(levels) <= FEW_LEVELS and profile.seen >= ROWS_PER_LEVEL * len(levels):
        return of_levels(profile, "ordinal", tuple(levels)), f"{len(levels)} whole numbers {span}"
    spikes = spikes_of(profile) if said is None else said
    least = least_of(profile, spikes)
    kind: Kind = "real"
    if whole and extent.low >= 0 and extent.high < LARGEST_COUNT:
        kind = "count"
        # the distribution of counts has a probability of its own for 0
        spikes = [spike for spike in spikes if spike != 0 or said is not None]
    elif least > 0 and extent.high > 2 * least and extent.high * 10.0 ** (extent.decimals or 0) < SINGLE:
        kind = "positive"
    what = f"{'whole ' * whole}numbers{' above 0,' * (kind == 'positive' and extent.low > 0)} {span}"
    return numeric(profile, kind, spikes), what + said_of(spikes, profile)


def _beside(counts: Sequence[tuple[float, int]], i: int) -> float:
    """How often a number near the one at i is there, in the middle; counts are by size."""
    near = [count for _, count in (*counts[max(0, i - 4) : i], *counts[i + 1 : i + 5])]
    return float(statistics.median(near)) if near else 0.0


def _text(profile: Profile) -> Found:
    levels = profile.levels()
    words = any(" " in level for level in list(levels)[:100])
    if profile.distinct >= 0.95 * profile.counted and profile.counted >= LEAST_ROWS_TO_IDENTIFY and not words:
        return put_aside(profile, "identifier"), "each row has its own"
    common = _common(profile)
    if 2 * profile.distinct > profile.counted or 2 * sum(levels.get(level, 0) for level in common) < profile.seen:
        return put_aside(profile, "text"), f"{profile.distinct:,} different texts in {profile.counted:,} values"
    return category(profile)


def _shifted(column: Column, step: float | None) -> Column:
    """The column counted from an origin near its values, where single precision would blur them."""
    low, high = column.low, column.high
    assert low is not None and high is not None
    largest, span = max(abs(low), abs(high)), high - low
    blurred = largest >= SINGLE * step if step else largest >= 1000 * span
    if not blurred or largest < 2 * span:
        return column
    origin = float(math.floor(low))
    spikes = tuple(spike - origin for spike in column.spikes)
    return replace(column, low=low - origin, high=high - origin, origin=origin, spikes=spikes)


def _source(profile: Profile) -> str:
    """The Arrow type of a column; of a file of text, the one that fits its values."""
    if profile.typed or not is_text(profile.type):
        return str(profile.type)
    if not profile.numbers or profile.seen == 0:
        return "string"
    extent = profile.extent
    return "int64" if extent.decimals == 0 and max(-extent.low, extent.high) < 2.0**53 else "double"


def _day(days: float) -> str:
    return str(pa.scalar(math.floor(days)).cast(pa.int32()).cast(pa.date32()).as_py())
