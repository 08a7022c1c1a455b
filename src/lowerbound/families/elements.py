"""Families of independent elements: each element of an event has parameters of its own, and nothing else decides it.

Axes: ``*batch``, then ``*event``. The first event axis carries the parameters.
"""

import abc
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch import distributions as td
from torch.distributions import Distribution, Independent, constraints

from .. import distributions
from ..distributions import DiagonalNormal, DiscretizedLogistic, LogisticMixture
from .family import Family, positive, precise, unconstrained


class LocationScale(nn.Module):
    """From a network's output to a location and a scale in the data's units.

    The scale is predicted for each element, learned once, or fixed. One learned scale is the sigma-VAE of
    Rybkin et al. 2021, https://arxiv.org/abs/2006.13202

    Args:
        scale: "element" (the network predicts it), "shared" (one learned number), or a number in the data's units.
        shift: Centre of the data; 0 if not given.
        unit: Spread of the data; 1 if not given.

    Attributes:
        params: How many parameters it needs from the network for each element.

    Raises:
        ValueError: `scale` is none of these.
    """

    def __init__(self, scale: str | float, shift: Tensor | None, unit: Tensor | None) -> None:
        super().__init__()
        if scale not in ("element", "shared") and (isinstance(scale, str) or not scale > 0):
            raise ValueError(
                f"scale={scale!r} is no scale: give 'element', 'shared' or a positive number in the data's units."
            )
        self.register_buffer("shift", torch.zeros(()) if shift is None else shift)
        self.register_buffer("unit", torch.ones(()) if unit is None else unit)
        self.shift: Tensor
        self.unit: Tensor
        self.params = 2 if scale == "element" else 1
        self.fixed = None if isinstance(scale, str) else float(scale)
        self.shared = nn.Parameter(torch.zeros(())) if scale == "shared" else None

    def forward(self, loc: Tensor, *raw: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale; `raw` is what the network says of the scale, if it is asked."""
        loc = self.shift + self.unit * loc
        if self.fixed is not None:
            return loc, torch.full_like(self.unit, self.fixed)
        return loc, self.unit * positive(raw[0] if self.shared is None else self.shared)


class Located(Family, abc.ABC):
    """A family with a location and a scale for each element, in the data's units.

    Args:
        event: Shape of one value.
        scale: "element", "shared" or a number; see `LocationScale`.
        shift: Centre of the data, broadcastable to the event.
        unit: Spread of the data, broadcastable to the event.

    Attributes:
        more: How many parameters each element has before its location and scale.
    """

    more: ClassVar[int] = 0

    def __init__(
        self,
        event: Sequence[int],
        scale: str | float = "element",
        shift: Tensor | None = None,
        unit: Tensor | None = None,
    ) -> None:
        affine = LocationScale(scale, shift, unit)
        super().__init__(event, params=self.more + affine.params)
        self.affine = affine

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers."""
        return constraints.real

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Zeros: shift and unit hold the data's mean and spread already."""
        return x.new_zeros(self.shape)


class Normal(Located):
    """Normal with independent elements.

    >>> Normal((2,))(torch.zeros(4)).log_prob(torch.zeros(2)).round(decimals=4)
    tensor(-1.8379)
    """

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """N(shift + unit * loc, (unit * scale)^2)."""
        loc, scale = self.affine(*self.split(params))
        return DiagonalNormal(loc, scale, len(self.event))


class Laplace(Located):
    """Laplace with independent elements: absolute rather than squared errors."""

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """Laplace(shift + unit * loc, unit * scale)."""
        loc, scale = self.affine(*self.split(params))
        return distributions.DiagonalLaplace(loc, scale, len(self.event))


class StudentT(Located):
    """Student's t with independent elements: outliers cost a logarithm. Its degrees of freedom are learned."""

    more = 1

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """Student's t with 2 + df degrees of freedom, at shift + unit * loc, of width unit * scale."""
        df, *raw = self.split(params)
        loc, scale = self.affine(*raw)
        # 2 + 8 = 10 degrees of freedom at the start: nearly normal, yet with tails that an outlier can pull
        base = td.StudentT(2 + 8 * positive(df), loc, scale, validate_args=False)
        return Independent(base, len(self.event), validate_args=False)


class Bernoulli(Family):
    """Bernoulli with independent elements, for x in {0, 1}."""

    def __init__(self, event: Sequence[int]) -> None:
        super().__init__(event, params=1)

    @property
    def support(self) -> constraints.Constraint:
        """0 and 1."""
        return constraints.boolean

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """p(x = 1) = sigmoid(params)."""
        (logits,) = self.split(params)
        return distributions.Bernoulli(logits, len(self.event))

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """The logit of each element's mean, as if one more 0 and one more 1 had been seen."""
        return torch.logit((x.sum(0) + 1) / (len(x) + 2))


class ContinuousBernoulli(Family):
    """Continuous Bernoulli with independent elements, for x in [0, 1].

    The Bernoulli formula with the constant that makes it a density there.
    Loaiza-Ganem & Cunningham 2019, https://arxiv.org/abs/1907.06845
    """

    def __init__(self, event: Sequence[int]) -> None:
        super().__init__(event, params=1)

    @property
    def support(self) -> constraints.Constraint:
        """The closed unit interval."""
        return constraints.unit_interval

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """The density proportional to exp(params * x)."""
        (logits,) = self.split(params)
        return Independent(distributions.ContinuousBernoulli(logits), len(self.event), validate_args=False)

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Near the maximum: the mean is a steeper function of the parameter than a logistic one."""
        return 3 * torch.logit(x.mean(0).clamp(0.02, 0.98))


class Categorical(Family):
    """Categorical with independent elements, for x in {0, ..., levels-1} without order.

    Args:
        event: Shape of one value.
        levels: How many values x can take.
    """

    def __init__(self, event: Sequence[int], levels: int) -> None:
        super().__init__(event, params=levels)
        self.levels = levels

    @property
    def support(self) -> constraints.Constraint:
        """The integers 0..levels-1."""
        return constraints.integer_interval(0, self.levels - 1)

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """p(x = i) = softmax(params)_i."""
        logits = torch.stack(self.split(params), -1)
        return Independent(td.Categorical(logits=logits, validate_args=False), len(self.event), validate_args=False)

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Log-frequencies, as if each level had been seen once more."""
        counts = torch.stack([(x == level).sum(0) + 1.0 for level in range(self.levels)])
        return (counts / (len(x) + self.levels)).log().flatten(0, 1).to(x.dtype)


class DiscretizedLogisticMixture(Family):
    """Mixture of logistics rounded to the integers 0..levels-1, one mixture for each element.

    With one component it is the discretised logistic of Kingma et al. 2016, https://arxiv.org/abs/1606.04934;
    with more, the mixture of Salimans et al. 2017, https://arxiv.org/abs/1701.05517, without its link between colours.

    Args:
        event: Shape of one value.
        levels: How many values x can take.
        components: How many logistics.
    """

    def __init__(self, event: Sequence[int], levels: int = 256, components: int = 5) -> None:
        super().__init__(event, params=2 if components == 1 else 3 * components)
        self.levels = levels
        self.components = components
        self.middle = (levels - 1) / 2

    @property
    def support(self) -> constraints.Constraint:
        """The integers 0..levels-1."""
        return constraints.integer_interval(0, self.levels - 1)

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """Centres and widths are predicted for values mapped to [-1, 1]."""
        ndim = len(self.event)
        if self.components == 1:
            return Independent(self.logistic(*self.split(params)), ndim, validate_args=False)
        parts = precise(params).unflatten(-ndim, (3, self.components, self.event[0]))
        weight, loc, scale = parts.unbind(-2 - ndim)
        return LogisticMixture(weight, self.logistic(loc, scale), ndim)

    def logistic(self, loc: Tensor, scale: Tensor) -> DiscretizedLogistic:
        """The discretised logistic with this centre and raw width, both for values mapped to [-1, 1]."""
        return DiscretizedLogistic(self.middle * (1 + loc), self.middle * positive(scale), self.levels)

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Centres at each element's quantiles, widths from its spread, equal weights."""
        u = x / self.middle - 1
        rank = (torch.arange(self.components, dtype=x.dtype, device=x.device) + 0.5) / self.components
        loc = torch.quantile(u[:2000], rank, dim=0)
        width = (u.std(0, correction=0) * math.sqrt(3) / math.pi).clamp(min=1 / self.levels) / self.components
        scale = unconstrained(width).expand_as(loc)
        parts = (loc, scale) if self.components == 1 else (torch.zeros_like(loc), loc, scale)
        return torch.cat(parts).flatten(0, 1)
