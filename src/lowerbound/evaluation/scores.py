"""Anomaly scores: how strange a datum is, in nats, which of its columns are to blame, and how rare such a score is.

The score is minus the importance-weighted bound, -log 1/k sum_i p(x, z_i) / q(z_i|x): high is strange. With weights w_i
proportional to p(x, z_i) / q(z_i|x) it is a sum, since for the exact posterior

    -log p(x) = sum_j E_p(z|x)[-log p(x_j|z)] + KL(p(z|x) || p(z)),

and the expectations are taken with the weights. What a column adds is in nats of its own units. They cancel in its
excess over what the column adds in normal rows.

How rare a score is follows without any assumption on the model: among m + 1 exchangeable scores each rank is as likely
as the other, so that (1 + number of reference scores that are no lower) / (1 + m) is a p-value (Vovk et al. 2005,
Algorithmic Learning in a Random World; Bates et al. 2023, https://arxiv.org/abs/2104.08279). That asks for scores that
are one function of the datum alone. So all data are scored with the same noise: a score does not depend on which others
stand beside it (but for rounding), and two scores differ by what their data are, not by luck.

Axes: ``k`` importance samples, ``n`` data, ``m`` data of reference, ``d`` columns.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Shaped
from torch import Tensor
from torch.func import vmap

from ..distributions import Rows
from ..models import Model
from .rows import normalised, rows_at_once
from .undisturbed import undisturbed


@dataclass(frozen=True)
class Scores:
    """How strange data are; all in nats.

    Attributes:
        values: Minus the importance-weighted bound of each datum: high is strange. 0 for a row of which nothing is
            known (unless the model learnt that holes say something).
        terms: Of tables, what each column adds, 0 where it is missing (with the same exception); None for other models.
        rate: Of tables, what is left: `values` is the sum of `terms` and `rate`. About KL(p(z|x) || p(z)).
        known: Of tables, which entries are known.
    """

    values: Float64[Tensor, " n"]
    terms: Float64[Tensor, "n d"] | None = None
    rate: Float64[Tensor, " n"] | None = None
    known: Bool[Tensor, "n d"] | None = None

    def excess(self, reference: "Scores") -> Float64[Tensor, "n d"]:
        """What each column adds over its mean in rows of reference, in nats, whatever the units of the column.

        NaN where the entry is missing, or no row of reference has it.

        Raises:
            ValueError: The scores are not those of rows of a table.
        """
        if self.terms is None or self.known is None or reference.terms is None or reference.known is None:
            raise ValueError("only the score of a row of a table is a sum over columns: score a model of a table.")
        usual = (reference.terms * reference.known).sum(0) / reference.known.sum(0)
        return (self.terms - usual).masked_fill(~self.known, math.nan)


@torch.no_grad()
def score(model: Model, x: Shaped[Tensor, "n *x"], *context: Tensor, k: int = 100, seed: int = 0) -> Scores:
    """How strange data are to a model.

    Args:
        model: The model; it is left in the mode it was in.
        x: Data in their own units; of tables, NaN where a value is missing.
        context: What the model is conditional on, a row for each x.
        k: Importance samples for each datum. Scores are comparable only where k and seed are the same.
        seed: Of the samples, which are the same for all data. The caller's random state is left alone.

    Raises:
        ValueError: No data, k below 1, or a model whose posterior is a point, which has no bound.
    """
    if len(x) == 0:
        raise ValueError("there is nothing to score: x has 0 rows.")
    if k < 1:
        raise ValueError(f"k={k} is too small: give 1 or more.")
    weights = next(model.parameters())
    is_table = _is_table(model, [t[:1].to(weights) for t in (x, *context)])

    def look(row: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        trace = model(row[None], *(c[None] for c in given), k=k)
        log_weight = trace.log_weight()[:, 0].double()
        value = math.log(k) - log_weight.logsumexp(0)
        if not isinstance(trace.likelihood, Rows):
            return value, row.new_zeros(0)
        return value, -(normalised(log_weight) @ trace.likelihood.terms(row[None])[:, 0].double())

    size = rows_at_once(k, math.prod(x.shape[1:]))
    found = []
    for start in range(0, len(x), size):
        parts = [t[start : start + size].to(weights) for t in (x, *context)]
        found.append([t.cpu() for t in _with_same_noise(look, model, seed, parts)])
    values, terms = (torch.cat(parts) for parts in zip(*found, strict=True))
    if not is_table:
        return Scores(values)
    known = ~x.isnan().cpu()
    # the probability of nothing is 1, and there is no need to estimate it
    nothing = ~known.any(1) & (terms == 0).all(1)
    values = values.masked_fill(nothing, 0.0)
    # what no z allows is infinitely strange by its own terms
    total = terms.sum(1)
    return Scores(values, terms, (values - total).masked_fill(total.isinf(), 0.0), known)


def calibrate(values: Float[Tensor, " n"], reference: Float[Tensor, " m"]) -> Float64[Tensor, " n"]:
    """How rare scores are: conformal p-values, (1 + number of reference scores that are no lower) / (1 + m).

    For a datum that is exchangeable with those of reference, the chance of a p-value of a or less is at most a.

    Args:
        values: Scores.
        reference: Scores of data that are held to be normal and were not trained on, by the same k and seed.

    Raises:
        ValueError: There is no reference.

    >>> calibrate(torch.tensor([0.5, 2.0, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
    tensor([1.0000, 0.7500, 0.2500], dtype=torch.float64)
    """
    if len(reference) == 0:
        raise ValueError("there are no scores of reference, and a p-value compares with some. Give 1 or more.")
    lower = torch.searchsorted(reference.double().sort().values, values.double())
    return (1 + len(reference) - lower).double() / (1 + len(reference))


def _with_same_noise(
    look: Callable[..., tuple[Tensor, ...]], model: Model, seed: int, parts: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """What a look finds at each datum, the noise being the same: at all together, or else at one after the other."""
    with undisturbed(model, seed):
        try:
            return vmap(look, randomness="same")(*parts)
        except RuntimeError:
            pass  # some distributions draw in ways that vmap refuses
    alone = []
    for one in zip(*parts, strict=True):
        with undisturbed(model, seed):
            alone.append(look(*one))
    return tuple(torch.stack(found) for found in zip(*alone, strict=True))


def _is_table(model: Model, first: Sequence[Tensor]) -> bool:
    """Whether a model is of tables, by a look at one datum.

    Raises:
        ValueError: Its posterior is a point.
    """
    with undisturbed(model, 0):
        trace = model(*first)
        if trace.kl().isposinf().any():
            raise ValueError(
                "the posterior of this model is a point, as in a plain autoencoder, so that no bound on log p(x) is "
                "there to score by. Train a model with another posterior: model.posterior=normal."
            )
    return isinstance(trace.likelihood, Rows)
