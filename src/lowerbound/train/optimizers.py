"""What moves the weights."""

import torch
from torch import nn

from .options import Options


def optimizers(loss: nn.Module, options: Options) -> list[torch.optim.Optimizer]:
    """What moves the parameters; together they cover each once."""
    parameters = [p for p in loss.parameters() if p.requires_grad]
    if options.optimizer == "muon":
        linear = {id(module.weight) for module in loss.modules() if isinstance(module, nn.Linear)}
        chosen = [p for p in parameters if id(p) in linear]
        rest = [p for p in parameters if id(p) not in linear]
        if not chosen:
            return elementwise(rest, options)
        # scaled so that the same learning rate suits both
        muon = torch.optim.Muon(
            chosen, lr=options.lr, weight_decay=options.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        return [muon, *elementwise(rest, options)]
    return elementwise(parameters, options)


def elementwise(parameters: list[nn.Parameter], options: Options) -> list[torch.optim.Optimizer]:
    """AdamW or Adamax, which scale each number by itself."""
    # biases, gains and scales are not shrunk: weight decay is for matrices and kernels
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        return []
    if options.optimizer == "adamax":
        return [torch.optim.Adamax(groups, lr=options.lr)]
    return [torch.optim.AdamW(groups, lr=options.lr, fused=True)]
