"""Tables as they are written: the kind of file follows from the ending of its name.

In text only such cells are quoted as hold what would divide them, or are empty without being missing.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...files import write as write_file
from .cells import is_text
from .reading import ARROW, BATCH, PARQUET, unnamed

TEXT = {".csv": ",", ".tsv": "\t"}


def write_table(path: Path | str, table: pa.Table) -> None:
    """Put a table in a file: CSV or TSV (packed, if .gz follows), Parquet, Arrow or Feather.

    Columns that were numbered for want of a header are written without one.

    Raises:
        ValueError: The ending is none of these, or that kind of file cannot hold the types of the table.
        OSError: It could not be written; what was there before is untouched.
    """
    file = Path(path)
    packed = file.suffix.lower() == ".gz"
    ending = Path(file.stem).suffix.lower() if packed else file.suffix.lower()
    buffer = pa.BufferOutputStream()
    if ending in TEXT:
        if nested := [field.name for field in table.schema if pa.types.is_nested(field.type)]:
            raise ValueError(f"{file.name}: text cannot hold the lists of {', '.join(nested)}. Write a .parquet file.")
        with pa.CompressedOutputStream(buffer, "gzip") if packed else buffer as stream:
            for lines in _lines(table, TEXT[ending]):
                stream.write(lines.encode())
    elif ending in PARQUET and not packed:
        pq.write_table(table, buffer)
    elif ending in ARROW and not packed:
        with pa.ipc.new_file(buffer, table.schema) as stream:
            stream.write_table(table)
    else:
        endings = ", ".join((*TEXT, *PARQUET, *ARROW))
        raise ValueError(f"{file.name} is not a kind of table that is written. Choose one of {endings}.")
    write_file(file, buffer.getvalue().to_pybytes())


def _lines(table: pa.Table, delimiter: str) -> Iterator[str]:
    """The lines of a table, many at a time."""
    if not unnamed(table.column_names):
        yield delimiter.join(_cells(pa.array(table.column_names), delimiter).to_pylist()) + "\n"
    for batch in table.to_batches(max_chunksize=BATCH):
        cells = [_cells(column, delimiter) for column in batch.columns]
        lines = pc.binary_join_element_wise(*cells, delimiter, null_handling="replace", null_replacement="")
        yield "\n".join([*lines.to_pylist(), ""])


def _cells(array: pa.Array, delimiter: str) -> pa.Array:
    """Cells as they stand in a line."""
    array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    cells = array.cast(pa.string())
    if not is_text(array.type):
        return cells
    # an empty text without quotes would be a missing value
    divides = pc.or_(pc.match_substring_regex(cells, f'[{delimiter}"\r\n]'), pc.equal(cells, ""))
    doubled = pc.replace_substring(cells, '"', '""')
    return pc.if_else(divides, pc.binary_join_element_wise('"', doubled, '"', ""), cells)
