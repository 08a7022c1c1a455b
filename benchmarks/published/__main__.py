"""`python -m benchmarks.published ROW`: measure a published number; `results`: write what has been measured."""

import argparse
import shutil
from importlib import import_module
from pathlib import Path

from .. import machine
from . import results
from .rows import ROWS

MINUTES = 9.0
UNFINISHED = 75  # what a program says that is to be run again: EX_TEMPFAIL


def main() -> None:
    """Read the command line, and work for a while."""
    width = max(map(len, ROWS))
    parser = argparse.ArgumentParser(
        "python -m benchmarks.published",
        description="Published numbers, reproduced, each by one command that can be stopped and run again.",
        epilog="rows:\n" + "\n".join(f"  {name:{width}}  {row.number}: {row.what}" for name, row in ROWS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=[*ROWS, "results"], metavar="ROW", help="which row; results writes the page")
    parser.add_argument("overrides", nargs="*", metavar="table.key=value", help="changes of the row's file")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the order of the data and all noise")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="stop after so many, to be run again; 0 for never"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads, and cores, on a CPU")
    parser.add_argument("--runs", type=Path, default=Path("runs/published"), help="where runs are kept")
    parser.add_argument("--smoke", action="store_true", help="tiny, on a CPU in seconds: its number means nothing")
    given = parser.parse_intermixed_args()
    if given.name == "results":
        print(results.write())
        return

    threads = machine.limit_threads(given.threads)
    import torch  # and what else reads its number of threads when it is imported

    from .asked import Asked, Clock

    torch.set_num_threads(threads)
    row = ROWS[given.name]
    words = [given.name, *given.overrides, str(given.seed), *["smoke"] * given.smoke]
    folder = given.runs / "_".join(words).replace("/", "_")
    if given.smoke:
        shutil.rmtree(folder, ignore_errors=True)
    clock = Clock(60 * given.minutes or float("inf"))
    asked = Asked(given.name, row, folder, clock, given.seed, given.device, given.smoke, given.overrides)
    try:
        found = import_module(f".{row.module}", __package__).measure(asked)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    if found is None:
        parser.exit(UNFINISHED, f"{given.name}: stopped after {given.minutes:g} minutes. Run the same command again.\n")
    described = machine.describe()
    where = described["gpu"] if given.device == "cuda" else f"{threads} of {described['cores']} cores"
    record = {
        "seed": given.seed,
        "overrides": given.overrides,
        **found,
        "machine": f"{where}, {described['processor']}",
        "torch": torch.__version__,
        "commit": described["commit"],
        "uncommitted_changes": described["uncommitted_changes"],
    }
    kept = given.runs / "smoke" if given.smoke else results.RESULTS
    results.keep(given.name, record, kept)
    print(f"{given.name}, seed {given.seed}: {results.said(row, record)}; kept in {kept}")


if __name__ == "__main__":
    main()
