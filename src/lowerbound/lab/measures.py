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
from ..distributions import DiagonalNormal
from ..evaluation import evaluate
from ..experiment import is_probability
from ..latents import interpolate
from ..metrics import ACTIVE, Estimate
from ..metrics.aggregate import decompose, holes
from ..metrics.disentanglement import every_score
from ..metrics.distances import BANDWIDTHS, class_features, classifier_test, squared_mmd
from ..metrics.representation import linear_probe, neighbours_accuracy
from ..metrics.smoothness import excess_distance, stretch
from ..models import Model
from ..views import View, without_gradients
from .plan import Member, spell
from .training import Lab

K = 64
ROWS = 1000
CODES = 3000
# So many rows of a table without holes are enough to leave out the others where distances are taken.
FEWEST_WHOLE = 40
# Rows whose posteriors are compared with one another: so many, fewer if that would be more numbers than these, and
# fewer if the pass that makes them would not fit in memory.
AGGREGATED, PAIRS_OF_NORMALS, PAIRS_OF_OTHERS, DECODED = 2000, 2**29, 2**21, 2**24
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
        left_out: What could not be had, and why.
    """

    test: Tensor
    held_out: Tensor
    held_out_labels: Tensor | None
    train: Tensor
    labels: Tensor | None
    features: Callable[[Tensor], Tensor]
    bandwidths: list[float]
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, data: Data) -> "Rows":
        """The rows of a data set."""
        test, valid = (data.fixed(part, ROWS).cpu() for part in ("test", "valid"))
        held_out = torch.cat((test, valid))
        chosen = some(len(held_out), ROWS)
        of_test, of_valid = (data.labels_of(part, ROWS) for part in ("test", "valid"))
        both = None if of_test is None or of_valid is None else torch.cat((of_test, of_valid))[chosen].cpu()
        train, labels, _ = _whole(data.fixed("train", CODES).cpu(), data.labels_of("train", CODES))
        if labels is not None and bool((labels == labels[0]).all()):
            labels = None  # one class tells nothing
        if labels is not None and labels.ndim == 2:
            labels = labels[:, (labels != labels[0]).any(0)]  # and a factor that never changes is none
        left_out: list[str] = []
        features: Callable[[Tensor], Tensor] = _as_they_are
        if labels is not None:
            try:
                features = class_features(train, labels)
            except ValueError as error:
                left_out.append(f"features of a classifier of the labels: {error}")
        held_out, both, some_left_out = _whole(held_out[chosen], both)
        left_out += ["rows with holes: distances and labels are of whole rows only"] if some_left_out else []
        apart = torch.pdist(features(held_out).float())
        bandwidths = [(apart.median().item() or 1.0) * factor for factor in BANDWIDTHS]
        return cls(test, held_out, both, train, labels, features, bandwidths, tuple(left_out))

    @property
    def of_features(self) -> bool:
        """Whether distances are taken on features of a classifier."""
        return self.features is not _as_they_are


def _whole(rows: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None, bool]:
    """The rows without holes, if there are enough of them, with their labels; and whether others were left out."""
    whole = ~rows.flatten(1).isnan().any(1)
    if whole.all() or whole.sum() < FEWEST_WHOLE:
        return rows, labels, False
    return rows[whole], None if labels is None else labels.cpu()[whole], True


def _as_they_are(rows: Tensor) -> Tensor:
    return rows.flatten(1)


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
        of_features: Whether distances of samples to data were taken on features of a classifier of the labels.
        left_out: What could not be measured, and why.
    """

    member: Member
    numbers: Mapping[str, Estimate]
    kl: Float[Tensor, " d"] | None
    samples: Tensor
    paths: Tensor
    codes: Float[Tensor, "n d"]
    labels: Tensor | None
    of_features: bool
    left_out: tuple[str, ...]


def measure(lab: Lab) -> Iterator[Measured]:
    """Look at every member, one after another."""
    rows = Rows.of(lab.data)
    for member in lab.plan.members():
        if member.name not in lab.finished:
            continue
        model, _ = checkpoint.load_model(lab.folder / member.name, device=lab.device)
        yield _look(member, model, lab.data, rows)


def _look(member: Member, model: Model, data: Data, rows: Rows) -> Measured:
    view = View.of(model, data)
    found = evaluate(model, rows.test, k=K, discrete=is_probability(model, data))
    latent = found.latents[0]
    with without_gradients(model, SEED):
        codes = view.means(rows.train)[0].flatten(1)
        means = view.means(rows.held_out)[0].flatten(1)
        paths = _paths(view, rows.held_out, MEASURED_PAIRS)
    with without_gradients(model, SEED):
        shown = view.generate(SHOWN, draw=not view.is_image)  # from the same random state whatever was done before
    with without_gradients(model, SEED):
        samples = view.generate(len(rows.held_out), draw=True)
    # what was made without gradients is copied to be looked at by classifiers, which learn by them
    codes, means, samples, paths = (t.clone() for t in (codes, means, samples, paths))
    # what is active of codes are choices, each of which has a vector
    active = codes if latent.of_choices else codes[:, latent.activity.flatten() > ACTIVE]

    numbers = {"distortion": found.distortion, "active_units": Estimate(float(found.active_units), math.nan)}
    looks: dict[str, Callable[[], dict[str, Estimate]]] = {
        "distances of samples to data": lambda: _generation(samples, rows),
        "distance of paths to data": lambda: {"nearest": excess_distance(paths, rows.train, rows.held_out)},
        "length over the shortest path": lambda: _stretch(view, rows.held_out),
        "accuracy of labels": lambda: _labels(codes, rows),
        "disentanglement": lambda: _factors(active, rows),
    }
    if found.is_bound:
        numbers |= {"bound": found.bound, "elbo": found.elbo, "rate": found.rate}
        looks |= {"parts of the KL term": lambda: _parts_of_kl(view, rows), "holes": lambda: _holes(view, rows)}
    left_out = [*rows.left_out]
    for name, look in looks.items():
        try:
            numbers |= look()
        except ValueError as error:
            left_out.append(f"{name} of {member.name} could not be measured: {error}")
    kl = None if latent.kl is None or not found.is_bound else latent.kl.flatten()
    return Measured(
        member, numbers, kl, shown, paths[:PAIRS], means, rows.held_out_labels, rows.of_features, tuple(left_out)
    )


def _generation(samples: Tensor, rows: Rows) -> dict[str, Estimate]:
    """How far samples are from data the model has not seen."""
    real, made = rows.features(rows.held_out), rows.features(samples)
    return {"mmd": squared_mmd(real, made, bandwidths=rows.bandwidths), "classifier": classifier_test(real, made)}


def _parts_of_kl(view: View, rows: Rows) -> dict[str, Estimate]:
    """The KL term, and what it is the sum of."""
    with without_gradients(view.model, SEED):
        parts = decompose(*_posteriors(view, rows.train))
    found = {
        "compared": Estimate(float(parts.n), math.nan),
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
        _, q, p = _posteriors(view, rows.train)
        other, _, _ = _posteriors(view, rows.held_out)
        return {"holes": holes(q, other, p.sample((len(other),)), quantile=HOLE)}


def _posteriors(view: View, x: Tensor) -> tuple[Tensor, Distribution, Distribution]:
    """A sample of q(z|x) for each of the rows, q(z|x), and p(z); of as many rows as can be compared with each other."""
    _, (site, *_) = view.infer(x[:1])
    pairs = PAIRS_OF_NORMALS if isinstance(site.q, DiagonalNormal) else PAIRS_OF_OTHERS
    most = math.isqrt(pairs // site.z[0, 0].numel())
    _, (site, *_) = view.infer(x[: min(AGGREGATED, most, DECODED // x[0].numel())])
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
    # directions are joined by arcs, and the shortest way that is looked for would leave the sphere
    if len(means) > 1 or n == 0 or view.on_sphere:
        return {}
    ends = means[0].clone().to(next(view.model.parameters()).device)
    lines = interpolate(ends[:n], ends[n:], STEPS).transpose(0, 1)
    try:
        return {"stretch": stretch(lambda z: view.model.generate(len(z), z=[z]).mean, lines)}
    except NotImplementedError:
        return {}  # a likelihood without a mean makes no surface to walk on


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
        return [spell(weight) for weight in self.weights]

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
        """What could not be measured, and why."""
        return list(dict.fromkeys(reason for m in self.members for reason in m.left_out))

    def kl(self, weight: float) -> Tensor | None:
        """The KL of each latent dimension at a weight, largest first: their mean over the seeds."""
        found = [m.kl for m in self.members if m.member.weight == weight]
        ordered = [kl.sort(descending=True).values for kl in found if kl is not None]
        return torch.stack(ordered).mean(0) if ordered else None

    @cached_property
    def shown(self) -> dict[float | None, Measured]:
        """The members of the first seed."""
        return {m.member.weight: m for m in reversed(self.members)}

    def summary(self) -> list[dict[str, Any]]:
        """Each member's numbers, JSON-able; null where there is none."""
        return [
            {"name": m.member.name, "weight": m.member.weight, "seed": m.member.seed}
            | {name: estimate.summary() for name, estimate in m.numbers.items()}
            | {"kl_per_dimension": None if m.kl is None else m.kl.nan_to_num(0.0).tolist()}
            for m in self.members
        ]
