"""What a family is, and the maps from any number to a scale.

Axes: ``*batch``, then ``*event``. The first event axis carries the parameters.
"""

import abc
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

SCALE_RANGE = 7.0


def positive(raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """A scale between e^-7 and e^7 from any finite number; 1 from 0."""
    return torch.exp(raw / (1 + raw.abs() / SCALE_RANGE))


def unconstrained(scale: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The inverse of `positive`, for scales clipped to what it can reach."""
    log_scale = scale.log().clamp(-0.9 * SCALE_RANGE, 0.9 * SCALE_RANGE)
    return log_scale / (1 - log_scale.abs() / SCALE_RANGE)


def precise(params: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same numbers in float32 or better."""
    return params.to(torch.promote_types(params.dtype, torch.float32))


class Family(nn.Module, abc.ABC):
    """A map from a parameter tensor to a distribution.

    Args:
        event: Shape of one value.
        params: How many parameters each element needs.

    Attributes:
        event: Shape of one value.
        shape: Shape of the parameter tensor of one value: `event` with its first axis `params` times as long.
    """

    def __init__(self, event: Sequence[int], params: int) -> None:
        super().__init__()
        self.event = tuple(event)
        self.params = params
        self.shape = (params * self.event[0], *self.event[1:])

    @property
    @abc.abstractmethod
    def support(self) -> constraints.Constraint:
        """What values one element can take."""

    @abc.abstractmethod
    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """The distribution with these parameters."""

    @abc.abstractmethod
    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Parameters that fit each element of x by itself: where a decoder starts, before it knows z."""

    def split(self, params: Float[Tensor, "*params"]) -> tuple[Tensor, ...]:
        """The parameters, each of the shape of the event, in float32 or better."""
        params = precise(params)
        return params.chunk(self.params, dim=-len(self.event)) if self.params > 1 else (params,)
