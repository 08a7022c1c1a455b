"""The aggregated posterior q(z) = 1/n sum_i q(z|x_i), as far as a batch shows it, and how far it is from the prior.

Axes: ``k`` importance samples, ``b`` batch, ``d`` elements of one latent variable.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..distributions import DiagonalNormal
from ..models import Site

Estimator = Literal["stratified", "weighted"]


class BatchDecomposition(NamedTuple):
    """The three parts of log q(z|x) - log p(z) at each sample, in nats; their means are divergences, or informations.

    Attributes:
        mutual: log q(z|x) - log q(z): the mutual information of the code and which datum it is of.
        total: log q(z) - sum_j log q(z_j): the total correlation.
        rest: sum_j log q(z_j) - log p(z): of each dimension from its prior, where the prior factorises.
    """

    mutual: Float[Tensor, "k b"]
    total: Float[Tensor, "k b"]
    rest: Float[Tensor, "k b"]


def decompose_batch(site: Site, rows: int, estimator: Estimator = "stratified") -> BatchDecomposition:
    """The parts of the KL term, estimated within a batch; whatever the estimator, they add up to it.

    Its gradient is what objectives are for; to know the parts of a trained model, `metrics.decompose` compares data.

    Args:
        site: The latent variable.
        rows: How many there are in the data.
        estimator: Of log q(z); see `log_aggregate`.

    Raises:
        TypeError: The posterior does not factorise over dimensions.
        ValueError: As `log_aggregate`.
    """
    pairs = log_prob_pairs(site)
    log_q = log_aggregate(pairs.sum(-1), rows, estimator)
    log_product = log_aggregate(pairs, rows, estimator).sum(-1)
    given = site.q.log_prob(site.z)
    return BatchDecomposition(given - log_q, log_q - log_product, log_product - site.p.log_prob(site.z))


def log_prob_pairs(site: Site) -> Float[Tensor, "k b b d"]:
    """log q(z_i|x_j) of every sample under every posterior of the batch, dimension by dimension, in nats.

    Raises:
        TypeError: The posterior does not factorise over dimensions.
    """
    match site.q:
        case DiagonalNormal() as q:
            n = len(q.event_shape)
            loc, scale = (t.flatten(t.ndim - n).unsqueeze(-3) for t in (q.loc, q.scale))
            return DiagonalNormal(loc, scale, 0).log_prob(site.z.flatten(2).unsqueeze(2))
    raise TypeError(
        f"the dimensions of a {type(site.q).__name__} are not independent, and this objective needs the density of "
        "each. Use model.posterior=normal."
    )


def log_aggregate(
    pairs: Float[Tensor, "k b b *d"], rows: int, estimator: Estimator = "stratified"
) -> Float[Tensor, "k b *d"]:
    """log q(z_i) in nats, from the densities of a batch drawn without replacement; Chen et al. 2018, appendix C.

    "stratified" is the log of 1/n q(z_i|x_i) + (n - 1)/n times the mean of q(z_i|x_j) over the others: that is unbiased
    for q(z_i), so that its log is too small in the mean, and exact if the batch is all data. As published, one of the
    others has a smaller weight than the rest; here all have the mean of those weights, which has the same expectation
    and less variance.

    "weighted" is the log of the sum over the batch of q(z_i|x_j), divided by n b. It is below q(z_i) in the mean by as
    much as log n, and by exactly that if the batch is all data. Such a constant has no gradient.

    Args:
        pairs: log q(z_i|x_j) at [i, j].
        rows: How many there are in the data, n.
        estimator: Which.

    Raises:
        ValueError: A batch of one, or one that is larger than the data.
    """
    b = pairs.shape[1]
    if b < 2 or b > rows:
        raise ValueError(
            f"the aggregated posterior of {rows:,} rows cannot be estimated from a batch of {b}: it takes two rows or "
            "more, and no more than there are (objective.rows, train.batch)."
        )
    if estimator == "weighted":
        return pairs.logsumexp(2) - math.log(rows * b)
    own, other = -math.log(rows), math.log((rows - 1) / (rows * (b - 1)))
    weights = other + (own - other) * torch.eye(b, dtype=pairs.dtype, device=pairs.device)
    return (pairs + weights.reshape(b, b, *[1] * (pairs.ndim - 3))).logsumexp(2)


@dataclass(frozen=True)
class MeanDiscrepancy:
    """The squared maximum mean discrepancy of two distributions, estimated without bias from draws of each.

    MMD^2 = E k(a, a') - 2 E k(a, b) + E k(b, b'), with a kernel that is summed over scales. With the squared distance r
    of two points and c = 2 d scale (at scale 1, the mean of r for two draws from N(0, I)) it is

        "rbf"  exp(-r / c)        "imq"  c / (c + r), the inverse multiquadratic, whose tails reach far.

    The mean over pairs of draws from one distribution leaves out each draw with itself, so that the estimate may be
    below zero where the two are equal. Gretton et al. 2012, https://jmlr.org/papers/v13/gretton12a.html

    Args:
        kernel: "imq" or "rbf".
        scales: Of the kernels that are added up.

    Raises:
        ValueError: No scale, or one that is not positive.

    >>> a, b = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    >>> MeanDiscrepancy("rbf", (0.5,))(a, b)  # 1 - 2 exp(-1) + 1
    tensor([1.2642])
    """

    kernel: Literal["imq", "rbf"] = "imq"
    scales: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

    def __post_init__(self) -> None:
        """Check the scales."""
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise ValueError(
                f"scales={list(self.scales)} of a mean discrepancy must hold one number or more, positive."
            )

    def __call__(self, a: Float[Tensor, "k n d"], b: Float[Tensor, "k m d"]) -> Float[Tensor, " k"]:
        """A number without unit, for each set of draws.

        Raises:
            ValueError: Fewer than two draws of one: there is no pair.
        """
        n, m = a.shape[1], b.shape[1]
        if min(n, m) < 2:
            raise ValueError(f"a mean discrepancy takes two draws of each or more; here are {n} and {m}: train.batch=2")
        within_a, within_b = self._sum_of_pairs(a) / (n * (n - 1)), self._sum_of_pairs(b) / (m * (m - 1))
        return within_a + within_b - 2 * self._similarity(a, b).mean((1, 2))

    def from_prior(self, site: Site) -> Float[Tensor, ""]:
        """Between the samples of a latent variable and as many from its prior, averaged over k."""
        drawn = site.z.shape[: site.z.ndim - len(site.p.batch_shape) - len(site.p.event_shape)]
        prior = site.p.rsample(drawn) if site.p.has_rsample else site.p.sample(drawn)
        return self(site.z.flatten(2), prior.flatten(2)).mean()

    def _similarity(self, a: Tensor, b: Tensor) -> Float[Tensor, "k n m"]:
        first, second = a.double(), b.double()  # the squares cancel
        squares = first.square().sum(-1)[:, :, None] + second.square().sum(-1)[:, None]
        distance = (squares - 2 * first @ second.mT).clamp(min=0).to(a.dtype)
        units = [2 * a.shape[-1] * scale for scale in self.scales]
        if self.kernel == "rbf":
            return torch.stack([(-distance / c).exp() for c in units]).sum(0)
        return torch.stack([c / (c + distance) for c in units]).sum(0)

    def _sum_of_pairs(self, a: Tensor) -> Float[Tensor, " k"]:
        """Over all pairs but each draw with itself."""
        similarity = self._similarity(a, a)
        return similarity.sum((1, 2)) - similarity.diagonal(dim1=1, dim2=2).sum(1)


IMQ, RBF = MeanDiscrepancy("imq"), MeanDiscrepancy("rbf")
