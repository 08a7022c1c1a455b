"""Logistics rounded to integers, and mixtures of them: the grey levels of a pixel."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Size, Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Categorical, Distribution, constraints
from torch.nn import functional as F


class DiscretizedLogistic(Distribution):
    """Logistic distribution rounded to the integers 0..levels-1; the two outer cells reach to infinity.

    p(x) = sigmoid((x + 1/2 - loc) / scale) - sigmoid((x - 1/2 - loc) / scale)

    It sums to one for every loc and scale. Salimans et al. 2017, https://arxiv.org/abs/1701.05517

    Args:
        loc: Centre, in the units of x.
        scale: Width, in the units of x, positive.
        levels: How many values x can take.

    >>> p = DiscretizedLogistic(torch.tensor(1.3), torch.tensor(0.7), levels=4)
    >>> p.log_prob(torch.arange(4.0)).exp().sum().round(decimals=5)
    tensor(1.)
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, loc: Tensor, scale: Tensor, levels: int) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, Size(), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The integers 0..levels-1."""
        return constraints.integer_interval(0, self.levels - 1)

    def log_prob(self, value: Tensor) -> Float[Tensor, "*batch"]:
        """Log-probability in nats."""
        upper = (value + 0.5 - self.loc) / self.scale
        lower = (value - 0.5 - self.loc) / self.scale
        # log(sigmoid(u) - sigmoid(l)) without cancellation, in either tail
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-1 / self.scale))
        return torch.where(
            value <= 0,
            F.logsigmoid(upper),
            torch.where(value >= self.levels - 1, F.logsigmoid(-lower), inside),
        )

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """E[x] = sum over thresholds of p(x > threshold), exactly, in the units of x."""
        total = torch.zeros_like(self.loc)
        for level in range(self.levels - 1):
            total = total + torch.sigmoid((self.loc - level - 0.5) / self.scale)
        return total

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """Var[x], exactly."""
        second = torch.zeros_like(self.loc)
        for level in range(self.levels - 1):  # E[x^2] = sum of (2 level + 1) p(x > level)
            second = second + (2 * level + 1) * torch.sigmoid((self.loc - level - 0.5) / self.scale)
        return second - self.mean.square()

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Shaped[Tensor, "*sample_batch"]:
        """A draw: a logistic variable, rounded and clipped."""
        tiny = torch.finfo(self.loc.dtype).tiny
        shape = (*sample_shape, *self.batch_shape)
        u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(tiny, 1 - 2**-24)
        return (self.loc + self.scale * torch.logit(u)).round().clamp(0, self.levels - 1)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "DiscretizedLogistic":
        """The same distribution over a larger batch."""
        return DiscretizedLogistic(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.levels)


class LogisticMixture(Distribution):
    """Mixture of discretised logistics, one for each element of an event, p(x) = sum_i w_i p_i(x).

    It says what torch's `MixtureSameFamily` of `DiscretizedLogistic` says, in a quarter of the time: each component's

        log p_i(x) = min(u, 0) - max(l, 0) + log[sigmoid(|u|) sigmoid(|l|) (1 - exp(l - u))]

    at the two edges l < u of a cell, in units of the component's scale, is a single logarithm of a product between 0
    and 1, and the gradient is made in the same pass, from the same numbers. It cannot be differentiated again.

    Args:
        logits: Log-weights of the components, up to a constant; the components are the axis before the event.
        logistics: The components, of the shape of `logits`.
        event_ndim: How many trailing axes make one event.

    >>> parts = DiscretizedLogistic(torch.tensor([0.2, 2.5]), torch.tensor([0.7, 0.1]), levels=4)
    >>> p = LogisticMixture(torch.zeros(2), parts, 0)
    >>> p.log_prob(torch.arange(4.0)).exp().sum().round(decimals=5)
    tensor(1.)
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, logistics: DiscretizedLogistic, event_ndim: int) -> None:
        self.logits = logits
        self.logistics = logistics
        self.axis = -1 - event_ndim
        shape = logits.shape[: logits.ndim - event_ndim - 1], logits.shape[logits.ndim - event_ndim :]
        super().__init__(*shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Events of the integers 0..levels-1."""
        return constraints.independent(self.logistics.support, len(self.event_shape))

    def log_prob(self, value: Tensor) -> Float[Tensor, "*batch"]:
        """Log-probability in nats, summed over the event."""
        x = value.unsqueeze(self.axis)
        # the edges of the cell; the two outer cells reach to infinity
        upper = (x + 0.5).masked_fill(x >= self.logistics.levels - 1, math.inf)
        lower = (x - 0.5).masked_fill(x <= 0, -math.inf)
        shape = torch.broadcast_shapes(self.logits.shape, x.shape)
        logits, loc, scale = (t.expand(shape) for t in (self.logits, self.logistics.loc, self.logistics.scale))
        if torch.is_grad_enabled():
            log_p = _LogisticMixtureLogProb.apply(logits, loc, scale, upper, lower, self.axis)[0]
        else:
            log_p = _logistic_mixture(logits, loc, scale, upper, lower, self.axis, gradient=False)[0]
        axes = tuple(range(-len(self.event_shape), 0))
        return log_p.sum(axes) if axes else log_p

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """E[x], exactly, in the units of x."""
        return (self.logits.softmax(self.axis) * self.logistics.mean).sum(self.axis)

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """Var[x], exactly."""
        distance = self.logistics.mean - self.mean.unsqueeze(self.axis)
        return (self.logits.softmax(self.axis) * (self.logistics.variance + distance.square())).sum(self.axis)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Shaped[Tensor, "*sample_batch_event"]:
        """A draw: for each element a component, then a value of it."""
        parts = (self.logits, self.logistics.loc, self.logistics.scale)
        logits, loc, scale = (t.movedim(self.axis, -1) for t in parts)
        chosen = Categorical(logits=logits, validate_args=False).sample(Size(sample_shape))[..., None]
        loc, scale = (t.expand(*sample_shape, *t.shape).gather(-1, chosen)[..., 0] for t in (loc, scale))
        return DiscretizedLogistic(loc, scale, self.logistics.levels).sample()

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "LogisticMixture":
        """The same distribution over a larger batch."""
        shape = (*batch_shape, *self.logits.shape[self.logits.ndim + self.axis :])
        return LogisticMixture(self.logits.expand(shape), self.logistics.expand(shape), len(self.event_shape))


def _logistic_mixture(
    logits: Tensor, loc: Tensor, scale: Tensor, upper: Tensor, lower: Tensor, axis: int, gradient: bool
) -> tuple[Tensor, ...]:
    """The log-probability of a cell, and on request its gradient in logits, loc and scale."""
    precision = scale.reciprocal()
    # the infinite ends come down to where a sigmoid is 0 or 1 in every precision, and products with them stay finite
    u = ((upper - loc) * precision).clamp(max=1e4)
    l = ((lower - loc) * precision).clamp(min=-1e4)
    gap = ((upper - lower) * precision).clamp(max=1e4)
    outside = torch.expm1(-gap)
    inside = torch.sigmoid(u.abs()) * torch.sigmoid(l.abs()) * outside
    logits = logits - logits.amax(axis, keepdim=True)
    joint = logits + inside.neg().log() + u.clamp(max=0) - l.clamp(min=0)
    weight, posterior = logits.softmax(axis), joint.softmax(axis)
    # logsumexp(a) = max(a) - log(max(softmax(a)))
    log_p = joint.amax(axis) - posterior.amax(axis).log() + weight.amax(axis).log()
    if not gradient:
        return (log_p,)
    above, below = torch.sigmoid(-u), torch.sigmoid(l)
    pull = posterior * precision
    return (
        log_p,
        posterior - weight,
        pull * (below - above),
        pull * (below * l - above * u + gap * (outside + 1) / outside),
    )


class _LogisticMixtureLogProb(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        logits: Tensor, loc: Tensor, scale: Tensor, upper: Tensor, lower: Tensor, axis: int
    ) -> tuple[Tensor, ...]:
        return _logistic_mixture(logits, loc, scale, upper, lower, axis, gradient=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.axis = inputs[-1]
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        g = g.unsqueeze(ctx.axis)
        return (*(g * t for t in ctx.saved_tensors), None, None, None)
