"""Recipes of models: networks, families and priors put together, with starting values from the data."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from .. import families, nets
from ..columns import Column
from ..models import VAE, Conditional
from ..nets import ROW_LENGTH, START_ROWS, standardisation
from .parts import (
    FAMILIES,
    POSTERIORS,
    PRIOR_STEPS,
    SPATIAL_POSTERIORS,
    SPATIAL_PRIORS,
    ActivationName,
    FamilyName,
    LayerName,
    Parts,
    PosteriorName,
    PriorName,
    assemble,
    check_numbers,
    pick,
    prior_of,
)

# Of the last layer of a table's decoder.
FIRST_GAIN = 0.1

RealName = Literal["student_t", "normal", "mixture"]
PositiveName = Literal["log_normal", "mixture"]
TableScaleName = Literal["element", "column"]
MissingName = Literal["random", "self", "linear"]


def mlp(
    x: Tensor | None = None,
    numbers: Tensor | None = None,
    *,
    event: Sequence[int] = (1, 28, 28),
    latent: int = 16,
    hidden: Sequence[int] = (256, 256, 256),
    activation: LayerName = "silu",
    residual: bool = True,
    dropout: float = 0.0,
    family: FamilyName = "bernoulli",
    levels: int = 256,
    components: int = 5,
    scale: str | float = "shared",
    posterior: PosteriorName = "normal",
    prior: PriorName = "normal",
    prior_components: int = 100,
    prior_steps: int = PRIOR_STEPS,
) -> VAE:
    """A VAE of two multi-layer perceptrons, for anything: images, vectors.

    Args:
        x: Training data to take starting values from.
        numbers: Of these rows, as `Data.conditional("row")` tells them (exemplar).
        event: Shape of one x.
        latent: Dimensions of z.
        hidden: Widths of the encoder's hidden layers; the decoder's are the same in reverse.
        activation: Between layers; "gated" lets another linear map decide how much of each passes.
        residual: Whether layers of equal width are normalised residual blocks; false is the textbook's plain stack.
        dropout: Part of the encoder's input that is hidden in training, which keeps it from learning the data by heart.
        family: Of p(x|z).
        levels: x takes the integers 0..levels-1 (categorical, logistic, logistic_mixture).
        components: Of each element's mixture (logistic_mixture).
        scale: Of normal, laplace and student_t: "element" (predicted), "shared" (one learned), or a number.
        posterior: "normal" (diagonal), "laplace", "low_rank", "full" (covariance), "householder" (a diagonal normal,
            reflected), "planar", "radial", "sylvester", "iaf" (flows), "sphere" (directions, von Mises-Fisher),
            "point" (none: a plain autoencoder).
        prior: "normal" (standard), "mixture" (of normals), "vamp", "exemplar" (around the codes of training
            rows), "gmm" (normals with full covariances), "flow" (neural spline), "scaled_flow" (the same in units of
            its own), "maf" (autoregressive), "realnvp" (couplings and invertible matrices); "sphere" (uniform), for the
            posterior of that name.
        prior_components: Of a mixture, gmm or VampPrior, or how many exemplars.
        prior_steps: Transforms of a flow, scaled_flow or maf, or blocks of a realnvp.

    Raises:
        ValueError: A number that no network can have; all that are wrong are listed.
    """
    counts = {"latent": latent, "components": components, "prior_components": prior_components}
    counts |= {"prior_steps": prior_steps}
    check_numbers({"event": event, "hidden": hidden}, counts, levels, dropout, scale)
    family_of_z = POSTERIORS[posterior]((latent,))
    shift, unit = standardisation(x, event)
    family_of_x = FAMILIES[family](event, levels, components, scale, shift, unit)
    down = nets.mlp(event, family_of_z.shape, hidden=hidden, activation=activation, residual=residual)
    up = nets.mlp((latent,), family_of_x.shape, hidden=hidden[::-1], activation=activation, residual=residual)
    # a row of many elements is long, and a first layer that sees long rows takes larger steps than the layers behind it
    unit = unit * max(1.0, math.sqrt(math.prod(event)) / ROW_LENGTH)
    of_prior = (prior, prior_components, prior_steps)
    return assemble(x, numbers, shift, unit, down, up, family_of_z, family_of_x, dropout, *of_prior)


def conv(
    x: Tensor | None = None,
    numbers: Tensor | None = None,
    *,
    event: Sequence[int] = (1, 28, 28),
    latent: int = 32,
    spatial: bool = False,
    channels: Sequence[int] = (32, 64, 64),
    blocks: int = 1,
    activation: ActivationName = "silu",
    dropout: float = 0.0,
    family: FamilyName = "logistic_mixture",
    levels: int = 256,
    components: int = 5,
    scale: str | float = "shared",
    posterior: PosteriorName = "normal",
    prior: PriorName = "normal",
    prior_components: int = 100,
    prior_steps: int = PRIOR_STEPS,
) -> VAE:
    """A VAE of two residual convolutional stacks, for images of any size and number of channels.

    Args:
        x: Training data to take starting values from.
        numbers: Of these rows, as `Data.conditional("row")` tells them (exemplar).
        event: (channels, height, width) of one x.
        latent: Dimensions of z, or its channels if `spatial`.
        spatial: Whether z keeps the smallest level's height and width, rather than being one vector.
        channels: Width of each level; each halves the image.
        blocks: Residual blocks on each level.
        activation: Between layers.
        dropout: Part of the encoder's input that is hidden in training.
        family: Of p(x|z).
        levels: x takes the integers 0..levels-1 (categorical, logistic, logistic_mixture).
        components: Of each element's mixture (logistic_mixture).
        scale: Of normal, laplace and student_t: "element" (predicted), "shared" (one learned), or a number.
        posterior: "normal" (diagonal), "laplace", "point" (a plain autoencoder); for vectors only: "low_rank", "full"
            (covariance), "householder", flows: "planar", "radial", "sylvester", "iaf", and "sphere" (directions, von
            Mises-Fisher).
        prior: "normal" (standard), "mixture" (of normals), "vamp", "exemplar" (around the codes of training
            rows); for vectors only: "gmm" (normals with full covariances), "flow" (neural spline), "scaled_flow" (the
            same in units of its own), "maf" (autoregressive), "realnvp" (couplings and invertible matrices), and
            "sphere" (uniform), for the posterior of that name.
        prior_components: Of a mixture, gmm or VampPrior, or how many exemplars.
        prior_steps: Transforms of a flow, scaled_flow or maf, or blocks of a realnvp.

    Raises:
        ValueError: x is not images; a number that no network can have; a spatial z with a posterior or prior that is
            for vectors only.
    """
    if len(event) != 3:
        raise ValueError(
            f"recipe 'conv' is for images, (channels, height, width); one x here has shape {tuple(event)}. "
            "Use model.name=mlp."
        )
    counts = {"latent": latent, "components": components, "prior_components": prior_components}
    counts |= {"prior_steps": prior_steps}
    check_numbers({"event": event, "channels": channels}, counts, levels, dropout, scale)
    if blocks < 0:
        raise ValueError(f"blocks={blocks} must be 0 or more.")
    halvings = max(1, math.ceil(math.log2(max(event[1:]))))
    if not 1 <= len(channels) <= halvings:
        raise ValueError(
            f"channels={list(channels)} would halve images of {event[1]}x{event[2]} {len(channels)} times: "
            f"give 1 to {halvings} widths, one for each halving."
        )
    if spatial and (posterior not in SPATIAL_POSTERIORS or prior not in SPATIAL_PRIORS):
        raise ValueError(
            f"posterior={posterior!r} with prior={prior!r} cannot be had with spatial=true: "
            f"of a z with places, the posterior is one of {', '.join(SPATIAL_POSTERIORS)} and the prior one of "
            f"{', '.join(SPATIAL_PRIORS)}. Set spatial=false, or choose among these."
        )
    bottom = nets.pyramid((event[1], event[2]), len(channels))[-1]
    z = (latent, *bottom) if spatial else (latent,)
    family_of_z = POSTERIORS[posterior](z)
    shift, unit = standardisation(x, event)
    family_of_x = FAMILIES[family](event, levels, components, scale, shift, unit)
    down = nets.conv_down(event, family_of_z.shape, channels=channels, blocks=blocks, activation=activation)
    up = nets.conv_up(z, family_of_x.shape, channels=channels, blocks=blocks, activation=activation)
    of_prior = (prior, prior_components, prior_steps)
    return assemble(x, numbers, shift, unit, down, up, family_of_z, family_of_x, dropout, *of_prior)


def table(
    x: Tensor | None = None,
    numbers: Tensor | None = None,
    *,
    columns: Sequence[dict],
    aside: Sequence[dict] = (),
    latent: int = 10,
    hidden: Sequence[int] = (128, 128, 128),
    residual: bool = True,
    activation: LayerName = "silu",
    dropout: float = 0.0,
    real: RealName = "student_t",
    positive: PositiveName = "log_normal",
    components: int = 5,
    scale: TableScaleName = "element",
    linear: bool = False,
    missing: MissingName = "random",
    posterior: PosteriorName = "normal",
    prior: PriorName = "normal",
    prior_components: int = 100,
    prior_steps: int = PRIOR_STEPS,
) -> VAE:
    """A VAE of two multi-layer perceptrons for the rows of a table: columns of mixed kinds, with holes.

    What is missing (NaN) is summed out of the likelihood, and 0 in the encoder's input, which says what is known.
    Trained by an importance-weighted bound it is MIWAE: Mattei & Frellsen 2019, https://arxiv.org/abs/1812.02633

    Args:
        x: Training data to take starting values from.
        numbers: Of these rows, as `Data.conditional("row")` tells them (exemplar).
        columns: Of the table: the `Column.table()` of each.
        aside: Columns of the table that are not modelled, so that the model can write whole tables.
        latent: Dimensions of z.
        hidden: Widths of the encoder's hidden layers; the decoder's are the same in reverse.
        residual: Whether layers of equal width are normalised residual blocks; false is the textbook's plain stack.
        activation: Between layers; "gated" lets another linear map decide how much of each passes.
        dropout: Part of the numbers that the encoder reads that is hidden from it in training.
        real: Density of real columns: "student_t", "normal", or "mixture" (of logistics, rounded to the column's
            decimals if it has any: probabilities then, not densities).
        positive: Density of positive columns: "log_normal", or "mixture" (of log-logistics, rounded to the column's
            decimals if it has any).
        components: Of each mixture.
        scale: Of real and positive columns: "element" (the network predicts it), or "column" (one learned for each).
        linear: Whether the decoder is a linear map, as in factor analysis, rather than a network of hidden layers.
        missing: What holes say. "random": nothing, given what is known, and the bound is of log p(x_known). "self" and
            "linear": something about the values that are missing, and the bound is of log p(x_known, s), where s says
            which are. An entry is then missing by its own value ("self") or by those of its whole row ("linear"): that
            is assumed, and no data can test it. Ipsen et al. 2021 (not-MIWAE), https://arxiv.org/abs/2006.12871
        posterior: "normal" (diagonal), "laplace", "low_rank", "full" (covariance), "householder" (a diagonal normal,
            reflected), "planar", "radial", "sylvester", "iaf" (flows), "sphere" (directions, von Mises-Fisher),
            "point" (none: a plain autoencoder).
        prior: "normal" (standard), "mixture" (of normals), "vamp", "exemplar" (around the codes of training
            rows), "gmm" (normals with full covariances), "flow" (neural spline), "scaled_flow" (the same in units of
            its own), "maf" (autoregressive), "realnvp" (couplings and invertible matrices); "sphere" (uniform), for the
            posterior of that name.
        prior_components: Of a mixture, gmm or VampPrior, or how many exemplars.
        prior_steps: Transforms of a flow, scaled_flow or maf, or blocks of a realnvp.

    Raises:
        ValueError: Columns that cannot be modelled, or a number that no network can have.
    """
    counts = {"latent": latent, "components": components, "prior_components": prior_components}
    counts |= {"prior_steps": prior_steps}
    check_numbers({"hidden": hidden}, counts, 2, dropout, "shared")
    of = [Column.of(column) for column in columns]
    event = (len(of),)
    shift, unit = standardisation(None if x is None else nets.TableNumbers(of)(x[:START_ROWS]), event)
    whole = families.Columns(of, shift, unit, real=real, positive=positive, components=components, scale=scale)
    family_of_x = whole if missing == "random" else _missing(whole, x, shift, unit, own=missing == "self")
    family_of_z = POSTERIORS[posterior]((latent,))
    read = nets.TableInput(of, shift, unit)
    down = nets.mlp((read.width,), family_of_z.shape, hidden=hidden, activation=activation, residual=residual)
    # at the start columns are nearly independent: some have a likelihood that falls fast where z is wrong
    widths, blocks = ((), False) if linear else (hidden[::-1], residual)
    up = nets.mlp((latent,), family_of_x.shape, hidden=widths, activation=activation, residual=blocks, gain=FIRST_GAIN)
    start = torch.zeros(family_of_x.shape) if x is None else family_of_x.marginal(x[:START_ROWS])
    # a pseudo-input is what the encoder reads, not a row: levels and holes have no gradient
    body = Conditional(nn.Sequential(nn.Dropout(dropout), down), family_of_z)
    rows, numbers = pick(x, numbers, prior_components, event)
    p = prior_of(prior, Parts(family_of_z, body, read(rows), numbers, prior_steps))
    encoder = Conditional(nn.Sequential(read, body.net), family_of_z, untold=prior == "exemplar")
    return VAE(encoder, p, Conditional(nn.Sequential(up, nets.Bias(start)), family_of_x, untold=prior == "exemplar"))


def _missing(whole: families.Columns, x: Tensor | None, shift: Tensor, unit: Tensor, own: bool) -> families.Family:
    """The family of rows that are missing by their values, at first as often whatever these are."""
    read = nets.TableInput(whole.columns, shift, unit)
    holes = torch.zeros(1, len(whole.columns)) if x is None else x[:START_ROWS].isnan().float()
    rate = (holes.sum(0) + 0.5) / (len(holes) + 1)
    return families.Missing(whole, families.Missingness(read, read.owner, rate, own))
