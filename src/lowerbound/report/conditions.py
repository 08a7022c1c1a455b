"""The section of a conditional model: what changes with what it is told, and what does not."""

import torch

from ..data import REGIONS
from ..page import Figure, Section
from .subject import Subject

# Columns of the pictures: latent variables, or ways to go on.
SHOWN = 8
# Classes or images, a row each.
ROWS = 10


def conditions(subject: Subject) -> Section | None:
    """What the model makes of the same z with other labels, or of images of which it knows a part."""
    if subject.data.given in REGIONS:
        return _completions(subject)
    return _labels(subject) if subject.data.given.endswith("label") else None


def _completions(subject: Subject) -> Section:
    view, n = subject.view, min(ROWS, len(subject.x))
    known = subject.context[0][:n]
    made = view.generate(n * SHOWN, context=(known.repeat_interleave(SHOWN, 0),)).unflatten(0, (n, SHOWN))
    grey = torch.where(known.isnan(), (view.low + view.high) / 2, known)
    text = (
        f"The model is told the {subject.data.given} of an image and draws the rest. First comes what it is told, then "
        f"{SHOWN} ways in which it goes on, and at the end the image itself, which it has not seen."
    )
    caption = "Look whether the ways differ where the known part leaves room, and agree where it does not."
    picture = view.strips(torch.cat((grey[:, None], made, subject.x[:n, None]), 1))
    return Section("Completions", (text,), (Figure("completions", picture, caption),))


def _labels(subject: Subject) -> Section | None:
    classes = min(ROWS, subject.data.classes)
    if not classes or not subject.view.is_image:
        return None
    view, n = subject.view, min(SHOWN, len(subject.x))
    rows = []
    for label in range(classes):
        # the same noise for every label: a column is at the same place under each prior
        with torch.random.fork_rng():
            torch.manual_seed(0)
            rows.append(view.generate(n, context=(torch.full((n,), float(label)),)))
    made = torch.stack(rows)
    names = subject.data.label_names or tuple(map(str, range(classes)))
    text = (
        f"A row for each label, top to bottom: {', '.join(names[:classes])}. A column is one z, at the same place "
        "under the prior of each label."
    )
    caption = "Look whether a row keeps its label, and a column what the label does not say, such as style."
    return Section("What the label decides", (text,), (Figure("labels", view.strips(made), caption),))
