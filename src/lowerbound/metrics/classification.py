"""Classification: of models with a class among their latent variables, what q(y|x) says it is, and how often rightly.

Axes: ``b`` rows, ``n`` data, ``c`` classes.
"""

from jaxtyping import Float, Num
from torch import Tensor

from ..distributions import OneOf
from ..models import Trace
from .estimate import Estimate


def class_probabilities(trace: Trace) -> Float[Tensor, "b c"] | None:
    """q(y|x) of each row; None if no latent variable of the model is a class."""
    return next((site.q.mean for site in trace.sites if isinstance(site.q, OneOf)), None)


def accuracy(probabilities: Float[Tensor, "n c"], labels: Num[Tensor, "..."]) -> Estimate:
    """How often the likeliest class is the label.

    Args:
        probabilities: Of each class, for each row.
        labels: The class of each row, (n,); NaN, or below 0, where it is not known: those rows are left out.

    Raises:
        ValueError: Not one label for each row, or none that is known.

    >>> import torch
    >>> print(accuracy(torch.eye(3), torch.tensor([0, 1, -1])))
    1.00 ± 0.31
    """
    if len(labels) != len(probabilities):
        raise ValueError(f"{len(probabilities):,} rows and {len(labels):,} labels: give one label a row.")
    known = labels >= 0
    if not known.any():
        raise ValueError(f"none of the {len(labels):,} labels is known, so that nothing can be said to be right.")
    hits = probabilities.argmax(1)[known] == labels[known]
    return Estimate.of_share(int(hits.sum()), len(hits))
