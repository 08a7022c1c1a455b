"""The sections of a report, in order: each is a function of the subject, and None where it has nothing to show."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import figures
from ..distributions import DiagonalNormal
from ..evaluation import dead_levels
from ..latents import neighbours, principal_axes, quantile_values
from ..metrics import ACTIVE, STRAY
from ..page import Figure, Section
from .codes import codes
from .conditions import conditions
from .levels import levels
from .subject import Subject
from .synthetic import synthetic_rows
from .words import number, overfitting

QUANTILES = (0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
PAIRS = 6
STEPS = 11
TRAVERSED = 8
PLANE = 15
NEAREST = 4
CHARTS = 4
CIRCLES = " The circles hold 39 % and 86 % of the prior."
# What the activity of a part of a latent variable is.
SPREAD_OF = {"dimension": "Var of posterior mean", "choice": "Var of probabilities"}
# What pictures show of p(x|z).
SHOWN_OF = {
    "mean": "the mean of p(x|z), which is smoother than a draw from it would be",
    "mode": "the likeliest value of each element of p(x|z), which is smoother than a draw from it would be",
    "draw": "a draw from p(x|z), whose mean is not known",
}


def training(subject: Subject) -> Section | None:
    """How the bound and its two terms went."""
    keys = [f"{part}{name}" for part in ("", "valid_") for name in ("bound", "rate", "distortion")]
    values = [entry.get(key) for entry in subject.log for key in keys]
    if not any(value is not None and math.isfinite(value) for value in values):
        return None
    caption = "Grey: batches. Colours: validations, with the weights that are kept. "
    if subject.evaluation.is_bound:
        caption += "The bound is minus the sum of rate and distortion, whatever the objective weighs them by. "
    caption += "Look whether the held-out line still improves, and whether it stays with the training line."
    gap = overfitting(subject.log)
    picture = figures.curves(subject.log)
    return Section("Training", (gap,) if gap else (), (Figure("curves", picture, caption),))


def reconstructions(subject: Subject) -> Section | None:
    """Data and what is left of them."""
    n = len(subject.x)
    n = min(n // subject.view.columns(n), 2) * subject.view.columns(n) if subject.view.is_image else min(n, 16)
    pairs = torch.stack([subject.x[:n], subject.view.reconstruct(subject.x[:n], *subject.told(n))])
    text = (
        f"{subject.kind.capitalize()} of the {subject.split} split, each with its reconstruction below it. Pictures on "
        f"this page show {SHOWN_OF[subject.shows]}."
    )
    caption = "Look for what is lost: the code has no room for it, or it is not worth its nats."
    return Section("Reconstructions", (text,), (Figure("reconstructions", subject.view.stacks(pairs), caption),))


def samples(subject: Subject) -> Section | None:
    """What the model makes of noise."""
    count = (6 if subject.data.event[-1] <= 40 else 4) * subject.view.columns(16) if subject.view.is_image else 32
    text = f"New {subject.kind}: z drawn from the prior, and decoded."
    if subject.strays is not None and subject.strays > STRAY:
        text += " The codes of this model lie elsewhere than the prior, so they need not look like data."
    caption = "Look whether they could be data, and whether every kind of data is among them."
    shown = [Figure("samples", subject.view.sheet(subject.samples[:count]), caption)]
    if subject.data.event == (2,):
        points = torch.cat([subject.x, subject.view.generate(len(subject.x), context=subject.context)])
        kinds = (torch.arange(len(points)) >= len(subject.x)).long()
        picture = figures.latent_map(points, kinds, names=("data", "samples"), axes_titles=("column 0", "column 1"))
        shown = [Figure("samples_plane", picture, caption + " Samples are means of p(x|z).")]
    return Section("Samples", (text,), tuple(shown))


def interpolations(subject: Subject) -> Section | None:
    """Paths between data."""
    n = min(PAIRS, len(subject.x) // 2)
    if n == 0 or subject.is_coded:
        return None
    starts, ends = [mean[:n] for mean in subject.means], [mean[n : 2 * n] for mean in subject.means]
    paths = subject.view.interpolate(starts, ends, STEPS, context=subject.told(n))
    text = (
        f"From one of the {subject.kind} to another: the posterior means of both, and {STEPS - 2} points between them, "
        "on an arc that keeps the distance from the origin which samples of the prior have."
    )
    caption = "Look whether every step could be data, or whether one end fades into the other."
    return Section("Interpolations", (text,), (Figure("interpolations", subject.view.strips(paths), caption),))


def traversals(subject: Subject) -> Section | None:
    """What each latent dimension does."""
    strengths, unit = _strengths(subject)
    active = [latent.activity.flatten() > ACTIVE for latent in subject.evaluation.latents]
    ranked = sorted(
        ((float(strengths[i][dim]), i, dim) for i, on in enumerate(active) for dim in on.nonzero().flatten().tolist()),
        reverse=True,
    )[:TRAVERSED]
    if not ranked or subject.is_coded:
        return None
    values = [quantile_values(_reach(subject, i), dim, QUANTILES) for _, i, dim in ranked]
    start = [mean[:1] for mean in subject.means]
    moved = subject.view.traverse(start, [(i, dim) for _, i, dim in ranked], values, context=subject.told(1))
    whose = "the prior" if subject.evaluation.is_bound else f"the codes of the {subject.split} split"
    text = (
        f"One of the {subject.kind} of the {subject.split} split, with one latent dimension at a time moved through "
        f"quantiles of {whose}, from {QUANTILES[0]:.0%} to {QUANTILES[-1]:.0%}, and the others held. "
        f"A {'row' if subject.view.is_image else 'block'} is a dimension."
    )
    many = len(subject.means) > 1
    names = [f"{f'level {i + 1}, ' if many else ''}{dim} ({value:.2g})" for value, i, dim in ranked]
    caption = (
        f"Most active first, with their {unit}: {'; '.join(names)}. Look for dimensions that change one thing only."
    )
    return Section("Traversals", (text,), (Figure("traversals", subject.view.strips(moved), caption),))


def plane(subject: Subject) -> Section | None:
    """All of a latent plane, decoded."""
    if not subject.view.is_image or [mean[0].numel() for mean in subject.means] != [2]:
        return None
    fractions = (torch.arange(PLANE) + 0.5) / PLANE
    reach = _reach(subject, 0)
    across, up = (quantile_values(reach, dim, fractions) for dim in (0, 1))
    z = torch.stack([across.repeat(PLANE), up.flip(0).repeat_interleave(PLANE)], 1)
    context = [c.expand(PLANE**2, *c.shape[1:]) for c in subject.told(1)]
    x = subject.view.generate(PLANE**2, [z.reshape(-1, *subject.means[0].shape[1:])], context=context)
    text = "The whole latent space, decoded at equal steps of probability: dimension 0 runs to the right, 1 upwards."
    caption = "Compare with the map below: the same plane, with the data in it."
    return Section("The latent plane", (text,), (Figure("plane", subject.view.sheet(x, PLANE), caption),))


def latent_space(subject: Subject) -> Section | None:
    """Where data lie, and which dimensions carry what."""
    rates = [latent.rate.mean for latent in subject.evaluation.latents]
    site = max(range(len(rates)), key=rates.__getitem__)
    mean = subject.means[site]
    shown: list[Figure] = []
    text = []
    if min(len(mean), mean[0].numel()) >= 2 and mean.isfinite().all():
        points, titles, how = _project(mean)
        which = f"Level {site + 1} of {len(rates)}, the one with the highest rate. " if len(rates) > 1 else ""
        text.append(f"Posterior means of {len(mean):,} {subject.kind} of the {subject.split} split. {which}{how}")
        circles = _is_standard_normal(subject, site)
        for i, (title, labels, names) in enumerate(_colourings(subject)):
            picture = figures.latent_map(points, labels, names=names, axes_titles=titles, title=title, circles=circles)
            shown.append(
                Figure(
                    f"map{i or ''}", picture, _advice(title, labels, subject.data.given) + (CIRCLES if circles else "")
                )
            )
    strengths, unit = _strengths(subject)
    word = "KL" if unit == "KL in nats" else "Activity"
    dead = dead_levels(subject.evaluation.latents)
    # a chart of a dead level would enlarge what is nothing
    for i in [i for i in range(len(strengths)) if len(strengths) == 1 or i not in dead][:CHARTS]:
        values = strengths[i]
        latent = subject.evaluation.latents[i]
        active = latent.activity.flatten() > ACTIVE
        title = f"{word} of each {latent.unit}" + (f" of level {i + 1}" if len(strengths) > 1 else "")
        axis = "nats" if word == "KL" else SPREAD_OF[latent.unit]
        bars = figures.kl_bars(values, active, title=title, unit=axis, noun=latent.unit)
        on = int(active.sum())
        many = f"{latent.unit}{'' if on == 1 else 's'}"
        caption = f"Blue: {on} active {many}, whose {latent.moves} with the data by more than {ACTIVE}. "
        caption += "Grey: dead ones." if on < len(active) else "None is dead."
        caption += f" They add up to {number(values.sum().item())} nats." if word == "KL" else ""
        shown.append(Figure(f"dimensions{i or ''}", bars, caption))
    return Section("The latent space", tuple(text), tuple(shown))


def nearest(subject: Subject) -> Section | None:
    """Whether samples are copies."""
    n = subject.view.columns(16) if subject.view.is_image else 8
    made, known = (
        figures.unit_interval(x, subject.view.low, subject.view.high) for x in (subject.samples[:n], subject.train)
    )
    # a hole is as far from any value as it can be on average
    index, _ = neighbours(made, known.nan_to_num(0.5), min(NEAREST, len(known)))
    x = torch.cat([subject.samples[None, :n], subject.train[index.T]])
    text = (
        f"Does the model memorise? First come samples, as above; below each are the {len(x) - 1} {subject.kind} "
        f"nearest to it among the {len(subject.train):,} that it was trained on, by Euclidean distance."
    )
    caption = "Look for samples that are no more than copies of the one below."
    return Section("Nearest training data", (text,), (Figure("nearest", subject.view.stacks(x, apart=True), caption),))


SECTIONS: tuple[Callable[[Subject], Section | None], ...] = (
    training,
    reconstructions,
    samples,
    conditions,
    synthetic_rows,
    interpolations,
    traversals,
    plane,
    levels,
    codes,
    latent_space,
    nearest,
)


def _strengths(subject: Subject) -> tuple[list[Tensor], str]:
    """How much each dimension of each latent variable carries, and of what: nats, where all of them are known."""
    latents = subject.evaluation.latents
    kls = [latent.kl.flatten() for latent in latents if latent.kl is not None]
    if len(kls) == len(latents):
        return kls, "KL in nats"
    return [latent.activity.flatten() for latent in latents], "activity"


def _reach(subject: Subject, i: int) -> Tensor:
    """Values of a latent variable to draw quantiles from."""
    return subject.view.reach(subject.first[i], subject.evaluation.is_bound, subject.means[i])


def _advice(title: str, labels: Tensor | None, given: str) -> str:
    """What to look for in a map of the data."""
    if labels is None:
        return "Look for clusters, and for parts of the prior that no datum uses."
    if title:
        return f"Look whether the colour, {title}, changes steadily along a direction."
    untold = "" if given.endswith("label") else ", though the model was given no labels"
    return f"Look for classes that lie apart{untold}."


def _project(mean: Tensor) -> tuple[Tensor, tuple[str, str], str]:
    """The plane to show of latent variables, what its axes are, and how it was chosen."""
    if mean[0].numel() == 2:
        return mean.flatten(1), ("dimension 0", "dimension 1"), "The latent space is this plane."
    axes, fractions = principal_axes(mean, 2)
    titles = (f"principal axis 1 ({fractions[0]:.0%})", f"principal axis 2 ({fractions[1]:.0%})")
    how = f"The plane is that of their two principal axes, which have {fractions.sum():.0%} of their variance."
    return mean.flatten(1) @ axes.T, titles, how


def _is_standard_normal(subject: Subject, site: int) -> bool:
    """Whether a projection of the prior is standard normal too."""
    match subject.first[site].p:
        case DiagonalNormal(loc=loc, scale=scale):
            return subject.evaluation.is_bound and bool((loc == 0).all() and (scale == 1).all())
    return False


def _colourings(subject: Subject) -> list[tuple[str, Tensor | None, Sequence[str]]]:
    """Title, labels and class names of each map: one for classes, one for each of the first factors."""
    labels, names = subject.labels, subject.data.label_names
    if labels is None:
        return [("", None, ())]
    if labels.ndim == 1:
        return [("", labels, names)]
    factors = labels.unbind(1)[:CHARTS]
    return [(names[i] if i < len(names) else f"factor {i}", factor, ()) for i, factor in enumerate(factors)]
