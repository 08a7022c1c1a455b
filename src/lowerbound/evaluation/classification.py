"""What class a model takes each row to be of, with every label hidden from it.

Axes: ``n`` data, ``c`` classes.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..metrics import class_probabilities
from ..models import Model
from .undisturbed import undisturbed


def classify(
    model: Model, x: Shaped[Tensor, "n *x"], *context: Tensor, batch: int = 256
) -> Float[Tensor, "n c"] | None:
    """q(y|x) of each row; None if no latent variable of the model is a class.

    Args:
        model: The model; it is left in the mode it was in.
        x: Data in their own units.
        context: What the model is told of each row. Of that only the shape is used: it is not told.
        batch: Rows at once.

    Raises:
        ValueError: No data.
    """
    if len(x) == 0:
        raise ValueError("there is no data to classify: x has 0 rows. Give a split that has some.")
    weights = next(model.parameters())
    found = []
    with undisturbed(model, 0), torch.inference_mode():
        for start in range(0, len(x), batch):
            rows = x[start : start + batch].to(weights)
            hidden = [torch.full_like(c[start : start + batch].to(weights), torch.nan) for c in context]
            said = class_probabilities(model(rows, *hidden))
            if said is None:
                return None
            found.append(said.cpu())
    return torch.cat(found)
