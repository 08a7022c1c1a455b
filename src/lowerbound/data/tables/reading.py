"""Tables as they are read: batch by batch, from the first row to the last, as often as needed.

The kinds of files differ in what they say of themselves: text says nothing and is recognised (see text.py), Parquet
and Arrow files name the type of each column. Memory holds one batch of rows, whatever the file holds.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from . import text

PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
BATCH = 1 << 16


@dataclass(frozen=True)
class Source:
    """A table that can be read again and again.

    Attributes:
        name: What it is called in messages.
        schema: Names and Arrow types of the columns.
        batches: Begins anew at the first row.
        rows: How many there are; None where only reading tells.
        typed: Whether the types say what the columns hold; in a file of text, all of them are text.
        notes: What was recognised, a line each.
    """

    name: str
    schema: pa.Schema
    batches: Callable[[], Iterator[pa.RecordBatch]]
    rows: int | None = None
    typed: bool = True
    notes: tuple[str, ...] = ()

    def count(self) -> int:
        """How many rows there are."""
        return sum(batch.num_rows for batch in self.batches()) if self.rows is None else self.rows

    def whole(self) -> pa.Table:
        """All rows at once, every cell as it is; but null for an empty one of a file of text."""
        table = pa.Table.from_batches(self.batches(), self.schema)
        if self.typed:
            return table
        nothing = pa.scalar(None, pa.string())
        cells = [pc.if_else(pc.equal(column, ""), nothing, column) for column in table.columns]
        return pa.table(cells, schema=self.schema)


def open_table(path: Path | str, given: Mapping[str, Any] | None = None) -> Source:
    """A table in a file: Parquet, Arrow and Feather by their endings, text by any other.

    Args:
        path: The file.
        given: Of a file of text, any of delimiter, encoding, header and decimal.

    Raises:
        ValueError: There is no such file, it is cut short, or it holds no table.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{file} is {'a folder' if file.is_dir() else 'not there'}, and a table is a file.")
    if file.suffix.lower() in PARQUET:
        source = _parquet(file)
    elif file.suffix.lower() in ARROW:
        source = _arrow(file)
    else:
        form = text.recognise(file, given or {})
        schema = pa.schema([(name, pa.string()) for name in form.names])
        source = Source(file.name, schema, lambda: text.batches(file, form), typed=False, notes=form.notes)
    return _checked(source)


def of_frame(frame: Any, name: str = "table") -> Source:
    """A table in memory: an Arrow table, a pandas or polars frame, a dict of columns, or whatever streams Arrow data.

    The index of a pandas frame is no column.

    Raises:
        ValueError: It is none of these.
    """
    try:
        table = pa.table(frame)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise ValueError(
            f"{name} is a {type(frame).__name__}, and no table can be made of it ({error}). Give a pandas, polars or "
            "Arrow table, or a dict of columns."
        ) from error
    if not isinstance(frame, pa.Table):
        index = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", ())
        table = table.drop_columns([column for column in index if isinstance(column, str)])
    return _checked(Source(name, table.schema, lambda: iter(table.to_batches(max_chunksize=BATCH)), table.num_rows))


def unnamed(names: list[str]) -> bool:
    """Whether columns go by the numbers that they were given for want of a header."""
    return names == [f"column {i + 1}" for i in range(len(names))]


def _parquet(file: Path) -> Source:
    def batches() -> Iterator[pa.RecordBatch]:
        try:
            # Without it, Arrow reads ahead through all of the file, and holds that.
            with pq.ParquetFile(file, pre_buffer=False) as stream:
                yield from stream.iter_batches(BATCH)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file, error) from error

    try:
        with pq.ParquetFile(file) as stream:
            return Source(file.name, stream.schema_arrow, batches, stream.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from error


def _arrow(file: Path) -> Source:
    def batches() -> Iterator[pa.RecordBatch]:
        try:
            with pa.memory_map(str(file)) as mapped:
                for batch in _stream(mapped):
                    yield from pa.Table.from_batches([batch]).to_batches(max_chunksize=BATCH)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file, error) from error

    try:
        with pa.memory_map(str(file)) as mapped:
            schema = _reader(mapped).schema
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from error
    return Source(file.name, schema, batches)


def _reader(mapped: pa.MemoryMappedFile) -> Any:
    """Of the file format, which Feather is too, or else of the stream format."""
    begins = mapped.read(6)
    mapped.seek(0)
    return pa.ipc.open_file(mapped) if begins == b"ARROW1" else pa.ipc.open_stream(mapped)


def _stream(mapped: pa.MemoryMappedFile) -> Iterator[pa.RecordBatch]:
    reader = _reader(mapped)
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        yield from reader


def _damaged(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{file.name} cannot be read ({error}). It was cut short or damaged: copy or save it again.")


def _checked(source: Source) -> Source:
    """The table, its texts in the usual layout.

    Raises:
        ValueError: There is no column or no row, or two columns of one name.
    """
    names = source.schema.names
    if twice := [repr(name) for name, count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"{source.name} names {', '.join(twice)} more than once, and a column is known by its name. Rename them."
        )
    if not names:
        raise ValueError(f"{source.name} has no columns: there is nothing to learn from.")
    if source.rows == 0:
        raise ValueError(f"{source.name} has {len(names)} columns and no rows. Give some.")
    usual = pa.schema([field.with_type(_usual(field.type)) for field in source.schema])
    if usual == source.schema:
        return source
    return replace(source, schema=usual, batches=lambda: (batch.cast(usual) for batch in source.batches()))


def _usual(kind: pa.DataType) -> pa.DataType:
    """Of texts in the layout of polars, with which Arrow can do little, the usual type; else the type itself."""
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _usual(kind.value_type), kind.ordered)
    return pa.string() if pa.types.is_string_view(kind) else kind
