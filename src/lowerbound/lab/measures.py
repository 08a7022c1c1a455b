"""What is measured of each member of a laboratory, on the same rows for all.

Numbers are estimates with their standard errors, by name: a section of the page asks for a name and gets it over the
weights. Pictures are taken of the first seed.

Axes: ``w`` weights, ``n`` rows, ``*event`` one row, ``d`` latent dimensions.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from .. import checkpoint
from ..data import Data, some
from ..evaluation import evaluate
from ..experiment import is_probability
from ..metrics import ACTIVE, Estimate
from ..metrics.aggregate import decompose, holes
from ..metrics.disentanglement import every_score
from ..metrics.distances import BANDWIDTHS, class_features, classifier_test, squared_mmd
from ..metrics.representation import linear_probe, neighbours_accuracy
from ..metrics.smoothness import excess_distance, geodesic
from ..models import Model
from ..views import View, without_gradients
from .plan import Member
from .training import Lab

K = 64
ROWS = 1000
CODES = 3000
AGGREGATED = 2000
HOLE = 0.01
SHOWN = 12
PAIRS, MEASURED_PAIRS, GEODESICS, STEPS = 2, 64, 8, 11
SEED = 0


@dataclass(frozen=True)
class Rows:
    """The rows that all members are measured on.

    Attributes:
        test: Rows of the test split, which no member was trained on.
        held_out: Those and rows of the valid split, on which nothing was chosen here.
        held_out_labels: Theirs, if there are any.
        train: Rows of the training split.
        labels: Of the training rows; classes (n,) or factors (n, f).
        features: What distances are taken on: features of a classifier of the labels, or the rows as they are.
        bandwidths: Of the kernel of the MMD, the same for all members.
    """

    test: Tensor
    held_out: Tensor
    held_out_labels: Tensor | None
    train: Tensor
    labels: Tensor | None
    features: Callable[[Tensor], Tensor]
    bandwidths: list[float]

    @classmethod
    def of(cls, data: Data) -> "Rows":
        """The rows of a data set."""
        test, valid = (data.fixed(part, ROWS).cpu() for part in ("test", "valid"))
        held_out = torch.cat((test, valid))
        chosen = some(len(held_out), ROWS)
        of_test, of_valid = (data.labels_of(part, ROWS) for part in ("test", "valid"))
        both = None if of_test is None or of_valid is None else torch.cat((of_test, of_valid))[chosen].cpu()
        train, labels = data.fixed("train", CODES).cpu(), data.labels_of("train", CODES)
        if labels is not None and bool((labels == labels[0]).all()):
            labels = None  # one class tells nothing
        features = (lambda rows: rows.flatten(1)) if labels is None else class_features(train, labels)
        held_out = held_out[chosen]
        middle = torch.pdist(features(held_out).float()).median().item()
        bandwidths = [middle * factor for factor in BANDWIDTHS]
        return cls(test, held_out, both, train, labels, features, bandwidths)


@dataclass(frozen=True)
class Measured:
    """What was found of one member.

    Attributes:
        member: Which.
        numbers: Estimates by name.
        kl: Nats of each latent dimension; None where they do not add up.
        samples: Expectations of p(x|z), z drawn from the prior.
        paths: Between the same pairs of rows, (pairs, steps, *event).
        codes: Posterior means of held-out rows.
        labels: Labels of these, if there are any.
        left_out: What could not be measured, and why.
    """

    member: Member
    numbers: Mapping[str, Estimate]
    kl: Float[Tensor, " d"] | None
    samples: Tensor
    paths: Tensor
    codes: Float[Tensor, "n d"]
    labels: Tensor | None
    left_out: tuple[str, ...]


def measure(lab: Lab) -> Iterator[Measured]:
    """Look at every member, one after another."""
    rows = Rows.of(lab.data)
    for member in lab.plan.members():
        model, _ = checkpoint.load_model(lab.folder / member.name, device=lab.device)
        yield _look(member, model, lab.data, rows)


def _look(member: Member, model: Model, data: Data, rows: Rows) -> Measured:
    view = View.of(model, data)
    found = evaluate(model, rows.test, k=K, discrete=is_probability(model, data))
    latent = found.latents[0]
    with without_gradients(model, SEED):
        codes = view.means(rows.train)[0].flatten(1)
        means = view.means(rows.held_out)[0].flatten(1)
        samples = view.generate(max(SHOWN, len(rows.held_out)), draw=not view.is_image)
        paths = _paths(view, rows.held_out, MEASURED_PAIRS)
    # what was made without gradients is copied to be looked at by classifiers, which learn by them
    codes, means, samples, paths = (t.clone() for t in (codes, means, samples, paths))
    active = codes[:, latent.activity.flatten() > ACTIVE]

    numbers = {"distortion": found.distortion, "active_units": Estimate(float(found.active_units), math.nan)}
    looks = [
        lambda: _generation(samples, rows),
        lambda: {"nearest": excess_distance(paths, rows.train, rows.held_out)},
        lambda: _stretch(view, rows.held_out),
        lambda: _labels(codes, rows),
        lambda: _factors(active, rows),
    ]
    if found.is_bound:
        numbers |= {"bound": found.bound, "elbo": found.elbo, "rate": found.rate}
        looks += [lambda: _parts_of_kl(view, rows), lambda: _holes(view, rows)]
    left_out = []
    for look in looks:
        try:
            numbers |= look()
        except ValueError as error:
            left_out.append(str(error))
    kl = None if latent.kl is None or not found.is_bound else latent.kl.flatten()
    shown = samples[:SHOWN], paths[:PAIRS], means, rows.held_out_labels
    return Measured(member, numbers, kl, *shown, tuple(left_out))


def _generation(samples: Tensor, rows: Rows) -> dict[str, Estimate]:
    """How far samples are from data the model has not seen."""
    real, made = rows.features(rows.held_out), rows.features(samples)
    return {"mmd": squared_mmd(real, made, bandwidths=rows.bandwidths), "classifier": classifier_test(real, made)}


def _parts_of_kl(view: View, rows: Rows) -> dict[str, Estimate]:
    """The KL term, and what it is the sum of."""
    with without_gradients(view.model, SEED):
        parts = decompose(*_posteriors(view, rows.train[:AGGREGATED]))
    found = {
        "kl": parts.kl,
        "mutual_information": parts.mutual_information,
        "gap": parts.gap,
        "total_correlation": parts.total_correlation,
        "dimension_wise": parts.dimension_wise,
    }
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _holes(view: View, rows: Rows) -> dict[str, Estimate]:
    """How much of the prior is empty of codes."""
    with without_gradients(view.model, SEED):
        _, q, p = _posteriors(view, rows.train[:AGGREGATED])
        other = _posteriors(view, rows.held_out)[0]
        return {"holes": holes(q, other, p.sample((len(other),)), quantile=HOLE)}


def _posteriors(view: View, x: Tensor) -> tuple[Tensor, Distribution, Distribution]:
    """A sample of q(z|x) for each row, q(z|x), and p(z)."""
    _, (site, *_) = view.infer(x)
    return site.z[0], site.q, site.p


def _paths(view: View, x: Tensor, pairs: int) -> Tensor:
    """Straight lines between the codes of pairs of rows, decoded."""
    n = min(pairs, len(x) // 2)
    means = view.means(x[: 2 * n])
    return view.interpolate([m[:n] for m in means], [m[n:] for m in means], STEPS, spherical=False)


def _stretch(view: View, x: Tensor) -> dict[str, Estimate]:
    """The length of decoded straight lines over that of the shortest way through what the decoder makes."""
    n = min(GEODESICS, len(x) // 2)
    with without_gradients(view.model, SEED):
        means = view.means(x[: 2 * n])
    if len(means) > 1 or n == 0:
        return {}
    device = next(view.model.parameters()).device
    ends = means[0].clone().to(device)
    try:
        found = geodesic(lambda z: view.model.generate(len(z), z=[z]).mean, ends[:n], ends[n:], STEPS)
    except NotImplementedError:
        return {}  # a likelihood without a mean makes no surface to walk on
    return {"stretch": Estimate.of(found.ratio)}


def _labels(codes: Tensor, rows: Rows) -> dict[str, Estimate]:
    """How well the labels are read off the codes."""
    if rows.labels is None:
        return {}
    return {"probe": linear_probe(codes, rows.labels), "neighbours": neighbours_accuracy(codes, rows.labels)}


def _factors(active: Tensor, rows: Rows) -> dict[str, Estimate]:
    """How well single dimensions stand for single factors."""
    if rows.labels is None or rows.labels.ndim == 1:
        return {}
    return {name: Estimate(score, math.nan) for name, score in every_score(active, rows.labels, SEED).items()}


@dataclass(frozen=True)
class Results:
    """What was found of all members.

    Attributes:
        members: Each, in the order of the plan.
        weights: What was varied, rising.
        vary: Its name.
        dims: Elements of one datum.
        discrete: Whether the likelihood is a probability, so that bits/dim mean something.
        entropy: Of the data, in nats, where it is known.
    """

    members: tuple[Measured, ...]
    weights: tuple[float, ...]
    vary: str
    dims: int
    discrete: bool
    entropy: float | None

    @property
    def labels(self) -> list[str]:
        """Names of the weights."""
        return [f"{weight:g}" for weight in self.weights]

    def at(self, name: str, weight: float | None) -> Estimate | None:
        """A number at a weight, or of the plain autoencoder: over the seeds, if there are several."""
        found = [m.numbers[name] for m in self.members if m.member.weight == weight and name in m.numbers]
        if not found:
            return None
        return found[0] if len(found) == 1 else Estimate.of(torch.tensor([estimate.mean for estimate in found]))

    def over(self, name: str) -> list[Estimate]:
        """A number at all weights, NaN where it could not be measured; nothing if it could be at none."""
        found = [self.at(name, weight) for weight in self.weights]
        return [estimate or Estimate(math.nan, math.nan) for estimate in found] if any(found) else []

    @property
    def left_out(self) -> list[str]:
        """What could not be measured, and why: each reason once."""
        return list(dict.fromkeys(reason for m in self.members for reason in m.left_out))

    @cached_property
    def shown(self) -> dict[float | None, Measured]:
        """The members of the first seed."""
        return {m.member.weight: m for m in reversed(self.members)}

    def summary(self) -> list[dict[str, Any]]:
        """Each member's numbers, JSON-able; null where there is none."""
        return [
            {"name": m.member.name, "weight": m.member.weight, "seed": m.member.seed}
            | {name: _json(estimate) for name, estimate in m.numbers.items()}
            | {"kl_per_dimension": None if m.kl is None else m.kl.tolist()}
            for m in self.members
        ]


def _json(estimate: Estimate) -> dict[str, float | None]:
    numbers = {"mean": estimate.mean, "standard_error": estimate.standard_error}
    return {key: value if math.isfinite(value) else None for key, value in numbers.items()}
