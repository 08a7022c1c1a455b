"""The split of a step: what the engine's step takes, and the same step taken apart.

Taken apart eagerly it shows where the time goes that a model needs: data, forward, backward, optimiser. Taken apart as
the engine runs it, recorded and replayed, it shows the engine's overhead: what its step takes beyond forward, backward
and optimiser, which is drawing the batch, looking after noise, gradients and their norm, and the loop.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

import lowerbound as lb
from lowerbound.train.replay import fastest

from ..contestants import limit, ours
from ..problem import LR, Problem, bits
from ..report import Row, Table
from ..settings import Settings
from ..timing import PAUSE, Spread, wait

WHOLE = "the engine's step"
EAGER = ("data, eager", "forward, eager", "backward, eager", "optimiser, torch's")
ENGINE = ("forward and backward, the engine's", "optimiser, the engine's")
OVERHEAD = {64: (0.04, 0.02)}

Pieces = dict[str, float]


def run(settings: Settings) -> Iterator[Table]:
    """A table for each batch size."""
    x = bits(4096 if settings.quick else 20_480)
    for batch in (64, 128, 256, 1024):
        yield split(Problem(x, batch, device=settings.device), settings)


def split(problem: Problem, settings: Settings) -> Table:
    """Microseconds of the step, of its pieces, and of the limit."""
    whole, least = ours.trainer(problem).run, limit.products(problem).run
    passes: list[Callable[[], Pieces]] = [
        lambda: {WHOLE: whole()},
        engine_pieces(problem),
        eager_pieces(problem),
        lambda: {limit.NAME: least()},
    ]
    seconds: dict[str, list[float]] = {name: [] for name in (*EAGER, *ENGINE, WHOLE, limit.NAME)}
    for number in range(-1, settings.rounds):
        for one_pass in passes:
            time.sleep(PAUSE)
            for name, took in one_pass().items():
                if number >= 0:
                    seconds[name].append(took / problem.steps)
    rows = [
        Row(name, 1e6 * median(took), Spread.of_ratios(took, seconds[WHOLE]), seconds=took)
        for name, took in seconds.items()
    ]
    needed = [sum(pieces) for pieces in zip(*(seconds[name] for name in ENGINE), strict=True)]
    overhead = Spread.of([1 - n / w for n, w in zip(needed, seconds[WHOLE], strict=True)])
    rows.append(Row("overhead: the rest of it", None, overhead, *OVERHEAD.get(problem.batch, (None, None)), under=True))
    return Table(f"the split of a step, batch {problem.batch}", "us", "of the engine's step", rows)


def eager_pieces(problem: Problem) -> Callable[[], Pieces]:
    """A pass of the same model and objective in a plain loop."""
    model, objective = ours.mlp(problem), lb.Elbo()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)
    data = ours.rows(problem.x)
    rows, step = data.train.to(problem.device), torch.zeros((), device=problem.device)

    def one_pass() -> Pieces:
        lap = Laps(problem.device)
        for batch in torch.randperm(len(rows), device=problem.device).split(problem.batch):
            lap.start()
            x = data.draw(rows.index_select(0, batch))
            lap(EAGER[0])
            loss = -objective(model(x), step).mean()
            lap(EAGER[1])
            optimizer.zero_grad()
            loss.backward()
            lap(EAGER[2])
            optimizer.step()
            lap(EAGER[3])
        return lap.seconds

    return one_pass


def engine_pieces(problem: Problem) -> Callable[[], Pieces]:
    """A pass in which the engine's recorded step and its optimiser are called by themselves."""
    engine = lb.Trainer(ours.mlp(problem), lb.Elbo(), replace(ours.BARE, batch=problem.batch))
    data = ours.rows(problem.x)
    rows, step = data.train.to(problem.device), torch.zeros((), device=problem.device)

    def gradient(x: Tensor, step: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        terms = engine.loss(x, step)
        return terms.loss.detach(), torch.autograd.grad(terms.loss, engine.parameters, allow_unused=True)

    first, other = (data.draw(batch) for batch in rows[: 2 * problem.batch].split(problem.batch))
    fast = fastest(gradient, engine.loss, (first, step), (other, step + 1))

    def one_pass() -> Pieces:
        lap = Laps(problem.device)
        for batch in torch.randperm(len(rows), device=problem.device).split(problem.batch):
            x = data.draw(rows.index_select(0, batch))
            lap.start()
            _, gradients = fast(x, step)
            lap(ENGINE[0])
            for parameter, g in zip(engine.parameters, gradients, strict=True):
                parameter.grad = g
            lap.start()
            for optimizer in engine.optimizers:
                optimizer.step(LR)
            lap(ENGINE[1])
        return lap.seconds

    return one_pass


class Laps:
    """Seconds by name, from one call to the next."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: Pieces = {}
        self.last = 0.0

    def start(self) -> None:
        """Begin."""
        wait(self.device)
        self.last = time.perf_counter()

    def __call__(self, name: str) -> None:
        """Count what has passed since the last call to this name."""
        wait(self.device)
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now
