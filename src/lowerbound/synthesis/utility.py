"""Utility: whether what is learnt from synthetic rows holds for real ones.

A predictor of one column is trained on synthetic rows and tested on real ones; beside it stands the same predictor,
trained on as many real rows (Esteban et al. 2017, https://arxiv.org/abs/1706.02633, section 4.2: train on synthetic,
test on real). Both are gradient boosting of trees, which takes levels and holes as they are.

    F1      of a level, the harmonic mean of precision and recall; its mean over levels, each counting the same
    R2      1 - (mean squared error) / (variance of the truth)

Axes: ``n`` rows, ``m`` others, ``d`` columns, ``c`` levels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ..columns import Column
from ..metrics import Estimate
from .curves import area_under_curve
from .fidelity import Comparison, check, is_category
from .rows import choose, with_holes

ROWS = 50_000
RESAMPLED = 200


@dataclass(frozen=True)
class Utility:
    """How well one column is predicted on real rows, by training on synthetic and on real rows.

    Attributes:
        target: The column.
        scores: Of levels "f1_macro", "accuracy", and for two levels "auc"; of numbers "r2". Higher is better. The
            standard errors are those over the rows of the test.
        rows: How many it was trained on, of either sort.
        tested: How many real rows it was tested on.
    """

    target: str
    scores: Mapping[str, Comparison]
    rows: int
    tested: int


def utility(
    train: Float[ndarray, "n d"],
    test: Float[ndarray, "m _"],
    synthetic: Float[ndarray, "s _"],
    columns: Sequence[Column],
    target: str,
    *,
    seed: int = 0,
) -> Utility:
    """Train on synthetic rows and on real ones, and test on real ones.

    Args:
        train: Real rows to train on, NaN where a value is missing. At most 50,000 are taken.
        test: Real rows to test on.
        synthetic: Rows of the model, to train on; they are given the holes of the training rows.
        columns: What they hold.
        target: The name of the column to predict from the others. Rows that lack it are left out.
        seed: Of which rows, of the predictors, and of the resampling.

    Raises:
        ValueError: There is no such column, no other one to predict it from, or too few rows know it.
    """
    check(columns, train=train, test=test, synthetic=synthetic)
    names = [column.name for column in columns]
    if target not in names or len(names) < 2:
        raise ValueError(f"there is no column {target!r} to predict from others: the columns are {', '.join(names)}.")
    at = names.index(target)
    column = columns[at]
    others = [i for i in range(len(names)) if i != at]
    train, test = (rows[~np.isnan(rows[:, at])] for rows in (train, test))
    synthetic = synthetic[~np.isnan(synthetic[:, at])]
    generator = np.random.default_rng(seed)
    size = min(ROWS, len(train), len(synthetic))
    if size < 10 or len(test) < 10:
        raise ValueError(
            f"{size:,} rows to train on and {len(test):,} to test on know {target!r}, and 10 of each are needed. "
            "Choose another column."
        )
    train, synthetic = (rows[choose(generator, len(rows), size)] for rows in (train, synthetic))
    features = with_holes(synthetic[:, others], train[:, others])
    categories = is_category([columns[i] for i in others])
    scores = []
    for x, y in ((features, synthetic[:, at]), (train[:, others], train[:, at])):
        fit = _levels if column.is_level else _numbers
        scores.append(fit(x, y, test[:, others], test[:, at], categories, len(column.levels), seed))
    found = {name: Comparison(scores[0][name], scores[1][name]) for name in scores[0]}
    return Utility(target, found, size, len(test))


def f1_macro(truth: ndarray, predicted: ndarray, levels: int) -> float:
    """The mean over levels of F1 = 2 hits / (times it is true + times it is predicted), of those that occur at all."""
    hits, is_true, is_said = (
        np.bincount(values.astype(int), minlength=levels) for values in (truth[truth == predicted], truth, predicted)
    )
    occurs = is_true + is_said > 0
    return float((2 * hits[occurs] / (is_true + is_said)[occurs]).mean())


def r_squared(truth: ndarray, predicted: ndarray) -> float:
    """1 - (mean squared error) / (variance of the truth)."""
    return float(1 - ((truth - predicted) ** 2).mean() / max(truth.var(), np.finfo(float).tiny))


def _levels(
    x: ndarray, y: ndarray, new: ndarray, truth: ndarray, categories: list[bool], levels: int, seed: int
) -> dict[str, Estimate]:
    """Scores of a classifier."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    if len(np.unique(y)) > 1:
        # stopping early takes two rows of each level, and a rare one may have one
        model = HistGradientBoostingClassifier(
            categorical_features=categories, early_stopping=False, random_state=seed
        ).fit(x, y)
        of_class = model.predict_proba(new)
        predicted, score = model.classes_[of_class.argmax(1)], of_class[:, -1]
    else:
        # nothing else was there to learn
        predicted = score = np.full(len(new), y[0])
    found = {
        "f1_macro": _resampled(lambda a, b: f1_macro(a, b, levels), truth, predicted, seed),
        "accuracy": Estimate.of_share(int((predicted == truth).sum()), len(truth)),
    }
    if levels == 2 and len(np.unique(truth)) == 2:
        found["auc"] = area_under_curve(score[truth == 1], score[truth == 0])
    return found


def _numbers(
    x: ndarray, y: ndarray, new: ndarray, truth: ndarray, categories: list[bool], levels: int, seed: int
) -> dict[str, Estimate]:
    """The score of a regressor."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model: Any = HistGradientBoostingRegressor(categorical_features=categories, random_state=seed).fit(x, y)
    return {"r2": _resampled(r_squared, truth.astype(np.float64), model.predict(new), seed)}


def _resampled(score: Callable[[ndarray, ndarray], float], truth: ndarray, predicted: ndarray, seed: int) -> Estimate:
    """A score, and its standard error: how it scatters over samples of its own rows with replacement (bootstrap)."""
    generator = np.random.default_rng(seed)
    places = (generator.integers(len(truth), size=len(truth)) for _ in range(RESAMPLED))
    values = [score(truth[at], predicted[at]) for at in places]
    return Estimate(score(truth, predicted), float(np.std(values, ddof=1)))
