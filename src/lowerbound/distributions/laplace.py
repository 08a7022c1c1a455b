"""Laplace with independent elements, as a posterior or a likelihood.

Axes: ``*batch`` independent distributions, ``*event`` one value.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from .normal import DiagonalNormal
from .operations import stop_gradient


class DiagonalLaplace(Distribution):
    """Laplace with independent elements, of density exp(-|x - loc| / scale) / (2 scale) each.

    Unlike torch's it can be sampled under `torch.vmap`, and knows its divergence from a normal.

    Args:
        loc: Mean.
        scale: Mean absolute deviation, positive, of the shape of `loc` or broadcastable to it.
        event_ndim: How many trailing axes make one event.

    >>> DiagonalLaplace(torch.zeros(2), torch.ones(2), 1).log_prob(torch.zeros(2)).round(decimals=4)
    tensor(-1.3863)
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, event_ndim: int) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        batch_ndim = self.loc.ndim - event_ndim
        super().__init__(self.loc.shape[:batch_ndim], self.loc.shape[batch_ndim:], validate_args=False)

    def total(self, terms: Float[Tensor, "*terms"]) -> Float[Tensor, "*batch"]:
        """The sum over one event of what each element contributes."""
        axes = tuple(range(-len(self.event_shape), 0))
        return terms.sum(axes) if axes else terms  # torch takes no axes to mean all of them

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """E[x]."""
        return self.loc

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """Var[x], element by element."""
        return 2 * self.scale.square()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_event"]:
        """A draw that is differentiable in loc and scale."""
        u = torch.rand((*sample_shape, *self.loc.shape), dtype=self.loc.dtype, device=self.loc.device)
        side = 2 * torch.randint_like(u, 2) - 1
        return self.loc - self.scale * side * torch.log1p(-u)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats, summed over the event."""
        return -self.total((value - self.loc).abs() / self.scale + (2 * self.scale).log())

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Differential entropy in nats."""
        return self.total(1 + (2 * self.scale).log())

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "DiagonalLaplace":
        """The same distribution over a larger batch."""
        shape = (*batch_shape, *self.event_shape)
        return DiagonalLaplace(self.loc.expand(shape), self.scale.expand(shape), len(self.event_shape))


@register_kl(DiagonalLaplace, DiagonalNormal)
def _kl_laplace_normal(q: DiagonalLaplace, p: DiagonalNormal) -> Tensor:
    squares = (q.variance + (q.mean - p.loc).square()) / p.variance
    return q.total(0.5 * (squares + 2 * p.scale.log() + math.log(2 * math.pi))) - q.entropy()


@stop_gradient.register
def _(q: DiagonalLaplace) -> Distribution:
    return DiagonalLaplace(q.loc.detach(), q.scale.detach(), len(q.event_shape))
