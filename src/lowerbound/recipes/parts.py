"""What recipes of models have in common: names of families, posteriors and priors, and how these are put together.

A prior that is made of the data, a mixture or a VampPrior or exemplars, starts from rows spread evenly over them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .. import families, nets, priors
from ..distributions import Planar, Radial, Sylvester
from ..distributions.sphere import sphere
from ..models import VAE, Conditional
from ..nets import START_ROWS

# Those that are not for vectors alone.
SPATIAL_POSTERIORS, SPATIAL_PRIORS = ("normal", "laplace", "point"), ("normal", "mixture", "vamp", "exemplar")
# Of directions: those on the sphere.
SPHERE_PRIORS = ("sphere", "vamp")
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
    parts = Parts(family_of_z, encoder, *pick(x, numbers, prior_components, family_of_x.event), prior_steps)
    return VAE(encoder, prior_of(prior, parts), decoder)


class Parts(NamedTuple):
    """What a prior can be made of.

    Attributes:
        family: Of the posterior.
        encoder: The model's own, which a VampPrior and exemplars share.
        rows: Pseudo-inputs or exemplars, as many as a mixture has components.
        numbers: Of these rows, where they have any.
        steps: Transforms of a flow.
    """

    family: families.Family
    encoder: nn.Module
    rows: Tensor
    numbers: Tensor | None
    steps: int = PRIOR_STEPS


def prior_of(name: str, parts: Parts) -> nn.Module:
    """A prior for the posteriors of a family.

    Args:
        name: One of `PRIORS`.
        parts: What it is made of.

    Raises:
        ValueError: Prior or posterior is on a sphere and the other is not; exemplars that cannot be had.
    """
    on_sphere = parts.family.support is sphere
    if name not in SPHERE_PRIORS if on_sphere else name == "sphere":
        raise ValueError(
            f"prior={name!r} is no prior of this posterior: one lies on a sphere and the other does not, so that there "
            f"is no density of one with respect to the other. With posterior='sphere' the prior is one of "
            f"{', '.join(SPHERE_PRIORS)}; with any other it is not 'sphere'."
        )
    return PRIORS[name](parts)


def pick(x: Tensor | None, numbers: Tensor | None, count: int, event: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Rows spread evenly over the data, as often as needed, and their numbers; without data, zeros to be filled."""
    if x is None:
        return torch.zeros(count, *event), torch.arange(count)
    return spread(x, count), None if numbers is None else spread(numbers, count)


def spread(x: Tensor, count: int) -> Tensor:
    """Rows spread evenly over the data, as often as needed."""
    return x[torch.linspace(0, len(x) - 1, count).long()]


def check_numbers(
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


def _exemplars(parts: Parts) -> nn.Module:
    """Normals around the codes of training rows, which must be told apart.

    Raises:
        ValueError: The rows have no numbers, or are fewer than wanted; a posterior without a mean in closed form.
    """
    if parts.numbers is None:
        raise ValueError(
            "prior='exemplar' leaves each row out of its own prior, and must know which rows it is made of: train on "
            "data.conditional('row'), and give this recipe its fixed('train') and then *context('train')."
        )
    different = len(parts.numbers.unique())
    if different < len(parts.numbers):
        raise ValueError(
            f"prior_components={len(parts.numbers):,} exemplars cannot be had of {different:,} training rows (of no "
            f"more than {START_ROWS:,}, if there are more). Give a smaller number."
        )
    try:
        centred = not parts.family(torch.zeros(parts.family.shape)).mean.isnan().any()
    except NotImplementedError:
        centred = False
    if not centred:
        raise ValueError(
            "prior='exemplar' is made of normals around the means of posteriors, and those of this one have no closed "
            "form. Choose posterior='normal', or prior='vamp'."
        )
    return priors.Exemplars(parts.encoder, parts.rows, parts.numbers, parts.family.event)


def _flow(kind: str, parts: Parts) -> nn.Module:
    import zuko

    size = math.prod(parts.family.event)
    return priors.Flow(getattr(zuko.flows, kind)(size, transforms=parts.steps, hidden_features=(64, 64)))


PRIORS: dict[str, Callable[[Parts], nn.Module]] = {
    "normal": lambda parts: priors.StandardNormal(parts.family.event),
    "mixture": lambda parts: priors.Mixture(parts.family.event, len(parts.rows)),
    "vamp": lambda parts: priors.Vamp(parts.encoder, parts.rows),
    "exemplar": _exemplars,
    "flow": lambda parts: _flow("NSF", parts),
    "gmm": lambda parts: priors.FullMixture(parts.family.event, len(parts.rows)),
    "scaled_flow": lambda parts: priors.ScaledFlow(parts.family.event, parts.steps),
    "maf": lambda parts: _flow("MAF", parts),
    "realnvp": lambda parts: priors.RealNVP(parts.family.event, parts.steps),
    "sphere": lambda parts: priors.UniformSphere(parts.family.event),
}
