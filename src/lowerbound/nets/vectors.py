"""Networks of vectors, and what all networks share: standardisation, residual blocks, leading axes."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..linear import Linear

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


class Gated(nn.Module):
    """(W x + b) sigmoid(V x + c): a linear map, of which a second one lets through as much as x calls for.

    Dauphin et al. 2017, https://arxiv.org/abs/1612.08083

    Args:
        value: x -> W x + b.
        gate: x -> V x + c.
    """

    def __init__(self, value: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.value = value
        self.gate = gate

    def forward(self, x: Float[Tensor, "*lead i"]) -> Float[Tensor, "*lead o"]:
        """What is let through."""
        return self.value(x) * self.gate(x).sigmoid()


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
        activation: One of `ACTIVATIONS`, or "gated": every hidden layer is a `Gated`.
        residual: Whether layers of equal width are residual blocks.
        gain: Of the weights of the last layer, at the start.
    """
    widths = [math.prod(inputs), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (before, after) in enumerate(pairwise(widths)):
        if residual and i > 0 and before == after:
            block = nn.Sequential(nn.LayerNorm(before), *_hidden(Linear(before, after), activation))
            layers.append(Residual(block, after, 1))
        else:
            layers += _hidden(glorot(Linear(before, after)), activation)
    if residual:
        layers.append(nn.LayerNorm(widths[-1]))
    last = glorot(Linear(widths[-1], math.prod(outputs), bias=False))
    with torch.no_grad():
        last.weight.mul_(gain)
    layers += [last, nn.Unflatten(1, tuple(outputs))]
    return Folded(nn.Sequential(*layers), inputs)


def _hidden(layer: nn.Linear, activation: str) -> list[nn.Module]:
    """A hidden layer: a linear map, and what it is followed or gated by."""
    if activation == "gated":
        return [Gated(layer, glorot(Linear(layer.in_features, layer.out_features)))]
    return [layer, ACTIVATIONS[activation]()]


def glorot(layer: nn.Linear) -> nn.Linear:
    """The layer, with the start that keeps variances level (Glorot & Bengio 2010)."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
