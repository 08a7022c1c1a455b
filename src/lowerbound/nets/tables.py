"""How a row of a table enters a network.

Numbers are in standard units, levels and spikes one-hot, and what comes round again (angles, the weekday and the season
of a date) is a cosine and a sine; beside them stands which entries are known. What is missing is 0 (Mattei & Frellsen
2019, https://arxiv.org/abs/1812.02633).

Axes: ``*lead`` rows, ``d`` columns.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ..columns import Column
from .vectors import ROW_LENGTH

# Within so many spreads of its centre a column of a table enters nearly as it is, and by its logarithm beyond.
STRAIGHT = 3.0


class TableNumbers(nn.Module):
    """The columns of a table as numbers of like size: positive ones by their logarithm, counts by that of one more.

    Args:
        columns: Of the table.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        for kind in ("positive", "count"):
            self.register_buffer(kind, torch.tensor([c.kind == kind for c in columns]), persistent=False)
        spikes = [(i, spike) for i, c in enumerate(columns) for spike in c.spikes]
        self.register_buffer("of_spike", torch.tensor([i for i, _ in spikes], dtype=torch.int64), persistent=False)
        self.register_buffer("spike", torch.tensor([spike for _, spike in spikes]), persistent=False)
        self.positive: Tensor
        self.count: Tensor
        self.of_spike: Tensor
        self.spike: Tensor

    def forward(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead d"]:
        """The numbers, NaN where they are missing or held apart."""
        return self.all(x).masked_fill(self.spiked(x), math.nan)

    def all(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead d"]:
        """The numbers, NaN where they are missing."""
        logarithm = x.clamp(min=torch.finfo(x.dtype).tiny).log()
        return torch.where(self.positive, logarithm, torch.where(self.count, x.clamp(min=0).log1p(), x))

    def spiked(self, x: Float[Tensor, "*lead d"]) -> Bool[Tensor, "*lead d"]:
        """Whether an entry is one of the spikes of its column."""
        return torch.zeros_like(x).index_add(-1, self.of_spike, self.spikes(x).nan_to_num()) > 0

    def spikes(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead spikes"]:
        """1 where an entry is this spike of its column, else 0; NaN where it is missing."""
        entry = x.index_select(-1, self.of_spike)
        return torch.where(entry.isnan(), entry, (entry.float() == self.spike.float()).to(x.dtype))


class TableInput(nn.Module):
    """What an encoder reads of a row with holes: its values, and which of them are known.

    Numbers are in standard units, levels and spikes one-hot, and what comes round again is a cosine and a sine; a date
    is a number, and comes round by its cycles. What is missing is 0.

    Args:
        columns: Of the table.
        shift: Centre of each column, as `TableNumbers` has it.
        unit: Spread of each column.

    Attributes:
        width: How many numbers a row becomes.
    """

    def __init__(self, columns: Sequence[Column], shift: Float[Tensor, " d"], unit: Float[Tensor, " d"]) -> None:
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("unit", unit)
        self.shift: Tensor
        self.unit: Tensor
        self.numbers = TableNumbers(columns)
        plain = [i for i, c in enumerate(columns) if not c.is_level and c.kind != "cyclic"]
        cycles = [(c.period or 1,) if c.kind == "cyclic" else c.cycles for c in columns]
        round_ = [(i, period, (columns[i].origin or 0.0) % period) for i, own in enumerate(cycles) for period in own]
        levels = [(i, place) for i, c in enumerate(columns) if c.is_level for place in range(len(c.levels))]
        lists = {
            "plain": plain,
            "round": [i for i, _, _ in round_],
            "turn": [2 * math.pi / period for _, period, _ in round_],
            "ahead": [ahead for _, _, ahead in round_],
            "of_level": [i for i, _ in levels],
            "level": [place for _, place in levels],
        }
        for name, found in lists.items():
            dtype = torch.float32 if name in ("turn", "ahead", "level") else torch.int64
            self.register_buffer(name, torch.tensor(found, dtype=dtype), persistent=False)
        self.plain: Tensor
        self.round: Tensor
        self.turn: Tensor
        self.ahead: Tensor
        self.of_level: Tensor
        self.level: Tensor
        self.width = len(plain) + 2 * len(round_) + len(levels) + len(self.numbers.spike) + len(columns)
        self.length = max(1.0, math.sqrt(self.width) / ROW_LENGTH)

    @property
    def owner(self) -> Int64[Tensor, " values"]:
        """The column of each of the values."""
        return torch.cat((self.plain, self.round, self.round, self.of_level, self.numbers.of_spike))

    def values(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead values"]:
        """The values of rows, NaN where they are missing."""
        number = ((self.numbers.all(x) - self.shift) / self.unit).index_select(-1, self.plain)
        # a spike may be far from all other numbers, and has an entry of its own
        spiked = self.numbers.spiked(x).index_select(-1, self.plain)
        number = torch.where(spiked, number.clamp(-STRAIGHT, STRAIGHT), number)
        angle = (x.index_select(-1, self.round) + self.ahead) * self.turn
        entry = x.index_select(-1, self.of_level)
        level = torch.where(entry.isnan(), entry, (entry == self.level).to(x.dtype))
        spike = self.numbers.spikes(x)
        return torch.cat((STRAIGHT * torch.asinh(number / STRAIGHT), angle.cos(), angle.sin(), level, spike), -1)

    def forward(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead width"]:
        """The values, 0 where they are missing, and 1 for each that is not."""
        known = (~x.isnan()).to(x.dtype)
        return torch.cat((self.values(x).nan_to_num(), known), -1) / self.length
