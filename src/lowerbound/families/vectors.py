"""Families of whole vectors: posteriors whose elements know of each other, and a posterior that is a point.

Axes: ``*batch``, then ``n`` elements.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution, constraints

from ..distributions import DiagonalNormal, PointMass, Remembered
from .family import Family, positive


class FullNormal(Family):
    """Normal with a full covariance, through its Cholesky factor; for vectors.

    Args:
        event: Shape of one value, of length one.
    """

    def __init__(self, event: Sequence[int]) -> None:
        (n,) = event
        super().__init__(event, params=1)
        self.shape = (n + n * (n + 1) // 2,)
        self.register_buffer("below", torch.tril_indices(n, n, -1), persistent=False)
        self.below: Tensor

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers."""
        return constraints.real

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """N(loc, L L'), L lower triangular with a positive diagonal."""
        n = self.event[0]
        (params,) = self.split(params)
        loc, diagonal, below = params.split((n, n, n * (n - 1) // 2), -1)
        tril = torch.diag_embed(positive(diagonal))
        tril[..., self.below[0], self.below[1]] = below
        return td.MultivariateNormal(loc, scale_tril=tril, validate_args=False)

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Zeros: a unit normal."""
        return x.new_zeros(self.shape)


class InverseAutoregressive(Family):
    """An inverse autoregressive flow on a diagonal normal; for vectors.

    It samples in one pass. Kingma et al. 2016, https://arxiv.org/abs/1606.04934

    Args:
        event: Shape of one value, of length one.
        transforms: How many flow steps.
        hidden: Width of the masked networks.
        context: How many numbers of the encoder's output steer the flow.
    """

    def __init__(self, event: Sequence[int], transforms: int = 2, hidden: int = 128, context: int = 32) -> None:
        import zuko

        (n,) = event
        super().__init__(event, params=1)
        self.shape = (2 * n + context,)
        self.flow = zuko.flows.MAF(n, context, transforms=transforms, hidden_features=(hidden, hidden))

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers."""
        return constraints.real

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """A diagonal normal, pushed through the flow."""
        from zuko.distributions import NormalizingFlow

        n = self.event[0]
        (params,) = self.split(params)
        loc, scale, context = params.split((n, n, self.shape[0] - 2 * n), -1)
        base = DiagonalNormal(loc, positive(scale), 1)
        # zuko's flow maps data to noise in one pass; the inverse flow is that same map applied to noise, and a
        # NormalizingFlow wants the map from data to noise: the inverse of it
        return Remembered(NormalizingFlow(self.flow(context).transform.inv, base))

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Zeros."""
        return x.new_zeros(self.shape)


class Point(Family):
    """A point mass: the encoder of a plain autoencoder. It gives no bound; see `distributions.PointMass`."""

    def __init__(self, event: Sequence[int]) -> None:
        super().__init__(event, params=1)

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers."""
        return constraints.real

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """All the probability on params."""
        (value,) = self.split(params)
        return PointMass(value, len(self.event))

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Zeros."""
        return x.new_zeros(self.shape)
