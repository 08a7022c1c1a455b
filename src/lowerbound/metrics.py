"""Numbers from traces: what a posterior says of each latent dimension, and estimates with their standard errors.

* **Rate** is E_q [log q(z|x) - log p(z)], the KL term: the nats a datum spends on its latent variables.
* **Distortion** is -E_q [log p(x|z)]: the nats that are left to say. Their sum is minus the bound (Alemi et al. 2018,
  https://arxiv.org/abs/1711.00464).
* A latent dimension is **active** if the posterior's mean moves with the data, Var_x(E_q[z]) > 0.01 (Burda et al. 2016,
  https://arxiv.org/abs/1509.00519). One that is not has collapsed onto the prior.

Axes: ``k`` importance samples, ``b`` batch, ``*event`` one latent variable.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .distributions import DiagonalNormal, kl_per_element
from .models import Site

ACTIVE = 0.01


@dataclass(frozen=True)
class Estimate:
    """A mean over data, and its standard error."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Float[Tensor, " n"]) -> "Estimate":
        """The mean of independent values."""
        values = values.double()
        error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(values.mean().item(), error)

    def __mul__(self, factor: float) -> "Estimate":
        """In other units."""
        return Estimate(self.mean * factor, self.standard_error * abs(factor))

    def __str__(self) -> str:
        """Mean ± standard error, to the digit that the error supports."""
        if not math.isfinite(self.standard_error) or self.standard_error <= 0:
            return f"{self.mean:.4g}"
        digits = max(0, 1 - math.floor(math.log10(self.standard_error)))
        return f"{self.mean:.{digits}f} ± {self.standard_error:.{digits}f}"


def posterior_mean(site: Site) -> Float[Tensor, "b *event"]:
    """E_q[z], exactly where the distribution knows its mean, else the mean of the samples."""
    try:
        mean = site.q.mean
    except NotImplementedError:
        mean = site.z
    return mean.mean(0) if mean.ndim == site.z.ndim else mean


def kl_per_dimension(site: Site) -> Float[Tensor, "b *event"] | None:
    """The KL term of each latent dimension, in nats; None unless posterior and prior both factorise."""
    match site.q, site.p:
        case DiagonalNormal() as q, DiagonalNormal() as p:
            kl = kl_per_element(q, p)
            return kl.mean(0) if kl.ndim == site.z.ndim else kl
    return None


class Moments:
    """Mean and variance of rows that arrive in batches, in double precision (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.n = 0
        self.mean = torch.zeros(())
        self.sum_of_squares = torch.zeros(())

    def add(self, rows: Float[Tensor, "b *event"]) -> None:
        """Take in a batch."""
        rows = rows.double()
        n, mean = len(rows), rows.mean(0)
        shift = mean - self.mean.to(mean)
        squares = (rows - mean).square().sum(0) + shift.square() * (self.n * n / (self.n + n))
        self.sum_of_squares = self.sum_of_squares.to(mean) + squares
        self.mean = self.mean.to(mean) + shift * (n / (self.n + n))
        self.n += n

    def variance(self) -> Float[Tensor, "*event"]:
        """Variance of each element over the rows."""
        return self.sum_of_squares / max(1, self.n - 1)
