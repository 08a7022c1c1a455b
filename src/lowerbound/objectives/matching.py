"""Objectives about what a code says of its datum, and how the codes of all data together match the prior.

Axes: ``k`` importance samples, ``b`` batch, ``d`` elements of one latent variable.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..models import Trace
from .aggregate import IMQ, RBF, MeanDiscrepancy, log_aggregate, log_prob_pairs
from .objective import ONE, Weight, check, only_site


@dataclass(frozen=True)
class Info:
    """log p(x|z) - (1 - alpha) KL(q(z|x) || p(z)) - beta MMD^2(q(z), p(z)): the InfoVAE.

    Part of the KL term, which codes pay each by itself, is replaced by a distance that they pay together, so that they
    may say more of their data. In the paper's letters beta is alpha + lambda - 1. Zhao et al. 2019,
    https://arxiv.org/abs/1706.02262

    Args:
        alpha: The part of the KL term that is left out, from 0 to less than 1. With all of it left out this is the
            MMD-VAE, which is `Wae` here.
        beta: The weight of the mean discrepancy, in nats.
        discrepancy: Its kernel.
        k: Samples of z for each x, averaged.

    Raises:
        ValueError: A number out of its range; several latent variables; a batch of one.
    """

    alpha: float = 0.5
    beta: float = 100.0
    discrepancy: MeanDiscrepancy = RBF
    k: int = 1

    def __post_init__(self) -> None:
        """Check the weights."""
        wrong = [] if 0 <= self.alpha < 1 else [f"alpha={self.alpha} must be from 0 to less than 1"]
        check("info", {"beta": self.beta}, wrong)

    @property
    def horizon(self) -> int:
        """It has no schedule."""
        return 0

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        distance = self.discrepancy.from_prior(only_site(trace, "info", instead="elbo"))
        return (trace.log_likelihood() - (1 - self.alpha) * trace.kl()).mean(0) - self.beta * distance


@dataclass(frozen=True)
class Wae:
    """log p(x|z) - beta MMD^2(q(z), p(z)): the Wasserstein autoencoder with a mean discrepancy, for any posterior.

    It has no KL term and is no bound: the codes are free one by one, and match the prior all together. The posterior
    may be a point, as in a plain autoencoder. With a normal posterior it is the MMD-VAE of Zhao et al. 2019.
    Tolstikhin et al. 2018, https://arxiv.org/abs/1711.01558

    Args:
        beta: The weight of the mean discrepancy, in nats.
        discrepancy: Its kernel.
        k: Samples of z for each x, averaged.

    Raises:
        ValueError: A number out of its range; several latent variables; a batch of one.
        TypeError: The prior would learn nothing, because its draws have no gradient.
    """

    beta: float = 100.0
    discrepancy: MeanDiscrepancy = IMQ
    k: int = 1

    def __post_init__(self) -> None:
        """Check the weight."""
        check("wae", {"beta": self.beta})

    @property
    def horizon(self) -> int:
        """It has no schedule."""
        return 0

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        site = only_site(trace, "wae", instead="elbo")
        if not site.p.has_rsample:
            raise TypeError(
                f"objective 'wae' knows a prior by its draws, and those of a {type(site.p).__name__} have no gradient: "
                "it would stay as it began. Use model.prior=normal or flow, or objective 'info'."
            )
        return trace.log_likelihood().mean(0) - self.beta * self.discrepancy.from_prior(site)


@dataclass(frozen=True)
class Mutual:
    """The evidence lower bound, with a floor under the mutual information of code and datum.

    Every nat that the information lacks of `nats` costs `strength`, so that a code stays in use as long as the
    KL term's weight is below it. The information is estimated from below, as what a code says of which datum of the
    batch it is of, and that is log b at most: a floor above it cannot be reached. Phuong et al. 2018,
    https://openreview.net/forum?id=HkbmWqxCZ, with the aggregated posterior of the batch as in McCarthy et al. 2019,
    https://arxiv.org/abs/1909.09237, which makes it a bound from below: Poole et al. 2019,
    https://arxiv.org/abs/1905.06922

    Args:
        nats: The floor.
        strength: What a nat below it costs, in nats.
        beta: The weight of the KL term, and its schedule.
        k: Samples of z for each x, averaged.

    Raises:
        ValueError: A number is negative or not finite; several latent variables; a batch of one.
        TypeError: The posterior does not factorise over dimensions.
    """

    nats: float = 2.0
    strength: float = 10.0
    beta: Weight = ONE
    k: int = 1

    def __post_init__(self) -> None:
        """Check the floor and what it costs."""
        check("mutual", {"nats": self.nats, "strength": self.strength})

    @property
    def horizon(self) -> int:
        """When the weight reaches its end."""
        return self.beta.horizon

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        pairs = log_prob_pairs(only_site(trace, "mutual", instead="free_bits")).sum(-1)
        information = (pairs.diagonal(dim1=1, dim2=2) - log_aggregate(pairs, len(trace.x))).mean()
        lacking = (self.nats - information).clamp(min=0)
        return (trace.log_likelihood() - self.beta(step) * trace.kl()).mean(0) - self.strength * lacking
