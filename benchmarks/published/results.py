"""What was measured, a line for each row and seed, and the page that shows it."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from .asked import Found
from .rows import ROWS, Row

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "results.md"
BEGIN, END = "<!-- written by python -m benchmarks.published results -->", "<!-- to here -->"


def read(name: str, folder: Path = RESULTS) -> list[Found]:
    """What was measured of a row, by seed."""
    file = folder / f"{name}.jsonl"
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return sorted(found, key=lambda record: (record["overrides"], record["seed"]))


def keep(name: str, record: Found, folder: Path = RESULTS) -> None:
    """Keep a measurement, in the place of an earlier one with the same seed and settings."""
    same = ("seed", "overrides")
    others = [other for other in read(name, folder) if any(other[key] != record[key] for key in same)]
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in (*others, record))
    (folder / f"{name}.jsonl").write_text(text)


def page(folder: Path = RESULTS) -> str:
    """The tables of all rows, in Markdown: what was reached, and each measurement behind it."""
    reached, behind = [], []
    for name, row in ROWS.items():
        records = read(name, folder)
        groups = {tuple(record["overrides"]): [] for record in records} or {(): []}
        for record in records:
            groups[tuple(record["overrides"])].append(record)
        for overrides, group in groups.items():
            reached.append(_reached(name, row, overrides, group))
            behind += [_behind(name, row, record) for record in group]
    heads = ("row", "what", "published", "to reach", "reached", "", "command")
    lines = [*_table(heads, reached), ""]
    heads = ("row", "seed", "bound", "k", "ELBO", "passes", "training", "evaluation", "machine", "commit")
    lines += _table(heads, behind) if behind else ["Nothing has been measured yet."]
    return "\n".join(lines)


def write(folder: Path = RESULTS, file: Path = PAGE) -> str:
    """Put the tables in the page, in the place of the last ones; the tables."""
    text, tables = file.read_text(), page(folder)
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    file.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")
    return tables


def _reached(name: str, row: Row, overrides: Sequence[str], records: Sequence[Found]) -> Sequence[str]:
    """The mean over seeds, with their spread; of one seed, with the standard error over the images."""
    command = f"`{command_of(name, overrides)}`"
    bar = "" if row.bar is None else f"{row.bar:.2f}"
    if not records:
        return str(row.number), _what(row), row.published, bar, "not run", row.place, command
    if row.unit == "distance":
        return str(row.number), _what(row), row.published, bar, "; ".join(said(row, r) for r in records), "", command
    values = [record["value"] for record in records]
    spread = (
        f" ± {stdev(values):.2f} ({len(values)} seeds)" if len(values) > 1 else f" ± {records[0]['standard_error']:.2f}"
    )
    verdict = "" if row.bar is None else "reached" if mean(values) <= row.bar else "missed"
    return str(row.number), _what(row), row.published, bar, f"{mean(values):.2f}{spread}", verdict, command


def _behind(name: str, row: Row, record: Found) -> Sequence[str]:
    """One measurement, with what it took."""
    of_bound = row.unit != "distance"
    commit = f"{record['commit'] or 'unknown'}{' with changes' if record['uncommitted_changes'] else ''}"
    return (
        name,
        str(record["seed"]),
        said(row, record),
        f"{record['k']:,}" if of_bound else "",
        f"{record['elbo']:.2f}" if of_bound else "",
        f"{record['passes']:,.0f}" if of_bound else "",
        f"{record['training_seconds']:,.0f} s",
        f"{record['evaluation_seconds']:,.0f} s",
        record["machine"],
        commit,
    )


def said(row: Row, record: Found) -> str:
    """What was found, with its standard error over the images."""
    return record["said"] if row.unit == "distance" else f"{record['value']:.2f} ± {record['standard_error']:.2f}"


def _what(row: Row) -> str:
    unit = {"bits/dim": " (bits/dim)", "distance": ""}.get(row.unit, " (nats)")
    k = f", k = {row.k:,}" if row.k else ""
    return f"{row.what}{unit}{k}{'; ' + row.notes if row.notes else ''}"


def command_of(name: str, overrides: Sequence[str] = ()) -> str:
    """What measures a row."""
    return shlex.join(["python", "-m", "benchmarks.published", name, *overrides])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
