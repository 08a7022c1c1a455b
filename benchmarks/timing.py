"""Timing: contestants take turns, and what is reported is a median with its spread.

A machine's speed drifts (clocks, neighbours, caches), so two programs are compared only within a round: A B C, A B C,
and so on. A ratio is taken in each round; its median and quartiles over the rounds are what is printed. The same
program entered twice (A/A) shows how far from 1 a ratio gets by chance alone.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles

# The workers of OpenMP and of XLA go on spinning for a while when their work is done, on the cores that
# the next contestant needs: after this many seconds all of them sleep.
PAUSE = 0.06


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The median and quartiles of some values."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)

    @classmethod
    def of_ratios(cls, above: Sequence[float], below: Sequence[float]) -> "Spread":
        """The ratio of each round: with seconds, how many times as fast `below` is."""
        return cls.of([a / b for a, b in zip(above, below, strict=True)])


def interleave(
    runs: Mapping[str, Callable[[], float]], rounds: int, warmup: int = 1, pause: float = PAUSE
) -> dict[str, list[float]]:
    """The seconds of each run in each round, the runs taking turns.

    Args:
        runs: By name; each does its work once and returns the seconds it took.
        rounds: How often each is counted.
        warmup: Rounds before those, which are not.
        pause: Seconds of rest before each run.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-warmup, rounds):
        for name, run in runs.items():
            time.sleep(pause)
            took = run()
            if number >= 0:
                seconds[name].append(took)
    return seconds


def timed(work: Callable[[], object], device: str = "cpu") -> Callable[[], float]:
    """The work, returning the seconds it took, the device's included."""

    def run() -> float:
        with stopwatch(device) as elapsed:
            work()
        return elapsed()

    return run


@contextmanager
def stopwatch(device: str = "cpu") -> Iterator[Callable[[], float]]:
    """The seconds between entering and leaving, once the device is done."""
    wait(device)
    start = time.perf_counter()
    stop = start
    yield lambda: stop - start
    wait(device)
    stop = time.perf_counter()


def wait(device: str) -> None:
    """Until a device has done what it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def per_call(work: Callable[[], object], at_least: float = 0.01, repeats: int = 3, device: str = "cpu") -> float:
    """Seconds of one call of something short: the median of some repeats, each of many calls."""
    work()
    took = timed(work, device)()
    calls = max(1, round(at_least / max(took, 1e-7)))
    return median(timed(lambda: [work() for _ in range(calls)], device)() / calls for _ in range(repeats))
