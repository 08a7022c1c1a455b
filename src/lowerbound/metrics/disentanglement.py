"""Disentanglement: whether each dimension of a code stands for one known factor of the data.

Three ways to ask, each with its scores, from 0 to 1 and higher for the better:

* **information**: which factor a dimension knows of. `mig`, `modularity`;
* **prediction**: which dimension a predictor of a factor uses. `dci`, `sap`;
* **intervention**: which dimension stays put when a factor does, all others being free. `factor_vae_score`,
  `beta_vae_score`, `irs`.

They do not agree, nor should they: some want one factor for a dimension (modularity, IRS, DCI's disentanglement),
others one dimension for a factor (MIG, SAP, DCI's completeness). Locatello et al. 2019, https://arxiv.org/abs/1811.12359,
compare them. What a score is by chance is what it gives to the same codes with their rows shuffled.

None of them sees the unit of a dimension, so that all are the same for rescaled codes. For that reason a constant
dimension is left out, but one that has collapsed and still moves a little counts like any other: give the active
dimensions only. Nor is there a simulator: where a score needs data that share the value of a factor, they are the rows
that have it.

Axes: ``n`` rows, ``*event`` one code, ``d`` its dimensions in one line, ``f`` factors.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num, Shaped
from numpy import ndarray
from torch import Tensor

from .rows import finite_rows

# Rows that share a factor's value, for one vote; and votes, half of them to learn from and half to be scored on.
SHARED, VOTES = 64, 2000
TREES = 30
# Rows below which no score means anything.
FEWEST = 20


@dataclass(frozen=True)
class Dci:
    """The three scores of Eastwood & Williams.

    Attributes:
        disentanglement: How much each dimension matters for one factor only.
        completeness: How much each factor is in one dimension only.
        informativeness: The accuracy with which all dimensions together predict the factors, on other rows.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def mig(codes: Shaped[Tensor, "n *event"], factors: Num[Tensor, "..."], seed: int = 0, *, bins: int = 20) -> float:
    """Mutual information gap: the mean over factors of (I_1 - I_2) / H, of the two dimensions that know most of it.

    1 for one dimension for each factor, if a dimension has as many bins as the factor has levels; by chance nearly 0.
    Chen et al. 2018, https://arxiv.org/abs/1802.04942, with the histograms of Locatello et al. 2019.

    Args:
        codes: Such as posterior means.
        factors: The level of each factor, (n, f); or of one, (n,).
        seed: Of nothing: there is no chance in it.
        bins: Into how many equal intervals each dimension is divided.

    Raises:
        ValueError: See `every_score`.
    """
    columns, levels = _checked(codes, factors)
    information = _information(columns, levels, bins)
    entropy = np.array([_entropy(np.bincount(column)) for column in levels.T])
    ranked = np.sort(np.vstack((np.zeros(len(entropy)), information)), 0)
    return float(((ranked[-1] - ranked[-2]) / entropy).mean())


def modularity(
    codes: Shaped[Tensor, "n *event"], factors: Num[Tensor, "..."], seed: int = 0, *, bins: int = 20
) -> float:
    """Modularity: the mean over dimensions of 1 - sum of I^2 over the other factors / ((f - 1) I_1^2).

    I_1 is the information of the factor that the dimension knows most of. 1 if each dimension knows of one factor, no
    matter how many dimensions know the same one. By chance it is far from 0: by the accident of its histogram a
    dimension that knows nothing has an information of about (bins - 1) (levels - 1) / 2 n of each factor, most of the
    factor with the most levels. For the six factors of `shapes` that makes 0.8.
    Ridgeway & Mozer 2018, https://arxiv.org/abs/1802.05312

    Args:
        codes: Such as posterior means.
        factors: The level of each factor, (n, f), of two factors or more.
        seed: Of nothing: there is no chance in it.
        bins: Into how many equal intervals each dimension is divided.

    Raises:
        ValueError: See `every_score`.
    """
    columns, levels = _checked(codes, factors, fewest_factors=2)
    squares = np.square(_information(columns, levels, bins))
    top = squares.max(1)
    top[top == 0] = 1
    return float((1 - (squares.sum(1) - squares.max(1)) / (top * (levels.shape[1] - 1))).mean())


def dci(codes: Shaped[Tensor, "n *event"], factors: Num[Tensor, "..."], seed: int = 0) -> Dci:
    """Disentanglement, completeness and informativeness, by random forests.

    The importance of dimension i for factor k is the impurity that it takes out of a forest's trees that predict the
    factor. Disentanglement is 1 - entropy over factors of the importances of a dimension, in units of log f, the mean
    over dimensions by importance; completeness is the same the other way round. Every split looks at all dimensions:
    if it saw a few at random, those that say nothing would be used where the one that does is not seen.

    By chance disentanglement and completeness are nearly 0, and informativeness is the share of the commonest level.
    Eastwood & Williams 2018, https://openreview.net/forum?id=By-7dz-AZ

    Args:
        codes: Such as posterior means.
        factors: The level of each factor, (n, f), of two factors or more.
        seed: Of the forests and of the half of the rows that they learn from.

    Raises:
        ValueError: See `every_score`.
    """
    from sklearn.ensemble import RandomForestClassifier

    columns, levels = _checked(codes, factors, fewest_factors=2)
    learn, test = _halves(len(columns), seed)
    importances, accuracies = [], []
    for column in levels.T:
        forest = RandomForestClassifier(TREES, max_features=None, min_samples_leaf=2, random_state=seed)
        forest.fit(columns[learn], column[learn])
        importances.append(forest.feature_importances_)
        accuracies.append(np.mean(forest.predict(columns[test]) == column[test]))
    matrix = np.stack(importances, 1)
    return Dci(_concentration(matrix), _concentration(matrix.T), float(np.mean(accuracies)))


def sap(codes: Shaped[Tensor, "n *event"], factors: Num[Tensor, "..."], seed: int = 0) -> float:
    """Separated attribute predictability: how much better the best dimension predicts a factor than the second best.

    A dimension predicts a factor by thresholds, one fewer than there are levels, that a small tree learns from half of
    the rows; it is scored by its balanced accuracy on the other half, the mean over levels. Perfect codes reach the
    mean over factors of 1 - 1 / levels, as the second best dimension guesses; by chance it is nearly 0.
    Kumar et al. 2018, https://arxiv.org/abs/1711.00848

    Args:
        codes: Such as posterior means.
        factors: The level of each factor, (n, f); or of one, (n,).
        seed: Of which half.

    Raises:
        ValueError: See `every_score`.
    """
    from sklearn.tree import DecisionTreeClassifier

    columns, levels = _checked(codes, factors)
    learn, test = _halves(len(columns), seed)
    gaps = []
    for column in levels.T:
        seen = np.unique(column[test])
        accuracies = [1 / len(seen)]  # what a dimension that is not there would guess
        for code in columns.T:
            tree = DecisionTreeClassifier(
                max_leaf_nodes=int(column.max()) + 1, class_weight="balanced", random_state=seed
            )
            hit = tree.fit(code[learn, None], column[learn]).predict(code[test, None]) == column[test]
            accuracies.append(float(np.mean([hit[column[test] == level].mean() for level in seen])))
        second, best = np.sort(accuracies)[-2:]
        gaps.append(best - second)
    return float(np.mean(gaps))


def factor_vae_score(codes: Shaped[Tensor, "n *event"], factors: Num[Tensor, "..."], seed: int = 0) -> float:
    """FactorVAE score: how well the dimension that varies least tells which factor was held.

    A vote takes rows that share the value of one factor, and the dimension of least variance among them, in units of
    its variance among all rows. Each dimension stands for the factor that most votes connect it with; the score is the
    accuracy of that on other votes. 1 for perfect codes; by chance nearly 1 / f.
    Kim & Mnih 2018, https://arxiv.org/abs/1802.05983

    Args:
        codes: Such as posterior means.
        factors: The level of each factor, (n, f), of two factors or more.
        seed: Of the votes.

    Raises:
        ValueError: See `every_score`.
    """
    columns, levels = _checked(codes, factors, fewest_factors=2)
    rng = np.random.default_rng(seed)
    held = rng.integers(levels.shape[1], size=VOTES)
    groups = [_groups(column) for column in levels.T]
    least = np.empty(VOTES, int)
    for i, k in enumerate(held):
        group = groups[k][rng.integers(len(groups[k]))]
        least[i] = columns[rng.permutation(group)[:SHARED]].var(0, ddof=1).argmin()
    learn, test = slice(VOTES // 2), slice(VOTES // 2, None)
    table = np.zeros((columns.shape[1], levels.shape[1]))
    np.add.at(table, (least[learn], held[learn]), 1)
    return float((table.argmax(1)[least[test]] == held[test]).mean())


def beta_vae_score(codes: Shaped[Tensor, "n *event"], factors: Num[Tensor, "..."], seed: int = 0) -> float:
    """beta-VAE score: how well a linear classifier tells which factor was held, from how far codes are apart.

    A vote takes pairs of rows that share the value of one factor, and in each dimension the mean over pairs of
    |z - z'|. The score is the classifier's accuracy on other votes. 1 for perfect codes, and for many that are not: it
    sees all dimensions at once. By chance nearly 1 / f. Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl

    Args:
        codes: Such as posterior means.
        factors: The level of each factor, (n, f), of two factors or more.
        seed: Of the votes.

    Raises:
        ValueError: See `every_score`.
    """
    from sklearn.linear_model import LogisticRegression

    columns, levels = _checked(codes, factors, fewest_factors=2)
    rng = np.random.default_rng(seed)
    held = rng.integers(levels.shape[1], size=VOTES)
    apart = np.empty((VOTES, columns.shape[1]))
    for k, column in enumerate(levels.T):
        votes = np.flatnonzero(held == k)
        groups = _groups(column)
        order, size = np.concatenate(groups), np.array([len(group) for group in groups])
        start = np.cumsum(size) - size
        of = rng.integers(len(groups), size=(len(votes), SHARED))
        first = rng.integers(size[of])
        other = (first + rng.integers(1, size[of])) % size[of]  # never the row itself
        difference = columns[order[start[of] + first]] - columns[order[start[of] + other]]
        apart[votes] = np.abs(difference).mean(1)
    learn, test = slice(VOTES // 2), slice(VOTES // 2, None)
    spread = apart[learn].std(0)
    apart = (apart - apart[learn].mean(0)) / np.where(spread > 0, spread, 1)
    classifier = LogisticRegression(max_iter=1000).fit(apart[learn], held[learn])
    return float(classifier.score(apart[test], held[test]))


def irs(
    codes: Shaped[Tensor, "n *event"], factors: Num[Tensor, "..."], seed: int = 0, *, quantile: float = 0.99
) -> float:
    """Interventional robustness: how little a dimension moves while its factor is held and the others change.

    Of dimension i and factor k it is 1 - the mean over the values of k of how far the dimension gets from its mean
    among the rows with that value, in units of how far it gets among all rows; the score is the mean over dimensions of
    that of their best factor. "How far" is the same high quantile of the distances in both, so that noise scores nearly
    0. 1 for perfect codes. Suter et al. 2019, https://arxiv.org/abs/1811.00007

    Args:
        codes: Such as posterior means.
        factors: The level of each factor, (n, f); or of one, (n,).
        seed: Of nothing: there is no chance in it.
        quantile: What is taken for the furthest; 1 is the furthest itself.

    Raises:
        ValueError: See `every_score`.
    """
    columns, levels = _checked(codes, factors)

    def furthest(rows: ndarray) -> ndarray:
        return np.quantile(np.abs(rows - rows.mean(0)), quantile, axis=0)

    moved = np.zeros((columns.shape[1], levels.shape[1]))
    for k, column in enumerate(levels.T):
        for level, count in enumerate(np.bincount(column)):
            moved[:, k] += count / len(column) * furthest(columns[column == level])
    return float((1 - moved / furthest(columns)[:, None]).max(1).clip(min=0).mean())


SCORES: dict[str, Callable[..., float]] = {
    "MIG": mig,
    "SAP": sap,
    "modularity": modularity,
    "IRS": irs,
    "FactorVAE score": factor_vae_score,
    "beta-VAE score": beta_vae_score,
}


def every_score(codes: Shaped[Tensor, "n *event"], factors: Num[Tensor, "..."], seed: int = 0) -> dict[str, float]:
    """All scores by name: those of `SCORES`, and the three of `dci`.

    Args:
        codes: Such as posterior means.
        factors: The level of each factor, (n, f), of two factors or more.
        seed: Of what is drawn.

    Raises:
        ValueError: Not one row of factors for each code, fewer than 20 of them, numbers that are not finite, a factor
            that is constant or whose levels have hardly a row each, codes that are all constant, or fewer factors than
            the score compares.
    """
    found = {name: score(codes, factors, seed) for name, score in SCORES.items()}
    three = dci(codes, factors, seed)
    return found | {
        "DCI disentanglement": three.disentanglement,
        "DCI completeness": three.completeness,
        "DCI informativeness": three.informativeness,
    }


def _checked(codes: Tensor, factors: Tensor, fewest_factors: int = 1) -> tuple[ndarray, ndarray]:
    """Codes (n, d) standardised, without constant dimensions, and the levels of the factors (n, f), counted from 0."""
    if len(codes) != len(factors) or len(codes) < FEWEST:
        raise ValueError(
            f"{len(codes):,} codes and {len(factors):,} rows of factors: give a row of factors for each code, and "
            f"{FEWEST} rows or more."
        )
    columns = finite_rows("codes", codes).cpu().numpy()
    table = finite_rows("factors", factors).cpu().numpy()
    if table.shape[1] < fewest_factors:
        raise ValueError(
            f"factors has {table.shape[1]} columns: the score is about telling factors apart. Give {fewest_factors} or "
            "more."
        )
    levels = np.stack([np.unique(column, return_inverse=True)[1] for column in table.T], 1)
    for k, column in enumerate(levels.T):
        count = int(column.max()) + 1
        if count < 2 or 2 * count > len(column):
            raise ValueError(
                f"factor {k} has {count:,} levels in {len(column):,} rows: a factor takes two levels or more, and each "
                "needs rows that share it. Leave it out, give more rows, or round it to fewer levels."
            )
    spread = np.ptp(columns, axis=0)
    moves = spread > 1e-9 * np.abs(columns).max(0)
    if not moves.any():
        raise ValueError(
            "every dimension of the codes is constant: they say nothing. Look at the KL of each dimension."
        )
    columns = columns[:, moves]
    return (columns - columns.mean(0)) / columns.std(0), levels


def _information(columns: ndarray, levels: ndarray, bins: int) -> Float[ndarray, "d f"]:
    """The mutual information of the histogram of each dimension and each factor, in nats."""
    if bins < 2:
        raise ValueError(f"bins={bins}: a histogram that says something has two bins or more.")
    low, high = columns.min(0), columns.max(0)
    binned = ((columns - low) / (high - low) * bins).astype(int).clip(max=bins - 1)
    found = np.empty((columns.shape[1], levels.shape[1]))
    for k, column in enumerate(levels.T):
        count = int(column.max()) + 1
        for i, code in enumerate(binned.T):
            joint = np.bincount(code * count + column, minlength=bins * count).reshape(bins, count)
            found[i, k] = _entropy(joint.sum(0)) + _entropy(joint.sum(1)) - _entropy(joint.ravel())
    return found.clip(min=0)


def _entropy(counts: ndarray) -> float:
    """The entropy of frequencies, in nats."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def _concentration(importances: Float[ndarray, "rows columns"]) -> float:
    """1 - entropy of each row in units of that of equal values, the mean over rows by their sums."""
    sums, width = importances.sum(1), importances.shape[1]
    if width == 1 or sums.sum() == 0:
        return float(width == 1)
    each = [1 - _entropy(row) / np.log(width) for row in importances[sums > 0]]
    return float(np.average(each, weights=sums[sums > 0]))


def _halves(n: int, seed: int) -> tuple[ndarray, ndarray]:
    """The rows to learn from, and the others, at random."""
    order = np.random.default_rng(seed).permutation(n)
    return order[: n // 2], order[n // 2 :]


def _groups(column: ndarray) -> list[ndarray]:
    """The rows of each level that has two or more."""
    order = column.argsort(kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(column))[:-1])
    return [group for group in groups if len(group) > 1]
