"""The straightforward convolutional VAE: strided convolutions down, transposed ones up, NCHW, an eager loop.

Channels, number of residual blocks, norms, activations, starting values and likelihood are those of the recipe `conv`.
The blocks are the usual ones, two convolutions of full width; those of the recipe pass through half the channels.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound import families, recipes

from ..problem import Problem
from ..race import Contestant
from .plain import resident_loop


def contestant(problem: Problem, channels: Sequence[int], family: str) -> Contestant:
    """The eager loop over resident rows."""
    name = "PyTorch, NCHW and ConvTranspose"
    return resident_loop(name, TransposedVAE(problem.x, problem.latent, channels, family), problem)


class TransposedVAE(nn.Module):
    """The VAE; its forward is the loss, nats for each row."""

    def __init__(self, x: Tensor, latent: int, channels: Sequence[int], family: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        event = x.shape[1:]
        shift, unit = recipes.standardisation(x.float(), event)
        self.register_buffer("shift", shift)
        self.register_buffer("unit", unit)
        self.mixture = families.DiscretizedLogisticMixture(event, 256, 5) if family == "logistic_mixture" else None
        self.encoder, self.decoder = networks(event, latent, channels, self.mixture.shape[0] if self.mixture else 1)
        of_x = self.mixture or families.Bernoulli(event)
        self.bias = nn.Parameter(of_x.marginal(x[:1000].float()))

    def forward(self, x: Tensor) -> Tensor:
        loc, log_scale = self.encoder((x - self.shift) / self.unit).chunk(2, 1)
        z = loc + log_scale.exp() * torch.randn_like(loc)
        y = self.decoder(z) + self.bias
        if self.mixture is None:
            distortion = F.binary_cross_entropy_with_logits(y, x, reduction="sum")
        else:
            distortion = -self.mixture(y).log_prob(x).sum()
        rate = 0.5 * (loc**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
        return (distortion + rate) / len(x)


def networks(event: Sequence[int], latent: int, channels: Sequence[int], outputs: int) -> tuple[nn.Module, nn.Module]:
    """The encoder's and the decoder's layers."""
    bottom = (channels[-1], *(side >> len(channels) for side in event[1:]))
    down: list[nn.Module] = []
    for before, after in pairwise((event[0], *channels)):
        down += [nn.Conv2d(before, after, 4, stride=2, padding=1), Block(after)]
    down += [nn.GroupNorm(8, channels[-1]), nn.SiLU()]
    down += [nn.Flatten(), nn.Linear(math.prod(bottom), 2 * latent, bias=False)]
    up: list[nn.Module] = [nn.Linear(latent, math.prod(bottom)), nn.Unflatten(1, bottom)]
    for before, after in pairwise((*channels[::-1], outputs)):
        up += [Block(before), nn.GroupNorm(8, before), nn.SiLU()]
        up.append(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1))
    return nn.Sequential(*down), nn.Sequential(*up)


class Block(nn.Module):
    """x + gain * two 3x3 convolutions of x, normalised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.f = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.gain = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gain * self.f(x)
