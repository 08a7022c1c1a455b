"""Rows of a table: independent columns of mixed kinds, with holes.

    log p(x) = sum over the entries that are known of log p(x_i)

What is missing is summed out, exactly: the marginal of independent columns is the product of those that are left
(Nazabal et al. 2020, https://arxiv.org/abs/1807.03653; Mattei & Frellsen 2019, https://arxiv.org/abs/1812.02633).
Columns of a kind are one tensor: the work grows with the kinds, and hardly with the columns.

Axes: ``*batch`` rows, ``d`` columns, ``k`` samples of z, ``b`` rows of a batch.
"""

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution

from .entries import Entries


@dataclass(frozen=True)
class Part:
    """Columns of one kind.

    Attributes:
        columns: Where in a row they are.
        entries: Their distributions.
        harmless: A value that each of them can take, to be put in holes.
    """

    columns: Tensor
    entries: Entries
    harmless: Tensor


class Rows(Distribution, abc.ABC):
    """Rows of a table with holes: what is NaN is missing."""

    arg_constraints = {}  # noqa: RUF012

    @abc.abstractmethod
    def terms(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch d"]:
        """What each column adds to `log_prob`, in nats."""

    @abc.abstractmethod
    def expected(self, weight: Float[Tensor, "k b"]) -> Float[Tensor, "b d"]:
        """What to expect of the mixture of k such distributions: with importance weights, x given what is known of it.

        Args:
            weight: Of each; they add up to one over k.
        """

    @abc.abstractmethod
    def filled(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch d"]:
        """The rows, each hole filled with a draw: picked by its importance weight, one is x given what is known."""


class Joint(Rows):
    """Independent columns of mixed kinds; NaN is a missing value, and adds nothing to log p(x) or its gradients.

    Args:
        parts: The columns of each kind; together they are all columns of a row.

    >>> from lowerbound.distributions import Levels, Numbers
    >>> number = Numbers(torch.zeros(1), torch.ones(1))
    >>> level = Levels(torch.tensor([[0.25, 0.75]]).log())
    >>> p = Joint([Part(torch.tensor([1]), number, torch.zeros(1)), Part(torch.tensor([0]), level, torch.zeros(1))])
    >>> p.log_prob(torch.tensor([1.0, torch.nan])).exp()
    tensor(0.7500)
    >>> p.mean
    tensor([1., 0.])
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        count = sum(len(part.columns) for part in self.parts)
        super().__init__(self.parts[0].entries.batch_shape[:-1], Size((count,)), validate_args=False)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density of what is known, in nats."""
        first, *rest = (each.sum(-1) for each in self._each(value))
        for part in rest:
            first = first + part
        return first

    def terms(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch d"]:
        """What each column adds to log p(x), in nats; 0 where it is missing."""
        return self.in_order(list(self._each(value)))

    @property
    def mean(self) -> Float[Tensor, "*batch d"]:
        """What to expect: the mean of numbers, the median of levels in order, the likeliest of others.

        Of what comes round it is the mean direction.
        """
        return self.in_order([part.entries.typical(part.entries.features) for part in self.parts])

    def expected(self, weight: Float[Tensor, "k b"]) -> Float[Tensor, "b d"]:
        """The same of the mixture of the distributions, by such weights."""
        mixed = [(weight[..., None, None] * part.entries.features).sum(0) for part in self.parts]
        pairs = zip(self.parts, mixed, strict=True)
        return self.in_order([part.entries.typical(features) for part, features in pairs])

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch d"]:
        """A draw, without holes."""
        return self.in_order([part.entries.sample(Size(sample_shape)) for part in self.parts])

    def filled(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch d"]:
        """The rows, with other draws in their holes at each call."""
        return torch.where(value.isnan(), self.sample(), value)

    def _each(self, value: Tensor) -> Iterator[Tensor]:
        """What each column of each kind adds."""
        for part in self.parts:
            x = value.index_select(-1, part.columns)
            known = ~x.isnan()
            # the holes are filled before the formulas see them: a NaN would come back as a gradient
            log_p = part.entries.log_prob(torch.where(known, x, part.harmless))
            yield torch.where(known, log_p, torch.zeros_like(log_p))

    def in_order(self, found: Sequence[Tensor]) -> Float[Tensor, "*any d"]:
        """The columns of all kinds, where they are in a row.

        Args:
            found: Of each part, something of each of its columns.
        """
        order = torch.cat([part.columns for part in self.parts]).argsort()
        return torch.cat(tuple(found), -1).index_select(-1, order)
