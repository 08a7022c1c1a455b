"""Cells: what the values of one Arrow array are, whatever type they came in.

Three questions are asked of an array, each answered for all its cells at once: which are missing, which numbers they
are, which days. A cell of text is read as it was meant: without the spaces around it, and as missing if it is one of
the tokens by which people write that nothing is known.

Axes: n rows of the array.
"""

import datetime
import re
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64
from numpy import ndarray

MISSING = (
    *("", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "NULL", "Null", "null", "None", "NaT"),
    *("-", "--", "."),
)
# Numbers of either sign as people and programs write them; a sequence of digits that begins with 0 is a code.
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)
CODE = r"^[+-]?0[0-9]"
MICROSECONDS = 86_400_000_000  # of a day
# ISO 8601, which Arrow reads by itself, without and with the offset from UTC, and then what else is common; the day
# before the month where both would do.
ISO, ZONED = "", "Z"
FORMATS = (ISO, ZONED, *(f"%d{s}%m{s}%Y{t}" for t in ("", " %H:%M", " %H:%M:%S") for s in "/.-"))
FORMATS += tuple(f"{date}{t}" for t in ("", " %H:%M", " %H:%M:%S") for date in ("%m/%d/%Y", "%m-%d-%Y", "%Y/%m/%d"))
FORMATS += ("%Y.%m.%d", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y")


def is_text(kind: pa.DataType) -> bool:
    """Whether cells of this type are text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether cells of this type are numbers."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def is_date(kind: pa.DataType) -> bool:
    """Whether cells of this type are days or moments."""
    return pa.types.is_date(kind) or pa.types.is_timestamp(kind)


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a name, as `str` gives it: "int64", "timestamp[us, tz=UTC]", "decimal128(10, 2)", ...

    Example:
        >>> kind = pa.dictionary(pa.int8(), pa.string(), ordered=True)
        >>> arrow_type(str(kind)) == kind
        True
    """
    if found := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", name):
        return pa.timestamp(found[1], found[2])
    if found := re.fullmatch(r"decimal(\d+)\((\d+), (-?\d+)\)", name):
        make = {"32": pa.decimal32, "64": pa.decimal64, "128": pa.decimal128, "256": pa.decimal256}[found[1]]
        return make(int(found[2]), int(found[3]))
    if found := re.fullmatch(r"dictionary<values=(.+), indices=(\w+), ordered=([01])>", name):
        return pa.dictionary(arrow_type(found[2]), arrow_type(found[1]), ordered=found[3] == "1")
    return pa.type_for_alias(name)


def tidy(array: pa.Array, tokens: Sequence[str] | None = None) -> tuple[pa.Array, Counter[str]]:
    """The cells with null for all that are missing, and which tokens stood for that, how often.

    Text comes back without the spaces around it, what is encoded by a dictionary as its values.

    Args:
        array: Any array.
        tokens: The texts that mean that a value is missing; None for the usual ones. Empty text, NaN and null always
            mean it.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if is_text(array.type):
        array = pc.utf8_trim_whitespace(array.cast(pa.string()))
        absent = pc.is_in(array, value_set=pa.array(MISSING if tokens is None else ("", *tokens), pa.string()))
        found = array.filter(absent).value_counts()
        counts = dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True))
        return pc.if_else(absent, pa.scalar(None, pa.string()), array), Counter(counts)
    if pa.types.is_floating(array.type):
        array = array.cast(pa.float32()) if pa.types.is_float16(array.type) else array
        return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array), Counter()
    return array, Counter()


def numbers(array: pa.Array) -> tuple[Float64[ndarray, "n"], Bool[ndarray, "n"]]:
    """The numbers in an array that is tidy, NaN where there is none, and which cells hold something else."""
    if is_text(array.type):
        none = np.zeros(len(array), bool)
        try:
            if not pc.any(pc.match_substring_regex(array, CODE)).as_py():
                return _plain(array.cast(pa.float64())), none
        except pa.ArrowInvalid:
            pass
        matches = pc.and_(
            pc.match_substring_regex(array, f"^({NUMBER.pattern})$", ignore_case=True),
            pc.invert(pc.match_substring_regex(array, CODE)),
        )
        values = pc.if_else(matches, array, pa.scalar(None, pa.string())).cast(pa.float64())
        return _plain(values), ~matches.fill_null(True).to_numpy(zero_copy_only=False)
    if pa.types.is_decimal(array.type):
        # Through text, since Arrow divides by the power of ten and rounds twice.
        return _plain(array.cast(pa.string()).cast(pa.float64())), np.zeros(len(array), bool)
    if is_number(array.type) or pa.types.is_boolean(array.type):
        return _plain(array.cast(pa.float64(), safe=False)), np.zeros(len(array), bool)
    return np.full(len(array), np.nan), array.is_valid().to_numpy(zero_copy_only=False)


def days(
    array: pa.Array, form: str | None = None, origin: float = 0.0
) -> tuple[Float64[ndarray, "n"], Bool[ndarray, "n"]]:
    """The days since the beginning of 1970, fractions included, in an array that is tidy, and which cells are no dates.

    Args:
        array: Dates, moments, or text.
        form: How text is written, one of `FORMATS`; None for ISO 8601, with the offset from UTC or without.
        origin: A day that is taken off, before anything is rounded.
    """
    none = np.zeros(len(array), bool)
    if is_date(array.type):
        zone = array.type.tz if pa.types.is_timestamp(array.type) else None
        moments = array.cast(pa.timestamp("us", zone), safe=False)
    elif not is_text(array.type):
        return np.full(len(array), np.nan), array.is_valid().to_numpy(zero_copy_only=False)
    elif form is None:
        moments, none = _iso(array, None)
        if none.any():
            zoned, wrong = _iso(array, "UTC")
            moments, none = pc.coalesce(moments, zoned.cast(moments.type)), none & wrong
    elif form in (ISO, ZONED):
        moments, none = _iso(array, "UTC" if form else None)
    else:
        moments = pc.strptime(array, format=form, unit="us", error_is_null=True)
        none = pc.and_(moments.is_null(), array.is_valid()).to_numpy(zero_copy_only=False)
    found = _plain(moments.cast(pa.int64()).cast(pa.float64(), safe=False))
    return (found - origin * MICROSECONDS) / MICROSECONDS, none


def texts(array: pa.Array) -> pa.Array:
    """The cells of an array that is tidy as text; whole numbers as whole numbers, whatever type they came in."""
    if pa.types.is_floating(array.type):
        return pa.array([None if value is None else text_of(value) for value in array.to_pylist()], pa.string())
    return array.cast(pa.string())


def text_of(value: float) -> str:
    """A number as text, the shortest that is exact.

    >>> text_of(3.0), text_of(0.1), text_of(-2.50)
    ('3', '0.1', '-2.5')
    """
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def number_of(text: str) -> float | None:
    """The number that a text is; None where it is none.

    >>> number_of("1e3"), number_of("007"), number_of("nan")
    (1000.0, None, None)
    """
    return float(text) if NUMBER.fullmatch(text) and not re.match(CODE, text) else None


def first(mask: Bool[ndarray, "n"]) -> int | None:
    """Where the first True is; None where there is none."""
    return int(mask.argmax()) if mask.any() else None


def near_date(some: Collection[str]) -> bool:
    """Whether texts look like dates, so that trying all formats is worth the while."""
    return all(re.fullmatch(r"[\w/.: ,+-]{6,32}", text) and sum(c.isdigit() for c in text) >= 4 for text in some)


def _plain(array: pa.Array) -> Float64[ndarray, "n"]:
    return array.to_numpy(zero_copy_only=False)


def _iso(array: pa.Array, zone: str | None) -> tuple[pa.Array, Bool[ndarray, "n"]]:
    """The moments of texts in ISO 8601, all with an offset if there is a zone, else none, and which cells are none."""
    kind = pa.timestamp("us", zone)
    try:
        return array.cast(kind), np.zeros(len(array), bool)
    except pa.ArrowInvalid:
        wrong = np.array([text is not None and not _is_iso(text, kind) for text in array.to_pylist()], bool)
        return pc.if_else(pa.array(wrong), pa.scalar(None, pa.string()), array).cast(kind), wrong


def _is_iso(text: str, kind: pa.DataType) -> bool:
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return False
    try:
        pa.scalar(text).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
