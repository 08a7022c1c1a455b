"""What is done with distributions: divergences in closed form, constant copies, mixtures."""

import functools
import math

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical, Distribution, MixtureSameFamily, MultivariateNormal, register_kl

from .normal import DiagonalNormal, NormalMixture
from .point import PointMass


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


@functools.singledispatch
def stop_gradient(q: Distribution) -> Distribution:
    """The same distribution with its parameters held constant.

    Raises:
        TypeError: It is not known which tensors of this kind of distribution are its parameters.
    """
    raise TypeError(
        f"{type(q).__name__} cannot be held constant, which the objectives 'stl', 'dreg' and 'balanced' need. "
        "Use a posterior of normals (model.posterior='normal' or 'full'), or another objective."
    )


@stop_gradient.register
def _(q: DiagonalNormal) -> Distribution:
    return DiagonalNormal(q.loc.detach(), q.scale.detach(), len(q.event_shape))


@stop_gradient.register
def _(q: MultivariateNormal) -> Distribution:
    return MultivariateNormal(q.loc.detach(), scale_tril=q.scale_tril.detach(), validate_args=False)


@functools.singledispatch
def mixture(p: Distribution, logits: Float[Tensor, " components"]) -> Distribution:
    """The mixture of a batch of distributions.

    Args:
        p: The components.
        logits: Log-weights, up to a constant.
    """
    return MixtureSameFamily(Categorical(logits=logits, validate_args=False), p, validate_args=False)


@mixture.register
def _(p: DiagonalNormal, logits: Float[Tensor, " components"]) -> Distribution:
    return NormalMixture(logits, p)
