"""Objectives that want the dimensions of a code independent of each other.

Axes: ``k`` importance samples, ``b`` batch, ``d`` elements of one latent variable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal
from torch.func import functional_call
from torch.nn import functional as F

from .. import nets
from ..distributions import DiagonalNormal
from ..models import Trace
from .aggregate import Estimator, decompose_batch
from .objective import check, only_site


@dataclass(frozen=True)
class TotalCorrelation:
    """log p(x|z) minus the three parts of the KL term, each with a weight of its own: the beta-TC-VAE.

    alpha I(x; z) + beta KL(q(z) || prod_j q(z_j)) + gamma sum_j KL(q(z_j) || p(z_j)). With all weights 1 it is the
    bound. Chen et al. 2018, https://arxiv.org/abs/1802.04942

    Args:
        rows: How many there are in the training data.
        beta: The weight of the total correlation.
        alpha: The weight of the mutual information of code and datum.
        gamma: The weight of what is left: of each dimension from its prior.
        estimator: "stratified" or "weighted"; see `log_aggregate`.
        k: Samples of z for each x, averaged.

    Raises:
        ValueError: A number out of its range; several latent variables; more rows in a batch than in the data.
        TypeError: The posterior does not factorise over dimensions.
    """

    rows: int
    beta: float = 6.0
    alpha: float = 1.0
    gamma: float = 1.0
    estimator: Estimator = "stratified"
    k: int = 1

    def __post_init__(self) -> None:
        """Check weights and rows."""
        wrong = [] if self.rows >= 2 else [f"rows={self.rows} must be 2 or more"]
        check("tc", {"beta": self.beta, "alpha": self.alpha, "gamma": self.gamma}, wrong)

    @property
    def horizon(self) -> int:
        """It has no schedule."""
        return 0

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        part = decompose_batch(only_site(trace, "tc", instead="elbo"), self.rows, self.estimator)
        kl = self.alpha * part.mutual + self.beta * part.total + self.gamma * part.rest
        return (trace.log_likelihood() - kl).mean(0)


class Factor(nn.Module):
    """The bound minus beta times the total correlation of the codes, which a discriminator estimates: the FactorVAE.

    The discriminator D learns to tell codes of the batch from codes whose dimensions were shuffled over the batch, each
    by itself; where it does so as well as can be, its logit is log q(z) - sum_j log q(z_j). Its parameters are learned
    with the model's: its own loss reaches nothing but them, and the codes see it held constant. In the value there is
    nothing of that loss. Kim & Mnih 2018, https://arxiv.org/abs/1802.05983

    Args:
        latent: Elements of z.
        beta: The weight of the total correlation.
        hidden: Widths of the discriminator's hidden layers.
        k: Samples of z for each x, averaged.

    Raises:
        ValueError: A number out of its range; several latent variables, or one of another size.
    """

    def __init__(self, latent: int, beta: float = 10.0, hidden: Sequence[int] = (256, 256, 256), k: int = 1) -> None:
        super().__init__()
        wrong = [] if latent >= 1 else [f"latent={latent} must be 1 or more"]
        wrong += [] if min(hidden, default=1) >= 1 else [f"hidden={list(hidden)} must hold numbers of 1 or more"]
        check("factor", {"beta": beta}, wrong)
        self.latent = latent
        self.beta = beta
        self.k = k
        self.horizon = 0
        net = nets.mlp((latent,), (1,), hidden=hidden, residual=False)
        self.discriminator = nn.Sequential(net, nets.Bias(torch.zeros(1)), nn.Flatten(-2))

    def forward(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        z = only_site(trace, "factor", instead="elbo").z.flatten(2)
        if z.shape[-1] != self.latent:
            raise ValueError(
                f"objective 'factor' reads codes of {self.latent} elements, and those of this model have "
                f"{z.shape[-1]}: set objective.latent={z.shape[-1]}."
            )
        constant = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        total_correlation = functional_call(self.discriminator, constant, (z,))
        lesson = self.lesson(z.detach())
        value = trace.log_likelihood() - trace.kl() - self.beta * total_correlation
        return value.mean(0) - (lesson - lesson.detach())

    def lesson(self, z: Float[Tensor, "k b d"]) -> Float[Tensor, ""]:
        """What the discriminator minimises: the nats it lacks to tell codes from shuffled ones."""
        shuffled = z.gather(1, torch.rand_like(z).argsort(1))
        true, false = self.discriminator(z), self.discriminator(shuffled)
        return 0.5 * (F.softplus(-true).mean() + F.softplus(false).mean())


@dataclass(frozen=True)
class Dip:
    """The bound minus beta times the squared distance of the codes' covariance from the prior's: the DIP-VAE.

    Off the diagonal the covariance should be zero; on it, the prior's variance, and that is weighed `diagonal` times as
    much. It is the covariance, over the batch, of the codes' means (DIP-VAE I) or of the codes themselves (II), which
    is that of the means plus the mean of their own. Kumar et al. 2018, https://arxiv.org/abs/1711.00848

    Args:
        beta: The weight of what is off the diagonal.
        diagonal: How many times that the diagonal weighs: the paper takes 10 for I, and 1 for II.
        of: "means" (I) or "samples" (II).
        k: Samples of z for each x, averaged.

    Raises:
        ValueError: A number out of its range; several latent variables; a batch of one.
        TypeError: The posterior's covariance or the prior's variances are not known.
    """

    beta: float = 10.0
    diagonal: float = 10.0
    of: Literal["means", "samples"] = "means"
    k: int = 1

    def __post_init__(self) -> None:
        """Check the weights."""
        check("dip", {"beta": self.beta, "diagonal": self.diagonal})

    @property
    def horizon(self) -> int:
        """It has no schedule."""
        return 0

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        site = only_site(trace, "dip", instead="elbo")
        means, own, variance = _moments(site.q, site.p)
        if means.shape[-2] < 2:
            raise ValueError("objective 'dip' needs the covariance of a batch, which takes two rows: set train.batch.")
        centred = (means - means.mean(-2, keepdim=True)).double()  # no product of half precision
        covariance = (centred.mT @ centred / (means.shape[-2] - 1)).to(means.dtype)
        if self.of == "samples":
            covariance = covariance + own.mean(-3)
        square = (covariance - torch.diag_embed(variance)).square()
        of_diagonal = square.diagonal(dim1=-2, dim2=-1).sum(-1)
        penalty = square.sum((-2, -1)) - of_diagonal + self.diagonal * of_diagonal
        return (trace.log_likelihood() - trace.kl()).mean(0) - self.beta * penalty.mean()


def _moments(q: Distribution, p: Distribution) -> tuple[Tensor, Tensor, Tensor]:
    """Means and covariances of the posteriors, (..., b, d) and (..., b, d, d), and the variances of the prior, (d,).

    Raises:
        TypeError: They are not known.
    """
    match q, p:
        case DiagonalNormal(), DiagonalNormal():
            n = len(q.event_shape)
            return q.mean.flatten(-n), torch.diag_embed(q.variance.flatten(-n)), p.variance.flatten(-n)
        case MultivariateNormal(), DiagonalNormal():
            return q.mean, q.covariance_matrix, p.variance
    raise TypeError(
        f"objective 'dip' needs a posterior whose covariance is known and a prior that factorises; here are "
        f"{type(q).__name__} and {type(p).__name__}. Use model.posterior=normal and model.prior=normal."
    )
