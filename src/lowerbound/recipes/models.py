"""Recipes of models: networks, families and priors put together, with starting values from the data."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .. import families, nets, priors
from ..columns import Column
from ..distributions import Planar, Radial, Sylvester
from ..distributions.sphere import sphere
from ..models import VAE, Conditional
from ..nets import ROW_LENGTH, START_ROWS, standardisation

# Those that are not for vectors alone.
SPATIAL_POSTERIORS, SPATIAL_PRIORS = ("normal", "laplace", "point"), ("normal", "mixture", "vamp", "exemplar")
# Of directions: those on the sphere.
SPHERE_PRIORS = ("sphere", "vamp")
# Of the last layer of a table's decoder.
FIRST_GAIN = 0.1
# Transforms of a flow for a prior.
PRIOR_STEPS = 3

FamilyName = Literal[
    "bernoulli",
    "continuous_bernoulli",
    "categorical",
    "logistic",
    "logistic_mixture",
    "normal",
    "laplace",
    "student_t",
]
PosteriorName = Literal[
    "normal",
    "laplace",
    "low_rank",
    "full",
    "householder",
    "planar",
    "radial",
    "sylvester",
    "iaf",
    "sphere",
    "point",
]
PriorName = Literal["normal", "mixture", "vamp", "exemplar", "flow", "gmm", "scaled_flow", "maf", "realnvp", "sphere"]
ActivationName = Literal["silu", "relu", "tanh", "gelu"]
# Of networks of vectors, whose layers can be gated too.
LayerName = Literal["silu", "relu", "tanh", "gelu", "gated"]
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
    _check({"event": event, "hidden": hidden}, counts, levels, dropout, scale)
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
    _check({"event": event, "channels": channels}, counts, levels, dropout, scale)
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
    _check({"hidden": hidden}, counts, 2, dropout, "shared")
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
    rows, numbers = pick(prior, x, numbers, prior_components, event)
    p = prior_of(prior, family_of_z, body, read(rows), numbers, prior_steps)
    encoder = Conditional(nn.Sequential(read, body.net), family_of_z, untold=prior == "exemplar")
    return VAE(encoder, p, Conditional(nn.Sequential(up, nets.Bias(start)), family_of_x, untold=prior == "exemplar"))


def _missing(whole: families.Columns, x: Tensor | None, shift: Tensor, unit: Tensor, own: bool) -> families.Family:
    """The family of rows that are missing by their values, at first as often whatever these are."""
    read = nets.TableInput(whole.columns, shift, unit)
    holes = torch.zeros(1, len(whole.columns)) if x is None else x[:START_ROWS].isnan().float()
    rate = (holes.sum(0) + 0.5) / (len(holes) + 1)
    return families.Missing(whole, families.Missingness(read, read.owner, rate, own))


def assemble(
    x: Tensor | None,
    numbers: Tensor | None,
    shift: Tensor,
    unit: Tensor,
    down: nn.Module,
    up: nn.Module,
    family_of_z: families.Family,
    family_of_x: families.Family,
    dropout: float,
    prior: str,
    prior_components: int,
    prior_steps: int = PRIOR_STEPS,
) -> VAE:
    """The VAE of two networks and two families, with starting values from the data."""
    start = torch.zeros(family_of_x.shape) if x is None else family_of_x.marginal(x[:START_ROWS])
    # which row it looks at is for an exemplar prior alone to know
    untold = prior == "exemplar"
    encoder = Conditional(nn.Sequential(nets.Standardize(shift, unit), nn.Dropout(dropout), down), family_of_z, untold)
    decoder = Conditional(nn.Sequential(up, nets.Bias(start)), family_of_x, untold)
    rows, numbers = pick(prior, x, numbers, prior_components, family_of_x.event)
    return VAE(encoder, prior_of(prior, family_of_z, encoder, rows, numbers, prior_steps), decoder)


class Parts(NamedTuple):
    """What a prior can be made of.

    Attributes:
        event: Shape of one z.
        encoder: The model's own, which a VampPrior shares.
        rows: Pseudo-inputs or exemplars, as many as a mixture has components.
        numbers: Of these rows.
        steps: Transforms of a flow.
    """

    event: Sequence[int]
    encoder: nn.Module
    rows: Tensor
    numbers: Tensor
    steps: int


def prior_of(
    name: str,
    family_of_z: families.Family,
    encoder: nn.Module,
    rows: Tensor,
    numbers: Tensor,
    steps: int = PRIOR_STEPS,
) -> nn.Module:
    """A prior for the posteriors of a family.

    Args:
        name: One of `PRIORS`.
        family_of_z: Of the posterior.
        encoder: What a VampPrior shares.
        rows: Its pseudo-inputs, as many as a mixture has components.
        numbers: Of these rows.
        steps: Transforms of a flow.

    Raises:
        ValueError: One of the two is on a sphere and the other is not; more exemplars than rows; a posterior without a
            mean in closed form, for exemplars to be around.
    """
    on_sphere = family_of_z.support is sphere
    if name not in SPHERE_PRIORS if on_sphere else name == "sphere":
        raise ValueError(
            f"prior={name!r} is no prior of this posterior: one lies on a sphere and the other does not, so that there "
            f"is no density of one with respect to the other. With posterior='sphere' the prior is one of "
            f"{', '.join(SPHERE_PRIORS)}; with any other it is not 'sphere'."
        )
    if name == "exemplar" and len(numbers.unique()) < len(numbers):
        raise ValueError(
            f"prior_components={len(numbers):,} exemplars cannot be had of {len(numbers.unique()):,} training rows (of "
            f"no more than {START_ROWS:,}, if there are more). Give a smaller number."
        )
    if name == "exemplar" and not _has_mean(family_of_z):
        raise ValueError(
            "prior='exemplar' is made of normals around the means of posteriors, and those of this one have no closed "
            "form. Choose posterior='normal', or prior='vamp'."
        )
    return PRIORS[name](Parts(family_of_z.event, encoder, rows, numbers, steps))


def _has_mean(family: families.Family) -> bool:
    """Whether its distributions know their means."""
    try:
        return not family(torch.zeros(family.shape)).mean.isnan().any()
    except NotImplementedError:
        return False


def _check(
    lists: Mapping[str, Sequence[int]], counts: Mapping[str, int], levels: int, dropout: float, scale: str | float
) -> None:
    """Refuse numbers that no network can have.

    Raises:
        ValueError: Some are out of range; all that are, are listed.
    """
    wrong = [f"{name}={list(v)} must hold numbers of 1 or more" for name, v in lists.items() if min(v, default=1) < 1]
    wrong += [f"{name}={count} must be 1 or more" for name, count in counts.items() if count < 1]
    wrong += [] if levels >= 2 else [f"levels={levels} must be 2 or more"]
    wrong += [] if 0 <= dropout < 1 else [f"dropout={dropout} must be in [0, 1)"]
    if scale not in ("element", "shared") and (isinstance(scale, str) or not 0 < scale < math.inf):
        wrong.append(f"scale={scale!r} must be 'element', 'shared' or a positive number in the data's units")
    if wrong:
        raise ValueError("this model cannot be built: " + "; ".join(wrong) + ".")


def spread(x: Tensor, count: int) -> Tensor:
    """Rows spread evenly over the data, as often as needed."""
    return x[torch.linspace(0, len(x) - 1, count).long()]


def pick(
    prior: str, x: Tensor | None, numbers: Tensor | None, count: int, event: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Rows spread evenly over the data, as often as needed, and their numbers; rows of zeros where there are none.

    Raises:
        ValueError: The numbers of exemplars are not given.
    """
    if x is None:
        return torch.zeros(count, *event), torch.arange(count)
    if prior == "exemplar" and numbers is None:
        raise ValueError(
            "prior='exemplar' leaves each row out of its own prior, and must know which rows it is made of: train on "
            "data.conditional('row'), and give this recipe its fixed('train') and then *context('train')."
        )
    return spread(x, count), spread(torch.arange(len(x)) if numbers is None else numbers, count)


FAMILIES: dict[str, Callable[..., families.Family]] = {
    "bernoulli": lambda event, levels, components, scale, shift, unit: families.Bernoulli(event),
    "continuous_bernoulli": lambda event, levels, components, scale, shift, unit: families.ContinuousBernoulli(event),
    "categorical": lambda event, levels, components, scale, shift, unit: families.Categorical(event, levels),
    "logistic": lambda event, levels, components, scale, shift, unit: families.DiscretizedLogisticMixture(
        event, levels, 1
    ),
    "logistic_mixture": lambda event, levels, components, scale, shift, unit: families.DiscretizedLogisticMixture(
        event, levels, components
    ),
    "normal": lambda event, levels, components, scale, shift, unit: families.Normal(event, scale, shift, unit),
    "laplace": lambda event, levels, components, scale, shift, unit: families.Laplace(event, scale, shift, unit),
    "student_t": lambda event, levels, components, scale, shift, unit: families.StudentT(event, scale, shift, unit),
}

POSTERIORS: dict[str, Callable[[Sequence[int]], families.Family]] = {
    "normal": families.Normal,
    "laplace": families.Laplace,
    "low_rank": families.LowRankNormal,
    "full": families.FullNormal,
    "householder": families.Householder,
    "planar": lambda event: families.AmortizedFlow(event, Planar(), 8),
    "radial": lambda event: families.AmortizedFlow(event, Radial(), 8),
    "sylvester": lambda event: families.AmortizedFlow(event, Sylvester(), 4),
    "iaf": families.InverseAutoregressive,
    "sphere": families.VonMisesFisher,
    "point": families.Point,
}


def _zuko(kind: str, event: Sequence[int], steps: int) -> nn.Module:
    import zuko

    return priors.Flow(getattr(zuko.flows, kind)(math.prod(event), transforms=steps, hidden_features=(64, 64)))


PRIORS: dict[str, Callable[[Parts], nn.Module]] = {
    "normal": lambda p: priors.StandardNormal(p.event),
    "mixture": lambda p: priors.Mixture(p.event, len(p.rows)),
    "vamp": lambda p: priors.Vamp(p.encoder, p.rows),
    "exemplar": lambda p: priors.Exemplars(p.encoder, p.rows, p.numbers, p.event),
    "flow": lambda p: _zuko("NSF", p.event, p.steps),
    "gmm": lambda p: priors.FullMixture(p.event, len(p.rows)),
    "scaled_flow": lambda p: priors.ScaledFlow(p.event, p.steps),
    "maf": lambda p: _zuko("MAF", p.event, p.steps),
    "realnvp": lambda p: priors.RealNVP(p.event, p.steps),
    "sphere": lambda p: priors.UniformSphere(p.event),
}
