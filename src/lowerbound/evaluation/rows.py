"""Rows of a table, pass by pass, with weights by which samples stand for the true posterior.

With samples z_i ~ q(z|x_known), a mean over them with weights w_i proportional to p(x_known, z_i) / q(z_i|x_known) that
add up to one tends to the mean over p(z|x_known), as k grows, and is as far off as the weights are uneven (Geweke 1989,
https://doi.org/10.2307/1913710).

Axes: ``k`` importance samples, ``n`` rows, ``b`` rows of a pass, ``d`` columns.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ..distributions import Rows
from ..models import Model
from .bounds import DECODED
from .undisturbed import undisturbed

# Numbers that pass through a network for each z, at least, however few columns there are.
WIDTH = 64

Look = Callable[[Tensor, Rows, Tensor], Tensor]


def rows_at_once(k: int, columns: int) -> int:
    """How many rows a pass of k samples for each may have, within the caches of a processor."""
    return max(1, DECODED // (k * max(WIDTH, columns)))


def normalised(log_weight: Float[Tensor, "k *b"]) -> Float[Tensor, "k *b"]:
    """The weights, which add up to one.

    They are equal where all are 0 and say nothing: of a posterior that is a point, whose samples are all the same, and
    of a row that has something which no z allows.
    """
    nothing = log_weight.isneginf().all(0)
    return log_weight.masked_fill(nothing, 0).softmax(0)


def look_at_rows(model: Model, x: Float[Tensor, "n d"], k: int, seed: int, look: Look) -> Float[Tensor, "*m n f"]:
    """What a look finds at some rows (b, d), their p(x|z) and its log-weights (k, b), for all rows.

    Args:
        model: A model of tables; it is left in the mode it was in.
        x: Rows, NaN where a value is missing.
        k: Importance samples for each row.
        seed: Of the samples, and of what is drawn in a look. The caller's random state is left alone.
        look: What it finds has the rows as the axis before last.

    Raises:
        ValueError: k below 1, a model that is not of tables, or rows with other columns than its own.
    """
    if k < 1:
        raise ValueError(f"k={k} is too small: give 1 or more.")
    weights = next(model.parameters())
    with undisturbed(model, seed):
        columns = columns_of(model)
    if columns != x.shape[1]:
        raise ValueError(f"x has {x.shape[1]} columns, and the model is of tables of {columns}: give rows with those.")
    found = []
    with undisturbed(model, seed):
        for rows in x.split(rows_at_once(k, columns)):
            trace = model(rows.to(weights), k=k)
            assert isinstance(trace.likelihood, Rows)
            found.append(look(trace.x, trace.likelihood, trace.log_weight()).cpu())
    return torch.cat(found, -2)


def columns_of(model: Model) -> int:
    """How many columns the tables have that a model is of.

    Raises:
        ValueError: It is of something else.
    """
    p = model.generate(1)
    if not isinstance(p, Rows):
        raise ValueError(
            "only a model of a table has columns, and knows what a missing value is. Train one: lowerbound train "
            "table.csv."
        )
    return p.event_shape[0]
