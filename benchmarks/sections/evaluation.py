"""The importance-weighted bound: ours, pythae's `get_nll` run for real on the same weights, and the limit."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import lowerbound as lb

from ..contestants import limit, of_package, ours
from ..problem import Problem, bits
from ..race import Bar
from ..report import Row, Table
from ..settings import Settings
from ..timing import Spread, interleave, timed

K = 1000
PYTHAE = "pythae, get_nll"
# Samples in a product of the limit: more do not make it faster.
SAMPLES = 2000
NETWORKS = {"784-512-16": ((512,), 16), "784-512-512-20": ((512, 512), 20)}
AGAINST_PYTHAE = Bar(4.0, 6.0)
OF_THE_LIMIT = Bar(0.70, 0.85)


def run(settings: Settings) -> Iterator[Table]:
    """A table for each network, and one of the whole job."""
    for name, (hidden, latent) in NETWORKS.items():
        problem = Problem(bits(4096), 128, hidden, latent, settings.device)
        yield compare(name, problem, settings)
    if not settings.quick:
        yield whole(settings)


def trained(problem: Problem) -> lb.Model:
    """A model that has seen the rows a few times."""
    model = ours.mlp(problem)
    contestant = ours.trainer(problem, model=model)
    for _ in range(4):
        contestant.run()
    return model


def compare(name: str, problem: Problem, settings: Settings) -> Table:
    """Milliseconds for an image with 1,000 samples."""
    model = trained(problem)
    ours_n, theirs_n = (40, 4) if settings.quick else (400, 20)
    x = problem.x[:ours_n].float().to(problem.device)

    def evaluate() -> None:
        lb.evaluate(model, x, k=K)

    products = limit.forward(SAMPLES, problem.layers()[len(problem.hidden) + 1 :])
    least = limit.repeated(products, ours_n * K // SAMPLES, problem.device)
    runs: dict[str, Callable[[], float]] = {
        "lowerbound": timed(evaluate, problem.device),
        "lowerbound again (A/A)": timed(evaluate, problem.device),
        limit.NAME: least.run,
    }
    notes: list[str] = []
    if tuple(problem.hidden) == (512,):
        theirs, notes = get_nll(model, problem, x[:theirs_n])
        runs |= {PYTHAE: theirs} if theirs else {}
    seconds = interleave(runs, settings.rounds)
    images = {name: theirs_n if name.startswith("pythae") else ours_n for name in runs}
    per_image = {name: [took / images[name] for took in seconds[name]] for name in runs}
    bars = {PYTHAE: AGAINST_PYTHAE, limit.NAME: OF_THE_LIMIT}
    rows = []
    for what, took in per_image.items():
        bar = bars.get(what)
        ratio = Spread.of_ratios(took, per_image["lowerbound"]) if what != "lowerbound" else None
        rows.append(
            Row(what, 1e3 * Spread.of(took).median, ratio, bar and bar.bar, bar and bar.aim, seconds=seconds[what])
        )
    title = f"importance-weighted bound of {name}, {K:,} samples an image"
    return Table(title, "ms an image", "ours is times as fast", rows, notes)


def get_nll(model: lb.Model, problem: Problem, x: Tensor) -> tuple[Callable[[], float] | None, list[str]]:
    """pythae's estimate on the same weights with its own default batch size, if it is here; and whether it is ours."""
    _, notes = of_package("pythae", [], problem)
    if notes:
        return None, notes
    from ..contestants.pythae import as_model, with_weights_of

    theirs = with_weights_of(model, problem).to(problem.device)

    @torch.no_grad()
    def nll() -> float:
        return float(theirs.get_nll(x, n_samples=K))

    of_ours = lb.evaluate(as_model(theirs, problem), x, k=K).bound.mean
    notes = [f"the bound of pythae's weights on {len(x)} images, nats: {of_ours:.2f} by ours, {nll():.2f} by get_nll"]
    return timed(nll, problem.device), notes


def whole(settings: Settings) -> Table:
    """The whole job, once: 10,000 images with 1,000 samples each."""
    hidden, latent = NETWORKS["784-512-512-20"]
    x = bits(10_000, seed=1)
    model = ours.mlp(Problem(x, 100, hidden, latent, settings.device))
    took = timed(lambda: lb.evaluate(model, x, k=K), settings.device)()
    row = Row("lowerbound", 1e3 * took / len(x), seconds=[took])
    return Table("10,000 images with 1,000 samples each, 784-512-512-20, once", "ms an image", "", [row])
