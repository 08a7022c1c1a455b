"""The section on codes: how many of those that a model has have a use, and how evenly they are used."""

import torch
from torch import Tensor

from .. import figures
from ..metrics import code_counts, perplexity, usage
from ..page import Figure, Section
from .subject import Subject

CHARTS = 4


def codes(subject: Subject) -> Section | None:
    """What is used of each codebook; None where the latent variables are no codes."""
    if not subject.is_coded:
        return None
    totals = _counts(subject)
    text = (
        f"Where this model speaks of a place it chooses one of finitely many codes. Of {len(subject.x):,} "
        f"{subject.kind} of the {subject.split} split it is shown how often each code is chosen. The perplexity says "
        "how many codes, chosen equally often, would say as much."
    )
    shown = []
    for i, (name, counts) in enumerate(totals[:CHARTS]):
        share = counts / counts.sum()
        used, even, size = usage(counts[None]).item(), perplexity(counts[None]).item(), len(counts)
        picture = figures.kl_bars(share, title=f"Choices of each code{name}", unit="share", noun="code")
        caption = f"Usage {used:.0%} of {size:,} codes, perplexity {even:,.0f}. "
        caption += "Look for codes that are never chosen." if used < 1 else "None is dead."
        shown.append(Figure(f"codes{i or ''}", picture, caption))
    return Section("Codes", (text,), tuple(shown))


def _counts(subject: Subject) -> list[tuple[str, Tensor]]:
    """How often each code is chosen: a name and (size,) counts for every stage of every latent variable."""
    parts = [
        [code_counts(site) for site in subject.view.infer(*rows)[1]]
        for rows in subject.view.batches(subject.x, *subject.context)
    ]
    sites = list(zip(*parts, strict=True))
    found = []
    for i, of_site in enumerate(sites):
        known = [counts.double().cpu() for counts in of_site if counts is not None]
        stages = torch.stack(known).sum(0) if known else ()
        for stage, counts in enumerate(stages):
            level = f", level {i + 1}" if len(sites) > 1 else ""
            found.append((level + (f", stage {stage + 1}" if len(stages) > 1 else ""), counts))
    return found
