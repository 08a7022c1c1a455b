"""Networks that are told something of a row beside the row itself: what a conditional model p(x|c) is made of.

What is told comes as the data have it: a class, numbers, or an image of which a part is known. It is read into numbers
and joins the input of a network along its channels. Sohn et al. 2015,
https://papers.nips.cc/paper/2015/hash/8d55a249e6baa5c06772297520da2051-Abstract.html

What is not known is NaN, and is read as nothing: zeros.

Axes: ``b`` rows, ``*lead`` such as (k, b), then ``c`` channels of whatever a network reads.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .vectors import Standardize


class OneHot(nn.Module):
    """A class -> 1 in its place and 0 in all others; 0 everywhere where it is not known.

    Args:
        classes: How many there are.

    >>> OneHot(3)(torch.tensor([2.0, torch.nan]))
    tensor([[0., 0., 1.],
            [0., 0., 0.]])
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("places", torch.arange(classes).float(), persistent=False)
        self.places: Tensor

    def forward(self, labels: Float[Tensor, " b"]) -> Float[Tensor, "b classes"]:
        """A row for each label."""
        return (labels[:, None] == self.places).to(labels.dtype)


class Attributes(nn.Module):
    """Numbers in their own units -> in units of their own spread; 0, their mean, where they are not known.

    Args:
        shift: Centre of each.
        unit: Spread of each.
    """

    def __init__(self, shift: Float[Tensor, " f"], unit: Float[Tensor, " f"]) -> None:
        super().__init__()
        self.standardize = Standardize(shift, unit)

    def forward(self, values: Float[Tensor, "b f"]) -> Float[Tensor, "b f"]:
        """A row for each row."""
        return self.standardize(values).nan_to_num(0.0)


class KnownPart(nn.Module):
    """An image with NaN where it is hidden -> what is known of it, standardised, and beside it where that is.

    Args:
        shift: Centre of the data.
        unit: Spread of the data.
    """

    def __init__(self, shift: Tensor, unit: Tensor) -> None:
        super().__init__()
        self.standardize = Standardize(shift, unit)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h w"]:
        """Twice as many channels."""
        known = image.isfinite().to(image.dtype)
        return torch.cat((self.standardize(image).nan_to_num(0.0), known), 1)


class Beside(nn.Module):
    """(y, c) -> net(y and what c says), joined along the first axis after the leading ones.

    Args:
        before: y -> what joins, such as a standardisation.
        read: c -> (b, channels, ...), as many axes after b as y has; an axis of one is repeated.
        net: Of both.
        ndim: Axes of y, without the leading ones.

    Raises:
        ValueError: Nothing is told.

    >>> beside = Beside(nn.Identity(), OneHot(2), nn.Linear(5, 1), 1)
    >>> beside(torch.zeros(4, 6, 3), torch.zeros(6)).shape
    torch.Size([4, 6, 1])
    """

    def __init__(self, before: nn.Module, read: nn.Module, net: nn.Module, ndim: int) -> None:
        super().__init__()
        self.before = before
        self.read = read
        self.net = net
        self.ndim = ndim

    def forward(self, y: Float[Tensor, "*lead_event"], *context: Tensor) -> Float[Tensor, "*lead_outputs"]:
        """The outputs, with the leading axes of y."""
        if not context:
            raise ValueError(
                "this model is conditional, and was told nothing: give what it is conditional on after x, a row for "
                "each row, as in model(x, labels)."
            )
        y, told = self.before(y), self.read(*context)
        at = y.ndim - self.ndim
        told = told.expand(*y.shape[:at], told.shape[1], *y.shape[at + 1 :])
        return self.net(torch.cat((y, told), at))


def planes(read: nn.Module, count: int) -> nn.Module:
    """The numbers that are read as images of one value each."""
    return nn.Sequential(read, nn.Unflatten(1, (count, 1, 1)))


def channels_beside(event: Sequence[int], count: int) -> tuple[int, ...]:
    """The shape of what a network reads when so many channels join an event."""
    return event[0] + count, *event[1:]
