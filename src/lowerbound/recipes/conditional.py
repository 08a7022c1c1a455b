"""The recipe of a conditional model p(x|c) = E_p(z|c) [p(x|z, c)]: of rows of a class, or of images of which a part is
known.

    log p(x|c) >= E_q(z|x,c) [log p(x|z, c)] - KL(q(z|x, c) || p(z|c)).

Encoder, prior and decoder are told c alike. The prior is a normal that c decides, and starts at N(0, I). Where c is a
part of an image the decoder explains the rest of it alone: the bound is one on log p(rest|part). Sohn et al. 2015,
https://papers.nips.cc/paper/2015/hash/8d55a249e6baa5c06772297520da2051-Abstract.html

Axes: ``k`` samples, ``b`` rows; of images channels ``c``, height ``h``, width ``w``; ``p`` hidden pixels.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Distribution

from .. import families, nets
from ..data import REGIONS, hidden_pixels
from ..distributions import Completed
from ..distributions.sphere import sphere
from ..models import VAE, Conditional
from ..nets import ROW_LENGTH, START_ROWS, standardisation
from .parts import FAMILIES, POSTERIORS, ActivationName, FamilyName, PosteriorName, check_numbers

GivenName = Literal["label", "top", "left", "border"]
NetworkName = Literal["mlp", "conv"]
# Numbers by which a known part of an image is told to prior and decoder.
TOLD = 64
# Width of the hidden layer of the prior.
WIDTH = 128


def cvae(
    x: Tensor | None = None,
    context: Tensor | None = None,
    *,
    event: Sequence[int] = (1, 28, 28),
    given: GivenName = "label",
    classes: int = 0,
    attributes: int = 0,
    names: Sequence[str] = (),
    network: NetworkName = "mlp",
    latent: int = 16,
    hidden: Sequence[int] = (256, 256, 256),
    channels: Sequence[int] = (32, 64, 64),
    blocks: int = 1,
    activation: ActivationName = "silu",
    dropout: float = 0.0,
    family: FamilyName = "bernoulli",
    levels: int = 256,
    components: int = 5,
    scale: str | float = "shared",
    posterior: PosteriorName = "normal",
) -> VAE:
    """A conditional VAE: of the rows of a class, of rows with given numbers, or of images of which a part is known.

    Args:
        x: Training data to take starting values from.
        context: What is told of them.
        event: Shape of one x.
        given: "label" (a class, or numbers), or the part of an image that is known: "top", "left" or "border".
        classes: How many classes a label is one of; 0 where it is numbers.
        attributes: How many numbers a label is; 0 where it is a class.
        names: Of the classes, or of the numbers.
        network: "mlp", or "conv" for images.
        latent: Dimensions of z.
        hidden: Widths of the encoder's hidden layers; the decoder's are the same in reverse (mlp).
        channels: Width of each level; each halves the image (conv).
        blocks: Residual blocks on each level (conv).
        activation: Between layers.
        dropout: Part of the encoder's input that is hidden in training.
        family: Of p(x|z, c).
        levels: x takes the integers 0..levels-1 (categorical, logistic, logistic_mixture).
        components: Of each element's mixture (logistic_mixture).
        scale: Of normal, laplace and student_t: "element" (predicted), "shared" (one learned), or a number.
        posterior: As in the recipe `mlp`.

    Raises:
        ValueError: A number that no network can have; labels that are neither classes nor numbers, or both; a part of
            what is no image.
    """
    lists = {"event": event, "hidden": hidden, "channels": channels}
    check_numbers(lists, {"latent": latent, "components": components}, levels, dropout, scale)
    image = len(event) == 3
    if not image and (network == "conv" or given in REGIONS):
        what = "network=conv" if network == "conv" else f"given={given}"
        raise ValueError(f"{what} is for images, (channels, height, width); one x here has shape {tuple(event)}.")
    if given == "label" and (min(classes, attributes) < 0 or (classes > 0) == (attributes > 0)):
        raise ValueError(
            f"classes={classes} and attributes={attributes}: a label is a class, one of 1 or more, or it is 1 or more "
            "numbers. Leave both out, the data say them."
        )
    shift, unit = standardisation(x, event)
    family_of_z, prior_of_z = POSTERIORS[posterior]((latent,)), families.Normal((latent,))
    if family_of_z.support is sphere:
        raise ValueError(
            f"posterior={posterior!r} needs a prior of directions, and that of a conditional model is a normal. Choose "
            "another posterior."
        )
    family_of_x = FAMILIES[family](event, levels, components, scale, shift, unit)
    start = torch.zeros(family_of_x.shape) if x is None else family_of_x.marginal(x[:START_ROWS])

    part = given in REGIONS
    count = TOLD if part else classes or attributes
    if part:
        seen = (2 * event[0], *event[1:])
        told: nn.Module = nn.Sequential(nets.KnownPart(shift, unit), nets.conv_down(seen, (TOLD,), channels=(16, 32)))
    else:
        told = nets.OneHot(classes) if classes else nets.Attributes(*standardisation(context, (attributes,)))
    if network == "conv":
        # what is known of an image joins it pixel by pixel; numbers join it as images of one value
        beside = nets.KnownPart(shift, unit) if part else nets.planes(told, count)
        inputs = nets.channels_beside(event, 2 * event[0] if part else count)
        down = nets.conv_down(inputs, family_of_z.shape, channels=channels, blocks=blocks, activation=activation)
        outputs = family_of_x.shape
        up = nets.conv_up((latent + count,), outputs, channels=channels, blocks=blocks, activation=activation)
        before = nn.Sequential(nets.Standardize(shift, unit), nn.Dropout(dropout))
    else:
        size = math.prod(event)
        beside = told
        down = nets.mlp((size + count,), family_of_z.shape, hidden=hidden, activation=activation)
        up = nets.mlp((latent + count,), family_of_x.shape, hidden=hidden[::-1], activation=activation)
        # a row of many elements is long, and a first layer that sees long rows takes larger steps than those behind it
        long = unit * max(1.0, math.sqrt(size) / ROW_LENGTH)
        flat = nets.Folded(nn.Flatten(), event)
        before = nn.Sequential(nets.Standardize(shift, long), flat, nn.Dropout(dropout))
    encoder = Conditional(nets.Beside(before, beside, down, 3 if network == "conv" else 1), family_of_z)
    prior = nn.Sequential(told, nets.mlp((count,), prior_of_z.shape, hidden=(WIDTH,), activation=activation, gain=0.0))
    net = nets.Beside(nn.Identity(), told, nn.Sequential(up, nets.Bias(start)), 1)
    if not part:
        return VAE(encoder, Conditional(prior, prior_of_z), Conditional(net, family_of_x))
    mask = hidden_pixels(given, (event[1], event[2])).flatten()
    rest = (event[0], int(mask.sum()))
    family_of_rest = FAMILIES[family](
        rest, levels, components, scale, shift.flatten(1)[:, mask], unit.flatten(1).clone()
    )
    return VAE(encoder, Conditional(prior, prior_of_z), Completion(net, family_of_rest, mask))


class Completion(nn.Module):
    """(z, image with NaN where it is hidden) -> what is hidden of it.

    Args:
        net: (z, image) -> the parameters of every pixel.
        family: Of the hidden pixels, (c, p).
        mask: Which pixels are hidden, counted row by row.
    """

    def __init__(self, net: nn.Module, family: families.Family, mask: Bool[Tensor, " hw"]) -> None:
        super().__init__()
        self.net = net
        self.family = family
        self.register_buffer("places", mask.nonzero().flatten(), persistent=False)
        self.places: Tensor

    def forward(self, z: Float[Tensor, "*kb latent"], known: Float[Tensor, "b c h w"]) -> Distribution:
        """p(rest|z, known)."""
        params = self.net(z, known).flatten(-2).index_select(-1, self.places)
        return Completed(self.family(params), known, self.places)
