"""Distributions: normalised, sampled as they say, and their divergences against samples."""

import math

import pytest
import torch
import zuko
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, kl_divergence

from helpers import within
from lowerbound.distributions import (
    ContinuousBernoulli,
    DiagonalNormal,
    DiscretizedLogistic,
    LogisticMixture,
    PointMass,
    Remembered,
    kl_per_element,
    mixture,
    stop_gradient,
)

EXTREMES = [-1e30, -300.0, -1.0, 0.0, 2.0, 128.0, 255.0, 1e4, 1e30]


def diagonal(*shape: int, seed: int) -> DiagonalNormal:
    noise = torch.Generator().manual_seed(seed)
    loc, log_scale = torch.randn(2, *shape, generator=noise, dtype=torch.float64)
    return DiagonalNormal(loc, log_scale.exp(), 1)


def full(n: int, seed: int) -> MultivariateNormal:
    noise = torch.Generator().manual_seed(seed)
    root = torch.randn(n, n, generator=noise, dtype=torch.float64).tril(-1)
    return MultivariateNormal(
        torch.randn(n, generator=noise, dtype=torch.float64), scale_tril=root + torch.eye(n).double() * 0.7
    )


@pytest.mark.parametrize("event_ndim", [0, 1, 2])
def test_the_diagonal_normal_is_torchs(event_ndim):
    loc, scale = torch.randn(3, 2, 4), torch.rand(3, 2, 4) + 0.1
    ours = DiagonalNormal(loc, scale, event_ndim)
    theirs = torch.distributions.Independent(torch.distributions.Normal(loc, scale), event_ndim)
    x = torch.randn(5, 3, 2, 4)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.variance, theirs.variance)
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(
        ours.expand((7, *ours.batch_shape)).log_prob(x[:1]), theirs.log_prob(x[:1]).expand(7, *ours.batch_shape)
    )
    z = ours.rsample((20_000,))
    assert within(z, loc) and within((z - loc).square(), scale.square())


def test_the_diagonal_normal_can_be_mapped_over_models():
    def draw(loc):
        return DiagonalNormal(loc, torch.ones(3), 1).rsample((2,))

    z = torch.vmap(draw, randomness="different")(torch.zeros(4, 3))
    assert len(z.flatten().unique()) == 4 * 2 * 3


@pytest.mark.parametrize("loc", EXTREMES)
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 0.7, 50.0, 1e5, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_discretized_logistic_sums_to_one_wherever_it_is(loc, scale, dtype):
    p = DiscretizedLogistic(torch.tensor(loc, dtype=dtype), torch.tensor(scale, dtype=dtype), 256)
    log_p = p.log_prob(torch.arange(256, dtype=dtype))
    assert not log_p.isnan().any()
    assert abs(log_p.exp().sum().item() - 1) < (2e-5 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("loc", [-30.0, -0.4, 0.0, 1.5, 3.9, 12.0])
@pytest.mark.parametrize("scale", [0.01, 0.3, 2.0, 100.0])
def test_the_moments_of_the_discretized_logistic_are_those_of_enumeration(loc, scale):
    p = DiscretizedLogistic(torch.tensor(loc).double(), torch.tensor(scale).double(), 5)
    x = torch.arange(5.0).double()
    mass = p.log_prob(x).exp()
    mean = (mass * x).sum()
    torch.testing.assert_close(p.mean, mean)
    torch.testing.assert_close(p.variance, (mass * (x - mean).square()).sum(), atol=1e-9, rtol=1e-9)
    draws = p.sample((20_000,))
    assert p.support.check(draws).all()
    expected = mass * len(draws)
    counts = torch.stack([(draws == level).sum() for level in range(5)])
    seen = expected > 5
    assert ((counts - expected).square() / expected)[seen].sum() < 30  # the 0.999 99 quantile for 4 degrees of freedom
    assert counts[~seen].sum() < 30


def test_a_larger_batch_of_discretized_logistics_is_the_same_ones():
    p = DiscretizedLogistic(torch.tensor([0.3, 3.0]), torch.tensor([0.5, 2.0]), 5)
    x = torch.tensor([1.0, 4.0])
    torch.testing.assert_close(p.expand((3, 2)).log_prob(x), p.log_prob(x).expand(3, 2))
    assert p.expand((3, 2)).sample((4,)).shape == (4, 3, 2)


def logistic_mixtures(*shape, spread=1.0, dtype=torch.float64):
    """Ours over events of two elements, and torch's of the same parameters, which are returned too."""
    logits, loc, raw = spread * torch.randn(3, *shape, 3, 2, dtype=dtype)
    params = [t.requires_grad_() for t in (logits, 2 + loc, raw.clamp(-5, 5).exp())]
    ours = LogisticMixture(params[0], DiscretizedLogistic(*params[1:], 5), 1)
    last = [t.mT for t in params]
    parts = DiscretizedLogistic(*last[1:], 5)
    theirs = MixtureSameFamily(Categorical(logits=last[0], validate_args=False), parts, validate_args=False)
    return ours, Independent(theirs, 1, validate_args=False), params


@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_logistic_mixture_is_torchs_with_its_gradient(spread, dtype):
    ours, theirs, params = logistic_mixtures(400, spread=spread, dtype=dtype)
    x = torch.randint(0, 5, (400, 2)).to(dtype)
    close = dict(rtol=1e-5, atol=1e-5) if dtype == torch.float32 else dict(rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), **close)
    with torch.no_grad():
        torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), **close)
    # a weight for each row, as importance weights give
    weight = torch.randn(400, dtype=dtype)
    here, there = (torch.autograd.grad((weight * p.log_prob(x)).sum(), params) for p in (ours, theirs))
    for one, other in zip(here, there, strict=True):
        size = other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=1e-3, atol=(1e-5 if dtype == torch.float32 else 1e-12) * size)
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_a_logistic_mixture_is_that_of_differences():
    _, _, params = logistic_mixtures(6)
    x = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 4.0]).double()[:, None].expand(6, 2)

    def log_prob(logits, loc, scale):
        return LogisticMixture(logits, DiscretizedLogistic(loc, scale, 5), 1).log_prob(x)

    assert torch.autograd.gradcheck(log_prob, params, check_undefined_grad=False)


def test_a_logistic_mixture_refuses_a_second_derivative():
    ours, _, params = logistic_mixtures(4)
    (first,) = torch.autograd.grad(ours.log_prob(torch.ones(4, 2)).logsumexp(0), params[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_many_logistic_mixtures_at_once_have_the_gradients_of_each():
    _, _, params = logistic_mixtures(4, 6)
    x = torch.randint(0, 5, (6, 2)).double()

    def bound(logits, loc, scale):
        return LogisticMixture(logits, DiscretizedLogistic(loc, scale, 5), 1).log_prob(x).logsumexp(0)

    params = [t.detach() for t in params]
    gradient = torch.func.grad_and_value(bound, argnums=(0, 1, 2))
    together = torch.vmap(gradient)(*params)
    for i in range(4):
        torch.testing.assert_close(
            (tuple(g[i] for g in together[0]), together[1][i]), gradient(*(t[i] for t in params))
        )


def test_a_logistic_mixture_samples_and_broadcasts():
    ours, theirs, _ = logistic_mixtures(3)
    x = torch.arange(5.0).double()[:, None, None].expand(5, 3, 2)
    assert ours.support.check(x).all() and not ours.support.check(x + 5).any()
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    larger = ours.expand((4, 3))
    assert larger.sample((7,)).shape == (7, 4, 3, 2) and ours.sample().shape == (3, 2)
    torch.testing.assert_close(larger.log_prob(x[0]), ours.log_prob(x[0]).expand(4, 3))
    draws = ours.sample((20_000,))
    assert within(draws, ours.mean.detach())


@given(st.floats(-80, 80), st.floats(1e-3, 1 - 1e-3))
@settings(max_examples=60, deadline=None)
def test_the_continuous_bernoulli_is_torchs_where_torchs_is_right(logit, x):
    # torch clips probabilities, so compare in double precision where that changes nothing
    logit = max(-30.0, min(30.0, logit))
    ours = ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))
    theirs = torch.distributions.ContinuousBernoulli(logits=torch.tensor(logit, dtype=torch.float64))
    value = torch.tensor(x, dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.variance, theirs.variance, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [-1e30, -1e4, -60.0, -3.0, -1e-2, -1e-5, 0.0, 1e-7, 1e-3, 0.2, 17.0, 200.0, 1e30])
def test_the_continuous_bernoulli_integrates_to_one_and_samples_what_it_says(logit, dtype):
    p = ContinuousBernoulli(torch.tensor(logit, dtype=dtype))
    if abs(logit) < 1e4:
        # fine near both ends, where a steep density lives
        t = torch.linspace(-40, 40, 4001, dtype=dtype)
        x = torch.sigmoid(t)
        mass = torch.trapezoid((p.log_prob(x).double().exp() * (x * torch.sigmoid(-t)).double()), t.double())
        assert abs(mass - 1) < 1e-4
    draws = p.sample((20_000,))
    assert ((draws >= 0) & (draws <= 1)).all()
    assert abs(draws.double().mean() - p.mean.double()) <= 5 * p.variance.double().sqrt() / len(draws) ** 0.5 + 1e-6
    squares = (draws.double() - p.mean.double()).square()
    assert abs(squares.mean() - p.variance.double()) <= 5 * squares.std() / len(draws) ** 0.5 + 1e-6
    logits = p.logits.clone().requires_grad_()
    values = ContinuousBernoulli(logits).log_prob(torch.tensor([0.0, 0.3, 1.0], dtype=dtype))
    assert values.isfinite().all()
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert gradient.isfinite()


def test_a_larger_batch_of_continuous_bernoullis_is_the_same_ones():
    p = ContinuousBernoulli(torch.tensor([0.3, 3.0]))
    x = torch.tensor([0.1, 0.4])
    torch.testing.assert_close(p.expand((3, 2)).log_prob(x), p.log_prob(x).expand(3, 2))


def test_the_gradient_of_the_continuous_bernoulli_is_that_of_its_difference_quotient():
    logits = torch.tensor([-40.0, -2.0, -1e-3, 1e-3, 0.5, 30.0], dtype=torch.float64, requires_grad=True)
    x = torch.linspace(0, 1, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: ContinuousBernoulli(logits).log_prob(x), logits)


def test_a_point_mass_is_one_point():
    value = torch.randn(4, 3)
    q = PointMass(value, 1)
    assert torch.equal(q.rsample((2,)), value.expand(2, 4, 3))
    assert (q.log_prob(q.rsample((2,))) == math.inf).all()
    assert (q.log_prob(value + torch.eye(4, 3)) == torch.tensor([-math.inf] * 3 + [math.inf])).all()
    assert torch.equal(q.mean, value) and q.variance.abs().sum() == 0
    assert torch.equal(q.expand((5, 4)).mean, value.expand(5, 4, 3))
    assert q.support.check(value).all()


@pytest.mark.parametrize(
    "p", [diagonal(3, seed=1), full(3, 1), zuko.flows.NSF(3, transforms=1, hidden_features=(4,))()]
)
def test_a_point_mass_is_infinitely_far_from_everything(p):
    assert (kl_divergence(PointMass(torch.zeros(2, 3), 1), p) == math.inf).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("q_of", [lambda seed: diagonal(3, seed=seed), lambda seed: full(3, seed)])
def test_a_closed_divergence_is_what_samples_say(q_of, seed):
    q, p = q_of(seed), diagonal(3, seed=10 + seed)
    z = q.rsample((100_000,))
    assert within(q.log_prob(z) - p.log_prob(z), kl_divergence(q, p))
    assert kl_divergence(q, p) > 0


def test_a_divergence_is_zero_from_itself_and_small_nearby():
    q = diagonal(4, 3, seed=0)
    assert kl_divergence(q, q).abs().max() == 0
    near = DiagonalNormal(q.loc + 1e-4 * q.scale, q.scale * (1 + 1e-4), 1)
    assert ((kl_divergence(q, near) > 0) & (kl_divergence(q, near) < 1e-6)).all()
    p = DiagonalNormal(torch.zeros(3).double(), torch.tensor([0.5, 1.0, 3.0]).double(), 1)
    same = MultivariateNormal(p.loc, scale_tril=torch.diag(p.scale))
    assert kl_divergence(same, p).abs() < 1e-12


def test_the_divergence_of_the_elements_adds_up():
    q, p = diagonal(4, 3, seed=0), diagonal(3, seed=1)
    kl = kl_per_element(q, p)
    assert kl.shape == (4, 3) and (kl > 0).all()
    torch.testing.assert_close(kl.sum(-1), kl_divergence(q, p))


@pytest.mark.parametrize("q", [diagonal(2, 3, seed=0), full(3, 0)])
def test_a_held_distribution_is_the_same_and_has_no_gradient(q):
    loc = q.loc.clone().requires_grad_()
    live = (
        DiagonalNormal(loc, q.scale, 1)
        if isinstance(q, DiagonalNormal)
        else MultivariateNormal(loc, scale_tril=q.scale_tril)
    )
    z = torch.randn(5, *loc.shape, dtype=torch.float64)
    assert live.log_prob(z).requires_grad
    held = stop_gradient(live).log_prob(z)
    assert not held.requires_grad
    torch.testing.assert_close(held, live.log_prob(z).detach())


def test_what_cannot_be_held_is_refused():
    with pytest.raises(
        TypeError, match=r"PointMass cannot be held constant.*'stl', 'dreg' and 'balanced'.*another objective"
    ):
        stop_gradient(PointMass(torch.zeros(3), 1))


def test_what_is_remembered_is_what_inversion_finds():
    flow = zuko.flows.MAF(3, 2, transforms=2, hidden_features=(8,)).double()
    q = Remembered(flow(torch.randn(4, 2).double()))
    z = q.rsample((6,))
    remembered = q.log_prob(z)
    assert remembered is q.latest[1]
    torch.testing.assert_close(q.log_prob(z.clone()), remembered)
    other = Remembered(flow(torch.randn(4, 2).double()))
    assert other.log_prob(torch.zeros(4, 3).double()).shape == (4,)  # nothing drawn yet


def test_a_mixture_of_ours_is_the_sum_of_its_parts():
    parts = diagonal(3, 2, seed=0)
    p = MixtureSameFamily(Categorical(logits=torch.randn(3).double()), parts, validate_args=False)
    x = torch.randn(7, 2).double()
    by_hand = (p.mixture_distribution.probs * parts.log_prob(x[:, None]).exp()).sum(-1).log()
    torch.testing.assert_close(p.log_prob(x), by_hand)


@pytest.mark.parametrize("event", [(2,), (2, 3)], ids=str)
@pytest.mark.parametrize("width", [1e-3, 1.0, 1e3])
def test_a_mixture_of_normals_is_that_of_torch_and_knows_its_moments(event, width):
    loc, scale = torch.randn(5, *event), width * (0.5 + torch.rand(5, *event))
    logits = torch.randn(5)
    ours = mixture(DiagonalNormal(loc, scale, len(event)), logits)
    exact = DiagonalNormal(loc.double(), scale.double(), len(event))
    theirs = MixtureSameFamily(Categorical(logits=logits.double()), exact, validate_args=False)
    z = torch.cat([ours.sample((50,)), loc + 3 * scale])
    for value in (z, z[0], z.reshape(5, 11, *event)):
        # in float32, however narrow a component is: the squares that cancel are taken in double precision
        torch.testing.assert_close(ours.log_prob(value).double(), theirs.log_prob(value.double()), rtol=1e-5, atol=1e-4)
    draws = ours.sample((40_000,))
    error = ours.variance.sqrt() / len(draws) ** 0.5
    assert ((draws.mean(0) - ours.mean).abs() < 5 * error).all()
    torch.testing.assert_close(draws.var(0), ours.variance, rtol=0.1, atol=0.0)
    assert ours.sample().shape == event
    assert ours.sample((0,)).shape == (0, *event)


def test_a_mixture_of_normals_gives_gradients_to_all_it_is_made_of():
    parts = [torch.randn(3, 2).double().requires_grad_(), torch.randn(3, 2).double().requires_grad_()]
    logits, z = torch.randn(3).double().requires_grad_(), torch.randn(4, 2).double().requires_grad_()
    torch.autograd.gradcheck(
        lambda loc, raw, w, x: mixture(DiagonalNormal(loc, raw.exp(), 1), w).log_prob(x), (*parts, logits, z)
    )
