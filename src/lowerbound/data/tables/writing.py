"""Tables as they are written: the kind of file follows from the ending of its name."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from ...files import write as write_file
from .cells import is_text
from .reading import ARROW, PARQUET, unnamed

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
        header = not unnamed(table.column_names)
        quoting = "needed" if _needs_quotes(table, header, TEXT[ending]) else "none"
        options = arrow_csv.WriteOptions(include_header=header, delimiter=TEXT[ending], quoting_style=quoting)
        if packed:
            with pa.CompressedOutputStream(buffer, "gzip") as stream:
                arrow_csv.write_csv(table, stream, options)
        else:
            arrow_csv.write_csv(table, buffer, options)
    elif ending in PARQUET and not packed:
        pq.write_table(table, buffer)
    elif ending in ARROW and not packed:
        with pa.ipc.new_file(buffer, table.schema) as stream:
            stream.write_table(table)
    else:
        endings = ", ".join((*TEXT, *PARQUET, *ARROW))
        raise ValueError(f"{file.name} is not a kind of table that is written. Choose one of {endings}.")
    write_file(file, buffer.getvalue().to_pybytes())


def _needs_quotes(table: pa.Table, header: bool, delimiter: str) -> bool:
    """Whether a text holds what would divide it. Arrow quotes every text where it quotes one."""
    special = f'[{delimiter}"\r\n]'
    texts = [pa.array(table.column_names)] if header else []
    texts += [column.cast(pa.string()) for column in table.columns if is_text(column.type)]
    # an empty text without quotes would be a missing value
    return any(pc.any(pc.or_(pc.match_substring_regex(t, special), pc.equal(t, ""))).as_py() for t in texts)
