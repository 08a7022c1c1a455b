"""Imputation: what a row lacks, given what it has, and how sure that is.

With samples z_i ~ q(z|x_known) and weights w_i proportional to p(x_known, z_i) / q(z_i|x_known), the distribution of
what is missing given what is known is the mixture of p(x_missing|z_i) with these weights (Mattei & Frellsen 2019,
https://arxiv.org/abs/1812.02633). Its mean is one filling, and its spread says how far off that may be; draws from it
(sampling importance resampling) are several fillings that differ as much as the truth is uncertain.

Axes: ``k`` importance samples, ``n`` rows, ``b`` rows of a batch, ``d`` columns, ``m`` fillings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..columns import Column
from ..distributions import Rows
from ..models import Model
from .rows import look_at_rows, normalised
from .undisturbed import undisturbed


@dataclass(frozen=True)
class Imputation:
    """Rows with their holes filled, and how sure that is.

    Attributes:
        rows: The rows; what was known is as it was.
        uncertainty: Of what was filled: the standard deviation of a number given the rest of its row, in its own units
            (of one that comes round, the root of the mean squared distance the short way); the probability that a
            level is another. NaN where the value was known.
    """

    rows: Float[Tensor, "n d"]
    uncertainty: Float[Tensor, "n d"]


@torch.no_grad()
def impute(
    model: Model, x: Float[Tensor, "n d"], *, k: int = 1000, draws: int = 0, seed: int = 0
) -> Float[Tensor, "*m n d"]:
    """Rows of a table with their holes filled; what is known stays as it is.

    Args:
        model: A model of tables; it is left in the mode it was in.
        x: Rows, NaN where a value is missing.
        k: Importance samples for each row.
        draws: How many fillings to draw; 0 for one, the weighted mean of numbers, the median of levels in order and
            the likeliest of others.
        seed: Of the samples. The caller's random state is left alone.

    Raises:
        ValueError: k below 1, draws below 0, a model that is not of tables, or rows with other columns than its own.
    """
    if draws < 0:
        raise ValueError(f"draws={draws} is too small: give 0 or more.")

    def fill(rows: Tensor, p: Rows, log_weight: Tensor) -> Tensor:
        weights = normalised(log_weight)
        if not draws:
            return p.expected(weights)
        every = torch.arange(len(rows), device=rows.device)
        chosen = torch.multinomial(weights.T, draws, replacement=True).T
        # other draws each time: two fillings may have chosen the same z
        return torch.stack([p.filled(rows)[pick, every] for pick in chosen])

    return torch.where(x.isnan(), look_at_rows(model, x, k, seed, fill).to(x.dtype), x)


@torch.no_grad()
def impute_with_uncertainty(
    model: Model, x: Float[Tensor, "n d"], columns: Sequence[Column], *, k: int = 1000, seed: int = 0
) -> Imputation:
    """The single filling of `impute`, and how far off it may be.

    Args:
        model: A model of tables; it is left in the mode it was in.
        x: Rows, NaN where a value is missing.
        columns: What they hold, as the model was told.
        k: Importance samples for each row.
        seed: Of the samples. The caller's random state is left alone.

    Raises:
        ValueError: k below 1, columns that are not those of x, or a model that is not of tables.
    """
    if len(columns) != x.shape[1]:
        raise ValueError(f"{len(columns)} columns are described, and x has {x.shape[1]}. Describe each, in order.")
    levels = torch.tensor([column.is_level for column in columns])
    # the distance of two numbers is at most half a period
    period = torch.tensor([column.period or torch.inf for column in columns])

    def fill(rows: Tensor, p: Rows, log_weight: Tensor) -> Tensor:
        weights = normalised(log_weight)
        filled = p.expected(weights)
        # noise of its own, so that the fillings are those of `impute`
        with undisturbed(model, seed + 1):
            # in double precision, because the square of a large number is larger
            distance = (p.filled(rows) - filled).abs().double()
        distance = torch.minimum(distance, period.to(distance) - distance)
        wrong = (weights[..., None] * (distance > 0)).sum(0)
        spread = (weights[..., None] * distance.square()).sum(0).sqrt()
        return torch.stack([filled, torch.where(levels.to(rows.device), wrong, spread)])

    filled, uncertainty = look_at_rows(model, x, k, seed, fill).to(x.dtype)
    return Imputation(torch.where(x.isnan(), filled, x), uncertainty.masked_fill(~x.isnan(), torch.nan))
