"""Bounds made of importance weights w = p(x, z) / q(z|x), and estimators of their gradients.

E log 1/k sum_i w_i tightens with k, from the evidence lower bound at k = 1 to log p(x) as k grows.

Axes: ``k`` importance samples, ``b`` batch.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..distributions import stop_gradient
from ..models import Trace
from .objective import check, only_site

# Nearer to order 1 than this, Renyi's bound is its expansion there: the formula would divide by almost nothing.
NEAR = 1e-3


@dataclass(frozen=True)
class Iwae:
    """The importance-weighted bound, log 1/k sum_i p(x, z_i) / q(z_i|x): tighter with every sample.

    Burda et al. 2016, https://arxiv.org/abs/1509.00519

    Args:
        k: Samples of z for each x.
    """

    k: int = 5

    @property
    def horizon(self) -> int:
        """It has no schedule."""
        return 0

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        return _log_mean(trace.log_weight())


@dataclass(frozen=True)
class Renyi:
    """The variational Renyi bound, 1 / (1 - alpha) log E_q[w^(1 - alpha)] = log p(x) - D_alpha(q(z|x) || p(z|x)).

    It falls as alpha rises: log p(x) at 0, the evidence lower bound at 1, where the formula is a limit. Its mean over
    k samples is biased downwards below 1, so that alpha = 0 is the importance-weighted bound.
    Li & Turner 2016, https://arxiv.org/abs/1602.02311

    Args:
        alpha: Order of the divergence, 0 or more; below 0 it would bound log p(x) from above.
        k: Samples of z for each x.

    Raises:
        ValueError: alpha is negative.
    """

    alpha: float = 0.5
    k: int = 5

    def __post_init__(self) -> None:
        """Check the order."""
        check("renyi", {"alpha": self.alpha})

    @property
    def horizon(self) -> int:
        """It has no schedule."""
        return 0

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        log_w = trace.log_weight()
        mean = log_w.mean(0)
        spread = log_w - mean
        power = torch.zeros_like(mean) + 1 - self.alpha
        near = power.abs() < NEAR
        divisor = torch.where(near, 1.0, power)  # what `where` leaves out must be finite, for its gradient's sake
        return mean + torch.where(near, power / 2 * spread.square().mean(0), _log_mean(divisor * spread) / divisor)


@dataclass(frozen=True)
class StickTheLanding:
    """The bound's value, with the part of its gradient left out whose mean is zero: the score of q.

    With one latent variable its gradient vanishes, sample by sample, where q is the true posterior; with several it is
    unbiased all the same. Roeder et al. 2017, https://arxiv.org/abs/1703.09194

    Args:
        k: Samples of z for each x, averaged.

    Raises:
        TypeError: The posterior is of a kind that cannot be held constant.
    """

    k: int = 1

    @property
    def horizon(self) -> int:
        """It has no schedule."""
        return 0

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        return _held(trace).log_weight().mean(0)


@dataclass(frozen=True)
class Dreg:
    """The importance-weighted bound, with doubly reparameterised gradients for the encoder.

    The encoder's gradient weighs each sample by its squared normalised importance weight, which keeps its signal as k
    grows; the decoder's and the prior's are the bound's own. Tucker et al. 2019, https://arxiv.org/abs/1810.04152

    Args:
        k: Samples of z for each x.

    Raises:
        ValueError: The model has more than one latent variable; the estimator is derived for one.
        TypeError: The posterior is of a kind that cannot be held constant.
    """

    k: int = 8

    @property
    def horizon(self) -> int:
        """It has no schedule."""
        return 0

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        z = only_site(trace, "dreg", instead="iwae").z
        log_w = _held(trace).log_weight()
        weight = log_w.detach().softmax(0)
        if z.requires_grad:
            z.register_hook(lambda g: g * weight.reshape(weight.shape + (1,) * (g.ndim - weight.ndim)))
        surrogate = (weight * log_w).sum(0)
        return surrogate + (_log_mean(log_w) - surrogate).detach()


def _log_mean(log_w: Float[Tensor, "k b"]) -> Float[Tensor, " b"]:
    """log 1/k sum exp."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def _held(trace: Trace) -> Trace:
    """The trace with the parameters of every q held constant, while the samples still follow them."""
    held = replace(trace, sites=tuple(replace(site, q=stop_gradient(site.q)) for site in trace.sites))
    held._known["log_likelihood"] = trace.log_likelihood()  # which q does not touch
    return held
