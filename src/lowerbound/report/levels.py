"""The section on latent variables that are drawn one after another: what each carries, and what it decides.

The first of them are held at what was inferred from a datum and the rest drawn from their priors, which are given those
held: what is alike in all such draws is decided, and what differs is still open.
"""

import torch
from torch import Tensor

from .. import figures
from ..distributions import has_one_value
from ..evaluation import dead_levels
from ..page import Figure, Section
from .subject import Subject
from .words import which_levels

# Rows of a figure, so that the levels of a deep ladder fit a page, and draws beside each other.
MOST, DRAWS = 7, 14
LONGER = " A longer warm-up of the KL term (objective.warmup) gives such levels the time to find a use."


def levels(subject: Subject) -> Section | None:
    """What each of several latent variables carries and decides."""
    depth = len(subject.first)
    if depth == 1:
        return None
    held = sorted({round(i * depth / min(MOST - 1, depth)) for i in range(min(MOST - 1, depth) + 1)})
    text = [f"The model has {depth} latent variables, drawn from the top down, each given those above it."]
    shown = [_carried(subject)] if all(latent.rate.mean < torch.inf for latent in subject.evaluation.latents) else []
    if dead := dead_levels(subject.evaluation.latents):
        text.append(
            f"{which_levels(dead, depth)} dead: what is inferred there carries nothing."
            + ("" if all(has_one_value(site.q) for site in subject.first) else LONGER)
        )
    text.append(
        "Below, the first levels are held at what was inferred from a datum, and the rest drawn from their priors: "
        "what is alike in a row is decided by the levels that are held, and what differs by those that are drawn."
    )
    return Section("Levels", tuple(text), (*shown, *_each_decides(subject, held), _towards_data(subject, held)))


def _carried(subject: Subject) -> Figure:
    """The nats of each level, and how they are spread."""
    latents = subject.evaluation.latents
    dead = dead_levels(latents)
    said = []
    for i, latent in enumerate(latents):
        units = latent.activity.numel()
        share = f"{latent.rate.mean / units:.2g} per {latent.unit}"
        said.append(
            f"{latent.rate.mean:.2f} nats, dead"
            if i in dead
            else f"{latent.rate.mean:.2f} nats, {share}, {latent.active_units} of {units:,} active"
        )
    names = [f"level {i + 1} ({'×'.join(map(str, latent.activity.shape))})" for i, latent in enumerate(latents)]
    picture = figures.level_bars(torch.tensor([v.rate.mean for v in latents]), said, dead, names=names)
    caption = "Where the model keeps what it knows of a datum: KL(q || p) of each latent variable, with its shape."
    return Figure("rates", picture, caption + (" Grey: dead levels." if dead else " None is dead."))


def _each_decides(subject: Subject, held: list[int]) -> list[Figure]:
    """Draws for one datum, a row for each number of levels that are held."""
    if not subject.view.is_image:
        return []
    n = min(DRAWS, subject.view.columns(DRAWS))
    told = [c.expand(n, *c.shape[1:]) for c in subject.told(1)]
    rows = [("datum", _ready(subject, subject.x[:1]))]
    for count in held:
        z = [site[:1].expand(n, *site.shape[1:]) for site in subject.inferred[:count]]
        rows.append((_held(count, held[-1]), _ready(subject, subject.view.generate(n, z, context=told))))
    caption = (
        "One datum, and draws with ever more levels held. Look for the row from which all are alike: what follows it "
        "is detail, or nothing."
    )
    return [Figure("progressive", figures.rows_of_images(rows), caption)]


def _towards_data(subject: Subject, held: list[int]) -> Figure:
    """One draw for each of many data, a row for each number of levels that are held."""
    n = min(DRAWS, subject.view.columns(DRAWS), len(subject.x))
    drawn = [
        subject.view.generate(n, [site[:n] for site in subject.inferred[:count]], context=subject.told(n))
        for count in held
    ]
    caption = "Look which level decides what: the row in which something becomes that of the data."
    if not subject.view.is_image:
        return Figure("levels", subject.view.stacks(torch.stack([subject.x[:n], *drawn])), caption)
    rows = [("data", _ready(subject, subject.x[:n]))]
    rows += [(_held(count, held[-1]), _ready(subject, x)) for count, x in zip(held, drawn, strict=True)]
    return Figure("levels", figures.rows_of_images(rows), f"Several data, one draw of each. {caption}")


def _held(count: int, depth: int) -> str:
    """The name of a row."""
    return "all drawn" if count == 0 else "all held" if count == depth else f"{count} held"


def _ready(subject: Subject, x: Tensor) -> Tensor:
    return figures.unit_interval(x, subject.view.low, subject.view.high)
