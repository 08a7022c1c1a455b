"""Families: normalised in the data's units, for every parameter that a network can put out."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from helpers import BOUNDED, CONTINUOUS, DISCRETE, FAMILIES, POSTERIORS, within
from lowerbound import families
from lowerbound.distributions import ContinuousBernoulli
from lowerbound.families import positive, unconstrained

HUGE = [-1e30, -1e6, -50.0, 0.0, 50.0, 1e6, 1e30]


def parameters(family, *lead, spread=1.0, dtype=torch.float64):
    return spread * torch.randn(*lead, *family.shape, dtype=dtype)


def nodes(p, points=6001):
    """Nodes and weights (points, *batch) that integrate densities of one number: dense at the centre, far-reaching."""
    if isinstance(getattr(p, "base_dist", None), ContinuousBernoulli):
        t = torch.linspace(-45, 45, points, dtype=torch.float64).reshape(-1, *[1] * len(p.batch_shape))
        x = torch.sigmoid(t)
        return x.expand(-1, *p.batch_shape), (x * torch.sigmoid(-t) * 90 / (points - 1)).expand(-1, *p.batch_shape)
    t = torch.linspace(-25, 25, points, dtype=torch.float64).reshape(-1, *[1] * len(p.batch_shape))
    centre, spread = p.mean[..., 0], p.variance[..., 0].sqrt()
    return centre + spread * torch.sinh(t), torch.cosh(t) * spread * 50 / (points - 1)


@pytest.mark.parametrize("raw", HUGE)
def test_a_scale_is_positive_and_finite_whatever_the_network_says(raw):
    for dtype in (torch.float32, torch.float64):
        value = torch.tensor(raw, dtype=dtype, requires_grad=True)
        scale = positive(value)
        (gradient,) = torch.autograd.grad(scale, value)
        assert math.exp(-7.1) < scale < math.exp(7.1)
        assert gradient.isfinite() and gradient > -1e-30
    assert positive(torch.tensor(0.0)) == 1


def test_a_scale_rises_with_its_parameter_and_can_be_turned_back():
    raw = torch.linspace(-50, 50, 1001, dtype=torch.float64)
    assert (positive(raw).diff() > 0).all()
    torch.testing.assert_close(unconstrained(positive(raw)), raw, rtol=1e-9, atol=1e-9)
    out_of_reach = torch.tensor([0.0, 1e-30, 1e30, math.inf], dtype=torch.float64)
    assert unconstrained(out_of_reach).isfinite().all()


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("spread", [1.0, 30.0, 1e4])
def test_probabilities_sum_to_one(name, spread):
    case = FAMILIES[name]
    family = case.make((1,))
    x = torch.arange(case.levels, dtype=torch.float64)[:, None, None]
    p = family(parameters(family, 20, spread=spread))
    mass = p.log_prob(x).exp().sum(0)
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=1e-9, atol=1e-9)
    assert family.support.check(x).all() and not family.support.check(x + 0.5).any()
    assert not family.support.check(x[-1] + 1).any() and not family.support.check(x[0] - 1).any()


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_densities_integrate_to_one(name, spread):
    family = FAMILIES[name].make((1,)).double()
    p = family(parameters(family, 20, spread=spread))
    x, weight = nodes(p)
    mass = (p.log_prob(x[..., None]).exp() * weight).sum(0)
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", list(FAMILIES))
def test_samples_are_what_the_density_says(name):
    case = FAMILIES[name]
    family = case.make((1,)).double()
    p = family(parameters(family))
    n = 20_000
    draws = p.sample((n,))
    assert draws.shape == (n, 1) and family.support.check(draws).all()
    if case.levels:
        mass = p.log_prob(torch.arange(case.levels, dtype=torch.float64)[:, None]).exp()
        counts = torch.stack([(draws == level).sum() for level in range(case.levels)])
        seen = mass * n > 5
        assert stats.chisquare(counts[seen], mass[seen] / mass[seen].sum() * counts[seen].sum()).pvalue > 1e-5
        mean = (mass * torch.arange(case.levels)).sum()
        if name != "categorical":  # its levels are names, and have no mean
            torch.testing.assert_close(p.mean[0], mean)
    else:
        x, weight = nodes(p)
        density = p.log_prob(x[:, None]).exp() * weight
        cdf = (density.cumsum(0) - density / 2).clamp(0, 1)
        u = np.interp(draws[:, 0].numpy(), x.numpy(), cdf.numpy())
        assert stats.kstest(u, "uniform").pvalue > 1e-5
        entropy = -(density * p.log_prob(x[:, None])).nan_to_num(0).sum()
        assert within(-p.log_prob(draws), entropy)
        torch.testing.assert_close(p.mean[0], (density * x).sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize("lead", [(), (4,), (3, 4)])
def test_elements_are_independent_and_leading_axes_are_free(name, lead):
    case = FAMILIES[name]
    event, family, one = (2, 3), case.make((2, 3)).double(), case.make((1,)).double()
    params, x = parameters(family, *lead), case.data(1, event)[0].double()
    log_p = family(params).log_prob(x)
    assert log_p.shape == lead
    # the parameters of element (i, j) are every second channel from i on
    by_hand = sum(
        one(params[..., i::2, j]).log_prob(x[i, j].reshape(1)) for i in range(2) for j in range(3)
    )  # fmt: skip
    torch.testing.assert_close(log_p, by_hand)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_no_scale_that_a_network_can_put_out_breaks_the_density(name, autocast):
    """Every combination of huge parameters; locations of real data are kept where their square can be written."""
    case = FAMILIES[name]
    family = case.make((1,))
    combinations = torch.cartesian_prod(*[torch.tensor(HUGE)] * min(3, family.shape[0])).reshape(
        -1, min(3, family.shape[0])
    )
    raw = combinations.repeat(1, -(-family.shape[0] // combinations.shape[1]))[:, : family.shape[0]].clone()
    if name in CONTINUOUS and name != "continuous_bernoulli":
        place = 1 if name.startswith("student") else 0
        raw[:, place] = raw[:, place].clamp(-1e6, 1e6)
    raw.requires_grad_()
    x = case.data(200, (1,))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        # a network's last layer, which autocast makes bfloat16
        out = torch.nn.functional.linear(raw, torch.eye(family.shape[0])) if autocast else raw
        log_p = family(out).log_prob(x[:, None])
    assert log_p.dtype == torch.float32
    assert log_p.isfinite().all()
    (gradient,) = torch.autograd.grad(log_p.sum(), raw)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["normal", "laplace", "student_t"])
@pytest.mark.parametrize("scale", ["element", "shared"])
@pytest.mark.parametrize("c", [1e-4, 0.5, 300.0])
def test_other_units_change_the_density_by_their_logarithm(name, scale, c):
    kind = {"normal": families.Normal, "laplace": families.Laplace, "student_t": families.StudentT}[name]
    shift, unit = torch.randn(2, 3).double(), torch.rand(2, 1).double() + 0.5
    here = kind((2, 3), scale, shift, unit).double()
    there = kind((2, 3), scale, c * shift, c * unit).double()
    params, x = parameters(here, 5), torch.randn(5, 2, 3).double()
    torch.testing.assert_close(there(params).log_prob(c * x), here(params).log_prob(x) - 6 * math.log(c))
    torch.testing.assert_close(there(params).mean, c * here(params).mean)


def test_a_fixed_scale_is_in_the_units_of_the_data():
    family = families.Normal((2,), 0.3, shift=torch.tensor(5.0), unit=torch.tensor(9.0))
    assert torch.equal(family(torch.zeros(2)).scale, torch.full((2,), 0.3))
    assert torch.equal(family(torch.zeros(2)).loc, torch.full((2,), 5.0))
    assert list(family.parameters()) == []


def test_a_shared_scale_is_one_learned_number():
    family = families.Laplace((2,), "shared")
    assert [p.shape for p in family.parameters()] == [()]
    family(torch.zeros(2)).log_prob(torch.ones(2)).backward()
    assert family.affine.shared.grad == 2 * (1 - 1)  # |x - loc| / scale - 1 for each of two elements
    assert family(torch.zeros(2)).log_prob(torch.ones(2)) == -2 * (1 + math.log(2))


@pytest.mark.parametrize("scale", ["elements", "", -1.0, 0.0, math.nan])
def test_what_is_no_scale_is_refused(scale):
    with pytest.raises(ValueError, match=r"is no scale: give 'element', 'shared' or a positive number"):
        families.Normal((2,), scale)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_marginal_fits_better_than_zeros_and_has_the_right_shape(name):
    case = FAMILIES[name]
    family = case.make((2, 3))
    # data that are not what zeros stand for
    x = case.data(400, (2, 3))
    x = (
        x.clamp(max=1) * (torch.rand_like(x) < 0.2)
        if case.levels
        else x**4
        if case.data is FAMILIES["continuous_bernoulli"].data
        else x
    )
    start = family.marginal(x)
    assert start.shape == family.shape and start.dtype == x.dtype
    fitted, zeros = family(start).log_prob(x).mean(), family(torch.zeros(family.shape)).log_prob(x).mean()
    assert fitted >= zeros - 1e-5
    if not isinstance(family, families.Normal | families.Laplace | families.StudentT):
        assert fitted > zeros + 0.1


def test_the_marginal_of_a_mixture_has_its_centres_at_the_quantiles():
    x = (torch.randn(1000, 1, 1) * 3 + torch.tensor([40.0, 200.0])[torch.arange(1000) % 2, None, None]).round()
    family = families.DiscretizedLogisticMixture((1, 1), 256, 2)
    p = family(family.marginal(x))
    torch.testing.assert_close(p.mean[0], x.mean(0)[0], atol=5.0, rtol=0)
    torch.testing.assert_close(p.logistics.loc.flatten(), torch.tensor([40.0, 200.0]), atol=5.0, rtol=0)
    assert (p.logistics.scale > 10).all() and torch.equal(p.logits, torch.zeros(2, 1, 1))


def test_the_marginal_survives_elements_that_never_change():
    for name, case in FAMILIES.items():
        family = case.make((2, 3))
        for value in (0.0, 1.0):
            start = family.marginal(torch.full((50, 2, 3), value))
            assert start.isfinite().all(), name
            assert family(start).log_prob(torch.full((2, 3), value)).isfinite(), name


@pytest.mark.parametrize("name", BOUNDED)
def test_posteriors_integrate_to_one_and_sample_what_they_say(name):
    family = POSTERIORS[name]((2,)).double()
    q = family(0.7 * torch.randn(family.shape).double())
    axis = torch.linspace(-25, 25, 801, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_q = q.log_prob(z)
        mass = log_q.exp() * (axis[1] - axis[0]) ** 2
        assert abs(mass.sum() - 1) < 1e-3
        draws = q.sample((10_000,))
        for i in range(2):
            marginal = mass.reshape(801, 801).sum(1 - i)
            cdf = (marginal.cumsum(0) - marginal / 2).numpy()
            u = np.interp(draws[:, i].numpy(), axis.numpy(), cdf)
            assert stats.kstest(u, "uniform").pvalue > 1e-5
        entropy = -(mass * log_q).sum()
        values = -q.log_prob(draws)
        assert abs(values.mean() - entropy) < 5 * values.std() / 100 + 1e-3


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("lead", [(), (4,), (3, 4)])
def test_posteriors_take_any_leading_axes_and_pass_gradients(name, lead):
    family = POSTERIORS[name]((3,))
    params = torch.randn(*lead, *family.shape, requires_grad=True)
    q = family(params)
    z = q.rsample((2,))
    assert z.shape == (2, *lead, 3) and q.log_prob(z).shape == (2, *lead)
    z.square().sum().backward(retain_graph=True)
    assert (params.grad != 0).all(-1).any() or name != "normal"
    params.grad = None
    (z.square().sum() + q.log_prob(z).sum()).backward()
    assert (params.grad.reshape(-1, *family.shape).abs().sum(0) > 0).all()


@pytest.mark.parametrize("name", ["normal", "iaf"])
@pytest.mark.parametrize("raw", HUGE)
def test_posteriors_of_any_scale_are_finite(name, raw):
    family = POSTERIORS[name]((2,))
    params = torch.zeros(family.shape)
    params[2:4] = raw
    params.requires_grad_()
    q = family(params)
    z = q.rsample((50,))
    log_q = q.log_prob(z)
    assert z.isfinite().all() and log_q.isfinite().all()
    (gradient,) = torch.autograd.grad(log_q.sum() + z.sum(), params)
    assert gradient.isfinite().all()


def test_the_full_normal_has_every_covariance():
    family = POSTERIORS["full"]((3,)).double()
    params = torch.randn(family.shape).double()
    q = family(params)
    tril = q.scale_tril
    assert (tril.triu(1) == 0).all() and (tril.diagonal() > 0).all()
    assert (tril[family.below[0], family.below[1]] == params[6:]).all()
    draws = q.rsample((200_000,))
    torch.testing.assert_close(draws.mT.cov(), tril @ tril.mT, rtol=0.05, atol=0.05)


def test_a_point_is_its_parameters():
    params = torch.randn(4, 3)
    assert torch.equal(POSTERIORS["point"]((3,))(params).rsample((2,)), params.expand(2, 4, 3))


@pytest.mark.parametrize("name", list(POSTERIORS))
def test_posteriors_start_at_their_marginal(name):
    family = POSTERIORS[name]((3,))
    start = family.marginal(torch.randn(10, 3))
    assert family(start).rsample((5,)).shape == (5, 3)
