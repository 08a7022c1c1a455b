"""The recipe of a sequence: a decoder that goes from step to step, told z and what came before.

    log p(x|z) = sum_t log p(x_t | x_<t, z)

Such a decoder explains a sequence by its own beginning, and may leave nothing for z to say: the posterior collapses
onto the prior, and what is left is a model of p(x) without a latent variable. A part of the earlier steps is therefore
hidden from the decoder while it learns (*word dropout*), so that z is worth its cost. Bowman et al. 2016,
https://arxiv.org/abs/1511.06349

Axes: ``*lead`` such as (k, b), ``t`` time, which is the last axis of x, ``*step`` the others, ``width`` features.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution

from .. import families, nets
from ..distributions import Sequential, in_steps
from ..linear import Linear
from ..models import VAE, Conditional
from ..nets import START_ROWS, Attending, Reader, Recurrent, Steps, Summary, glorot, standardisation
from .parts import (
    FAMILIES,
    POSTERIORS,
    FamilyName,
    Parts,
    PosteriorName,
    PriorName,
    check_numbers,
    pick,
    prior_of,
    spread,
)

CellName = Literal["gru", "transformer"]
ToldName = Literal["every", "first"]


def sequence(
    x: Tensor | None = None,
    numbers: Tensor | None = None,
    *,
    event: Sequence[int] = (1, 46, 16),
    latent: int = 16,
    cell: CellName = "gru",
    width: int = 128,
    layers: int = 1,
    told: ToldName = "every",
    word_dropout: float = 0.0,
    dropout: float = 0.0,
    family: FamilyName = "bernoulli",
    levels: int = 256,
    components: int = 5,
    scale: str | float = "shared",
    posterior: PosteriorName = "normal",
    prior: PriorName = "normal",
    prior_components: int = 100,
) -> VAE:
    """A VAE of sequences, for anything whose last axis is time: piano rolls, symbols, measurements.

    The encoder reads the whole sequence, both ways; the decoder goes from step to step. A decoder that is strong enough
    to do without z does: hide earlier steps from it (word_dropout), or make part of the KL term free
    (objective.name=free_bits). Bowman et al. 2016, https://arxiv.org/abs/1511.06349

    Args:
        x: Training data to take starting values from.
        numbers: Of these rows, as `Data.conditional("row")` tells them (exemplar).
        event: Shape of one x; the last axis is time, and the others are one step.
        latent: Dimensions of z.
        cell: "gru" (recurrent) or "transformer", of encoder and decoder.
        width: Features of a step.
        layers: How many cells stand on each other.
        told: Which steps of the decoder are told z: "every", or the "first" alone, from which the others must remember
            it; that is how Bowman et al. have it, and where z is lost most easily.
        word_dropout: Part of the earlier steps that is hidden from the decoder in training; 1 hides all of them, and
            ever after.
        dropout: Part of the encoder's input that is hidden in training.
        family: Of p(x_t | x_<t, z).
        levels: x takes the integers 0..levels-1 (categorical, logistic, logistic_mixture); the steps of a categorical
            are symbols without order.
        components: Of each element's mixture (logistic_mixture).
        scale: Of normal, laplace and student_t: "element" (predicted), "shared" (one learned), or a number.
        posterior: "normal" (diagonal), "laplace", "low_rank", "full" (covariance), "householder" (a diagonal normal,
            reflected), "planar", "radial", "sylvester", "iaf" (flows), "sphere" (directions, von Mises-Fisher), "point"
            (none: a plain autoencoder).
        prior: "normal" (standard), "mixture" (of normals), "vamp", "exemplar" (around the codes of training
            rows), "flow" (neural spline), "gmm" (normals with full covariances), "scaled_flow" (a flow in units of its
            own), "maf" (autoregressive), "realnvp" (couplings and invertible matrices); "sphere" (uniform), for the
            posterior of that name.
        prior_components: Of a mixture, gmm or VampPrior, or how many exemplars.

    Raises:
        ValueError: x has no steps that could follow each other; a number that no network can have.
    """
    if not event or event[-1] < 2:
        raise ValueError(
            f"recipe 'sequence' takes the last axis for time, and one x of shape {tuple(event)} has fewer than two "
            "steps. Turn the axes round, (channels, steps), or use model.name=mlp."
        )
    counts = {"latent": latent, "width": width, "layers": layers}
    counts |= {"components": components, "prior_components": prior_components}
    check_numbers({"event": event}, counts, levels, dropout, scale)
    if not 0 <= word_dropout <= 1:
        raise ValueError(f"word_dropout={word_dropout} must be in [0, 1]: it is the part of the steps that is hidden.")
    step, length = tuple(event[:-1]) or (1,), event[-1]
    steps = None if x is None else in_steps(x[:START_ROWS], event).flatten(0, 1)
    steps = None if steps is None else spread(steps, min(START_ROWS, len(steps)))
    shift, unit = standardisation(steps, step)
    symbols = levels if family == "categorical" else 0
    family_of_z = POSTERIORS[posterior]((latent,))
    family_of_step = FAMILIES[family](step, levels, components, scale, shift, unit)
    start = torch.zeros(family_of_step.shape) if steps is None else family_of_step.marginal(steps)

    def core(ahead: bool) -> Recurrent | Attending:
        return Recurrent(width, layers, ahead) if cell == "gru" else Attending(width, layers, length, ahead)

    read = Reader(Steps(shift, unit, symbols), event)
    inputs = (length, read.steps.width)
    summary = nets.Folded(Summary(inputs[1], core(ahead=True), width, family_of_z.shape), inputs)
    # a pseudo-input is what the encoder reads, not a sequence: symbols have no gradient
    body = Conditional(nn.Sequential(nn.Dropout(dropout), summary), family_of_z)
    rows, numbers = pick(x, numbers, prior_components, event)
    encoder = Conditional(nn.Sequential(read, body.net), family_of_z, untold=prior == "exemplar")
    known = Steps(shift, unit, symbols)
    decoder = Unrolled(
        known, latent, core(ahead=False), width, family_of_step, start, event, told == "every", word_dropout
    )
    return VAE(encoder, prior_of(prior, Parts(family_of_z, body, read(rows), numbers)), decoder)


class Unrolled(nn.Module):
    """z -> p(x|z) = prod_t p(x_t | x_<t, z): steps are told z, and remember those before them.

    Args:
        read: Steps -> numbers.
        latent: Dimensions of z.
        core: Features of steps -> what is known at each, which does not look ahead.
        width: Features.
        family: Of one step.
        start: Parameters of a step before anything is known.
        event: Shape of x; time is its last axis.
        every: Whether every step is told z, or the first alone.
        word_dropout: Part of the earlier steps that is hidden in training.
    """

    def __init__(
        self,
        read: Steps,
        latent: int,
        core: Recurrent | Attending,
        width: int,
        family: families.Family,
        start: Tensor,
        event: Sequence[int],
        every: bool,
        word_dropout: float,
    ) -> None:
        super().__init__()
        self.read = read
        self.enter = glorot(Linear(read.width, width))
        self.told = glorot(Linear(latent, width))
        self.first = nn.Parameter(torch.zeros(width))  # in the place of a step before the first
        self.unknown = nn.Parameter(torch.zeros(width))  # in the place of a step that is hidden
        self.core = core
        self.norm = nn.LayerNorm(core.width)
        self.leave = glorot(Linear(core.width, math.prod(family.shape), bias=False))
        self.bias = nets.Bias(start)
        self.family = family
        self.event = tuple(event)
        self.every = every
        self.word_dropout = word_dropout

    def forward(self, z: Float[Tensor, "*lead latent"], *context: Tensor) -> Sequential:
        """p(x|z)."""
        return Sequential(self, self.told(z), self.event)

    def parallel(self, h: Float[Tensor, "*lead width"], steps: Shaped[Tensor, "*steps"]) -> Distribution:
        """p(x_t | x_<t, z) of all steps."""
        before = self.enter(self.read(steps))[..., :-1, :]
        lead = torch.broadcast_shapes(h.shape[:-1], before.shape[:-2])
        before = before.expand(*lead, *before.shape[-2:])
        if self.word_dropout == 1 or (self.training and self.word_dropout):
            before = self.hide(before)
        before = before + h[..., None, :] if self.every else before
        e = torch.cat(((self.first + h).expand(*lead, -1)[..., None, :], before), -2)
        known, _ = self.core(e.flatten(0, -3) if e.ndim > 2 else e[None])
        return self.explain(known.reshape(*e.shape[:-1], -1))

    def advance(self, h: Float[Tensor, "*lead width"], last: Tensor | None, state: Any) -> tuple[Distribution, Any]:
        """p(x_t | x_<t, z) of the step behind the last, and what is remembered then."""
        e = self.first if last is None else self.enter(self.read(last))
        # what was hidden in all of the training was never learned to be read
        e = self.hide(e) if last is not None and self.word_dropout == 1 else e
        e = e + h if last is None or self.every else e
        known, state = self.core(e.reshape(-1, 1, e.shape[-1]), *(() if state is None else (state,)))
        return self.explain(known.reshape(*e.shape[:-1], -1)), state

    def hide(self, e: Float[Tensor, "*lead width"]) -> Float[Tensor, "*lead width"]:
        """Earlier steps, some of which cannot be seen."""
        hidden = torch.rand(*e.shape[:-1], 1, device=e.device) < self.word_dropout
        return torch.where(hidden, self.unknown, e)

    def explain(self, known: Float[Tensor, "*lead t width"]) -> Distribution:
        """p of steps, by what is known at each."""
        said = self.leave(self.norm(known))
        return self.family(self.bias(said.unflatten(-1, self.family.shape)))
