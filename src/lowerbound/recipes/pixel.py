"""The recipe of a VAE whose decoder draws an image pixel by pixel: z says what is in it, neighbours what it is like.

    p(x|z) = prod over pixels i of p(x_i | z, pixels before i within reach)

Strokes, textures and edges are said by the pixels around, for which z is a costly place. A decoder that could see all
of the image would do without z altogether; one of limited reach cannot, and leaves to z what is not local: PixelVAE,
Gulrajani et al. 2017, https://arxiv.org/abs/1611.05013; Chen et al. 2017, https://arxiv.org/abs/1611.02731

Axes: ``*lead`` such as (k, b), then channels, height, width.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from .. import families, nets
from ..models import VAE
from ..nets import START_ROWS, standardisation
from .parts import FAMILIES, POSTERIORS, PRIOR_STEPS, ActivationName, PosteriorName, PriorName, assemble, check_numbers

# Length of the vectors that categories are read as.
EMBEDDED = 8

DiscreteName = Literal["bernoulli", "categorical", "logistic", "logistic_mixture"]

# How pixels before are read.
READ: dict[str, Callable[[int, int], nets.Scaled | nets.Embedded]] = {
    "bernoulli": lambda colours, levels: nets.Scaled(2),
    "categorical": lambda colours, levels: nets.Embedded(colours, levels, EMBEDDED),
    "logistic": lambda colours, levels: nets.Scaled(levels),
    "logistic_mixture": lambda colours, levels: nets.Scaled(levels),
}


def pixel(
    x: Tensor | None = None,
    numbers: Tensor | None = None,
    *,
    event: Sequence[int] = (1, 28, 28),
    latent: int = 32,
    channels: Sequence[int] = (32, 64, 64),
    blocks: int = 1,
    reach: int = 2,
    layers: int = 1,
    width: int = 64,
    activation: ActivationName = "silu",
    dropout: float = 0.0,
    family: DiscreteName = "logistic_mixture",
    levels: int = 256,
    components: int = 5,
    posterior: PosteriorName = "normal",
    prior: PriorName = "normal",
    prior_components: int = 100,
    prior_steps: int = PRIOR_STEPS,
) -> VAE:
    """A convolutional VAE whose decoder draws images of integers pixel by pixel, given z and the pixels around.

    Of the colours of a pixel, each knows those before it. The more a pixel sees of others, the better the bound may be
    and the less is left for z to say: `reach` decides (its rate tells).
    PixelVAE: Gulrajani et al. 2017, https://arxiv.org/abs/1611.05013

    Args:
        x: Training data to take starting values from.
        numbers: Of these rows, as `Data.conditional("row")` tells them (exemplar).
        event: (channels, height, width) of one x.
        latent: Dimensions of z.
        channels: Width of each level, of encoder and decoder; each halves the image.
        blocks: Residual blocks on each level.
        reach: How many rows above, and columns beside, a pixel sees.
        layers: Gated residual blocks that make something of z and the pixels around, before the colours part.
        width: Of these blocks.
        activation: Between layers.
        dropout: Part of the encoder's input that is hidden in training.
        family: Of each pixel: "bernoulli", "categorical", "logistic", "logistic_mixture".
        levels: x takes the integers 0..levels-1 (categorical, logistic, logistic_mixture).
        components: Of each pixel's mixture (logistic_mixture).
        posterior: "normal" (diagonal), "laplace", "low_rank", "full" (covariance), "householder" (a diagonal normal,
            reflected), "planar", "radial", "sylvester", "iaf" (flows), "sphere" (directions, von Mises-Fisher), "point"
            (none: a plain autoencoder).
        prior: "normal" (standard), "mixture" (of normals), "vamp", "exemplar" (around the codes of training
            rows), "gmm" (normals with full covariances), "flow" (neural spline), "scaled_flow" (the same in units of
            its own), "maf" (autoregressive), "realnvp" (couplings and invertible matrices), "sphere" (uniform), for the
            posterior of that name.
        prior_components: Of a mixture, gmm or VampPrior, or how many exemplars.
        prior_steps: Transforms of a flow, scaled_flow or maf, or blocks of a realnvp.

    Raises:
        ValueError: x is not images, or not of integers; a number that no network can have; more halvings than the
            images have in them.
    """
    if len(event) != 3:
        raise ValueError(
            f"recipe 'pixel' is for images, (channels, height, width); one x here has shape {tuple(event)}. "
            "Use model.name=mlp."
        )
    if family not in READ:
        raise ValueError(
            f"family={family!r} cannot be drawn pixel by pixel: recipe 'pixel' is for integers, by {', '.join(READ)}. "
            "Choose among these, or use model.name=conv."
        )
    counts = {
        "latent": latent,
        "reach": reach,
        "layers": layers,
        "width": width,
        "components": components,
        "prior_components": prior_components,
        "prior_steps": prior_steps,
    }
    check_numbers({"event": event, "channels": channels}, counts, levels, dropout, "shared")
    if blocks < 0:
        raise ValueError(f"blocks={blocks} must be 0 or more.")
    halvings = max(1, math.ceil(math.log2(max(event[1:]))))
    if not 1 <= len(channels) <= halvings:
        raise ValueError(
            f"channels={list(channels)} would halve images of {event[1]}x{event[2]} {len(channels)} times: "
            f"give 1 to {halvings} widths, one for each halving."
        )
    family_of_z = POSTERIORS[posterior]((latent,))
    shift, unit = standardisation(x, event)
    element = FAMILIES[family](event, levels, components, "shared", shift, unit)
    net = nets.CausalNet(
        event,
        element.params,
        READ[family](event[0], levels),
        reach=reach,
        width=width,
        layers=layers,
        features=channels[0],
        activation=activation,
        start=torch.zeros(element.shape) if x is None else element.marginal(x[:START_ROWS]),
    )
    family_of_x = families.Autoregressive(element, net, features=channels[0])
    down = nets.conv_down(event, family_of_z.shape, channels=channels, blocks=blocks, activation=activation)
    up = nets.conv_up((latent,), family_of_x.shape, channels=channels, blocks=blocks, activation=activation)
    of_prior = (prior, prior_components, prior_steps)
    return assemble(x, numbers, shift, unit, down, up, family_of_z, family_of_x, dropout, *of_prior)
