"""Networks of sequences: recurrent ones, and transformers.

Both read steps in order, and can go on from what they remember: a recurrent network (GRU, Cho et al. 2014,
https://arxiv.org/abs/1406.1078) remembers a vector, a transformer (Vaswani et al. 2017,
https://arxiv.org/abs/1706.03762) every step there was. One that looks *ahead* reads both ways, which an encoder may; a
decoder may not, since each step would then be told what it is to say.

Axes: ``*lead`` such as (k, b), ``t`` steps, ``*step`` one step of x, ``width`` features.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from ..distributions import in_steps
from ..linear import Linear
from .vectors import Standardize, glorot

HEAD = 16
# Of learned positions, at the start.
FAINT = 0.02


class Recurrent(nn.Module):
    """A stack of gated recurrent units.

    Args:
        width: Features in, and of each direction out.
        layers: How many units stand on each other.
        ahead: Whether a second stack reads from the end.

    Attributes:
        width: Features out.
    """

    def __init__(self, width: int, layers: int, ahead: bool = False) -> None:
        super().__init__()
        self.net = nn.GRU(width, width, layers, batch_first=True, bidirectional=ahead)
        self.width = 2 * width if ahead else width

    def forward(self, e: Float[Tensor, "n t width"], state: Tensor | None = None) -> tuple[Tensor, Any]:
        """What is known at each step, and what is remembered behind the last."""
        return self.net(e, state)


class Attending(nn.Module):
    """A transformer, with learned positions.

    Args:
        width: Features in and out.
        layers: How many blocks.
        length: Steps of the longest sequence.
        ahead: Whether a step sees those after it.

    Attributes:
        width: Features out.
    """

    def __init__(self, width: int, layers: int, length: int, ahead: bool = False) -> None:
        super().__init__()
        self.position = nn.Parameter(FAINT * torch.randn(length, width))
        self.blocks = nn.ModuleList(AttentionBlock(width, ahead) for _ in range(layers))
        self.width = width

    def forward(
        self, e: Float[Tensor, "n t width"], state: Sequence[tuple[Tensor, Tensor]] = ()
    ) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
        """What is known at each step, and the keys and values of all steps so far, of each block."""
        start = state[0][0].shape[-2] if state else 0
        h = e + self.position[start : start + e.shape[-2]]
        states = []
        for i, block in enumerate(self.blocks):
            h, kept = block(h, *(state[i] if state else ()))
            states.append(kept)
        return h, tuple(states)


class AttentionBlock(nn.Module):
    """Attention to other steps, then two layers for each step by itself; both normalise what they read, and add to it.

    Args:
        width: Features in and out.
        ahead: Whether a step sees those after it.
    """

    def __init__(self, width: int, ahead: bool = False) -> None:
        super().__init__()
        self.heads = next(heads for heads in (8, 4, 2, 1) if heads == 1 or width % (HEAD * heads) == 0)
        self.ahead = ahead
        self.norm = nn.LayerNorm(width)
        self.ask = glorot(Linear(width, 3 * width, bias=False))
        self.answer = glorot(Linear(width, width))
        self.rest = nn.Sequential(
            nn.LayerNorm(width), glorot(Linear(width, 2 * width)), nn.SiLU(), glorot(Linear(2 * width, width))
        )

    def forward(
        self, h: Float[Tensor, "n t width"], *before: Float[Tensor, "n heads s size"]
    ) -> tuple[Float[Tensor, "n t width"], tuple[Tensor, Tensor]]:
        """The features, and the keys and values of all steps so far.

        Args:
            h: Features of steps: of all, or of the one behind those of which `before` holds keys and values.
            before: The keys, and the values.
        """
        query, key, value = self.ask(self.norm(h)).unflatten(-1, (3, self.heads, -1)).movedim(1, -2).unbind(1)
        if before:
            key, value = (torch.cat(pair, -2) for pair in zip(before, (key, value), strict=True))
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=not (self.ahead or before))
        h = h + self.answer(seen.movedim(1, -2).flatten(-2))
        return h + self.rest(h), (key, value)


class Steps(nn.Module):
    """Steps of x -> numbers: in units of their own spread, or of symbols which one it is.

    Args:
        shift: Centre of a step.
        unit: Its spread, broadcastable to a step.
        levels: A step holds the symbols 0..levels-1; 0 where it holds numbers.

    Attributes:
        width: How many numbers.
    """

    def __init__(self, shift: Tensor, unit: Tensor, levels: int = 0) -> None:
        super().__init__()
        self.standardize = Standardize(shift, unit)
        self.register_buffer("symbols", torch.arange(levels))
        self.symbols: Tensor
        self.ndim = shift.ndim
        self.width = shift.numel() * max(1, levels)

    def forward(self, steps: Shaped[Tensor, "*steps"]) -> Float[Tensor, "*lead t width"]:
        """The numbers of each step, in a row."""
        if len(self.symbols):
            return (steps[..., None] == self.symbols).flatten(-1 - self.ndim).to(self.standardize.unit.dtype)
        return self.standardize(steps).flatten(-self.ndim)


class Reader(nn.Module):
    """x -> the numbers of its steps.

    Args:
        steps: Steps -> numbers.
        event: Shape of x; time is its last axis.
    """

    def __init__(self, steps: Steps, event: Sequence[int]) -> None:
        super().__init__()
        self.steps = steps
        self.event = tuple(event)

    def forward(self, x: Shaped[Tensor, "*x"]) -> Float[Tensor, "*lead t width"]:
        """The numbers of each step."""
        return self.steps(in_steps(x, self.event))


class Summary(nn.Module):
    """Numbers of steps -> one tensor for each sequence: the mean of what a network that reads both ways knows at each.

    Args:
        inputs: Numbers of a step.
        core: Features of steps, `width` of them -> what is known at each; it looks ahead.
        width: Features that go into it.
        outputs: Shape of one output.
    """

    def __init__(self, inputs: int, core: Recurrent | Attending, width: int, outputs: Sequence[int]) -> None:
        super().__init__()
        self.enter = glorot(Linear(inputs, width))
        self.core = core
        self.norm = nn.LayerNorm(core.width)
        self.leave = glorot(Linear(core.width, math.prod(outputs), bias=False))
        self.outputs = tuple(outputs)

    def forward(self, read: Float[Tensor, "n t inputs"]) -> Float[Tensor, "n *outputs"]:
        """The outputs."""
        known, _ = self.core(self.enter(read))
        return self.leave(self.norm(known.mean(-2))).unflatten(-1, self.outputs)
