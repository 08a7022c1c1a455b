"""What properties are tested over: lists of components, each with a small instance and data, and an exact model.

A new component is one entry here. It is then checked for normalisation, sampling against log_prob, gradients, shapes,
checkpoints, exact resume, and against every partner that makes sense.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import zuko
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from lowerbound import families, nets, objectives, priors, recipes
from lowerbound.columns import Column
from lowerbound.data import Data
from lowerbound.distributions import DiagonalNormal, Planar, Radial, Sylvester
from lowerbound.models import VAE, Conditional, Level, Model, TopDownVAE
from lowerbound.recipes.codes import codes
from lowerbound.recipes.pixel import pixel
from lowerbound.recipes.sequence import sequence

Event = Sequence[int]


def bits(n: int, event: Event) -> Tensor:
    return torch.randint(0, 2, (n, *event)).float()


def fives(n: int, event: Event) -> Tensor:
    return torch.randint(0, 5, (n, *event)).float()


def reals(n: int, event: Event) -> Tensor:
    return torch.randn(n, *event)


def units(n: int, event: Event) -> Tensor:
    return torch.rand(n, *event)


@dataclass(frozen=True)
class FamilyCase:
    """A family, data that it can explain, and what values they take."""

    make: Callable[[Event], families.Family]
    data: Callable[[int, Event], Tensor]
    levels: int = 0


FAMILIES = {
    "bernoulli": FamilyCase(families.Bernoulli, bits, 2),
    "categorical": FamilyCase(lambda event: families.Categorical(event, 5), fives, 5),
    "logistic": FamilyCase(lambda event: families.DiscretizedLogisticMixture(event, 5, 1), fives, 5),
    "logistic_mixture": FamilyCase(lambda event: families.DiscretizedLogisticMixture(event, 5, 3), fives, 5),
    "logistic_256": FamilyCase(lambda event: families.DiscretizedLogisticMixture(event, 256, 2), fives, 256),
    "continuous_bernoulli": FamilyCase(families.ContinuousBernoulli, units),
    "normal": FamilyCase(families.Normal, reals),
    "normal_shared": FamilyCase(lambda event: families.Normal(event, "shared"), reals),
    "normal_fixed": FamilyCase(lambda event: families.Normal(event, 0.3), reals),
    "normal_units": FamilyCase(
        lambda event: families.Normal(event, shift=torch.tensor(-2.0), unit=torch.tensor(7.0)), reals
    ),
    "laplace": FamilyCase(families.Laplace, reals),
    "laplace_shared": FamilyCase(lambda event: families.Laplace(event, "shared"), reals),
    "student_t": FamilyCase(families.StudentT, reals),
    "student_t_shared": FamilyCase(lambda event: families.StudentT(event, "shared"), reals),
}
DISCRETE = [name for name, case in FAMILIES.items() if case.levels]
CONTINUOUS = [name for name, case in FAMILIES.items() if not case.levels]

POSTERIORS: dict[str, Callable[[Event], families.Family]] = {
    "normal": families.Normal,
    "full": families.FullNormal,
    "low_rank": lambda event: families.LowRankNormal(event, rank=2),
    "laplace": families.Laplace,
    "householder": lambda event: families.Householder(event, reflections=2),
    "planar": lambda event: families.AmortizedFlow(event, Planar(), 2),
    "radial": lambda event: families.AmortizedFlow(event, Radial(), 2),
    "sylvester": lambda event: families.AmortizedFlow(event, Sylvester(2, 2), 2),
    "iaf": lambda event: families.InverseAutoregressive(event, transforms=2, hidden=8, context=3),
    "point": families.Point,
}
BOUNDED = [name for name in POSTERIORS if name != "point"]
WITHOUT_MEAN = ("planar", "radial", "sylvester", "iaf")


def encoder_of(posterior: str, x: Event, z: Event) -> Conditional:
    family = POSTERIORS[posterior](z)
    return Conditional(nets.mlp(x, family.shape, hidden=(8,)), family)


PRIORS: dict[str, Callable[[Event, nn.Module, Tensor], nn.Module]] = {
    "normal": lambda z, encoder, x: priors.StandardNormal(z),
    "mixture": lambda z, encoder, x: priors.Mixture(z, 3),
    "vamp": lambda z, encoder, x: priors.Vamp(encoder, x),
    "exemplar": lambda z, encoder, x: priors.Exemplars(encoder, x, torch.arange(len(x)), z),
    "flow": lambda z, encoder, x: zuko.flows.NSF(math.prod(z), transforms=2, hidden_features=(8,)),
    "gmm": lambda z, encoder, x: priors.FullMixture(z, 3),
    "scaled_flow": lambda z, encoder, x: priors.ScaledFlow(z, 2, (8,)),
    "maf": lambda z, encoder, x: priors.Flow(zuko.flows.MAF(math.prod(z), transforms=2, hidden_features=(8,))),
    "realnvp": lambda z, encoder, x: priors.RealNVP(z, 3, (8,)),
}


class Top(nn.Module):
    """h -> (p(z|h), h)."""

    def __init__(self, net: nn.Module, family: families.Family) -> None:
        super().__init__()
        self.p = Conditional(net, family)

    def forward(self, h: Tensor) -> tuple[Distribution, Tensor]:
        return self.p(h), h


class Beside(nn.Module):
    """(h, a, p) -> q(z|h, x), from the state and the features."""

    def __init__(self, net: nn.Module, family: families.Family) -> None:
        super().__init__()
        self.q = Conditional(net, family)

    def forward(self, h: Tensor, a: Tensor, p: Distribution) -> Distribution:
        return self.q(torch.cat((h, a.expand(*h.shape[:-1], -1)), -1))


class Shifted(nn.Module):
    """(h, a, p) -> the prior, moved: Vahdat & Kautz 2020, https://arxiv.org/abs/2007.03898"""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, h: Tensor, a: Tensor, p: DiagonalNormal) -> Distribution:
        loc, raw = self.net(torch.cat((h, a.expand(*h.shape[:-1], -1)), -1)).chunk(2, -1)
        return DiagonalNormal(p.loc + p.scale * loc, p.scale * families.positive(raw), 1)


class Merge(nn.Module):
    """(h, z) -> h."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        return h + self.net(torch.cat((h, z), -1))


class Features(nn.Module):
    """x -> a_1 .. a_L, top first."""

    def __init__(self, x: Event, sizes: Sequence[int]) -> None:
        super().__init__()
        self.nets = nn.ModuleList([nets.mlp(x, (size,), hidden=(8,)) for size in sizes])

    def forward(self, x: Tensor) -> list[Tensor]:
        return [net(x) for net in self.nets]


def ladder(x: Event = (6,), latents: Sequence[int] = (2, 3, 2), state: int = 5) -> TopDownVAE:
    """Three levels: the posteriors of the first and last are moved priors, the second's is its own."""

    def level(i: int, size: int) -> Level:
        family = families.Normal((size,))
        posterior = (
            Shifted(nets.mlp((state + 4,), (2 * size,), hidden=(8,)))
            if i % 2 == 0
            else Beside(nets.mlp((state + 4,), family.shape, hidden=(8,)), family)
        )
        prior = Top(nets.mlp((state,), family.shape, hidden=(8,)), family)
        return Level(prior, posterior, Merge(nets.mlp((state + size,), (state,), hidden=(8,))))

    likelihood = families.Normal(x, "shared")
    decoder = Conditional(nets.mlp((state,), likelihood.shape, hidden=(8,)), likelihood)
    levels = [level(i, size) for i, size in enumerate(latents)]
    model = TopDownVAE(Features(x, [4] * len(latents)), levels, decoder, (state,))
    nn.init.normal_(model.root)
    return model


@dataclass(frozen=True)
class ModelCase:
    """A model and rows for it, in their own dtype."""

    make: Callable[[Tensor], Model]
    rows: Callable[[int], Tensor]
    noise: str = "none"
    levels: int | None = None
    sites: int = 1
    holdable: bool = True  # whether its posterior has a density, for `stop_gradient`
    drawn: bool = True  # whether its posterior draws, rather than being a point
    columns: tuple[Column, ...] = ()
    given: str = ""

    def data(self, n: int = 60) -> Data:
        train = n * 2 // 3
        split = dict(zip(("train", "valid", "test"), torch.arange(n).split([train, n // 6, n - train - n // 6])))
        own = {"noise": self.noise, "levels": self.levels, "columns": self.columns, "given": self.given}
        return Data("small", self.rows(n), split, **own)


COLUMNS = (
    Column("width", "real"),
    Column("price", "positive"),
    Column("visits", "count"),
    Column("grade", "ordinal", ("low", "middle", "high")),
    Column("town", "category", ("a", "b", "c", "d")),
    Column("member", "binary", ("no", "yes")),
    Column("weekday", "cyclic", period=7.0),
    Column("height", "real", decimals=1),
)
NUMBERS = tuple(column for column in COLUMNS if column.kind in ("real", "positive"))


def mixed(n: int) -> Tensor:
    """Rows of `COLUMNS` that one hidden factor moves, a fifth of them holes, and no row without a number."""
    z = torch.randn(n)
    columns = (
        100 + 20 * z + torch.randn(n),
        (z + 0.3 * torch.randn(n)).exp(),
        torch.poisson(2 * z.exp().clamp(max=10)),
        (z + 1).round().clamp(0, 2),
        torch.randint(0, 4, (n,)).float(),
        (z + torch.randn(n) > 0).float(),
        (3 + z + 0.1 * torch.randn(n)).remainder(7),
        (z + torch.randn(n)).round(decimals=1),
    )
    x = torch.stack(columns, 1)
    holes = torch.rand(x.shape) < 0.2
    holes[:, 0] = False
    return x.masked_fill(holes, math.nan)


def grey(n: int, event: Event) -> Tensor:
    """Integers 0..4 that two hidden factors explain."""
    size = math.prod(event)
    way = torch.linspace(0, 3, size)
    wave = torch.sin(torch.randn(n, 1) + way) + torch.randn(n, 1) * torch.cos(way)
    return (2 + wave).round().clamp(0, 4).to(torch.uint8).reshape(n, *event)


def plane(n: int, event: Event) -> Tensor:
    """Reals near a plane, in units of their own."""
    size = math.prod(event)
    way = torch.linspace(0, 3, size)
    wave = torch.randn(n, 1) * torch.sin(way) + torch.randn(n, 1) * torch.cos(way)
    return (5 + 3 * wave + 0.5 * torch.randn(n, size)).reshape(n, *event)


SMALL = dict(latent=2, hidden=(8, 8))
CODES = dict(event=(1, 5, 6), codes=6, channels=(8,), prior_width=8, prior_layers=1, family="categorical", levels=5)
MODELS = {
    "bernoulli": ModelCase(
        lambda x: recipes.mlp(x, event=(6,), family="bernoulli", dropout=0.3, **SMALL),
        lambda n: grey(n, (6,)),
        noise="binarize",
        levels=5,
    ),
    "full_vamp": ModelCase(
        lambda x: recipes.mlp(
            x,
            event=(6,),
            family="logistic_mixture",
            levels=5,
            components=2,
            posterior="full",
            prior="vamp",
            prior_components=3,
            **SMALL,
        ),
        lambda n: grey(n, (6,)),
        levels=5,
    ),
    "iaf_flow": ModelCase(
        lambda x: recipes.mlp(x, event=(6,), family="student_t", posterior="iaf", prior="flow", **SMALL),
        lambda n: plane(n, (6,)),
    ),
    "planar_realnvp": ModelCase(
        lambda x: recipes.mlp(
            x, event=(6,), family="laplace", posterior="planar", prior="realnvp", prior_steps=2, **SMALL
        ),
        lambda n: plane(n, (6,)),
    ),
    "sphere": ModelCase(
        lambda x: recipes.mlp(x, event=(6,), family="normal", posterior="sphere", prior="sphere", **SMALL),
        lambda n: plane(n, (6,)),
    ),
    "mixture": ModelCase(
        lambda x: recipes.mlp(
            x, event=(6,), family="laplace", prior="mixture", prior_components=3, residual=False, **SMALL
        ),
        lambda n: grey(n, (6,)),
        noise="dequantize",
        levels=5,
    ),
    "exemplar": ModelCase(
        lambda x: recipes.mlp(
            x, torch.arange(len(x)), event=(6,), family="normal", prior="exemplar", prior_components=10, **SMALL
        ),
        lambda n: plane(n, (6,)),
        given="row",
    ),
    "conv": ModelCase(
        lambda x: recipes.conv(x, event=(1, 5, 6), latent=2, channels=(8,), family="categorical", levels=5),
        lambda n: grey(n, (1, 5, 6)),
        levels=5,
    ),
    "spatial": ModelCase(
        lambda x: recipes.conv(
            x,
            event=(2, 4, 3),
            latent=1,
            spatial=True,
            channels=(8,),
            family="normal",
            scale="element",
            prior="vamp",
            prior_components=3,
        ),
        lambda n: plane(n, (2, 4, 3)),
    ),
    "pixel": ModelCase(
        lambda x: pixel(x, event=(1, 5, 6), latent=2, channels=(8,), reach=1, width=8, family="categorical", levels=5),
        lambda n: grey(n, (1, 5, 6)),
        levels=5,
    ),
    "table": ModelCase(
        lambda x: recipes.table(x, columns=[column.table() for column in COLUMNS], **SMALL), mixed, columns=COLUMNS
    ),
    "table_self": ModelCase(
        lambda x: recipes.table(
            x, columns=[column.table() for column in NUMBERS], real="normal", missing="self", **SMALL
        ),
        lambda n: mixed(n)[:, [COLUMNS.index(column) for column in NUMBERS]],
        columns=NUMBERS,
    ),
    "sequence": ModelCase(
        lambda x: sequence(x, event=(2, 5), latent=2, width=8, family="categorical", levels=5, word_dropout=0.3),
        lambda n: grey(n, (2, 5)),
        levels=5,
    ),
    "ladder": ModelCase(lambda x: ladder(), lambda n: plane(n, (6,)), sites=3),
    "rungs": ModelCase(
        lambda x: recipes.ladder(
            x,
            event=(6,),
            latent=2,
            hidden=(8, 8),
            activation="gated",
            family="logistic_mixture",
            levels=5,
            components=2,
            prior="vamp",
            prior_components=3,
        ),
        lambda n: grey(n, (6,)),
        levels=5,
        sites=2,
    ),
    "topdown": ModelCase(
        lambda x: recipes.topdown(
            x, event=(1, 5, 6), latent=2, channels=(8, 8), rungs=(1, 2), family="categorical", levels=5
        ),
        lambda n: grey(n, (1, 5, 6)),
        levels=5,
        sites=3,
    ),
    "residual": ModelCase(
        lambda x: codes(x, quantiser="residual", depth=2, latent=3, **CODES),
        lambda n: grey(n, (1, 5, 6)),
        levels=5,
        holdable=False,
        drawn=False,
    ),
    "fsq": ModelCase(
        lambda x: codes(x, quantiser="fsq", grid=(3, 2), prior="independent", **CODES),
        lambda n: grey(n, (1, 5, 6)),
        levels=5,
        holdable=False,
        drawn=False,
    ),
    "gumbel": ModelCase(lambda x: codes(x, quantiser="gumbel", **CODES), lambda n: grey(n, (1, 5, 6)), levels=5),
    "two_maps": ModelCase(
        lambda x: codes(x, quantiser="vq", codebook="gradient", latent=3, hierarchy=True, **CODES),
        lambda n: grey(n, (1, 5, 6)),
        levels=5,
        sites=2,
        holdable=False,
        drawn=False,
    ),
}

OBJECTIVES: dict[str, Callable[[], objectives.Objective]] = {
    "elbo": objectives.Elbo,
    "elbo_k": lambda: objectives.Elbo(objectives.Weight(0.5, warmup=10), k=3),
    "free_bits": lambda: objectives.FreeBits(nats=1e-3),
    "free_bits_dimension": lambda: objectives.FreeBits(nats=1e-4, by="dimension"),
    "free_bits_group": lambda: objectives.FreeBits(nats=1e-4, by="group", groups=2),
    "capacity": lambda: objectives.Capacity(objectives.Weight(0.5, warmup=10), beta=2.0),
    "balanced": lambda: objectives.Balanced(levels=True, beta=objectives.Weight(1.0, start=0.5, warmup=10)),
    "geco": lambda: objectives.Geco(3.0),
    "iwae": lambda: objectives.Iwae(3),
    "renyi": lambda: objectives.Renyi(0.5, k=3),
    "stl": lambda: objectives.StickTheLanding(2),
    "dreg": lambda: objectives.Dreg(3),
    "tc": lambda: objectives.TotalCorrelation(40, beta=2.0),
    "tc_weighted": lambda: objectives.TotalCorrelation(40, beta=2.0, estimator="weighted", k=2),
    "factor": lambda: objectives.Factor(2, beta=2.0, hidden=(8, 8)),
    "dip": lambda: objectives.Dip(beta=2.0),
    "dip_samples": lambda: objectives.Dip(beta=2.0, diagonal=1.0, of="samples"),
    "info": lambda: objectives.Info(beta=2.0, k=2),
    "mutual": lambda: objectives.Mutual(1.0),
    "wae": lambda: objectives.Wae(beta=2.0),
    "vaegan": lambda: objectives.Adversarial((6,), 1.0, adversarial=objectives.Weight(0.3), hidden=(8, 8), k=2),
}
BOUNDS = ["elbo", "iwae", "renyi", "stl", "dreg"]

# What objectives ask of a model, by the names of cases that have it.
HOLDABLE = {name for name, case in MODELS.items() if case.holdable}
ONE_SITE = {name for name, case in MODELS.items() if case.sites == 1}
NORMAL_POSTERIOR = {
    "bernoulli",
    "mixture",
    "exemplar",
    "conv",
    "pixel",
    "sequence",
    "spatial",
    "table",
    "table_self",
    "ladder",
    "rungs",
    "topdown",
}
NORMAL_PRIOR = {"bernoulli", "conv", "pixel", "sequence", "table", "table_self", "ladder", "topdown"}
DIFFERENTIABLE_PRIOR = {
    "bernoulli",
    "conv",
    "pixel",
    "sequence",
    "iaf_flow",
    "table",
    "table_self",
    "ladder",
    "topdown",
}
CODED = {"residual", "fsq", "gumbel", "two_maps"}
TWO_DIMENSIONS = {name for name in MODELS if name not in ("spatial", "ladder", "rungs", "topdown")} - CODED
NEEDS: dict[str, set[str]] = {
    "free_bits_dimension": NORMAL_PRIOR,
    "free_bits_group": NORMAL_PRIOR,
    "balanced": HOLDABLE,
    "stl": HOLDABLE,
    "dreg": HOLDABLE & ONE_SITE,
    "tc": NORMAL_POSTERIOR & ONE_SITE,
    "tc_weighted": NORMAL_POSTERIOR & ONE_SITE,
    "factor": TWO_DIMENSIONS & ONE_SITE,
    "dip": NORMAL_PRIOR & ONE_SITE,
    "dip_samples": NORMAL_PRIOR & ONE_SITE,
    "info": ONE_SITE,
    "mutual": NORMAL_POSTERIOR & ONE_SITE,
    "wae": DIFFERENTIABLE_PRIOR & ONE_SITE,
    "vaegan": {"bernoulli", "full_vamp"},  # whose likelihoods are learned whole through their means
}


def suits(objective: str, model: str) -> bool:
    """Whether this objective is for such a model."""
    return model in NEEDS.get(objective, MODELS)


class ExactPosterior(nn.Module):
    """x -> N(gain (x - centre), covariance), through our own family."""

    def __init__(self, gain: Tensor, centre: Tensor, covariance: Tensor) -> None:
        super().__init__()
        n = len(covariance)
        self.family = families.FullNormal((n,))
        self.gain, self.centre = nn.Parameter(gain), nn.Parameter(centre)
        tril = torch.linalg.cholesky(covariance)
        below = tril[self.family.below[0], self.family.below[1]]
        self.tril = nn.Parameter(torch.cat((families.unconstrained(tril.diagonal()), below)))

    def forward(self, x: Tensor) -> Distribution:
        loc = (x - self.centre) @ self.gain.mT
        return self.family(torch.cat((loc, self.tril.expand(*loc.shape[:-1], -1)), -1))


@dataclass(frozen=True)
class LinearGaussian:
    """x = weight z + centre + scale * noise, z ~ N(0, I): everything about it is known."""

    weight: Tensor
    centre: Tensor
    scale: float

    @classmethod
    def random(cls, x: int = 4, z: int = 2, scale: float = 0.7) -> "LinearGaussian":
        return cls(torch.randn(x, z, dtype=torch.float64), torch.randn(x, dtype=torch.float64), scale)

    def marginal(self) -> MultivariateNormal:
        """p(x)."""
        noise = self.scale**2 * torch.eye(len(self.centre), dtype=torch.float64)
        return MultivariateNormal(self.centre, self.weight @ self.weight.mT + noise)

    def posterior(self) -> tuple[Tensor, Tensor]:
        """Gain and covariance of p(z|x) = N(gain (x - centre), covariance)."""
        size = self.weight.shape[1]
        precision = torch.eye(size, dtype=torch.float64) + self.weight.mT @ self.weight / self.scale**2
        covariance = torch.linalg.inv(precision)
        return covariance @ self.weight.mT / self.scale**2, covariance

    def sample(self, n: int) -> Tensor:
        return self.marginal().sample((n,))

    def decoder(self) -> Conditional:
        x, z = self.weight.shape
        net = nn.Linear(z, x).double()
        with torch.no_grad():
            net.weight.copy_(self.weight)
            net.bias.copy_(self.centre)
        return Conditional(net, families.Normal((x,), self.scale).double())

    def model(self, shift: float = 0.0, spread: float = 1.0) -> VAE:
        """The model with its true posterior, or one that is moved and stretched."""
        gain, covariance = self.posterior()
        encoder = ExactPosterior(gain, self.centre.clone() + shift, covariance * spread).double()
        return VAE(encoder, priors.StandardNormal((self.weight.shape[1],)).double(), self.decoder())

    def mean_field(self, shift: float = 0.0) -> VAE:
        """The model with a diagonal posterior, which cannot be exact, moved on request."""
        x, z = self.weight.shape
        gain, covariance = self.posterior()
        net = nn.Linear(x, 2 * z).double()
        with torch.no_grad():
            net.weight.copy_(torch.cat((gain, torch.zeros_like(gain))))
            log_scale = families.unconstrained(covariance.diagonal().sqrt())
            net.bias.copy_(torch.cat((shift - gain @ self.centre, log_scale)))
        encoder = Conditional(net, families.Normal((z,)).double())
        return VAE(encoder, priors.StandardNormal((z,)).double(), self.decoder())


def within(values: Tensor, expected: Tensor | float, errors: float = 5.0, axis: int = 0) -> bool:
    """Whether the mean of independent values agrees with what is expected, in standard errors."""
    values = values.double()
    error = values.std(axis) / math.sqrt(values.shape[axis])
    return bool(((values.mean(axis) - expected).abs() <= errors * error + 1e-9).all())


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: p.grad for name, p in model.named_parameters()}
