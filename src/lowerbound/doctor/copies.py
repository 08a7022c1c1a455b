"""Rows that occur more than once, and held-out rows that were trained on.

A held-out row that is among the training rows, or nearly, measures memory. Exact copies are found by their digests. For
nearly exact ones, let r_j be the distance to the j-th nearest row of training. Where rows fill D dimensions evenly, the
volumes (r_j / r_k)^D for j < k are those of points drawn at random from a ball. So r_1 < t r_k has by chance the
probability 1 - (1 - t^D)^(k - 1), and the mean of log(r_2k / r_k) is (1/k + ... + 1/(2k - 1)) / D, which tells D from
neighbours that are too far to be copies. More rows with a small r_1 than that were made from one another.

Axes: ``n`` rows, ``k`` neighbours.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .finding import Finding
from .sample import NEIGHBOURS, Sample

# The part of the rows that may be copies: below it no bound moves by more than its standard error.
SHARE = 0.01
# A row is nearly a copy if its nearest neighbour is so much nearer than this one.
NEAR, FAR = 0.1, NEIGHBOURS // 2
DISTINCT = 'numpy.save("distinct.npy", numpy.unique(x, axis=0))'
HELD_OUT = ("valid", "test")


def duplicates(sample: Sample) -> Finding:
    """How many rows equal one before them."""
    name, n = "duplicates", len(sample.first)
    count = int((sample.first != torch.arange(n)).sum())
    what = f"{count:,} of {n:,} rows equal one before them"
    if not _too_many(count, n, sample):
        return Finding(name, "healthy", f"{what}{_excuse(count, n)}.", count / n, SHARE)
    effect = "Each row counts once, and none is both trained on and held out."
    return Finding(name, "finding", f"{what}.", count / n, SHARE, _remedy(sample), effect)


def leaks(sample: Sample) -> Finding:
    """How many held-out rows are among the rows to train on."""
    name, split, first = "leakage between splits", sample.data.split, sample.first
    seen = first[split["train"].cpu()].unique()
    found = {part: (int(torch.isin(first[split[part].cpu()], seen).sum()), len(split[part])) for part in HELD_OUT}
    count, n = max(found.values(), key=lambda pair: pair[0] / pair[1])
    listed = " and ".join(f"{some:,} of {whole:,} {part} rows" for part, (some, whole) in found.items())
    what = f"{listed} are also trained on"
    if not _too_many(count, n, sample):
        return Finding(name, "healthy", f"{what}{_excuse(count, n)}.", count / n, SHARE)
    effect = "Held-out rows are new to the model, and the bound on them is honest."
    return Finding(name, "finding", f"{what}: there, bounds show memory.", count / n, SHARE, _remedy(sample), effect)


def near_leaks(sample: Sample) -> Finding:
    """How many held-out rows are nearly rows to train on."""
    name, near = "near duplicates across splits", sample.near
    near = near[near[:, 0] > 0]
    expected = expected_share(near) if near.shape[1] == NEIGHBOURS and len(near) else None
    if expected is None:
        return Finding(name, "unknown", "Too few different rows to say which distance is a small one.")
    close = near[:, 0] < NEAR * near[:, FAR - 1]
    number = max(0.0, float(close.double().mean()) - expected)
    what = (
        f"{int(close.sum()):,} of {len(near):,} held-out rows have a row of training {1 / NEAR:.0f} times nearer "
        f"than the {FAR}th nearest ({expected:.1%} by chance)"
    )
    if number <= SHARE:
        return Finding(name, "healthy", f"{what}.", number, SHARE)
    remedy = ('numpy.savez("split.npz", train=train, valid=valid, test=test)',)
    effect = "Such a file is its own split: put all copies of one thing into one part of it."
    what += ": they look like altered copies"
    return Finding(name, "finding", f"{what}.", number, SHARE, remedy, effect)


def expected_share(near: Float[Tensor, "n k"]) -> float | None:
    """The part of rows that have r_1 < t r_k by chance; None where rows are on top of each other."""
    far, farther = near[:, FAR - 1].double(), near[:, 2 * FAR - 1].double()
    total = float((farther / far).log().mean())
    if not 0 < total < float("inf"):
        return None
    dimension = sum(1 / j for j in range(FAR, 2 * FAR)) / total
    return float(1 - (1 - NEAR**dimension) ** (FAR - 1))


def chance(sample: Sample) -> float:
    """How many rows would equal a given one if the elements of a row were independent."""
    x = sample.x
    return (len(sample.first) - 1) * float((x == x.roll(1, 0)).double().mean(0).prod())


def _too_many(count: int, n: int, sample: Sample) -> bool:
    """Whether so many equal rows among n are more than do no harm, and more than come about by chance."""
    if count <= SHARE * n:
        return False
    share = chance(sample)
    expected = n * share
    return share <= SHARE and count > expected + 3 * expected**0.5 + 1


def _excuse(count: int, n: int) -> str:
    return ", by chance: few different rows are possible" if count > SHARE * n else ""


def _remedy(sample: Sample) -> tuple[str, ...]:
    return (DISTINCT,) if sample.run["data"]["name"] == "array" else ()
