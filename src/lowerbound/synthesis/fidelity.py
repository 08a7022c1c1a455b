"""Fidelity: whether synthetic rows look like real ones, column by column, pair by pair, and all at once.

    marginals   numbers: the Kolmogorov-Smirnov distance max_t |F(t) - G(t)|, and Wasserstein's, the integral of
                |F - G|, in standard deviations; levels: the total variation, half the sum of |p - q|
    pairs       an association of each pair of columns: the correlation of ranks of numbers (Spearman), the correlation
                ratio of ranks between the levels of another column, Cramér's V of two columns of levels; and how far
                they are off in the mean
    all at once the area under the curve of a classifier that tells real rows from synthetic ones that it was not
                trained on: 0.5 if it cannot, 1 if it always can (Lopez-Paz & Oquab 2017,
                https://arxiv.org/abs/1610.06545, with the area in place of the accuracy)

All but the last are distances of samples: between samples of one distribution they are not 0, but of the order of
1/sqrt(n). So training rows are held against the same held-out rows, in sets of the same size.

Axes: ``n``, ``m`` rows, ``d`` columns, ``f`` folds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from ..columns import Column
from ..metrics import Estimate
from .curves import area_under_curve
from .rows import affordable, choose, with_holes

# Sets of rows that are compared, each of at most so many rows.
SETS, ROWS = 8, 3000
FOLDS = 5
# Columns whose pairs are looked at: of more, so many evenly spread.
PAIRED = 40
# Levels that a classifier can take as such; more are numbers to it.
MOST_LEVELS = 255


@dataclass(frozen=True)
class Comparison:
    """A number for synthetic rows, and the same for real ones: what a perfect model would get.

    Its standard errors are those over which rows were drawn; the held-out rows are the same throughout.
    """

    synthetic: Estimate
    real: Estimate

    def summary(self) -> dict[str, dict[str, float | None]]:
        """The numbers, JSON-able."""
        return {"synthetic": self.synthetic.summary(), "real": self.real.summary()}


@dataclass(frozen=True)
class Marginal:
    """How far the distribution of one column is off.

    Attributes:
        column: Which.
        distance: Kolmogorov-Smirnov's of numbers, total variation of levels: from 0 to 1.
        shift: Wasserstein's, in standard deviations of the held-out values; None of levels.
    """

    column: Column
    distance: Comparison
    shift: Comparison | None


@dataclass(frozen=True)
class Fidelity:
    """How alike synthetic and held-out rows are.

    Attributes:
        marginals: Of each column.
        pairs: The mean absolute difference of associations over pairs of columns (of at most 40); None of one column.
        told_apart: The area under the curve of a classifier that tells them apart.
        rows: In each set that was compared.
        sets: How many of synthetic, and as many of training rows.
    """

    marginals: tuple[Marginal, ...]
    pairs: Comparison | None
    told_apart: Comparison
    rows: int
    sets: int


def fidelity(
    train: Float[ndarray, "n d"],
    held_out: Float[ndarray, "m _"],
    synthetic: Float[ndarray, "s _"],
    columns: Sequence[Column],
    *,
    seed: int = 0,
) -> Fidelity:
    """Hold synthetic rows, and training rows, against held-out rows.

    Args:
        train: The rows that the model was trained on, NaN where a value is missing.
        held_out: Rows that it was not.
        synthetic: Its rows: as many as there are training rows make the standard errors as small as they get.
        columns: What they hold.
        seed: Of which rows, of the folds, and of the classifiers.

    Raises:
        ValueError: Fewer than ten rows of one of the three, or a number of columns that differs.
    """
    check(columns, train=train, held_out=held_out, synthetic=synthetic)
    generator = np.random.default_rng(seed)
    size = min(affordable(len(columns), ROWS), *(len(rows) for rows in (train, held_out, synthetic)))
    known = held_out[choose(generator, len(held_out), size)]
    sets = min(SETS, len(train) // size, len(synthetic) // size)
    drawn = [
        [with_holes(part, known) if made else part for part in _sets(generator, rows, sets, size)]
        for rows, made in ((synthetic, True), (train, False))
    ]
    marginals = []
    for i, column in enumerate(columns):
        found = [[marginal_distance(column, known[:, i], part[:, i]) for part in parts] for parts in drawn]
        distance, shift = (Comparison(*(_mean([pair[at] for pair in side]) for side in found)) for at in (0, 1))
        marginals.append(Marginal(column, distance, None if column.is_level else shift))
    chosen = np.unique(np.linspace(0, len(columns) - 1, PAIRED).astype(int))
    hangs = lambda rows: associations(rows[:, chosen], [columns[i] for i in chosen])
    truth = hangs(known)
    off = [_mean([difference(truth, hangs(part)) for part in parts]) for parts in drawn]
    told = [told_apart(known, parts[0], columns, seed=seed) for parts in drawn]
    pairs = Comparison(*off) if len(columns) > 1 else None
    return Fidelity(tuple(marginals), pairs, Comparison(*told), size, sets)


def marginal_distance(column: Column, a: Float[ndarray, " n"], b: Float[ndarray, " m"]) -> tuple[float, float]:
    """How far two samples of a column are apart: by Kolmogorov-Smirnov or total variation, and by Wasserstein.

    Args:
        column: What they are.
        a: Values, NaN where missing; those are left out.
        b: Others.

    Returns:
        The distance from 0 to 1, and that of numbers in standard deviations of a; NaN where there is none.
    """
    a, b = (values[~np.isnan(values)].astype(np.float64) for values in (a, b))
    if len(a) == 0 or len(b) == 0:
        return math.nan, math.nan
    if column.is_level:
        shares = [np.bincount(v.astype(int), minlength=len(column.levels)) / len(v) for v in (a, b)]
        return float(np.abs(shares[0] - shares[1]).sum() / 2), math.nan
    places = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(np.sort(values), places, side="right") / len(values) for values in (a, b)]
    gap = np.abs(below[0] - below[1])
    spread = float(a.std())
    shift = float((gap[:-1] * np.diff(places)).sum()) / spread if spread > 0 else math.nan
    return float(gap.max()), shift


def associations(rows: Float[ndarray, "n d"], columns: Sequence[Column]) -> Float[ndarray, "d d"]:
    """How each pair of columns hangs together: from -1 to 1 for two of numbers, else from 0 to 1; symmetric.

    Of numbers it is the correlation of ranks, of two columns of levels Cramér's V, and of one of each the correlation
    ratio: the root of the share of the variance of the ranks that lies between the levels. Each is taken on the rows
    that know both; it is NaN where nothing varies there, and 1 on the diagonal.
    """
    levels = [column.is_level for column in columns]
    known = ~np.isnan(rows)
    ranks = np.stack([_ranks(rows[:, i]) for i in range(len(columns))], 1)
    # whether a row has each level of a column of levels: what is missing has none
    ones = {
        i: (np.nan_to_num(rows[:, i, None], nan=-1) == np.arange(len(column.levels))).astype(np.float64)
        for i, column in enumerate(columns)
        if column.is_level
    }
    found = np.eye(len(columns))
    for i in range(len(columns)):
        for j in range(i):
            if levels[i] and levels[j]:
                value = _cramer(ones[i].T @ ones[j])
            else:
                both = known[:, i] & known[:, j]
                if levels[i] or levels[j]:
                    level, number = (i, j) if levels[i] else (j, i)
                    value = _ratio(ones[level][both], ranks[both, number])
                else:
                    value = _correlation(ranks[both, i], ranks[both, j])
            found[i, j] = found[j, i] = value
    return found


def difference(a: Float[ndarray, "d d"], b: Float[ndarray, "d d"]) -> float:
    """The mean absolute difference of associations over pairs of columns; NaN where no pair has any."""
    off = np.abs(a - b)[np.tril_indices(len(a), -1)]
    off = off[~np.isnan(off)]
    return float(off.mean()) if len(off) else math.nan


def told_apart(
    real: Float[ndarray, "n d"], other: Float[ndarray, "m d"], columns: Sequence[Column], *, seed: int = 0
) -> Estimate:
    """How well gradient boosting tells two sets of rows apart: the area under its curve on rows it was not trained on.

    Args:
        real: Rows of one.
        other: Rows of the other, with such holes as the first ones have, see `with_holes`.
        columns: What they hold.
        seed: Of the folds, and of the classifiers.

    Returns:
        The mean over folds, with its standard error, the classifiers being as they are. Below 0.5 by several standard
        errors, rows of one are copies of rows of the other, which the classifier has seen under the other name.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    generator = np.random.default_rng(seed)
    x = np.concatenate([real, other])
    y = np.arange(len(x)) >= len(real)
    fold = np.concatenate([generator.permutation(np.arange(len(rows)) % FOLDS) for rows in (real, other)])
    found = []
    for i in range(FOLDS):
        classifier = HistGradientBoostingClassifier(
            max_iter=60, categorical_features=is_category(columns), early_stopping=False, random_state=seed
        )
        classifier.fit(x[fold != i], y[fold != i])
        score = classifier.predict_proba(x[fold == i])[:, 1]
        found.append(area_under_curve(score[y[fold == i]], score[~y[fold == i]]))
    error = math.sqrt(sum(estimate.standard_error**2 for estimate in found)) / FOLDS
    return Estimate(sum(estimate.mean for estimate in found) / FOLDS, error)


def is_category(columns: Sequence[Column]) -> list[bool]:
    """Which columns a classifier takes as levels without order."""
    return [column.kind in ("category", "binary") and len(column.levels) <= MOST_LEVELS for column in columns]


def check(columns: Sequence[Column], **rows: Float[ndarray, "_ _"]) -> None:
    """Refuse sets of rows that cannot be compared.

    Raises:
        ValueError: Fewer than ten rows in one of them, or a number of columns that differs.
    """
    wrong = [f"{name} has {len(x):,} rows, and 10 are needed" for name, x in rows.items() if len(x) < 10]
    wrong += [
        f"{name} has {x.shape[1]} columns, and {len(columns)} are described"
        for name, x in rows.items()
        if x.shape[1] != len(columns)
    ]
    if wrong:
        raise ValueError(f"these rows cannot be compared: {'; '.join(wrong)}. Give more rows of the same table.")


def _sets(generator: np.random.Generator, rows: ndarray, sets: int, size: int) -> list[ndarray]:
    """Sets of rows that have none in common."""
    return np.split(rows[choose(generator, len(rows), sets * size)], sets)


def _mean(values: Sequence[float]) -> Estimate:
    return Estimate.of(torch.tensor(values, dtype=torch.float64))


def _ranks(x: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    """The rank of each value among those that are known, the mean of them where values are equal."""
    values, at, counts = np.unique(x[~np.isnan(x)], return_inverse=True, return_counts=True)
    ranks = np.full(len(x), np.nan)
    if len(values):
        ranks[~np.isnan(x)] = (np.cumsum(counts) - (counts - 1) / 2)[at]
    return ranks


def _correlation(a: ndarray, b: ndarray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def _ratio(ones: ndarray, x: ndarray) -> float:
    """The correlation ratio of numbers between levels."""
    counts = ones.sum(0)
    if (counts > 0).sum() < 2 or np.ptp(x) == 0:
        return math.nan
    x = x - x.mean()
    sums = (x @ ones)[counts > 0]
    return math.sqrt(min(1.0, float((sums**2 / counts[counts > 0]).sum() / (x @ x))))


def _cramer(counts: ndarray) -> float:
    """Cramér's V of a table of counts."""
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    if min(counts.shape) < 2:
        return math.nan
    n = counts.sum()
    expected = np.outer(counts.sum(1), counts.sum(0)) / n
    square = float(((counts - expected) ** 2 / expected).sum())
    return math.sqrt(square / (n * (min(counts.shape) - 1)))
