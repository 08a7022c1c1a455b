"""Objectives: trace -> (b,) in nats, to be maximised.

All but the last are lower bounds on log p(x), or one with a weight on its KL term. Likelihoods are summed over
dimensions and never averaged, so a weight of 1 on the KL term is the evidence lower bound whatever the data.

A schedule is a function of the step, which reaches the objective as a tensor: a compiled training step is not compiled
again when a weight changes. With no step given the schedule is at its end.

Axes: ``k`` importance samples, ``b`` batch.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from .distributions import stop_gradient
from .models import Trace


@runtime_checkable
class Objective(Protocol):
    """What training maximises the mean of."""

    @property
    def k(self) -> int:
        """How many samples of z it takes for each x."""

    @property
    def horizon(self) -> int:
        """The step at which its schedule reaches its end."""

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """The value for each x, in nats."""


@dataclass(frozen=True)
class Weight:
    """The weight of the KL term at each step: `end`, after a linear rise from `start`.

    Bowman et al. 2016, https://arxiv.org/abs/1511.06349; with cycles, Fu et al. 2019, https://arxiv.org/abs/1903.10145

    Args:
        end: Its final value.
        start: Its value at step 0.
        warmup: Steps that the rise takes.
        cycle: Steps from one start of the rise to the next, at least `warmup`; 0 for a single rise.
        cycles: How many rises, when `cycle` is given.

    Raises:
        ValueError: A rise longer than its cycle, or a negative number.

    >>> w = Weight(end=1.0, warmup=100)
    >>> float(w(torch.tensor(50.0)))
    0.5
    """

    end: float = 1.0
    start: float = 0.0
    warmup: int = 0
    cycle: int = 0
    cycles: int = 4

    def __post_init__(self) -> None:
        """Check the numbers against each other."""
        if min(self.end, self.start, self.warmup, self.cycle) < 0 or self.cycles < 1:
            raise ValueError(f"a weight and its schedule cannot be negative, and cycles is at least 1: got {self}")
        if self.cycle and not self.warmup:
            raise ValueError(f"cycle={self.cycle} repeats a rise that has no length: give warmup, or leave cycle at 0.")
        if 0 < self.cycle < self.warmup:
            raise ValueError(
                f"warmup={self.warmup} steps do not fit in cycle={self.cycle} steps: "
                "make the cycle as long as the warm-up, or longer."
            )

    @property
    def horizon(self) -> int:
        """The step from which the weight stays at its end."""
        return (self.cycles - 1) * self.cycle + self.warmup if self.cycle else self.warmup

    def __call__(self, step: Tensor | None) -> Tensor | float:
        """The weight at this step, as a tensor where the step is one."""
        if step is None or not self.warmup:
            return self.end
        if self.cycle:
            step = torch.where(step < self.cycles * self.cycle, step % self.cycle, self.warmup)
        return self.start + (self.end - self.start) * (step / self.warmup).clamp(max=1.0)


@dataclass(frozen=True)
class Elbo:
    """The evidence lower bound, log p(x|z) - beta KL(q || p).

    With beta = 1 it is a bound on log p(x); Kingma & Welling 2014, https://arxiv.org/abs/1312.6114. With another beta
    it is the beta-VAE's objective; Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl

    Args:
        beta: The weight of the KL term, and its schedule.
        k: Samples of z for each x, averaged.
    """

    beta: Weight = Weight()
    k: int = 1

    @property
    def horizon(self) -> int:
        """When the weight reaches its end."""
        return self.beta.horizon

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        return (trace.log_likelihood() - self.beta(step) * trace.kl()).mean(0)


@dataclass(frozen=True)
class FreeBits:
    """The evidence lower bound with a KL term that counts for no less than `nats` at each latent variable.

    The floor is on the mean over the batch, so that the gradient stops only when the variable as a whole is below it.
    Kingma et al. 2016, https://arxiv.org/abs/1606.04934

    Args:
        nats: The floor of each latent variable, in nats.
        beta: The weight of the KL term, and its schedule.
        k: Samples of z for each x, averaged.
    """

    nats: float = 2.0
    beta: Weight = Weight()
    k: int = 1

    def __post_init__(self) -> None:
        """Check the floor."""
        if self.nats < 0:
            raise ValueError(f"nats={self.nats}: a floor under a KL term cannot be negative.")

    @property
    def horizon(self) -> int:
        """When the weight reaches its end."""
        return self.beta.horizon

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        value = trace.log_likelihood()
        for site in trace.sites:
            kl = site.kl()
            # the floor is under the mean of the batch: below it the term is constant, and gives no gradient
            value = value - self.beta(step) * torch.where(kl.mean() < self.nats, self.nats, kl)
        return value.mean(0)


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
        if len(trace.sites) != 1:
            raise ValueError(
                f"objective 'dreg' is derived for one latent variable; this model has {len(trace.sites)}. "
                "Use 'iwae' instead."
            )
        log_w = _held(trace).log_weight()
        weight = log_w.detach().softmax(0)
        z = trace.sites[0].z
        if z.requires_grad:
            z.register_hook(lambda g: g * weight.reshape(weight.shape + (1,) * (g.ndim - weight.ndim)))
        surrogate = (weight * log_w).sum(0)
        return surrogate + (_log_mean(log_w) - surrogate).detach()


@dataclass(frozen=True)
class Reconstruction:
    """log p(x|z) alone: what a plain autoencoder maximises. It is no bound, and has no KL term."""

    k: int = 1

    @property
    def horizon(self) -> int:
        """It has no schedule."""
        return 0

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        return trace.log_likelihood().mean(0)


def _log_mean(log_w: Float[Tensor, "k b"]) -> Float[Tensor, " b"]:
    """log 1/k sum exp."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def _held(trace: Trace) -> Trace:
    """The trace with the parameters of every q held constant, while the samples still follow them."""
    held = replace(trace, sites=tuple(replace(site, q=stop_gradient(site.q)) for site in trace.sites))
    held._known["log_likelihood"] = trace.log_likelihood()  # which q does not touch
    return held
