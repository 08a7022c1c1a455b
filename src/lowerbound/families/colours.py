"""The family of images whose colours are linked.

Axes: ``*batch``, then ``*event``, which is colours, rows, columns. The first event axis carries the parameters.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints

from .. import distributions
from .elements import DiscretizedLogisticMixture
from .family import Family, precise


class LinkedLogisticMixture(Family):
    """Mixture of logistics rounded to the integers 0..levels-1, one for each pixel, which links its colours.

    With one colour it is `DiscretizedLogisticMixture`, which has a mixture for every colour, and no link.
    Salimans et al. 2017, https://arxiv.org/abs/1701.05517, section 2.2

    Args:
        event: (colours, height, width) of one image.
        levels: How many values x can take.
        components: How many logistics.

    Raises:
        ValueError: x is not images.

    >>> LinkedLogisticMixture((3, 8, 8), levels=256, components=10).shape
    (100, 8, 8)
    """

    def __init__(self, event: Sequence[int], levels: int = 256, components: int = 5) -> None:
        super().__init__(event, params=1)
        if len(event) != 3:
            raise ValueError(
                f"x of shape {tuple(event)} has no pixels whose colours could be linked: this family is for images, "
                "(channels, height, width). Use model.family=logistic_mixture."
            )
        c = event[0]
        self.apart = DiscretizedLogisticMixture(event, levels, components)
        self.of = (components, components * c, components * c, components * (c * (c - 1) // 2))
        self.shape = (sum(self.of), *self.event[1:])

    @property
    def support(self) -> constraints.Constraint:
        """The integers 0..levels-1."""
        return self.apart.support

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """Centres and widths are predicted for values mapped to [-1, 1]; links are between -1 and 1."""
        logits, *rest = precise(params).split(self.of, -3)
        loc, scale, link = (t.unflatten(-3, (self.apart.components, -1)) for t in rest)
        apart = self.apart.logistic(loc, scale)
        return distributions.LinkedLogistics(logits, apart.loc, apart.scale, link.tanh(), self.apart.levels)

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Centres at each element's quantiles, widths from its spread, equal weights, no links."""
        weights, *places, links = self.of
        start = x.new_zeros(self.shape)
        start[weights : start.shape[0] - links] = self.apart.marginal(x)[-sum(places) :]
        return start
