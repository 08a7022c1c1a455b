"""What is reported: tables of rows, on the terminal and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from .timing import Spread

WIDTH = 100


@dataclass(frozen=True)
class Row:
    """One thing that was measured.

    Args:
        what: The contestant, or the quantity.
        value: Its median, in the table's unit.
        ratio: What the table's `ratio_of` says.
        bar: Where the ratio must be.
        aim: Where it should be.
        under: Whether the ratio is to stay under the bar, rather than to reach it.
        seconds: What was timed, in each round.
    """

    what: str
    value: float | None = None
    ratio: Spread | None = None
    bar: float | None = None
    aim: float | None = None
    under: bool = False
    seconds: Sequence[float] = ()

    @property
    def verdict(self) -> str:
        """How the median stands to bar and aim."""
        if self.ratio is None or self.bar is None:
            return ""
        reached = [
            limit is not None and (self.ratio.median <= limit if self.under else self.ratio.median >= limit)
            for limit in (self.aim, self.bar)
        ]
        return "aim" if reached[0] else "bar" if reached[1] else "MISSED"


@dataclass(frozen=True)
class Table:
    """Rows that were measured side by side.

    Args:
        title: What was measured.
        unit: Of the values.
        ratio_of: What the ratios are.
        rows: The rows.
        notes: Lines below the table.
    """

    title: str
    unit: str
    ratio_of: str
    rows: Sequence[Row] = ()
    notes: Sequence[str] = field(default=())


def show(table: Table, console: Console) -> None:
    """Print a table, no wider than 100 columns."""
    grid = RichTable(title=table.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    grid.add_column("", ratio=1, overflow="fold")
    for heading in (table.unit, table.ratio_of, "quartiles", "bar", "aim", ""):
        grid.add_column(heading, justify="right", no_wrap=heading != table.ratio_of)
    for row in table.rows:
        spread = row.ratio
        grid.add_row(
            row.what,
            _number(row.value),
            _number(spread and spread.median),
            f"{_number(spread.low)}-{_number(spread.high)}" if spread else "",
            _number(row.bar),
            _number(row.aim),
            row.verdict,
            style="bold red" if row.verdict == "MISSED" else None,
        )
    if table.rows:
        console.print(grid)
    else:
        console.print(table.title, style="bold")
    for note in table.notes:
        console.print(f"  {note}", style="dim", highlight=False, markup=False)
    console.print()


def console() -> Console:
    """A terminal of at most 100 columns."""
    wide = Console()
    return Console(width=min(WIDTH, wide.width) if wide.is_terminal else WIDTH)


def save(path: Path, machine: dict[str, object], settings: dict[str, Any], tables: dict[str, list[Table]]) -> None:
    """Write everything as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sections = {name: [_plain(table) for table in of] for name, of in tables.items()}
    text = json.dumps({"machine": machine, "settings": settings, "sections": sections}, indent=1)
    path.write_text(text + "\n")


def load(path: Path) -> dict[str, list[Table]]:
    """The tables of a file that `save` wrote."""
    sections = json.loads(path.read_text())["sections"]
    return {name: [_table(**table) for table in of] for name, of in sections.items()}


def _plain(table: Table) -> dict[str, Any]:
    return asdict(table) | {"rows": [asdict(row) | {"verdict": row.verdict} for row in table.rows]}


def _table(rows: Sequence[dict[str, Any]], notes: Sequence[str], **rest: str) -> Table:
    return Table(rows=tuple(_row(**row) for row in rows), notes=tuple(notes), **rest)


def _row(ratio: dict[str, float] | None, seconds: Sequence[float], verdict: str, **rest: Any) -> Row:
    return Row(ratio=Spread(**ratio) if ratio else None, seconds=tuple(seconds), **rest)


def _number(value: float | None) -> str:
    """Three figures, or all of a large whole number."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
