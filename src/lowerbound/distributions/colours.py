"""Images whose colours are linked: a mixture for each pixel, in which a colour knows those before it.

    p(x) = prod over pixels of sum_i w_i prod_d p_i(x_d | x_<d)

The colours of a pixel go together: what is bright in red is mostly bright in green. Each component is a chain of
discretised logistics, whose centres move with the colours before, linearly, and all colours of a pixel come from the
same component. Salimans et al. 2017, https://arxiv.org/abs/1701.05517, section 2.2

Axes: ``*batch``, then ``i`` components, ``c`` colours, ``l`` links (of colour 1 with 0, of 2 with 0 and 1, and so on),
``h`` rows, ``w`` columns.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Categorical, Distribution, constraints

from .logistic import DiscretizedLogistic


class LinkedLogistics(Distribution):
    """Mixture of chains of discretised logistics, one for each pixel.

    Args:
        logits: Log-weights of the components, up to a constant.
        loc: Centres where all colours before are in the middle, in the units of x.
        scale: Widths, in the units of x, positive.
        link: How far a centre moves with each colour before, from the middle on.
        levels: How many values x can take.

    >>> zeros = torch.zeros(1, 1, 1)
    >>> loc, scale = torch.full((1, 2, 1, 1), 1.5), torch.full((1, 2, 1, 1), 0.1)
    >>> p = LinkedLogistics(zeros, loc, scale, torch.ones(1, 1, 1, 1), levels=4)
    >>> x = torch.tensor([[3.0, 3.0], [3.0, 0.0]])[..., None, None]
    >>> p.log_prob(x)[0] > p.log_prob(x)[1] + 10
    tensor(True)
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(
        self,
        logits: Float[Tensor, "*batch i h w"],
        loc: Float[Tensor, "*batch i c h w"],
        scale: Float[Tensor, "*batch i c h w"],
        link: Float[Tensor, "*batch i l h w"],
        levels: int,
    ) -> None:
        self.logits, self.loc, self.scale, self.link = logits, loc, scale, link
        self.levels = levels
        super().__init__(logits.shape[:-3], loc.shape[-3:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Images of the integers 0..levels-1."""
        return constraints.independent(constraints.integer_interval(0, self.levels - 1), 3)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-probability in nats, summed over the pixels."""
        x = value.unsqueeze(-4)
        colours = range(self.event_shape[0])
        each = [self._colour(d, x, self.loc, self.scale, self.link).log_prob(x[..., d, :, :]) for d in colours]
        return (self.logits.log_softmax(-3) + torch.stack(each).sum(0)).logsumexp(-3).sum((-2, -1))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_event"]:
        """A draw: for each pixel a component, then one colour after the other."""
        chosen = Categorical(logits=self.logits.movedim(-3, -1), validate_args=False).sample(Size(sample_shape))
        at = chosen[..., None, None, :, :]
        loc, scale, link = (
            t.expand(*sample_shape, *t.shape).take_along_dim(at, -4).squeeze(-4)
            for t in (self.loc, self.scale, self.link)
        )
        x = torch.zeros_like(loc)
        for d in range(self.event_shape[0]):
            x[..., d, :, :] = self._colour(d, x, loc, scale, link).sample()
        return x

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "LinkedLogistics":
        """The same distribution over a larger batch."""
        logits = self.logits.expand(*batch_shape, *self.logits.shape[-3:])
        loc, scale, link = (t.expand(*batch_shape, *t.shape[-4:]) for t in (self.loc, self.scale, self.link))
        return LinkedLogistics(logits, loc, scale, link, self.levels)

    def _colour(self, d: int, x: Tensor, loc: Tensor, scale: Tensor, link: Tensor) -> DiscretizedLogistic:
        """One colour, given those before it."""
        first, middle = d * (d - 1) // 2, (self.levels - 1) / 2
        moved = (link[..., first : first + d, :, :] * (x[..., :d, :, :] - middle)).sum(-3)
        return DiscretizedLogistic(loc[..., d, :, :] + moved, scale[..., d, :, :], self.levels)
