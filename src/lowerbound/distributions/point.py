"""Distributions that know one value: a point mass, and one that remembers the density of its latest draw."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints


class PointMass(Distribution):
    """Point mass: the whole probability on one value, as in a plain autoencoder.

    It has no density. Its log-density is reported as +inf where it sits and -inf elsewhere, and its divergence from
    any distribution as +inf: a model with such a posterior has no evidence lower bound.

    Args:
        value: Where it sits.
        event_ndim: How many trailing axes make one event.
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, value: Tensor, event_ndim: int) -> None:
        self.value = value
        batch_ndim = value.ndim - event_ndim
        super().__init__(value.shape[:batch_ndim], value.shape[batch_ndim:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors, as far as anyone can ask beforehand."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """The value."""
        return self.value

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """Zero."""
        return torch.zeros_like(self.value)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_event"]:
        """The value, as often as asked."""
        return self.value.expand((*sample_shape, *self.value.shape))

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """+inf at the value, -inf elsewhere."""
        here = (value == self.value).flatten(value.ndim - len(self.event_shape)).all(-1)
        return torch.where(here, math.inf, -math.inf).to(self.value.dtype)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "PointMass":
        """The same distribution over a larger batch."""
        return PointMass(self.value.expand(*batch_shape, *self.event_shape), len(self.event_shape))


class Remembered(Distribution):
    """A distribution that remembers the log-density of its latest sample.

    An inverse autoregressive flow samples in one pass but needs one pass per dimension to evaluate a given value; the
    only value ever asked for in training is the one just drawn. Kingma et al. 2016, https://arxiv.org/abs/1606.04934

    Args:
        base: A distribution with `rsample_and_log_prob`, such as a zuko flow.
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, base: Any) -> None:
        self.base = base
        self.latest: tuple[Tensor, Tensor] | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All of space, which a flow moves around in; zuko's do not say."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_event"]:
        """A draw, whose log-density is kept."""
        self.latest = self.base.rsample_and_log_prob(Size(sample_shape))
        return self.latest[0]

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats: at once for the latest sample, by inversion for any other value."""
        if self.latest is not None and value is self.latest[0]:
            return self.latest[1]
        return self.base.log_prob(value)
