"""Imputation: what a row lacks, given what it has.

With samples z_i ~ q(z|x_known) and weights w_i proportional to p(x_known, z_i) / q(z_i|x_known), the distribution of
what is missing given what is known is the mixture of p(x_missing|z_i) with these weights (Mattei & Frellsen 2019,
https://arxiv.org/abs/1812.02633). Its mean is one filling; draws from it (sampling importance resampling) are several
that differ as much as the truth is uncertain.

Axes: ``k`` importance samples, ``n`` rows, ``b`` rows of a batch, ``d`` columns, ``m`` fillings.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ..distributions import Joint
from ..models import Model
from .bounds import DECODED
from .undisturbed import undisturbed


@torch.no_grad()
def impute(
    model: Model, x: Float[Tensor, "n d"], *, k: int = 1000, draws: int = 0, seed: int = 0
) -> Float[Tensor, "*m n d"]:
    """Rows of a table with their holes filled; what is known stays as it is.

    Args:
        model: A model of tables; it is left in the mode it was in.
        x: Rows, NaN where a value is missing.
        k: Importance samples for each row.
        draws: How many fillings to draw; 0 for one, the weighted mean of numbers and the likeliest of levels.
        seed: Of the samples. The caller's random state is left alone.

    Raises:
        ValueError: k below 1, draws below 0, or a model that is not of tables.
    """
    if k < 1 or draws < 0:
        raise ValueError(f"k={k}, draws={draws}: give k of 1 or more, and draws of 0 or more.")
    device = next(model.parameters()).device
    size = max(1, DECODED // (k * x.shape[1]))
    with undisturbed(model, seed):
        filled = [_fill(model, rows.to(device), k, draws).cpu() for rows in x.float().split(size)]
    return torch.cat(filled, -2).to(x.dtype)


def _fill(model: Model, rows: Tensor, k: int, draws: int) -> Tensor:
    trace = model(rows, k=k)
    p = trace.likelihood
    if not isinstance(p, Joint):
        raise ValueError(
            "only a model of a table knows what a missing value is. Train one: lowerbound train table.csv."
        )
    weights = trace.log_weight().softmax(0)
    if not draws:
        return torch.where(rows.isnan(), p.expected(weights), rows)
    chosen = torch.multinomial(weights.T, draws, replacement=True).T
    found = [torch.where(rows.isnan(), p.sample()[pick, torch.arange(len(rows))], rows) for pick in chosen]
    return torch.stack(found)
