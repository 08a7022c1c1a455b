"""`python -m benchmarks.tables.reading FILE`: read a table, and say as JSON how long that took and how large it got."""

import json
import sys
import time
from pathlib import Path


def main(file: str) -> None:
    """Read it, in a process that does nothing else."""
    from lowerbound.data import table

    start = time.perf_counter()
    data = table(path=file)
    print(json.dumps({"reading": time.perf_counter() - start, "rows": len(data.x), "peak": peak()}))


def peak() -> float:
    """The largest this process has been, GB; `getrusage` would count its parent's size, from before the exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


if __name__ == "__main__":
    main(sys.argv[1])
