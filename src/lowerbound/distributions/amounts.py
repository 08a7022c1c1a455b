"""Positive numbers by mixtures of log-logistics: as densities, or rounded to multiples of a cell, as probabilities.

    P(x <= t) = sum_i w_i sigmoid((log t - loc_i) / scale_i)

Several of them follow what is skewed, has several modes, or heaps at round numbers. A log-logistic has a mean where its
scale is below 1: exp(loc) pi scale / sin(pi scale). Kleiber & Kotz 2003, Statistical Size Distributions, chapter 6.

Axes: ``*batch`` rows, ``c`` columns, ``i`` components of a mixture.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .entries import LARGEST, Quantities, drawn_logistic


class Amounts(Quantities):
    """Positive numbers; on a grid, the multiples cell, 2 cell, ..., the first of them for all that is below it too.

    Args:
        logits: Log-weights of the components, up to a constant.
        loc: Centres of their logarithms.
        scale: Widths of their logarithms, positive, below 1.
        cell: Of what the numbers of each column are multiples; 0 where they are any numbers.

    >>> p = Amounts(torch.zeros(1, 2), torch.tensor([[0.2, 3.0]]), torch.full((1, 2), 0.2), torch.tensor([0.5]))
    >>> p.log_prob(torch.arange(0.5, 500, 0.5)[:, None]).exp().sum().round(decimals=4)
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
        """Log-density, or log-probability on a grid, of each entry, in nats; -inf of what is not positive."""
        outside = value <= 0
        x, cell = value.masked_fill(outside, 1)[..., None], self.cell[..., None]
        on_grid, first = cell > 0, x < 1.5 * cell
        edge = torch.where(first, cell, x - cell / 2)
        upper, lower = ((x + cell / 2).log() - self.loc) / self.scale, (edge.log() - self.loc) / self.scale
        # the difference of two sigmoids without cancellation; a density is its limit, divided by the cell
        gap = torch.where(on_grid, torch.log1p(cell / edge), torch.ones_like(edge)) / self.scale
        size = torch.where(on_grid, torch.log(-torch.expm1(-gap)), -self.scale.log() - x.log())
        below = torch.where(first, 0.0, F.logsigmoid(-lower) + size)
        return (self.log_weight + F.logsigmoid(upper) + below).logsumexp(-1).masked_fill(outside, -math.inf)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_c"]:
        """A draw: a component, then a value of it, rounded where the column has a grid."""
        y = drawn_logistic(self.log_weight, self.loc, self.scale, sample_shape)
        info = torch.finfo(y.dtype)
        x = y.clamp(0.99 * math.log(info.tiny), 0.99 * math.log(info.max)).exp()
        cell = torch.where(self.cell > 0, self.cell, torch.ones_like(self.cell))
        return torch.where(self.cell > 0, (x / cell).round().clamp(min=1) * cell, x)

    @property
    def features(self) -> Float[Tensor, "*batch c f"]:
        """The mean before it is rounded, which is within a cell of that after."""
        angle = math.pi * self.scale
        mean = (self.loc + (angle / angle.sin()).log()).clamp(max=LARGEST).exp()
        return (self.log_weight.exp() * mean).sum(-1, keepdim=True)
