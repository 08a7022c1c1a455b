"""Batches: rows of data in a new order at each pass."""

import random
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .options import Options


@runtime_checkable
class Rows(Protocol):
    """What can be trained on: rows of data, and how a batch of them is drawn."""

    @property
    def x(self) -> Tensor:
        """All rows, in their own dtype."""

    @property
    def split(self) -> Mapping[str, Tensor]:
        """Which rows are "train"."""

    def fixed(self, part: str, rows: int = 0) -> Tensor:
        """So many rows of the part "train" or "valid" at most, drawn once, as the likelihood sees them; 0 for all."""

    def draw(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """A batch of rows as the likelihood sees them: cast, and binarised or dequantised if the data are."""

    @property
    def told(self) -> Tensor | None:
        """What a model is told of each row, beside x: its label or its number; None if nothing."""

    def tell(self, x: Tensor, told: Tensor | None) -> tuple[Tensor, ...]:
        """What a model is told of rows, as drawn; nothing if it is unconditional."""

    def context(self, part: str, rows: int = 0) -> tuple[Tensor, ...]:
        """What it is told of the rows that `fixed` returns."""


class Batches:
    """The batch of every step. Rows stay on the device in their own dtype; what does not fill a batch waits for a pass.

    Args:
        data: What to train on.
        options: How many rows a batch has, and the seed of their order.
        device: Where the rows are kept, and batches made.

    Raises:
        ValueError: Fewer rows than a batch.
    """

    def __init__(self, data: Rows, options: Options, device: torch.device) -> None:
        self.data, self.size, self.seed, self.hide = data, options.batch, options.seed, options.hide
        self.rows, self.train = data.x.to(device), data.split["train"].to(device)
        if len(self.train) < self.size:
            raise ValueError(
                f"batch={self.size} is more than the {len(self.train)} rows there are to train on: "
                f"set train.batch={len(self.train)} or less, or give more data."
            )
        self.told = None if data.told is None else data.told.to(device)
        if self.told is not None and self.told.ndim == 1:
            self.train = with_labels(self.train, self.told)
        self.buffer = self.rows.index_select(0, self.train[: self.size])
        self.order, self.number_of_pass = self.train, -1

    def draw(self, step: int, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """The batch of a step: rows as the likelihood sees them, then what the model is told of them, if anything.

        It is gone when the next one is drawn.
        """
        number_of_pass, at = divmod(step, len(self.train) // self.size)
        if number_of_pass != self.number_of_pass:
            self.order, self.number_of_pass = self._order(number_of_pass), number_of_pass
        chosen = self.order[at * self.size : (at + 1) * self.size]
        torch.index_select(self.rows, 0, chosen, out=self.buffer)
        rows = self.data.draw(self.buffer, generator)
        rows = with_holes(rows, self.hide, generator) if self.hide else rows
        return rows, *self.data.tell(rows, None if self.told is None else self.told[chosen])

    def _order(self, number_of_pass: int) -> Tensor:
        """The order of the rows in one pass over them, a function of seed and pass: it needs no saving."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, f"pass {number_of_pass}"))
        return self.train[torch.randperm(len(self.train), generator=generator).to(self.train.device)]


def with_labels(train: Tensor, labels: Tensor) -> Tensor:
    """The rows of a pass, those with a known label so often that they are a fifth: else few batches had any."""
    known = train[labels[train].isfinite()]
    times = (len(train) - len(known)) // (4 * max(1, len(known)))
    return torch.cat((train, known.repeat(max(0, times - 1))))


def with_holes(rows: Tensor, part: float, generator: torch.Generator | None = None) -> Tensor:
    """Rows of a table, a part of which lose a random part of what is known of them, from nothing to all."""
    chosen = torch.rand((len(rows), 1), generator=generator, device=rows.device)
    # of those below `part` the place there is uniform: it is the part of their entries to hide
    rate = torch.where(chosen < part, chosen / part, 0.0)
    hidden = torch.rand(rows.shape, generator=generator, device=rows.device) < rate
    return rows.masked_fill(hidden, torch.nan)


def seed_of(seed: int, use: str) -> int:
    """A seed of its own for each use, in 32 bits: torch's generator on a CPU forgets all others."""
    return random.Random(f"{seed} {use}").getrandbits(32)
