"""How tight the importance-weighted bound is: what more samples give, and how many of them count.

Axes: ``k`` importance samples, ``n`` data.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..metrics import Estimate
from ..models import Model
from .bounds import DECODED
from .undisturbed import undisturbed


@dataclass(frozen=True)
class Tightness:
    """The importance-weighted bound with few and with many of the same samples.

    Attributes:
        ks: Numbers of samples, each a multiple of the one before.
        bounds: The bound with so many, (ks, n): no smaller with more. Nats for each datum.
        effective: Effective sample size of the weights of all samples, between 1 and their number, for each datum.
    """

    ks: tuple[int, ...]
    bounds: Float[Tensor, "ks n"]
    effective: Float[Tensor, " n"]

    def bound(self, k: int) -> Estimate:
        """The bound with k samples, nats."""
        return Estimate.of(self.bounds[self.ks.index(k)])


def tightness(
    model: Model,
    x: Shaped[Tensor, "n *x"],
    *context: Tensor,
    ks: Sequence[int] = (1, 10, 100, 1000),
    seed: int = 0,
) -> Tightness:
    """The importance-weighted bound for several numbers of samples, from one set of weights.

    The bound with k samples is the mean of those of all groups of k. Groups lie within larger ones, so that the bound
    rises with k on every datum, as it does in expectation (Burda et al. 2016, https://arxiv.org/abs/1509.00519). The
    effective sample size is (sum w)^2 / sum w^2 (Kong 1992).

    Args:
        model: The model; it is left in the mode it was in.
        x: Data in their own units.
        context: What the model is conditional on, a row for each x.
        ks: Numbers of samples, each a multiple of the one before.
        seed: Of the samples. The caller's random state is left alone.

    Raises:
        ValueError: Numbers that are below 1 or do not divide each other.
    """
    ks = tuple(ks)
    if not ks or ks[0] < 1 or any(more % few for few, more in itertools.pairwise(ks)):
        raise ValueError(f"ks={list(ks)}: give numbers of 1 or more, each a multiple of the one before: 1, 10, 100.")
    weights = next(model.parameters())
    batch = max(1, DECODED // (min(ks[-1], 8) * math.prod(x.shape[1:])))
    parts = []
    with undisturbed(model, seed), torch.no_grad():
        for start in range(0, len(x), batch):
            rows = x[start : start + batch].to(weights)
            given = [c[start : start + batch].to(weights) for c in context]
            parts.append(log_weights(model, rows, model.encoder(rows, *given), *given, k=ks[-1]))
    log_w = torch.cat(parts, 1)
    bounds = [log_w.unflatten(0, (-1, k)).logsumexp(1).mean(0) - math.log(k) for k in ks]
    effective = (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()
    return Tightness(ks, torch.stack(bounds).cpu(), effective.cpu())


def log_weights(model: Model, rows: Shaped[Tensor, "n *x"], code: Any, *given: Tensor, k: int) -> Float[Tensor, "k n"]:
    """Log-weights of k samples, log p(x, z) - log q(z|x) in nats, drawn in as many passes as they take.

    Args:
        model: The model.
        rows: Data, where the model is.
        code: What is known of them: what the encoder says, or a q(z|x) from elsewhere.
        given: What the model is conditional on.
        k: How many.
    """
    part = min(k, max(1, DECODED // rows.numel()))
    parts = [
        model.trace(rows, code, *given, k=min(part, k - drawn)).log_weight().double() for drawn in range(0, k, part)
    ]
    return torch.cat(parts)
