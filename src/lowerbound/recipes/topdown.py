"""The recipe of a hierarchical model: a convolutional ladder, whose latent variables are drawn from the top down.

    p(z_1 .. z_L) = prod_i p(z_i | z_<i),    q(z_1 .. z_L | x) = prod_i q(z_i | z_<i, x).

A latent variable has a height and a width, and there are several at each of several resolutions: the first decide what
is in the picture, the last what it looks like close by. Prior and posterior share one path down, a state h that every
rung reads and adds to (Sønderby et al. 2016, https://arxiv.org/abs/1602.02282), and the posterior sees besides what the
encoder has found in x at the same resolution. Child 2021, https://arxiv.org/abs/2011.10650

Axes: ``*lead`` such as (k, b), then channels, height, width.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from .. import families, nets
from ..distributions import DiagonalNormal
from ..models import Conditional, Level, TopDownVAE
from ..nets import START_ROWS, standardisation
from ..nets.ladder import Features, Head, doubling, even, resolutions, scaled_block
from .parts import FAMILIES, ActivationName, FamilyName, check_numbers

# Of priors at the start: near the standard normal, rather than at random beside what posteriors say.
QUIET = 0.1


def topdown(
    x: Tensor | None = None,
    *,
    event: Sequence[int] = (1, 28, 28),
    latent: int = 8,
    channels: Sequence[int] = (32, 64, 64),
    rungs: Sequence[int] = (2,),
    full: bool = False,
    blocks: int = 1,
    activation: ActivationName = "silu",
    dropout: float = 0.0,
    family: FamilyName = "logistic_mixture",
    levels: int = 256,
    components: int = 5,
    scale: str | float = "shared",
    residual_posterior: bool = False,
) -> TopDownVAE:
    """A convolutional ladder: spatial latent variables at several resolutions, for images of any size.

    Where many latent variables are noise at first the decoder learns to do without them, and does not unlearn it: let
    the weight of the KL term rise, over a third of the steps or more (objective.warmup).
    Sønderby et al. 2016, https://arxiv.org/abs/1602.02282; Child 2021, https://arxiv.org/abs/2011.10650

    Args:
        x: Training data to take starting values from.
        event: (channels, height, width) of one x.
        latent: Channels of each latent variable; its height and width are those of its resolution.
        channels: Width of each resolution, finest first; each halves the image.
        rungs: Latent variables at each resolution, finest first; a single number is that of all.
        full: Whether the finest resolution is that of the images themselves, rather than half of it.
        blocks: Residual blocks of each rung, on the way up and on the way down.
        activation: Between layers.
        dropout: Part of the encoder's input that is hidden in training.
        family: Of p(x|z).
        levels: x takes the integers 0..levels-1 (categorical, logistic, logistic_mixture).
        components: Of each element's mixture (logistic_mixture).
        scale: Of normal, laplace and student_t: "element" (predicted), "shared" (one learned), or a number.
        residual_posterior: Whether a posterior is said relative to its prior: how far it is moved, in units of the
            prior's scale, and how much it is stretched. Vahdat & Kautz 2020, https://arxiv.org/abs/2007.03898

    Raises:
        ValueError: x is not images; a number that no network can have; more halvings than the images have in them.
    """
    if len(event) != 3:
        raise ValueError(
            f"recipe 'topdown' is for images, (channels, height, width); one x here has shape {tuple(event)}. "
            "Use model.name=mlp."
        )
    lists = {"event": event, "channels": channels, "rungs": rungs}
    check_numbers(lists, {"latent": latent, "components": components}, levels, dropout, scale)
    if blocks < 0:
        raise ValueError(f"blocks={blocks} must be 0 or more.")
    most = max(1, math.ceil(math.log2(max(event[1:])))) + full
    if not 1 <= len(channels) <= most:
        raise ValueError(
            f"channels={list(channels)} would give images of {event[1]}x{event[2]} {len(channels)} resolutions: "
            f"give 1 to {most} widths, one for each."
        )
    if len(rungs) not in (1, len(channels)):
        raise ValueError(
            f"rungs={list(rungs)} says how many latent variables each of {len(rungs)} resolutions has, and "
            f"channels={list(channels)} makes {len(channels)}: give one number for each, or one for all."
        )
    counts = tuple(rungs) if len(rungs) == len(channels) else tuple(rungs) * len(channels)
    shift, unit = standardisation(x, event)
    family_of_x = FAMILIES[family](event, levels, components, scale, shift, unit)
    start = torch.zeros(family_of_x.shape) if x is None else family_of_x.marginal(x[:START_ROWS])
    features = Features(event, channels=channels, rungs=counts, blocks=blocks, activation=activation, full=full)
    encoder = nn.Sequential(nets.Standardize(shift, unit), nn.Dropout(dropout), features)

    sizes = resolutions((event[1], event[2]), len(channels), full)
    shapes = [(width, *size) for width, size in zip(channels, sizes, strict=True)]
    each = [shape for shape, count in zip(shapes, counts, strict=True) for _ in range(count)][::-1]
    ladder = [
        rung(above, shape, latent, residual_posterior, blocks, activation, len(each))
        for above, shape in pairwise((each[0], *each))
    ]
    finest = shapes[0]
    out = family_of_x.shape[0]
    last = (
        nn.Conv2d(finest[0], out, 3, padding=1, bias=False)
        if full
        else nets.Up(finest[0], out, (event[1], event[2]), bias=False)
    )
    net = nn.Sequential(nets.norm(finest[0]), nets.ACTIVATIONS[activation](), last)
    decoder = Conditional(nn.Sequential(nets.Folded(net, finest), nets.Bias(start)), family_of_x)
    model = TopDownVAE(encoder, ladder, decoder, each[0])
    nn.init.normal_(model.root)  # places differ from the start, and a state without spread could not be normalised
    return model


def rung(
    above: Sequence[int],
    shape: Sequence[int],
    latent: int,
    residual_posterior: bool,
    blocks: int,
    activation: str,
    depth: int,
) -> Level:
    """One latent variable, with what it adds to the state.

    Args:
        above: (channels, height, width) of the state as it comes.
        shape: Of the state as it leaves.
        latent: Channels of z.
        residual_posterior: Whether the posterior is said relative to the prior.
        blocks: Residual blocks after z.
        activation: Between layers.
        depth: How many rungs the ladder has.
    """
    width, *size = shape
    family = families.Normal((latent, *size))
    to = family.shape[0]
    way = nn.Identity() if tuple(above) == tuple(shape) else doubling(above[0], width, (size[0], size[1]))
    share = depth**-0.5  # so that all together move the state, and cost at the start, as much as one alone would
    ahead = Head(shape, to + width, activation=activation, gain=QUIET * share)
    prior = Prior(nets.Folded(way, above), ahead, family)
    net = Head(shape, to, inputs=2, activation=activation, gain=share)
    posterior = RelativePosterior(net) if residual_posterior else Posterior(net, family)
    into = even(nn.Conv2d(latent, width, 1), share)
    stack = [scaled_block(width, activation, max(1, depth * blocks)) for _ in range(blocks)]
    return Level(prior, posterior, Merge(nets.Folded(into, family.event), nets.Folded(nn.Sequential(*stack), shape)))


class Prior(nn.Module):
    """h -> (p(z|h), h): it brings the state to its resolution, and adds to it what it knows without z.

    Args:
        way: The state, at the resolution of this rung.
        net: The state -> the parameters of p, then what is added to the state.
        family: Of p(z|h).
    """

    def __init__(self, way: nn.Module, net: nn.Module, family: families.Family) -> None:
        super().__init__()
        self.way = way
        self.net = net
        self.family = family

    def forward(self, h: Float[Tensor, "*lead c h w"]) -> tuple[Distribution, Float[Tensor, "*lead c2 h2 w2"]]:
        """p(z|h), and the state."""
        h = self.way(h)
        said = self.net(h)
        to = self.family.shape[0]
        return self.family(said[..., :to, :, :]), h + said[..., to:, :, :]


class Posterior(nn.Module):
    """(h, a, p) -> q(z|h, x), from the state and the features of x.

    Args:
        net: (h, a) -> the parameters of q.
        family: Of q.
    """

    def __init__(self, net: nn.Module, family: families.Family) -> None:
        super().__init__()
        self.net = net
        self.family = family

    def forward(self, h: Float[Tensor, "*lead c h w"], a: Float[Tensor, "*b c h w"], p: Distribution) -> Distribution:
        """q(z|h, x)."""
        return self.family(self.net(h, a))


class RelativePosterior(nn.Module):
    """(h, a, p) -> the prior, moved and stretched: N(loc + scale * d, (scale * s)^2), with loc and scale the prior's.

    Where the network says nothing the posterior is the prior, and when the prior moves it moves along. Vahdat & Kautz
    2020, https://arxiv.org/abs/2007.03898

    Args:
        net: (h, a) -> d, and s before it is made positive.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, h: Float[Tensor, "*lead c h w"], a: Float[Tensor, "*b c h w"], p: DiagonalNormal) -> Distribution:
        """q(z|h, x)."""
        d, raw = families.precise(self.net(h, a)).chunk(2, -3)
        return DiagonalNormal(p.loc + p.scale * d, p.scale * families.positive(raw), 3)


class Merge(nn.Module):
    """(h, z) -> h: z is added to the state, and residual blocks make something of it.

    Args:
        into: z -> what is added.
        blocks: The state -> the state.
    """

    def __init__(self, into: nn.Module, blocks: nn.Module) -> None:
        super().__init__()
        self.into = into
        self.blocks = blocks

    def forward(
        self, h: Float[Tensor, "*lead c h w"], z: Float[Tensor, "*lead latent h w"]
    ) -> Float[Tensor, "*lead c h w"]:
        """The state."""
        return self.blocks(h + self.into(z))
