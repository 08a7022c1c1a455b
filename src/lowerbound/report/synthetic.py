"""The section on synthetic rows of a table: their columns one by one, and in pairs, beside those of held-out rows."""

import math

import torch

from .. import figures
from ..page import Figure, Section
from ..synthesis import associations, difference, draw_rows, marginal_distance
from .subject import SEED, Subject

FEWEST = 10
SHOWN, PAIRED = 12, 24


def synthetic_rows(subject: Subject) -> Section | None:
    """Whether the rows that a model of a table draws look like real ones."""
    columns = subject.data.columns
    n = min(len(subject.x), len(subject.train))
    if not columns or n < FEWEST:
        return None
    real = subject.x[:n].numpy()
    train = subject.train[torch.randperm(len(subject.train), generator=torch.Generator().manual_seed(SEED))[:n]].numpy()
    drawn = draw_rows(subject.view.model, subject.data, n, SEED)
    off = [
        tuple(marginal_distance(column, real[:, i], rows[:, i])[0] for rows in (drawn, train))
        for i, column in enumerate(columns)
    ]
    excess = [-math.inf if math.isnan(found - usual) else found - usual for found, usual in off]
    worst = sorted(range(len(columns)), key=lambda i: -excess[i])
    shown = worst[:SHOWN]
    picture = figures.marginals(
        [columns[i] for i in shown],
        torch.from_numpy(real[:, shown]),
        torch.from_numpy(drawn[:, shown]),
        [f"off by {off[i][0]:.3f}, training rows by {off[i][1]:.3f}" for i in shown],
    )
    which = "" if len(columns) == len(shown) else f" The {len(shown)} of {len(columns)} columns that are furthest off."
    caption = (
        f"Grey: held-out rows. Orange: synthetic ones.{which} Look for peaks that are missing, and for levels that "
        "are too rare."
    )
    found = [Figure("marginals", picture, caption)]
    text = [
        f"{n:,} rows drawn from the model, as the command lowerbound sample writes them, beside as many of the "
        f"{subject.split} split; of these, what is missing is left out. How far the two are off is the Kolmogorov-"
        "Smirnov distance of numbers and the total variation of levels. Rows of training are off too, since samples "
        "differ: a perfect model would be off by as much, and the columns that exceed it most come first."
    ]
    if len(columns) > 1:
        paired = sorted(worst[:PAIRED])
        own = [columns[i] for i in paired]
        matrices = [associations(rows[:, paired], own) for rows in (real, drawn, train)]
        to, usual = (difference(matrices[0], other) for other in matrices[1:])
        picture = figures.associations([column.name for column in own], *map(torch.from_numpy, matrices[:2]))
        caption = (
            "Correlation of ranks of two columns of numbers, correlation ratio or Cramér's V where one or both have "
            f"levels. Synthetic rows are off by {to:.3f} in the mean, training rows by {usual:.3f}. Look for what is "
            "dark on the left and pale in the middle: the model has not learnt that these belong together."
        )
        found.append(Figure("associations", picture, caption))
    text.append(
        "The command lowerbound evaluate says more, with errors: whether a classifier tells the rows apart, how well "
        "predictors trained on them do, and whether they give away the rows of training."
    )
    return Section("Synthetic rows", tuple(text), tuple(found))
