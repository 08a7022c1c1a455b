"""Whether codes have a use, where the latent variables are codes.

A codebook of which hardly anything is chosen is larger than what is said with it, or was never learned: codes that
nothing is near to have no gradient, and stay where nothing is (van den Oord et al. 2017,
https://arxiv.org/abs/1711.00937).
"""

import math
from collections.abc import Sequence

import torch

from ..metrics import code_counts, perplexity, usage
from ..refusals import COMMITTED
from .finding import Finding
from .subject import Subject

# The least part of a codebook that should have a use, and the choices for each of its codes that can tell.
USAGE, CHOICES = 0.5, 3


def codebook(subject: Subject) -> Finding | None:
    """How much of each codebook the rows that it was trained on use; None where there are no codes, or no such rows."""
    name = "codebook"
    if subject.data is None:
        return None
    parts = subject.passes("train", lambda trace: [code_counts(site) for site in trace.sites])
    known = [[counts for counts in of_site if counts is not None] for of_site in zip(*parts, strict=True)]
    totals = [torch.stack(counts).sum(0) for counts in known if counts]
    if not totals:
        return None
    size = max(counts.shape[-1] for counts in totals)
    chosen = min(counts.sum(-1).min().item() for counts in totals)
    if chosen < CHOICES * size:
        what = f"{chosen:,.0f} choices among {size:,} codes are too few to tell which have a use."
        return Finding(name, "unknown", what)
    used, even = (torch.cat([measure(counts) for counts in totals]) for measure in (usage, perplexity))
    least = used.min().item()
    idle_map = any(usage(counts).max() < USAGE for counts in totals)
    what = f"{_each(used, '{:.0%}')} of {size:,} codes have a use (perplexity {_each(even, '{:.0f}')})"
    if least >= USAGE:
        return Finding(name, "healthy", what + ".", least, USAGE)
    return Finding(
        name,
        "finding",
        f"{what}: the others are never chosen.",
        least,
        USAGE,
        _livelier(subject, round(used.max().item() * size), size, idle_map),
        "Codes that follow what chooses them, and begin anew where nothing does, find a use; else a codebook of the "
        "size that is used says as much.",
    )


def _livelier(subject: Subject, used: int, size: int, idle_map: bool = False) -> tuple[str, ...]:
    """A codebook whose dead codes begin anew, where the run has not one; else one of the size that is used.

    Where another stage or map uses codebooks of this size, it is without the one that does not.

    Args:
        subject: The run.
        used: Of the codes of a codebook, how many have a use where the most have.
        size: How many there are.
        idle_map: Whether there is a map of which no stage is used.
    """
    model = subject.run["model"]
    quantiser = model.get("quantiser")
    if quantiser in COMMITTED and model["codebook"] == "gradient":
        return ("model.codebook=ema",)
    if used >= USAGE * size:
        deep = quantiser == "residual" and model["depth"] > 1 and not idle_map
        return (f"model.depth={int(model['depth']) - 1}" if deep else "model.hierarchy=false",)
    if quantiser == "fsq":
        return (f"model.grid={_smaller(model['grid'], used)}",)
    return (f"model.codes={max(2, math.ceil(1.25 * used))}",) if "codes" in model else ()


def _smaller(grid: Sequence[int], used: int) -> list[int]:
    """The grid with the largest of its sides made smaller by turns, down to as many codes as are used."""
    kept, smaller = list(grid), list(grid)
    while math.prod(smaller) >= used and len(smaller) > 0:
        kept = list(smaller)
        if (side := max(smaller)) > 2:
            smaller[smaller.index(side)] -= 1
        else:
            smaller.pop()
    return kept


def _each(values: torch.Tensor, form: str) -> str:
    """A number for each stage of each latent variable, in the order drawn."""
    return ", ".join(form.format(value) for value in values.tolist())
