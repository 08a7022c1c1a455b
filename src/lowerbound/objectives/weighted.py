"""The two terms of the bound, likelihood and KL, weighed against each other.

Axes: ``k`` importance samples, ``b`` batch, ``d`` elements of one latent variable.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..distributions import DiagonalNormal, kl_per_element, stop_gradient
from ..families import positive
from ..models import Site, Trace
from .objective import ONE, Weight, check

# How much faster than a weight of the network the multiplier of a constraint moves: an optimiser's step is as long as
# the learning rate, and a multiplier that moved by it alone would take ten thousand steps to cover its range.
PACE = 10.0
# Where the KL term is led if nothing else is said, in nats, as in the paper.
CAPACITY = Weight(25.0)
# Keeps the balance of levels finite where one has collapsed, in nats.
TINY = 0.01


@dataclass(frozen=True)
class Elbo:
    """The evidence lower bound, log p(x|z) - beta KL(q || p).

    With beta = 1 it is a bound on log p(x); Kingma & Welling 2014, https://arxiv.org/abs/1312.6114. With another beta
    it is the beta-VAE's objective; Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl

    Args:
        beta: The weight of the KL term, and its schedule.
        k: Samples of z for each x, averaged.
    """

    beta: Weight = ONE
    k: int = 1

    @property
    def horizon(self) -> int:
        """When the weight reaches its end."""
        return self.beta.horizon

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        return (trace.log_likelihood() - self.beta(step) * trace.kl()).mean(0)


@dataclass(frozen=True)
class Capacity:
    """log p(x|z) - beta |KL(q || p) - C|: the KL term, of the batch as a whole, is led along a capacity C that rises.

    Below the capacity it is pushed up as hard as it is pushed down above. Burgess et al. 2018,
    https://arxiv.org/abs/1804.03599

    Args:
        nats: The capacity, and its schedule.
        beta: How much a nat of difference costs.
        k: Samples of z for each x, averaged.

    Raises:
        ValueError: A number is negative or not finite.
    """

    nats: Weight = CAPACITY
    beta: float = 100.0
    k: int = 1

    def __post_init__(self) -> None:
        """Check the weight."""
        check("capacity", {"beta": self.beta})

    @property
    def horizon(self) -> int:
        """When the capacity reaches its end."""
        return self.nats.horizon

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        return trace.log_likelihood().mean(0) - self.beta * (trace.kl().mean() - self.nats(step)).abs()


@dataclass(frozen=True)
class FreeBits:
    """The evidence lower bound with a KL term of which every part counts for no less than `nats`.

    The floor is on the mean over the batch, so that the gradient stops only when the part as a whole is below it.
    Kingma et al. 2016, https://arxiv.org/abs/1606.04934

    Args:
        nats: The floor of each part, in nats.
        beta: The weight of the KL term, and its schedule.
        k: Samples of z for each x, averaged.
        by: What a part is: "variable" (a latent variable), "dimension" (each of its elements), or "group" (neighbours
            among them).
        groups: How many groups a latent variable is divided into, of nearly equal size.

    Raises:
        ValueError: A number is negative or not finite; a latent variable has fewer elements than groups.
        TypeError: Dimensions are asked for, and posterior or prior do not factorise over them.
    """

    nats: float = 2.0
    beta: Weight = ONE
    k: int = 1
    by: Literal["variable", "dimension", "group"] = "variable"
    groups: int = 1

    def __post_init__(self) -> None:
        """Check the floor and the groups."""
        wrong = [] if self.groups >= 1 else [f"groups={self.groups} must be 1 or more"]
        wrong += [f"groups={self.groups} needs by='group'"] if self.groups > 1 and self.by != "group" else []
        check("free_bits", {"nats": self.nats}, wrong)

    @property
    def horizon(self) -> int:
        """When the weight reaches its end."""
        return self.beta.horizon

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        value = trace.log_likelihood()
        for site in trace.sites:
            kl = self._parts(site)
            # the floor is under the mean of the batch: below it the term is constant, and gives no gradient
            floored = torch.where(kl.flatten(0, -2).mean(0) < self.nats, self.nats, kl)
            value = value - self.beta(step) * floored.sum(-1)
        return value.mean(0)

    def _parts(self, site: Site) -> Float[Tensor, "*kb parts"]:
        """The KL term of each part of a latent variable, in nats."""
        if self.by == "variable":
            return site.kl()[..., None]
        match site.q, site.p:
            case DiagonalNormal() as q, DiagonalNormal() as p:
                kl = kl_per_element(q, p).flatten(-len(q.event_shape))
            case q, p:
                raise TypeError(
                    f"objective.by={self.by!r} needs a KL term that is a sum over dimensions, which that of a "
                    f"{type(q).__name__} from a {type(p).__name__} is not. Use model.posterior=normal and "
                    "model.prior=normal, or objective.by=variable."
                )
        if self.by == "dimension":
            return kl
        if self.groups > kl.shape[-1]:
            raise ValueError(f"groups={self.groups} is more than the {kl.shape[-1]} dimensions of a latent variable.")
        return torch.stack([group.sum(-1) for group in kl.tensor_split(self.groups, dim=-1)], -1)


@dataclass(frozen=True)
class Balanced:
    """The evidence lower bound, with the gradient of its KL term shared out between prior and posterior, and levels.

    Of the KL term's gradient the prior receives the part `prior` and the posterior the rest: a prior that learns
    follows the posterior rather than drawing it in, alpha KL(sg(q) || p) + (1 - alpha) KL(q || sg(p)) with sg for what
    is held constant. Hafner et al. 2021, https://arxiv.org/abs/2010.02193. The value is that of the bound.

    With `levels`, each latent variable of several has during the warm-up a weight in proportion to its KL term for
    each of its elements, of mean 1: what is used more costs more, so that no level is given up early. As in the
    published code of Vahdat & Kautz 2020, https://arxiv.org/abs/2007.03898

    Args:
        prior: The prior's part, from 0 to 1; at 1/2 both have half the gradient that they have in the bound.
        levels: Whether to balance levels while the weight rises.
        beta: The weight of the KL term, and its schedule.
        k: Samples of z for each x, averaged.

    Raises:
        ValueError: A part that is none; levels without a warm-up.
        TypeError: The posterior is of a kind that cannot be held constant.
    """

    prior: float = 0.8
    levels: bool = False
    beta: Weight = ONE
    k: int = 1

    def __post_init__(self) -> None:
        """Check the part, and that levels have a time."""
        wrong = [] if 0 <= self.prior <= 1 else [f"prior={self.prior} must be from 0 to 1"]
        if self.levels and not self.beta.warmup:
            wrong.append("levels are balanced while the weight rises: give warmup, or leave levels out")
        check("balanced", {}, wrong)

    @property
    def horizon(self) -> int:
        """When the weight reaches its end."""
        return self.beta.horizon

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        shared = [self._shared(site) for site in trace.sites]
        if self.levels and step is not None:
            used = torch.stack(
                [
                    (kl.detach().mean().abs() + TINY) / site.z[0, 0].numel()
                    for kl, site in zip(shared, trace.sites, strict=True)
                ]
            )
            of_level = torch.where(step < self.horizon, used / used.mean(), 1.0)
            shared = [weight * kl for weight, kl in zip(of_level, shared, strict=True)]
        return (trace.log_likelihood() - self.beta(step) * sum(shared)).mean(0)

    def _shared(self, site: Site) -> Float[Tensor, "*kb"]:
        """The KL term of a latent variable, its gradient shared out."""
        kl = site.kl()
        of_prior = Site(site.z.detach(), stop_gradient(site.q), site.p).kl()
        # the posterior's gradient is 1 - prior; the prior's, in both of the first two terms, is prior; the last
        # gives back what they lack in value
        return (1 - self.prior) * kl + (2 * self.prior - 1) * of_prior + ((1 - self.prior) * kl).detach()


class Geco(nn.Module):
    """The least KL term at which the distortion is what is asked for: -KL - lambda (distortion - target).

    The multiplier lambda is a parameter that is learned against the others: it grows while the distortion is above its
    target and shrinks while it is below, between e^-7 and e^7. What it ends at is a model of weight 1/lambda on its KL
    term. Its gradient is what the batch has too much, bounded: an optimiser that measures its steps by the gradients of
    the past would hardly move it, after a start that is hundreds of nats off. Rezende & Viola 2018,
    https://arxiv.org/abs/1810.00597

    Args:
        distortion: The target of -E_q[log p(x|z)], in nats for each datum: the number that every run reports.
        k: Samples of z for each x, averaged.

    Raises:
        ValueError: The target is not finite.
    """

    def __init__(self, distortion: float, k: int = 1) -> None:
        super().__init__()
        check("geco", {}, [] if math.isfinite(distortion) else [f"distortion={distortion} must be finite"])
        self.distortion = distortion
        self.k = k
        self.horizon = 0
        self.raw = nn.Parameter(torch.zeros(()))

    @property
    def multiplier(self) -> Float[Tensor, ""]:
        """lambda."""
        return positive(PACE * self.raw)

    def forward(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        excess = -trace.log_likelihood() - self.distortion
        push = self.raw * F.softsign(excess.detach().mean())
        return -(trace.kl() + self.multiplier.detach() * excess).mean(0) + (push - push.detach())


@dataclass(frozen=True)
class Reconstruction:
    """log p(x|z) + penalty log p(z): what an autoencoder maximises, plain or regularised. It is no bound.

    Under a standard normal the second term is half the squared length of the code, and holds codes together where there
    is no noise that would: with a weight decay it is RAE-L2, whose codes a refitted prior can be sampled from. Ghosh et
    al. 2020, https://arxiv.org/abs/1903.12436

    Args:
        penalty: The weight of log p(z); None for a plain autoencoder, whose prior is asked nothing.
        k: Samples of z for each x, averaged.

    Raises:
        ValueError: The weight is negative or not finite.
    """

    penalty: float | None = None
    k: int = 1

    def __post_init__(self) -> None:
        check("reconstruction", {} if self.penalty is None else {"penalty": self.penalty})

    @property
    def horizon(self) -> int:
        """It has no schedule."""
        return 0

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats."""
        value = trace.log_likelihood()
        if self.penalty is not None:
            for site in trace.sites:
                value = value + self.penalty * site.p.log_prob(site.z)
        return value.mean(0)
