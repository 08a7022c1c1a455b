"""Families of table rows: every kind of column is normalised, sampled as it says, and survives holes exactly."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from helpers import COLUMNS, mixed
from lowerbound import families
from lowerbound.columns import Column
from lowerbound.distributions import Counts, Cyclic, Joint, Levels, LogisticNumbers, Numbers, Part
from lowerbound.distributions.amounts import Amounts

HUGE = [-1e30, -1e6, -50.0, 0.0, 50.0, 1e6, 1e30]
REALS = ["normal", "student_t", "mixture"]
SCALES = ["element", "column"]
LEVELS = ("a", "b", "c", "d")


def family(*columns, dtype=torch.float64, **more):
    return families.Columns(columns, **more).to(dtype)


def drawn(of, *lead, spread=1.0):
    return of(spread * torch.randn(*lead, *of.shape, dtype=torch.float64))


def logarithmic(points=20_001, reach=30.0):
    t = torch.linspace(-reach, reach, points, dtype=torch.float64)
    return t.exp(), t.exp() * (2 * reach / (points - 1))


def linear(low, high, points=20_001):
    x = torch.linspace(low, high, points, dtype=torch.float64)
    return x, torch.full_like(x, (high - low) / (points - 1))


def grid(low, high, cell=1.0):
    x = torch.arange(low, high, cell, dtype=torch.float64)
    return x, torch.ones_like(x)


def far(points=20_001):
    """Nodes dense at 0, and far out for heavy tails."""
    t = torch.linspace(-25, 25, points, dtype=torch.float64)
    return torch.sinh(t), torch.cosh(t) * (50 / (points - 1))


def circle(points=7000):
    x = torch.arange(points, dtype=torch.float64) * (7 / points)
    return x, torch.full_like(x, 7 / points)


# A column, options, the nodes and weights that add up its probability, and whether its values are whole.
KINDS = {
    "normal": (Column("x", "real"), dict(real="normal"), far, False),
    "student_t": (Column("x", "real"), dict(real="student_t"), far, False),
    "student_t_column": (Column("x", "real"), dict(real="student_t", scale="column"), far, False),
    "mixture": (Column("x", "real"), dict(real="mixture", components=3), far, False),
    "mixture_column": (Column("x", "real"), dict(real="mixture", components=2, scale="column"), far, False),
    "decimal": (Column("x", "real", decimals=1), dict(real="mixture"), lambda: grid(-4000, 4000, 0.1), True),
    "whole": (Column("x", "real", decimals=0), dict(real="mixture"), lambda: grid(-40_000, 40_000), True),
    "positive": (Column("x", "positive"), {}, logarithmic, False),
    "positive_column": (Column("x", "positive"), dict(scale="column"), logarithmic, False),
    "amount": (Column("x", "positive"), dict(positive="mixture", components=3), logarithmic, False),
    "amount_column": (Column("x", "positive"), dict(positive="mixture", scale="column"), logarithmic, False),
    "count": (Column("x", "count"), {}, lambda: grid(0, 20_000), True),
    "ordinal": (Column("x", "ordinal", LEVELS), {}, lambda: grid(0, 4), True),
    "ordinal_two": (Column("x", "ordinal", LEVELS[:2]), {}, lambda: grid(0, 2), True),
    "category": (Column("x", "category", LEVELS), {}, lambda: grid(0, 4), True),
    "binary": (Column("x", "binary", LEVELS[:2]), {}, lambda: grid(0, 2), True),
    "cyclic": (Column("x", "cyclic", period=7.0), {}, circle, False),
}


# A column with spikes, options, what adds up the probability of the others, and whether that is one on a grid.
SPIKED = {
    "real": (Column("x", "real", spikes=(-0.3, 7.1)), {}, far, False),
    "real_column": (Column("x", "real", spikes=(0.3,)), dict(scale="column"), far, False),
    "real_mixture": (Column("x", "real", spikes=(0.3,)), dict(real="mixture"), far, False),
    "decimal": (
        Column("x", "real", decimals=0, spikes=(0.0, 3.0)),
        dict(real="mixture"),
        lambda: grid(-4e4, 4e4),
        True,
    ),
    "positive": (Column("x", "positive", spikes=(0.0, 99.5)), {}, logarithmic, False),
    "amount": (Column("x", "positive", spikes=(0.0, 99.5)), dict(positive="mixture"), logarithmic, False),
    "count": (Column("x", "count", spikes=(2.0, 9.0)), {}, lambda: grid(0, 20_000), True),
}


@torch.no_grad()
@pytest.mark.parametrize("kind", list(SPIKED))
def test_spikes_and_the_others_add_up_to_one_and_are_drawn_as_often(kind):
    column, options, nodes, discrete = SPIKED[kind]
    of, (x, weight) = family(column, **options), nodes()
    p, spikes = drawn(of, spread=0.7), torch.tensor(column.spikes, dtype=torch.float64)
    at_spikes = p.log_prob(spikes[:, None]).exp()
    others = p.log_prob(x[:, None]).exp() * weight
    # on a grid the spikes are among the others
    total = others.sum() + (0 if discrete else at_spikes.sum())
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-4, atol=1e-4)
    mean = (others * x).sum() + (0 if discrete else (at_spikes * spikes).sum())
    assert abs(p.mean[0] - mean) < (0.51 if column.decimals == 0 else 1e-3 * (1 + abs(mean)))
    draws = p.sample((20_000,))
    assert of.support.check(draws).all()
    for spike, often in zip(spikes.float(), at_spikes, strict=True):
        count = int((draws.float() == spike).sum())
        assert stats.binomtest(count, len(draws), float(often)).pvalue > 1e-5
    middle = float(x[(others.cumsum(0) > 0.5 * others.sum()).nonzero()[0]])
    share = float(others[x <= middle].sum() + (0 if discrete else at_spikes[spikes <= middle].sum()))
    assert stats.binomtest(int((draws <= middle).sum()), len(draws), share).pvalue > 1e-5


@pytest.mark.parametrize("kind", list(SPIKED))
def test_spikes_have_gradients_and_holes_have_none(kind):
    column, options, _, _ = SPIKED[kind]
    of = family(column, **options)
    params = torch.randn(3, *of.shape, dtype=torch.float64, requires_grad=True)
    for value in (column.spikes[0], 1.0):
        x = torch.tensor([value], dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda p, x=x: of(p).log_prob(x), params)
    (nothing,) = torch.autograd.grad(of(params).log_prob(torch.full((3, 1), math.nan).double()).sum(), params)
    assert (nothing == 0).all()
    # a spike that is far from all else breaks nothing
    far_off = family(replace(column, spikes=(1e30,)), **options, dtype=torch.float32)
    params = torch.randn(3, *far_off.shape, requires_grad=True)
    log_p = far_off(params).log_prob(torch.tensor([1e30]))
    if column.kind != "count" and not SPIKED[kind][3]:
        (gradient,) = torch.autograd.grad(log_p.sum(), params)
        assert gradient.isfinite().all() and (gradient[:, 0] != 0).all()


@pytest.mark.parametrize("kind", ["real", "positive"])
def test_the_least_draw_is_no_further_than_the_largest(kind, monkeypatch):
    family = families.Columns([Column("x", kind)], real="mixture", positive="mixture", components=1)
    p = family(torch.zeros(family.shape)).parts[0].entries
    ends = []
    for end in (0.0, 1.0):
        monkeypatch.setattr(torch, "rand_like", lambda t, end=end: torch.full_like(t, end))
        ends.append(p.sample())
    low, high = (end.log() if kind == "positive" else end for end in ends)
    # logit(2^-24) is -17
    assert low == pytest.approx(-high, rel=0.1) and high < 17 * p.scale.max()


def test_a_spike_starts_as_often_as_it_is_seen():
    x = torch.cat((torch.zeros(60), torch.full((20,), 99.5), torch.randn(120).exp()))[:, None].double()
    column = Column("x", "positive", spikes=(0.0, 99.5))
    of = family(column)
    p = of(of.marginal(x))
    seen = p.log_prob(torch.tensor([[0.0], [99.5]]).double()).exp()
    torch.testing.assert_close(seen, torch.tensor([61.0, 21.0]).double() / 203)
    # the number that is no spike is that of a column without spikes, but for the part that has one
    rest = family(replace(column, spikes=()))
    others = torch.tensor([[0.5], [2.0]]).double()
    plain = rest(rest.marginal(x[80:])).log_prob(others)
    torch.testing.assert_close(p.log_prob(others), plain + math.log(121 / 203))


def test_amounts_are_the_density_times_the_cell_when_cells_are_small():
    parts = torch.randn(2, 3).double(), torch.randn(2, 3).double(), torch.rand(2, 3).double() * 0.8 + 0.1
    x = torch.randn(50, 2).double().exp() + 0.1
    density = Amounts(*parts, torch.zeros(2).double()).log_prob(x)
    cell = torch.full((2,), 1e-5, dtype=torch.float64)
    torch.testing.assert_close(Amounts(*parts, cell).log_prob(x), density + cell.log(), rtol=1e-6, atol=1e-6)
    loc, scale, x = *(torch.tensor([[v]], dtype=torch.float64) for v in (0.7, 0.3)), x[:, :1]
    one = Amounts(torch.zeros(1, 1).double(), loc, scale, torch.zeros(1).double()).log_prob(x)
    np.testing.assert_allclose(one, stats.fisk.logpdf(x, 1 / 0.3, scale=math.exp(0.7)), rtol=1e-9)
    whole = Amounts(torch.zeros(1, 1).double(), loc, scale, torch.ones(1).double())
    total = whole.log_prob(torch.arange(1.0, 1e5)[:, None].double()).exp().sum()
    torch.testing.assert_close(total, torch.ones_like(total))
    np.testing.assert_allclose(
        whole.log_prob(torch.tensor([[1.0], [4.0]]).double()).exp()[:, 0],
        np.diff(stats.fisk.cdf([0, 1.5, 3.5, 4.5], 1 / 0.3, scale=math.exp(0.7)))[[0, 2]],
    )


def one(kind):
    column, options, _, _ = KINDS[kind]
    return family(column, **options)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_is_normalised(kind):
    nodes, weight = KINDS[kind][2]()
    p = drawn(one(kind), 20)
    with torch.no_grad():
        mass = (p.log_prob(nodes[:, None, None]).exp() * weight[:, None]).sum(0)
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", list(KINDS))
def test_samples_and_means_are_what_the_density_says(kind):
    of = one(kind)
    nodes, weight = KINDS[kind][2]()
    p = drawn(of, spread=0.7)
    mass = p.log_prob(nodes[:, None]).exp() * weight
    draws = p.sample((10_000,))
    assert draws.shape == (10_000, 1) and of.support.check(draws).all()
    if KINDS[kind][3]:
        cell = float(nodes[1] - nodes[0])
        counts = torch.bincount(((draws[:, 0] - nodes[0]) / cell).round().long(), minlength=len(nodes)).double()
        often = mass * len(draws) > 5
        seen, expected = (torch.cat((t[often], t[~often].sum()[None])) for t in (counts, mass * len(draws)))
        kept = expected > 1
        assert stats.chisquare(seen[kept], expected[kept] / expected[kept].sum() * seen[kept].sum()).pvalue > 1e-5
    else:
        u = np.interp(draws[:, 0].numpy(), nodes.numpy(), (mass.cumsum(0) - mass / 2).clamp(0, 1).numpy())
        assert stats.kstest(u, "uniform").pvalue > 1e-5
    column = KINDS[kind][0]
    if column.is_level:
        assert p.mean == nodes[mass.argmax()]
    elif column.kind == "cyclic":
        angle = nodes * 2 * math.pi / 7
        direction = torch.atan2((mass * angle.sin()).sum(), (mass * angle.cos()).sum()) * 7 / (2 * math.pi)
        torch.testing.assert_close(p.mean[0], direction % 7)
    else:
        slack = 0.51 * 10.0**-column.decimals if column.decimals is not None else 1e-3 * abs(float(p.mean)) + 1e-4
        assert abs(float(p.mean[0] - (mass * nodes).sum())) < slack


@pytest.mark.parametrize("kind", list(KINDS))
def test_nothing_that_a_network_can_put_out_breaks_a_column(kind):
    column, options, _, _ = KINDS[kind]
    of = family(column, **options, dtype=torch.float32)
    size = of.shape[0]
    raw = torch.cartesian_prod(*[torch.tensor(HUGE)] * min(3, size)).reshape(-1, min(3, size))
    raw = raw.repeat(1, -(-size // raw.shape[1]))[:, :size].clone()
    if column.kind in ("real", "positive"):
        # a centre stays where its square can be written
        centres = slice(of.blocks[0].components, 2 * of.blocks[0].components) if "real" in options and options[
            "real"] == "mixture" else slice(0, 1)  # fmt: skip
        raw[:, centres] = raw[:, centres].clamp(-1e6, 1e6)
    raw.requires_grad_()
    values = {"positive": [1e-3, 1.0, 50.0], "count": [0.0, 3.0, 1e5], "cyclic": [0.0, 3.0, 6.9]}
    x = torch.tensor(values.get(column.kind, [0.0, 1.0]))[:, None, None]
    log_p = of(raw).log_prob(x)
    assert log_p.isfinite().all() and log_p.dtype == torch.float32
    (gradient,) = torch.autograd.grad(log_p.sum(), raw)
    assert gradient.isfinite().all()
    assert not of(raw).sample().isnan().any()


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("lead", [(), (4,), (3, 4)])
def test_a_hole_adds_nothing_and_the_rest_is_the_sum_of_its_columns(real, scale, lead):
    of = family(*COLUMNS, real=real, scale=scale)
    params = torch.randn(*lead, *of.shape, dtype=torch.float64)
    whole = mixed(4).double().nan_to_num(1.0)
    x = whole[0] if lead == () else whole
    p = of(params)
    assert p.log_prob(x).shape == lead and p.terms(x).shape == (*lead, len(COLUMNS))
    torch.testing.assert_close(p.terms(x).sum(-1), p.log_prob(x))
    known = torch.rand(x.shape) < 0.5
    holed = p.log_prob(x.masked_fill(~known, math.nan))
    torch.testing.assert_close(holed, (p.terms(x) * known).sum(-1))
    assert (p.log_prob(torch.full_like(x, math.nan)) == 0).all()


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("scale", SCALES)
def test_a_hole_has_no_gradient(real, scale):
    of = family(*COLUMNS, real=real, scale=scale)
    params = torch.randn(5, *of.shape, dtype=torch.float64, requires_grad=True)
    x = mixed(5).double().nan_to_num(1.0)
    wanted = [params, *of.parameters()]
    for i in range(len(COLUMNS)):
        alone = torch.full_like(x, math.nan)
        alone[:, i] = x[:, i]
        own = torch.autograd.grad(of(params).log_prob(alone).sum(), wanted)
        by_column = torch.autograd.grad(of(params).terms(x)[:, i].sum(), wanted)
        for found, expected in zip(own, by_column, strict=True):
            assert found.isfinite().all()
            torch.testing.assert_close(found, expected)
    nothing = torch.autograd.grad(of(params).log_prob(torch.full_like(x, math.nan)).sum(), wanted)
    assert all((g == 0).all() for g in nothing)


def test_gradients_are_those_of_finite_differences():
    for kind in ("ordinal", "category", "binary", "cyclic", "count", "decimal", "positive"):
        of = one(kind)
        x = torch.tensor([1.0], dtype=torch.float64)
        params = torch.randn(3, *of.shape, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda p, of=of, x=x: of(p).log_prob(x), params)


@pytest.mark.parametrize("kind", ["real", "positive"])
@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("c", [1e-4, 300.0])
def test_other_units_change_the_density_by_their_logarithm(kind, real, scale, c):
    column, n = Column("x", kind), 3
    shift, unit = torch.randn(n), torch.rand(n) + 0.5
    moved = (shift + math.log(c), unit) if kind == "positive" else (c * shift, c * unit)
    here = family(*[column] * n, shift=shift, unit=unit, real=real, scale=scale)
    there = family(*[column] * n, shift=moved[0], unit=moved[1], real=real, scale=scale)
    params, x = torch.randn(5, *here.shape).double(), torch.rand(5, n).double() + 0.1
    difference = there(params).log_prob(c * x) - here(params).log_prob(x)
    torch.testing.assert_close(difference, torch.full_like(difference, -n * math.log(c)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(there(params).mean, c * here(params).mean, rtol=1e-4, atol=1e-4)


def test_counts_are_a_negative_binomial_a_poisson_at_its_limit_and_zeros():
    x = torch.arange(60.0, dtype=torch.float64)[:, None]
    mean, size = 6.5, 2.3
    t = lambda value: torch.tensor([value], dtype=torch.float64)
    plain = Counts(t(math.log(mean)), t(math.log(size)), t(-80.0)).log_prob(x)[:, 0]
    expected = stats.nbinom.logpmf(x[:, 0].numpy(), size, size / (size + mean))
    np.testing.assert_allclose(plain.numpy(), expected, rtol=1e-9)
    limit = Counts(t(math.log(mean)), t(14.0), t(-80.0)).log_prob(x[:30])[:, 0]
    np.testing.assert_allclose(limit.numpy(), stats.poisson.logpmf(x[:30, 0].numpy(), mean), atol=1e-3)
    inflated = Counts(t(math.log(mean)), t(math.log(size)), t(0.0)).log_prob(x)[:, 0].exp()
    torch.testing.assert_close(inflated[1:], plain[1:].exp() / 2)
    torch.testing.assert_close(inflated[0], 0.5 + plain[0].exp() / 2)
    # float32 knows the difference of two large gamma functions
    large = Counts(t(9.0).float(), t(13.9).float(), t(-80.0).float()).log_prob(torch.tensor([[8103.0]]))
    assert abs(float(large) - stats.poisson.logpmf(8103, math.exp(9.0))) < 0.02


def test_a_mixture_on_a_grid_is_the_density_times_the_cell_when_cells_are_small():
    parts = torch.randn(2, 3).double(), torch.randn(2, 3).double(), torch.rand(2, 3).double() + 0.5
    x = torch.randn(50, 2).double()
    density = LogisticNumbers(*parts, torch.zeros(2).double()).log_prob(x)
    cell = torch.full((2,), 1e-5, dtype=torch.float64)
    torch.testing.assert_close(LogisticNumbers(*parts, cell).log_prob(x), density + cell.log())
    whole = LogisticNumbers(*parts, torch.ones(2).double())
    edges = torch.arange(-60, 61, dtype=torch.float64)[:, None, None]
    cdf = (parts[0].softmax(-1) * torch.sigmoid((edges - 0.5 - parts[1]) / parts[2])).sum(-1)
    torch.testing.assert_close(whole.log_prob(edges[:-1, :, 0]).exp(), cdf.diff(dim=0), atol=1e-12, rtol=0)


def test_the_angle_is_scipys_and_has_no_end():
    along = torch.tensor([[[3.0, -4.0]]], dtype=torch.float64)
    p = Cyclic(along, torch.tensor([7.0], dtype=torch.float64))
    x = torch.linspace(0, 6.9, 50, dtype=torch.float64)
    expected = stats.vonmises.logpdf(x.numpy() * 2 * math.pi / 7, 5.0, loc=math.atan2(-4, 3)) + math.log(
        2 * math.pi / 7
    )
    np.testing.assert_allclose(p.log_prob(x[:, None, None])[:, 0, 0].numpy(), expected, rtol=1e-9)
    torch.testing.assert_close(p.log_prob(x[:, None, None]), p.log_prob(x[:, None, None] + 7))
    assert ((p.sample((1000,)) >= 0) & (p.sample((1000,)) < 7)).all()


def test_no_level_that_is_not_there_has_any_probability():
    p = Levels(torch.tensor([[0.2, 0.8]]).log())
    torch.testing.assert_close(
        p.log_prob(torch.tensor([[-1.0], [0.0], [1.0], [2.0]])).exp()[:, 0], torch.tensor([0.0, 0.2, 0.8, 0.0])
    )
    assert Numbers(torch.zeros(1), torch.ones(1), logarithmic=True).log_prob(torch.tensor([[0.0], [-3.0]])).eq(
        -math.inf
    ).all()  # fmt: skip


def test_levels_in_order_rise_together():
    """The first number moves all of an ordinal's levels, from the last to the first."""
    of = one("ordinal")
    params = torch.randn(1, 3).double().expand(50, 3).clone()
    params[:, 0] = torch.linspace(-6, 6, 50)
    cumulative = of(params).parts[0].entries.log_p.exp().cumsum(-1)[:, 0, :-1]
    assert (cumulative.diff(dim=0) > 0).all() and (cumulative.diff(dim=-1) > 0).all()


def test_columns_stand_in_any_order():
    order = torch.randperm(len(COLUMNS)).tolist()
    here, there = family(*COLUMNS), family(*[COLUMNS[i] for i in order])
    x = mixed(200).double()
    torch.testing.assert_close(
        there(there.marginal(x[:, order])).terms(x[:, order]), here(here.marginal(x)).terms(x)[:, order]
    )
    assert torch.equal(there(there.marginal(x[:, order])).mean, here(here.marginal(x)).mean[order])


@pytest.mark.parametrize("real", REALS)
def test_the_marginal_is_the_best_of_independent_columns_and_knows_no_holes(real):
    torch.manual_seed(0)
    x = mixed(3000).double()
    shift, unit = x[:, [0, 7]].nanmean(0), torch.tensor([20.0, 1.4])
    logs = x[:, 1].log()
    shifts, units = torch.zeros(8), torch.ones(8)
    shifts[[0, 7]], units[[0, 7]] = shift.float(), unit
    shifts[1], units[1] = logs.nanmean().float(), logs[~logs.isnan()].std().float()
    of = family(*COLUMNS, shift=shifts, unit=units, real=real)
    start = of.marginal(x)
    known = (~x.isnan()).sum(0)
    at_start = of(start).terms(x).sum(0) / known
    params = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([params], max_iter=60, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = -of(params).log_prob(x).mean()
        value.backward()
        return value

    optimizer.step(loss)
    best = of(params).terms(x).sum(0) / known
    assert (best - at_start < 0.07).all(), best - at_start
    # a row of holes more changes nothing but the weight of the prior counts
    more = torch.cat((x, torch.full((50, 8), math.nan, dtype=torch.float64)))
    torch.testing.assert_close(of.marginal(more), start)


@pytest.mark.parametrize("real", REALS)
def test_the_marginal_survives_columns_that_say_nothing(real):
    of = families.Columns(COLUMNS, real=real)
    for value in (math.nan, 1.0):
        x = torch.full((30, len(COLUMNS)), value)
        start = of.marginal(x)
        assert start.isfinite().all() and start.shape == of.shape
        assert of(start).log_prob(torch.ones(len(COLUMNS))).isfinite()


def test_what_to_expect_of_a_mixture_weighs_means_probabilities_and_directions():
    of = family(*COLUMNS)
    p = drawn(of, 6, 2)
    weight = torch.rand(6, 2).double().softmax(0)
    found = p.expected(weight)
    exact = (p.mean * weight[..., None]).sum(0)
    numbers = [0, 1, 2, 7]
    torch.testing.assert_close(found[:, numbers], exact[:, numbers])
    town = torch.stack([p.terms(torch.full((8,), float(i)).double())[..., 4].exp() for i in range(4)], -1)
    assert torch.equal(found[:, 4], (weight[..., None] * town).sum(0).argmax(-1).double())
    single = drawn(of, 1, 3)
    torch.testing.assert_close(single.expected(torch.ones(1, 3).double()), single.mean[0])


def test_a_joint_is_the_sum_of_its_parts():
    number = Numbers(torch.zeros(2, 1), torch.ones(1))
    level = Levels(torch.tensor([[0.25, 0.75]]).log().expand(2, 1, 2))
    p = Joint([Part(torch.tensor([1]), number, torch.zeros(1)), Part(torch.tensor([0]), level, torch.zeros(1))])
    assert p.batch_shape == (2,) and p.event_shape == (2,)
    expected = math.log(0.75) + torch.distributions.Normal(0.0, 1.0).log_prob(torch.tensor([0.3, -2.0]))
    torch.testing.assert_close(p.log_prob(torch.tensor([[1.0, 0.3], [1.0, -2.0]])), expected)
    assert p.sample((5,)).shape == (5, 2, 2)


def test_the_work_does_not_grow_with_a_loop_over_columns():
    columns = [Column(str(i), "real") for i in range(1000)]
    columns += [Column(str(i), "category", LEVELS[: 2 + i % 3]) for i in range(1000)]
    of = families.Columns(columns)
    assert len(of.blocks) == 4
    x = torch.zeros(16, 2000)
    assert of(torch.zeros(16, *of.shape)).log_prob(x).isfinite().all()


def test_a_support_knows_each_column():
    of = families.Columns(COLUMNS)
    good = torch.tensor([-5.0, 0.1, 3.0, 2.0, 3.0, 1.0, 6.5, -0.1])
    assert of.support.check(good).all() and of.support.check(torch.full((8,), math.nan)).all()
    bad = torch.tensor([math.inf, 0.0, 1.5, 3.0, -1.0, 0.5, 7.5, -math.inf])
    assert not of.support.check(bad).any()
    assert not of.support.is_discrete
    assert families.Columns([Column("x", "count"), Column("y", "binary", ("n", "y"))]).support.is_discrete


def test_columns_that_cannot_be_modelled_are_listed():
    columns = [Column("a", "category", ("one",)), Column("b", "cyclic")]
    with pytest.raises(ValueError, match=r"'a' has 1 levels, and needs 2; 'b' is cyclic, and has no period; real='nor"):
        families.Columns(columns, real="nor")
    with pytest.raises(ValueError, match=r"'c' is category, and has spikes, which are of real.*; positive='x' must be"):
        families.Columns([Column("c", "category", LEVELS, spikes=(1.0,))], positive="x")
    with pytest.raises(ValueError, match=r"there are no columns; scale='x' must be .*; components=0 must be 1"):
        families.Columns([], scale="x", components=0)
