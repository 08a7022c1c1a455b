"""Networks of a ladder: features of an image at every resolution on the way up, and a state on the way down.

On the way up an image is halved again and again, and what is known of it at each resolution is kept for the rungs there
(Sønderby et al. 2016, https://arxiv.org/abs/1602.02282). On the way down a state h, of the shape of a small image, is
added to by one rung after the other and doubled in size between resolutions, so that what a rung says reaches the image
however many follow (Child 2021, https://arxiv.org/abs/2011.10650).

A sum of n terms of variance 1 has variance n. So that depth costs no stability, the last convolution of everything that
is added to h starts 1/sqrt(n) as large, and doubling starts with as much variance as it was given. What is said of z
starts loud: a posterior whose mean hardly moves with x is noise to what reads it, which learns to do without.

Axes: any leading ones, such as (k, b), then channels, height, width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .images import Down, Up, conv_block, norm, pyramid
from .vectors import ACTIVATIONS, Folded

# An activation leaves about a third of the variance: a map behind one starts so much larger.
BEHIND = 1.7


def resolutions(size: tuple[int, int], count: int, full: bool = False) -> list[tuple[int, int]]:
    """The sizes at which a ladder has rungs, finest first.

    Args:
        size: Height and width of an image.
        count: How many.
        full: Whether the first is that of the image itself, rather than half of it.
    """
    return pyramid(size, count - 1) if full else pyramid(size, count)[1:]


class Features(nn.Module):
    """x -> what is known of it at every resolution: one tensor for each rung, top (coarsest) first.

    Rungs of one resolution share their features.

    Args:
        inputs: (channels, height, width) of an image.
        channels: Width of each resolution, finest first.
        rungs: How many rungs each has.
        blocks: Residual blocks for each rung.
        activation: One of `ACTIVATIONS`.
        full: Whether the first resolution is that of the image itself.

    >>> up = Features((1, 7, 7), channels=(4, 8), rungs=(2, 1))
    >>> [tuple(a.shape) for a in up(torch.zeros(5, 1, 7, 7))]
    [(5, 8, 2, 2), (5, 4, 4, 4), (5, 4, 4, 4)]
    """

    def __init__(
        self,
        inputs: Sequence[int],
        *,
        channels: Sequence[int],
        rungs: Sequence[int],
        blocks: int = 1,
        activation: str = "silu",
        full: bool = False,
    ) -> None:
        super().__init__()
        self.rungs = tuple(rungs)
        depth = max(1, blocks * sum(rungs))
        stages: list[nn.Module] = []
        shape = tuple(inputs)
        sizes = resolutions((inputs[1], inputs[2]), len(channels), full)
        for i, (width, size) in enumerate(zip(channels, sizes, strict=True)):
            first = nn.Conv2d(shape[0], width, 3, padding=1) if full and i == 0 else Down(shape[0], width)
            stack = [scaled_block(width, activation, depth) for _ in range(blocks * rungs[i])]
            stages.append(Folded(nn.Sequential(first, *stack), shape))
            shape = (width, *size)
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Float[Tensor, "*lead c h w"]) -> list[Tensor]:
        """The features a_1 .. a_L, with the leading axes of x."""
        found: list[Tensor] = []
        for stage, rungs in zip(self.stages, self.rungs, strict=True):
            x = stage(x)
            found += [x] * rungs
        return found[::-1]


class Head(nn.Module):
    """(h, ...) -> numbers of the same height and width, from the state and whatever else is known there.

    Each is normalised and convolved by itself, and they meet as a sum: the same as to convolve them side by side, but
    features of x, which are (b, ...), are not computed for every one of the k samples that h has.

    Args:
        shape: (channels, height, width) of h, and of each of the others.
        outputs: Channels out.
        inputs: How many there are, h included.
        activation: One of `ACTIVATIONS`.
        gain: How large its outputs are at the start: of variance gain^2, about.
    """

    def __init__(
        self, shape: Sequence[int], outputs: int, *, inputs: int = 1, activation: str = "silu", gain: float = 1.0
    ) -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        width, *size = shape
        half = max(1, width // 2)
        # one bias is enough for a sum
        self.first = nn.ModuleList(
            Folded(
                nn.Sequential(norm(width), act(), even(nn.Conv2d(width, half, 3, padding=1, bias=i == 0), BEHIND)),
                shape,
            )
            for i in range(inputs)
        )
        last = even(nn.Conv2d(half, outputs, 3, padding=1), BEHIND * gain)
        self.last = Folded(nn.Sequential(act(), last), (half, *size))

    def forward(
        self, h: Float[Tensor, "*lead c h w"], *others: Float[Tensor, "..."]
    ) -> Float[Tensor, "*lead outputs h w"]:
        """The numbers, with the leading axes of h; those of the others are the last of them."""
        total = self.first[0](h)
        for net, other in zip(self.first[1:], others, strict=True):
            total = total + net(other)
        return self.last(total)


def doubling(before: int, after: int, size: tuple[int, int]) -> Up:
    """An `Up` for a state: its outputs start with the variance of its inputs."""
    up = Up(before, after, size)
    with torch.no_grad():
        # of the 16 weights of each pair of channels four reach a pixel
        nn.init.normal_(up.conv.weight, std=(4 * before) ** -0.5)
        nn.init.zeros_(up.conv.bias)  # type: ignore[arg-type]
    return up


def scaled_block(channels: int, activation: str, depth: int) -> nn.Module:
    """A residual block, one of `depth` that follow each other: its last convolution starts 1/sqrt(depth) as large."""
    block = conv_block(channels, activation)
    last = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.mul_(depth**-0.5)
    return block


def even(conv: nn.Conv2d, gain: float = 1.0) -> nn.Conv2d:
    """The convolution, whose outputs start with the variance of its inputs, times the square of a gain."""
    with torch.no_grad():
        nn.init.normal_(conv.weight, std=gain * conv.weight[0].numel() ** -0.5)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    return conv
