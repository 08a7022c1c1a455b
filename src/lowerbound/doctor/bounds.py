"""How far the bound is from log p(x), and the bound of held-out data from that of the data it was trained on.

Nats are held against the rate, what the code of a datum carries: it does not change with the units of x, as the bound
of continuous data does.
"""

import math

import torch
from torch import Tensor

from ..data import ALONE
from ..distributions import Remembered
from ..evaluation import (
    InferenceGap,
    Start,
    Tightness,
    bracket,
    evaluate,
    inference_gap,
    is_unbounded,
    refined_bound,
    tightness,
    undisturbed,
)
from ..metrics import Estimate, code_counts
from ..models import Trace
from ..recipes import given
from .finding import Finding
from .subject import Subject

# Parts of the rate. Healthy models of digits have 0.1 to 0.7, 0.3 to 0.5, and 0.03 to 0.14.
GENERALISATION, INFERENCE, TIGHT = 1.0, 0.8, 0.2
# Nats below which nothing is called a gap.
NATS = 2.0
# Objectives whose bound is the tighter the more samples they take.
IMPORTANCE_WEIGHTED = ("iwae", "dreg", "renyi")
KS, IWAE = (1, 10, 100, 1000), 100
# Of the annealing that a search for the best q competes with, and of the way there and back.
FEW, MANY = 20, 40
# Steps of the search for the best that an encoder could say to several latent variables.
SEARCH = 50
# Posteriors, and one that can be more.
RICHER = {"normal": "full", "laplace": "full", "low_rank": "full", "householder": "full", "full": "iaf"}
RICHER |= {"planar": "iaf", "radial": "iaf", "sylvester": "iaf"}
RICHER_EFFECT = (
    "q comes nearer to the true posterior: the bound rises, and needs fewer samples to be tight. Until then "
    "`lowerbound evaluate` with a larger --k reports a tighter bound of this model."
)


def generalisation_gap(subject: Subject) -> Finding:
    """How much better the rows fare that it was trained on, and whether held-out rows fared better before."""
    trained, held_out = subject.trained_on.elbo, subject.held_out.elbo
    gap = Estimate(trained.mean - held_out.mean, math.hypot(trained.standard_error, held_out.standard_error))
    # a gap that is not larger than its error may be none
    certain = gap.mean > 3 * gap.standard_error
    what = f"The bound of held-out rows is {gap} nats below that of rows it was trained on"
    return _generalisation(subject, what, gap.mean, subject.held_out.rate.mean, certain)


def generalisation_in_log(subject: Subject) -> Finding | None:
    """The same from the log alone, where the data are gone."""
    looks = subject.validations
    if not looks:
        return None
    last = max(looks, key=lambda entry: entry["valid_bound"]) if subject.keeps_best else looks[-1]
    gap = last["train_bound"] - last["valid_bound"]
    what = f"By the log, the bound of held-out rows is {gap:.1f} nats below that of rows it was trained on"
    return _generalisation(subject, what, gap, last["valid_rate"], certain=True)


def _generalisation(subject: Subject, what: str, gap: float, rate: float, certain: bool) -> Finding:
    name, number, threshold = "generalisation gap", gap, max(NATS, GENERALISATION * rate)
    fallen = _fallen(subject)
    if fallen > NATS:
        what, number, threshold = f"{what}, and {fallen:.1f} nats below what it once was", fallen, NATS
    elif gap <= threshold or not certain:
        return Finding(name, "healthy", f"{what}: little beside the {rate:.1f} nats of a code.", number, threshold)
    remedy = subject.more_dropout + (() if subject.keeps_best else ("train.patience=8",))
    return Finding(
        name,
        "finding",
        f"{what}: it has learned rows by heart.",
        number,
        threshold,
        remedy,
        "An encoder that never sees the whole row cannot know it by heart, and training stops where held-out rows fare "
        f"best. More data, or a smaller model{subject.sizes}, do the same.",
    )


def _fallen(subject: Subject) -> float:
    """Nats that the bound of held-out rows fell from its best while that of the rows trained on did not fall.

    Where both fall something else is trained than the bound, such as a KL term of a weight that is still rising.
    """
    looks = [entry for entry in subject.validations if entry["step"] >= subject.horizon]
    if subject.keeps_best or not looks:
        return 0.0
    best, last = max(looks, key=lambda entry: entry["valid_bound"]), looks[-1]
    return best["valid_bound"] - last["valid_bound"] if last["train_bound"] >= best["train_bound"] else 0.0


def tightness_of_bound(subject: Subject) -> Finding | None:
    """What ten times as many importance samples still give, and how many of them count."""
    if subject.is_coded:
        return None
    found = tightness(subject.model, subject.x[: subject.costly], *subject.told(subject.costly), ks=KS)
    rate = subject.held_out.rate.mean
    gained = Estimate.of(found.bounds[-1] - found.bounds[-2])
    threshold = max(NATS, TIGHT * rate)
    what = (
        f"The bound is {_ladder(found)} nats with {', '.join(map(str, KS))} samples; of {KS[-1]:,} weights "
        f"{found.effective.median():.0f} count (median effective sample size)"
    )
    if gained.mean <= threshold:
        return Finding("tightness of the bound", "healthy", what + ".", gained.mean, threshold)
    return Finding(
        "tightness of the bound",
        "finding",
        f"{what}: it still rises by {gained} nats, so log p(x) is higher than what is reported.",
        gained.mean,
        threshold,
        _richer(subject),
        RICHER_EFFECT,
    )


def inference(subject: Subject) -> Finding | None:
    """What the bound loses to the family of q, and to the encoder."""
    if subject.is_coded:
        return None
    x = subject.x[: subject.costly]
    found = _gap_of_several(subject, x) if len(subject.held_out.latents) > 1 else _gap(subject, x)
    threshold = max(NATS, INFERENCE * subject.held_out.rate.mean)
    what = (
        f"Log p(x) is about {Estimate.of(found.evidence)} nats (by {found.means}, {len(x)} rows); the bound is "
        f"{found.total} below it: {found.approximation} because the family of q has no better (approximation gap), "
        f"{found.amortisation} because the encoder does not find it (amortisation gap)"
    )
    if found.richer is not None:
        what += f". A full covariance would give back {Estimate.of(found.richer - found.optimal)}"
    if found.total.mean <= threshold:
        return Finding("inference gap", "healthy", what + ".", found.total.mean, threshold)
    if found.approximation.mean > found.amortisation.mean:
        remedy, effect = _richer(subject), RICHER_EFFECT
    else:
        longer = f"train.steps={2 * int(subject.run['train']['steps'])}"
        dropout = float(subject.run["model"].get("dropout", 0.0))
        remedy = (longer, f"model.dropout={dropout / 2:g}") if dropout else (longer,)
        effect = "An encoder that sees more of x, and is trained for longer, finds better members of its family."
    return Finding("inference gap", "finding", what + ".", found.total.mean, threshold, remedy, effect)


def _gap(subject: Subject, x: Tensor) -> InferenceGap:
    """The inference gap of some rows where there is one latent variable."""
    (quick,) = subject.passes(subject.split, _tells_quickly, most=1)
    return inference_gap(subject.model, x, *subject.told(len(x)), temperatures=FEW if quick else 0)


def _gap_of_several(subject: Subject, x: Tensor) -> InferenceGap:
    """The same where there are several: what the encoder says to all of them is moved together."""
    found = refined_bound(subject.model, x, *subject.told(len(x)), steps=SEARCH, k=KS[-1])
    return InferenceGap(found.amortised_elbo, found.refined_elbo, None, found.refined, "importance sampling")


def bracketed(subject: Subject) -> Finding | None:
    """Where log p(x) is for data that the model made up, between two bounds, and how far below the bound stays."""
    name = "distance to log p(x)"
    if (told := given(subject.run["model"])) not in ALONE:
        thing = told.split()[-1]
        what = f"It takes rows that a model makes up by itself, and this one is told something of each ({thing})."
        return Finding(name, "unknown", what)
    with undisturbed(subject.model, seed=0), torch.no_grad():
        trace = subject.model(subject.model.generate(1).sample())
    if any(code_counts(site) is not None or not is_unbounded(site.q) for site in trace.sites):
        return None
    # chains that begin at the posterior need its density where they go
    quick = _tells_quickly(trace)
    begin: Start = "posterior" if quick else "prior"
    found = bracket(subject.model, subject.costly, temperatures=MANY if quick else 4 * MANY, start=begin)
    bound = evaluate(subject.model, found.x, k=IWAE)
    least, most = (Estimate.of(side - bound.values) for side in (found.lower, found.upper))
    threshold = max(NATS, TIGHT * bound.rate.mean)
    what = (
        f"For {len(found.x)} rows that the model made up, log p(x) is at least {Estimate.of(found.lower)} and at most "
        f"{Estimate.of(found.upper)} nats (annealed importance sampling there and back): at least {least} and at most "
        f"{most} above the bound with {IWAE} samples"
    )
    if least.mean > threshold:
        return Finding(name, "finding", what + ".", least.mean, threshold, _richer(subject), RICHER_EFFECT)
    if most.mean > threshold:
        return Finding(name, "unknown", what + ", which is too wide to tell.", most.mean, threshold)
    return Finding(name, "healthy", what + ".", most.mean, threshold)


def _tells_quickly(trace: Trace) -> bool:
    """Whether q says at once how dense it is where it has not drawn; a flow is slow to."""
    return not isinstance(trace.sites[0].q, Remembered)


def _richer(subject: Subject) -> tuple[str, ...]:
    """A posterior with more to say than the one there is; where there is none, a bound that makes up for it."""
    table, objective = subject.run["model"], subject.run["objective"]
    richer = RICHER.get(table.get("posterior", ""))
    # exemplars are around means, which a flow does not know
    fits = not table.get("spatial") and not (table.get("prior") == "exemplar" and richer == "iaf")
    if richer and fits and (remedy := subject.accepted("posterior", richer)):
        return remedy
    if objective["name"] in IMPORTANCE_WEIGHTED:
        return (f"objective.k={2 * int(objective['k'])}",)
    return ("objective.name=iwae",)


def _ladder(found: Tightness) -> str:
    return ", ".join(f"{found.bound(k).mean:.1f}" for k in found.ks)
