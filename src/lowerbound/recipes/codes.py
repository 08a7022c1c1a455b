"""The recipe of models whose latent variables are codes: VQ-VAE and its kin, each with a prior over its codes.

    log p(x) >= log p(x|z) + log P(c),    z = the vectors that the codes c of x stand for.

An encoder says what is at each place of a small map, a quantiser puts the nearest of finitely many vectors in its
place, and a decoder reads those (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937). The prior over codes is
learned at the same time, and so the bound is a true one at every step: what the codes cost is what it takes to name
them. Two maps, of which the coarser one is drawn first, are a ladder of two rungs (Razavi et al. 2019,
https://arxiv.org/abs/1906.00446).

Axes: ``*lead`` such as (k, b), then channels, height, width.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import families, nets
from ..models import VAE, Conditional, Level, Model, TopDownVAE
from ..nets import START_ROWS, standardisation
from ..nets.codes import CausalCodes, Constant, Summed
from ..nets.ladder import Head, doubling, even, scaled_block
from .parts import FAMILIES, ActivationName, FamilyName, check_numbers, spread
from .topdown import Merge, Posterior, Prior

QuantiserName = Literal["vq", "residual", "fsq", "gumbel"]
CodebookName = Literal["ema", "gradient"]
CodePriorName = Literal["independent", "autoregressive"]
# Vectors from which a codebook starts, for each of its own: more tell k-means nothing new.
SEEN = 32
LEAST_SEEN = 256
# Numbers by which the prior's network reads a code.
READ = 16


def codes(
    x: Tensor | None = None,
    *,
    event: Sequence[int] = (1, 28, 28),
    quantiser: QuantiserName = "vq",
    codes: int = 8,
    latent: int = 16,
    depth: int = 2,
    grid: Sequence[int] = (4, 4),
    codebook: CodebookName = "ema",
    commitment: float = 1.0,
    temperature: float = 0.5,
    hierarchy: bool = False,
    prior: CodePriorName = "autoregressive",
    prior_width: int = 64,
    prior_layers: int = 2,
    prior_reach: int = 7,
    channels: Sequence[int] = (32, 64),
    blocks: int = 1,
    activation: ActivationName = "silu",
    dropout: float = 0.0,
    family: FamilyName = "logistic_mixture",
    levels: int = 256,
    components: int = 5,
    scale: str | float = "shared",
) -> Model:
    """Discrete latent variables: a small map of codes, or two, with a prior over codes; for images of any size.

    All but "gumbel" have one code for each x, and the encoder hears nothing of what it costs: more codes explain x
    better, and cost more. Those of "gumbel" are drawn, and paid for; let the weight of the KL term rise with them, over
    a third of the steps (objective.warmup), for at first they say little.

    Args:
        x: Training data to take starting values from, those of a codebook among them.
        event: (channels, height, width) of one x.
        quantiser: "vq" (the nearest vector of a codebook), "residual" (several in stages, each nearest to what the
            others leave: Lee et al. 2022, https://arxiv.org/abs/2203.01941), "fsq" (each channel rounded: Mentzer et
            al. 2024, https://arxiv.org/abs/2309.15505), "gumbel" (drawn from a categorical, with a relaxed gradient:
            Jang et al. 2017, https://arxiv.org/abs/1611.01144).
        codes: How many there are to choose from at each place, and in each stage (all but fsq). Few make good bounds,
            many good reconstructions.
        latent: Channels of a code's vector (vq, residual).
        depth: Stages (residual).
        grid: Values of each channel; their product is the number of codes (fsq).
        codebook: How its vectors learn: "ema" (they follow the mean of what chose them) or "gradient" (vq, residual).
        commitment: How strongly the encoder is drawn to the vectors that it chose, in nats for a unit of squared
            distance (vq, residual). It changes gradients alone: no number that is reported contains it. From 0.1 to 1
            it makes little difference to one map, and two fall silent at 1; from 10 on codes fall out of use.
        temperature: Of the relaxed gradient (gumbel).
        hierarchy: Whether there is a second map, of half the height and width, which is drawn first.
        prior: Over codes: "independent" (of each place, learned) or "autoregressive" (each given those before it).
        prior_width: Width of the autoregressive prior's network.
        prior_layers: Its residual blocks.
        prior_reach: How many places it sees above and beside each.
        channels: Width of each level; each halves the image, and the last has the size of the (finer) map of codes.
        blocks: Residual blocks on each level.
        activation: Between layers.
        dropout: Part of the encoder's input that is hidden in training.
        family: Of p(x|z).
        levels: x takes the integers 0..levels-1 (categorical, logistic, logistic_mixture).
        components: Of each element's mixture (logistic_mixture).
        scale: Of normal, laplace and student_t: "element" (predicted), "shared" (one learned), or a number.

    Raises:
        ValueError: x is not images; a number that no network can have; more halvings than the images have in them; a
            codebook larger than the data.
    """
    if len(event) != 3:
        raise ValueError(
            f"recipe 'codes' is for images, (channels, height, width); one x here has shape {tuple(event)}. "
            "Use model.name=mlp."
        )
    counts = {"latent": latent, "depth": depth, "components": components}
    counts |= {"prior_width": prior_width, "prior_reach": prior_reach}
    check_numbers({"event": event, "channels": channels}, counts, levels, dropout, scale)
    low = {"blocks": blocks, "prior_layers": prior_layers, "commitment": commitment}
    wrong = [f"{name}={n} must be 0 or more, and finite" for name, n in low.items() if not 0 <= n < math.inf]
    wrong += [] if codes >= 2 else [f"codes={codes} must be 2 or more"]
    wrong += [] if min(grid, default=1) > 1 else [f"grid={list(grid)} must hold numbers of 2 or more"]
    wrong += [] if 0 < temperature < math.inf else [f"temperature={temperature} must be positive"]
    if wrong:
        raise ValueError("this model cannot be built: " + "; ".join(wrong) + ".")
    most = max(1, math.ceil(math.log2(max(event[1:])))) - hierarchy
    if not 1 <= len(channels) <= most:
        more = ", and hierarchy=true once more" if hierarchy else ""
        raise ValueError(
            f"channels={list(channels)} would halve images of {event[1]}x{event[2]} {len(channels)} times{more}: "
            + (f"give 1 to {most} widths, one for each halving." if most else "set hierarchy=false.")
        )
    *_, fine, coarse = nets.pyramid((event[1], event[2]), len(channels) + 1)
    if x is not None:
        size, option = (math.prod(grid), f"grid={list(grid)}") if quantiser == "fsq" else (codes, f"codes={codes}")
        _check_size(size, min(len(x), START_ROWS), coarse if hierarchy else fine, option)

    def book_of(places: tuple[int, int]) -> families.Codes:
        match quantiser:
            case "fsq":
                return families.FiniteScalar((len(grid), *places), grid)
            case "gumbel":
                return families.OneHot((codes, *places), temperature)
        stages = depth if quantiser == "residual" else 1
        return families.VectorQuantized((latent, *places), codes, stages, commitment, codebook == "gradient")

    def prior_of(book: families.Codes) -> families.Family:
        of_each = families.OneHot(book.event, temperature) if quantiser == "gumbel" else families.Coded(book)
        return of_each if prior == "independent" else in_order(book, of_each, network)

    network = {"width": prior_width, "layers": prior_layers, "reach": prior_reach, "activation": activation}
    body = {"channels": channels, "blocks": blocks, "activation": activation}
    shift, unit = standardisation(x, event)
    family_of_x = FAMILIES[family](event, levels, components, scale, shift, unit)
    start = torch.zeros(family_of_x.shape) if x is None else family_of_x.marginal(x[:START_ROWS])
    before = nn.Sequential(nets.Standardize(shift, unit), nn.Dropout(dropout))
    books = [book_of(places) for places in ((coarse, fine) if hierarchy else (fine,))]
    priors = [prior_of(book) for book in books]
    make = two_maps if hierarchy else one_map
    model = make(books, priors, before, event, body, family_of_x, start)
    if x is not None:
        rows = spread(
            x, min(len(x), START_ROWS, max(LEAST_SEEN, SEEN * books[0].size // math.prod(books[0].event[1:])))
        )
        with torch.no_grad():
            model.eval()
            (begin_two if hierarchy else begin_one)(model, rows)
            model.train()
    return model


def in_order(book: families.Codes, of_each: families.Family, network: Mapping[str, Any]) -> families.Family:
    """The family of a map of codes that are drawn one place after the other, given features of every place.

    Args:
        book: Of the codes.
        of_each: The family of one place.
        network: Options of `nets.CausalNet`; there are as many features as it is wide.
    """
    event, width = (book.stages, *book.event[1:]), network["width"]
    read = nets.Embedded(book.stages, book.size, READ)
    net = nets.CausalNet(event, book.size, read, features=width, **network)
    return families.Autoregressive(of_each, CausalCodes(net, book), width)


def one_map(
    books: Sequence[families.Codes],
    priors: Sequence[families.Family],
    before: nn.Module,
    event: Sequence[int],
    body: Mapping[str, Any],
    family_of_x: families.Family,
    start: Tensor,
) -> VAE:
    """A VAE with a map of codes.

    Args:
        books: The family of its posterior.
        priors: The family of its prior.
        before: What is done to x first.
        event: Shape of one x.
        body: Options of `nets.conv_down` and `nets.conv_up`.
        family_of_x: Of the likelihood.
        start: What the decoder says at first.
    """
    (book,), (prior,) = books, priors
    encoder = Conditional(nn.Sequential(before, nets.conv_down(event, book.shape, **body)), book)
    up = nets.conv_up((book.channels // book.stages, *book.event[1:]), family_of_x.shape, **body)
    decoder = Conditional(nn.Sequential(Summed(book.stages), up, nets.Bias(start)), family_of_x)
    known = Constant(prior.shape)
    if isinstance(prior, families.Autoregressive):
        nn.init.normal_(known.params)  # features without spread could not be normalised
    return VAE(encoder, Conditional(known, prior), decoder)


def two_maps(
    books: Sequence[families.Codes],
    priors: Sequence[families.Family],
    before: nn.Module,
    event: Sequence[int],
    body: Mapping[str, Any],
    family_of_x: families.Family,
    start: Tensor,
) -> TopDownVAE:
    """A ladder of two maps of codes, the coarser one first; its arguments are those of `one_map`."""
    width = body["channels"][-1]
    top, state = ((width, *book.event[1:]) for book in books)
    encoder = nn.Sequential(before, TwoFeatures(event, top, state, body))
    shapes = ((top, top), (top, state))
    rungs = [rung(*shape, book, prior, body) for shape, book, prior in zip(shapes, books, priors, strict=True)]
    up = nets.conv_up(state, family_of_x.shape, **body)
    model = TopDownVAE(encoder, rungs, Conditional(nn.Sequential(up, nets.Bias(start)), family_of_x), top)
    nn.init.normal_(model.root)  # places differ from the start
    return model


def rung(
    above: Sequence[int], shape: Sequence[int], book: families.Codes, prior: families.Family, body: Mapping[str, Any]
) -> Level:
    """A map of codes, with what it adds to the state.

    Args:
        above: (channels, height, width) of the state as it comes.
        shape: Of the state as it leaves.
        book: The family of the posterior.
        prior: The family of the prior.
        body: Options of convolutional networks.
    """
    width, *size = shape
    blocks, activation = body["blocks"], body["activation"]
    way = nn.Identity() if tuple(above) == tuple(shape) else doubling(above[0], width, (size[0], size[1]))
    ahead = Head(shape, prior.shape[0] + width, activation=activation)
    said = Head(shape, book.shape[0], inputs=2, activation=activation)
    vectors = book.channels // book.stages
    into = nn.Sequential(Summed(book.stages), even(nn.Conv2d(vectors, width, 1)))
    stack = nn.Sequential(*(scaled_block(width, activation, max(1, 2 * blocks)) for _ in range(blocks)))
    return Level(
        Prior(nets.Folded(way, above), ahead, prior),
        Posterior(said, book),
        Merge(nets.Folded(into, book.event), nets.Folded(stack, shape)),
    )


class TwoFeatures(nn.Module):
    """x -> what is known of it at both resolutions, the coarser one first.

    Args:
        inputs: (channels, height, width) of x.
        coarse: Of the first features.
        fine: Of the second.
        body: Options of `nets.conv_down`, from x to the second.
    """

    def __init__(
        self, inputs: Sequence[int], coarse: Sequence[int], fine: Sequence[int], body: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.fine = nets.conv_down(inputs, fine, **body)
        self.coarse = nets.conv_down(fine, coarse, **(dict(body) | {"channels": coarse[:1]}))

    def forward(self, x: Float[Tensor, "*b c h w"]) -> list[Tensor]:
        """The features."""
        a = self.fine(x)
        return [self.coarse(a), a]


def begin_one(model: Any, x: Float[Tensor, "n c h w"]) -> None:
    """Take starting values of a VAE's codes from what its encoder says of data."""
    model.encoder.family.begin(model.encoder.net(x))


def begin_two(model: Any, x: Float[Tensor, "n c h w"]) -> None:
    """Take starting values of a ladder's codes from what its encoder says of data, one rung after the other."""
    h = model.root.expand(len(x), *model.root.shape)
    for level, a in zip(model.levels, model.encoder(x), strict=True):
        p, h = level.prior(h)
        level.posterior.family.begin(level.posterior.net(h, a))
        h = level.merge(h, level.posterior(h, a, p).rsample())


def _check_size(size: int, rows: int, places: tuple[int, int], option: str) -> None:
    """Refuse a codebook larger than the data.

    Raises:
        ValueError: There is not a place for each code.
    """
    h, w = places
    if size > rows * h * w:
        raise ValueError(
            f"{option} makes {size:,} codes, and {rows:,} rows of {h}x{w} places have {rows * h * w:,} places to use "
            f"them: most would never be. Set it lower, or give more data."
        )
