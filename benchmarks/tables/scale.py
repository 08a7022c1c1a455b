"""Reading a table that is larger than one would like: 10 million rows of 20 mixed columns, and a million as text.

The file is made from a fixed seed, a part at a time. It is read by `lowerbound.data.table`, which looks at it once to
see what its columns hold and packs it in a second pass, in a process of its own.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from ..report import Row, Table
from ..timing import Spread
from .asked import OURS, Asked, Found

SEEDS = 1
ROWS = {"parquet": 10_000_000, "csv": 1_000_000}
QUICK_ROWS = {"parquet": 200_000, "csv": 50_000}
PART = 500_000
BAR = 2.0  # GB


def run(asked: Asked) -> Iterator[Table]:
    """One table."""
    lines, notes = [], []
    for kind, n in (QUICK_ROWS if asked.quick else ROWS).items():
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / f"table.{kind}"
            found = [
                asked.records.measured(lambda f=file, n=n: read(f, n), method=OURS, kind=kind, seed=s)
                for s in range(asked.seeds)
            ]
        done = [record for record in found if record]
        if not done:
            continue
        speed = median(n / record["reading"] for record in done)
        peak = Spread.of([record["peak"] for record in done])
        lines.append(
            Row(f"{kind}, {n:,} rows x 20", speed, peak, BAR, under=True, seconds=[r["reading"] for r in done])
        )
        notes.append(f"{kind}: a file of {done[0]['size'] / 1e9:.2f} GB, read in {done[0]['reading']:.1f} s")
    notes.append("the peak is the largest that the process has been, Python and torch included; GB are 10^9 bytes")
    yield Table("reading a table, with its kinds inferred", "rows/s", "peak, GB", lines, notes)


def read(file: Path, n: int) -> Found:
    """Make a file, if it is not there, and read it in a process of its own."""
    if not file.exists():
        WRITERS[file.suffix](file, n)
    command = [sys.executable, "-m", f"{__package__}.reading", str(file)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[2])
    return json.loads(done.stdout) | {"size": file.stat().st_size}


def write_parquet(file: Path, n: int) -> None:
    """So many rows, as Parquet."""
    with pq.ParquetWriter(file, part(0, 1).schema) as out:
        for number, rows in enumerate(sizes(n)):
            out.write_table(part(number, rows))


def write_csv(file: Path, n: int) -> None:
    """So many rows, as text."""
    with csv.CSVWriter(str(file), part(0, 1).schema) as out:
        for number, rows in enumerate(sizes(n)):
            out.write_table(part(number, rows))


WRITERS: dict[str, Callable[[Path, int], None]] = {".parquet": write_parquet, ".csv": write_csv}


def sizes(n: int) -> list[int]:
    """The rows of each part."""
    return [min(PART, n - start) for start in range(0, n, PART)]


def part(number: int, n: int) -> pa.Table:
    """Rows of 20 columns: numbers, decimals, counts, levels, texts, dates and truth values; three have holes."""
    draw = np.random.default_rng(number)
    columns: dict[str, pa.Array] = {}
    for i in range(6):
        columns[f"real {i}"] = pa.array(draw.normal(i, 1 + i, n), mask=draw.random(n) < 0.1 * (i < 2))
    for i in range(3):
        columns[f"price {i}"] = pa.array(np.round(draw.lognormal(3, 1, n), 2) + 0.01)
    for i in range(3):
        columns[f"count {i}"] = pa.array(draw.negative_binomial(2, 0.02 * (i + 1), n))
    for i in range(2):
        columns[f"grade {i}"] = pa.array(draw.integers(1, 6 + i, n))
    for i, levels in enumerate((4, 20, 60)):
        words = pa.array([f"level {j}" for j in range(levels)])
        columns[f"category {i}"] = words.take(
            pa.array(draw.integers(0, levels, n), mask=draw.random(n) < 0.05 * (i == 0))
        )
    columns["is it"] = pa.array(draw.random(n) < 0.3)
    columns["day"] = pa.array(draw.integers(10_000, 20_000, n).astype("int32")).cast(pa.date32())
    columns["large"] = pa.array(draw.integers(0, 10**6, n))
    return pa.table(columns)
