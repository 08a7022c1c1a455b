"""A diagonal normal seen through an invertible map, such as a flow that is learned.

    log p(z) = log N(f(z); loc, diag(scale^2)) + log |det df/dz|

Axes: ``*batch`` independent distributions, ``n`` elements of one value.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints

from .normal import DiagonalNormal


class Warped(Distribution):
    """The distribution of z where f(z) is normal.

    Args:
        base: Of f(z).
        whiten: z -> f(z) and log |det df/dz| there, (*lead, n) -> (*lead, n) and (*lead,).
        colour: The inverse of f.

    >>> twice = Warped(DiagonalNormal(torch.zeros(1), torch.ones(1), 1),
    ...     lambda z: (2 * z, torch.full(z.shape[:-1], 2.0).log()), lambda y: y / 2)
    >>> twice.log_prob(torch.zeros(1)).exp().round(decimals=4)  # the standard deviation is a half
    tensor(0.7979)
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(
        self,
        base: DiagonalNormal,
        whiten: Callable[[Tensor], tuple[Tensor, Tensor]],
        colour: Callable[[Tensor], Tensor],
    ) -> None:
        self.base, self.whiten, self.colour = base, whiten, colour
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors."""
        return self.base.support

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats."""
        noise, log_determinant = self.whiten(value)
        return self.base.log_prob(noise) + log_determinant

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch n"]:
        """A draw that is differentiable in the parameters of map and base."""
        return self.colour(self.base.rsample(sample_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch n"]:
        """A draw."""
        return self.rsample(sample_shape)
