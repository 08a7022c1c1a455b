"""Distributions that PyTorch lacks, and the Kullback-Leibler divergences between them.

Everything here is a `torch.distributions.Distribution`: `log_prob` sums over the event and returns the batch shape,
in nats. Latent variables need `rsample`, whose gradient flows to the parameters (Kingma & Welling 2014,
https://arxiv.org/abs/1312.6114); data need exact normalisation only.

A divergence is registered where it has a closed form. Where none is, `models.Site.kl` takes the one-sample estimate
log q(z) - log p(z), which is unbiased. `stop_gradient` gives the same distribution with its parameters held constant,
for the objectives that differentiate through the sample alone.

Axes: ``*batch`` independent distributions, ``*event`` one value.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Size, Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    MixtureSameFamily,
    MultivariateNormal,
    constraints,
    register_kl,
)
from torch.nn import functional as F


class DiagonalNormal(Distribution):
    """Normal with independent elements, N(loc, diag(scale^2)).

    torch's `Independent(Normal)` fills an unbatched tensor in place when it samples, which `torch.vmap` refuses;
    this one draws `loc + scale * noise`.

    Args:
        loc: Mean.
        scale: Standard deviation, positive, of the shape of `loc` or broadcastable to it.
        event_ndim: How many trailing axes make one event.

    >>> DiagonalNormal(torch.zeros(3), torch.ones(3), 1).log_prob(torch.zeros(3)).round(decimals=4)
    tensor(-2.7568)
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
        """E[z]."""
        return self.loc

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """Var[z], element by element."""
        return self.scale.square()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_event"]:
        """A draw that is differentiable in loc and scale."""
        noise = torch.randn((*sample_shape, *self.loc.shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.scale * noise

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats, summed over the event."""
        terms = ((value - self.loc) / self.scale).square() + 2 * self.scale.log() + math.log(2 * math.pi)
        return -0.5 * self.total(terms)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Differential entropy in nats."""
        return self.total(self.scale.log() + 0.5 * math.log(2 * math.pi * math.e))

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "DiagonalNormal":
        """The same distribution over a larger batch."""
        shape = (*batch_shape, *self.event_shape)
        return DiagonalNormal(self.loc.expand(shape), self.scale.expand(shape), len(self.event_shape))


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


class NormalMixture(Distribution):
    """Mixture of diagonal normals, sum_i w_i N(loc_i, diag(scale_i^2)).

    The squared distances of all values to all centres are three matrix products, in double precision because they
    cancel: many times faster than torch's `MixtureSameFamily`, which makes a tensor of values times components times
    elements.

    Args:
        logits: Log-weights, up to a constant.
        normals: The components, a batch of as many.
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, logits: Float[Tensor, " components"], normals: DiagonalNormal) -> None:
        self.logits = logits
        self.normals = normals
        super().__init__(Size(), normals.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors."""
        return self.normals.support

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        """E[z]."""
        return torch.einsum("i,i...->...", self.logits.softmax(0), self.normals.mean)

    @property
    def variance(self) -> Float[Tensor, "*event"]:
        """Var[z], element by element."""
        second = self.normals.variance + self.normals.mean.square()
        return torch.einsum("i,i...->...", self.logits.softmax(0), second) - self.mean.square()

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats."""
        ndim = len(self.event_shape)
        loc, scale = (t.flatten(1).double() for t in (self.normals.loc, self.normals.scale))
        z = value.flatten(value.ndim - ndim).double()
        precision = scale.square().reciprocal()
        distance = z.square() @ precision.T - 2 * z @ (loc * precision).T + (loc.square() * precision).sum(1)
        constant = scale.log().sum(1) + 0.5 * math.log(2 * math.pi) * loc.shape[1]
        each = self.logits.double().log_softmax(0) - constant - 0.5 * distance
        return each.logsumexp(-1).to(value.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_event"]:
        """A draw: a component, then a value of it."""
        count = math.prod(sample_shape)
        chosen = torch.multinomial(self.logits.softmax(0), max(1, count), replacement=True)[:count]
        picked = DiagonalNormal(self.normals.loc[chosen], self.normals.scale[chosen], len(self.event_shape))
        return picked.rsample().reshape(*sample_shape, *self.event_shape)


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
        """That of the base."""
        return self.base.support

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_event"]:
        """A draw, whose log-density is kept."""
        self.latest = self.base.rsample_and_log_prob(Size(sample_shape))
        return self.latest[0]

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats: at once for the latest sample, by inversion for any other value."""
        if self.latest is not None and value is self.latest[0]:
            return self.latest[1]
        return self.base.log_prob(value)


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
        f"{type(q).__name__} cannot be held constant, which the objectives 'stl' and 'dreg' need. "
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
