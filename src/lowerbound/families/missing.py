"""The family of the rows of a table whose holes say something, and what makes holes.

Which entries are missing is a part of what is modelled: p(x, s) = p(x) p(s|x), where s says which are. What p(s|x)
depends on cannot be read off the data, which never show what is missing: it is an assumption, and a model of x that is
wrong can pass for a mechanism (Ipsen, Mattei & Frellsen 2021, https://arxiv.org/abs/2006.12871, section 3).

Axes: ``*batch`` rows, ``n`` rows of data, ``d`` columns, ``f`` features of a row.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.nn import functional as F

from .. import distributions
from .columns import Columns
from .family import Family


class Missingness(nn.Module):
    """x -> the log-odds that each entry is missing: linear in features of the row, which must be whole.

    Args:
        read: Whole rows -> their features; more of them than have an owner are left out, from the end.
        owner: The column that each feature is of.
        rate: Part of each column that is missing: what it starts with, whatever the values.
        own: Whether an entry is missing by its own value alone ("self-masking"), or by those of all.
    """

    def __init__(self, read: nn.Module, owner: Int[Tensor, " f"], rate: Float[Tensor, " d"], own: bool) -> None:
        super().__init__()
        self.read = read
        self.intercept = nn.Parameter(rate.logit())
        self.slope = nn.Parameter(torch.zeros(len(rate), len(owner)))
        seen = owner == torch.arange(len(rate))[:, None] if own else torch.ones_like(self.slope)
        self.register_buffer("seen", seen.to(self.slope.dtype), persistent=False)
        self.seen: Tensor

    def forward(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead d"]:
        """Log-odds."""
        features = self.read(x)[..., : self.seen.shape[1]]
        return F.linear(features, self.slope * self.seen, self.intercept)


class Missing(Family):
    """Columns of mixed kinds, missing by their values: parameter tensor -> `distributions.Missing`.

    Args:
        whole: The family of rows without holes.
        log_odds: Whole rows -> the log-odds that each entry is missing.
    """

    def __init__(self, whole: Columns, log_odds: nn.Module) -> None:
        super().__init__(whole.event, 1)
        self.whole = whole
        self.log_odds = log_odds
        self.shape = whole.shape

    @property
    def support(self) -> constraints.Constraint:
        """What each kind of column can hold."""
        return self.whole.support

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """Rows of independent columns, and which of them are missing."""
        return distributions.Missing(self.whole(params), self.log_odds)

    def marginal(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "*params"]:
        """Parameters that fit what is known of each column by itself."""
        return self.whole.marginal(x)
