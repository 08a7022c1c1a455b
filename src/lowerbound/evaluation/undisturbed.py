"""Looking at a model without changing it."""

import contextlib
from collections.abc import Iterator

import torch

from ..models import Model


@contextlib.contextmanager
def undisturbed(model: Model, seed: int) -> Iterator[None]:
    """Within it a model evaluates, with weights that are constants and noise from a seed; afterwards all is as before.

    Gradients in latent variables and in posteriors can be had within it, and cost nothing for the weights.
    """
    training = model.training
    learned = [p for p in model.parameters() if p.requires_grad]
    device = next(model.parameters()).device
    model.eval()
    try:
        for p in learned:
            p.requires_grad_(False)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        for p in learned:
            p.requires_grad_(True)
        model.train(training)
