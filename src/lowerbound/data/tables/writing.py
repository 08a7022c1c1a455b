"""Tables as they are written: the kind of file follows from the ending of its name."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from ...files import write as write_file
from .reading import ARROW, PARQUET, unnamed

TEXT = {".csv": ",", ".tsv": "\t"}


def write_table(path: Path | str, table: pa.Table) -> None:
    """Put a table in a file: CSV or TSV (packed, if .gz follows), Parquet, Arrow or Feather.

    Columns that were numbered for want of a header are written without one.

    Raises:
        ValueError: The ending is none of these.
        OSError: It could not be written; what was there before is untouched.
    """
    file = Path(path)
    packed = file.suffix.lower() == ".gz"
    ending = Path(file.stem).suffix.lower() if packed else file.suffix.lower()
    buffer = pa.BufferOutputStream()
    if ending in TEXT:
        options = arrow_csv.WriteOptions(include_header=not unnamed(table.column_names), delimiter=TEXT[ending])
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
