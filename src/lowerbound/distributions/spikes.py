"""Numbers some of which recur: probabilities for those, a distribution for all others.

    p(x) = sum_j pi_j [x = s_j] + pi_rest p_rest(x)

Amounts are 0 more often than not, answers are rounded to 40, what a register cannot hold is 99999: to such a spike a
density gives no probability, or all that it has. Here each has its own. Where p_rest is a density, p is one with
respect to lengths and to the count of the spikes together: at a spike it is pi_j, a probability, and elsewhere pi_rest
times the density, which adds nothing at single points. Where p_rest is a probability, the two add up.

Two numbers are the same if they are in single precision.

Axes: ``*batch`` rows, ``c`` columns with as many spikes each, ``s`` spikes of a column.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor

from .entries import Entries, Quantities, drawn


class Spiked(Quantities):
    """Numbers with spikes.

    Args:
        logits: Log-probability of each spike and, last, of all other numbers, up to a constant.
        spikes: Where the spikes are.
        rest: All other numbers; their feature is the mean.
        discrete: Of each column, whether `rest` gives it probabilities, not densities.
        harmless: A value that `rest` can take in each column.

    >>> from lowerbound.distributions import Numbers
    >>> rest = Numbers(torch.zeros(1), torch.ones(1), logarithmic=True)
    >>> p = Spiked(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[0.0]]), rest, torch.tensor([False]), torch.ones(1))
    >>> p.log_prob(torch.tensor([[0.0], [2.0]])).exp().round(decimals=4)
    tensor([[0.7500],
            [0.0392]])
    """

    def __init__(
        self,
        logits: Float[Tensor, "*batch c s1"],
        spikes: Float[Tensor, "c s"],
        rest: Entries,
        discrete: Bool[Tensor, " c"],
        harmless: Float[Tensor, " c"],
    ) -> None:
        self.log_weight = logits.log_softmax(-1)
        self.spikes, self.rest, self.discrete, self.harmless = spikes, rest, discrete, harmless
        super().__init__(rest.batch_shape, validate_args=False)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*each"]:
        """Log-probability of spikes, log-density or log-probability of other numbers, in nats."""
        here = value.float()[..., None] == self.spikes.float()
        spiked = here.any(-1)
        log_spike = torch.where(here, self.log_weight[..., :-1], 0.0).sum(-1)
        # the others do not see a spike unless they add to it: it may be far from all of them
        value = torch.where(spiked & ~self.discrete, self.harmless, value)
        log_rest = self.log_weight[..., -1] + self.rest.log_prob(value)
        at_spike = torch.where(self.discrete, torch.logaddexp(log_spike, log_rest), log_spike)
        return torch.where(spiked, at_spike, log_rest)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_c"]:
        """A draw."""
        rest = self.rest.sample(Size(sample_shape))
        chosen = drawn(self.log_weight.expand(*rest.shape, self.log_weight.shape[-1]))
        spikes = self.spikes.to(rest.dtype).expand(*rest.shape, self.spikes.shape[-1])
        return torch.cat((spikes, rest[..., None]), -1).gather(-1, chosen[..., None])[..., 0]

    @property
    def features(self) -> Float[Tensor, "*batch c f"]:
        """The mean."""
        weight = self.log_weight.exp()
        spikes = (weight[..., :-1] * self.spikes).sum(-1, keepdim=True)
        return spikes + weight[..., -1:] * self.rest.features
