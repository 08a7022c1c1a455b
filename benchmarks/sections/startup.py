"""Time to the first step, from the start of the process, and peak memory: each contestant in a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from ..report import Row, Table
from ..settings import Settings
from ..timing import Spread

CONTESTANTS = {
    "lowerbound": ("ours", "trainer"),
    "PyTorch, rows resident, fused Adam": ("plain", "resident"),
    "PyTorch, DataLoader of tensors": ("plain", "loader"),
    "pythae": ("pythae", "trainer"),
    "Lightning": ("lightning", "trainer"),
    "JAX, one jitted step": ("jax", "step"),
    "JAX, lax.scan": ("jax", "scan"),
}
BATCH = 128


def run(settings: Settings) -> Iterator[Table]:
    """One table of seconds, and one of memory."""
    rounds = 1 if settings.quick else 5
    n = 4096 if settings.quick else 50_048
    for title, unit, size, key in (
        ("time to the first step, from the start of the process", "s", BATCH, "seconds"),
        (f"peak memory of a pass over {n:,} rows", "MiB", n, "mebibytes"),
    ):
        found: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
        notes: list[str] = []
        for _ in range(rounds):
            for name, (package, maker) in CONTESTANTS.items():
                said = alone(package, maker, size, settings)
                if isinstance(said, str):
                    notes.append(said)
                else:
                    found[name].append(said[key])
        ours = found["lowerbound"]
        rows = [
            Row(name, median(values), Spread.of_ratios(values, ours) if values is not ours else None, seconds=values)
            for name, values in found.items()
            if values
        ]
        yield Table(f"{title}, 784-512-16, batch {BATCH}", unit, "theirs is times ours", rows, sorted(set(notes)))


def alone(package: str, maker: str, rows: int, settings: Settings) -> dict[str, float] | str:
    """What a contestant needs for a pass over some rows in a process of its own, or why it did not run."""
    arguments = [package, maker, str(rows), settings.device, str(settings.threads), str(time.time())]
    command = [sys.executable, "-m", __name__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if done.returncode:
        return f"left out: {package}: {done.stderr.strip().splitlines()[-1]}"
    return json.loads(done.stdout.splitlines()[-1])


def _child(package: str, maker: str, rows: str, device: str, threads: str, started: str) -> None:
    """In the process of its own: one pass, and what it took."""
    import torch

    from ..contestants import of_package
    from ..problem import Problem, bits

    torch.set_num_threads(int(threads))
    problem = Problem(bits(int(rows)), BATCH, hidden=(512,), latent=16, device=device)
    found, missing = of_package(package, [maker], problem)
    if missing:
        sys.exit(missing[0])
    found[0].run()
    print(json.dumps({"seconds": time.time() - float(started), "mebibytes": _peak()}))


def _peak() -> float:
    """The largest this process has been, MiB; `getrusage` would count the parent's size, from before the exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    _child(*sys.argv[1:])
