"""Nearest neighbours, and what their distances say of the number of directions in which data vary.

Where rows fill a space of dimension D evenly, the distances r_1 and r_2 to the first and second neighbour have the law
P(r_2 / r_1 > m) = m^-D, whatever the density. So log(r_2 / r_1) is exponential with rate D, and D is estimated from it
alone (Facco et al. 2017, https://www.nature.com/articles/s41598-017-11873-y). The largest tenth, which the law fits
worst, counts only as being large: the estimate is that of maximum likelihood for censored lifetimes.

It is local: noise in all directions counts as soon as it is as large as the distance of neighbours. And it is too low
where there are more than about ten dimensions, since the rows of no data set fill those.

Axes: ``q`` queries, ``n`` rows, ``d`` elements of a row, ``k`` neighbours.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..metrics import Estimate

# Of the ratios of distances, the part that counts as it is.
KEPT = 0.9
# An estimate from fewer rows would have an error of a fifth of itself.
FEWEST = 25
# Products of so many values are held at once.
AT_ONCE = 2**24


def distances(
    queries: Float[Tensor, "q d"], rows: Float[Tensor, "n d"], k: int, *, own: bool = False
) -> Float[Tensor, "q k"]:
    """Euclidean distances of each query to its k nearest rows, in order.

    Args:
        queries: From where.
        rows: To where; k or more.
        k: How many neighbours.
        own: Whether query i is row i, which is no neighbour of its own.
    """
    centre = rows.mean(0)
    queries, rows = queries - centre, rows - centre
    lengths = rows.square().sum(1)
    # products find the nearest, with a few to spare, since they round; differences then measure them
    candidates = min(len(rows), k + 4)
    found = []
    for start, part in _batches(queries, max(1, AT_ONCE // len(rows))):
        squares = lengths - 2 * part @ rows.T
        if own:
            squares[torch.arange(len(part)), torch.arange(start, start + len(part))] = math.inf
        indices = squares.topk(candidates, largest=False).indices
        near = torch.cat([(few[:, None] - rows[at]).norm(dim=-1) for few, at in _few(part, indices)])
        if own:
            near[indices == torch.arange(start, start + len(part))[:, None]] = math.inf
        found.append(near.sort(1).values[:, :k])
    return torch.cat(found)


def intrinsic_dimension(near: Float[Tensor, "q two"]) -> Estimate | None:
    """In how many directions rows vary at the scale of neighbours: two-NN.

    Args:
        near: Distances to the first and second neighbour.

    Returns:
        The estimate with its standard error, as if rows came in pairs, since two that are nearest to each other say the
        same; None where rows that differ from their neighbours are too few.
    """
    first, second = near[:, 0].double(), near[:, 1].double()
    apart = (first > 0) & second.isfinite()
    ratios = (second[apart] / first[apart]).log().sort().values
    kept = int(KEPT * len(ratios))
    if kept < FEWEST:
        return None
    total = float(ratios[:kept].sum() + (len(ratios) - kept) * ratios[kept - 1])
    if total == 0:
        return None  # on a grid, where all neighbours are equally far
    # the sum has a gamma law with `kept` degrees of freedom: this is without bias, and this is its deviation
    dimension = (kept - 1) / total
    return Estimate(dimension, dimension * math.sqrt(2 / (kept - 2)))


def _batches(rows: Tensor, size: int) -> list[tuple[int, Tensor]]:
    return [(start, rows[start : start + size]) for start in range(0, len(rows), size)]


def _few(queries: Tensor, indices: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Queries with their neighbours, as many at a time as memory holds."""
    size = max(1, AT_ONCE // (indices.shape[1] * queries.shape[1]))
    return list(zip(queries.split(size), indices.split(size), strict=True))
