"""Encoding and decoding: rows/s, and the latency of decoding one latent, against the bare `nn.Module`."""

import time
from collections.abc import Callable, Iterator
from statistics import quantiles

import torch
from torch import Tensor

from ..contestants import ours
from ..contestants.plain import PlainVAE
from ..problem import Problem, bits
from ..report import Row, Table
from ..settings import Settings
from ..timing import PAUSE, Spread, interleave, timed, wait

ROWS = 1024
BARE = "the bare nn.Module"


@torch.inference_mode()
def run(settings: Settings) -> Iterator[Table]:
    """Encoding, decoding, and one latent."""
    problem = Problem(bits(ROWS), ROWS, device=settings.device)
    model, plain = ours.mlp(problem).eval(), PlainVAE(problem).to(settings.device).eval()
    x = problem.checked
    z = torch.randn(ROWS, problem.latent, device=settings.device)
    times = 5 if settings.quick else 40
    yield throughput(
        f"encoding {ROWS:,} rows at once",
        {"lowerbound": lambda: model.encoder(x).mean, BARE: lambda: plain.encoder(x).chunk(2, 1)[0]},
        times,
        settings,
    )

    def decode(z: Tensor) -> Callable[[], Tensor]:
        return lambda: model.generate(len(z), z=(z,)).mean

    def bare(z: Tensor) -> Callable[[], Tensor]:
        return lambda: plain.decoder(z).sigmoid()

    yield throughput(f"decoding {ROWS:,} rows at once", {"lowerbound": decode(z), BARE: bare(z)}, times, settings)
    calls = {"lowerbound": decode(z[:1]), BARE: bare(z[:1])}
    yield latency(calls, 500 if settings.quick else 5000, settings)


def throughput(title: str, works: dict[str, Callable[[], object]], times: int, settings: Settings) -> Table:
    """Rows/s."""
    works = {"lowerbound": works["lowerbound"], "lowerbound again (A/A)": works["lowerbound"], **works}
    runs = {name: timed(_repeated(work, times), settings.device) for name, work in works.items()}
    seconds = interleave(runs, settings.rounds)
    rows = [
        Row(
            name,
            times * ROWS / Spread.of(took).median,
            Spread.of_ratios(took, seconds["lowerbound"]) if name != "lowerbound" else None,
            seconds=took,
        )
        for name, took in seconds.items()
    ]
    return Table(f"{title}, 784-512-512-20", "rows/s", "ours is times as fast", rows)


def latency(works: dict[str, Callable[[], object]], calls: int, settings: Settings) -> Table:
    """Microseconds of single calls: the middle one, and the one that 1 in 100 is slower than."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(settings.rounds):
        for name, work in works.items():
            time.sleep(PAUSE)
            for _ in range(20):
                work()
            for _ in range(calls // settings.rounds):
                start = time.perf_counter()
                work()
                wait(settings.device)
                found[name].append(time.perf_counter() - start)
    rows = []
    for what, percent in (("p50", 50), ("p99", 99)):
        at = {name: quantiles(values, n=100)[percent - 1] for name, values in found.items()}
        rows.append(Row(f"lowerbound, {what}", 1e6 * at["lowerbound"]))
        ratio = Spread.of([at[BARE] / at["lowerbound"]])
        rows.append(Row(f"{BARE}, {what}", 1e6 * at[BARE], ratio))
    return Table("decoding one latent, 784-512-512-20", "us", "ours is times as fast", rows)


def _repeated(work: Callable[[], object], times: int) -> Callable[[], None]:
    def repeat() -> None:
        for _ in range(times):
            work()

    return repeat
