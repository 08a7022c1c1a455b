"""The peers that fill holes, made of scikit-learn, on tables of numbers and levels.

A table is x (n, d) with levels as codes and NaN for holes. Linear models and neighbours see numbers standardised and
categories of more than two levels one-hot. What is filled is a mean for numbers, that mean rounded for ordinals, and
the likeliest level for categories.

`IterativeImputer` cannot fill categories: one-hot, the levels of a row add up to 1, so that each is foretold by the
others of its own column, and stays where it started. Here the same rounds are made column by column, with a logistic
regression for categories, as MICE has it; on tables of numbers the two are the same.

Axes: n rows, d columns, w numbers that stand for a row.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import KNNImputer
from sklearn.linear_model import BayesianRidge, LogisticRegression

from lowerbound.columns import Column

Imputer = Callable[[ndarray, Sequence[Column], int], ndarray]

# Rows that neighbours are looked for among, and that a forest or a logistic regression is fitted to.
CAP = 5_000
TREES = 100
# Passes over the columns.
ROUNDS = 10
FOREST_ROUNDS = 5


class Wide:
    """The numbers (n, w) that stand for the rows (n, d) of a table.

    Args:
        x: Rows to take means and deviations from.
        columns: What each column holds.
    """

    def __init__(self, x: ndarray, columns: Sequence[Column]) -> None:
        self.columns = columns
        self.mean, deviation = np.nanmean(x, 0), np.nanstd(x, 0)
        self.deviation = np.where(deviation > 0, deviation, 1.0)
        widths = [len(column.levels) if _is_hot(column) else 1 for column in columns]
        self.places = [range(end - width, end) for width, end in zip(widths, np.cumsum(widths), strict=True)]

    def encode(self, x: ndarray) -> ndarray:
        """Rows to numbers."""
        parts = []
        for i, column in enumerate(self.columns):
            if _is_hot(column):
                hot = (x[:, i, None] == np.arange(len(column.levels))).astype(float)
                hot[np.isnan(x[:, i])] = np.nan
                parts.append(hot)
            else:
                parts.append(((x[:, i] - self.mean[i]) / self.deviation[i])[:, None])
        return np.hstack(parts)

    def decode(self, wide: ndarray) -> ndarray:
        """Numbers to rows."""
        filled = []
        for i, column in enumerate(self.columns):
            own = wide[:, self.places[i]]
            hot = _is_hot(column)
            filled.append(_rounded(own.argmax(1) if hot else own[:, 0] * self.deviation[i] + self.mean[i], column))
        return np.stack(filled, 1)


def means(x: ndarray, columns: Sequence[Column], seed: int = 0) -> ndarray:
    """The mean of each column of numbers, the most frequent level of the others."""
    filled = x.copy()
    for i, column in enumerate(columns):
        known = x[~np.isnan(x[:, i]), i]
        most = np.bincount(known.astype(int)).argmax() if column.is_level else known.mean()
        filled[np.isnan(x[:, i]), i] = most
    return filled


def chained(x: ndarray, columns: Sequence[Column], seed: int) -> ndarray:
    """Each column by a regression on the others, in turn: MICE without its noise.

    van Buuren & Groothuis-Oudshoorn 2011, https://doi.org/10.18637/jss.v045.i03
    """
    generator = np.random.default_rng(seed)
    wide, filled = Wide(x, columns), means(x, columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a regression that has not converged is used all the same
        for _ in range(ROUNDS):
            for i in _from_the_fullest(x):
                logistic = _is_category(columns[i])
                model = LogisticRegression() if logistic else BayesianRidge()
                cap = CAP if logistic else None
                _refill(filled, x, columns, i, np.delete(wide.encode(filled), wide.places[i], 1), model, generator, cap)
    return filled


def nearest(x: ndarray, columns: Sequence[Column], seed: int) -> ndarray:
    """The mean of the five nearest rows that know the value."""
    wide = Wide(x, columns)
    among = np.random.default_rng(seed).permutation(len(x))[:CAP]
    imputer = KNNImputer(n_neighbors=5, keep_empty_features=True).fit(wide.encode(x[among]))
    return _kept(x, wide.decode(imputer.transform(wide.encode(x))))


def forests(x: ndarray, columns: Sequence[Column], seed: int) -> ndarray:
    """Each column by a random forest on the others, from the fullest on, until that changes more than the round before.

    Stekhoven & Bühlmann 2012, https://doi.org/10.1093/bioinformatics/btr597
    """
    generator = np.random.default_rng(seed)
    missing = np.isnan(x)
    levels = np.array([column.is_level for column in columns])
    filled = means(x, columns)
    last = np.array([np.inf, np.inf])
    for _ in range(FOREST_ROUNDS):
        before = filled.copy()
        for i in _from_the_fullest(x):
            kind = RandomForestClassifier if _is_category(columns[i]) else RandomForestRegressor
            forest = kind(TREES, max_features="sqrt", random_state=seed)
            _refill(filled, x, columns, i, np.delete(filled, i, 1), forest, generator, CAP)
        numbers, codes = missing & ~levels, missing & levels
        squares = ((filled - before)[numbers] ** 2).sum() / max(1e-12, (filled[numbers] ** 2).sum())
        change = np.array([squares, (filled != before)[codes].mean() if codes.any() else 0.0])
        if (change >= last)[[numbers.any(), codes.any()]].all():
            return before
        last = change
    return filled


PEERS: dict[str, Imputer] = {
    "column means and modes": means,
    "chained regressions (MICE)": chained,
    "KNNImputer, 5 neighbours": nearest,
    "random forests (missForest)": forests,
}
MEANS, CHAINED, *_ = PEERS
NOTES = (
    f"MICE: {ROUNDS} rounds of Bayesian ridge regression, logistic for categories; without them, IterativeImputer",
    f"missForest: {TREES} trees of sqrt(d) columns, {FOREST_ROUNDS} rounds at most",
    f"at most {CAP:,} rows to find neighbours among, and to fit forests and logistic regressions to",
)


def _is_hot(column: Column) -> bool:
    return column.kind == "category" and len(column.levels) > 2


def _is_category(column: Column) -> bool:
    return column.kind in ("category", "binary")


def _from_the_fullest(x: ndarray) -> list[int]:
    """The columns with holes, those with few first."""
    holes = np.isnan(x).sum(0)
    return [int(i) for i in holes.argsort(kind="stable") if holes[i]]


def _refill(
    filled: ndarray,
    x: ndarray,
    columns: Sequence[Column],
    i: int,
    others: ndarray,
    model: Any,
    generator: np.random.Generator,
    cap: int | None,
) -> None:
    """Fill one column by a model of it, given the others, that is fitted to rows where it is known."""
    missing = np.isnan(x[:, i])
    known = generator.permutation(np.flatnonzero(~missing))[:cap]
    if len(np.unique(x[known, i])) == 1:
        return  # there is nothing to tell apart, and the only value is there already
    model.fit(others[known], x[known, i])
    filled[missing, i] = _rounded(model.predict(others[missing]), columns[i])


def _rounded(values: ndarray, column: Column) -> ndarray:
    return np.rint(values).clip(0, len(column.levels) - 1).astype(float) if column.is_level else values


def _kept(x: ndarray, filled: ndarray) -> ndarray:
    """What is known stays as it is."""
    return np.where(np.isnan(x), filled, x)
