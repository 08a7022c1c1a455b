"""Latent variable models p(x, z) = p(z) p(x|z), trained through an approximate posterior q(z|x).

The evidence lower bound of a datum is

    log p(x) >= E_q(z|x) [log p(x|z)] - KL(q(z|x) || p(z)),

and with k samples from q it tightens to log 1/k sum_i p(x, z_i) / q(z_i|x) (Burda et al. 2016,
https://arxiv.org/abs/1509.00519). Everything those formulas need of one pass is a `Trace`: the samples, the
distributions they came from and answer to, and p(x|z). Objectives, metrics and evaluation are functions of traces, so
none of them needs to know which model made it.

A *conditional* is any module whose forward returns a distribution. Encoder x -> q(z|x), prior () -> p(z) and decoder
z -> p(x|z) are all of that kind, as is every zuko flow.

Axes: ``k`` importance samples, ``b`` batch, ``*event`` one value. Log-densities are in nats, of shape (k, b).
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence


@dataclass(frozen=True)
class Site:
    """One latent variable of one pass: samples z ~ q, and the prior p that they answer to.

    Attributes:
        rate: KL(q || p) of each element in nats, where more is known of it than this q and p say: its mean over all
            values of a variable above this one that was summed out.
    """

    z: Float[Tensor, "k b *event"]
    q: Distribution
    p: Distribution
    rate: Float[Tensor, "b *event"] | None = None

    def log_ratio(self) -> Float[Tensor, "k b"]:
        """log q(z) - log p(z) at the samples, in nats."""
        return self.q.log_prob(self.z) - self.p.log_prob(self.z)

    def kl(self) -> Float[Tensor, "*kb"]:
        """KL(q || p) in nats: (b,) in closed form where there is one, else the estimate from each sample, (k, b)."""
        if self.rate is not None:
            return self.rate.flatten(1).sum(1)
        try:
            return kl_divergence(self.q, self.p)
        except NotImplementedError:
            return self.log_ratio()


class Summed(NamedTuple):
    """What a pass knows in which a latent variable of few values y was summed out: its sites show one draw of y only.

    Attributes:
        log_likelihood: E_q(y|x) [log p(x|y, z_y)], in nats, with a z_y drawn for every y.
        log_weight: log E_q(y|x) [p(x, y, z_y) / q(y, z_y|x)], in nats.
    """

    log_likelihood: Float[Tensor, "k b"]
    log_weight: Float[Tensor, "k b"]


@dataclass(frozen=True)
class Trace:
    """One pass of a batch: the data, the latent variables in the order they were drawn, and p(x|z).

    Attributes:
        summed: The sums, where a latent variable was summed out rather than drawn.
    """

    x: Shaped[Tensor, "b *x"]
    sites: tuple[Site, ...]
    likelihood: Distribution
    summed: Summed | None = None
    # what was computed already: a dict, because the lock of Python 3.11's cached_property cannot be compiled
    _known: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def log_likelihood(self) -> Float[Tensor, "k b"]:
        """log p(x|z), in nats. It is computed once."""
        if self.summed is not None:
            return self.summed.log_likelihood
        if "log_likelihood" not in self._known:
            self._known["log_likelihood"] = self.likelihood.log_prob(self.x)
        return self._known["log_likelihood"]

    def kl(self) -> Float[Tensor, "*kb"]:
        """The divergence of all latent variables, in nats; of shape (b,) or (k, b), which broadcast. Computed once."""
        if "kl" not in self._known:
            total = self.sites[0].kl()
            for site in self.sites[1:]:
                total = total + site.kl()
            self._known["kl"] = total
        return self._known["kl"]

    def log_weight(self) -> Float[Tensor, "k b"]:
        """log p(x, z) - log q(z|x), in nats. Its exponential is an unbiased estimate of p(x)."""
        if self.summed is not None:
            return self.summed.log_weight
        total = self.log_likelihood()
        for site in self.sites:
            total = total - site.log_ratio()
        return total


class Conditional(nn.Module):
    """p(y|context): a network whose output is the parameters of a family.

    Args:
        net: context -> parameter tensor.
        family: parameter tensor -> distribution.
        untold: Whether the network sees the first of the context alone, x or z, whatever else the model is told.
    """

    def __init__(self, net: nn.Module, family: nn.Module, untold: bool = False) -> None:
        super().__init__()
        self.net = net
        self.family = family
        self.untold = untold

    def forward(self, *context: Tensor) -> Distribution:
        """The distribution given the context."""
        return self.family(self.params(*context))

    def params(self, *context: Tensor) -> Tensor:
        """Its parameters given the context."""
        return self.net(*(context[:1] if self.untold else context))


class Model(nn.Module, abc.ABC):
    """What every latent variable model can do: infer, and generate.

    Args:
        encoder: x -> what is to be known of x: q(z|x), or the features that posteriors are made of.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Shaped[Tensor, "b *x"], *context: Tensor, k: int = 1) -> Trace:
        """Infer: draw k samples z ~ q(z|x) for each x.

        Args:
            x: Data in their own units.
            context: What everything is conditional on; nothing for an unconditional model.
            k: Samples for each x.
        """
        return self.trace(x, self.encoder(x, *context), *context, k=k)

    @abc.abstractmethod
    def trace(self, x: Shaped[Tensor, "b *x"], code: Any, *context: Tensor, k: int = 1) -> Trace:
        """`forward`, with what the encoder said of x at hand: encode once, draw as often as you like."""

    @abc.abstractmethod
    def generate(self, n: int, *context: Tensor, z: Sequence[Tensor] = ()) -> Distribution:
        """Generate: p(x|z) for n draws of z.

        Nothing given samples the model; the z of a trace reconstructs; changed z traverse or interpolate.

        Args:
            n: How many.
            context: As in `forward`.
            z: Latent variables to hold, in the order they are drawn, each with n rows; the rest come from the prior.
        """


class VAE(Model):
    """One latent variable. Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    Args:
        encoder: x -> q(z|x).
        prior: () -> p(z).
        decoder: z -> p(x|z).

    >>> from lowerbound.families import Bernoulli, Normal
    >>> from lowerbound.priors import StandardNormal
    >>> posterior, likelihood = Normal((2,)), Bernoulli((6,))
    >>> encoder = Conditional(nn.Linear(6, 4), posterior)
    >>> decoder = Conditional(nn.Linear(2, 6), likelihood)
    >>> model = VAE(encoder, StandardNormal((2,)), decoder)
    >>> model(torch.ones(5, 6), k=3).log_weight().shape
    torch.Size([3, 5])
    >>> model.generate(4).sample().shape
    torch.Size([4, 6])
    """

    def __init__(self, encoder: nn.Module, prior: nn.Module, decoder: nn.Module) -> None:
        super().__init__(encoder)
        self.prior = prior
        self.decoder = decoder

    def trace(self, x: Shaped[Tensor, "b *x"], q: Distribution, *context: Tensor, k: int = 1) -> Trace:
        """Draw k samples z ~ q(z|x)."""
        p = self.prior(*context)
        z = q.rsample((k,))
        return Trace(x, (Site(z, q, p),), self.decoder(z, *context))

    def generate(self, n: int, *context: Tensor, z: Sequence[Tensor] = ()) -> Distribution:
        """p(x|z) at the given z, or at n draws from the prior."""
        p = self.prior(*context)
        # a prior that is conditional has a distribution for each row of the context already
        (z0,) = z or (p.sample((n,)[len(p.batch_shape) :]),)
        return self.decoder(z0, *context)


class Level(nn.Module):
    """One rung of a `TopDownVAE`: a latent variable, with the state h above it.

    Args:
        prior: h -> (p(z|h), h); it may add what it knows to the state.
        posterior: (h, a, p) -> q(z|h, x), from the state, the features a of x, and the prior.
        merge: (h, z) -> h.
    """

    prior: nn.Module
    posterior: nn.Module
    merge: nn.Module

    def __init__(self, prior: nn.Module, posterior: nn.Module, merge: nn.Module) -> None:
        super().__init__()
        self.prior = prior
        self.posterior = posterior
        self.merge = merge


class TopDownVAE(Model):
    """Latent variables z_1 .. z_L drawn from the top down, in p and in q alike.

    Sønderby et al. 2016, https://arxiv.org/abs/1602.02282; Child 2021, https://arxiv.org/abs/2011.10650

    Args:
        encoder: x -> features a_1 .. a_L of x, top first.
        levels: z_1 .. z_L, top first.
        decoder: h -> p(x|z_1 .. z_L), from the state after the last level.
        state: Shape of the state h at the top.
    """

    def __init__(self, encoder: nn.Module, levels: Sequence[Level], decoder: nn.Module, state: Sequence[int]) -> None:
        super().__init__(encoder)
        self.levels: Sequence[Level] = nn.ModuleList(levels)  # type: ignore[assignment]
        self.decoder = decoder
        self.root = nn.Parameter(torch.zeros(*state))

    def trace(self, x: Shaped[Tensor, "b *x"], features: Sequence[Tensor], *context: Tensor, k: int = 1) -> Trace:
        """Draw k samples of every level, each given those above it."""
        h = self.root.expand(k, len(x), *self.root.shape)
        sites = []
        for level, a in zip(self.levels, features, strict=True):
            p, h = level.prior(h)
            q = level.posterior(h, a, p)
            z = q.rsample()
            h = level.merge(h, z)
            sites.append(Site(z, q, p))
        return Trace(x, tuple(sites), self.decoder(h, *context))

    def generate(self, n: int, *context: Tensor, z: Sequence[Tensor] = ()) -> Distribution:
        """p(x|z) with the first levels held at the given z and the rest drawn from their priors."""
        h = self.root.expand(n, *self.root.shape)
        for i, level in enumerate(self.levels):
            p, h = level.prior(h)
            # a prior that nothing stands above may be one for all rows
            h = level.merge(h, z[i] if i < len(z) else p.sample((n,)[len(p.batch_shape) :]))
        return self.decoder(h, *context)
