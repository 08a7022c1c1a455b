"""Whether the KL term weighs what it should, and whether prior and aggregated posterior meet.

With too large a weight z is not worth its cost; with too small a weight, or none, the codes go where the prior is not,
and what is drawn from the prior decodes to nothing that the decoder has seen.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from ..data import ALONE
from ..distributions import DiagonalNormal
from ..evaluation import USED, undisturbed
from ..metrics import MIDDLE, STRAY, strays
from ..metrics.aggregate import decompose, holes
from ..recipes import given
from .finding import Finding
from .subject import Subject

# Weights within a factor of 2 train something near the bound.
MOST, LEAST = 2.0, 0.5
# Nats of KL(q(z_d) || p(z_d)), in the mean over the latent dimensions. Healthy models of digits have 0.01, those with a
# hundredth of the weight 0.4.
MARGINAL = 0.1
# A hole is where the aggregated posterior is less dense than at all but 1 % of held-out codes. Of samples of a standard
# normal prior 0.2 to 0.55 land in one with healthy models of digits, 1.0 with a hundredth of the weight.
QUANTILE, HOLES = 0.01, 0.8
DRAWS = 1000
# Steps that comparing every sample with every posterior, in every dimension, may take.
COMPARISONS = 4e7
# Priors that can be fitted after training, as the command line calls them, and as the table of a model does.
REFITTED = {"gmm": "gmm", "flow": "scaled_flow"}
NEAR_PRIOR = "The codes come to where the prior is, so that what is drawn from it looks like data."


def over_regularisation(subject: Subject) -> Finding | None:
    """Whether the KL term weighs so much that z is priced out; where it has no weight, whether it was."""
    if found := too_large_a_weight(subject):
        return found
    rate = subject.held_out.rate.mean
    if rate >= USED or subject.is_quantised:
        return None
    what = f"The rate is {rate:.2f} nats: the objective {subject.run['objective']['name']!r} leaves z no room."
    effect = "The evidence lower bound weighs rate and distortion alike."
    return Finding("over-regularisation", "finding", what, rate, USED, ("objective.name=elbo",), effect)


def too_large_a_weight(subject: Subject) -> Finding | None:
    """What the tables alone say of it."""
    weight = subject.weight
    if weight is None:
        return None
    if weight <= MOST:
        return Finding(
            "over-regularisation", "healthy", f"The KL term weighs {weight:g}; in the bound it has 1.", weight, MOST
        )
    return Finding(
        "over-regularisation",
        "finding",
        f"The KL term weighs {weight:g}, where the bound has 1: a nat of the code must save {weight:g} nats of the "
        "data, and what saves less is not encoded.",
        weight,
        MOST,
        ("objective.beta=1",),
        "The rate rises and the distortion falls by more: the bound itself is maximised.",
    )


def under_regularisation(subject: Subject) -> Finding | None:
    """Whether the KL term weighs so little, or nothing, that the codes ignore the prior."""
    found = too_small_a_weight(subject)
    cheap = found is not None and found.verdict == "finding"
    # what the tables say of the weight is not the last word on a prior that was fitted when the training was over
    if subject.is_point or (cheap and subject.run["model"].get("prior") in REFITTED.values()):
        return _codes_and_prior(subject)
    if found and found.verdict == "finding":
        return found
    marginal = _marginal(subject)
    if marginal is None:
        return found
    name = "under-regularisation"
    what = f"The aggregated posterior of a latent dimension is {marginal:.2f} nats from the prior's, in the mean"
    if marginal <= MARGINAL:
        return Finding(name, "healthy", what + ".", marginal, MARGINAL)
    remedy = ("objective.name=elbo",) if subject.weight is None else subject.accepted("prior", "vamp")
    remedy = (*_fitted_prior(subject), *remedy)
    return Finding(name, "finding", what + ".", marginal, MARGINAL, remedy, NEAR_PRIOR)


def too_small_a_weight(subject: Subject) -> Finding | None:
    """What the tables alone say of it."""
    name, weight = "under-regularisation", subject.weight
    if weight is None or subject.is_point:
        return None
    if weight < LEAST:
        what = f"The KL term weighs {weight:g}, where the bound has 1: codes are cheap, and may lie far from the prior."
        remedy = (*_fitted_prior(subject), "objective.beta=1")
        return Finding(name, "finding", what, weight, LEAST, remedy, NEAR_PRIOR)
    return Finding(name, "healthy", f"The KL term weighs {weight:g}; in the bound it has 1.", weight, LEAST)


def _codes_and_prior(subject: Subject) -> Finding | None:
    """Whether the prior lies where the codes are that nothing, or little, has tied to it."""
    name, p = "under-regularisation", _top(subject)[2]
    if p.batch_shape:
        return None
    with undisturbed(subject.model, seed=0), torch.no_grad():
        share = strays(p, subject.codes[0], p.sample((DRAWS,)))
    tie = "It has no bound" if subject.is_point else f"The KL term weighs {subject.weight:g}, where the bound has 1"
    what = f"{tie}, and {share.mean:.0%} of its codes are outside of the prior's middle {MIDDLE:.0%}"
    if share.mean <= STRAY:
        return Finding(name, "healthy", what + ".", share.mean, STRAY)
    tied = ("model.posterior=normal", "objective.name=elbo") if subject.is_point else ("objective.beta=1",)
    return Finding(
        name,
        "finding",
        f"{what}: what is drawn from it need not be like data.",
        share.mean,
        STRAY,
        (*_fitted_prior(subject), *tied),
        NEAR_PRIOR,
    )


def prior_holes(subject: Subject) -> Finding | None:
    """How often a sample of the prior lands where no posterior is."""
    q, _, p = _top(subject)
    if p.batch_shape or q is None:
        return None
    with undisturbed(subject.model, seed=0), torch.no_grad():
        held_out = subject.codes[0]
        if len(held_out) * QUANTILE < 1:
            what = f"{len(held_out)} held-out rows are too few: {math.ceil(1 / QUANTILE)} can tell."
            return Finding("prior with holes", "unknown", what)
        share = holes(q, held_out, p.sample((DRAWS,)), QUANTILE)
    what = f"{share.mean:.0%} of the prior's samples land where hardly any posterior is"
    if share.mean <= HOLES:
        return Finding("prior with holes", "healthy", f"{what}; up to {HOLES:.0%} is usual.", share.mean, HOLES)
    return Finding(
        "prior with holes",
        "finding",
        f"{what} (below the density of all but {QUANTILE:.0%} of held-out codes): the decoder has never been trained "
        "there, and samples need not look like data.",
        share.mean,
        HOLES,
        _nearer_prior(subject),
        "The prior lies where the posteriors are, and its samples decode to what the decoder has learned.",
    )


def _nearer_prior(subject: Subject) -> tuple[str, ...]:
    """What brings prior and codes together: one that is fitted to them, or a training that does."""
    return (*_fitted_prior(subject), *_better_training(subject))


def _fitted_prior(subject: Subject) -> tuple[str, ...]:
    """The command that fits a prior to the codes, where there is one for them."""
    model = subject.run["model"]
    # it is for one latent vector, no direction, whose prior is told nothing
    vector = not model.get("spatial") and model.get("posterior") != "sphere"
    fits = subject.accepted("prior", "gmm") and vector and given(model) in ALONE
    if subject.data is None or not fits:
        return ()
    order = [name for name, prior in REFITTED.items() if prior != model["prior"]]
    return (f"lowerbound refit RUN --prior {order[0]}",)


def _better_training(subject: Subject) -> tuple[str, ...]:
    """A weight that brings prior and codes together, else a prior that learns where they are."""
    if subject.weight is not None and subject.weight < 1:
        return ("objective.beta=1",)
    model = subject.run["model"]
    if model.get("prior") != "vamp":
        return subject.accepted("prior", "vamp")
    # a flow is for vectors only
    return (
        f"model.prior_components={2 * int(model['prior_components'])}" if model.get("spatial") else "model.prior=flow",
    )


def _top(subject: Subject) -> tuple[Distribution | None, Tensor, Distribution]:
    """The posteriors of rows that it was trained on, a sample of each, and the prior, of the first latent variable.

    Posteriors are None but for normal ones: a flow is slow to say how dense it is where it has not drawn.
    """
    sites = subject.passes("train", lambda trace: trace.sites[0])
    z, p = torch.cat([site.z[0] for site in sites]), sites[0].p
    if given(subject.run["model"]) == "row":
        prior: Any = subject.model.prior
        p = prior()  # for any row, of all exemplars

    def all_of(parameter: str) -> Tensor:
        # of a ladder there is a posterior for each sample of what is above it, and here one sample
        values = [getattr(site.q, parameter) for site in sites]
        return torch.cat([v[0] if len(site.q.batch_shape) == 2 else v for v, site in zip(values, sites, strict=True)])

    match sites[0].q:
        case DiagonalNormal(event_shape=event):
            return DiagonalNormal(all_of("loc"), all_of("scale"), len(event)), z, p
        case MultivariateNormal():
            return MultivariateNormal(all_of("loc"), scale_tril=all_of("scale_tril"), validate_args=False), z, p
    return None, z, p


def _marginal(subject: Subject) -> float | None:
    """sum_d KL(q(z_d) || p(z_d)) over the number of dimensions, nats; None unless they factorise."""
    q, z, p = _top(subject)
    if p.batch_shape or not (isinstance(q, DiagonalNormal) and isinstance(p, DiagonalNormal)):
        return None
    n = min(len(z), max(100, int(math.sqrt(COMPARISONS / z[0].numel()))))
    found = decompose(z[:n], DiagonalNormal(q.loc[:n], q.scale[:n], len(q.event_shape)), p)
    assert found.dimension_wise is not None
    return found.dimension_wise.mean / z[0].numel()
