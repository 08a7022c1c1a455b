"""What moves the weights."""

import torch
from torch import nn

from .options import Options


def optimizers(loss: nn.Module, options: Options) -> list[torch.optim.Optimizer]:
    """What moves the parameters; together they cover each once."""
    matrices = _weights(loss, nn.Linear)
    kernels = _weights(loss, nn.Conv2d)
    known = {id(p) for p in (*matrices, *kernels)}
    rest = [p for p in loss.parameters() if p.requires_grad and id(p) not in known]

    found: list[torch.optim.Optimizer] = []
    if options.optimizer == "muon" and matrices:
        # scaled so that the same learning rate suits both
        found.append(
            torch.optim.Muon(matrices, lr=options.lr, weight_decay=options.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
        matrices = []
    # biases, gains, and the centres and scales of a prior are not shrunk: weight decay is for maps
    groups = [
        {"params": matrices + kernels, "weight_decay": options.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if groups and options.optimizer == "adamax":
        found.append(torch.optim.Adamax(groups, lr=options.lr))
    elif groups:
        found.append(torch.optim.AdamW(groups, lr=options.lr, fused=True))
    return found


def _weights(loss: nn.Module, kind: type[nn.Module]) -> list[nn.Parameter]:
    """The weights of all layers of a kind, each once."""
    chosen = {id(module.weight) for module in loss.modules() if isinstance(module, kind)}
    return [p for p in loss.parameters() if p.requires_grad and id(p) in chosen]
