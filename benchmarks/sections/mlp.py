"""Training an MLP VAE: 784-512-512-20 against every contestant, and pythae's own default network against pythae."""

from collections.abc import Iterator
from dataclasses import replace

from ..contestants import limit, of_package, ours, plain
from ..problem import Problem, bits
from ..race import Bar, race
from ..report import Table
from ..settings import Settings

BATCHES = (64, 128, 256, 1024)
AGAINST_PIL = Bar(2.2, 2.8)
AGAINST_JAX = {64: Bar(0.9, 1.0), 128: Bar(0.9, 1.0), 256: Bar(1.0, 1.1), 1024: Bar(1.3, 1.5)}
OF_THE_LIMIT = {64: Bar(0.45, 0.60), 256: Bar(0.60, 0.75), 1024: Bar(0.75, 0.88)}
AGAINST_PYTHAE = {64: Bar(1.6, 2.2), 512: Bar(1.6, 2.0)}


def run(settings: Settings) -> Iterator[Table]:
    """A table for each batch size."""
    x = bits(4096 if settings.quick else 20_480)
    for batch in BATCHES:
        yield everyone(Problem(x, batch, device=settings.device), settings)
    for batch in AGAINST_PYTHAE:
        yield pythae(Problem(x, batch, hidden=(512,), latent=16, device=settings.device), settings)


def everyone(problem: Problem, settings: Settings) -> Table:
    """All contestants on one network."""
    contestants = [make(problem) for make in (ours.trainer, ours.again, ours.averaged)]
    contestants += [make(problem) for make in (plain.resident, plain.loader, plain.pil)]
    lightning, without_lightning = of_package("lightning", ["trainer"], problem)
    jax, without_jax = of_package("jax", ["step", "scan"], problem)
    contestants += [*lightning, *jax, limit.products(problem)]
    bars = {"PyTorch, DataLoader of PIL images": AGAINST_PIL}
    if problem.batch in OF_THE_LIMIT:
        bars[limit.NAME] = OF_THE_LIMIT[problem.batch]
    title = f"MLP VAE 784-512-512-20, batch {problem.batch}"
    table = race(title, contestants, len(problem.x), settings.rounds, bars)
    # the bar is for the better of JAX's two, which only the race tells
    of_jax = [row for row in table.rows if row.what in {contestant.name for contestant in jax}]
    better = max(of_jax, key=lambda row: row.value, default=None)
    bar = AGAINST_JAX[problem.batch]
    rows = [replace(row, bar=bar.bar, aim=bar.aim) if row is better else row for row in table.rows]
    return replace(table, rows=rows, notes=[*table.notes, *without_lightning, *without_jax])


def pythae(problem: Problem, settings: Settings) -> Table:
    """Ours and pythae's trainer on pythae's default VAE."""
    theirs, without = of_package("pythae", ["trainer"], problem)
    contestants = [ours.trainer(problem), ours.again(problem), plain.resident(problem), *theirs]
    title = f"pythae's default VAE 784-512-16, batch {problem.batch}"
    table = race(title, contestants, len(problem.x), settings.rounds, {"pythae": AGAINST_PYTHAE[problem.batch]})
    return replace(table, notes=[*table.notes, *without])
