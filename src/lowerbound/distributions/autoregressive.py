"""Images, one place after the other: each element is drawn given those before it, and what features say.

    log p(x) = sum over places i, and over the elements d of a place, of log p(x_id | x_<i, x_i,<d, features)

One pass of a causal network gives all the terms. A draw visits one place after the other; the network keeps what it
needs of those before, so that all of them together cost about as much as one pass.
Van den Oord et al. 2016, https://arxiv.org/abs/1601.06759; Salimans et al. 2017, https://arxiv.org/abs/1701.05517

Axes: ``*batch``, then ``c`` elements of a place, ``h`` rows, ``w`` columns; ``f`` channels of features.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints


@runtime_checkable
class Causal(Protocol):
    """A causal network, such as `nets.CausalNet`.

    Attributes:
        event: (c, h, w) of one x.
    """

    event: tuple[int, ...]

    def __call__(self, x: Tensor, features: Tensor | None = None) -> Tensor:
        """x and features -> parameters of all elements of x, each from what is before it."""

    def draw(
        self, pick: Callable[[Tensor], Tensor], lead: Sequence[int] = (), features: Tensor | None = None
    ) -> Tensor:
        """x place by place, each picked by its parameters."""


@runtime_checkable
class Elements(Protocol):
    """A family of independent elements, such as `families.Categorical`."""

    @property
    def support(self) -> constraints.Constraint:
        """What values one element can take."""

    def __call__(self, params: Tensor) -> Distribution:
        """Parameters -> the distribution, for images of any height and width."""


class Autoregressive(Distribution):
    """p(x) as the product of each element given those before it.

    It has neither a mean nor a mode in closed form: it is shown by its draws.

    Args:
        net: A causal network: x and features -> parameters of all elements of x.
        family: Parameters -> distribution of independent elements.
        features: What is given of every place; None for nothing.
        batch_shape: Of the distribution where there are no features; with them, it is their leading axes.

    >>> from lowerbound import families, nets
    >>> net = nets.CausalNet((1, 2, 2), 1, nets.Scaled(2), reach=1)
    >>> p = Autoregressive(net, families.Bernoulli((1, 2, 2)))
    >>> everything = torch.cartesian_prod(*[torch.arange(2.0)] * 4).reshape(-1, 1, 2, 2)
    >>> round(p.log_prob(everything).exp().sum().item(), 4)
    1.0
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(
        self,
        net: Causal,
        family: Elements,
        features: Float[Tensor, "*batch f h w"] | None = None,
        batch_shape: Sequence[int] = (),
    ) -> None:
        self.net = net
        self.family = family
        self.features = features
        batch = Size(batch_shape) if features is None else features.shape[:-3]
        super().__init__(batch, Size(net.event), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """What values one element can take, at every place."""
        return constraints.independent(self.family.support, len(self.event_shape))

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-probability in nats, in one pass; without gradients, in one for each of several samples of features."""
        if self.features is not None and self.features.ndim > value.ndim and not torch.is_grad_enabled():
            # hidden layers are far larger than x: those of a few images stay in the caches, and in any memory
            return torch.stack([Autoregressive(self.net, self.family, each).log_prob(value) for each in self.features])
        log_p = self.family(self.net(value, self.features)).log_prob(value)
        return log_p.expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_event"]:
        """A draw, place by place."""
        lead = (*sample_shape, *self.batch_shape)
        return self.net.draw(lambda params: self.family(params).sample(), lead, self.features)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "Autoregressive":
        """The same distribution over a larger batch."""
        features = None if self.features is None else self.features.expand(*batch_shape, *self.features.shape[-3:])
        return Autoregressive(self.net, self.family, features, batch_shape)
