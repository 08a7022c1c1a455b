"""Time to quality: seconds of training until the importance-weighted bound on static MNIST's validation set is reached.

Each contestant trains by its own best recipe: ours is `static_mnist.toml` beside this suite, with a schedule as short
as the target allows; pythae's is its published script for this data set (784-400-40 with rectifiers, batch 100, Adam at
1e-4 with its milestones, 500 epochs). The clock runs from the first step, and stands still while the bound is taken.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

import lowerbound as lb
from lowerbound import recipes
from lowerbound.data import Data, binarized_mnist
from lowerbound.run import build, find, read

from ..contestants import of_package
from ..problem import Problem
from ..report import Row, Table
from ..settings import Settings
from ..timing import Spread

TARGET = -90.5
K = 500
# Updates of our schedule; its rate falls to zero with the last of them.
STEPS = 3_900
# Looks at the bound in it.
LOOKS = 20
BAR, AIM = 3.0, 10.0
# pythae is stopped when it has taken so many times as long as ours.
CAP = 4.0
PYTHAE_EPOCHS_BETWEEN_LOOKS = 10


@dataclass
class Clock:
    """Seconds of training, and when the target was reached.

    Attributes:
        seconds: That have counted so far.
        looks: (seconds, bound) of each look.
        reached: Seconds when the bound was reached; None as long as it is not.
    """

    seconds: float = 0.0
    looks: list[tuple[float, float]] = field(default_factory=list)
    reached: float | None = None
    started: float = 0.0

    def start(self) -> None:
        """Let it run."""
        self.started = time.perf_counter()

    def stop(self) -> None:
        """Stop it."""
        self.seconds += time.perf_counter() - self.started

    def look(self, model: lb.Model, valid: torch.Tensor) -> None:
        """Take the bound of a model: on few rows with few samples first, on all where those come near the target."""
        few = lb.evaluate(model, valid[:: max(1, len(valid) // 1000)], k=50).bound.mean
        bound = lb.evaluate(model, valid, k=K).bound.mean if few > TARGET - 1.5 else few
        self.looks.append((self.seconds, bound))
        if bound >= TARGET:
            self.reached = self.seconds


def run(settings: Settings) -> Iterator[Table]:
    """One table."""
    try:
        data = binarized_mnist()
    except OSError as error:
        yield Table("time to quality", "", "", notes=[f"skipped: {error}"])
        return
    mine = ours(data, settings)
    clocks = {"lowerbound, static_mnist.toml": mine}
    limit = CAP * (mine.reached or mine.seconds)
    problem = Problem(data.train, 100, (400,), 40, settings.device)
    _, notes = of_package("pythae", [], problem)
    if not notes:
        clocks["pythae, its published settings"] = pythae(problem, data, limit)
    yield table(clocks, notes)


def table(clocks: dict[str, Clock], notes: list[str]) -> Table:
    """The seconds of each contestant; a lower bound of the ratio where the second was stopped."""
    first = next(iter(clocks.values()))
    rows, notes = [], list(notes)
    for name, clock in clocks.items():
        took = clock.reached or clock.seconds
        last = clock.looks[-1][1]
        said = "reached" if clock.reached else f"NOT reached: stopped at {last:.2f} nats; any ratio is a lower bound"
        notes.append(f"{name}: {said}, after {took:.1f} s and {len(clock.looks)} looks")
        ratio = Spread.of([took / first.reached]) if clock is not first and first.reached else None
        bars = (BAR, AIM) if clock is not first else (None, None)
        name = name if clock.reached else f"{name} (stopped: more than)"
        rows.append(Row(name, took, ratio, *bars, seconds=[seconds for seconds, _ in clock.looks]))
    title = f"seconds to IWAE-{K} >= {TARGET} nats on static MNIST's validation set"
    return Table(title, "s", "ours is times sooner", rows, notes)


def ours(data: Data, settings: Settings, steps: int = STEPS) -> Clock:
    """Our recipe, with so many steps."""
    tables = read(Path(__file__).parents[1] / "static_mnist.toml")
    model_of, objective_of = (find(recipes.CATALOGUES[kind], kind, tables[kind]) for kind in ("model", "objective"))
    torch.manual_seed(0)
    x = data.fixed("train", recipes.START_ROWS)
    valid = data.fixed("valid").to(settings.device)
    model = build(model_of, "model", tables["model"] | {"event": list(data.event)}, x).to(settings.device)
    options = tables["train"] | {"steps": steps, "valid_every": 0}
    clock = Clock()
    clock.start()
    trainer = lb.Trainer(model, build(objective_of, "objective", tables["objective"]), lb.Options(**options))
    for step in trainer.fit(data):
        if step.number % (steps // LOOKS) == 0 or step.done:
            clock.stop()
            clock.look(trainer.averaged, valid)
            if clock.reached:
                break
            clock.start()
    return clock


def pythae(problem: Problem, data: Data, limit: float) -> Clock:
    """pythae's published recipe, until the target or the limit."""
    from ..contestants.pythae import as_model, published

    clock = Clock()
    valid = data.fixed("valid").to(problem.device)

    def after_epoch(number: int, theirs: object) -> bool:
        clock.stop()
        if number % PYTHAE_EPOCHS_BETWEEN_LOOKS == 0 or clock.seconds > limit:
            clock.look(as_model(theirs, problem), valid)
        stop = clock.reached is not None or clock.seconds > limit
        clock.start()
        return stop

    published(problem, clock.start, after_epoch)
    return clock
