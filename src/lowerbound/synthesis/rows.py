"""Rows to compare: drawn from a model, written as a table would hold them, with holes where real rows have holes.

Axes: ``n`` rows, ``m`` other rows, ``d`` columns.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor

from ..data import Data
from ..models import Model
from ..views import View, without_gradients

# Numbers in the rows that are compared: of wide tables fewer rows are taken, so that it takes seconds.
VALUES, FEWEST = 200_000, 100


def draw_rows(model: Model, data: Data, n: int, seed: int = 0) -> Float[ndarray, "n d"]:
    """Rows drawn from a model of a table, as they stand in a file that `lowerbound sample` writes."""
    with without_gradients(model, seed):
        x = View.of(model, data).generate(n, draw=True)
    return as_written(x, data)


def as_written(x: Float[Tensor, "n d"], data: Data) -> Float[ndarray, "n d"]:
    """Rows once they have been written to a table and read again: rounded to its decimals, within what was seen."""
    from ..data.tables.coding import Coding
    from ..data.tables.reading import of_frame

    coding = Coding(data.columns, data.aside)
    again = coding.encode(of_frame(coding.decode(x))).x.float()
    # a pooled level of numbers is written as an empty cell, and is a level all the same
    levels = torch.tensor([column.is_level for column in data.columns])
    return torch.where(levels, x, again).numpy()


def with_holes(rows: Float[ndarray, "n d"], like: Float[ndarray, "m d"]) -> Float[ndarray, "n d"]:
    """Rows with holes where other rows have them: row i has those of row i, the other rows repeated as needed.

    The holes are then as many and as patterned as those of real rows, but know nothing of the values. Where real values
    are missing because of what they are, that remains a difference.
    """
    return np.where(np.isnan(np.resize(like, rows.shape)), np.nan, rows)


def affordable(columns: int, most: int) -> int:
    """How many rows of so many columns to compare, at most."""
    return min(most, max(FEWEST, VALUES // columns))


def choose(generator: np.random.Generator, n: int, limit: int) -> Int64[ndarray, " m"]:
    """The places of at most `limit` of n rows, in random order."""
    return generator.permutation(n)[:limit]
