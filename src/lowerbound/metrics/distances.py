"""Distances between two sets of rows: samples of a model and data that it has not seen.

* The **squared maximum mean discrepancy** of two distributions is E k(x, x') + E k(y, y') - 2 E k(x, y), the squared
  distance of their mean embeddings under a kernel k: 0 if and only if they are the same, for the kernels here (Gretton
  et al. 2012, https://jmlr.org/papers/v13/gretton12a.html). Estimated without bias, so that it may fall below 0.
* A **classifier two-sample test** asks whether a classifier can tell rows of one from rows of the other that it was not
  trained on: its accuracy is 1/2 if they are the same distribution, and at most 1/2 + TV/2 for distributions at total
  variation TV (Lopez-Paz & Oquab 2017, https://arxiv.org/abs/1610.06545). It is a lower bound on what can be told.

Both are taken on the rows as they are given. On pixels they see noise and blur before they see shape; on the features
of a classifier of the labels, `class_features`, they see what tells the classes apart, and nothing else.

Axes: ``n``, ``m`` rows, ``*event`` one row, ``f`` columns of labels, ``features`` what a classifier makes of a row.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from .estimate import Estimate
from .rows import choose, finite_rows

# Bandwidths of the kernel, in units of the median distance.
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0)
HIDDEN, FEATURES, BATCH = 128, 64, 128
# A classifier is trained until it has not got better for PATIENCE epochs, and for STEPS steps or EPOCHS at most.
PATIENCE, EPOCHS, STEPS = 4, 40, 4000
# Standardised values are cut off here: a pixel that is black in all rows but one is no reason to go wild.
CUT = 5.0


def squared_mmd(
    x: Shaped[Tensor, "n *event"],
    y: Shaped[Tensor, "m ..."],
    *,
    bandwidths: Sequence[float] | None = None,
    limit: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The squared maximum mean discrepancy of two distributions, without bias, from rows of each.

    The kernel is the mean over bandwidths h of exp(-|x - y|^2 / 2 h^2). It has no unit: 0 for the same distribution, 2
    for two points far apart. The standard error is the jackknife's, less what it counts twice: the part that is due to
    pairs rather than rows, which is all there is when both are the same. Sutherland & Deka 2019,
    https://arxiv.org/abs/1906.02104, derive both parts.

    Args:
        x: Rows of one.
        y: Rows of the other.
        bandwidths: In units of the rows; a quarter to twice the median distance of different rows if not given. They
            are then taken from the rows of both: compare models by bandwidths that are the same for all.
        limit: At most so many rows of each are taken, at random.
        seed: Of which.

    Raises:
        ValueError: Rows of different shapes, fewer than four of them, numbers that are not finite, or bandwidths that
            are not positive.
    """
    first, second = _pair(x, y, limit, seed, fewest=4)
    both = torch.cat((first, second))
    # centred, so that float32 does for the distances; their kernel is added up in double precision
    both = (both - both.mean(0)).float()
    n, m = len(first), len(second)
    squares = torch.cdist(both, both).square_()
    if bandwidths is None:
        some = squares[::4]
        apart = some[some > 0]
        middle = apart.median().sqrt().item() if len(apart) else 1.0
        bandwidths = [middle * factor for factor in BANDWIDTHS]
    if not bandwidths or min(bandwidths) <= 0:
        raise ValueError(f"bandwidths={list(bandwidths)}: give one or more positive lengths, in units of the rows.")
    kernel = torch.zeros_like(squares)
    for h in bandwidths:
        kernel += torch.exp(squares * (-0.5 / (h * h)))
    kernel = kernel.fill_diagonal_(0).double() / len(bandwidths)
    xx, xy, yy = kernel[:n, :n], kernel[:n, n:], kernel[n:, n:]
    # what each row contributes: its mean over the others of its own kind, less that over the other kind
    of_x = xx.sum(1) / (n - 1) - xy.mean(1)
    of_y = yy.sum(1) / (m - 1) - xy.mean(0)
    jackknife = 4 * of_x.var() / n + 4 * of_y.var() / m
    paired = 2 * _paired(xx) / n**2 + 2 * _paired(yy) / m**2 + 4 * _interaction(xy).square().mean() / (n * m)
    variance = (jackknife - paired).clamp(min=paired)
    return Estimate((of_x.mean() + of_y.mean()).item(), variance.sqrt().item())


def _paired(kernel: Tensor) -> Tensor:
    """The variance of a symmetric kernel that neither of its rows explains, from the values off the diagonal."""
    n = len(kernel)
    rows = kernel.sum(1) / (n - 2)
    total = kernel.sum() / ((n - 1) * (n - 2))
    left = (kernel - rows[:, None] - rows[None, :] + total).fill_diagonal_(0)
    return left.square().sum() / (n * (n - 1))


def _interaction(kernel: Tensor) -> Tensor:
    """What neither its row nor its column explains of each value."""
    return kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()


def classifier_test(
    x: Shaped[Tensor, "n *event"], y: Shaped[Tensor, "m ..."], *, folds: int = 4, limit: int = 2000, seed: int = 0
) -> Estimate:
    """How often a classifier tells rows of x from rows of y that it was not trained on; 0.5 if nobody can.

    A small network, trained on all folds but one and asked about that one, for each fold. As many rows are taken of one
    as of the other. The standard error is that of the share of rows told right, the classifiers being as they are.

    Below 0.5 by several standard errors, rows of one are copies of rows of the other: the classifier has seen the copy
    under the other name.

    Args:
        x: Rows of one, such as data the model has not seen.
        y: Rows of the other, such as samples of the model.
        folds: How many parts the rows are dealt into.
        limit: At most so many rows of each are taken, at random.
        seed: Of which, of the folds, and of the networks.

    Raises:
        ValueError: Rows of different shapes, fewer than ten for each fold, or numbers that are not finite.
    """
    if folds < 2:
        raise ValueError(f"folds={folds}: the rows asked about are others than those trained on. Give folds=2 or more.")
    first, second = _pair(x, y, limit, seed, fewest=5 * folds)
    n = min(len(first), len(second))
    rows = torch.cat((first[:n], second[:n]))
    side = torch.arange(2 * n, device=rows.device) // n
    fold = torch.arange(2 * n, device=rows.device) % n % folds
    hits = 0
    for i in range(folds):
        body, heads = _fit(rows[fold != i], side[fold != i, None], [2], seed + i)
        with torch.no_grad():
            hits += int((heads(body(rows[fold == i])).argmax(1) == side[fold == i]).sum())
    return Estimate.of_share(hits, 2 * n)


def class_features(
    x: Shaped[Tensor, "n *event"],
    labels: Num[Tensor, "..."],
    *,
    limit: int = 10_000,
    seed: int = 0,
) -> Callable[[Shaped[Tensor, "n ..."]], Float[Tensor, "n features"]]:
    """Features that tell the classes apart: the last hidden layer of a small classifier of the labels.

    The same rows, labels and seed give the same features.

    Args:
        x: Rows to train on; not those that are to be compared, on which it would be surer than on others.
        labels: The class of each row, (n,); or a factor in each column, (n, f).
        limit: At most so many rows are taken, at random.
        seed: Of which, and of the network.

    Returns:
        A function of rows, such as those of x, to their 64 features.

    Raises:
        ValueError: Not one label for each row, labels of one class only, fewer than ten rows, or numbers that are not
            finite.
    """
    if len(x) != len(labels) or len(x) < 10:
        raise ValueError(f"{len(x)} rows and {len(labels)} labels: give at least ten rows, and one label for each.")
    chosen = choose(len(x), limit, seed)
    rows = finite_rows("x", x[chosen])
    columns = [column.unique(return_inverse=True)[1] for column in labels[chosen].reshape(len(chosen), -1).T]
    sizes = [int(column.max()) + 1 for column in columns]
    if min(sizes) < 2:
        raise ValueError(
            f"column {sizes.index(min(sizes))} of the labels has one class only: there is nothing to tell apart. "
            "Leave it out."
        )
    body, _ = _fit(rows, torch.stack(columns, 1).to(rows.device), sizes, seed)
    event = x.shape[1:]

    @torch.no_grad()
    def features(more: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n features"]:
        if more.shape[1:] != event:
            raise ValueError(f"rows of shape {tuple(more.shape[1:])}: the features are of rows {tuple(event)}.")
        return torch.cat([body(part) for part in finite_rows("rows", more).split(4096)])

    return features


class _Standardize(nn.Module):
    """Rows in units of their own spread, cut off where it gets wild."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.shift, unit = rows.mean(0), rows.std(0)
        self.unit = torch.where(unit > 0, unit, torch.ones_like(unit))

    def forward(self, rows: Tensor) -> Tensor:
        return ((rows - self.shift) / self.unit).clamp(-CUT, CUT).float()


def _fit(rows: Tensor, labels: Tensor, sizes: Sequence[int], seed: int) -> tuple[nn.Module, nn.Module]:
    """A body rows -> features and heads features -> logits of all columns of labels, side by side.

    An eighth of the rows says when to stop: the network is the one that did best on it.
    """
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).to(rows.device)
    held, kept = order[: len(rows) // 8 + 1], order[len(rows) // 8 + 1 :]
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        standardize = _Standardize(rows[kept])
        layers = nn.Sequential(nn.Linear(rows.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, FEATURES), nn.ReLU())
        net = nn.Sequential(layers, nn.Linear(FEATURES, sum(sizes))).to(rows.device)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
        inputs = standardize(rows)

        def loss(of: Tensor) -> Tensor:
            parts = net(inputs[of]).split(list(sizes), 1)
            columns = zip(parts, labels[of].unbind(1), strict=True)
            return torch.stack([F.cross_entropy(part, column) for part, column in columns]).sum()

        best, since, state = float("inf"), 0, net.state_dict()
        for _ in range(max(1, min(EPOCHS, STEPS * BATCH // len(kept)))):
            for batch in kept[torch.randperm(len(kept)).to(kept.device)].split(BATCH):
                optimizer.zero_grad()
                loss(batch).backward()
                optimizer.step()
            with torch.no_grad():
                now = loss(held).item()
            if now < best:
                best, since, state = now, 0, {name: value.clone() for name, value in net.state_dict().items()}
            else:
                since += 1
            if since == PATIENCE:
                break
    net.load_state_dict(state)
    return nn.Sequential(standardize, net[0]), net[1]


def _pair(x: Tensor, y: Tensor, limit: int, seed: int, fewest: int) -> tuple[Tensor, Tensor]:
    """Rows of both, at most `limit` and at least `fewest` of each, in random order."""
    if x.shape[1:] != y.shape[1:] or min(len(x), len(y), limit) < fewest:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}, of which at most {limit} rows are taken: two sets "
            f"of rows are compared, all of the same shape, and at least {fewest} of each."
        )
    first = finite_rows("x", x[choose(len(x), limit, seed).to(x.device)])
    second = finite_rows("y", y[choose(len(y), limit, seed + 1).to(y.device)])
    return first, second
