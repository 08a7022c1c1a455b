"""`python -m benchmarks.tables NAME`: measure one figure, print its tables, and write them as JSON."""

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from .. import machine
from ..report import console, save, show
from . import FIGURES
from .asked import OURS, Asked, Found, Records

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    """Read the command line, and run."""
    width = max(map(len, FIGURES))
    parser = argparse.ArgumentParser(
        "python -m benchmarks.tables",
        description="Tables: lowerbound against its peers.",
        epilog="figures:\n" + "\n".join(f"  {name:{width}}  {what}" for name, what in FIGURES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=FIGURES, metavar="NAME", help="which figure")
    parser.add_argument("--quick", action="store_true", help="few rows and steps: shows that it runs, and no more")
    parser.add_argument("--seeds", type=int, help="how often to repeat what depends on chance")
    parser.add_argument("--threads", type=int, default=1, help="threads, and cores")
    parser.add_argument("--again", action="store_true", help="measure lowerbound anew, and the peers as recorded")
    parser.add_argument("--out", type=Path, help="where the JSON goes; by default benchmarks/results/")
    given = parser.parse_args()

    threads = machine.limit_threads(given.threads)
    import torch  # and what else reads its number of threads when it is imported

    torch.set_num_threads(threads)
    module = import_module(f".{given.name}", __package__)
    out = given.out or RESULTS / f"tables_{given.name}{'_quick' * given.quick}.json"
    records = Records.open(out.with_suffix(".jsonl"), keep(given.quick, given.again))
    seeds = given.seeds or (1 if given.quick else module.SEEDS)
    described = machine.describe()
    terminal, tables = console(), []
    try:
        for table in module.run(Asked(records, seeds, given.quick)):
            show(table, terminal)
            tables.append(table)
            settings = {"figure": given.name, "quick": given.quick, "seeds": seeds, "threads": threads}
            save(out, described, settings, {given.name: tables})
    except FileNotFoundError as error:
        parser.exit(1, f"{error}\n")
    terminal.print(f"written to {out}; each measurement to {records.path}", highlight=False)
    if records.failed:
        parser.exit(1, f"broken off by an error: {', '.join(records.failed)}\n")


def keep(quick: bool, again: bool) -> Callable[[Found], bool]:
    """Which measurements of an earlier run still stand."""
    return lambda record: not quick and not (again and record["key"].get("method", "").startswith(OURS))


if __name__ == "__main__":
    main()
