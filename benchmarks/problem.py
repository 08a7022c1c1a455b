"""What every contestant is given: the same network, rows, batch and learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from lowerbound.data import binarized_mnist

LR = 1e-3
# Rows on which the contestants' losses are compared once all have made the same number of updates.
CHECKED = 1024


@dataclass(frozen=True)
class Problem:
    """A VAE of multi-layer perceptrons with a Bernoulli likelihood, the rows to train it on, and how.

    Args:
        x: Rows (n, *event) of zeros and ones, uint8.
        batch: Rows in an update; it divides n.
        hidden: Widths of the encoder's hidden layers; the decoder's are the same in reverse.
        latent: Dimensions of z.
        device: Where.
        levels: x takes the integers 0..levels-1.
        held_out: Rows to take losses on; by default the first of x.
    """

    x: Tensor
    batch: int
    hidden: Sequence[int] = (512, 512)
    latent: int = 20
    device: str = "cpu"
    levels: int = 2
    held_out: Tensor | None = None

    @property
    def event(self) -> torch.Size:
        """The shape of one row."""
        return self.x.shape[1:]

    @property
    def steps(self) -> int:
        """Updates in a pass over the rows."""
        return len(self.x) // self.batch

    @cached_property
    def checked(self) -> Tensor:
        """Rows to compare losses on, as numbers on the device."""
        rows = self.x[:CHECKED] if self.held_out is None else self.held_out
        return rows.float().to(self.device)

    def layers(self) -> list[tuple[int, int]]:
        """The (inputs, outputs) of each linear map, from x to the posterior and from z to the likelihood."""
        dims = prod(self.event)
        down = [dims, *self.hidden, 2 * self.latent]
        up = [self.latent, *self.hidden[::-1], dims]
        return [*pairwise(down), *pairwise(up)]


def bits(rows: int, event: Sequence[int] = (1, 28, 28), seed: int = 0) -> Tensor:
    """Blobs of ones on zeros, uint8: images with something to learn in them that need no file."""
    return (_blobs(rows, event, seed) > 0.5).to(torch.uint8)


def pixels(rows: int, event: Sequence[int] = (3, 32, 32), seed: int = 0) -> Tensor:
    """Smooth blobs of 256 levels, uint8."""
    return (128 + 80 * _blobs(rows, event, seed)).clamp(0, 255).to(torch.uint8)


def digits(held_out: int) -> tuple[str, Tensor, Tensor]:
    """Static MNIST if it is on this machine, else blobs: the name, rows to train on, and some that are not."""
    try:
        data = binarized_mnist()
    except OSError:
        return "blobs, for want of static MNIST", bits(20_000), bits(held_out, seed=1)
    return "static MNIST", data.train, data.fixed("valid", held_out)


def _blobs(rows: int, event: Sequence[int], seed: int) -> Tensor:
    """Smooth random images of unit spread."""
    channels, height, width = event
    coarse = torch.randn(rows, channels, 3, 3, generator=torch.Generator().manual_seed(seed))
    return 1.5 * F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
