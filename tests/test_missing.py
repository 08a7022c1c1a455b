"""Holes that depend on the values: unbiased against integrals, in value and gradient, and filled by what they say."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.distributions import Normal
from torch.nn import functional as F

from helpers import COLUMNS, LinearGaussian, mixed, within
from lowerbound import distributions, families, nets, recipes
from lowerbound.columns import Column
from lowerbound.data import Data, split
from lowerbound.distributions import Joint, Levels, Numbers, Part
from lowerbound.evaluation import evaluate
from lowerbound.models import VAE, Conditional
from lowerbound.objectives import Iwae
from lowerbound.priors import StandardNormal
from lowerbound.train import Ensemble, Options, Trainer

DESCRIBED = [column.table() for column in COLUMNS]
SMALL = dict(columns=DESCRIBED, latent=2, hidden=(8, 8))
LEVELS = ("a", "b", "c", "d")


def wide():
    t = torch.linspace(-20, 20, 20_001, dtype=torch.float64)
    return torch.sinh(t), torch.cosh(t) * (40 / 20_000)


def positive():
    t = torch.linspace(-30, 30, 20_001, dtype=torch.float64)
    return t.exp(), t.exp() * (60 / 20_000)


def whole(count):
    x = torch.arange(count, dtype=torch.float64)
    return x, torch.ones_like(x)


def circle():
    x = torch.arange(7000, dtype=torch.float64) / 1000
    return x, torch.full_like(x, 1e-3)


# A column, options of its family, and the nodes and weights that add up its probability.
KINDS = {
    "normal": (Column("x", "real"), dict(real="normal"), wide),
    "student_t": (Column("x", "real"), dict(real="student_t"), wide),
    "mixture": (Column("x", "real"), dict(real="mixture", components=2), wide),
    "whole": (Column("x", "real", decimals=0), dict(real="mixture", components=2), lambda: _around(whole(2000))),
    "positive": (Column("x", "positive"), {}, positive),
    "amounts": (Column("x", "positive"), dict(positive="mixture", components=2), positive),
    "spiked": (Column("x", "real", spikes=(1.7, -0.4)), {}, lambda: _and(wide(), (1.7, -0.4))),
    "spiked_count": (Column("x", "count", spikes=(3.0,)), {}, lambda: whole(5000)),
    "count": (Column("x", "count"), {}, lambda: whole(5000)),
    "ordinal": (Column("x", "ordinal", LEVELS), {}, lambda: whole(4)),
    "category": (Column("x", "category", LEVELS), {}, lambda: whole(4)),
    "binary": (Column("x", "binary", LEVELS[:2]), {}, lambda: whole(2)),
    "cyclic": (Column("x", "cyclic", period=7.0), {}, circle),
}


def _and(nodes, spikes):
    more = torch.tensor(spikes, dtype=torch.float64)
    return torch.cat((nodes[0], more)), torch.cat((nodes[1], torch.ones_like(more)))


def _around(nodes):
    return nodes[0] - 1000, nodes[1]


class Steep(nn.Module):
    """Log-odds that bend with the value."""

    def forward(self, x):
        return 2 * torch.asinh(x - 1.3) - 0.4


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_hole_is_as_likely_as_the_integral_says_and_its_gradient_is_right(kind):
    column, options, made = KINDS[kind]
    family = families.Columns([column], **options).double()
    missing = families.Missing(family, Steep())
    params = (0.7 * torch.randn(family.shape, dtype=torch.float64)).requires_grad_()
    nodes, weight = made()
    mass = (family(params).log_prob(nodes[:, None]).exp() * weight * Steep()(nodes).sigmoid()).sum()
    (slope,) = torch.autograd.grad(mass, params)

    each = params.detach().expand(20_000, -1).clone().requires_grad_()
    p = missing(each).log_prob(torch.full((1,), math.nan, dtype=torch.float64)).exp()
    (slopes,) = torch.autograd.grad(p.sum(), each)
    assert within(p.detach(), mass.detach()) and within(slopes, slope)


def test_what_is_known_and_that_it_is_known_is_exact():
    family = families.Columns(COLUMNS).double()
    missing = families.Missing(family, Steep())
    params = torch.randn(5, *family.shape, dtype=torch.float64)
    x = mixed(5).double().nan_to_num(1.0)
    expected = family(params).log_prob(x) + F.logsigmoid(-Steep()(x)).sum(-1)
    torch.testing.assert_close(missing(params).log_prob(x), expected)


@pytest.mark.parametrize("own", [True, False])
def test_where_values_do_not_count_it_is_the_plain_model_and_a_constant(own):
    x = mixed(300)
    model = recipes.table(x, missing="self" if own else "linear", **SMALL)
    family = model.decoder.family
    params = torch.randn(3, 300, *family.shape)
    rate = (x.isnan().sum(0) + 0.5) / (len(x) + 1)
    chance = torch.where(x.isnan(), rate, 1 - rate).log().sum(-1)
    plain = family.whole(params).log_prob(x)
    torch.testing.assert_close(family(params).log_prob(x), plain + chance, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("missing", ["self", "linear"])
def test_an_entry_is_missing_by_its_own_value_or_by_all(missing):
    model = recipes.table(mixed(100), missing=missing, **SMALL)
    log_odds = model.decoder.family.log_odds
    nn.init.normal_(log_odds.slope)
    x = mixed(20).nan_to_num(1.0)
    start = log_odds(x)
    for i in range(len(COLUMNS)):
        other = x.clone()
        other[:, i] = torch.where(x[:, i] == 1, 0.0, 1.0) if COLUMNS[i].is_level else x[:, i] + 0.7
        moved = (log_odds(other) != start).any(0)
        assert moved[i] and (moved.sum() == 1 if missing == "self" else moved.all())


def test_a_hole_above_a_threshold_is_filled_with_the_mean_above_it():
    k = 40_000
    loc, scale, threshold = torch.tensor([[1.0, -2.0]]), torch.tensor([2.0, 0.5]), torch.tensor([2.0, -2.5])
    level = Levels(torch.tensor([0.6, 0.3, 0.1]).log().expand(k, 1, 1, 3))
    numbers = Numbers(loc.expand(k, 1, 2), scale)
    joint = Joint([Part(torch.tensor([2, 0]), numbers, torch.zeros(2)), Part(torch.tensor([1]), level, torch.zeros(1))])
    # of a level: never missing, if it is the likeliest
    log_odds = lambda x: 1e4 * (x - torch.stack((threshold[1], torch.tensor(0.5), threshold[0])))
    p = distributions.Missing(joint, log_odds)
    x = torch.full((1, 3), math.nan)
    weights = p.log_prob(x).softmax(0)
    start = (threshold - loc[0]) / scale
    standard = Normal(0.0, 1.0)
    mean = loc[0] + scale * standard.log_prob(start).exp() / (1 - standard.cdf(start))
    found = p.expected(weights)[0]
    torch.testing.assert_close(found[[2, 0]], mean, rtol=0.02, atol=0.02)
    assert found[1] == 1 and joint.expected(weights)[0, 1] == 0
    picked = p.filled(x)[torch.multinomial(weights[:, 0], 50), 0]
    assert (picked[:, [2, 0]] > threshold - 1e-2).all() and (picked[:, 1] > 0).all()


def test_a_draw_is_kept_with_the_weight_that_it_was_made_with():
    family = families.Missing(families.Columns(COLUMNS), Steep())
    x = mixed(6)
    p = family(torch.randn(3, 6, *family.shape))
    first = p.log_prob(x)
    assert torch.equal(p.log_prob(x), first)
    torch.testing.assert_close(p.terms(x).sum(-1), first)
    filled = p.filled(x)
    assert torch.equal(filled, p.filled(x)) and torch.equal(filled[:, ~x.isnan()], x[~x.isnan()].expand(3, -1))
    one = torch.zeros(3, 6)
    one[1] = 1
    torch.testing.assert_close(torch.where(x.isnan(), p.expected(one), x), filled[1], rtol=1e-4, atol=1e-4)
    assert family.support.check(p.sample((4,))).all() and not p.sample().isnan().any()
    assert not torch.equal(family(torch.zeros(6, *family.shape)).log_prob(x), first[0])


def test_the_bound_rises_to_the_likelihood_of_what_is_known_and_of_the_holes():
    """One column, which a normal z moves: its marginal is normal, and all else an integral."""
    exact = LinearGaussian(torch.tensor([[1.5]]).double(), torch.tensor([0.5]).double(), 0.8)
    family = families.Columns([Column("x", "real")], real="normal", scale="column").double()
    with torch.no_grad():
        family.blocks[0].raw.fill_(families.unconstrained(torch.tensor(exact.scale, dtype=torch.float64)))
    decoder = Conditional(exact.decoder().net, families.Missing(family, Steep()))
    encoder = Conditional(nn.Sequential(_Known(), nn.Linear(1, 2).double()), families.Normal((1,)).double())
    model = VAE(encoder, StandardNormal((1,)).double(), decoder)
    nodes, weight = wide()
    p = exact.marginal()
    hole = (p.log_prob(nodes[:, None]).exp() * weight * Steep()(nodes).sigmoid()).sum().log()
    value = torch.tensor([[0.3]]).double()
    known = p.log_prob(value)[0] + F.logsigmoid(-Steep()(value))[0, 0]
    for x, expected in ((torch.full((8, 1), math.nan).double(), hole), (value.expand(8, 1), known)):
        assert abs(evaluate(model, x, k=20_000).bound.mean - expected) < 0.02


class _Known(nn.Module):
    def forward(self, x):
        return 0.3 * x.nan_to_num()


@pytest.mark.parametrize("missing", ["self", "linear"])
def test_the_gradient_reaches_everything(missing):
    x = mixed(60)
    model = recipes.table(x, missing=missing, **SMALL)
    nn.init.normal_(model.decoder.family.log_odds.slope, std=0.5)
    Iwae(4)(model(x, k=4)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is not None and g.isfinite().all() and (g != 0).any() for g in gradients.values())
    seen = model.decoder.family.log_odds.seen == 1
    assert (gradients["decoder.family.log_odds.slope"][~seen] == 0).all()
    # holes alone: what they say of the values moves the decoder, too
    model.zero_grad()
    model(torch.full((5, 8), math.nan)).log_weight().sum().backward()
    assert (model.decoder.net[-1].bias.grad != 0).all()


@pytest.mark.parametrize("real", ["normal", "student_t", "mixture"])
def test_nothing_that_a_network_can_put_out_breaks_it(real):
    x = mixed(50)
    family = recipes.table(x, missing="linear", real=real, **SMALL).decoder.family
    nn.init.normal_(family.log_odds.slope)
    for size in (1e-3, 50.0, 1e4):
        params = (size * torch.randn(50, *family.shape)).requires_grad_()
        log_p = family(params).log_prob(x)
        assert log_p.isfinite().all()
        (gradient,) = torch.autograd.grad(log_p.sum(), params)
        assert gradient.isfinite().all()


def test_holes_that_hide_the_large_values_are_filled_with_larger_ones():
    torch.manual_seed(0)
    n = 1500
    z = torch.randn(n, 1)
    complete = z + 0.5 * torch.randn(n, 4)
    x = complete.clone()
    x[:, :2][complete[:, :2] > 0.3] = math.nan
    columns = tuple(Column(str(i), "real") for i in range(4))
    data = Data("hidden", x, split(n, test=0.2), columns=columns)
    test, truth = data.fixed("test"), complete[data.split["test"]]
    hole = test.isnan()
    error = {}
    for missing in ("random", "self"):
        model = recipes.table(
            data.fixed("train"), columns=[c.table() for c in columns], latent=1, hidden=(32, 32), real="normal",
            scale="column", linear=True, missing=missing,
        )  # fmt: skip
        trainer = Trainer(model, Iwae(10), Options(steps=600, batch=128, lr=2e-2, warmup=20, valid_every=0))
        for _ in trainer.fit(data):
            pass
        with torch.no_grad():
            trace = trainer.averaged(test, k=500)
            filled = trace.likelihood.expected(trace.log_weight().softmax(0))
        error[missing] = (filled - truth)[hole].square().mean()
    slope = trainer.averaged.decoder.family.log_odds.slope.diagonal()
    assert error["self"] < 0.5 * error["random"] and (slope[:2] > 1).all() and (slope[2:].abs() < 0.5).all()


@pytest.mark.parametrize("real", ["normal", "student_t", "mixture"])
def test_a_step_is_recorded_and_models_train_together(real):
    data, options = Data("made", mixed(200), split(200), columns=COLUMNS), Options(steps=3, batch=32, valid_every=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a step that cannot be recorded warns
        models = [recipes.table(data.fixed("train"), missing="self", real=real, **SMALL) for _ in range(2)]
        steps = list(Ensemble(models, [Iwae(2), Iwae(2)], options).fit(data))
        alone = list(Trainer(models[0], Iwae(2), options).fit(data))
    assert len(steps) == len(alone) == 3 and all(float(step.terms.loss) < math.inf for step in (*steps[-1], alone[-1]))


def test_a_linear_decoder_is_linear():
    model = recipes.table(mixed(50), linear=True, **SMALL).eval()
    z = torch.randn(3, 2, 2)
    up = model.decoder.net
    torch.testing.assert_close(up(z[0] + z[1]) + up(torch.zeros(2, 2)), up(z[0]) + up(z[1]))
    assert isinstance(model.encoder.net[0], nets.TableInput) and len([*model.encoder.parameters()]) > 4
