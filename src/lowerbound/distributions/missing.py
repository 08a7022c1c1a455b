"""Rows of a table whose holes say something: what is missing depends on the values.

    log p(x_known, s) = log p(x_known) + log E_{p(x_missing)} [p(s | x_known, x_missing)]

for columns that are independent given z, where s says which entries are missing. The expectation is estimated by one
draw of what is missing. Its exponential is unbiased, so that bounds by importance weights stay bounds, now of
log p(x_known, s): Ipsen, Mattei & Frellsen 2021 (not-MIWAE), https://arxiv.org/abs/2006.12871

Axes: ``*batch`` rows, ``d`` columns, ``k`` samples of z, ``b`` rows of a batch.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .joint import Joint, Rows


class Missing(Rows):
    """Independent columns of mixed kinds, and which of them are missing, by a mechanism that sees the whole row.

    One draw of every entry is made when it is first needed, and kept: a weight belongs to the draw that it was made
    with. Numbers are reparameterised. Of any other entry the draw is held, and its probability over the same held
    constant, which is 1, brings in the gradient: that of the same bound with a proposal that is held.

    Args:
        whole: p(x), of rows without holes.
        log_odds: Whole rows -> the log-odds that each of their entries is missing.

    >>> from lowerbound.distributions import Levels, Part
    >>> level = Levels(torch.tensor([[0.25, 0.75]]).log())
    >>> whole = Joint([Part(torch.tensor([0]), level, torch.zeros(1))])
    >>> p = Missing(whole, lambda x: torch.zeros_like(x))
    >>> p.log_prob(torch.tensor([[1.0], [torch.nan]])).exp()
    tensor([0.3750, 0.5000])
    """

    def __init__(self, whole: Joint, log_odds: Callable[[Tensor], Tensor]) -> None:
        self.whole, self.log_odds = whole, log_odds
        self._kept: tuple[Tensor, Tensor] | None = None
        super().__init__(whole.batch_shape, whole.event_shape, validate_args=False)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density of what is known and of what is missing, in nats: with the draw, unbiased as a density."""
        return self.terms(value).sum(-1)

    def terms(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch d"]:
        """What each column adds to `log_prob`, in nats: its value if it is known, and that it is missing or not."""
        hole = value.isnan()
        draw, one = self._drawn()
        log_odds = self.log_odds(torch.where(hole, draw, value))
        log_s = F.logsigmoid(torch.where(hole, log_odds, -log_odds))
        return self.whole.terms(value) + log_s + torch.where(hole, one, torch.zeros_like(one))

    @property
    def mean(self) -> Float[Tensor, "*batch d"]:
        """What to expect of rows without holes."""
        return self.whole.mean

    def expected(self, weight: Float[Tensor, "k b"]) -> Float[Tensor, "b d"]:
        """What to expect, of the draws that the weights were made with."""
        draw, _ = self._drawn()
        found = []
        for part in self.whole.parts:
            features = part.entries.features_of(draw.index_select(-1, part.columns))
            found.append(part.entries.typical((weight[..., None, None] * features).sum(0)))
        return self.whole.in_order(found)

    def filled(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch d"]:
        """The rows, with the draws in their holes that `log_prob` was made with."""
        return torch.where(value.isnan(), self._drawn()[0], value)

    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch d"]:
        """A draw, without holes."""
        return self.whole.sample(sample_shape)

    def _drawn(self) -> tuple[Tensor, Tensor]:
        """A draw of each entry, and what has the value 0 and the gradient of its log-probability if it was held."""
        if self._kept is None:
            draws, ones = [], []
            for part in self.whole.parts:
                if part.entries.has_rsample:
                    draw = part.entries.rsample()
                    one = torch.zeros_like(draw)
                else:
                    draw = part.entries.sample()
                    log_p = part.entries.log_prob(draw)
                    one = log_p - log_p.detach()
                draws.append(draw)
                ones.append(one)
            self._kept = self.whole.in_order(draws), self.whole.in_order(ones)
        return self._kept
