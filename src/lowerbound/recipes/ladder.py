"""The recipe of a hierarchical model of vectors: latent variables drawn from the top down, by multi-layer perceptrons.

    p(z_1 .. z_L) = prod_i p(z_i | z_<i),    q(z_1 .. z_L | x) = prod_i q(z_i | z_<i, x).

What the latent variables above say is a sum, the state h; what x says to a rung is added to it. A prior on the top that
is learned, a VampPrior, closes more of the bound than another rung does (Tomczak & Welling 2018, section 4,
https://arxiv.org/abs/1705.07120).

Axes: ``*lead`` such as (k, b), then features.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from .. import families, nets, priors
from ..models import Conditional, Level, TopDownVAE
from ..nets import ROW_LENGTH, START_ROWS, standardisation
from .parts import FAMILIES, FamilyName, LayerName, check_numbers, spread

TopPriorName = Literal["normal", "vamp"]


def ladder(
    x: Tensor | None = None,
    *,
    event: Sequence[int] = (1, 28, 28),
    latent: int = 16,
    rungs: int = 2,
    hidden: Sequence[int] = (256, 256),
    activation: LayerName = "silu",
    residual: bool = False,
    dropout: float = 0.0,
    family: FamilyName = "bernoulli",
    levels: int = 256,
    components: int = 5,
    scale: str | float = "shared",
    prior: TopPriorName = "normal",
    prior_components: int = 500,
) -> TopDownVAE:
    """A ladder of multi-layer perceptrons: several latent variables, each given those above it, for images and vectors.

    The upper ones are easily left unused: let the weight of the KL term rise (objective.warmup).
    Tomczak & Welling 2018 (with two rungs: their HVAE), https://arxiv.org/abs/1705.07120

    Args:
        x: Training data to take starting values from.
        event: Shape of one x.
        latent: Dimensions of each latent variable.
        rungs: How many there are.
        hidden: Widths of the hidden layers from x to a latent variable; the decoder's are the same in reverse.
        activation: Between layers; "gated" lets another linear map decide how much of each passes.
        residual: Whether layers of equal width are normalised residual blocks; false is the textbook's plain stack.
        dropout: Part of the encoder's input that is hidden in training.
        family: Of p(x|z).
        levels: x takes the integers 0..levels-1 (categorical, logistic, logistic_mixture).
        components: Of each element's mixture (logistic_mixture).
        scale: Of normal, laplace and student_t: "element" (predicted), "shared" (one learned), or a number.
        prior: Of the latent variable at the top: "normal" (standard), or "vamp".
        prior_components: Pseudo-inputs of a VampPrior.

    Raises:
        ValueError: A number that no network can have; all that are wrong are listed.
    """
    counts = {"latent": latent, "rungs": rungs, "components": components, "prior_components": prior_components}
    check_numbers({"event": event, "hidden": hidden}, counts, levels, dropout, scale)
    if not hidden:
        raise ValueError("hidden=[] leaves no state between the rungs: give at least one width, such as [256].")
    shift, unit = standardisation(x, event)
    family_of_x = FAMILIES[family](event, levels, components, scale, shift, unit)
    start = torch.zeros(family_of_x.shape) if x is None else family_of_x.marginal(x[:START_ROWS])
    pseudo = torch.zeros(prior_components, *event) if x is None else spread(x, prior_components)
    unit = unit * max(1.0, math.sqrt(math.prod(event)) / ROW_LENGTH)
    read = nn.Sequential(nets.Standardize(shift, unit), nn.Dropout(dropout))
    state, of_z = (hidden[-1],), families.Normal((latent,))

    def net(inputs: Sequence[int], outputs: Sequence[int], widths: Sequence[int]) -> nn.Module:
        return nets.mlp(inputs, outputs, hidden=widths, activation=activation, residual=residual)

    features = [net(event, state, hidden[:-1]) for _ in range(rungs)]
    heads = [net(state, of_z.shape, hidden[-1:]) for _ in range(rungs)]
    # the posterior of the top, given x alone: by the very modules that the ladder has
    top = Conditional(nn.Sequential(read, features[0], heads[0]), of_z)
    of_top = priors.Vamp(top, pseudo) if prior == "vamp" else priors.StandardNormal((latent,))
    levels_of = [
        Level(
            First(of_top) if i == 0 else Next(net(state, of_z.shape, hidden[-1:]), of_z),
            Top(heads[0], of_z) if i == 0 else Below(heads[i], of_z),
            Merge(net((latent,), state, hidden[-1:])),
        )
        for i in range(rungs)
    ]
    up = net(state, family_of_x.shape, hidden[-2::-1])
    decoder = Conditional(nn.Sequential(up, nets.Bias(start)), family_of_x)
    return TopDownVAE(nn.Sequential(read, Features(features)), levels_of, decoder, state)


class Features(nn.Module):
    """x -> a_1 .. a_L, what it says to each rung, top first.

    Args:
        each: x -> a_i.
    """

    def __init__(self, each: Sequence[nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleList(each)

    def forward(self, x: Float[Tensor, "*x"]) -> list[Tensor]:
        """The features."""
        return [net(x) for net in self.each]


class First(nn.Module):
    """h -> (p(z_1), h): the prior of the top, which nothing stands above.

    Args:
        prior: () -> p(z_1).
    """

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, h: Float[Tensor, "*lead w"]) -> tuple[Distribution, Float[Tensor, "*lead w"]]:
        """p(z_1), and the state as it was."""
        return self.prior(), h


class Next(nn.Module):
    """h -> (p(z|h), h).

    Args:
        net: The state -> the parameters of p.
        family: Of p.
    """

    def __init__(self, net: nn.Module, family: families.Family) -> None:
        super().__init__()
        self.p = Conditional(net, family)

    def forward(self, h: Float[Tensor, "*lead w"]) -> tuple[Distribution, Float[Tensor, "*lead w"]]:
        """p(z|h), and the state as it was."""
        return self.p(h), h


class Top(nn.Module):
    """(h, a, p) -> q(z_1|x), once for each x, however many samples are drawn.

    Args:
        net: a -> the parameters of q.
        family: Of q.
    """

    def __init__(self, net: nn.Module, family: families.Family) -> None:
        super().__init__()
        self.q = Conditional(net, family)

    def forward(self, h: Float[Tensor, "*lead w"], a: Float[Tensor, "*b w"], p: Distribution) -> Distribution:
        """q(z_1|x), over the leading axes of the state."""
        return self.q(a).expand(h.shape[:-1])


class Below(nn.Module):
    """(h, a, p) -> q(z|h, x).

    Args:
        net: h + a -> the parameters of q.
        family: Of q.
    """

    def __init__(self, net: nn.Module, family: families.Family) -> None:
        super().__init__()
        self.q = Conditional(net, family)

    def forward(self, h: Float[Tensor, "*lead w"], a: Float[Tensor, "*b w"], p: Distribution) -> Distribution:
        """q(z|h, x)."""
        return self.q(h + a)


class Merge(nn.Module):
    """(h, z) -> h + f(z).

    Args:
        f: z -> what is added to the state.
    """

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, h: Float[Tensor, "*lead w"], z: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead w"]:
        """The state."""
        return h + self.f(z)
