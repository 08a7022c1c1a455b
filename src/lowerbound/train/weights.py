"""The tensors of a model that are kept: read by name, and filled from saved ones."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a model that is kept, once, by name: parameters and persistent buffers."""
    kept = set(model.state_dict(keep_vars=True))
    named: list[tuple[str, Tensor]] = [*model.named_parameters(), *model.named_buffers()]
    return {name: t for name, t in named if name in kept}


@torch.no_grad()
def fill(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Copy saved tensors into a model.

    Raises:
        ValueError: Names or shapes differ; it lists how.
    """
    own = tensors(model)
    wrong = [f"only in the file: {', '.join(names)}"] if (names := sorted(saved.keys() - own.keys())) else []
    wrong += [f"missing from the file: {', '.join(names)}"] if (names := sorted(own.keys() - saved.keys())) else []
    wrong += [
        f"{name} has shape {list(saved[name].shape)} in the file and {list(own[name].shape)} in the model"
        for name in sorted(own.keys() & saved.keys())
        if own[name].shape != saved[name].shape
    ]
    if wrong:
        raise ValueError("; ".join(wrong))
    for name, t in own.items():
        t.copy_(saved[name])
