"""Networks of images: residual convolutional stacks down and up.

They halve the image by 4x4 convolutions of stride 2 and double it by their transposes: each pixel is reached by equally
many weights, so that there are no checkerboards (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard/). An
odd side is padded by one on the way down and cropped on the way up. Their residual blocks narrow to half the channels
between two 3x3 convolutions: half the work, at much the same bound.
"""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..linear import Linear
from .vectors import ACTIVATIONS, Folded, Residual, glorot


def norm(channels: int) -> nn.GroupNorm:
    """A group norm (Wu & He 2018, https://arxiv.org/abs/1803.08494) of at most 8 groups.

    A group holds four channels or more: of a single number, which is what a group of one channel is where an image has
    shrunk to one pixel, nothing is left.
    """
    return nn.GroupNorm(max(g for g in (1, 2, 4, 8) if g == 1 or channels % (4 * g) == 0), channels)


def conv_block(channels: int, activation: str) -> nn.Module:
    """A residual block of two 3x3 convolutions, through half the channels."""
    act = ACTIVATIONS[activation]
    half = max(1, channels // 2)
    f = nn.Sequential(
        norm(channels),
        act(),
        nn.Conv2d(channels, half, 3, padding=1),
        act(),
        nn.Conv2d(half, channels, 3, padding=1),
    )
    return Residual(f, channels, 3)


class Down(nn.Module):
    """Half the size, by a 4x4 convolution of stride 2. Odd sides are padded by repetition.

    Args:
        before: Channels in.
        after: Channels out.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 4, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "n before h w"]) -> Float[Tensor, "n after h2 w2"]:
        """x at half its size, rounded up."""
        h, w = x.shape[-2:]
        x = F.pad(x, (0, w % 2, 0, h % 2), mode="replicate") if h % 2 or w % 2 else x
        return self.conv(x)


class Up(nn.Module):
    """Twice the size, by the transpose of a 4x4 convolution of stride 2, cropped to the size wanted.

    Args:
        before: Channels in.
        after: Channels out.
        size: Height and width out.
        bias: Whether the convolution has one.
    """

    def __init__(self, before: int, after: int, size: tuple[int, int], bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=bias)
        self.size = size

    def forward(self, x: Float[Tensor, "n before h w"]) -> Float[Tensor, "n after h2 w2"]:
        """x at the size wanted."""
        return self.conv(x)[..., : self.size[0], : self.size[1]]


def pyramid(size: tuple[int, int], levels: int) -> list[tuple[int, int]]:
    """The sizes of an image halved `levels` times, largest first."""
    sizes = [size]
    for _ in range(levels):
        h, w = sizes[-1]
        sizes.append((-(-h // 2), -(-w // 2)))
    return sizes


def conv_down(
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    channels: Sequence[int],
    blocks: int = 1,
    activation: str = "silu",
) -> nn.Module:
    """A convolutional stack from images to anything, halving the size once for each entry of `channels`.

    Args:
        inputs: (channels, height, width) of an image.
        outputs: Shape of one output. Of three axes with the size of the smallest level, it is made by a convolution;
            any other is made by a linear map.
        channels: Width of each level, finest first.
        blocks: Residual blocks on each level.
        activation: One of `ACTIVATIONS`.
    """
    bottom = pyramid((inputs[1], inputs[2]), len(channels))[-1]
    layers: list[nn.Module] = []
    for before, after in zip((inputs[0], *channels), channels, strict=False):
        layers += [Down(before, after), *(conv_block(after, activation) for _ in range(blocks))]
    layers += [norm(channels[-1]), ACTIVATIONS[activation]()]
    if len(outputs) == 3 and tuple(outputs[1:]) == bottom:
        layers.append(nn.Conv2d(channels[-1], outputs[0], 1, bias=False))
    else:
        flat = Linear(channels[-1] * math.prod(bottom), math.prod(outputs), bias=False)
        layers += [nn.Flatten(), glorot(flat), nn.Unflatten(1, tuple(outputs))]
    return Folded(nn.Sequential(*layers), inputs)


def conv_up(
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    channels: Sequence[int],
    blocks: int = 1,
    activation: str = "silu",
) -> nn.Module:
    """The mirror of `conv_down`: from anything to images, doubling the size once for each entry of `channels`.

    Args:
        inputs: Shape of one input. Of three axes with the size of the smallest level, it enters by a convolution; any
            other by a linear map.
        outputs: (channels, height, width) of the output.
        channels: Width of each level, finest first, as for `conv_down`.
        blocks: Residual blocks on each level.
        activation: One of `ACTIVATIONS`.
    """
    *sizes, bottom = pyramid((outputs[1], outputs[2]), len(channels))
    widths = list(channels)
    layers: list[nn.Module] = []
    if len(inputs) == 3 and tuple(inputs[1:]) == bottom:
        layers.append(nn.Conv2d(inputs[0], widths[-1], 3, padding=1))
    else:
        flat = glorot(Linear(math.prod(inputs), widths[-1] * math.prod(bottom)))
        layers += [nn.Flatten(), flat, nn.Unflatten(1, (widths[-1], *bottom))]
    while sizes:
        width = widths.pop()
        layers += [conv_block(width, activation) for _ in range(blocks)]
        layers += [norm(width), ACTIVATIONS[activation]()]
        layers.append(Up(width, widths[-1] if widths else outputs[0], sizes.pop(), bias=bool(widths)))
    return Folded(nn.Sequential(*layers), inputs)
