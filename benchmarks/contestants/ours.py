"""lowerbound's own trainer, through its public names only."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import lowerbound as lb
from lowerbound.data import Data

from ..problem import LR, Problem
from ..race import Contestant
from ..timing import timed
from .plain import PlainVAE

# What the other contestants do: Adam at a constant rate, no average of the weights, no validation.
BARE = lb.Options(steps=10**9, lr=LR, decay="constant", warmup=0, ema=0.0, valid_every=0)
# The ways to run a step: the values of `Options.compile`, the default first.
MODES = ("replay", "off", "on")


def mlp(problem: Problem) -> lb.Model:
    """The network of a problem, from the same weights as everyone's."""
    model = lb.mlp(
        event=problem.event,
        latent=problem.latent,
        hidden=list(problem.hidden),
        activation="relu",
        residual=False,
    )
    vector_to_parameters(parameters_to_vector(PlainVAE(problem).parameters()), model.parameters())
    for name, buffer in model.named_buffers():
        if name.endswith("unit"):
            buffer.fill_(1.0)  # the encoder reads zeros and ones as they are, as the others do
    return model.to(problem.device)


def rows(x: Tensor, levels: int = 2) -> Data:
    """Rows to train on; the two parts that no one looks at are a row each."""
    n = len(x)
    parts = {"train": torch.arange(n), "valid": torch.tensor([n]), "test": torch.tensor([n + 1])}
    return Data("rows", torch.cat([x, x[:2]]), parts, levels=levels)


def trainer(problem: Problem, name: str = "lowerbound", model: lb.Model | None = None, **options: Any) -> Contestant:
    """The trainer on resident rows, one pass at a time.

    Args:
        problem: What to train, and on what.
        name: Of the contestant.
        model: The model, if it is not the problem's MLP.
        options: What differs from `BARE`.
    """
    model = mlp(problem) if model is None else model
    return on(rows(problem.x, problem.levels), model, problem.batch, name, problem.checked, problem.device, **options)


def on(
    data: Data, model: lb.Model, batch: int, name: str, checked: Tensor, device: str = "cpu", **options: Any
) -> Contestant:
    """The trainer on any data and model, one pass at a time."""
    engine = lb.Trainer(model, lb.Elbo(), replace(BARE, batch=batch, **options))
    steps = engine.fit(data)

    def one_pass() -> None:
        for _ in range(len(data.split["train"]) // batch):
            next(steps)

    @torch.no_grad()
    def loss() -> float:
        return -float(lb.Elbo()(engine.model(checked), torch.zeros((), device=device)).mean())

    return Contestant(name, timed(one_pass, device), sum(p.numel() for p in model.parameters()), loss)


def again(problem: Problem) -> Contestant:
    """The A/A control: the same program a second time."""
    return trainer(problem, "lowerbound again (A/A)")


def averaged(problem: Problem) -> Contestant:
    """With an average of the weights, which is on by default."""
    return trainer(problem, "lowerbound, EMA on", ema=lb.Options().ema)
