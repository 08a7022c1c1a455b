"""What moves the weights. Weight decay is decoupled from the gradient throughout (Loshchilov & Hutter 2019,
https://arxiv.org/abs/1711.05101) and a parameter without a gradient is left alone.

They are written here rather than taken from `torch.optim` for what a step costs there besides arithmetic: at the sizes
of a VAE, that is a fifth of the update, and a second at the start of every program.
"""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .options import Options

BETA = 0.9
BETA_SQUARE = 0.999
TINY = 1e-8
# The memory of a gradient that stays zero (a pixel that never changes, a unit that never fires) fades. What is smaller
# than this moves no weight, and is set to zero every so many updates: after some 800 it would be a subnormal number,
# and a processor takes several times as long over each of those.
FADED = 1e-32
FORGET_EVERY = 100
# Newton-Schulz: a quintic that sends all singular values near one, and how often it is applied.
QUINTIC = (3.4445, -4.775, 2.0315)
ROUNDS = 5


@runtime_checkable
class Optimizer(Protocol):
    """Moves some parameters by their gradients."""

    parameters: list[nn.Parameter]
    weight_decay: float
    slots: dict[str, Tensor]
    """What it remembers, by name."""

    def step(self, lr: float) -> None:
        """Move the parameters by what is in their `grad`."""


class Adam:
    """Steps of the length of the learning rate where gradients agree. Kingma & Ba 2015, https://arxiv.org/abs/1412.6980

    Args:
        parameters: What to move.
        weight_decay: Part by which they shrink in a step of length one.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], weight_decay: float) -> None:
        self.parameters, self.weight_decay = list(parameters), weight_decay
        self.slots = _zeros("mean", parameters) | _zeros("square", parameters)
        self.slots["count"] = torch.zeros((), device=parameters[0].device)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the parameters by what is in their `grad`."""
        moved, gradients, means, squares = _moved(self.parameters, self.slots, "mean", "square")
        if not moved:
            return
        self.slots["count"] += 1
        torch._fused_adamw_(
            moved,
            gradients,
            means,
            squares,
            [],
            [self.slots["count"]] * len(moved),
            lr=lr,
            beta1=BETA,
            beta2=BETA_SQUARE,
            weight_decay=self.weight_decay,
            eps=TINY,
            amsgrad=False,
            maximize=False,
        )
        _forget(self.slots)


class Adamax:
    """Adam with the largest gradient of late in place of the root of the mean square (the same paper, section 7).

    Args:
        parameters: What to move.
        weight_decay: Part by which they shrink in a step of length one.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], weight_decay: float) -> None:
        self.parameters, self.weight_decay = list(parameters), weight_decay
        self.slots = _zeros("mean", parameters) | _zeros("largest", parameters)
        self.slots["count"] = torch.zeros(())

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the parameters by what is in their `grad`."""
        moved, gradients, means, largest = _moved(self.parameters, self.slots, "mean", "largest")
        if not moved:
            return
        self.slots["count"] += 1
        torch._foreach_lerp_(means, gradients, 1 - BETA)
        torch._foreach_mul_(largest, BETA_SQUARE)
        sizes = torch._foreach_abs(gradients)
        torch._foreach_add_(sizes, TINY)
        torch._foreach_maximum_(largest, sizes)
        torch._foreach_mul_(moved, 1 - lr * self.weight_decay)
        torch._foreach_addcdiv_(moved, means, largest, -lr / (1 - BETA ** float(self.slots["count"])))
        _forget(self.slots)


class Muon:
    """Steps that are equally long in all directions of a linear map: for matrices.

    Their root mean square is that of a typical step of Adam, so that the same learning rate suits both. It needs fewer
    passes over the data where layers are linear. Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/;
    Liu et al. 2025, https://arxiv.org/abs/2502.16982

    Args:
        parameters: What to move.
        weight_decay: Part by which they shrink in a step of length one.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], weight_decay: float) -> None:
        self.parameters, self.weight_decay = list(parameters), weight_decay
        self.slots = _zeros("mean", parameters)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the parameters by what is in their `grad`."""
        moved, gradients, means = _moved(self.parameters, self.slots, "mean")
        if not moved:
            return
        torch._foreach_lerp_(means, gradients, 1 - 0.95)
        torch._foreach_mul_(moved, 1 - lr * self.weight_decay)
        for p, ahead in zip(moved, torch._foreach_lerp(gradients, means, 0.95), strict=True):
            p.add_(orthogonal(ahead), alpha=-lr * 0.2 * math.sqrt(max(p.shape)))


def orthogonal(g: Tensor) -> Tensor:
    """Roughly the nearest matrix with orthonormal rows or columns: the singular values of g, all brought near one."""
    a, b, c = QUINTIC
    x = g.bfloat16()
    x = x.T if len(g) > g.shape[1] else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if len(g) > g.shape[1] else x


def optimizers(loss: nn.Module, options: Options) -> list[Optimizer]:
    """What moves the parameters of a module; together they cover each once."""
    matrices = _weights(loss, nn.Linear)
    kernels = _weights(loss, (nn.Conv2d, nn.ConvTranspose2d))
    known = {id(p) for p in (*matrices, *kernels)}
    rest = [p for p in loss.parameters() if p.requires_grad and id(p) not in known]
    kind = Adamax if options.optimizer == "adamax" else Adam
    of_matrices = Muon if options.optimizer == "muon" else kind
    # biases, gains, and the centres and scales of a prior are not shrunk: weight decay is for maps
    decay = options.weight_decay
    plan = [(of_matrices, matrices, decay), (kind, kernels, decay), (kind, rest, 0.0)]
    if not decay and of_matrices is kind:
        plan = [(kind, matrices + kernels + rest, 0.0)]
    return [kind(parameters, decay) for kind, parameters, decay in plan if parameters]


def _weights(loss: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> list[nn.Parameter]:
    """The weights of all layers of some kinds, each once."""
    chosen = {id(module.weight) for module in loss.modules() if isinstance(module, kind)}
    return [p for p in loss.parameters() if p.requires_grad and id(p) in chosen]


def _zeros(name: str, parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    return {f"{name}.{i}": torch.zeros_like(p, memory_format=torch.preserve_format) for i, p in enumerate(parameters)}


def _moved(parameters: list[nn.Parameter], slots: dict[str, Tensor], *names: str) -> tuple[list[Tensor], ...]:
    """The parameters that have a gradient, their gradients, and the slots of them."""
    where = [i for i, p in enumerate(parameters) if p.grad is not None]
    of = [[slots[f"{name}.{i}"] for i in where] for name in names]
    return [parameters[i] for i in where], [_laid_out(p, p.grad) for p in parameters if p.grad is not None], *of


def _forget(slots: dict[str, Tensor]) -> None:
    """Set what has faded to zero, if it is time."""
    count = slots["count"]
    if count.device.type == "cpu" and int(count) % FORGET_EVERY == 0:
        for t in slots.values():
            torch.hardshrink(t, FADED, out=t)


def _laid_out(p: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the parameter's own layout: the fused update reads the memory of both side by side."""
    return gradient if gradient.stride() == p.stride() else torch.empty_like(p).copy_(gradient)
