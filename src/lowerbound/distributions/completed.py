"""Images of which a part is known: a distribution of the rest.

Axes: ``*batch``, then channels ``c``, height ``h``, width ``w``; ``p`` hidden pixels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.distributions import Distribution, constraints


class Completed(Distribution):
    """What is hidden of an image, with what is known of it in its place: a probability of the hidden pixels alone.

    Args:
        rest: Of the hidden pixels, (c, p).
        known: Images; what they hold at the hidden pixels is not read.
        places: Of the hidden pixels, counted row by row.

    >>> rest = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(1, 2), 1.0), 2)
    >>> known = torch.tensor([[[5.0, torch.nan], [6.0, torch.nan]]])
    >>> Completed(rest, known, torch.tensor([1, 3])).mean
    tensor([[[5., 0.],
             [6., 0.]]])
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, rest: Distribution, known: Float[Tensor, "*b c h w"], places: Int64[Tensor, " p"]) -> None:
        self.rest, self.known, self.places = rest, known, places
        super().__init__(rest.batch_shape, known.shape[-3:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        """That of the rest."""
        return self.rest.support

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density or log-probability of the hidden pixels given the known ones, in nats."""
        return self.rest.log_prob(value.flatten(-2).index_select(-1, self.places))

    @property
    def mean(self) -> Shaped[Tensor, "*batch c h w"]:
        """What is known, and what to expect of the rest."""
        return self._in_place(self.rest.mean)

    @property
    def mode(self) -> Shaped[Tensor, "*batch c h w"]:
        """What is known, and what is likeliest of the rest."""
        return self._in_place(self.rest.mode)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Shaped[Tensor, "*sample_batch c h w"]:
        """What is known, and a draw of the rest."""
        return self._in_place(self.rest.sample(torch.Size(sample_shape)))

    def _in_place(self, rest: Tensor) -> Tensor:
        known = self.known.expand(*rest.shape[:-2], *self.known.shape[-3:])
        whole = known.to(rest.dtype).flatten(-2).index_copy(-1, self.places, rest)
        return whole.unflatten(-1, self.known.shape[-2:])
