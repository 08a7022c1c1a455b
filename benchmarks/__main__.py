"""`python -m benchmarks [SECTION ...]`: run sections of the suite, print their tables, and write them as JSON."""

import argparse
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from . import machine
from .report import Table, console, save, show
from .sections import LONG, SECTIONS
from .settings import Settings

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Read the command line, and run."""
    width = max(map(len, SECTIONS))
    sections = "\n".join(f"  {name:{width}}  {what}" for name, what in SECTIONS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description="lowerbound against its peers and against the machine.",
        epilog=f"sections:\n{sections}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="which to run; all but gpu by default")
    parser.add_argument("--quick", action="store_true", help=f"few rows and rounds, and without {', '.join(LONG)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda runs the section gpu")
    parser.add_argument("--threads", type=int, default=2, help="threads, and cores, of each contestant")
    parser.add_argument("--out", type=Path, help="where the JSON goes; by default benchmarks/results/")
    asked = parser.parse_args()
    if unknown := [name for name in asked.sections if name not in SECTIONS]:
        parser.error(f"no such section: {', '.join(unknown)}. There are {', '.join(SECTIONS)}.")
    chosen = asked.sections or (
        ["gpu"] if asked.device == "cuda" else [s for s in SECTIONS if s != "gpu" and not (asked.quick and s in LONG)]
    )

    threads = machine.limit_threads(asked.threads)
    import torch  # and what else reads its number of threads when it is imported

    torch.set_num_threads(threads)
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.exit(1, "--device cuda: torch finds no CUDA device on this machine; nothing was measured.\n")
    settings = Settings(asked.quick, asked.device, threads)
    out = asked.out or RESULTS / f"{'_'.join(asked.sections) or asked.device}{'_quick' * asked.quick}.json"
    terminal = console()
    described = machine.describe()
    for key, value in described.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        terminal.print(f"{key:>20}  {text}", highlight=False)
    terminal.print()

    tables: dict[str, list[Table]] = {}
    failed: list[str] = []
    for name in chosen:
        start = time.perf_counter()
        tables[name] = []
        for table in guarded(name, import_module(f".sections.{name}", __package__).run, settings, failed):
            show(table, terminal)
            tables[name].append(table)
            save(out, described, asdict(settings), tables)
        terminal.print(f"{name}: {time.perf_counter() - start:.0f} s\n", style="dim", highlight=False)
    terminal.print(f"written to {out}", highlight=False)
    if failed:
        parser.exit(1, f"broken off by an error: {', '.join(failed)}\n")


def guarded(
    name: str, run: Callable[[Settings], Iterator[Table]], settings: Settings, failed: list[str]
) -> Iterator[Table]:
    """The tables of a section; an error ends the section, is shown in their place, and leaves the others to be run."""
    try:
        yield from run(settings)
    except Exception:
        failed.append(name)
        yield Table(f"{name} was broken off by an error", "", "", notes=traceback.format_exc().splitlines())


if __name__ == "__main__":
    main()
