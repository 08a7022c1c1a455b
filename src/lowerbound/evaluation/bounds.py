"""Evaluation: bounds and metrics of a model over data, streamed.

The importance-weighted bound of a datum, log 1/k sum_i p(x, z_i) / q(z_i|x), is a sum over k that is kept as a running
log-sum-exp with its count: any division of the k samples into passes gives the same estimate. The encoder runs once for
each datum, whatever k is.

Axes: ``k`` importance samples, ``b`` batch, ``n`` data.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import has_one_value
from ..metrics import ACTIVE, Activity, Estimate, Halves, Moments, accuracy, kl_per_dimension
from ..models import Model
from .classification import classify
from .undisturbed import undisturbed

# Numbers of x that are decoded at once, within the caches of a processor.
DECODED = 800_000


@dataclass(frozen=True)
class Latent:
    """What evaluation found of one latent variable.

    Attributes:
        rate: KL(q || p), nats for a datum.
        kl: The rate of each dimension, nats; None unless posterior and prior factorise.
        activity: Var_x(E_q[z]) of each dimension; of codes, of each choice.
        of_choices: Whether it is of codes.
    """

    rate: Estimate
    kl: Float[Tensor, "*event"] | None
    activity: Float[Tensor, "*event"]
    of_choices: bool = False

    @property
    def unit(self) -> str:
        """What one of its parts is called."""
        return "choice" if self.of_choices else "dimension"

    @property
    def moves(self) -> str:
        """What an active one of them does."""
        return "probabilities vary" if self.of_choices else "posterior mean varies"

    @property
    def active_units(self) -> int:
        """Dimensions, or choices, whose activity is above 0.01."""
        return int((self.activity > ACTIVE).sum())


@dataclass(frozen=True)
class Evaluation:
    """A model's bounds on data, in nats for each datum, with their standard errors over the data.

    Attributes:
        bound: The importance-weighted bound on log p(x) with `k` samples.
        elbo: The evidence lower bound: minus rate and distortion.
        rate: KL(q || p) of all latent variables.
        distortion: -E_q[log p(x|z)].
        latents: Each latent variable, in the order drawn.
        values: The bound of each datum.
        k: Samples for each datum.
        dims: Elements of one datum that are explained.
        discrete: Whether the likelihood is a probability, so that bits/dim mean something.
        parameters: Numbers in the model that are learned.
        accuracy: How often the likeliest class is the label, with all labels hidden; None if the model knows of none.
        likelihood: Whether p(x|z) was trained to explain data: what another says of log p(x) means nothing.
    """

    bound: Estimate
    elbo: Estimate
    rate: Estimate
    distortion: Estimate
    latents: tuple[Latent, ...]
    values: Float[Tensor, " n"]
    k: int
    dims: int
    discrete: bool
    parameters: int
    likelihood: bool = True
    accuracy: Estimate | None = None

    @property
    def is_bound(self) -> bool:
        """Whether there is a bound at all: a point posterior, as in a plain autoencoder, has none."""
        return not self.no_bound

    @property
    def no_bound(self) -> str:
        """Why there is no bound, in words; nothing where there is one."""
        if not self.likelihood:
            return "it was trained without a likelihood, and what it says of log p(x) means nothing"
        if self.rate.mean == math.inf:
            return (
                "the posterior is a point, as in a plain autoencoder: it spends infinitely many nats on z, and nothing "
                "bounds log p(x)"
            )
        return ""

    @property
    def bits_per_dim(self) -> Estimate | None:
        """Minus the bound in bits for each dimension; None for continuous data, whose density has no such meaning."""
        return self.bound * (-1 / (math.log(2) * self.dims)) if self.discrete and self.is_bound else None

    @property
    def active_units(self) -> int:
        """Latent dimensions in use; of codes, choices."""
        return sum(latent.active_units for latent in self.latents)

    @property
    def units(self) -> int:
        """How many latent dimensions, or choices, there are."""
        return sum(latent.activity.numel() for latent in self.latents)

    @property
    def unit(self) -> str:
        """What one of them is called."""
        return "latent choice" if self.of_choices else "latent dimension"

    @property
    def of_choices(self) -> bool:
        """Whether all latent variables are codes."""
        return all(latent.of_choices for latent in self.latents)

    def summary(self) -> dict[str, object]:
        """The numbers, JSON-able; null where there is none."""
        bits = self.bits_per_dim
        bound, elbo, distortion = (
            each if self.likelihood else Estimate(math.nan, math.nan)
            for each in (self.bound, self.elbo, self.distortion)
        )
        return {
            "is_bound": self.is_bound,
            "bound": bound.summary(),
            "elbo": elbo.summary(),
            "rate": self.rate.summary(),
            "distortion": distortion.summary(),
            "bits_per_dim": None if bits is None else bits.summary(),
            "active_units": self.active_units,
            "latent_dimensions": self.units,
            "rate_per_site": [latent.rate.summary() for latent in self.latents],
            "kl_per_dimension": [None if v.kl is None else v.kl.flatten().tolist() for v in self.latents],
            "activity": [latent.activity.flatten().tolist() for latent in self.latents],
            "k": self.k,
            "n": len(self.values),
            "dims": self.dims,
            "parameters": self.parameters,
            "accuracy": None if self.accuracy is None else self.accuracy.summary(),
        }


@torch.inference_mode()
def evaluate(
    model: Model,
    x: Shaped[Tensor, "n *x"],
    *context: Tensor,
    k: int = 100,
    batch: int = 256,
    chunk: int | None = None,
    discrete: bool = False,
    dims: int | None = None,
    labels: Num[Tensor, "..."] | None = None,
    likelihood: bool = True,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a model on data it was not trained on.

    Args:
        model: The model; it is left in the mode it was in.
        x: Data in their own units.
        context: What the model is conditional on, a row for each x.
        k: Importance samples for each datum.
        batch: Data encoded at once.
        chunk: Samples (data times k) decoded at once; by default what keeps a pass within the processor's caches.
        discrete: Whether x is discrete, so that bits/dim are reported.
        dims: How many elements of x the model explains, where it is told the others; by default all.
        labels: The class of each x, by which a model is judged that says what class x is of.
        likelihood: Whether the model was trained by one: else there is no bound to report.
        seed: Of the samples. The caller's random state is left alone.

    Raises:
        ValueError: No data, or a k, batch or chunk below 1.
    """
    if len(x) == 0:
        raise ValueError("there is no data to evaluate on: x has 0 rows. Give a split that has some.")
    size = math.prod(x.shape[1:])
    device = next(model.parameters()).device
    chunk = max(1, (DECODED if device.type == "cpu" else 2**25) // size) if chunk is None else chunk
    if min(k, batch, chunk) < 1:
        raise ValueError(f"k={k}, batch={batch}, chunk={chunk}: each must be 1 or more.")
    batch = min(batch, chunk) if k == 1 else max(1, min(batch, chunk // min(k, 8)))

    with undisturbed(model, seed):
        found = _evaluate(model, x, context, k, batch, chunk, discrete, dims or size)
    right = None if labels is None else _accuracy(model, x, context, labels)
    return replace(found, likelihood=likelihood, accuracy=right)


def _accuracy(model: Model, x: Tensor, context: tuple[Tensor, ...], labels: Tensor) -> Estimate | None:
    """How often the likeliest class is the label; None where either does not speak of classes."""
    said = classify(model, x, *context) if labels.ndim == 1 and bool((labels >= 0).any()) else None
    return None if said is None else accuracy(said, labels.cpu())


def _evaluate(
    model: Model, x: Tensor, context: tuple[Tensor, ...], k: int, batch: int, chunk: int, discrete: bool, dims: int
) -> Evaluation:
    weights = next(model.parameters())
    found: list[_Batch] = []
    moments: list[tuple[Activity, Moments]] = []
    for start in range(0, len(x), batch):
        rows = x[start : start + batch].to(weights)
        given = [c[start : start + batch].to(weights) for c in context]
        found.append(_look(model, rows, given, k, chunk))
        moments = moments or [(Activity(), Moments()) for _ in found[0].rates]
        batch_found = found[-1]
        parts = zip(moments, batch_found.posteriors, batch_found.halves, batch_found.kls, strict=True)
        for (activity, kl), q, halves, per_dimension in parts:
            activity.add(q, halves)
            if per_dimension is not None:
                kl.add(per_dimension)

    values = torch.cat([b.bound for b in found])
    distortion = torch.cat([b.distortion for b in found])
    rates = [torch.cat(parts) for parts in zip(*(b.rates for b in found), strict=True)]
    rate = sum(rates[1:], rates[0])
    latents = tuple(
        Latent(Estimate.of(site), kl.mean.cpu() if kl.n else None, activity.variance().cpu(), activity.of_choices)
        for site, (activity, kl) in zip(rates, moments, strict=True)
    )
    return Evaluation(
        bound=Estimate.of(values),
        elbo=Estimate.of(-distortion - rate),
        rate=Estimate.of(rate),
        distortion=Estimate.of(distortion),
        latents=latents,
        values=values.cpu(),
        k=k,
        dims=dims,
        discrete=discrete,
        parameters=sum(p.numel() for p in model.parameters()),
    )


@dataclass(frozen=True)
class _Batch:
    """What k samples say of a batch: nats for each datum, and each latent variable's means and divergences."""

    bound: Tensor
    distortion: Tensor
    rates: list[Tensor]
    posteriors: list[Distribution]
    halves: list[Halves]
    kls: list[Tensor | None]


def _look(model: Model, rows: Tensor, given: list[Tensor], k: int, chunk: int) -> _Batch:
    """Encode a batch once, and draw its k samples in as many passes as they take."""
    code = model.encoder(rows, *given)
    log_sum = rows.new_full((len(rows),), -math.inf, dtype=torch.float64)
    log_likelihood = torch.zeros_like(log_sum)
    rates: list[Tensor] = []
    halves: list[Halves] = []
    drawn = 0
    while drawn < k:
        part = min(max(1, chunk // len(rows)), k - drawn)
        trace = model.trace(rows, code, *given, k=part)
        log_sum = torch.logaddexp(log_sum, trace.log_weight().double().logsumexp(0))
        log_likelihood += trace.log_likelihood().double().sum(0)
        rates = rates or [torch.zeros_like(log_sum) for _ in trace.sites]
        halves = halves or [Halves() for _ in trace.sites]
        for rate, half, site in zip(rates, halves, trace.sites, strict=True):
            rate += _total(site.kl(), part, len(rows))
            half.add(site)
        drawn += part
        if all(has_one_value(site.q) for site in trace.sites):
            break  # more samples would be the same ones
    return _Batch(
        bound=log_sum - math.log(drawn),
        distortion=-log_likelihood / drawn,
        rates=[rate / drawn for rate in rates],
        posteriors=[site.q for site in trace.sites],
        halves=halves,
        kls=[kl_per_dimension(site) for site in trace.sites],
    )


def _total(kl: Tensor, k: int, b: int) -> Tensor:
    """The sum over k samples of a divergence that is known exactly, (b,), or sampled, (k, b)."""
    return kl.double().expand(k, b).sum(0)
