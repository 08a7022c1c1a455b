"""Where a number that is not finite comes from."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..models import Model
from .weights import tensors


def first_bad_tensor(model: Model, x: Tensor, *context: Tensor) -> str | None:
    """The first tensor that is not finite in a pass of x: weights, data, then outputs in the order computed."""
    for name, t in tensors(model).items():
        if not t.isfinite().all():
            return f"the weight {name}"
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(f"the output of {name or 'the model'} ({type(module).__name__})")

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            trace = model(x, *context)
    finally:
        for hook in hooks:
            hook.remove()
    terms = {"the log-likelihood": trace.log_likelihood(), "the KL term": trace.kl()}
    found += [name for name, t in terms.items() if not t.isfinite().all()]
    if found and not x.isfinite().all() and (x.isinf().any() or found[0].startswith("the output of encoder")):
        return "the batch of data itself"  # a hole in a table is no number either, but goes no further than the encoder
    return found[0] if found else None
