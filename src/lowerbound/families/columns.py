"""The family of the rows of a table: independent columns of mixed kinds, given z.

Columns of one kind share a block: their parameters are one tensor, and so are their distributions, so that the work
does not grow with a loop over columns. Levels are joined by how many there are.

Axes: ``*batch`` rows, ``n`` rows of data, ``d`` columns; a row holds a number for each column, NaN where it is missing.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from ..columns import Column
from ..distributions import Joint, Part
from .blocks import Block, CategoryBlock, CountBlock, CyclicBlock, MixtureBlock, NumberBlock, OrdinalBlock, SpikedBlock
from .family import Family, precise

REALS = ("normal", "student_t", "mixture")
POSITIVES = ("log_normal", "mixture")
SCALES = ("element", "column")


class TableRows(constraints.Constraint):
    """What each entry of a row can be: a number of its column's kind, or missing.

    Args:
        columns: Of the table.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        ranges = {"real": (-math.inf, math.inf), "positive": (torch.finfo().tiny, math.inf), "count": (0.0, math.inf)}
        ends = [ranges.get(c.kind, (0.0, c.period if c.kind == "cyclic" else len(c.levels) - 1.0)) for c in columns]
        self.low, self.high = torch.tensor(ends).T
        self.whole = torch.tensor([c.is_level or c.kind == "count" for c in columns])
        most = max(1, *(len(c.spikes) for c in columns))
        self.spikes = torch.tensor([[*c.spikes, *[math.nan] * (most - len(c.spikes))] for c in columns])
        self.is_discrete = bool(self.whole.all())

    def check(self, value: Float[Tensor, "*batch d"]) -> Bool[Tensor, "*batch d"]:
        """Whether each entry is among them."""
        low, high, whole = (t.to(value.device) for t in (self.low, self.high, self.whole))
        inside = (value >= low) & (value <= high) & value.isfinite() & (~whole | (value == value.round()))
        spiked = (value.float()[..., None] == self.spikes.to(value.device)).any(-1)
        return value.isnan() | inside | spiked


class Columns(Family):
    """Independent columns of mixed kinds: parameter tensor -> `Joint`.

    | kind | density or probability |
    |---|---|
    | real | Student's t, normal, or a mixture of logistics that counts cells where numbers are decimal |
    | positive | log-normal, or a mixture of log-logistics that counts cells where numbers are decimal |
    | count | zero-inflated negative binomial |
    | ordinal | cumulative logits |
    | category, binary | softmax |
    | cyclic | von Mises |
    | with spikes | a probability for each spike, and for none of them; then the kind's own |

    Args:
        columns: Of the table.
        shift: Centre of each real column, and of the logarithm of each positive one; 0 if not given.
        unit: Spread of the same; 1 if not given.
        real: "normal", "student_t" or "mixture".
        positive: "log_normal" or "mixture".
        components: Of each mixture.
        scale: "element" (the network predicts that of real and positive columns) or "column" (one learned for each).

    Raises:
        ValueError: No columns, or one that cannot be modelled; `real`, `positive` or `scale` is none of these.

    >>> family = Columns([Column("age", "real"), Column("smokes", "binary", ("no", "yes"))], real="normal")
    >>> p = family(torch.zeros(family.shape))
    >>> p.log_prob(torch.tensor([torch.nan, 1.0])).exp()
    tensor(0.5000)
    """

    def __init__(
        self,
        columns: Sequence[Column],
        shift: Float[Tensor, " d"] | None = None,
        unit: Float[Tensor, " d"] | None = None,
        *,
        real: str = "student_t",
        positive: str = "log_normal",
        components: int = 5,
        scale: str = "element",
    ) -> None:
        _check(columns, real, positive, components, scale)
        super().__init__((len(columns),), 1)
        self.columns = tuple(columns)
        shift = torch.zeros(len(columns)) if shift is None else shift
        unit = torch.ones(len(columns)) if unit is None else unit
        groups: dict[tuple[str, int, int], list[int]] = {}
        for i, column in enumerate(columns):
            kind: str = "category" if column.kind == "binary" else column.kind
            key = kind, len(column.levels) if column.is_level else 0, len(column.spikes)
            groups.setdefault(key, []).append(i)
        density = {"real": real, "positive": positive}
        blocks: list[Block] = []
        for i, ((kind, levels, spikes), places) in enumerate(groups.items()):
            own = [columns[place] for place in places]
            mixed = density.get(kind) == "mixture"
            cell = torch.tensor([0.0 if c.decimals is None else 10.0**-c.decimals for c in own])
            match kind:
                case "real" | "positive" if mixed:
                    start = shift[places], unit[places]
                    blocks.append(MixtureBlock(*start, cell, components, scale, logarithmic=kind == "positive"))
                case "real" | "positive":
                    blocks.append(NumberBlock(shift[places], unit[places], density[kind], scale))
                case "count":
                    blocks.append(CountBlock(len(places)))
                case "ordinal":
                    blocks.append(OrdinalBlock(len(places), levels))
                case "category":
                    blocks.append(CategoryBlock(len(places), levels))
                case "cyclic":
                    blocks.append(CyclicBlock(torch.tensor([c.period for c in own])))
            if spikes:
                discrete = (cell > 0) if mixed else torch.full_like(cell, kind == "count", dtype=torch.bool)
                blocks.append(SpikedBlock(blocks.pop(), torch.tensor([c.spikes for c in own]), discrete))
            self.register_buffer(f"places_{i}", torch.tensor(places), persistent=False)
        self.blocks: Sequence[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.sizes = [block.columns * block.width for block in blocks]
        self.shape = (sum(self.sizes),)

    @property
    def support(self) -> constraints.Constraint:
        """What each kind of column can hold."""
        return TableRows(self.columns)

    @property
    def places(self) -> list[Tensor]:
        """The columns of each block."""
        return [self.get_buffer(f"places_{i}") for i in range(len(self.sizes))]

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """Rows of independent columns."""
        params = precise(params)
        parts = []
        for block, places, own in zip(self.blocks, self.places, params.split(self.sizes, -1), strict=True):
            entries = block(own.unflatten(-1, (block.columns, block.width)))
            parts.append(Part(places, entries, block.harmless(own)))
        return Joint(parts)

    def marginal(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "*params"]:
        """Parameters that fit what is known of each column by itself."""
        pairs = zip(self.blocks, self.places, strict=True)
        return torch.cat([block.marginal(x[:, places.to(x.device)]).flatten() for block, places in pairs])


def _check(columns: Sequence[Column], real: str, positive: str, components: int, scale: str) -> None:
    wrong = [] if columns else ["there are no columns"]
    few = [column for column in columns if column.is_level and len(column.levels) < 2]
    wrong += [f"{c.name!r} has {len(c.levels)} levels, and needs 2" for c in few]
    wrong += [f"{c.name!r} is cyclic, and has no period" for c in columns if c.kind == "cyclic" and not c.period]
    wrong += [] if real in REALS else [f"real={real!r} must be one of {', '.join(REALS)}"]
    spiked = [c for c in columns if c.spikes and c.kind not in ("real", "positive", "count")]
    wrong += [f"{c.name!r} is {c.kind}, and has spikes, which are of real, positive and count" for c in spiked]
    wrong += [] if positive in POSITIVES else [f"positive={positive!r} must be one of {', '.join(POSITIVES)}"]
    wrong += [] if scale in SCALES else [f"scale={scale!r} must be one of {', '.join(SCALES)}"]
    wrong += [] if components >= 1 else [f"components={components} must be 1 or more"]
    if wrong:
        raise ValueError(f"these columns cannot be modelled: {'; '.join(wrong)}.")
