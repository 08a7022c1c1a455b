"""Text files of rows: CSV and its kin, recognised before they are read.

What a file of delimited text does not say is taken from its first lines: how its characters are encoded, what divides
its cells, whether the first line names the columns, what quotes a cell, which mark the decimals follow. Each can be
said instead. Cells are read as text, so that nothing is lost before it is known what a column holds; batch by batch,
so that memory holds one of them.
"""

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from .cells import MISSING, number_of

SAMPLE = 1 << 20
LINES = 200
CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1a\x1b"))
BLOCK = 1 << 22
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
DECIMAL_COMMA = r"^\s*([+-]?[0-9]*),([0-9]+)\s*$"
Rows = list[list[str]]


@dataclass(frozen=True)
class Form:
    """How a file of text is a table.

    Attributes:
        names: Of the columns.
        skip: Lines before the first row.
        delimiter: Between cells.
        encoding: Of characters, as Python calls it.
        quote: Around cells that hold a delimiter.
        decimal: Before the decimals: "." or ",".
        notes: What was recognised and is not usual, a line each.
    """

    names: tuple[str, ...]
    skip: int
    delimiter: str
    encoding: str
    quote: str
    decimal: str
    notes: tuple[str, ...] = ()


def recognise(file: Path, given: Mapping[str, Any]) -> Form:
    """How the file is a table, as far as it is not given.

    Args:
        file: The file, packed by gzip or not.
        given: Any of delimiter, encoding, header (true or false) and decimal.

    Raises:
        ValueError: It is no text, holds no rows, or names two columns the same.
    """
    sample, whole = _sample(file)
    if not sample.strip():
        raise ValueError(f"{file.name} is empty: there is nothing to learn from. Give a line of names, and rows.")
    encoding = given.get("encoding") or _encoding(file, sample)
    lines = _lines(file, sample, encoding, whole)
    delimiter = given.get("delimiter") or _delimiter(lines)
    rows = _cells(lines, delimiter, '"')
    quoted = any(len(cell) > 1 and cell[0] == cell[-1] == "'" for row in rows for cell in row)
    quote = "'" if quoted and not any('"' in line for line in lines) else '"'
    rows = _cells(lines, delimiter, quote)
    header = given["header"] if "header" in given else _has_header(rows)
    if header and len(rows) == 1 and whole:
        names = ", ".join(rows[0][:5]) + ", ..." * (len(rows[0]) > 5)
        raise ValueError(
            f"{file.name} has a header of {len(rows[0])} columns ({names}) and no rows. "
            "Give rows below it; if that line is a row, say header = false."
        )
    columns = tuple(rows[0]) if header else tuple(f"column {i + 1}" for i in range(len(rows[0])))
    if twice := [repr(name) for name, count in Counter(columns).items() if count > 1]:
        raise ValueError(
            f"{file.name}: the header names {', '.join(twice)} more than once, and a column is known by its name. "
            "Rename them; if the first line is a row, say header = false."
        )
    decimal = given.get("decimal") or _decimal(rows[header:], delimiter)
    found = Form(columns, _skip(lines, header), delimiter, encoding, quote, decimal)
    return replace(found, notes=_notes(file.name, found, given, header))


def batches(file: Path, form: Form) -> Iterator[pa.RecordBatch]:
    """The rows of a file, all cells as text, one batch after another.

    Raises:
        ValueError: A row has more or fewer cells than the first, or a cell holds other rows, by a quote that is open
            (its line is named); a character is not of the encoding, or the file is cut short.
    """
    rows, opened, meant = 0, None, False
    kinds = {name: pa.string() for name in form.names}
    try:
        with (
            pa.input_stream(str(file), compression="gzip" if _packed(file) else None) as stream,
            arrow_csv.open_csv(
                stream,
                arrow_csv.ReadOptions(
                    column_names=list(form.names), skip_rows=form.skip, encoding=form.encoding, block_size=BLOCK
                ),
                arrow_csv.ParseOptions(
                    delimiter=form.delimiter,
                    quote_char=form.quote,
                    newlines_in_values=True,
                    # In a table of one column, an empty line is a row whose value is missing.
                    ignore_empty_lines=len(form.names) > 1,
                ),
                arrow_csv.ConvertOptions(column_types=kinds),
            ) as reader,
        ):
            for batch in reader:
                for row, lines, swallows in () if meant else _broken(batch, form):
                    meant = meant or not swallows
                    opened = min(opened or (rows + row, lines), (rows + row, lines))
                rows += len(batch)
                yield _with_points(batch) if form.decimal == "," else batch
    except (pa.ArrowInvalid, OSError, UnicodeError) as error:
        raise _named(file, form, error) from error
    if opened and not meant:
        row, lines = opened
        raise ValueError(
            f"{file.name}, line {_line(file, form, row)}: a quote that is open there joins {lines:,} lines, each of "
            f"which would be a row of {len(form.names)} cells. Close the quote, or leave it out; if the cell is meant "
            "to have line breaks, put spaces in their place."
        )


def _broken(batch: pa.RecordBatch, form: Form) -> Iterator[tuple[int, int, bool]]:
    """Of each cell with line breaks its row, how many lines it has, and whether each would make a row."""
    marks = len(form.names) - 1
    for at, column in enumerate(batch.columns):
        # a look at all bytes takes much less time than one at each cell
        if not marks or b"\n" not in column.buffers()[2].to_pybytes():
            continue
        for row in np.flatnonzero(pc.match_substring(column, "\n").to_numpy(zero_copy_only=False)).tolist():
            lines = column[row].as_py().rstrip("\r\n").split("\n")
            counts = [line.count(form.delimiter) for line in lines]
            counts[0] += at
            counts[-1] += marks - at
            yield row, len(lines), len(lines) > 1 and set(counts) == {marks}


def _line(file: Path, form: Form, row: int) -> int:
    """The line of a row, if each before it has one line."""
    with _open(file) as raw, io.TextIOWrapper(raw, form.encoding, errors="replace") as stream:
        numbers = (i for i, line in enumerate(stream, 1) if i > form.skip and line.strip("\r\n"))
        return next(itertools.islice(numbers, row, None))


def _with_points(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [pc.replace_substring_regex(column, DECIMAL_COMMA, r"\1.\2") for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _packed(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _open(file: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.GzipFile(file) if _packed(file) else file.open("rb")


def _sample(file: Path) -> tuple[bytes, bool]:
    """The first bytes of a file, and whether that is all of it."""
    try:
        with _open(file) as stream:
            sample = stream.read(SAMPLE)
            return sample, not stream.read(1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{file.name} cannot be unpacked ({error}). It was cut short or damaged: copy it again."
        ) from error


def _encoding(file: Path, sample: bytes) -> str:
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    control = len(sample) - len(sample.translate(None, CONTROL))
    what = "zero bytes" if b"\0" in sample else "control characters" if control > 0.01 * len(sample) else ""
    if what:
        raise ValueError(
            f"{file.name} is no text: it holds {what}. Give a CSV, Parquet or Arrow file; if it is text in an "
            'encoding of its own, say so: encoding = "utf-16-le".'
        )
    for encoding in ("utf-8", "cp1252"):
        try:
            # The last character may be cut in two.
            codecs.getincrementaldecoder(encoding)().decode(sample)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def _lines(file: Path, sample: bytes, encoding: str, whole: bool) -> list[str]:
    """The first lines, none of them cut; without the mark that some encodings begin with."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample).removeprefix("\ufeff")
    except LookupError:
        raise ValueError(f"{file.name}: there is no encoding {encoding!r}. Say utf-8, latin-1, cp1252, ...") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is not {encoding}: {error}. Say which encoding it has.") from None
    lines = io.StringIO(text, newline=None).readlines()
    return (lines if whole or len(lines) == 1 else lines[:-1])[:LINES]


def _cells(lines: Sequence[str], delimiter: str, quote: str) -> Rows:
    found = csv.reader(lines, delimiter=delimiter, quotechar=quote, skipinitialspace=True)
    try:
        return [[cell.strip() for cell in row] for row in found if row]
    except csv.Error as error:
        raise ValueError(f"line {found.line_num} cannot be divided into cells ({error}). Mend the file.") from None


def _delimiter(lines: Sequence[str]) -> str:
    """What divides most lines into the same number of cells, and into the most cells; a comma where nothing does."""
    best, delimiter = (0.0, 1), ","
    for candidate in DELIMITERS:
        widths = Counter(len(row) for row in _cells(lines, candidate, '"'))
        width, count = widths.most_common(1)[0]
        # A ragged row or two is an error to be named, no reason to choose another delimiter.
        share = 1.0 if count >= 0.9 * widths.total() else count / widths.total()
        if width > 1 and (share, width) > best:
            best, delimiter = (share, width), candidate
    return delimiter


def _has_header(rows: Rows) -> bool:
    """Whether the first row names columns: texts that the rows below do not hold."""
    names, below = rows[0], rows[1:]
    if any(number_of(name.replace(",", ".")) is not None or (name in MISSING and i) for i, name in enumerate(names)):
        return False
    columns = [[row[i] for row in below if i < len(row) and row[i] not in MISSING] for i in range(len(names))]
    if any(column and all(number_of(cell.replace(",", ".")) is not None for cell in column) for column in columns):
        return True
    return not any(name in column for name, column in zip(names, columns, strict=True))


def _decimal(rows: Rows, delimiter: str) -> str:
    if delimiter == ",":
        return "."
    cells = [cell for row in rows for cell in row]
    commas = sum(bool(re.match(DECIMAL_COMMA, cell)) for cell in cells)
    points = sum(bool(re.fullmatch(r"[+-]?[0-9]*\.[0-9]+", cell)) for cell in cells)
    return "," if commas > points else "."


def _skip(lines: Sequence[str], header: bool) -> int:
    """Lines before the first row: empty ones, and the header."""
    empty = next(i for i, line in enumerate(lines) if line.strip())
    return empty + header


def _notes(file: str, found: Form, given: Mapping[str, Any], header: bool) -> tuple[str, ...]:
    """What was recognised, where it is neither usual nor given."""
    notes = []
    if found.encoding != "utf-8" and "encoding" not in given:
        notes.append(f"{file}: read as {found.encoding}, since it is not UTF-8")
    if found.delimiter not in (",", "\t") and "delimiter" not in given:
        notes.append(f"{file}: cells are divided by a {DELIMITERS[found.delimiter]}")
    if found.quote == "'":
        notes.append(f"{file}: cells are quoted by '")
    if found.decimal == "," and "decimal" not in given:
        notes.append(f"{file}: decimals follow a comma")
    if not header and "header" not in given:
        notes.append(
            f"{file}: the first line is a row, no header: columns are called {found.names[0]} to {found.names[-1]}; "
            "header = true in the schema says otherwise"
        )
    return tuple(notes)


def _named(file: Path, form: Form, error: Exception) -> ValueError:
    """What is wrong with a file that Arrow could not read, and where."""
    width = len(form.names)
    if "UTF8" in str(error) or isinstance(error, UnicodeError):
        return ValueError(
            f"{file.name} is not {form.encoding} throughout ({error}). Say which encoding it has: "
            'encoding = "latin-1" in the schema.'
        )
    try:
        last = 0
        with _open(file) as raw, io.TextIOWrapper(raw, form.encoding, errors="replace", newline="") as stream:
            reader = csv.reader(stream, delimiter=form.delimiter, quotechar=form.quote)
            for row in reader:
                begun, last = last + 1, reader.line_num
                if row and len(row) != width:
                    lines = f"line {last}" if begun == last else f"lines {begun} to {last}, by a quote that is open"
                    return ValueError(
                        f"{file.name}, {lines}: {len(row)} cells, and {width} columns. Mend that line "
                        "(a cell that holds the delimiter must be quoted); if cells are divided by another one, say "
                        f"so: delimiter = {';' if form.delimiter == ',' else ','!r} in the schema."
                    )
    except csv.Error as wrong:
        return ValueError(
            f"{file.name}, line {last + 1} or below cannot be divided into cells ({wrong}): a quote may be "
            "open. Close it, or leave it out."
        )
    except (EOFError, zlib.error, OSError):
        return ValueError(f"{file.name} cannot be unpacked ({error}). It was cut short or damaged: copy it again.")
    return ValueError(f"{file.name} cannot be read as a table ({error}). Mend it, or save it again.")
