"""Evaluation by column: where the nats of a table go, and how well each column is told from the others.

With samples z_i ~ q(z|x) and weights w_i proportional to p(x, z_i) / q(z_i|x), which stand for the true posterior, the
bound of a row is a sum over what is known of it and one thing more:

    log p(x) = sum_j E_p(z|x) [log p(x_j|z)] - KL(p(z|x) || p(z))

The terms of the sum are those of `column_bounds`, the divergence is the cost of the code. A column that the code says
much of is cheap there and dear in the code: the sum is what counts. The other measure, held-out imputation, hides
entries that are known, and asks for them (Nazabal et al. 2020, https://arxiv.org/abs/1807.03653, section 4.2).

Axes: ``k`` importance samples, ``n`` rows, ``b`` rows of a batch, ``d`` columns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..columns import Column
from ..distributions import Rows
from ..metrics import Estimate
from ..models import Model
from .imputation import impute
from .rows import look_at_rows, normalised


@dataclass(frozen=True)
class ColumnBounds:
    """The bound on log p(x), taken apart; in nats a row, higher is better.

    Attributes:
        columns: What each column adds. Where it is missing it adds 0, unless the model says why it is.
        code: What the latent code adds, about minus KL(p(z|x) || p(z)).
        known: The share of rows that know each column.
    """

    columns: tuple[Estimate, ...]
    code: Estimate
    known: tuple[float, ...]


@torch.no_grad()
def column_bounds(model: Model, x: Float[Tensor, "n d"], *, k: int = 100, seed: int = 0) -> ColumnBounds:
    """How many nats each column of a table adds to the importance-weighted bound. They and the code add up to it.

    Args:
        model: A model of tables; it is left in the mode it was in.
        x: Rows, NaN where a value is missing.
        k: Importance samples for each row.
        seed: Of the samples. The caller's random state is left alone.

    Raises:
        ValueError: No rows, k below 1, a model that is not of tables, or rows with other columns than its own.
    """
    if k < 1 or len(x) == 0:
        raise ValueError(f"k={k}, and x has {len(x):,} rows: give a k of 1 or more, and rows to look at.")

    def take_apart(rows: Tensor, p: Rows, log_weight: Tensor) -> Tensor:
        terms = (normalised(log_weight)[..., None] * p.terms(rows)).sum(0).double()
        bound = log_weight.double().logsumexp(0) - math.log(k)
        return torch.cat((terms, (bound - terms.sum(1))[:, None]), 1)

    *columns, code = look_at_rows(model, x, k, seed, take_apart).T
    return ColumnBounds(
        tuple(map(Estimate.of, columns)),
        Estimate.of(code),
        tuple((~x.isnan()).double().mean(0).tolist()),
    )


@dataclass(frozen=True)
class Imputed:
    """How well the hidden entries of one column were filled; lower is better.

    Attributes:
        error: Of numbers, the root of the mean squared error in units of the column's standard deviation; of levels,
            the share that is wrong.
        guess: The same for the mean of the column, or its most frequent level.
        hidden: How many entries were hidden.
    """

    error: Estimate
    guess: Estimate
    hidden: int


def held_out_imputation(
    model: Model,
    x: Float[Tensor, "n d"],
    columns: Sequence[Column],
    *,
    hidden: float = 0.2,
    k: int = 100,
    seed: int = 0,
) -> tuple[Imputed, ...]:
    """How well entries that are hidden at random are filled from the rest of their row, column by column.

    Args:
        model: A model of tables; it is left in the mode it was in.
        x: Rows, NaN where a value is missing.
        columns: What they hold.
        hidden: The share of the known entries to hide.
        k: Importance samples for each row.
        seed: Of what is hidden, and of the samples.

    Raises:
        ValueError: A share that is not between 0 and 1, as many columns as x has not, or what `impute` refuses.
    """
    if not 0 < hidden < 1 or len(columns) != x.shape[1]:
        raise ValueError(
            f"hidden={hidden}, {len(columns)} columns, x of shape {tuple(x.shape)}: give a share above 0 and below 1, "
            "and a description for each column of x."
        )
    generator = torch.Generator().manual_seed(seed)
    away = (torch.rand(x.shape, generator=generator) < hidden) & ~x.isnan()
    given = x.masked_fill(away, torch.nan)
    filled = impute(model, given, k=k, seed=seed)
    return tuple(_imputed(column, x[:, i], given[:, i], filled[:, i], away[:, i]) for i, column in enumerate(columns))


def _imputed(
    column: Column,
    x: Float[Tensor, " n"],
    given: Float[Tensor, " n"],
    filled: Float[Tensor, " n"],
    away: Bool[Tensor, " n"],
) -> Imputed:
    truth, found, seen = x[away].double(), filled[away].double(), given[~given.isnan()].double()
    count = len(truth)
    if count == 0 or len(seen) == 0:
        return Imputed(Estimate(math.nan, math.nan), Estimate(math.nan, math.nan), count)
    if column.is_level:
        guess = seen.mode().values
        wrong = [Estimate.of_share(int((value != truth).sum()), count) for value in (found, guess)]
        return Imputed(wrong[0], wrong[1], count)
    guess = _centre(column, seen)
    known = x[~x.isnan()].double()
    unit = _apart(column, known, _centre(column, known)).square().mean().sqrt().item()
    errors = [_root_mean_square(_apart(column, value, truth), unit) for value in (found, guess)]
    return Imputed(errors[0], errors[1], count)


def _centre(column: Column, x: Tensor) -> Tensor:
    """The mean; of what comes round again, the mean direction."""
    if column.period is None:
        return x.mean()
    angle = x * (2 * math.pi / column.period)
    return torch.atan2(angle.sin().mean(), angle.cos().mean()) * (column.period / (2 * math.pi))


def _apart(column: Column, a: Tensor, b: Tensor) -> Tensor:
    """The difference; of what comes round again, the shorter way."""
    if column.period is None:
        return a - b
    return torch.remainder(a - b + column.period / 2, column.period) - column.period / 2


def _root_mean_square(errors: Tensor, unit: float) -> Estimate:
    """The root of the mean square, in a unit; its standard error by the slope of the root."""
    square = Estimate.of(errors.square())
    root = math.sqrt(square.mean)
    if unit == 0:
        return Estimate(math.nan, math.nan)
    return Estimate(root / unit, square.standard_error / (2 * root * unit) if root else 0.0)
