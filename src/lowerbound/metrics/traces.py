"""Numbers from traces: what a posterior says of each latent dimension.

* **Rate** is E_q [log q(z|x) - log p(z)], the KL term: the nats a datum spends on its latent variables.
* **Distortion** is -E_q [log p(x|z)]: the nats that are left to say. Their sum is minus the bound (Alemi et al. 2018,
  https://arxiv.org/abs/1711.00464).
* A latent dimension is **active** if the posterior's mean moves with the data, Var_x(E_q[z]) > 0.01 (Burda et al. 2016,
  https://arxiv.org/abs/1509.00519). One that is not has collapsed onto the prior. Of codes it is each choice that is
  active or not, by the variances of the probabilities of its codes, added up: how often two rows choose differently.

Axes: ``k`` importance samples, ``b`` batch, ``*event`` one latent variable.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import DiagonalNormal, OneHot, Quantized, kl_per_element
from ..models import Site

ACTIVE = 0.01


def posterior_mean(site: Site) -> Float[Tensor, "b *event"]:
    """E_q[z], exactly where the distribution knows its mean, else the mean of the samples."""
    mean = _means(site)
    return mean.mean(0) if mean.ndim == site.z.ndim else mean


def knows_its_mean(site: Site) -> bool:
    """Whether E_q[z] is exact with one sample."""
    return _means(site).ndim < site.z.ndim


def _means(site: Site) -> Tensor:
    """E_q[z], (b, *event), where it is known; else what there is for each sample, (k, b, *event)."""
    try:
        return site.q.mean
    except NotImplementedError:
        return site.z


class Halves:
    """E_q[z] of a batch twice over, each from its own half of the samples.

    The covariance over x of the two is the variance of E_q[z], without the noise of the samples: the variance of one of
    them is too large by the noise, and calls a dimension active that has collapsed.
    """

    def __init__(self) -> None:
        self.exact: Tensor | None = None
        self.sums: list[Tensor | float] = [0.0, 0.0]
        self.counts = [0, 0]

    def add(self, site: Site) -> None:
        """Take in samples."""
        means = _means(site)
        if means.ndim < site.z.ndim:
            self.exact = means
            return
        seen = sum(self.counts)
        for half in (0, 1):
            part = means[(half + seen) % 2 :: 2]
            self.sums[half] = self.sums[half] + part.double().sum(0)
            self.counts[half] += len(part)

    def means(self) -> tuple[Tensor, Tensor]:
        """Both; the same one twice where it is exact, or where there was one sample only."""
        if self.exact is not None:
            return self.exact, self.exact
        first = self.sums[0] / self.counts[0]
        second = self.sums[1] / self.counts[1] if self.counts[1] else first
        assert isinstance(first, Tensor) and isinstance(second, Tensor)
        return first, second


def kl_per_dimension(site: Site) -> Float[Tensor, "b *event"] | None:
    """The KL term of each latent dimension, in nats; None unless posterior and prior both factorise."""
    if site.rate is not None:
        return site.rate
    match site.q, site.p:
        case DiagonalNormal() as q, DiagonalNormal() as p:
            kl = kl_per_element(q, p)
            return kl.mean(0) if kl.ndim == site.z.ndim else kl
    return None


class Moments:
    """Mean and variance of rows that arrive in batches, in double precision (Chan et al. 1979).

    Of rows that come as pairs it is the mean of the first and the covariance of the two.
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean = torch.zeros(())
        self.other_mean = torch.zeros(())
        self.sum_of_products = torch.zeros(())

    def add(self, rows: Float[Tensor, "b *event"], others: Float[Tensor, "b *event"] | None = None) -> None:
        """Take in a batch; `others` are the rows themselves if not given."""
        rows = rows.double()
        others = rows if others is None else others.double()
        n, mean, other_mean = len(rows), rows.mean(0), others.mean(0)
        shift, other_shift = mean - self.mean.to(mean), other_mean - self.other_mean.to(mean)
        products = ((rows - mean) * (others - other_mean)).sum(0)
        products = products + shift * other_shift * (self.n * n / (self.n + n))
        self.sum_of_products = self.sum_of_products.to(mean) + products
        self.mean = self.mean.to(mean) + shift * (n / (self.n + n))
        self.other_mean = self.other_mean.to(mean) + other_shift * (n / (self.n + n))
        self.n += n

    def variance(self) -> Float[Tensor, "*event"]:
        """Variance of each element over the rows, or covariance of each pair of elements."""
        return self.sum_of_products / max(1, self.n - 1)


class Activity:
    """Var_x(E_q[z]) of each dimension, from rows that arrive in batches; of codes, of each choice.

    Attributes:
        of_choices: Whether it is of codes.
    """

    def __init__(self) -> None:
        self.of_choices = False
        self.moments = Moments()
        self.counts: Tensor | float = 0.0

    def add(self, q: Distribution, halves: Halves) -> None:
        """Take in the posteriors of a batch, and what their samples say."""
        self.of_choices = isinstance(q, Quantized | OneHot)
        if isinstance(q, Quantized):
            # every sample chooses the same
            self.counts = self.counts + q.places().double() / q.batch_shape[:-1].numel()
        else:
            self.moments.add(*halves.means())

    def variance(self) -> Float[Tensor, "*event"]:
        """The activity of each dimension, or (stages, h, w) of each choice."""
        if isinstance(self.counts, Tensor):
            share = self.counts / self.counts.sum(1, keepdim=True)
            return (share * (1 - share)).sum(1)
        variance = self.moments.variance()
        return variance.sum(-3, keepdim=True) if self.of_choices else variance
