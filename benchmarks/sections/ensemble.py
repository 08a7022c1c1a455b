"""Eight models at once against the same eight one after another."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import lowerbound as lb
from lowerbound.objectives import Weight
from lowerbound.train import Ensemble

from ..contestants import ours
from ..problem import Problem, bits
from ..race import Bar, Contestant, race
from ..report import Table
from ..settings import Settings
from ..timing import timed

BETAS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
AGAINST_ONE_BY_ONE = {512: Bar(1.8, 2.0), 128: Bar(2.5, 3.2)}
AT_ONCE = f"{len(BETAS)} at once"
ONE_BY_ONE = "one after another"
EAGER = "one after another, eager (train.compile=off)"


def run(settings: Settings) -> Iterator[Table]:
    """A table for each width."""
    rows = bits(1024 if settings.quick else 4096)
    for width, bar in AGAINST_ONE_BY_ONE.items():
        problem = Problem(rows, 64, (width, width), 20, settings.device)
        contestants = [
            at_once(problem, AT_ONCE),
            at_once(problem, f"{AT_ONCE} again (A/A)"),
            one_by_one(problem, ONE_BY_ONE),
            one_by_one(problem, EAGER, compile="off"),
        ]
        title = f"{len(BETAS)} models, 784-{width}-{width}-20, batch {problem.batch}"
        samples = problem.steps * problem.batch * len(BETAS)
        yield race(title, contestants, samples, settings.rounds, {ONE_BY_ONE: bar})


def at_once(problem: Problem, name: str) -> Contestant:
    """All, a step of each at a time."""
    models = [ours.mlp(problem) for _ in BETAS]
    objectives = [lb.Elbo(Weight(beta)) for beta in BETAS]
    steps = Ensemble(models, objectives, replace(ours.BARE, batch=problem.batch)).fit(ours.rows(problem.x))
    return contestant(problem, name, models, lambda: [next(steps) for _ in range(problem.steps)])


def one_by_one(problem: Problem, name: str, **options: str) -> Contestant:
    """A trainer for each, a pass of one after a pass of the other."""
    models = [ours.mlp(problem) for _ in BETAS]
    passes = [
        lb.Trainer(model, lb.Elbo(Weight(beta)), replace(ours.BARE, batch=problem.batch, **options)).fit(
            ours.rows(problem.x)
        )
        for model, beta in zip(models, BETAS, strict=True)
    ]
    return contestant(problem, name, models, lambda: [next(steps) for steps in passes for _ in range(problem.steps)])


def contestant(problem: Problem, name: str, models: list[lb.Model], one_pass: Callable[[], object]) -> Contestant:
    """Its loss is the mean of all eight."""

    def loss() -> float:
        bounds = [lb.evaluate(model, problem.checked, k=1).elbo.mean for model in models]
        return -sum(bounds) / len(bounds)

    parameters = sum(p.numel() for model in models for p in model.parameters())
    return Contestant(name, timed(one_pass, problem.device), parameters, loss)
