"""On a CUDA device, unattended, in under 8 minutes: the table of the CPU, and how near the card's peaks it comes.

Peaks are measured, not read off a data sheet: a large bf16 matrix product, and a large copy. A step of an MLP reads its
weights twice and writes their gradients once, and the optimiser reads weights, gradients and two moments and writes all
but the gradients: 10 numbers moved for each that is learned, whatever the batch, is what no program can go below.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import lowerbound as lb

from ..contestants import limit, of_package, ours, plain
from ..problem import Problem, bits, pixels
from ..race import Bar, Contestant, race
from ..report import Row, Table
from ..settings import Settings
from ..timing import Spread, interleave, per_call
from . import decoding, ensemble, evaluation, startup

MOVED_PER_PARAMETER = 10
AGAINST_PYTHAE = Bar(20.0, 20.0)
OF_THE_PEAK = Bar(0.5, 0.5)


@dataclass(frozen=True)
class Sizes:
    """How large everything is: so on a GPU, and small where its code is tested on a CPU."""

    rows: int = 20_480
    batches: tuple[int, ...] = (64, 128, 256, 1024)
    product: int = 8192
    copied: int = 2**28
    channels: tuple[int, ...] = (256, 256, 256)
    side: int = 64
    conv_batch: int = 256
    conv_rows: int = 2048


def run(settings: Settings) -> Iterator[Table]:
    """All of it; nothing but a line where there is no CUDA device."""
    if settings.device != "cuda" or not torch.cuda.is_available():
        yield Table("on a GPU", "", "", notes=["skipped: it needs --device cuda, and a CUDA device that torch finds"])
        return
    yield from everything(settings, Sizes())
    yield from ensemble.run(settings)
    yield from startup.run(replace(settings, quick=True))
    yield evaluation.whole(settings)
    yield from decoding.run(settings)


def everything(settings: Settings, sizes: Sizes) -> Iterator[Table]:
    """The tables that only a GPU has."""
    flops, bandwidth = peak_flops(settings.device, sizes.product), peak_bandwidth(settings.device, sizes.copied)
    yield Table(
        "the card's peaks, measured",
        "",
        "",
        [Row("bf16 matrix product, TFLOP/s", flops / 1e12), Row("copy in memory, GB/s", bandwidth / 1e9)],
    )
    x = bits(sizes.rows)
    for batch in sizes.batches:
        yield from mlp(Problem(x, batch, device=settings.device), settings, flops, bandwidth)
    yield pythae(Problem(x, 128, (512,), 16, settings.device), settings)
    yield conv(settings, sizes, flops)


def mlp(problem: Problem, settings: Settings, flops: float, bandwidth: float) -> Iterator[Table]:
    """Samples/s of the contestants, then what one step of ours and of the plain loop does to the card."""
    makers: list[Callable[[Problem], Contestant]] = [
        ours.trainer,
        ours.again,
        ours.averaged,
        partial(ours.trainer, name="lowerbound, bf16", precision="bfloat16"),
        plain.resident,
        plain.loader,
    ]
    contestants = [make(problem) for make in makers]
    lightning, notes = of_package("lightning", ["trainer"], problem)
    title = f"MLP VAE 784-512-512-20, batch {problem.batch}"
    table = race(title, [*contestants, *lightning], len(problem.x), settings.rounds)
    yield replace(table, notes=[*table.notes, *notes])

    seconds = {row.what: Spread.of(row.seconds).median / problem.steps for row in table.rows}
    needed = sum(product.flops for product in limit.training(problem.batch, problem.layers()))
    moved = 4 * MOVED_PER_PARAMETER * contestants[0].parameters
    rows = []
    for contestant in (contestants[0], contestants[3], contestants[4]):
        launches, kernels = counted(contestant, problem)
        took = seconds[contestant.name]
        rows += [
            Row(f"{contestant.name}: launches a step", launches),
            Row(f"{contestant.name}: kernels a step", kernels),
            Row(f"{contestant.name}: microseconds a step", 1e6 * took),
            Row(f"{contestant.name}: of the peak FLOP/s", None, Spread.of([needed / took / flops])),
            Row(f"{contestant.name}: of the peak bandwidth", None, Spread.of([moved / took / bandwidth])),
        ]
    yield Table(f"a step of the MLP VAE, batch {problem.batch}", "", "fraction", rows)


def pythae(problem: Problem, settings: Settings) -> Table:
    """Ours and pythae's trainer on pythae's default VAE."""
    theirs, notes = of_package("pythae", ["trainer"], problem)
    contestants = [
        ours.trainer(problem),
        ours.again(problem),
        ours.trainer(problem, "lowerbound, bf16", precision="bfloat16"),
        *theirs,
    ]
    title = f"pythae's default VAE 784-512-16, batch {problem.batch}"
    table = race(title, contestants, len(problem.x), settings.rounds, {"pythae": AGAINST_PYTHAE})
    return replace(table, notes=[*table.notes, *notes])


def conv(settings: Settings, sizes: Sizes, flops: float) -> Table:
    """A convolutional VAE in bf16: the fraction of the card's matrix peak that its training reaches."""
    x = pixels(sizes.conv_rows, (3, sizes.side, sizes.side))
    problem = Problem(x, sizes.conv_batch, device=settings.device, levels=256)
    contestants = []
    for name in ("lowerbound, bf16", "lowerbound, bf16, again (A/A)"):
        torch.manual_seed(0)
        model = lb.conv(x[:1000].float(), event=x.shape[1:], latent=64, channels=sizes.channels).to(settings.device)
        contestants.append(ours.trainer(problem, name, model, precision="bfloat16"))
    needed = flops_of_step(model, x[: sizes.conv_batch].float().to(settings.device))
    seconds = interleave({c.name: c.run for c in contestants}, settings.rounds, warmup=2)
    rows = []
    for name, took in seconds.items():
        fraction = Spread.of([needed * problem.steps / t / flops for t in took])
        rows.append(
            Row(name, len(x) / Spread.of(took).median, fraction, OF_THE_PEAK.bar, OF_THE_PEAK.aim, seconds=took)
        )
    title = f"conv VAE of {sizes.channels[0]} channels at {sizes.side}x{sizes.side}, batch {sizes.conv_batch}"
    notes = [f"{needed / sizes.conv_batch / 1e9:.3g} GFLOP a sample"]
    return Table(title, "samples/s", "of the bf16 matrix peak", rows, notes)


def peak_flops(device: str, size: int) -> float:
    """FLOP/s of a large bf16 matrix product."""
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    return 2 * size**3 / per_call(lambda: a @ b, at_least=0.3, device=device)


def peak_bandwidth(device: str, size: int) -> float:
    """Bytes/s of a large copy, read and written."""
    a, b = (torch.empty(size, device=device) for _ in range(2))
    return 2 * 4 * size / per_call(lambda: b.copy_(a), at_least=0.1, device=device)


def flops_of_step(model: lb.Model, x: torch.Tensor) -> float:
    """Floating-point operations of a pass forward and backward, those of matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        (-lb.Elbo()(model(x), torch.zeros((), device=x.device)).mean()).backward()
    model.zero_grad()
    return counter.get_total_flops()


def counted(contestant: Contestant, problem: Problem) -> tuple[float, float]:
    """What a step launches from the CPU (a captured graph counts once), and the kernels that then run."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (problem.device == "cuda")
    with profile(activities=activities) as profiler:
        contestant.run()
        time.sleep(0.1)
    events = profiler.events()
    steps = problem.steps
    launched = sum("Launch" in event.name and event.name.startswith("cu") for event in events)
    ran = sum(event.device_type == torch.autograd.DeviceType.CUDA for event in events)
    return launched / steps, ran / steps
