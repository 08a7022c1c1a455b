"""Training a convolutional VAE against the straightforward one, and the bounds that both reach."""

from collections.abc import Iterator

import torch
from torch import Tensor

import lowerbound as lb

from ..contestants import ours, transposed
from ..problem import Problem, bits, digits, pixels
from ..race import Bar, race
from ..report import Row, Table
from ..settings import Settings

CHANNELS = {"28x28x1": (32, 64), "32x32x3": (32, 64, 64)}
FAMILIES = {"28x28x1": "bernoulli", "32x32x3": "logistic_mixture"}
LATENT = 32
AGAINST_TRANSPOSED = {128: Bar(1.15, 1.5)}
# For the table of bounds: passes over the rows, and rows that the bound is taken on.
PASSES = 4
HELD_OUT = 2000


def run(settings: Settings) -> Iterator[Table]:
    """A table for each shape and batch size, and one of bounds."""
    n = 512 if settings.quick else 2048
    for shape, x in (("28x28x1", bits(n)), ("32x32x3", pixels(n))):
        levels = 2 if shape == "28x28x1" else 256
        for batch in (128,) if settings.quick else (64, 128, 256, 1024):
            yield both(shape, Problem(x, batch, latent=LATENT, device=settings.device, levels=levels), settings)
    if not settings.quick:
        yield bounds(settings)


def both(shape: str, problem: Problem, settings: Settings) -> Table:
    """Ours and the straightforward one."""
    models = [model(shape, problem.x).to(problem.device) for _ in range(2)]
    theirs = transposed.contestant(problem, CHANNELS[shape], FAMILIES[shape])
    contestants = [
        ours.trainer(problem, "lowerbound", models[0]),
        ours.trainer(problem, "lowerbound again (A/A)", models[1]),
        theirs,
    ]
    bar = AGAINST_TRANSPOSED.get(problem.batch)
    bars = {theirs.name: bar} if bar else {}
    title = f"conv VAE {shape}, channels {', '.join(map(str, CHANNELS[shape]))}, batch {problem.batch}"
    return race(title, contestants, len(problem.x), settings.rounds, bars, same_network=False)


def model(shape: str, x: Tensor) -> lb.Model:
    """Our recipe, with starting values from the rows."""
    torch.manual_seed(0)
    return lb.conv(
        x.float(), event=x.shape[1:], latent=LATENT, channels=CHANNELS[shape], family=FAMILIES[shape], levels=256
    )


def bounds(settings: Settings) -> Table:
    """The bound on rows not trained on, after the same number of updates: the faster layers must not be worse."""
    name, x, held_out = digits(HELD_OUT)
    problem = Problem(x, 128, latent=LATENT, device=settings.device, held_out=held_out)
    rows = []
    for make in (
        lambda: ours.trainer(problem, "lowerbound", model("28x28x1", x).to(settings.device)),
        lambda: transposed.contestant(problem, CHANNELS["28x28x1"], FAMILIES["28x28x1"]),
    ):
        contestant = make()
        seconds = [contestant.run() for _ in range(PASSES)]
        rows.append(Row(contestant.name, -contestant.loss(), seconds=seconds))
    title = f"ELBO on {len(held_out):,} held-out rows of {name}, after {PASSES * problem.steps:,} updates of 128"
    return Table(title, "nats", "", rows)
