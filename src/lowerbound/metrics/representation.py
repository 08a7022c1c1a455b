"""Representation: how much of the labels a simple classifier reads off the codes.

Codes are good features if little has to be done to them: a linear classifier (Alain & Bengio 2016,
https://arxiv.org/abs/1610.01644), or no training at all, only the labels of the nearest neighbours. Both accuracies are
of rows that the classifier was not trained on. Without labels in the codes they are the share of the commonest class.

Standard errors are over rows, not over folds: each row is asked about once, and hit or not. They say how far the number
would move with other rows to ask about, the classifiers being as they are. The spread over folds would say less: there
are few, and they share most of their training rows.

Axes: ``n`` rows, ``*event`` one code, ``f`` columns of labels.
"""

import warnings

import numpy as np
import torch
from jaxtyping import Num, Shaped
from numpy import ndarray
from torch import Tensor

from .estimate import Estimate
from .rows import choose, finite_rows

CHUNK = 2**22


def linear_probe(
    codes: Shaped[Tensor, "n *event"],
    labels: Num[Tensor, "..."],
    *,
    folds: int = 5,
    limit: int = 5000,
    seed: int = 0,
) -> Estimate:
    """The accuracy of logistic regression from codes to labels, on rows it was not trained on.

    Every dimension is standardised on the training rows, so that the unit of a dimension does not matter. Rows are
    dealt into folds class by class, as evenly as they go.

    Args:
        codes: Such as posterior means.
        labels: The class of each row, (n,); or a factor in each column, (n, f): then the mean of their accuracies.
        folds: How many parts; each is predicted from all the others.
        limit: At most so many rows are taken, at random.
        seed: Of which, and of the folds.

    Raises:
        ValueError: Not one label for each code, numbers that are not finite, fewer than two folds, or a column of
            labels that has not two classes of two rows or more each.
    """
    if folds < 2:
        raise ValueError(f"folds={folds}: a row is predicted from rows of other folds. Give folds=2 or more.")
    rows, columns = _labelled(codes, labels, limit, seed)
    hits = [_predicted(rows.cpu().numpy(), column.numpy(), folds) == column.numpy() for column in columns]
    return Estimate.of(torch.from_numpy(np.mean(hits, 0)))


def _predicted(rows: ndarray, column: ndarray, folds: int) -> ndarray:
    """Each row's class, said by a classifier of the other folds; the rows are in random order."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fold = np.empty(len(column), int)
    fold[column.argsort(kind="stable")] = np.arange(len(column)) % folds
    found = np.empty_like(column)
    with warnings.catch_warnings():
        # stopped short, it is a classifier too
        warnings.simplefilter("ignore", ConvergenceWarning)
        for i in np.unique(fold):
            classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
            found[fold == i] = classifier.fit(rows[fold != i], column[fold != i]).predict(rows[fold == i])
    return found


def neighbours_accuracy(
    codes: Shaped[Tensor, "n *event"],
    labels: Num[Tensor, "..."],
    *,
    k: int = 10,
    limit: int = 5000,
    seed: int = 0,
) -> Estimate:
    """How often the commonest label among the k other codes that are nearest is a code's own.

    Distances are Euclidean, in the units of the codes as they are: a dimension that has collapsed is small, and counts
    for little. Of labels that are equally common the one of the nearest code is taken.

    Args:
        codes: Such as posterior means.
        labels: The class of each row, (n,); or a factor in each column, (n, f): then the mean of their accuracies.
        k: How many neighbours.
        limit: At most so many rows are taken, at random.
        seed: Of which.

    Raises:
        ValueError: Not one label for each code, numbers that are not finite, a column of labels that has not two
            classes of two rows or more each, or not as many other rows as neighbours.
    """
    rows, columns = _labelled(codes, labels, limit, seed)
    n = len(rows)
    if not 1 <= k < n:
        raise ValueError(f"k={k} neighbours among {n} rows: a row has 1 to {n - 1} others. Give a k between them.")
    nearest = []
    for start in range(0, n, max(1, CHUNK // n)):
        part = torch.arange(start, min(n, start + max(1, CHUNK // n)))
        apart = torch.cdist(rows[part], rows)
        apart[part - start, part] = torch.inf
        nearest.append(apart.topk(k, largest=False).indices.cpu())
    near = torch.cat(nearest)
    # more weight for the nearer, all of it together too little to outvote one neighbour
    weight = (1 + 0.5 ** torch.arange(2, k + 2, dtype=torch.float64)).expand(n, k)
    hits = []
    for column in columns:
        votes = torch.zeros(n, int(column.max()) + 1, dtype=torch.float64).scatter_add_(1, column[near], weight)
        hits.append(votes.argmax(1) == column)
    return Estimate.of(torch.stack(hits).double().mean(0))


def _labelled(codes: Tensor, labels: Tensor, limit: int, seed: int) -> tuple[Tensor, list[Tensor]]:
    """At most `limit` codes in random order, and for each column of labels the number of their classes."""
    if len(codes) != len(labels):
        raise ValueError(f"{len(codes):,} codes and {len(labels):,} labels: give one label, or row of labels, a code.")
    chosen = choose(len(codes), limit, seed)
    rows = finite_rows("codes", codes[chosen.to(codes.device)])
    table = labels.cpu()[chosen].reshape(len(chosen), -1)
    columns = []
    for i, values in enumerate(table.T):
        _, column, counts = values.unique(return_inverse=True, return_counts=True)
        if int((counts >= 2).sum()) < 2:
            raise ValueError(
                f"column {i} of the labels has {len(counts):,} classes in {len(column):,} rows, and not two of them "
                "with two rows or more: there is nothing to predict. Leave it out, or give classes rather than numbers."
            )
        columns.append(column)
    return rows, columns
