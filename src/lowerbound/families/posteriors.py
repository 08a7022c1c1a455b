"""Posteriors of vectors with a shape of their own, whose divergence from the usual prior is exact.

Axes: ``*batch``, then ``n`` elements.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints

from ..distributions import correlated, sphere
from ..distributions.flows import unit
from .family import Family, positive


def length(event: Sequence[int], at_least: int = 1) -> int:
    """The length of an event that is one vector.

    Raises:
        ValueError: The event has other axes, or is shorter.
    """
    if len(event) != 1 or event[0] < at_least:
        raise ValueError(
            f"z of shape {tuple(event)}: this posterior is for vectors of {at_least} or more elements. Give a latent "
            "size of at least that without spatial axes (spatial=false), or choose model.posterior=normal."
        )
    return event[0]


class LowRankNormal(Family):
    """Normal with a diagonal covariance plus a few directions; see `distributions.correlated`.

    Args:
        event: Shape of one value, of length one.
        rank: How many directions.

    >>> LowRankNormal((3,), rank=2)(torch.zeros(12)).log_prob(torch.zeros(3)).round(decimals=4)
    tensor(-2.7568)
    """

    def __init__(self, event: Sequence[int], rank: int = 4) -> None:
        n = length(event)
        super().__init__(event, params=1)
        self.rank = rank
        self.shape = ((2 + rank) * n,)

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers."""
        return constraints.real

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """N(loc, diag(scale^2) + W W')."""
        n = self.event[0]
        (params,) = self.split(params)
        loc, scale, factor = params.split((n, n, self.rank * n), -1)
        return correlated.LowRankNormal(loc, positive(scale), factor.unflatten(-1, (n, self.rank)))

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Zeros: a unit normal."""
        return x.new_zeros(self.shape)


class Householder(Family):
    """A diagonal normal in axes of its own, turned by reflections; Tomczak & Welling 2016.

    https://arxiv.org/abs/1611.09630

    Args:
        event: Shape of one value, of length one.
        reflections: How many.
    """

    def __init__(self, event: Sequence[int], reflections: int = 4) -> None:
        n = length(event)
        super().__init__(event, params=1)
        self.reflections = reflections
        self.shape = ((2 + reflections) * n,)

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers."""
        return constraints.real

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """N(loc, H diag(scale^2) H')."""
        n = self.event[0]
        (params,) = self.split(params)
        loc, scale, planes = params.split((n, n, self.reflections * n), -1)
        normals = unit(planes.unflatten(-1, (self.reflections, n)))
        return correlated.ReflectedNormal(loc, positive(scale), normals)

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Zeros: a unit normal."""
        return x.new_zeros(self.shape)


class VonMisesFisher(Family):
    """Von Mises-Fisher on the unit sphere; Davidson et al. 2018, https://arxiv.org/abs/1804.00891

    Its prior is `priors.UniformSphere`, or a VampPrior: one with a density on the sphere. Its concentration starts at
    the number of elements, where the mean has length 0.6, whatever their number.

    Args:
        event: Shape of one value, of length one; two elements or more.

    >>> VonMisesFisher((3,))(torch.tensor([0.0, 0.0, 2.0, 0.0])).mean.round(decimals=4)
    tensor([0.0000, 0.0000, 0.6716])
    """

    def __init__(self, event: Sequence[int]) -> None:
        n = length(event, at_least=2)
        super().__init__(event, params=1)
        self.shape = (n + 1,)

    @property
    def support(self) -> constraints.Constraint:
        """Vectors of length 1."""
        return sphere.sphere

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """The direction of all numbers but the last, which says how concentrated."""
        n = self.event[0]
        (params,) = self.split(params)
        loc, raw = params.split((n, 1), -1)
        # zeros have no direction: they take that of the first axis
        first = torch.eye(n, dtype=loc.dtype, device=loc.device)[0]
        loc = torch.where((loc == 0).all(-1, keepdim=True), loc + first, loc)
        # the largest element is 1 before the length is taken, that squares neither overflow nor vanish
        loc = loc / loc.detach().abs().amax(-1, keepdim=True)
        return sphere.VonMisesFisher(loc / loc.norm(dim=-1, keepdim=True), n * positive(raw.squeeze(-1)))

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Zeros: the first axis, spread wide."""
        return x.new_zeros(self.shape)
