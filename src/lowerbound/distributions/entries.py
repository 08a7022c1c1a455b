"""Values of the columns of a table, one kind after the other: numbers, counts, levels, angles.

All are written so that finite parameters give a finite log-density, in nats of the column's own units, as long as the
square of a distance in them can be written: up to 10^19 scales in single precision.

Axes: ``*batch`` rows, ``c`` columns of one kind, ``f`` features of an entry.
"""

import abc
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F

# Of a draw of an angle: none is accepted once in 10^11 times.
CANDIDATES = 24
# The logarithm of a mean, at most. That of the largest number is 88: beyond it a mean is infinite, and spoils a mixture
# in which it has the weight 0.
LARGEST = 80.0


class Entries(Distribution, abc.ABC):
    """Independent entries of columns of one kind: `log_prob` is that of each, and the batch ends with the columns.

    What to expect of an entry is told by features, whose average over several distributions says something: the mean
    of a number, the probabilities of levels, the mean direction of an angle.
    """

    arg_constraints = {}  # noqa: RUF012

    @property
    @abc.abstractmethod
    def features(self) -> Float[Tensor, "*batch c f"]:
        """What to expect of each entry, as numbers that can be averaged."""

    @abc.abstractmethod
    def typical(self, features: Float[Tensor, "*rows c f"]) -> Float[Tensor, "*rows c"]:
        """The value that such features stand for: a mean, the likeliest level, a direction."""

    @abc.abstractmethod
    def features_of(self, value: Float[Tensor, "*value c"]) -> Float[Tensor, "*value c f"]:
        """The features of values that are known: `features` is their mean over draws."""


class Quantities(Entries, abc.ABC):
    """Entries that are numbers, of which the mean is to be expected."""

    def typical(self, features: Float[Tensor, "*rows c f"]) -> Float[Tensor, "*rows c"]:
        """The mean."""
        return features[..., 0]

    def features_of(self, value: Float[Tensor, "*value c"]) -> Float[Tensor, "*value c f"]:
        """The numbers themselves."""
        return value[..., None]


class Numbers(Quantities):
    """Numbers, or logarithms of numbers, by normal or Student's t distributions.

    Args:
        loc: Centre.
        scale: Width, positive, broadcastable to the centre.
        df: Degrees of freedom of Student's t, above 1, broadcastable to the centre; a normal if not given.
        logarithmic: Whether they are the logarithms of the entries. Then normal ones only: of the exponential of a
            Student's t there is no mean.

    >>> Numbers(torch.zeros(1), torch.ones(1), logarithmic=True).log_prob(torch.tensor([2.0])).round(decimals=4)
    tensor([-1.8523])
    """

    has_rsample = True

    def __init__(
        self,
        loc: Float[Tensor, "*batch c"],
        scale: Float[Tensor, "*some"],
        df: Float[Tensor, "*some"] | None = None,
        logarithmic: bool = False,
    ) -> None:
        self.loc, self.scale, self.df, self.logarithmic = loc, scale, df, logarithmic
        super().__init__(loc.shape, validate_args=False)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*each"]:
        """Log-density of each entry, in nats; -inf of what is not positive, under a logarithm."""
        outside = value <= 0
        y = value.masked_fill(outside, 1).log() if self.logarithmic else value
        square = ((y - self.loc) / self.scale).square()
        if self.df is None:
            log_p = -0.5 * (square + math.log(2 * math.pi)) - self.scale.log()
        else:
            half = 0.5 * (self.df + 1)
            constant = torch.lgamma(half) - torch.lgamma(half - 0.5) - 0.5 * (self.df * math.pi).log()
            log_p = constant - self.scale.log() - half * torch.log1p(square / self.df)
        return (log_p - y).masked_fill(outside, -math.inf) if self.logarithmic else log_p

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_c"]:
        """A draw, with a gradient.

        Of a Student's t by polar coordinates, as Box & Muller draw a normal: its gradient is elementary, also for df.
        Bailey 1994, https://doi.org/10.1090/S0025-5718-1994-1203739-8
        """
        shape = (*sample_shape, *self.loc.shape)
        if self.df is None:
            noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        else:
            u, turn = torch.rand((2, *shape), dtype=self.loc.dtype, device=self.loc.device)
            # at 0 the radius would be infinite, and at 1 its gradient
            radius = (self.df * torch.expm1(-2 / self.df * u.clamp(2**-25, 1 - 2**-24).log())).sqrt()
            noise = radius * (2 * math.pi * turn).cos()
        y = self.loc + self.scale * noise
        if not self.logarithmic:
            return y
        # between the smallest and the largest number, because the gradient of an infinite one is NaN
        info = torch.finfo(y.dtype)
        return y.clamp(0.99 * math.log(info.tiny), 0.99 * math.log(info.max)).exp()

    @property
    def features(self) -> Float[Tensor, "*batch c f"]:
        """The mean."""
        mean = (self.loc + self.scale.square() / 2).clamp(max=LARGEST).exp() if self.logarithmic else self.loc
        return mean[..., None]


class LogisticNumbers(Quantities):
    """Numbers by mixtures of logistics: as densities, or rounded to multiples of a cell, as probabilities.

        p(x) = sum_i w_i [sigmoid((x + cell/2 - loc_i) / scale_i) - sigmoid((x - cell/2 - loc_i) / scale_i)]

    The probabilities of all multiples add up to one. No density limits how high the peak over a number that occurs
    again and again may rise; a probability does.

    Args:
        logits: Log-weights of the components, up to a constant.
        loc: Their centres.
        scale: Their widths, positive.
        cell: Of what the numbers of each column are multiples; 0 where they are any numbers.

    >>> p = LogisticNumbers(torch.zeros(1, 2), torch.tensor([[0.2, 3.0]]), torch.ones(1, 2), torch.tensor([0.5]))
    >>> p.log_prob(torch.arange(-30, 30, 0.5)[:, None]).exp().sum().round(decimals=4)
    tensor(1.)
    """

    def __init__(
        self,
        logits: Float[Tensor, "*batch c i"],
        loc: Float[Tensor, "*batch c i"],
        scale: Float[Tensor, "*some i"],
        cell: Float[Tensor, " c"],
    ) -> None:
        self.log_weight = logits.log_softmax(-1)
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.cell = cell
        super().__init__(loc.shape[:-1], validate_args=False)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*each"]:
        """Log-density, or log-probability on a grid, of each entry, in nats."""
        x, cell = value[..., None], self.cell[..., None]
        upper, lower = (x + cell / 2 - self.loc) / self.scale, (x - cell / 2 - self.loc) / self.scale
        on_grid = cell > 0
        gap = torch.where(on_grid, cell, torch.ones_like(cell)) / self.scale
        # the difference of two sigmoids without cancellation; a density is its limit, divided by the cell
        size = torch.where(on_grid, torch.log(-torch.expm1(-gap)), -self.scale.log())
        return (self.log_weight + F.logsigmoid(upper) + F.logsigmoid(-lower) + size).logsumexp(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_c"]:
        """A draw: a component, then a value of it, rounded where the column has a grid."""
        x = drawn_logistic(self.log_weight, self.loc, self.scale, sample_shape)
        cell = torch.where(self.cell > 0, self.cell, torch.ones_like(self.cell))
        return torch.where(self.cell > 0, (x / cell).round() * cell, x)

    @property
    def features(self) -> Float[Tensor, "*batch c f"]:
        """The mean before it is rounded, which is within half a cell of that after."""
        return (self.log_weight.exp() * self.loc).sum(-1, keepdim=True)


class Counts(Quantities):
    """Counts by a negative binomial, a part of which are 0 for another reason.

        p(x) = zero [x = 0] + (1 - zero) NB(x)
        NB(x) = Gamma(x + size) / (Gamma(size) x!) (size / (size + mean))^size (mean / (size + mean))^x

    The variance of NB is mean + mean^2 / size: a Poisson distribution is its limit for a large size. It is computed in
    double precision, because the gamma functions of large numbers nearly cancel.
    Lambert 1992, https://doi.org/10.2307/1269547

    Args:
        log_mean: Logarithm of the mean of NB.
        log_size: Logarithm of its size.
        zero: Log-odds of the other reason.

    >>> p = Counts(torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([-1.0]))
    >>> p.log_prob(torch.arange(500.0)[:, None]).exp().sum().round(decimals=4)
    tensor(1.)
    """

    def __init__(
        self, log_mean: Float[Tensor, "*batch c"], log_size: Float[Tensor, "*batch c"], zero: Float[Tensor, "*batch c"]
    ) -> None:
        self.log_mean, self.log_size, self.zero = log_mean, log_size, zero
        super().__init__(log_mean.shape, validate_args=False)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*each"]:
        """Log-probability of each entry, in nats."""
        x, log_mean, log_size, zero = (t.double() for t in (value, self.log_mean, self.log_size, self.zero))
        size, odds = log_size.exp(), log_mean - log_size
        log_p = torch.lgamma(x + size) - torch.lgamma(size) - torch.lgamma(x + 1)
        log_p = log_p + size * F.logsigmoid(-odds) + x * F.logsigmoid(odds) + F.logsigmoid(-zero)
        return torch.where(x == 0, torch.logaddexp(log_p, F.logsigmoid(zero)), log_p).to(self.log_mean.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_c"]:
        """A draw: a rate of a gamma distribution, and a count of that rate; or 0."""
        shape = (*sample_shape, *self.log_mean.shape)
        log_mean, log_size, zero = (t.double().expand(shape) for t in (self.log_mean, self.log_size, self.zero))
        rate = torch._standard_gamma(log_size.exp()) * (log_mean - log_size).exp()
        # a larger rate than this no float32 could count
        count = torch.poisson(rate.clamp(max=2.0**62))
        return torch.where(torch.rand_like(zero) < zero.sigmoid(), 0.0, count).to(self.log_mean.dtype)

    @property
    def features(self) -> Float[Tensor, "*batch c f"]:
        """The mean."""
        return ((-self.zero).sigmoid() * self.log_mean.clamp(max=LARGEST).exp())[..., None]


class Levels(Entries):
    """One of several levels, by their probabilities. A value is the place of a level: 0, 1, ...

    Args:
        log_p: Log-probability of each level; they add up to one.
        ordered: Whether they are in order: then the median stands for them, which is nearest on average.

    >>> p = torch.tensor([[0.3, 0.15, 0.15, 0.4]])
    >>> [Levels(p.log(), ordered).typical(p).item() for ordered in (False, True)]
    [3.0, 2.0]
    """

    def __init__(self, log_p: Float[Tensor, "*batch c levels"], ordered: bool = False) -> None:
        self.log_p, self.ordered = log_p, ordered
        super().__init__(log_p.shape[:-1], validate_args=False)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*each"]:
        """Log-probability of each entry, in nats; -inf where there is no such level."""
        levels = self.log_p.shape[-1]
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        place = value.clamp(0, levels - 1).long().expand(shape)[..., None]
        found = self.log_p.expand(*shape, levels).gather(-1, place)[..., 0]
        return found.masked_fill((value < 0) | (value > levels - 1), -math.inf)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_c"]:
        """A draw."""
        return drawn(self.log_p.expand(*sample_shape, *self.log_p.shape)).to(self.log_p.dtype)

    @property
    def features(self) -> Float[Tensor, "*batch c f"]:
        """The probability of each level."""
        return self.log_p.exp()

    def typical(self, features: Float[Tensor, "*rows c f"]) -> Float[Tensor, "*rows c"]:
        """The likeliest level; the median of levels in order."""
        if self.ordered:
            # what rounding takes from a sum of one half would be a level
            return (features.cumsum(-1) < 0.5 - 1e-6).sum(-1).clamp(max=features.shape[-1] - 1).to(features.dtype)
        return features.argmax(-1).to(features.dtype)

    def features_of(self, value: Float[Tensor, "*value c"]) -> Float[Tensor, "*value c f"]:
        """1 for the level that it is, 0 for the others."""
        return (value[..., None] == torch.arange(self.log_p.shape[-1], device=value.device)).to(value.dtype)


class Cyclic(Entries):
    """Numbers that come round again after a period, by von Mises distributions.

        p(x) = exp(along . (cos a, sin a)) / (period I_0(|along|)), a = 2 pi x / period

    The length of `along` is the concentration, its direction the mean one: no place on the circle is its end.
    Mardia & Jupp 2000, Directional Statistics.

    Args:
        along: Concentration times direction.
        period: Of each column.

    >>> p = Cyclic(torch.tensor([[1.0, -2.0]]), torch.tensor([7.0]))
    >>> (p.log_prob(torch.arange(0, 7, 0.01)[:, None]).exp().sum() * 0.01).round(decimals=4)
    tensor(1.)
    """

    def __init__(self, along: Float[Tensor, "*batch c 2"], period: Float[Tensor, " c"]) -> None:
        self.along, self.period = along, period
        self.concentration = torch.linalg.vector_norm(along, dim=-1)
        super().__init__(along.shape[:-1], validate_args=False)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*each"]:
        """Log-density of each entry, in nats."""
        angle = 2 * math.pi / self.period * value
        turned = self.along[..., 0] * angle.cos() + self.along[..., 1] * angle.sin()
        return turned - self.concentration - torch.special.i0e(self.concentration).log() - self.period.log()

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_c"]:
        """A draw, from 0 up to the period.

        By rejection from wrapped Cauchy distributions, of candidates drawn all at once: nothing waits for their values.
        Best & Fisher 1979, https://doi.org/10.2307/2346732
        """
        shape = (CANDIDATES, *sample_shape, *self.concentration.shape)
        k = self.concentration.double().clamp(min=1e-4).expand(shape)
        tau = 1 + (1 + 4 * k.square()).sqrt()
        rho = (tau - (2 * tau).sqrt()) / (2 * k)
        r = (1 + rho.square()) / (2 * rho)
        z = (math.pi * torch.rand_like(k)).cos()
        cosine = (1 + r * z) / (r + z)
        c = k * (r - cosine)
        # 1 minus a number below 1 is above 0
        accepted = (c / (1 - torch.rand_like(k))).log() + 1 - c >= 0
        first = accepted.to(torch.uint8).argmax(0, keepdim=True)
        turn = cosine.gather(0, first)[0].clamp(-1, 1).acos()
        sign = torch.where(torch.rand_like(turn) < 0.5, -1.0, 1.0)
        return self._value(self._angle(self.along) + (sign * turn).to(self.along.dtype))

    @property
    def features(self) -> Float[Tensor, "*batch c f"]:
        """The mean of (cos a, sin a)."""
        size = self.concentration.clamp(min=1e-6)
        length = torch.special.i1e(size) / torch.special.i0e(size)
        return self.along * (length / size)[..., None]

    def typical(self, features: Float[Tensor, "*rows c f"]) -> Float[Tensor, "*rows c"]:
        """The mean direction."""
        return self._value(self._angle(features))

    def features_of(self, value: Float[Tensor, "*value c"]) -> Float[Tensor, "*value c f"]:
        """(cos a, sin a)."""
        angle = 2 * math.pi / self.period * value
        return torch.stack((angle.cos(), angle.sin()), -1)

    @staticmethod
    def _angle(along: Tensor) -> Tensor:
        return torch.atan2(along[..., 1], along[..., 0])

    def _value(self, angle: Tensor) -> Tensor:
        value = torch.remainder(angle / (2 * math.pi), 1) * self.period
        # a turn by less than nothing is rounded to a whole one
        return torch.where(value < self.period, value, torch.zeros_like(value))


def drawn(log_p: Float[Tensor, "*batch p"]) -> Int64[Tensor, "*batch"]:
    """A draw from each row of log-probabilities: the largest, once each has its own Gumbel noise."""
    noise = torch.empty_like(log_p).exponential_().log()
    return (log_p - noise).argmax(-1)


def drawn_logistic(
    log_weight: Float[Tensor, "*batch i"],
    loc: Float[Tensor, "*batch i"],
    scale: Float[Tensor, "*batch i"],
    sample_shape: Sequence[int],
) -> Float[Tensor, "*sample_batch"]:
    """A draw from each mixture of logistics: a component, then a value of it."""
    shape = (*sample_shape, *loc.shape)
    chosen = drawn(log_weight.expand(shape))[..., None]
    loc, scale = (t.expand(shape).gather(-1, chosen)[..., 0] for t in (loc, scale))
    # single precision has no number between 0 and 2^-24, and at 0 and 1 the value would be infinite
    return loc + scale * torch.logit(torch.rand_like(loc).clamp(2**-25, 1 - 2**-24))
