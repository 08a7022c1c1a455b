"""Privacy: whether synthetic rows, or the model itself, give away the rows that were trained on.

Rows are compared by a distance like Gower's: numbers in standard deviations, and 1 where levels differ, its squares
added up over columns; a hole is as far from any value as it is on average. Real rows that were held out tell what is
no more than likeness: they are as near to the training rows as new rows of the same kind are. A model that memorises
draws rows that are nearer. The attacks guess who was trained on (Yeom et al. 2018, https://arxiv.org/abs/1709.01604;
Chen et al. 2020, https://arxiv.org/abs/1909.03935).

Nothing here proves that nothing leaks: it finds what these attacks find. Differential privacy is a promise; this is a
measurement.

Axes: ``n``, ``m`` rows, ``d`` columns, ``e`` coordinates: one a column of numbers, one a level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy import ndarray

from ..columns import Column
from ..latents import neighbours
from ..metrics import Estimate
from .curves import area_under_curve
from .fidelity import Comparison, check
from .rows import affordable, choose, with_holes

# Rows that are asked about, and rows that they are compared with, at most.
ROWS, BANK = 2000, 20_000
# Numbers in the latter, at most.
VALUES = 2**23
NEAREST = 0.05
# Pairs of rows that are looked at together, within the caches of a processor.
CHUNK = 2**20


@dataclass(frozen=True)
class Privacy:
    """What synthetic rows, and the model, say of the training rows. "Real" is the same of held-out rows.

    Attributes:
        median: The median distance to the closest training row.
        nearest: The 5 % quantile of the same.
        nearer: The share of synthetic rows that are nearer to the training rows than to as many held-out rows: 0.5
            where nothing is memorised.
        copies: The share of rows that equal a training row in all that is known of both.
        by_rows: The area under the curve of an attack that takes for trained on what is near to synthetic rows: 0.5
            where nothing leaks.
        by_bound: That of one that takes for trained on what the model finds likely; None where it was not asked.
        rows: How many rows of each sort were asked about.
        bank: How many training rows they were compared with.
    """

    median: Comparison
    nearest: Comparison
    nearer: Estimate
    copies: Comparison
    by_rows: Estimate
    by_bound: Estimate | None
    rows: int
    bank: int


def privacy(
    train: Float[ndarray, "n d"],
    held_out: Float[ndarray, "m _"],
    synthetic: Float[ndarray, "s _"],
    columns: Sequence[Column],
    *,
    bounds: tuple[Float[ndarray, " a"], Float[ndarray, " b"]] | None = None,
    seed: int = 0,
) -> Privacy:
    """What synthetic rows say of the rows that the model was trained on.

    Args:
        train: The rows it was trained on, NaN where a value is missing.
        held_out: Rows of the same kind that it was not.
        synthetic: Its rows.
        columns: What they hold.
        bounds: The bound on log p(x) of some training rows, and that of some held-out rows, taken alike.
        seed: Of which rows are looked at.

    Raises:
        ValueError: Fewer than ten rows of one of the three, or a number of columns that differs.
    """
    check(columns, train=train, held_out=held_out, synthetic=synthetic)
    generator = np.random.default_rng(seed)
    size = min(affordable(len(columns), ROWS), *(len(rows) for rows in (train, held_out, synthetic)))
    bank = max(size, min(BANK, VALUES // len(columns)))
    train, synthetic = (rows[choose(generator, len(rows), bank)] for rows in (train, synthetic))
    known = held_out[choose(generator, len(held_out), size)]
    space = _Space(train, columns)
    asked = with_holes(synthetic[:size], known)
    near = [space.nearest(rows, train)[1] for rows in (asked, known)]
    copies = [is_copy(rows, train) for rows in (asked, known)]
    whole = with_holes(synthetic, train)
    leaks = [-space.nearest(rows, whole)[1] for rows in (train[:size], known)]
    return Privacy(
        median=Comparison(*(_quantile(values, 0.5) for values in near)),
        nearest=Comparison(*(_quantile(values, NEAREST) for values in near)),
        nearer=_nearer(space, asked, train[:size], known, generator),
        copies=Comparison(*(Estimate.of_share(int(copied.sum()), size) for copied in copies)),
        by_rows=area_under_curve(*leaks),
        by_bound=None if bounds is None else area_under_curve(*bounds),
        rows=size,
        bank=len(train),
    )


def is_copy(rows: Float[ndarray, "n d"], bank: Float[ndarray, "m d"]) -> Bool[ndarray, " n"]:
    """Which rows equal some row of a bank wherever both are known, which must be so in half of the columns or more."""
    unknown, known = np.isnan(bank).T, (~np.isnan(bank)).astype(np.float32).T
    found = []
    for part in np.array_split(rows, max(1, math.ceil(len(rows) * len(bank) / CHUNK))):
        agree = 2 * ((~np.isnan(part)).astype(np.float32) @ known) >= rows.shape[1]
        for mine, theirs, without in zip(part.T, bank.T, unknown, strict=True):
            agree &= (mine[:, None] == theirs) | without | np.isnan(mine)[:, None]
        found.append(agree.any(1))
    return np.concatenate(found)


class _Space:
    """Rows as points whose Euclidean distance is that of rows.

    Args:
        rows: Whose standard deviations are the units.
        columns: What they hold.
    """

    def __init__(self, rows: Float[ndarray, "n d"], columns: Sequence[Column]) -> None:
        self.columns = columns
        self.known = [rows[~np.isnan(rows[:, i]), i].astype(np.float64) for i in range(len(columns))]

    def points(self, rows: Float[ndarray, "n d"]) -> Float[ndarray, "n e"]:
        """The coordinates of rows."""
        found = []
        for values, known, column in zip(rows.T, self.known, self.columns, strict=True):
            if column.is_level:
                # two of them are at distance 1, and what is missing at its root of a half from all
                found += [(values == level) * math.sqrt(0.5) for level in range(len(column.levels))]
            else:
                centre = known.mean() if len(known) else 0.0
                found.append(np.nan_to_num((values - centre) / ((known.std() if len(known) else 0.0) or 1.0)))
        return np.stack(found, 1)

    def nearest(
        self, rows: Float[ndarray, "n d"], bank: Float[ndarray, "m d"]
    ) -> tuple[Int64[ndarray, " n"], Float[ndarray, " n"]]:
        """For each row, which of a bank is the closest, and its distance."""
        points, places = (torch.from_numpy(self.points(part)).float() for part in (rows, bank))
        index, distance = neighbours(points, places, 1)
        return index[:, 0].numpy(), distance[:, 0].numpy()


def _nearer(
    space: _Space, rows: ndarray, train: ndarray, held_out: ndarray, generator: np.random.Generator
) -> Estimate:
    """The share of rows whose closest one, of as many training as held-out rows, is a training row.

    If nothing is memorised, each of these could as well have been one of the others: m rows that have the same closest
    one count as one trial, and the standard error is the root of the sum of m^2, over 2 n.
    """
    # in random order, so that of equal rows neither sort is found first
    order = generator.permutation(2 * len(train))
    closest = order[space.nearest(rows, np.concatenate([train, held_out])[order])[0]]
    crowd = np.bincount(closest)
    return Estimate(float((closest < len(train)).mean()), math.sqrt(float((crowd**2).sum())) / (2 * len(rows)))


def _quantile(values: Float[ndarray, " n"], share: float) -> Estimate:
    """A quantile; its standard error from the order statistics that lie one of it away to either side."""
    reach = math.sqrt(share * (1 - share) / len(values))
    low, middle, high = np.quantile(values, [max(0.0, share - reach), share, min(1.0, share + reach)])
    return Estimate(float(middle), float(high - low) / 2)
