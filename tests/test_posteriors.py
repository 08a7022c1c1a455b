"""Posteriors with a shape of their own: exact densities, inverses and divergences, and gradients to every parameter."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Distribution, Laplace, MultivariateNormal, kl_divergence

import helpers
from helpers import LinearGaussian, within
from lowerbound import nets, priors
from lowerbound.distributions import DiagonalNormal, Remembered
from lowerbound.distributions.correlated import LowRankNormal, ReflectedNormal, reflect
from lowerbound.distributions.flows import LIMIT, Planar, Pushed, Radial, Sylvester, above, root, unit
from lowerbound.distributions.laplace import DiagonalLaplace
from lowerbound.distributions.operations import mixture, stop_gradient
from lowerbound.families import posteriors
from lowerbound.families.flows import AmortizedFlow
from lowerbound.models import VAE, Conditional
from lowerbound.objectives import Elbo, StickTheLanding

NORMALS = {
    "low_rank": lambda event: posteriors.LowRankNormal(event, rank=2),
    "householder": lambda event: posteriors.Householder(event, reflections=3),
}
FLOWS = {
    "planar": lambda event: AmortizedFlow(event, Planar(), 3),
    "radial": lambda event: AmortizedFlow(event, Radial(), 3),
    "sylvester": lambda event: AmortizedFlow(event, Sylvester(8, 2), 2),
    "sylvester_narrow": lambda event: AmortizedFlow(event, Sylvester(2, 3), 2),
}
POSTERIORS = NORMALS | FLOWS
STEPS = {"planar": Planar(), "radial": Radial(), "sylvester": Sylvester(8, 2), "sylvester_narrow": Sylvester(2, 3)}


def some_normal(n: int) -> DiagonalNormal:
    return DiagonalNormal(torch.randn(n).double(), torch.randn(n).double().exp(), 1)


@pytest.mark.parametrize("name", list(POSTERIORS))
def test_densities_integrate_to_one_and_samples_are_what_they_say(name):
    family = POSTERIORS[name]((2,)).double()
    q = family(torch.randn(family.shape).double())
    points = 301
    with torch.no_grad():
        draws = q.sample((10_000,))
        reach = 1.5 * (draws - draws.mean(0)).abs().amax(0)
        axes = [torch.linspace(c - r, c + r, points).double() for c, r in zip(draws.mean(0), reach, strict=True)]
        mass = q.log_prob(torch.cartesian_prod(*axes)).exp() * (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
        assert abs(mass.sum() - 1) < 2e-3
        for i in range(2):
            marginal = mass.reshape(points, points).sum(1 - i)
            u = np.interp(draws[:, i].numpy(), axes[i].numpy(), (marginal.cumsum(0) - marginal / 2).numpy())
            assert stats.kstest(u, "uniform").pvalue > 1e-5
        # importance weights of another density have a mean of 1
        wide = DiagonalNormal(draws.mean(0), 2 * draws.std(0), 1)
        z = wide.rsample((20_000,))
        assert within((q.log_prob(z) - wide.log_prob(z)).exp(), 1.0)


@pytest.mark.parametrize("name", list(POSTERIORS))
def test_what_values_it_takes_is_known(name):
    family = POSTERIORS[name]((2,))
    q = family(torch.randn(5, *family.shape))
    assert q.support is not None and bool(q.support.check(q.sample()).all())


@pytest.mark.parametrize("name", list(POSTERIORS))
@pytest.mark.parametrize("lead", [(), (4,), (3, 4)])
def test_leading_axes_are_free_and_gradients_pass(name, lead):
    family = POSTERIORS[name]((3,))
    params = torch.randn(*lead, *family.shape, requires_grad=True)
    q = family(params)
    z = q.rsample((2,))
    log_q = q.log_prob(z)
    assert z.shape == (2, *lead, 3) and z.dtype == log_q.dtype == torch.float32 and log_q.shape == (2, *lead)
    if name in FLOWS:
        assert log_q is q.latest[1]
    torch.testing.assert_close(q.log_prob(z.clone()), log_q, rtol=1e-4, atol=1e-4)
    by_hand = torch.stack(
        [family(p).log_prob(v) for p, v in zip(params.reshape(-1, *family.shape), z[0].reshape(-1, 3))]
    )
    torch.testing.assert_close(by_hand.reshape(lead), log_q[0], rtol=1e-4, atol=1e-4)
    # not of the length of z alone, which says nothing of its direction
    for value in ((z * torch.arange(1.0, 4.0)).square().sum() + log_q.sum(), q.log_prob(z.detach().clone()).sum()):
        (gradient,) = torch.autograd.grad(value, params, retain_graph=True)
        assert (gradient.reshape(-1, *family.shape).abs().sum(0) > 0).all()


@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("name", list(STEPS))
def test_steps_are_undone_and_their_determinants_are_those_of_their_derivatives(name, spread):
    step, n = STEPS[name], 4
    params = spread * torch.randn(200, step.size(n)).double()
    z = 2 * torch.randn(200, n).double()
    image, log_determinant = step.forward(z, params)
    torch.testing.assert_close(step.inverse(image, params), z, rtol=1e-8, atol=1e-8)
    back = step.inverse(z, params)
    torch.testing.assert_close(step.forward(back, params)[0], z, rtol=1e-8, atol=1e-8)
    derivative = torch.vmap(torch.func.jacrev(lambda value, p: step.forward(value, p)[0]))(z, params)
    sign, exact = torch.linalg.slogdet(derivative)
    assert (sign == 1).all()
    torch.testing.assert_close(log_determinant, exact, rtol=1e-8, atol=1e-8)
    if spread == 0:
        torch.testing.assert_close(image, z)


@pytest.mark.parametrize("name", list(STEPS))
def test_the_gradient_of_a_density_by_inversion_is_that_of_differences(name):
    step, n = STEPS[name], 3
    params = torch.randn(2, 2, step.size(n)).double().requires_grad_()
    loc, raw = (torch.randn(2, n).double().requires_grad_() for _ in range(2))
    z = torch.randn(2, n).double().requires_grad_()

    def log_prob(z, loc, raw, params):
        return Pushed(DiagonalNormal(loc, raw.exp(), 1), step, params).log_prob(z)

    assert torch.autograd.gradcheck(log_prob, (z, loc, raw, params), fast_mode=True)


def test_one_equation_is_solved_to_the_last_digits():
    y, g, s = 30 * torch.randn(3, 5000).double()
    product = torch.where(torch.rand(5000) < 0.5, 1000.0, -LIMIT) * torch.rand(5000)
    c = product.double() / g
    x = root(y, c, g, s)
    assert ((x + c * torch.tanh(g * x + s) - y).abs() < 1e-9 * (1 + y.abs() + c.abs())).all()
    raw = torch.tensor([-1e30, -3.0, 0.0, 2.0, 1e30]).double().requires_grad_()
    assert (above(raw) >= -LIMIT).all() and above(raw)[2:].equal(raw[2:])
    assert torch.autograd.grad(above(raw).sum(), raw)[0][2] == 1


@pytest.mark.parametrize("raw", [-1e30, -1e4, -50.0, 0.0, 50.0, 1e4, 1e30])
@pytest.mark.parametrize("name", list(FLOWS))
def test_flows_are_finite_whatever_the_network_says(name, raw):
    family = FLOWS[name]((3,))
    for params in (torch.full(family.shape, raw), raw * torch.randn(family.shape)):
        params = params.clone().requires_grad_()
        q = family(params * torch.tensor([0.0] * 3 + [1.0] * (len(params) - 3)))
        z = q.rsample((50,))
        log_q = q.log_prob(z)
        (gradient,) = torch.autograd.grad(log_q.sum() + z.sum(), params)
        assert z.isfinite().all() and log_q.isfinite().all() and gradient.isfinite().all()
        assert q.log_prob(z.detach().clone()).isfinite().all()


@pytest.mark.parametrize("name", list(NORMALS))
def test_correlated_normals_are_those_of_their_moments(name):
    family = NORMALS[name]((4,)).double()
    q = family(torch.randn(5, *family.shape).double())
    full = MultivariateNormal(q.mean, q.covariance_matrix)
    z = 3 * torch.randn(7, 5, 4).double()
    torch.testing.assert_close(q.log_prob(z), full.log_prob(z))
    torch.testing.assert_close(q.variance, full.variance)
    torch.testing.assert_close(q.entropy(), full.entropy())
    draws = q.rsample((100_000,))
    assert within(draws, q.mean)
    centred = (draws - q.mean)[..., :, None] * (draws - q.mean)[..., None, :]
    assert within(centred, q.covariance_matrix)
    p = some_normal(4)
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(full, p))
    larger = q.expand((3, 5))
    torch.testing.assert_close(larger.log_prob(z[:3]), q.log_prob(z[:3]))
    assert larger.rsample((2,)).shape == (2, 3, 5, 4) and q.support.check(z).all()


def test_a_narrow_normal_of_low_rank_keeps_its_digits():
    loc, scale, factor = torch.zeros(40), torch.full((40,), 1e-3), torch.randn(40, 3)
    q, exact = LowRankNormal(loc, scale, factor), LowRankNormal(loc.double(), scale.double(), factor.double())
    z = q.rsample((100,))
    torch.testing.assert_close(q.log_prob(z), exact.log_prob(z.double()).float(), rtol=1e-6, atol=1e-4)
    far = DiagonalNormal(torch.zeros(40), torch.ones(40), 1)
    torch.testing.assert_close(kl_divergence(q, far), kl_divergence(exact, far).float(), rtol=1e-5, atol=1e-4)


def test_reflections_keep_length_and_undo_themselves():
    normals = unit(torch.randn(5, 3, 4).double())
    z = torch.randn(6, 5, 4).double()
    image = reflect(z, normals)
    torch.testing.assert_close(image.norm(dim=-1), z.norm(dim=-1))
    torch.testing.assert_close(reflect(image, normals.flip(-2)), z)
    torch.testing.assert_close(unit(torch.zeros(3, 2)), torch.eye(2)[torch.tensor([0, 1, 0])])
    # one reflection at the plane between two vectors takes one to the other
    one, other = torch.nn.functional.normalize(torch.randn(2, 4).double(), dim=-1)
    between = torch.nn.functional.normalize(one - other, dim=-1)
    torch.testing.assert_close(reflect(one, between[None]), other)


@pytest.mark.parametrize("event", [(), (3,), (2, 3)])
def test_a_laplace_is_torchs_and_its_divergence_is_what_samples_say(event):
    loc, scale = torch.randn(4, *event).double(), torch.randn(4, *event).double().exp()
    q = DiagonalLaplace(loc, scale, len(event))
    p = DiagonalNormal(torch.randn(event).double(), torch.randn(event).double().exp(), len(event))
    theirs = torch.distributions.Independent(Laplace(loc, scale), len(event))
    z = q.rsample((100_000,))
    torch.testing.assert_close(q.log_prob(z), theirs.log_prob(z))
    torch.testing.assert_close(q.entropy(), theirs.entropy())
    torch.testing.assert_close(q.variance, theirs.variance)
    assert within(z, q.mean) and within((z - loc).square(), q.variance)
    assert within(q.log_prob(z) - p.log_prob(z), kl_divergence(q, p))
    u = Laplace(loc, scale).cdf(z).reshape(len(z), -1)[:20_000, 0]
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-5
    assert q.expand((2, 4)).log_prob(z[0]).shape == (2, 4)
    live = DiagonalLaplace(loc.clone().requires_grad_(), scale, len(event))
    assert torch.autograd.grad(live.rsample((2,)).sum(), live.loc)[0].eq(2).all()
    assert not stop_gradient(live).log_prob(z[0]).requires_grad


class Own(nn.Module):
    """A prior that is the posterior of some parameters, in their own place; a decoder that does not listen."""

    def __init__(self, family: nn.Module, params: torch.Tensor) -> None:
        super().__init__()
        q = family(params)
        self.q = q.base if isinstance(q, Remembered) else q

    def forward(self) -> Distribution:
        return self.q


class Deaf(nn.Module):
    def forward(self, z: torch.Tensor) -> Distribution:
        return DiagonalNormal(torch.zeros(*z.shape[:-1], 1).double(), torch.ones(1).double(), 1)


# Those whose divergence from themselves is not known, but estimated from draws.
SAMPLED_KL = [*FLOWS, "iaf"]
HOLDABLE = {name: make for name, make in helpers.POSTERIORS.items() if name != "point"} | POSTERIORS


@pytest.mark.parametrize("name", list(HOLDABLE))
def test_what_is_held_is_the_same_and_learns_nothing(name):
    family = HOLDABLE[name]((3,))
    params = torch.randn(4, *family.shape, requires_grad=True)
    live = family(params)
    z = live.rsample((2,)).detach()
    held = stop_gradient(live).log_prob(z)
    assert live.log_prob(z).requires_grad and not held.requires_grad
    torch.testing.assert_close(held, live.log_prob(z).detach(), rtol=1e-4, atol=1e-4)
    # in the value it has the gradient that the density has
    free = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(stop_gradient(live).log_prob(free).sum(), free)
    (expected,) = torch.autograd.grad(live.log_prob(free).sum(), free)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", list(HOLDABLE))
def test_sticking_the_landing_has_no_gradient_where_the_posterior_is_exact(name):
    family = HOLDABLE[name]((2,)).double()
    params = torch.randn(family.shape).double()
    prior = Own(copy.deepcopy(family).requires_grad_(False), params.clone())
    encoder = Conditional(nets.Bias(params), family)  # x of zeros
    model = VAE(encoder, prior, Deaf())
    lengths = []
    for objective in (StickTheLanding(3), Elbo(k=3)):
        trace = model(torch.zeros(5, *family.shape).double(), k=3)
        loss = objective(replace(trace, x=torch.zeros(5, 1).double())).sum()
        found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
        lengths.append(sum(g.square().sum() for g in found).sqrt().item())
    assert lengths[0] < 1e-5 * (1 + lengths[1])
    if name in SAMPLED_KL:
        assert lengths[1] > 0.1  # of each draw; of many, the mean of the score is 0


@pytest.mark.parametrize("name", list(FLOWS))
def test_the_score_that_is_left_out_has_no_mean(name):
    exact = LinearGaussian.random()
    x = exact.sample(1)
    family = POSTERIORS[name]((2,)).double()
    params = torch.randn(family.shape).double()
    model = VAE(nn.Identity(), priors.StandardNormal((2,)).double(), exact.decoder())

    def gradient(objective, draws=4000):
        rows = params.expand(draws, -1).clone().requires_grad_()  # each draw has parameters of its own
        trace = model.trace(x.expand(draws, -1), family(rows))
        return torch.autograd.grad(objective(trace).sum(), rows)[0]

    assert within(gradient(StickTheLanding()) - gradient(Elbo()), 0.0)


@pytest.mark.parametrize("name", list(POSTERIORS))
def test_a_mixture_of_posteriors_is_the_mean_of_their_densities(name):
    family = POSTERIORS[name]((3,)).double()
    params, z = torch.randn(4, *family.shape).double(), torch.randn(7, 3).double()
    each = torch.stack([family(p).log_prob(z) for p in params])
    found = mixture(family(params), torch.zeros(4).double()).log_prob(z)
    torch.testing.assert_close(found, each.logsumexp(0) - math.log(4))


@pytest.mark.parametrize("name", list(POSTERIORS))
def test_many_at_once_draw_and_learn(name):
    family = POSTERIORS[name]((3,))

    def bound(params):
        q = family(params)
        z = q.rsample((5,))
        return z.square().sum() + q.log_prob(z).sum()

    params = torch.randn(4, *family.shape)
    gradient = torch.vmap(torch.func.grad(bound), randomness="different")(params)
    assert gradient.isfinite().all() and (gradient != 0).any(0).all()
    laplace = torch.vmap(lambda loc: DiagonalLaplace(loc, loc.exp(), 1).rsample((2,)), randomness="different")
    assert laplace(torch.zeros(4, 3)).unique().numel() == 24


@pytest.mark.parametrize("name", list(POSTERIORS))
def test_the_evidence_is_what_importance_weights_say(name):
    exact = LinearGaussian.random()
    x = exact.sample(3)
    family = POSTERIORS[name]((2,))
    wide = torch.zeros(family.shape)
    wide[2:4] = 1.0  # it reaches where the true posterior is
    encoder = Conditional(nn.Sequential(nets.mlp((4,), family.shape, hidden=(8,)), nets.Bias(wide)), family).double()
    model = VAE(encoder, priors.StandardNormal((2,)).double(), exact.decoder())
    with torch.no_grad():
        weights = (model(x, k=20_000).log_weight() - exact.marginal().log_prob(x)).exp()
    assert within(weights, 1.0)


@pytest.mark.parametrize("family", [*POSTERIORS.values()])
def test_images_of_latents_are_refused(family):
    with pytest.raises(ValueError, match=r"z of shape \(2, 3, 3\).*for vectors.*spatial=false"):
        family((2, 3, 3))


def test_reflecting_twice_changes_nothing():
    p = some_normal(3)
    twice = unit(torch.randn(1, 3).double()).expand(2, 3)
    z = torch.randn(5, 3).double()
    torch.testing.assert_close(ReflectedNormal(p.loc, p.scale, twice).log_prob(z), p.log_prob(z))
