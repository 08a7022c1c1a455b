"""Synthesis: how good the rows are that a model of a table draws.

`fidelity` asks whether they look like real rows, `utility` whether something can be learnt from them, `privacy`
whether they give away the rows that the model was trained on; `assess` asks all of it of a model and its data. Each
number comes with its standard error and with what a perfect model would get: the same number for training rows in place
of synthetic ones, held against the same held-out rows. One without the other does not say how far off a model is.

Rows are vectors of numbers as `lowerbound.columns` describes them, NaN where a value is missing. Models draw whole
rows. Where that alone would tell them from real ones, they are given the holes of real rows first (`with_holes`): the
share of missing values is no part of any comparison.
"""

from .assessment import Assessment, assess
from .fidelity import Comparison, Fidelity, Marginal, associations, difference, fidelity, marginal_distance
from .privacy import Privacy, privacy
from .rows import as_written, draw_rows, with_holes
from .utility import Utility, utility

__all__ = [
    "Assessment",
    "Comparison",
    "Fidelity",
    "Marginal",
    "Privacy",
    "Utility",
    "as_written",
    "assess",
    "associations",
    "difference",
    "draw_rows",
    "fidelity",
    "marginal_distance",
    "privacy",
    "utility",
    "with_holes",
]
