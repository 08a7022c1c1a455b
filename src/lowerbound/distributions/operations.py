"""What is done with distributions: divergences in closed form, constant copies, mixtures; and what is asked of them."""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    MixtureSameFamily,
    MultivariateNormal,
    constraints,
    register_kl,
)

from .normal import DiagonalNormal, NormalMixture
from .point import PointMass, Remembered


@register_kl(DiagonalNormal, DiagonalNormal)
def _kl_diagonal_diagonal(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    return q.total(kl_per_element(q, p))


@register_kl(MultivariateNormal, DiagonalNormal)
def _kl_full_diagonal(q: MultivariateNormal, p: DiagonalNormal) -> Tensor:
    # 1/2 [tr(P^-1 Q) + (m_p - m_q)' P^-1 (m_p - m_q) - d + log det P - log det Q], with P diagonal
    trace = (q.scale_tril.square().sum(-1) / p.variance).sum(-1)
    shift = ((p.loc - q.loc).square() / p.variance).sum(-1)
    log_det_q = 2 * q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (trace + shift - q.event_shape[0] + 2 * p.scale.log().sum(-1) - log_det_q)


@register_kl(PointMass, Distribution)
def _kl_point_mass_any(q: PointMass, p: Distribution) -> Tensor:
    return q.value.new_full(q.batch_shape, math.inf)


def kl_per_element(q: DiagonalNormal, p: DiagonalNormal) -> Float[Tensor, "*batch_event"]:
    """KL(q || p) of each element, in nats; they add up to the divergence because both factorise."""
    ratio = (q.scale / p.scale).square()
    return 0.5 * (ratio + ((q.loc - p.loc) / p.scale).square() - 1 - ratio.log())


class Held(Distribution):
    """The density of a distribution with its parameters held constant, whatever they are: of the value alone.

    The value and the slope of log q are taken at once, and given back as constants: log q(z) + slope (z - sg(z)). It
    can be differentiated once.

    Args:
        q: A distribution whose log-density can be differentiated in the value.
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, q: Distribution) -> None:
        self.q = q
        super().__init__(q.batch_shape, q.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        """That of q."""
        return self.q.support

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats."""
        at = value.detach()
        with torch.no_grad():
            log_q, pull = torch.func.vjp(self.q.log_prob, at)  # type: ignore[misc]
            (slope,) = pull(torch.ones_like(log_q))
        axes = tuple(range(-len(self.event_shape), 0))
        change = (value - at) * slope
        return log_q + (change.sum(axes) if axes else change)


@functools.singledispatch
def stop_gradient(q: Distribution) -> Distribution:
    """The same density with its parameters held constant. Only what is cheaper, or impossible, is registered.

    Raises:
        TypeError: It has no density.
    """
    return Held(q)


@stop_gradient.register
def _(q: PointMass) -> Distribution:
    raise TypeError(
        f"{type(q).__name__} cannot be held constant, which the objectives 'stl', 'dreg' and 'balanced' need: it has "
        "no density. Use a posterior that has one (model.posterior='normal' or 'full'), or another objective."
    )


@stop_gradient.register
def _(q: Remembered) -> Distribution:
    # what it remembers is a function of its parameters: the density of the draw is found anew, by inversion
    return stop_gradient(q.base)


@stop_gradient.register
def _(q: DiagonalNormal) -> Distribution:
    return DiagonalNormal(q.loc.detach(), q.scale.detach(), len(q.event_shape))


@stop_gradient.register
def _(q: MultivariateNormal) -> Distribution:
    return MultivariateNormal(q.loc.detach(), scale_tril=q.scale_tril.detach(), validate_args=False)


@functools.singledispatch
def has_one_value(q: Distribution) -> bool:
    """Whether every draw of each of its distributions is the same."""
    return False


@has_one_value.register
def _(q: PointMass) -> bool:
    return True


@functools.singledispatch
def mixture(p: Distribution, logits: Float[Tensor, "*batch components"]) -> Distribution:
    """The mixture of a batch of distributions.

    Args:
        p: The components.
        logits: Log-weights, up to a constant.
    """
    return MixtureSameFamily(Categorical(logits=logits, validate_args=False), p, validate_args=False)


@mixture.register
def _(p: DiagonalNormal, logits: Float[Tensor, "*batch components"]) -> Distribution:
    return NormalMixture(logits, p)
