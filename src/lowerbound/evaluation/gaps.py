"""The inference gap: what a bound loses because q(z|x) is not the posterior, and which part of it is whose.

    log p(x) - L(q)  =  [log p(x) - L(q*)]  +  [L(q*) - L(q)],

where q is the encoder's answer and q* the best member of its family for this one datum. The first is the
**approximation gap**: the family has no better. The second is the **amortisation gap**: the family has, and the
encoder does not find it (Cremer et al. 2018, https://arxiv.org/abs/1801.03558).

Axes: ``k`` samples, ``n`` data.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import AffineTransform, Distribution, TransformedDistribution

from ..distributions import DiagonalNormal
from ..families import FullNormal
from ..metrics import Estimate
from ..models import VAE, Conditional, Model
from .annealing import annealed_bound, is_unbounded
from .bounds import DECODED
from .refinement import Numbers, bounds, movable, optimise
from .undisturbed import undisturbed

# Of the search for the best q. Steps in the many directions of a full covariance add up, and are shorter by its side.
RATE = 0.03
# Samples with which its answers are compared.
SAMPLES = 1000
# Dimensions up to which it can find a full covariance.
FULL = 64


@dataclass(frozen=True)
class InferenceGap:
    """Bounds on log p(x) by ever better posteriors, nats for each datum.

    Attributes:
        encoder: The evidence lower bound with the encoder's q(z|x).
        optimal: With the best of the encoder's own family for each datum: as good as the search has found it.
        richer: With the best normal of full covariance; None if the family is no diagonal normal, or z is no vector or
            has more than 64 dimensions.
        evidence: Log p(x): the tightest lower bound that was found.
        means: What gave it: "importance sampling" or "annealing".
    """

    encoder: Float[Tensor, " n"]
    optimal: Float[Tensor, " n"]
    richer: Float[Tensor, " n"] | None
    evidence: Float[Tensor, " n"]
    means: str

    @property
    def total(self) -> Estimate:
        """log p(x) - L(q)."""
        return Estimate.of(self.evidence - self.encoder)

    @property
    def approximation(self) -> Estimate:
        """log p(x) - L(q*): what a richer family could gain."""
        return Estimate.of(self.evidence - self.optimal)

    @property
    def amortisation(self) -> Estimate:
        """L(q*) - L(q): what a better encoder could gain."""
        return Estimate.of(self.optimal - self.encoder)


def inference_gap(
    model: Model,
    x: Shaped[Tensor, "n *x"],
    *context: Tensor,
    steps: int = 200,
    k: int = 4,
    temperatures: int = 100,
    seed: int = 0,
) -> InferenceGap:
    """Split what the bound loses on some held-out data into approximation and amortisation gap.

    The parameters that the encoder gives to its family are moved for each datum, by Adam from where they are.

    Args:
        model: A model with one latent variable whose encoder is a `Conditional` and gives a density.
        x: Data in their own units, few: each costs steps times k passes through the decoder.
        context: What the model is conditional on, a row for each x.
        steps: Of the search for the best q.
        k: Samples of z in each.
        temperatures: Of the annealing that estimates log p(x); 0 to leave it to importance sampling, as it is where z
            is no such numbers as can be annealed, but directions.
        seed: Of all samples. The caller's random state is left alone.

    Raises:
        ValueError: The encoder has no parameters to move, or its posterior is a point; a count below 1.
    """
    if min(steps, k) < 1 or temperatures < 0 or len(x) == 0:
        raise ValueError(
            f"steps={steps}, k={k}, temperatures={temperatures}, {len(x)} rows: give 1 or more of steps, samples and "
            "rows, and 0 or more temperatures."
        )
    _check(model)
    weights = next(model.parameters())
    batch = max(1, DECODED // (k * math.prod(x.shape[1:])))
    with undisturbed(model, seed):
        parts = []
        for begun in range(0, len(x), batch):
            rows = x[begun : begun + batch].to(weights)
            given = [c[begun : begun + batch].to(weights) for c in context]
            posteriors = _posteriors(model, rows, given, steps, k)
            # the same noise for each posterior, so that differences are exact where they agree
            parts.append([bounds(model, rows, given, q, SAMPLES, seed + begun) for q in posteriors])
    # for each posterior of all rows: its bound with one sample, and with many
    joined = [tuple(map(torch.cat, zip(*found, strict=True))) for found in zip(*parts, strict=True)]
    loose, tight = zip(*joined, strict=True)
    found = {"importance sampling": max(tight, key=lambda values: values.mean().item())}
    if temperatures and is_unbounded(posteriors[0]):
        found["annealing"] = annealed_bound(model, x, *context, temperatures=temperatures, seed=seed)
    means = max(found, key=lambda name: found[name].mean().item())
    return InferenceGap(loose[0], loose[1], loose[2] if len(loose) > 2 else None, found[means], means)


def _posteriors(model: Model, rows: Tensor, given: list[Tensor], steps: int, k: int) -> list[Distribution]:
    """The encoder's answer for some rows, the best of its family, and the best of full covariance where there is one.

    Raises:
        ValueError: The posterior is a point.
    """
    start, code = movable(model, rows, given)
    q, best = code(start), code(optimise(model, rows, given, code, start, steps, k, RATE))
    if isinstance(q, DiagonalNormal) and len(q.event_shape) == 1 and q.event_shape[0] <= FULL:
        return [q, best, _full(model, rows, given, best, steps, k)]
    return [q, best]


def _check(model: Model) -> None:
    """Refuse a model whose posterior is no family's.

    Raises:
        ValueError: It is not.
    """
    match model:
        case VAE(encoder=Conditional()):
            return
    raise ValueError(
        f"the posterior of this {type(model).__name__} is not one Conditional (a network and a family), so there are "
        "no parameters of q to move: the inference gap cannot be split."
    )


def _full(model: Model, rows: Tensor, given: list[Tensor], q: DiagonalNormal, steps: int, k: int) -> Distribution:
    """The best normal of full covariance, from one that is diagonal."""
    family = FullNormal(q.event_shape).to(q.loc)
    # in units of its spread all directions are alike to the search
    place = AffineTransform(q.loc, q.scale, event_dim=1)
    start = q.loc.new_zeros(len(rows), *family.shape)

    def placed(numbers: Numbers) -> Distribution:
        return TransformedDistribution(family(numbers[0]), [place], validate_args=False)

    rate = RATE / math.sqrt(q.event_shape[0])
    return placed(optimise(model, rows, given, placed, [start], steps, k, rate))
