"""The Bernoulli distribution of bits, and its continuous kin on the unit interval."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

# Sigmoids that are multiplied before a logarithm is taken: far from underflow, and few enough to leave long rows.
FACTORS = 24


class Bernoulli(Distribution):
    """Bernoulli with independent elements, for x in {0, 1}.

    The gradient of its log-density is x minus the mean: it is computed as that, in one pass, rather than through each
    step of the formula.

    Args:
        logits: log p(x = 1) - log p(x = 0).
        event_ndim: How many trailing axes make one event.

    >>> Bernoulli(torch.zeros(3), 1).log_prob(torch.ones(3)).exp()
    tensor(0.1250)
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, event_ndim: int) -> None:
        self.logits = logits
        batch_ndim = logits.ndim - event_ndim
        super().__init__(logits.shape[:batch_ndim], logits.shape[batch_ndim:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """0 and 1."""
        return constraints.independent(constraints.boolean, len(self.event_shape))

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """p(x = 1)."""
        return self.logits.sigmoid()

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """Var[x], element by element."""
        return self.logits.sigmoid() * (-self.logits).sigmoid()

    def log_prob(self, value: Tensor) -> Float[Tensor, "*batch"]:
        """Log-probability in nats, summed over the event."""
        axis = self.logits.ndim - len(self.event_shape)
        logits, value = torch.broadcast_tensors(self.logits, value)
        total: Tensor = _BernoulliLogProb.apply(logits, value, logits.ndim - self.logits.ndim + axis)
        return total

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_event"]:
        """A draw."""
        return torch.bernoulli(self.mean.expand(*sample_shape, *self.logits.shape))

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "Bernoulli":
        """The same distribution over a larger batch."""
        return Bernoulli(self.logits.expand(*batch_shape, *self.event_shape), len(self.event_shape))


class _BernoulliLogProb(torch.autograd.Function):
    """sum x y - max(y, 0) + log sigmoid(|y|), over the axes from a given one on.

    A sigmoid of what is not negative lies between 1/2 and 1, so that many can be multiplied before one logarithm is
    taken of the product.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, x: Tensor, axis: int) -> Tensor:
        count = math.prod(y.shape[axis:])
        factors = next(size for size in range(FACTORS, 0, -1) if count % size == 0)
        linear = torch.addcmul(y.relu(), x, y, value=-1).reshape(*y.shape[:axis], count).sum(-1)
        sigmoids = y.abs().sigmoid().reshape(*y.shape[:axis], factors, count // factors)
        return sigmoids.prod(-2).log().sum(-1) - linear

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        y, x = ctx.saved_tensors
        g = g.reshape(*g.shape, *[1] * (y.ndim - g.ndim))
        of_y, of_x, _ = ctx.needs_input_grad
        return (x - y.sigmoid()) * g if of_y else None, y * g if of_x else None, None


class ContinuousBernoulli(Distribution):
    """The density proportional to exp(logits * x) on the unit interval.

    torch's clips the probability sigmoid(logits), so that beyond |logits| = 16 (in float32) it no longer integrates to
    one; this one is written in the logits. Loaiza-Ganem & Cunningham 2019, https://arxiv.org/abs/1907.06845

    Args:
        logits: Its parameter, any number; 0 is the uniform distribution.

    >>> ContinuousBernoulli(torch.tensor(0.0)).log_prob(torch.tensor(0.3)).exp()
    tensor(1.)
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        # around 0 the formulas divide nothing by nothing: there, a series, and a harmless number for the formulas
        self.small = logits.abs() < 0.3
        self.steep = torch.where(self.small, torch.ones_like(logits), logits)
        super().__init__(logits.shape, Size(), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The closed unit interval."""
        return constraints.unit_interval

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats."""
        size = self.steep.abs()
        # the distance from the end where the density is highest: no cancellation, however steep
        exact = size.log() - torch.log(-torch.expm1(-size)) - size * torch.where(self.steep > 0, 1 - value, value)
        flat = torch.where(self.small, self.logits, torch.zeros_like(self.logits))
        square = flat.square()
        series = flat * (value - 0.5) - square * (1 / 24 - square * (1 / 2880 - square / 181440))
        return torch.where(self.small, series, exact)

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """E[x]."""
        square = self.logits.square()
        series = 0.5 + self.logits * (1 / 12 - square * (1 / 720 - square / 30240))
        return torch.where(self.small, series, -1 / torch.expm1(-self.steep) - 1 / self.steep)

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """Var[x]."""
        size, square = self.steep.abs(), self.logits.square()
        exact = size.square().reciprocal() - torch.exp(-size) / torch.expm1(-size).square()
        return torch.where(self.small, 1 / 12 - square * (1 / 240 - square / 6048), exact)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch"]:
        """A draw, by inversion."""
        u = torch.rand((*sample_shape, *self.batch_shape), dtype=self.logits.dtype, device=self.logits.device)
        size = self.logits.abs().clamp(min=1e-6)
        x = (-torch.log1p(u * torch.expm1(-size)) / size).clamp(0, 1)
        return torch.where(self.logits > 0, 1 - x, x)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "ContinuousBernoulli":
        """The same distribution over a larger batch."""
        return ContinuousBernoulli(self.logits.expand(batch_shape))
