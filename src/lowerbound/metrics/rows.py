"""Rows: what the measures of this package are taken on, data or codes alike.

Axes: ``n`` rows, ``*event`` one row of any shape, ``d`` its elements in one line.
"""

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor


def finite_rows(name: str, rows: Shaped[Tensor, "n *event"]) -> Float[Tensor, "n d"]:
    """The rows, each in one line, in double precision.

    Args:
        name: What to call them if they are refused.
        rows: Numbers of any type.

    Raises:
        ValueError: A number is not finite.
    """
    flat = rows.detach().flatten(1).double() if rows.ndim > 1 else rows.detach()[:, None].double()
    bad = ~flat.isfinite().all(1)
    if bad.any():
        raise ValueError(
            f"{name}: {int(bad.sum()):,} of {len(flat):,} rows hold NaN or infinity, and nothing can be measured on "
            "those. Leave these rows out, or fill in what is missing."
        )
    return flat


def choose(n: int, limit: int, seed: int) -> Int64[Tensor, " m"]:
    """The indices of at most `limit` of n rows, drawn without replacement, in random order."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:limit]
