"""Directions: Bessel functions, densities, draws and their gradients, against scipy, quadrature and each other."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, special, stats
from torch.distributions import kl_divergence

from helpers import within
from lowerbound.distributions.operations import mixture, stop_gradient
from lowerbound.distributions.sphere import (
    PROPOSALS,
    UniformSphere,
    VonMisesFisher,
    _slope,
    cumulant,
    log_area,
    mean_length,
)
from lowerbound.families.posteriors import VonMisesFisher as Family


def fisher(m: int, kappa: float, *lead: int, seed: int = 0) -> VonMisesFisher:
    loc = torch.randn(m, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return VonMisesFisher(loc / loc.norm(), torch.tensor(kappa, dtype=torch.float64)).expand(lead)


def angles(m: int, kappa: float, points: int = 100_000) -> tuple[np.ndarray, np.ndarray]:
    """Angles from loc, and the probability of each on a fine grid, from `log_prob` and the areas of its circles."""
    step = min(np.pi, 12 * math.sqrt(m / kappa)) / points
    theta = (np.arange(points) + 0.5) * step
    q = VonMisesFisher(torch.eye(m).double()[0], torch.tensor(kappa).double())
    z = torch.zeros(len(theta), m, dtype=torch.float64)
    z[:, 0], z[:, 1] = torch.from_numpy(np.cos(theta)), torch.from_numpy(np.sin(theta))
    log_circle = log_area(m - 1) if m > 2 else math.log(2)
    log_density = q.log_prob(z).numpy() + log_circle + (m - 2) * np.log(np.sin(theta))
    return theta, np.exp(log_density) * step


@pytest.mark.parametrize("m", [2, 3, 4, 5, 8, 17, 32, 64])
def test_the_bessel_functions_are_those_of_scipy_with_their_derivatives(m):
    values = np.concatenate([np.geomspace(1e-3, 1e4, 200), [49.999, 50.0, 50.001]])
    order = m / 2 - 1
    kappa = torch.tensor(values, requires_grad=True)
    found = cumulant(kappa, m)
    expected = special.gammaln(order + 1) + order * np.log(2 / values) + np.log(special.ive(order, values)) + values
    # scipy's own terms cancel where kappa is small: the absolute error is theirs
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-13, atol=1e-12)
    (slope,) = torch.autograd.grad(found.sum(), kappa)
    ratio = special.ive(order + 1, values) / special.ive(order, values)
    np.testing.assert_allclose(slope.numpy(), ratio, rtol=1e-12)
    length = mean_length(kappa, m)
    np.testing.assert_allclose(length.detach().numpy(), ratio, rtol=1e-11)
    (curve,) = torch.autograd.grad(length.sum(), kappa)
    # Bessel's equation: it cancels where kappa is large
    np.testing.assert_allclose(curve.numpy(), 1 - ratio**2 - (m - 1) / values * ratio, rtol=1e-6, atol=1e-12)


def test_without_concentration_nothing_is_lost():
    kappa = torch.tensor([0.0, 1e-6, 1e-3], dtype=torch.float64, requires_grad=True)
    q = VonMisesFisher(torch.eye(3, 5).double(), kappa)
    kl = kl_divergence(q, UniformSphere(torch.zeros(5).double()))
    torch.testing.assert_close(kl, kappa.detach().square() / 10, rtol=1e-6, atol=1e-16)
    assert torch.autograd.grad(kl.sum(), kappa)[0].isfinite().all()
    torch.testing.assert_close(mean_length(kappa, 5), kappa / 5, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("kappa", [1e-3, 0.7, 30.0, 60.0, 1e4])
@pytest.mark.parametrize("m", [2, 3, 6, 40])
def test_densities_integrate_to_one_and_samples_are_what_they_say(m, kappa):
    theta, mass = angles(m, kappa)
    assert abs(mass.sum() - 1) < 1e-8
    n, q = 20_000, fisher(m, kappa)
    with torch.no_grad():
        z = q.sample((n,))
    assert q.support.check(z).all() and not q.support.check(1.1 * z).any()
    cosine = (z @ q.loc).clamp(-1, 1)
    # the chord, from which small angles are had exactly
    angle = 2 * torch.asin(((z - q.loc).norm(dim=-1) / 2).clamp(max=1))
    u = np.interp(angle.numpy(), theta, np.cumsum(mass) - mass / 2)
    assert stats.kstest(u, "uniform").pvalue > 1e-5
    assert within(z, q.mean)
    squares = (z - q.mean).square()
    assert within(squares, q.variance)
    assert within(-q.log_prob(z), q.entropy())
    around = z - cosine[:, None] * q.loc
    assert within(around, torch.zeros(m))


def test_enough_proposals_are_made():
    torch.manual_seed(1)
    # what is accepted least often, by the measure of the docstring: the circle, with a large concentration
    kappa, m, n = torch.tensor(1e4, dtype=torch.float64), 2, 400_000
    b = (m - 1) / (2 * kappa + (4 * kappa.square() + (m - 1) ** 2).sqrt())
    edge = (1 - b) / (1 + b)
    share = torch.from_numpy(stats.beta(0.5, 0.5).rvs(n, random_state=0))
    w = (1 - (1 + b) * share) / (1 - (1 - b) * share)
    accepted = kappa * w + (m - 1) * (1 - edge * w).log() - kappa * edge - (m - 1) * (1 - edge**2).log()
    rate = accepted.exp().clamp(max=1).mean()
    assert 0.6 < rate < 0.7
    assert (1 - rate) ** PROPOSALS < 1e-14


@pytest.mark.parametrize("m, kappa", [(2, 0.3), (2, 300.0), (3, 2.0), (7, 0.05), (7, 25.0), (40, 90.0)])
def test_the_gradient_of_a_draw_keeps_its_cumulative_probability(m, kappa):
    def cumulative(angle, kappa):
        def density(t):
            return math.sin(t) ** (m - 2) * math.exp(kappa * (math.cos(t) - 1))

        middle = min(math.pi, 1.5 * math.sqrt(m / kappa))
        rest = integrate.quad(density, middle, math.pi, epsabs=0, epsrel=1e-12)[0] if middle < math.pi else 0.0
        whole = integrate.quad(density, 0, middle, epsabs=0, epsrel=1e-12)[0] + rest
        return integrate.quad(density, 0, angle, epsabs=0, epsrel=1e-12)[0] / whole

    for probability in (0.02, 0.4, 0.97):
        step = 1e-3 * kappa
        at = [optimize.brentq(lambda t, k=k: cumulative(t, k) - probability, 1e-9, math.pi - 1e-9, xtol=1e-14)
              for k in (kappa - step, kappa, kappa + step)]  # fmt: skip
        found = _slope(torch.tensor(at[1], dtype=torch.float64), torch.tensor(kappa, dtype=torch.float64), m)
        assert found.item() == pytest.approx((at[2] - at[0]) / (2 * step), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("m, kappa", [(2, 1.5), (3, 0.2), (3, 50.0), (16, 16.0)])
def test_gradients_of_draws_are_those_of_expectations(m, kappa):
    n = 30_000
    loc = torch.nn.functional.normalize(torch.randn(m, dtype=torch.float64), dim=0)
    weight = torch.randn(m, dtype=torch.float64)

    def expected(raw, concentration):
        q = VonMisesFisher(raw / raw.norm(dim=-1, keepdim=True), concentration)
        return (weight * (q.variance + q.mean.square())).sum() + (weight.flip(0) * q.mean).sum()

    raw, concentration = loc.clone().requires_grad_(), torch.tensor(kappa, dtype=torch.float64, requires_grad=True)
    exact = torch.autograd.grad(expected(raw, concentration), (raw, concentration))
    many = loc.expand(n, m).clone().requires_grad_()
    each = torch.full((n,), kappa, dtype=torch.float64, requires_grad=True)
    z = VonMisesFisher(many / many.norm(dim=-1, keepdim=True), each).rsample()
    value = (weight * z.square()).sum() + (weight.flip(0) * z).sum()
    of_loc, of_kappa = torch.autograd.grad(value, (many, each))
    assert within(of_loc, exact[0])
    assert within(of_kappa, exact[1])


@pytest.mark.parametrize("m, kappa", [(2, 0.5), (3, 10.0), (10, 3.0), (64, 1e3)])
def test_divergences_are_what_samples_say(m, kappa):
    q, p = fisher(m, kappa), fisher(m, 2 * kappa, seed=1)
    z = q.sample((50_000,))
    uniform = UniformSphere(torch.zeros(m).double())
    assert within(q.log_prob(z) - uniform.log_prob(z), kl_divergence(q, uniform))
    assert within(q.log_prob(z) - p.log_prob(z), kl_divergence(q, p))
    assert kl_divergence(q, q).abs() < 1e-10
    torch.testing.assert_close(kl_divergence(q, uniform), uniform.entropy() - q.entropy())


def test_the_uniform_distribution_is_uniform():
    p = UniformSphere(torch.zeros(4).double())
    z = p.sample((50_000,))
    assert p.support.check(z).all() and within(z, p.mean) and within(z.square(), p.variance)
    # importance weights of anything on the sphere have a mean of 1
    assert within((fisher(4, 3.0).log_prob(z) - p.log_prob(z)).exp(), 1.0)
    assert p.log_prob(z.reshape(5, 10_000, 4)).shape == (5, 10_000) and p.log_prob(z[0]).shape == ()
    assert (p.log_prob(1.1 * z) == -math.inf).all()
    assert math.exp(log_area(2)) == pytest.approx(2 * math.pi) and p.sample().shape == (4,)


@pytest.mark.parametrize("lead", [(), (4,), (3, 4)])
def test_leading_axes_are_free_and_gradients_pass(lead):
    family = Family((3,))
    params = torch.randn(*lead, *family.shape, requires_grad=True)
    q = family(params)
    z = q.rsample((2,))
    assert z.shape == (2, *lead, 3) and z.dtype == torch.float32 and q.log_prob(z).shape == (2, *lead)
    assert q.mean.shape == q.variance.shape == (*lead, 3) and q.entropy().shape == lead
    kl = kl_divergence(q, UniformSphere(torch.zeros(3)))
    (gradient,) = torch.autograd.grad(z.square().sum() + z.sum() + kl.sum(), params)
    assert kl.shape == lead and (gradient != 0).all()
    held = stop_gradient(q)
    assert not held.log_prob(z.detach()).requires_grad
    torch.testing.assert_close(held.log_prob(z.detach()), q.log_prob(z.detach()))


@pytest.mark.parametrize("raw", [-1e30, -50.0, 0.0, 50.0, 1e30])
@pytest.mark.parametrize("m", [2, 5])
def test_whatever_the_network_says_is_finite(m, raw):
    family = Family((m,))
    for params in (torch.full(family.shape, raw), torch.eye(m + 1)[m] * raw, torch.eye(m + 1)[0] * raw):
        params = params.clone().requires_grad_()
        q = family(params)
        z = q.rsample((300,))
        kl = kl_divergence(q, UniformSphere(torch.zeros(m)))
        assert q.support.check(z).all() and q.log_prob(z).isfinite().all() and kl.isfinite()
        (gradient,) = torch.autograd.grad(q.log_prob(z).sum() + z.sum() + kl, params)
        assert gradient.isfinite().all()


def test_many_at_once_draw_and_learn_as_each_does():
    def bound(loc, kappa):
        q = VonMisesFisher(loc / loc.norm(), kappa)
        return (q.rsample((5,)) * loc).sum() - kl_divergence(q, UniformSphere(torch.zeros(3)))

    gradient = torch.vmap(torch.func.grad(bound, argnums=(0, 1)), randomness="different")
    of_loc, of_kappa = gradient(torch.randn(4, 3), torch.ones(4))
    assert of_loc.isfinite().all() and len(of_kappa.unique()) == 4


def test_a_mixture_of_them_is_a_density():
    q = Family((3,))(torch.randn(5, 4).double())
    p = mixture(q, torch.zeros(5).double())
    z = UniformSphere(torch.zeros(3).double()).sample((40_000,))
    assert within((p.log_prob(z) + log_area(3)).exp(), 1.0)


@pytest.mark.parametrize("event", [(1,), (2, 3)])
def test_what_is_no_vector_is_refused(event):
    with pytest.raises(ValueError, match=r"z of shape .* vectors of 2 or more .*spatial=false.*posterior=normal"):
        Family(event)
