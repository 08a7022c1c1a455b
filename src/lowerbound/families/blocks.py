"""Columns of one kind: from the numbers that a network says of each to their distributions.

Every block has a starting value for its numbers, made of what is known of each column by itself, so that a decoder that
knows no z yet is already the best model of independent columns.

Axes: ``*batch`` rows, ``n`` rows of data, ``c`` columns of one kind, ``w`` numbers for each column.
"""

import abc
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..distributions import Amounts, Counts, Cyclic, Entries, Levels, LogisticNumbers, Numbers, Spiked
from .family import positive, unconstrained

# Rows that quantiles are taken of.
QUANTILE_ROWS = 10_000
# The logarithm of a negative binomial's size is between plus and minus this; at the top it is a Poisson distribution.
SIZE_RANGE = 14.0
# Each part of the concentration of an angle is between plus and minus this.
CONCENTRATION_RANGE = 500.0
# The widths of the logarithms of positive numbers stay below this: their means are finite where it is below 1.
WIDTH_RANGE = 0.9


class Block(nn.Module, abc.ABC):
    """A map from w numbers for each column to the distributions of the columns.

    Args:
        columns: How many.
        width: w.
    """

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        self.columns = columns
        self.width = width

    @abc.abstractmethod
    def forward(self, params: Float[Tensor, "*batch c w"]) -> Entries:
        """The distributions with these parameters."""

    @abc.abstractmethod
    def marginal(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "c w"]:
        """Parameters that fit what is known of each column by itself."""

    @abc.abstractmethod
    def harmless(self, like: Tensor) -> Float[Tensor, " c"]:
        """A value that each column can take."""


class NumberBlock(Block):
    """Numbers by one normal, Student's t or log-normal distribution each, about shift + unit * params.

    Args:
        shift: Centre of each column; of its logarithm, if it is log-normal.
        unit: Spread of the same.
        density: "normal", "student_t" or "log_normal".
        scale: "element" (the network predicts it) or "column" (one is learned for each).
    """

    def __init__(self, shift: Float[Tensor, " c"], unit: Float[Tensor, " c"], density: str, scale: str) -> None:
        more = 2 if density == "student_t" else 1
        super().__init__(len(shift), 1 if scale == "column" else 1 + more)
        self.density = density
        self.register_buffer("shift", shift)
        self.register_buffer("unit", unit)
        self.shift: Tensor
        self.unit: Tensor
        self.raw = nn.Parameter(torch.zeros(len(shift), more)) if scale == "column" else None

    def forward(self, params: Float[Tensor, "*batch c w"]) -> Entries:
        """Of location shift + unit * params, and width unit * scale."""
        raw = params[..., 1:] if self.raw is None else self.raw
        loc, scale = self.shift + self.unit * params[..., 0], self.unit * positive(raw[..., 0])
        # 10 degrees of freedom at the start, 2 at the least: the mean is the centre, and the variance finite
        df = 2 + 8 * positive(raw[..., 1]) if self.density == "student_t" else None
        return Numbers(loc, scale, df, logarithmic=self.density == "log_normal")

    def marginal(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "c w"]:
        """Zeros: shift and unit hold centre and spread already."""
        return x.new_zeros(self.columns, self.width)

    def harmless(self, like: Tensor) -> Float[Tensor, " c"]:
        """The centre."""
        return self.shift.exp() if self.density == "log_normal" else self.shift


class MixtureBlock(Block):
    """Numbers by mixtures of logistics, or positive ones of log-logistics, rounded where a column has a grid.

    Args:
        shift: Centre of each column; of its logarithm, if that is what is mixed.
        unit: Spread of the same.
        cell: Of what its numbers are multiples; 0 where they are any numbers.
        components: How many logistics.
        scale: "element" (the network predicts those of the components) or "column" (they are learned for each).
        logarithmic: Whether they are positive, and the mixtures are of their logarithms.
    """

    def __init__(
        self,
        shift: Float[Tensor, " c"],
        unit: Float[Tensor, " c"],
        cell: Float[Tensor, " c"],
        components: int,
        scale: str,
        logarithmic: bool = False,
    ) -> None:
        super().__init__(len(shift), components * (2 if scale == "column" else 3))
        self.components = components
        self.logarithmic = logarithmic
        for name, t in {"shift": shift, "unit": unit, "cell": cell}.items():
            self.register_buffer(name, t, persistent=name != "cell")
        self.shift: Tensor
        self.unit: Tensor
        self.cell: Tensor
        self.raw = nn.Parameter(self._start()) if scale == "column" else None

    def _start(self) -> Float[Tensor, "c i"]:
        """What makes widths of the components that give the mixture the spread of a normal, nearly."""
        # logistics of this width at the quantiles of a normal do, however many they are
        width = torch.full_like(self.unit, math.sqrt(3 / self.components) / math.pi)
        if self.logarithmic:
            bounded = (self.unit * width).clamp(max=WIDTH_RANGE / 2)
            width = bounded / (1 - bounded / WIDTH_RANGE) / self.unit
        return unconstrained(width)[:, None].repeat(1, self.components)

    def forward(self, params: Float[Tensor, "*batch c w"]) -> Entries:
        """Weights, centres and, if predicted, widths of the components, in standard units."""
        logits, loc, *raw = params.split(self.components, -1)
        shift, unit = self.shift[..., None], self.unit[..., None]
        loc, scale = shift + unit * loc, unit * positive(raw[0] if self.raw is None else self.raw)
        if self.logarithmic:
            return Amounts(logits, loc, scale / (1 + scale / WIDTH_RANGE), self.cell)
        return LogisticNumbers(logits, loc, scale, self.cell)

    def marginal(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "c w"]:
        """Centres at the quantiles, equal weights."""
        x = x[:QUANTILE_ROWS]
        y = ((x.log() if self.logarithmic else x) - self.shift.to(x)) / self.unit.to(x)
        rank = (torch.arange(self.components, dtype=x.dtype, device=x.device) + 0.5) / self.components
        loc = torch.nanquantile(y, rank, dim=0).T.nan_to_num()
        parts = (torch.zeros_like(loc), loc, self._start().to(loc))
        return torch.cat(parts[: self.width // self.components], -1)

    def harmless(self, like: Tensor) -> Float[Tensor, " c"]:
        """The centre."""
        return self.shift.exp() if self.logarithmic else self.shift


class CountBlock(Block):
    """Counts by zero-inflated negative binomials."""

    def __init__(self, columns: int) -> None:
        super().__init__(columns, 3)

    def forward(self, params: Float[Tensor, "*batch c w"]) -> Entries:
        """Log-mean, log-size and log-odds of a zero that is none of the count."""
        log_mean, size, zero = params.unbind(-1)
        return Counts(log_mean, size / (1 + size.abs() / SIZE_RANGE), zero)

    def marginal(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "c w"]:
        """By the first two moments and the part of zeros."""
        known = ~x.isnan()
        y, n = torch.where(known, x, torch.zeros_like(x)).double(), known.sum(0).clamp(min=1)
        first, second = y.sum(0) / n, y.square().sum(0) / n
        zeros = ((y == 0) & known).sum(0) / n
        part = torch.zeros_like(first)  # of zeros that are none of the count
        for _ in range(30):
            mean = (first / (1 - part)).clamp(min=1e-3)
            spare = second / (1 - part) - mean.square() - mean
            size = (mean.square() / spare.clamp(min=1e-9 * mean.square())).clamp(1e-3, 1e5)
            own = torch.exp(-size * torch.log1p(mean / size))
            part = ((zeros - own) / (1 - own)).clamp(0.01, 0.98)
        log_size = size.log()
        raw = log_size / (1 - log_size.abs() / SIZE_RANGE)
        return torch.stack((mean.log(), raw, torch.logit(part)), -1).to(x.dtype)

    def harmless(self, like: Tensor) -> Float[Tensor, " c"]:
        """0."""
        return like.new_zeros(self.columns)


class LevelBlock(Block, abc.ABC):
    """Columns of as many levels each.

    Args:
        columns: How many.
        levels: Of each.
        width: w.
    """

    def __init__(self, columns: int, levels: int, width: int) -> None:
        super().__init__(columns, width)
        self.levels = levels

    def frequencies(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "c levels"]:
        """The part of each level, as if each had been seen once more."""
        counts = torch.stack([(x == level).sum(0) + 1.0 for level in range(self.levels)], -1)
        return (counts / counts.sum(-1, keepdim=True)).to(x.dtype)

    def harmless(self, like: Tensor) -> Float[Tensor, " c"]:
        """The first level."""
        return like.new_zeros(self.columns)


class CategoryBlock(LevelBlock):
    """Levels without order, p = softmax(params); of two, the log-odds of the second.

    Args:
        columns: How many.
        levels: Of each.
    """

    def __init__(self, columns: int, levels: int) -> None:
        super().__init__(columns, levels, 1 if levels == 2 else levels)

    def forward(self, params: Float[Tensor, "*batch c w"]) -> Entries:
        """Levels with these log-odds."""
        if self.levels == 2:
            return Levels(nn.functional.logsigmoid(torch.cat((-params, params), -1)))
        return Levels(params.log_softmax(-1))

    def marginal(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "c w"]:
        """The logarithms of the frequencies."""
        log_p = self.frequencies(x).log()
        return log_p[:, 1:] - log_p[:, :1] if self.levels == 2 else log_p


class OrdinalBlock(LevelBlock):
    """Levels in order, by cumulative logits: p(x <= i) = sigmoid(cut_i), with cuts that rise.

    The first number moves all cuts, each other the distance from one cut to the next.
    McCullagh 1980, https://doi.org/10.1111/j.2517-6161.1980.tb01109.x

    Args:
        columns: How many.
        levels: Of each.
    """

    def __init__(self, columns: int, levels: int) -> None:
        super().__init__(columns, levels, levels - 1)

    def forward(self, params: Float[Tensor, "*batch c w"]) -> Entries:
        """Levels between these cuts."""
        gaps = positive(params[..., 1:])
        cuts = torch.cat((params[..., :1], params[..., :1] + gaps.cumsum(-1)), -1)
        below, above = nn.functional.logsigmoid(cuts), nn.functional.logsigmoid(-cuts)
        between = below[..., 1:] + above[..., :-1] + torch.log(-torch.expm1(-gaps))
        return Levels(torch.cat((below[..., :1], between, above[..., -1:]), -1), ordered=True)

    def marginal(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "c w"]:
        """The cuts of the frequencies."""
        cuts = torch.logit(self.frequencies(x).double().cumsum(-1)[:, :-1])
        return torch.cat((cuts[:, :1], unconstrained(cuts.diff(dim=-1))), -1).to(x.dtype)


class CyclicBlock(Block):
    """Numbers that come round again, by von Mises distributions.

    Args:
        period: Of each column.
    """

    def __init__(self, period: Float[Tensor, " c"]) -> None:
        super().__init__(len(period), 2)
        self.register_buffer("period", period, persistent=False)
        self.period: Tensor

    def forward(self, params: Float[Tensor, "*batch c w"]) -> Entries:
        """Concentration times direction."""
        return Cyclic(params / (1 + params.abs() / CONCENTRATION_RANGE), self.period)

    def marginal(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "c w"]:
        """The mean direction, and the concentration by Banerjee et al. 2005, https://jmlr.org/papers/v6/banerjee05a."""
        angle = 2 * math.pi / self.period.to(x) * x
        mean = torch.stack((angle.cos(), angle.sin()), -1).nanmean(0).nan_to_num()
        length = mean.norm(dim=-1, keepdim=True).clamp(max=0.99)
        along = mean * (2 - length.square()) / (1 - length.square())
        return along / (1 - along.abs() / CONCENTRATION_RANGE)

    def harmless(self, like: Tensor) -> Float[Tensor, " c"]:
        """0."""
        return like.new_zeros(self.columns)


class SpikedBlock(Block):
    """Numbers some of which recur: log-odds of each spike against all others, and the block of those.

    Args:
        rest: Of the other numbers.
        spikes: Of each column.
        discrete: Of each column, whether the others have probabilities, not densities.
    """

    def __init__(self, rest: Block, spikes: Float[Tensor, "c s"], discrete: Bool[Tensor, " c"]) -> None:
        super().__init__(rest.columns, spikes.shape[1] + rest.width)
        self.rest = rest
        self.register_buffer("spikes", spikes, persistent=False)
        self.register_buffer("discrete", discrete, persistent=False)
        self.spikes: Tensor
        self.discrete: Tensor

    def forward(self, params: Float[Tensor, "*batch c w"]) -> Entries:
        """The log-odds, and the distribution of the other numbers."""
        odds, own = params.split((self.spikes.shape[1], self.rest.width), -1)
        logits = torch.cat((odds, torch.zeros_like(odds[..., :1])), -1)
        return Spiked(logits, self.spikes, self.rest(own), self.discrete, self.rest.harmless(params))

    def marginal(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "c w"]:
        """The logarithms of the frequencies, as if each had been seen once more, and what fits the other numbers."""
        here = x.float()[..., None] == self.spikes.to(x.device).float()
        others = x.masked_fill(here.any(-1), math.nan)
        counts = torch.cat((here.sum(0), (~others.isnan()).sum(0)[:, None]), -1) + 1
        log_p = counts.to(x.dtype).log()
        return torch.cat((log_p[:, :-1] - log_p[:, -1:], self.rest.marginal(others)), -1)

    def harmless(self, like: Tensor) -> Float[Tensor, " c"]:
        """What is harmless to the others."""
        return self.rest.harmless(like)
