"""The aggregated posterior q(z) = 1/n sum_j q(z|x_j) of n data, against the prior.

The KL term, averaged over the data, is exactly a sum (Hoffman & Johnson 2016,
http://approximateinference.org/accepted/HoffmanJohnson2016.pdf; Chen et al. 2018, https://arxiv.org/abs/1802.04942):

    1/n sum_j KL(q(z|x_j) || p(z)) = I(x; z) + KL(q(z) || p(z))
                                   = I(x; z) + KL(q(z) || prod_d q(z_d)) + sum_d KL(q(z_d) || p(z_d))

* the **mutual information** of a datum's index and its code: what z says of x, the part that is worth its nats;
* the **gap** between aggregated posterior and prior: what a sample of the prior gets wrong, and what a better prior
  would get back;
* the gap is in turn the **total correlation** of the dimensions of z and the **dimension-wise KL**, where both q(z|x)
  and p(z) factorise.

With one sample z_i ~ q(z|x_i) of each posterior all terms are means over i of log-ratios, unbiased for the n data as
they are, and they add up for each i. For all data there could be they are biased: a datum is compared with itself too,
so that I is at most log n and too low, by about the mean chi-squared distance of q(z|x) from q(z) over 2 n while that
is small, and the gap is too high by as much. An I close to log n says only that it is no less.

The density q(z) depends on all the data, but the standard errors are still those of independent values: to first order
the part of it that is due to x_j, the mean over q(z) of q(z|x_j) / q(z), is 1 for every j.

Axes: ``n`` data, ``m`` values to look at, ``*event`` one latent variable, ``d`` its dimensions.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import DiagonalNormal, mixture
from .estimate import Estimate

CHUNK = 2**22


@dataclass(frozen=True)
class Decomposition:
    """The KL term of n data and its parts, in nats for a datum; the parts add up to it but for rounding.

    Attributes:
        n: How many data: I is at most log n.
        kl: The KL term, from one sample for each datum: mutual information + gap.
        mutual_information: I(x; z).
        gap: KL(q(z) || p(z)).
        total_correlation: KL(q(z) || prod_d q(z_d)); None unless the posterior factorises.
        dimension_wise: sum_d KL(q(z_d) || p(z_d)), with the total correlation the gap; None unless posterior and prior
            factorise.
    """

    n: int
    kl: Estimate
    mutual_information: Estimate
    gap: Estimate
    total_correlation: Estimate | None
    dimension_wise: Estimate | None


@torch.no_grad()
def decompose(z: Float[Tensor, "n *event"], q: Distribution, p: Distribution) -> Decomposition:
    """The parts of the KL term of n data, from one sample of each posterior.

    It compares every sample with every posterior, in n^2 d steps: 2,000 data in 64 dimensions take seconds.

    Args:
        z: One sample of each posterior, ``q.sample()``.
        q: The n posteriors q(z|x_j), one batch.
        p: The prior p(z), the same for all data: any distribution with a density.

    Returns:
        The parts; those that need factors that q or p has not are None.

    Raises:
        ValueError: Fewer than two data, as many posteriors as there are not samples, a prior that differs from datum to
            datum, or a posterior without a density.
    """
    n = len(z)
    if n < 2 or tuple(q.batch_shape) != (n,):
        raise ValueError(
            f"{n} samples of posteriors of batch shape {tuple(q.batch_shape)}: an aggregated posterior needs two data "
            "or more, and one sample of each. Give z = q.sample()."
        )
    if p.batch_shape:
        raise ValueError(
            f"the prior has batch shape {tuple(p.batch_shape)}, one for each datum: the gap to the aggregated "
            "posterior is defined for one prior. Of a ladder, take the top level."
        )
    log_p = p.log_prob(z).double()
    q, z = _in_double(q, z)
    log_own = q.log_prob(z).double()
    if not log_own.isfinite().all():
        raise ValueError(
            f"log q(z|x) is not finite for {int((~log_own.isfinite()).sum()):,} of {n:,} data: a point mass, as in a "
            "plain autoencoder, has no density and no KL term. Give a posterior with a density."
        )
    log_q = aggregated_log_prob(q, z)
    total_correlation = dimension_wise = None
    if isinstance(q, DiagonalNormal):
        log_factors = _log_marginals(q, z)
        total_correlation = Estimate.of(log_q - log_factors)
        if isinstance(p, DiagonalNormal):
            dimension_wise = Estimate.of(log_factors - log_p)
    return Decomposition(
        n=n,
        kl=Estimate.of(log_own - log_p),
        mutual_information=Estimate.of(log_own - log_q),
        gap=Estimate.of(log_q - log_p),
        total_correlation=total_correlation,
        dimension_wise=dimension_wise,
    )


@torch.no_grad()
def aggregated_log_prob(q: Distribution, z: Float[Tensor, "m *event"]) -> Float[Tensor, " m"]:
    """log q(z) = log 1/n sum_j q(z|x_j) in nats: the density of the mixture of all posteriors.

    Args:
        q: The n posteriors, one batch.
        z: Where to take it; the densities of all of them under all posteriors are never in memory at once.
    """
    q, z = _in_double(q, z)
    n = q.batch_shape[0]
    together = mixture(q, torch.zeros(n, dtype=z.dtype, device=z.device))
    size = max(1, CHUNK // (n * (1 if isinstance(q, DiagonalNormal) else math.prod(q.event_shape))))
    return torch.cat([together.log_prob(part).double() for part in z.split(size)])


@torch.no_grad()
def holes(
    q: Distribution,
    held_out: Float[Tensor, "h *event"],
    prior_samples: Float[Tensor, "m *event"],
    quantile: float = 0.01,
) -> Estimate:
    """How often a sample of the prior lands where hardly any posterior is.

    It is the share of prior samples whose log q(z) is below the given quantile of what it is at samples of posteriors
    of other data: the share is the quantile itself if the prior is the aggregated posterior, and 1 if they never meet.
    It looks one way: a prior that covers too little has no holes. The standard error holds the prior's samples and the
    quantile's own uncertainty (Woodruff 1952, https://doi.org/10.1080/01621459.1952.10483443).

    Args:
        q: The posteriors of n data, one batch: what is aggregated.
        held_out: Samples of the posteriors of data that are not among the n: one of its own would be close by right.
        prior_samples: Samples of the prior.
        quantile: How unlikely a place is called a hole; 1/quantile held-out samples are the fewest that can tell.

    Raises:
        ValueError: The quantile is not between 0 and 1, there are too few samples to take it, or no density.
    """
    if not 0 < quantile < 1 or len(held_out) * min(quantile, 1 - quantile) < 1 or len(prior_samples) < 1:
        raise ValueError(
            f"quantile={quantile} of {len(held_out):,} held-out samples, for {len(prior_samples):,} of the prior: a "
            "quantile lies between 0 and 1 and has a sample on each side. Give more samples, or a quantile near 0.5."
        )
    expected = aggregated_log_prob(q, held_out)
    found = aggregated_log_prob(q, prior_samples)
    if not expected.isfinite().all():
        raise ValueError(
            f"log q(z) is not finite at {int((~expected.isfinite()).sum()):,} of {len(expected):,} held-out samples: "
            "posteriors that are point masses, as in a plain autoencoder, have no density to be low."
        )
    spread = math.sqrt(quantile * (1 - quantile) / len(expected))
    levels = torch.tensor([quantile, quantile - spread, quantile + spread]).to(expected).clamp(0, 1)
    hits, fewer, more = (int((found < edge).sum()) for edge in expected.quantile(levels))
    share = Estimate.of_share(hits, len(found))
    of_quantile = (more - fewer) / (2 * len(found))
    return Estimate(share.mean, math.hypot(share.standard_error, of_quantile))


def _in_double(q: Distribution, z: Tensor) -> tuple[Distribution, Tensor]:
    """Posteriors and values in double precision, where the posteriors can be copied; else as they are."""
    if isinstance(q, DiagonalNormal):
        return DiagonalNormal(q.loc.double(), q.scale.double(), len(q.event_shape)), z.double()
    return q, z


def _log_marginals(q: DiagonalNormal, z: Tensor) -> Tensor:
    """sum_d log q(z_d), (n,): a dimension of the mixture is the mixture of that dimension."""
    loc, scale, values = (t.flatten(1).split(1, 1) for t in (q.loc, q.scale, z))
    factors = zip(loc, scale, values, strict=True)
    return torch.stack([aggregated_log_prob(DiagonalNormal(mu, s, 1), value) for mu, s, value in factors]).sum(0)
