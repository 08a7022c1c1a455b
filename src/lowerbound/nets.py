"""Networks: tensors to tensors of given event shapes.

Depth trains because every layer that can be is a residual block that starts close to the identity: normalise,
transform, scale by a small learned gain, add (He et al. 2016, https://arxiv.org/abs/1603.05027; Touvron et al. 2021,
https://arxiv.org/abs/2103.17239).

Convolutional stacks halve the image by 4x4 convolutions of stride 2 and double it by their transposes: each pixel is
reached by equally many weights, so that there are no checkerboards (Odena et al. 2016,
https://distill.pub/2016/deconv-checkerboard/). An odd side is padded by one on the way down and cropped on the way up.
Their residual blocks narrow to half the channels between two 3x3 convolutions: half the work, at much the same bound.

A table enters as `TableInput`: numbers in standard units, levels one-hot, and which entries are known; what is missing
is 0 (Mattei & Frellsen 2019, https://arxiv.org/abs/1812.02633).

Every network takes any number of leading axes, such as (k, b), and folds them into one here and nowhere else.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .columns import Column
from .linear import Linear

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}

# Rows from which starting values are taken: enough for a mean and a spread, few enough for any memory.
START_ROWS = 10_000
# How long a standardised row is allowed to be, in an MLP.
ROW_LENGTH = 8.0
# Within so many spreads of its centre a column of a table enters nearly as it is, and by its logarithm beyond.
STRAIGHT = 3.0


class Folded(nn.Module):
    """A network over one batch axis, applied to tensors with any number of leading axes.

    Args:
        net: (n, *inputs) -> (n, *outputs).
        inputs: Shape of one input, without leading axes.
    """

    def __init__(self, net: nn.Module, inputs: Sequence[int]) -> None:
        super().__init__()
        self.net = net
        self.inputs = tuple(inputs)

    def forward(self, x: Float[Tensor, "*lead_inputs"]) -> Float[Tensor, "*lead_outputs"]:
        """The outputs, with the leading axes of x."""
        lead = x.shape[: x.ndim - len(self.inputs)]
        y = self.net(x.reshape(-1, *self.inputs))
        return y.reshape(*lead, *y.shape[1:])


class Standardize(nn.Module):
    """(x - shift) / unit, with the statistics of the training data: how an encoder reads raw values.

    Args:
        shift: Centre of the data, broadcastable to one x.
        unit: Spread of the data, broadcastable to one x.
    """

    def __init__(self, shift: Tensor, unit: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("unit", unit)
        self.shift: Tensor
        self.unit: Tensor

    def forward(self, x: Float[Tensor, "*x"]) -> Float[Tensor, "*x"]:
        """x in units of its own spread."""
        return (x - self.shift) / self.unit


def standardisation(x: Tensor | None, event: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Centre and spread of the data: of each element, with one spread for each channel of an image.

    NaN is left out; of elements that are nothing else it is 0 and 1.
    """
    event = tuple(event)
    spread_shape = (event[0], *[1] * (len(event) - 1)) if len(event) > 1 else event
    if x is None:
        return torch.zeros(event), torch.ones(spread_shape)
    x = x[:START_ROWS]
    shift = x.nanmean(0).nan_to_num()
    axes = (0, *range(2, x.ndim)) if len(event) > 1 else (0,)
    unit = (x - shift).square().nanmean(axes).nan_to_num().sqrt().reshape(spread_shape)
    # what never changes has no spread but the rounding error of its own mean
    size = shift.abs().flatten(1).amax(1).reshape(spread_shape) if len(event) > 1 else shift.abs()
    return shift, torch.where(unit > 1e-6 * size, unit, torch.ones_like(unit))


class TableNumbers(nn.Module):
    """The columns of a table as numbers of like size: positive ones by their logarithm, counts by that of one more.

    Args:
        columns: Of the table.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        for kind in ("positive", "count"):
            self.register_buffer(kind, torch.tensor([c.kind == kind for c in columns]), persistent=False)
        self.positive: Tensor
        self.count: Tensor

    def forward(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead d"]:
        """The numbers, NaN where they are missing."""
        logarithm = x.clamp(min=torch.finfo(x.dtype).tiny).log()
        return torch.where(self.positive, logarithm, torch.where(self.count, x.clamp(min=0).log1p(), x))


class TableInput(nn.Module):
    """What an encoder reads of a row with holes: its values, and which of them are known.

    Numbers are in standard units, levels one-hot, and what comes round again is a cosine and a sine; what is missing is
    0. In training some known entries are hidden, others in each row, so that the encoder learns to do without.

    Args:
        columns: Of the table.
        shift: Centre of each column, as `TableNumbers` has it.
        unit: Spread of each column.
        mask: Part of the known entries that is hidden in training.

    Attributes:
        width: How many numbers a row becomes.
    """

    def __init__(
        self, columns: Sequence[Column], shift: Float[Tensor, " d"], unit: Float[Tensor, " d"], mask: float = 0.0
    ) -> None:
        super().__init__()
        self.mask = mask
        self.register_buffer("shift", shift)
        self.register_buffer("unit", unit)
        self.shift: Tensor
        self.unit: Tensor
        self.numbers = TableNumbers(columns)
        plain = [i for i, c in enumerate(columns) if not c.is_level and c.kind != "cyclic"]
        round_ = [(i, 2 * math.pi / (c.period or 1)) for i, c in enumerate(columns) if c.kind == "cyclic"]
        levels = [(i, place) for i, c in enumerate(columns) if c.is_level for place in range(len(c.levels))]
        lists = {
            "plain": plain,
            "round": [i for i, _ in round_],
            "turn": [turn for _, turn in round_],
            "of_level": [i for i, _ in levels],
            "level": [place for _, place in levels],
        }
        for name, found in lists.items():
            dtype = torch.float32 if name in ("turn", "level") else torch.int64
            self.register_buffer(name, torch.tensor(found, dtype=dtype), persistent=False)
        self.plain: Tensor
        self.round: Tensor
        self.turn: Tensor
        self.of_level: Tensor
        self.level: Tensor
        self.width = len(plain) + 2 * len(round_) + len(levels) + len(columns)
        self.length = max(1.0, math.sqrt(self.width) / ROW_LENGTH)

    def values(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead values"]:
        """The values of rows, NaN where they are missing."""
        number = ((self.numbers(x) - self.shift) / self.unit).index_select(-1, self.plain)
        angle = x.index_select(-1, self.round) * self.turn
        entry = x.index_select(-1, self.of_level)
        level = torch.where(entry.isnan(), entry, (entry == self.level).to(x.dtype))
        return torch.cat((STRAIGHT * torch.asinh(number / STRAIGHT), angle.cos(), angle.sin(), level), -1)

    def forward(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead width"]:
        """The values, 0 where they are missing or hidden, and 1 for each that is not."""
        if self.training and self.mask > 0:
            x = torch.where(torch.rand(x.shape, dtype=x.dtype, device=x.device) < self.mask, math.nan, x)
        known = (~x.isnan()).to(x.dtype)
        return torch.cat((self.values(x).nan_to_num(), known), -1) / self.length


class Bias(nn.Module):
    """y + b, with a learned b for every element: what a decoder says before it knows z.

    Args:
        start: Where b starts.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(start.clone())

    def forward(self, y: Float[Tensor, "*y"]) -> Float[Tensor, "*y"]:
        """y + b."""
        return y + self.bias


class Residual(nn.Module):
    """x + gain * f(x), the gain of each channel learned from 0.1.

    Args:
        f: A map that keeps the shape.
        channels: Length of the channel axis.
        ndim: Axes of one input; the channels are the first of them.
    """

    def __init__(self, f: nn.Module, channels: int, ndim: int) -> None:
        super().__init__()
        self.f = f
        self.gain = nn.Parameter(torch.full((channels, *[1] * (ndim - 1)), 0.1))

    def forward(self, x: Float[Tensor, "*x"]) -> Float[Tensor, "*x"]:
        """x + gain * f(x)."""
        return x + self.gain * self.f(x)


def mlp(
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    hidden: Sequence[int],
    activation: str = "silu",
    residual: bool = True,
    gain: float = 1.0,
) -> nn.Module:
    """A multi-layer perceptron from any event shape to any event shape, without a bias at its end.

    With `residual`, each hidden layer as wide as the one before it is a normalised residual block; without, it is the
    plain stack of linear maps and activations of the textbooks.

    Args:
        inputs: Shape of one input.
        outputs: Shape of one output.
        hidden: Widths of the hidden layers.
        activation: One of `ACTIVATIONS`.
        residual: Whether layers of equal width are residual blocks.
        gain: Of the weights of the last layer, at the start.
    """
    act = ACTIVATIONS[activation]
    widths = [math.prod(inputs), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (before, after) in enumerate(pairwise(widths)):
        if residual and i > 0 and before == after:
            layers.append(Residual(nn.Sequential(nn.LayerNorm(before), Linear(before, after), act()), after, 1))
        else:
            layers += [glorot(Linear(before, after)), act()]
    if residual:
        layers.append(nn.LayerNorm(widths[-1]))
    last = glorot(Linear(widths[-1], math.prod(outputs), bias=False))
    with torch.no_grad():
        last.weight.mul_(gain)
    layers += [last, nn.Unflatten(1, tuple(outputs))]
    return Folded(nn.Sequential(*layers), inputs)


def glorot(layer: nn.Linear) -> nn.Linear:
    """The layer, with the start that keeps variances level (Glorot & Bengio 2010)."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


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
