"""Causal networks of images: what is said of a place depends on the places before it alone, row by row.

    p(x) = prod over places i, and over the elements d of a place, of p(x_id | x_<i, x_i,<d)

so that one pass over a whole image gives every factor (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759). A
convolution whose kernel holds the taps before its centre reads a neighbourhood of limited reach, without a blind spot,
and gated residual blocks make something of it at each place by itself. What lies beyond the reach can only come through
features that are given: of a decoder, from z, which therefore stays used (Gulrajani et al. 2017,
https://arxiv.org/abs/1611.05013; Chen et al. 2017, https://arxiv.org/abs/1611.02731). And since nothing behind the
first layer looks sideways, one place costs one place: to draw an image takes the work of one pass over it.

Axes: ``*lead`` such as (k, b), then ``c`` elements of a place, ``h`` rows, ``w`` columns; ``n`` images, ``f`` channels
of features, ``e`` numbers that are read of a place.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..linear import Linear
from .vectors import ACTIVATIONS, Gated, Residual, glorot

# Of the weights that make parameters: at the start what is before a place matters little.
FIRST_GAIN = 0.1


class Scaled(nn.Module):
    """The integers 0..levels-1 as numbers from -1 to 1: how values with an order are read.

    Args:
        levels: How many values an element can take.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.width = 1
        self.middle = (levels - 1) / 2

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h w"]:
        """x / middle - 1."""
        return x / self.middle - 1


class Embedded(nn.Module):
    """The integers 0..levels-1 as learned vectors: how categories are read, with a table for each element of a place.

    Args:
        elements: Of a place.
        levels: How many values an element can take.
        width: Length of a vector.
    """

    def __init__(self, elements: int, levels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.table = nn.Parameter(torch.randn(elements * levels, width))
        first = torch.arange(0, elements * levels, levels)[:, None, None]
        self.register_buffer("first", first, persistent=False)
        self.first: Tensor

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h w"]:
        """The vectors of a place, one element after the other."""
        return F.embedding(x.long() + self.first, self.table).movedim(-1, -3).flatten(-4, -3)


class CausalNet(nn.Module):
    """(x, features) -> parameters of every element of x, each from what is before it in the order of reading.

    Places are read row by row, and the elements of a place (its colours, its codes) one after the other. An element's
    parameters depend on places up to `reach` rows above and columns beside, on the elements before it at its own place,
    and on the features of its place. A value of two axes is one of one element for each place, (1, h, w); a sequence
    is an image of one row, (c, 1, w).

    Args:
        event: (c, h, w) of one x.
        params: How many parameters each element needs: `Family.params`.
        read: x -> numbers for each element: `Scaled` or `Embedded`; its `width` says how many.
        reach: How far a place looks, in places.
        width: Of the hidden layers.
        layers: Gated residual blocks before the elements of a place part, each of which has one more.
        features: Channels of the features; 0 where there are none.
        activation: One of `ACTIVATIONS`.
        start: What is said before anything is learned, of shape (params * c, h, w), as of `Family.marginal`.

    >>> net = CausalNet((1, 4, 4), 1, Scaled(2), reach=2)
    >>> x = torch.zeros(1, 4, 4)
    >>> later = x.clone()
    >>> later[0, 2, 1] = 1
    >>> (net(x) != net(later)).nonzero()[:, 1:].tolist()  # from the place after it on, two places around
    [[2, 2], [2, 3], [3, 0], [3, 1], [3, 2], [3, 3]]
    """

    def __init__(
        self,
        event: Sequence[int],
        params: int,
        read: Scaled | Embedded,
        *,
        reach: int = 3,
        width: int = 64,
        layers: int = 2,
        features: int = 0,
        activation: str = "silu",
        start: Tensor | None = None,
    ) -> None:
        super().__init__()
        c, h, w = self.event = tuple(event)
        self.read = read
        self.rows, self.columns = min(reach, h - 1), min(reach, w - 1)
        # row by row, the taps before the centre of a kernel are its first
        self.taps = self.rows * (2 * self.columns + 1) + self.columns
        each = read.width
        channels = c * each + 1  # one more says what is inside of the image
        self.weight = nn.Parameter(torch.randn(width, channels, self.taps) / math.sqrt(max(1, channels * self.taps)))
        self.bias = nn.Parameter(torch.zeros(width))
        self.features = features
        self.told = _told(features, width) if features else None
        self.trunk = nn.Sequential(*(_block(width, activation) for _ in range(layers)))
        self.inner = nn.ModuleList(glorot(Linear(d * each, width)) for d in range(1, c))
        self.heads = nn.ModuleList(_head(width, params, activation) for _ in range(c))
        self.start = nn.Parameter(torch.zeros(params * c, h, w) if start is None else start.clone())

    def forward(
        self, x: Float[Tensor, "*some c h w"], features: Float[Tensor, "*others f h w"] | None = None
    ) -> Float[Tensor, "*lead p h w"]:
        """The parameters, with the leading axes of x and of the features, which broadcast.

        What is common to several samples is computed once: neighbourhoods for each x, the rest for each pair.

        Raises:
            ValueError: Features are missing, or there are some that the network was not made for.
        """
        lead = x.shape[:-3]
        read = self.read(x.reshape(-1, *self.event))
        kernel = F.pad(self.weight, (0, self.columns + 1)).unflatten(-1, (self.rows + 1, 2 * self.columns + 1))
        around = F.conv2d(self._framed(read), kernel).movedim(1, -1)
        hidden = around.reshape(*lead, *around.shape[1:]) + self._given(features)
        hidden, read = self.trunk(hidden), read.movedim(1, -1).reshape(*lead, *self.event[1:], -1)
        said = torch.stack([self._element(d, hidden, read) for d in range(self.event[0])], -1)
        return said.flatten(-2).movedim(-1, -3) + self.start

    @torch.no_grad()
    def draw(
        self,
        pick: Callable[[Tensor], Tensor],
        lead: Sequence[int] = (),
        features: Float[Tensor, "*others f h w"] | None = None,
    ) -> Float[Tensor, "*lead c h w"]:
        """Draw x, place by place, each in the work of one place: all that a place needs of others is what they hold.

        Args:
            pick: Parameters of one place, (n, params * c, 1, 1) -> its elements, (n, c, 1, 1), of which those that are
                not yet due are left out.
            lead: Leading axes of what is drawn, those of the features included.
            features: As in `forward`.
        """
        c, h, w = self.event
        n = math.prod(lead)
        x = self.start.new_zeros(n, c, h, w)
        given = self._given(features).expand(*lead, h, w, -1).reshape(n, h, w, -1)
        framed = self._framed(self.read(x))
        weight = self.weight.flatten(1)
        start = self.start.unflatten(0, (-1, c))
        for i in range(h):
            for j in range(w):
                window = framed[:, :, i : i + self.rows + 1, j : j + 2 * self.columns + 1]
                window = window.flatten(2)[..., : self.taps].flatten(1)
                hidden = self.trunk(F.linear(window, weight) + given[:, i, j])
                place = x[..., i : i + 1, j : j + 1]
                for d in range(c):
                    params = self._element(d, hidden, self.read(place).flatten(1)) + start[:, d, i, j]
                    place[:, d] = pick(params[..., None].expand(-1, -1, c).reshape(n, -1, 1, 1))[:, d]
                framed[:, :-1, self.rows + i, self.columns + j] = self.read(place)[..., 0, 0]
        return x.reshape(*lead, c, h, w)

    def _element(
        self, d: int, hidden: Float[Tensor, "*lead width"], read: Float[Tensor, "*some e"]
    ) -> Float[Tensor, "*lead params"]:
        """The parameters of one element of places, from what is known of them and what is read of elements before."""
        if d > 0:
            hidden = hidden + self.inner[d - 1](read[..., : d * self.read.width])
        return self.heads[d](hidden)

    def _given(self, features: Tensor | None) -> Tensor:
        """What is known of every place without x: (*others, h, w, width), or the same for all, (width,)."""
        if features is None and self.told is None:
            return self.bias
        if features is None or self.told is None:
            asked = f"features of {self.features} channels" if self.features else "no features"
            was = "none were" if features is None else f"some of shape {tuple(features.shape)} were"
            raise ValueError(
                f"this network was made for {asked}, and {was} given: say so by `features` when it is made."
            )
        return self.bias + self.told(features.movedim(-3, -1))

    def _framed(self, read: Float[Tensor, "n e h w"]) -> Float[Tensor, "n e1 h2 w2"]:
        """What is read, and what is inside, with nothing around it as far as a place looks."""
        inside = torch.cat((read, torch.ones_like(read[:, :1])), 1)
        return F.pad(inside, (self.columns, self.columns, self.rows, 0))


def _told(features: int, width: int) -> nn.Module:
    """What is heard of features: as loudly as of what is around, beside which a network else learns to do without."""
    return nn.Sequential(nn.LayerNorm(features), glorot(Linear(features, width, bias=False)))


def _block(width: int, activation: str) -> nn.Module:
    """A gated residual block at each place by itself."""
    gated = Gated(glorot(Linear(width, width)), glorot(Linear(width, width)))
    f = nn.Sequential(nn.LayerNorm(width), glorot(Linear(width, width)), ACTIVATIONS[activation](), gated)
    return Residual(f, width, 1)


def _head(width: int, params: int, activation: str) -> nn.Module:
    """What makes parameters of what is known of an element."""
    last = glorot(Linear(width, params, bias=False))
    with torch.no_grad():
        last.weight.mul_(FIRST_GAIN)
    return nn.Sequential(_block(width, activation), nn.LayerNorm(width), ACTIVATIONS[activation](), last)
