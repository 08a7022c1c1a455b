"""Families of codes: a network's output, quantised place by place, and the distributions that answer to codes.

* `VectorQuantized`: the nearest of a codebook's vectors (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937),
  and in several stages the nearest to what is left (Zeghidour et al. 2021, https://arxiv.org/abs/2107.03312; Lee et
  al. 2022, https://arxiv.org/abs/2203.01941).
* `FiniteScalar`: each channel rounded to one of a few values; nothing has to be learned (Mentzer et al. 2024,
  https://arxiv.org/abs/2309.15505).
* `OneHot`: a categorical, drawn rather than chosen (Jang et al. 2017, https://arxiv.org/abs/1611.01144).

The first two make posteriors, which are points, and are the book in which `Coded`, the family of their priors, looks
codes up; the last makes both.

Axes: ``*lead`` such as (k, b), then ``c`` channels or ``stages`` of codes, ``h`` rows, ``w`` columns; ``n`` vectors.
"""

import abc
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from .. import distributions
from ..distributions import Quantized
from ..distributions.codes import one_hot
from .codebook import Codebook
from .family import Family, precise

# Standard deviation of the logits of a posterior at the start.
LOUD = 3.0
# No output has a smaller spread than this.
TINY = 1e-6


class Codes(Family, abc.ABC):
    """A family of codes, and the book in which they are looked up.

    Args:
        event: (c, h, w) of the vectors that codes stand for.
        size: How many codes there are to choose from, in each stage.
        stages: How many codes name the vector of one place.

    Attributes:
        channels: Of the vectors.
    """

    def __init__(self, event: Sequence[int], size: int, stages: int) -> None:
        super().__init__(event, params=1)
        self.size = size
        self.stages = stages
        self.channels = self.event[0]

    @abc.abstractmethod
    def begin(self, params: Float[Tensor, "n p h w"]) -> None:
        """Take starting values from the outputs of a network."""

    @abc.abstractmethod
    def codes(self, z: Float[Tensor, "*lead c h w"]) -> Int64[Tensor, "*lead stages h w"]:
        """The codes of vectors: exact, for vectors that codes stand for."""

    @abc.abstractmethod
    def vectors(self, codes: Int64[Tensor, "*lead stages h w"]) -> Float[Tensor, "*lead c h w"]:
        """The vectors that codes stand for."""


class VectorQuantized(Codes):
    """The nearest vectors of a codebook, chosen in stages: each stage has a codebook of its own, for what is left.

    z holds the vectors of all stages, one after the other; that of the place is their sum.

    The encoder is drawn to the vectors it chose by ``commitment * |h - v|^2`` nats for each vector, and in a codebook
    that is learned by its gradient the vectors by ``|h - v|^2`` to the encoder; else they follow the mean of what chose
    them. See `Codebook`.

    Args:
        event: (c, h, w) of what is quantised.
        size: Vectors in a codebook.
        stages: How many codebooks.
        commitment: In nats for a unit of squared distance.
        learned: Whether codebooks have gradients.
    """

    def __init__(
        self, event: Sequence[int], size: int, stages: int = 1, commitment: float = 1.0, learned: bool = False
    ) -> None:
        width, h, w = event
        super().__init__((stages * width, h, w), size, stages)
        self.shape = (width, h, w)
        self.commitment = commitment
        books = nn.ModuleList(Codebook(size, width, learned) for _ in range(stages))
        self.books: Sequence[Codebook] = books  # type: ignore[assignment]

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers."""
        return constraints.real

    def forward(self, params: Float[Tensor, "*lead c h w"]) -> Distribution:
        """All the probability on the nearest."""
        left = _rows(precise(params))
        # a pass without gradients, or of a model that is not in training, teaches nobody
        learning = self.training and torch.is_grad_enabled()
        found: list[Tensor] = []
        chosen: list[Tensor] = []
        pull = left.new_zeros(len(left))
        for book in self.books:
            codes = book.nearest(left.detach())
            if learning:
                book.learn(left.detach(), codes)
            v = book.vectors[codes]
            pull = pull + self.commitment * (left - v.detach()).square().sum(-1)
            if v.requires_grad:
                pull = pull + (left.detach() - v).square().sum(-1)
            # the first stage has the gradient of all: their vectors are summed
            found.append(v.detach() if found else v.detach() + (left - left.detach()))
            chosen.append(codes)
            left = left - v.detach()
        lead, places = params.shape[:-3], params.shape[-2:]
        pull = pull.reshape(*lead, *places).sum((-2, -1))
        return Quantized(
            _map(torch.cat(found, -1), lead, places),
            _map(torch.stack(chosen, -1), lead, places),
            self.size,
            pull - pull.detach(),
        )

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Zeros."""
        return x.new_zeros(self.shape)

    @torch.no_grad()
    def begin(self, params: Float[Tensor, "n p h w"]) -> None:
        """Let codebooks start from the outputs of a network, by k-means."""
        left = _rows(params)
        for book in self.books:
            book.begin(left)
            left = left - book.vectors[book.nearest(left)]

    @torch.no_grad()
    def codes(self, z: Float[Tensor, "*lead c h w"]) -> Int64[Tensor, "*lead stages h w"]:
        """The codes of vectors: exact, for vectors that codes stand for."""
        parts = _rows(z).chunk(self.stages, -1)
        found = [book.nearest(part, exact=True) for book, part in zip(self.books, parts, strict=True)]
        return _map(torch.stack(found, -1), z.shape[:-3], z.shape[-2:])

    @torch.no_grad()
    def vectors(self, codes: Int64[Tensor, "*lead stages h w"]) -> Float[Tensor, "*lead c h w"]:
        """The vectors that codes stand for."""
        found = [book.vectors[part] for book, part in zip(self.books, _rows(codes).unbind(-1), strict=True)]
        return _map(torch.cat(found, -1), codes.shape[:-3], codes.shape[-2:])


class FiniteScalar(Codes):
    """Channels that are each squashed and rounded to so many values, evenly from -1 to 1: their grid is the codebook.

    Args:
        event: (c, h, w) of z, a channel for each number in `grid`.
        grid: How many values each channel has, 2 or more.
    """

    def __init__(self, event: Sequence[int], grid: Sequence[int]) -> None:
        super().__init__(event, math.prod(grid), 1)
        strides = [math.prod(grid[i + 1 :]) for i in range(len(grid))]
        self.register_buffer("most", torch.tensor(grid)[:, None, None] - 1, persistent=False)
        self.register_buffer("strides", torch.tensor(strides)[:, None, None], persistent=False)
        self.register_buffer("shift", torch.zeros(len(grid), 1, 1))
        self.register_buffer("unit", torch.ones(len(grid), 1, 1))
        self.most: Tensor
        self.strides: Tensor
        self.shift: Tensor
        self.unit: Tensor

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers."""
        return constraints.real

    def forward(self, params: Float[Tensor, "*lead c h w"]) -> Distribution:
        """All the probability on the values that the channels are rounded to."""
        u = ((precise(params) - self.shift) / self.unit).tanh()
        digits = self._digits(u.detach())
        z = self._values(digits) + (u - u.detach())
        codes = (digits * self.strides).sum(-3, keepdim=True)
        return Quantized(z, codes, self.size, z.new_zeros(z.shape[:-3]))

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Zeros."""
        return x.new_zeros(self.shape)

    @torch.no_grad()
    def begin(self, params: Float[Tensor, "n p h w"]) -> None:
        """Let all values be in use from the start: take the centre and the spread of a network's outputs."""
        _standardise(self, params, 1.0)

    @torch.no_grad()
    def codes(self, z: Float[Tensor, "*lead c h w"]) -> Int64[Tensor, "*lead 1 h w"]:
        """The codes of values."""
        return (self._digits(z) * self.strides).sum(-3, keepdim=True)

    @torch.no_grad()
    def vectors(self, codes: Int64[Tensor, "*lead 1 h w"]) -> Float[Tensor, "*lead c h w"]:
        """The values that codes stand for."""
        return self._values(codes // self.strides % (self.most + 1))

    def _digits(self, u: Tensor) -> Tensor:
        # what is no number has no code either, and stays none in z
        return ((u + 1) * (self.most / 2)).round().nan_to_num().long()

    def _values(self, digits: Tensor) -> Tensor:
        return digits * (2 / self.most) - 1


class OneHot(Codes):
    """A categorical at each place, with draws that have the gradient of relaxed ones; see `distributions.OneHot`.

    It is the family of a posterior, and, with one of its own, of its prior.

    Args:
        event: (size, h, w) of one z.
        temperature: Of the relaxation.
    """

    def __init__(self, event: Sequence[int], temperature: float = 0.5) -> None:
        super().__init__(event, event[0], 1)
        self.temperature = temperature
        self.register_buffer("shift", torch.zeros(event[0], 1, 1))
        self.register_buffer("unit", torch.ones(event[0], 1, 1))
        self.shift: Tensor
        self.unit: Tensor

    @property
    def support(self) -> constraints.Constraint:
        """0 and 1."""
        return constraints.boolean

    def forward(self, params: Float[Tensor, "*lead size h w"]) -> Distribution:
        """p(code) = softmax((params - shift) / unit)."""
        return distributions.OneHot((precise(params) - self.shift) / self.unit, self.temperature)

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Log-frequencies, as if each code had been seen once more."""
        return ((x.sum(0) + 1) / (len(x) + self.size)).log()

    @torch.no_grad()
    def begin(self, params: Float[Tensor, "n p h w"]) -> None:
        """Let draws say something from the start: of noise a decoder learns to do without."""
        _standardise(self, params, LOUD)

    def codes(self, z: Float[Tensor, "*lead size h w"]) -> Int64[Tensor, "*lead 1 h w"]:
        """Which is the one."""
        return z.argmax(-3, keepdim=True)

    def vectors(self, codes: Int64[Tensor, "*lead 1 h w"]) -> Float[Tensor, "*lead size h w"]:
        """One-hot vectors."""
        return one_hot(codes.squeeze(-3), self.size).to(torch.get_default_dtype())


class Coded(Family):
    """Independent categoricals over the codes of a book, as a distribution of their vectors: a prior's family.

    Args:
        book: Which vectors codes stand for; it is the posterior's family.
    """

    def __init__(self, book: Codes) -> None:
        super().__init__(book.event, params=1)
        self.shape = (book.size * book.stages, *self.event[1:])
        self.book = book

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers."""
        return constraints.real

    def forward(self, params: Float[Tensor, "*lead p h w"]) -> Distribution:
        """p(code) = softmax(params), with the stages of a code beside each other."""
        logits = precise(params).unflatten(-3, (self.book.size, self.book.stages)).transpose(-4, -3)
        return distributions.Coded(logits, self.book)

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Zeros: all codes are equally likely."""
        return x.new_zeros(self.shape)


def _rows(maps: Tensor) -> Tensor:
    """Maps (*lead, c, h, w) as the rows of their places, (n, c)."""
    return maps.movedim(-3, -1).reshape(-1, maps.shape[-3])


def _standardise(family: "FiniteScalar | OneHot", params: Float[Tensor, "n p h w"], spread: float) -> None:
    """Let a family read a network's outputs from their mean, in units in which they have this standard deviation."""
    family.shift.copy_(params.mean((0, 2, 3), keepdim=True)[0])
    family.unit.copy_(params.std((0, 2, 3), keepdim=True)[0].clamp(min=TINY) / spread)


def _map(rows: Tensor, lead: Sequence[int], places: Sequence[int]) -> Tensor:
    """The inverse of `_rows`."""
    return rows.reshape(*lead, *places, rows.shape[-1]).movedim(-1, -3)
