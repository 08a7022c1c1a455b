"""What is seen of one column in one pass over a table: counts and extremes, from which its kind follows.

Everything is gathered batch by batch, over the distinct values of each batch: a column of categories costs little
however long it is, and memory does not grow with the rows.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64
from numpy import ndarray

from .cells import (
    FORMATS,
    days,
    first,
    is_date,
    is_number,
    is_text,
    near_date,
    number_of,
    numbers,
    text_of,
    texts,
    tidy,
)

MOST_VALUES = 10_000
# Of columns with more values than that, only those are counted that are so many of the rows of a batch.
RECURRING = 0.001
MOST_DECIMALS = 6


@dataclass
class Extent:
    """From which number to which, and how finely: of decimals, of days or of their fractions; and the least above 0."""

    low: float = np.inf
    high: float = -np.inf
    above: float = np.inf
    decimals: int | None = 0
    unit: str = "D"

    def add(self, values: Float64[ndarray, "n"], single: bool = False) -> None:
        """Take in numbers, some perhaps NaN; `single` if they came in single precision."""
        values = values[~np.isnan(values)]
        if not len(values):
            return
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.above = min(self.above, float(values.min(initial=np.inf, where=values > 0)))
        kind = np.float32 if single else np.float64
        while self.decimals is not None and not _has_decimals(values, self.decimals, kind):
            self.decimals = self.decimals + 1 if self.decimals < MOST_DECIMALS else None

    def add_days(self, values: Float64[ndarray, "n"]) -> None:
        """Take in days, some perhaps NaN."""
        self.add(values)
        seconds = values[~np.isnan(values)] * 86_400
        if not np.allclose(seconds, np.round(seconds), rtol=0, atol=1e-5):
            self.unit = "us"
        elif self.unit == "D" and not (np.round(seconds) % 86_400 == 0).all():
            self.unit = "s"


@dataclass
class Profile:
    """What was seen of a column so far.

    Attributes:
        name: Of the column.
        type: Its Arrow type.
        typed: Whether that type says what it holds; in a file of text it does not.
        own_tokens: The texts that stand for a missing value; None for the usual ones.
        rows: All of them.
        missing: Those without a value.
        tokens: How often which of the tokens stood for that.
        counts: How often each value was there, as text; None once there were too many.
        recurring: Once there were too many, how often those numbers were there that recur.
        counted: Rows with a value in which values were counted.
        distinct: How many different values those have.
        numbers: Whether all values were numbers so far.
        extent: Of the numbers.
        strays: Values that are no numbers in a column that has numbers.
        stray: Of the first of them, its row and text.
        infinite: The row of the first infinite number.
        rises: Whether each value is one more than the one before it.
        dates: The ways in which all values so far could be read as days, and from which to which they are.
        order: The levels that the type itself puts in order.
    """

    name: str
    type: pa.DataType
    typed: bool = True
    own_tokens: tuple[str, ...] | None = None
    rows: int = 0
    missing: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] | None = field(default_factory=Counter[str])
    recurring: Counter[float] = field(default_factory=Counter[float])
    counted: int = 0
    distinct: int = 0
    numbers: bool = True
    extent: Extent = field(default_factory=Extent)
    strays: int = 0
    stray: tuple[int, str] | None = None
    infinite: int | None = None
    rises: bool = True
    dates: dict[str, Extent] | None = None
    order: tuple[str, ...] = ()
    _last: float | None = None

    @property
    def seen(self) -> int:
        """Rows that have a value."""
        return self.rows - self.missing

    @property
    def supported(self) -> bool:
        """Whether the values of this type can be modelled."""
        kind = self.type.value_type if pa.types.is_dictionary(self.type) else self.type
        return is_text(kind) or is_number(kind) or is_date(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)

    def levels(self) -> dict[str, int]:
        """How often each value was there, in order: numbers by size, text by the alphabet; none if they are too many.

        Numbers in a file of text are the same where their values are: "1" and "1.0".
        """
        counts: Counter[str] = self.counts or Counter()
        if not self.numbers:
            return dict(sorted(counts.items()))
        if self.counts is None or (self.typed and is_text(self.type)):
            return dict(sorted(counts.items(), key=lambda item: number_of(item[0]) or 0.0))
        return {text_of(number): count for number, count in self.frequencies().items()}

    def frequencies(self) -> dict[float, int]:
        """How often each number was there, by size; of too many, only those that recur."""
        merged: Counter[float] = Counter(self.recurring)
        for text, count in (self.counts or {}).items():
            if (number := number_of(text)) is not None:
                merged[number] += count
        return dict(sorted(merged.items()))

    def add(self, array: pa.Array) -> None:
        """Take in the next rows."""
        if not self.supported:
            self.rows += len(array)
            self.missing += array.null_count
            return
        if pa.types.is_dictionary(array.type) and array.type.ordered:
            self.order = tuple(texts(array.dictionary).to_pylist())
        cells, tokens = tidy(array, self.own_tokens)
        self.tokens += tokens
        found = pc.drop_null(cells).value_counts()
        values, counts = found.field(0), found.field(1)
        self.numbers = self.numbers and not pa.types.is_boolean(cells.type)
        if self.numbers:
            self._measure(cells, values, counts)
        if is_date(self.type) or (is_text(cells.type) and not self.numbers):
            self._date(values)
        self.rows += len(cells)
        self.missing += cells.null_count
        self._count(values, counts)

    def _measure(self, cells: pa.Array, values: pa.Array, counts: pa.Array) -> None:
        """The numbers among the distinct values; the first of those that are none, or infinite."""
        measured, strays = numbers(values)
        if (i := first(np.isinf(measured))) is not None and self.infinite is None:
            self.infinite = self.rows + pc.index(cells, values[i]).as_py()
        self.extent.add(measured[np.isfinite(measured)], single=pa.types.is_float32(cells.type))
        if (i := first(strays)) is not None:
            number = int(counts.to_numpy()[strays].sum())
            self.strays += number
            if self.stray is None:
                self.stray = self.rows + pc.index(cells, values[i]).as_py(), str(values[i].as_py())
        in_order = len(values) == len(cells) and not strays.any() and self.rises
        before = measured[:1] - 1 if self._last is None else np.array([self._last])
        self.rises = in_order and bool((np.diff(np.concatenate([before, measured])) == 1).all())
        self._last = float(measured[-1]) if len(measured) else self._last
        # Mostly other things: no column of numbers in which a few are mistaken.
        self.numbers = 2 * self.strays <= self.seen + len(cells) - cells.null_count

    def _date(self, values: pa.Array) -> None:
        if self.dates is None:
            # What came before this batch must have been dates as well: not in a column that began with numbers.
            like = is_date(self.type) or (self.seen == 0 and near_date(values[:20].to_pylist()))
            self.dates = {form: Extent() for form in FORMATS[: None if is_text(values.type) else 1]} if like else {}
        for form in list(self.dates):
            found, wrong = days(values, form)
            if wrong.any():
                del self.dates[form]
            else:
                self.dates[form].add_days(found)

    def _count(self, values: pa.Array, counts: pa.Array) -> None:
        if self.counts is not None and len(values) > MOST_VALUES:
            self.counted, self.distinct = int(pc.sum(counts).as_py()), len(values)
            self._count_recurring(values, counts)
        elif self.counts is not None:
            self.counts.update(dict(zip(texts(values).to_pylist(), counts.to_pylist(), strict=True)))
            self.counted, self.distinct = self.seen, len(self.counts)
            if len(self.counts) > MOST_VALUES:
                self._count_recurring(values[:0], counts[:0])
        else:
            self._count_recurring(values, counts)

    def _count_recurring(self, values: pa.Array, counts: pa.Array) -> None:
        """Count on what recurs, instead of all."""
        if self.counts is not None:
            before, self.counts = self.frequencies(), None
            self.recurring = Counter({v: n for v, n in before.items() if n >= RECURRING * sum(before.values())})
        often = counts.to_numpy() >= RECURRING * counts.to_numpy().sum()
        found, _ = numbers(values.filter(pa.array(often)))
        recurs = dict(zip(found.tolist(), counts.to_numpy()[often].tolist(), strict=True))
        self.recurring.update({value: count for value, count in recurs.items() if np.isfinite(value)})
        if len(self.recurring) > MOST_VALUES:
            self.recurring = Counter(dict(self.recurring.most_common(MOST_VALUES // 2)))


def _has_decimals(values: Float64[ndarray, "n"], decimals: int, kind: type) -> bool:
    # Where a double has no digits left, every number is one of so many decimals.
    known = decimals == 0 or np.abs(values).max() * 10.0**decimals < 2.0**52
    return bool(known and (np.round(values, decimals).astype(kind) == values.astype(kind)).all())
