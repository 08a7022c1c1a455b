"""Objectives of the aggregated posterior: on data so few that everything is enumerated, and where it is known."""

import math
from itertools import combinations, permutations

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from helpers import MODELS, LinearGaussian, within
from lowerbound.distributions import DiagonalNormal, NormalMixture, PointMass
from lowerbound.models import Site, Trace
from lowerbound.objectives import (
    Dip,
    Elbo,
    Factor,
    Info,
    MeanDiscrepancy,
    Mutual,
    Reconstruction,
    TotalCorrelation,
    Wae,
    decompose_batch,
    log_aggregate,
    log_prob_pairs,
)

N, D = 7, 2


def standard(d: int) -> DiagonalNormal:
    return DiagonalNormal(torch.zeros(d).double(), torch.ones(d).double(), 1)


def posteriors(n: int = N, d: int = D) -> DiagonalNormal:
    return DiagonalNormal(torch.randn(n, d).double(), 0.3 + torch.rand(n, d).double(), 1)


def site_of(q, p=None, k: int = 1) -> Site:
    return Site(q.rsample((k,)), q, p or standard(D))


def trace_of(site: Site) -> Trace:
    """A trace whose likelihood depends on z."""
    x = torch.zeros(site.z.shape[1], 1).double()
    return Trace(x, (site,), Independent(Normal(site.z.sum(-1, keepdim=True), 1.0), 1))


def exact(q: DiagonalNormal, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log q(z) and sum_j log q(z_j), with all data enumerated, by another implementation."""
    logits = torch.zeros(len(q.loc)).double()
    joint = MixtureSameFamily(Categorical(logits=logits), Independent(Normal(q.loc, q.scale), 1))
    each = [MixtureSameFamily(Categorical(logits=logits), Normal(q.loc[:, j], q.scale[:, j])) for j in range(D)]
    return joint.log_prob(z), sum(one.log_prob(z[..., j]) for j, one in enumerate(each))


def test_pairs_are_of_each_sample_with_each_posterior():
    q = posteriors()
    site = site_of(q, k=3)
    pairs = log_prob_pairs(site)
    assert pairs.shape == (3, N, N, D)
    for i in range(N):
        for j in range(N):
            expected = Normal(q.loc[j], q.scale[j]).log_prob(site.z[:, i])
            torch.testing.assert_close(pairs[:, i, j], expected)
    own = Site(site.z, q.expand((3, N)), standard(D))  # as a ladder of one level has it
    torch.testing.assert_close(log_prob_pairs(own), pairs)


def test_with_all_data_in_the_batch_the_estimate_is_exact():
    q = posteriors()
    site = site_of(q, k=4)
    joint, product = exact(q, site.z)
    pairs = log_prob_pairs(site)
    torch.testing.assert_close(log_aggregate(pairs.sum(-1), N), joint)
    torch.testing.assert_close(log_aggregate(pairs, N).sum(-1), product)
    torch.testing.assert_close(log_aggregate(pairs.sum(-1), N, "weighted"), joint - math.log(N))
    part = decompose_batch(site, N)
    torch.testing.assert_close(part.mutual, q.log_prob(site.z) - joint)
    torch.testing.assert_close(part.total, joint - product)
    torch.testing.assert_close(part.rest, product - site.p.log_prob(site.z))


@pytest.mark.parametrize("m", [2, 3, 5])
def test_over_all_batches_the_density_is_unbiased_and_its_log_too_small(m):
    """Every batch of m rows that holds row 0, and one code of that row."""
    q = posteriors()
    z = q.rsample()[0]
    log_q, _ = exact(q, z)
    densities = Independent(Normal(q.loc, q.scale), 1).log_prob(z).exp()
    found = {"stratified": [], "weighted": []}
    for others in combinations(range(1, N), m - 1):
        rows = [0, *others]
        batch = Site(z.expand(1, m, D), DiagonalNormal(q.loc[rows], q.scale[rows], 1), standard(D))
        pairs = log_prob_pairs(batch).sum(-1)
        for name, values in found.items():
            values.append(log_aggregate(pairs, N, name)[0, 0])
    stratified, weighted = (torch.stack(values) for values in found.values())
    torch.testing.assert_close(stratified.exp().mean().log(), log_q)
    assert stratified.mean() < log_q
    mean = (densities[0] + (m - 1) * densities[1:].mean()) / (N * m)  # each other row is as likely in the batch
    torch.testing.assert_close(weighted.exp().mean(), mean)
    assert log_q - math.log(N) - 1e-9 < weighted.exp().mean().log() < log_q and weighted.mean() < log_q
    published = []
    for others in permutations(range(1, N), m - 1):
        weights = [1 / (m - 1)] * (m - 2) + [(N - m + 1) / (N * (m - 1))]
        published.append(densities[0] / N + sum(w * densities[j] for w, j in zip(weights, others)))
    published = torch.stack(published)
    torch.testing.assert_close(published.mean().log(), log_q)  # the same expectation, and no less variance
    assert stratified.exp().var(correction=0) <= published.var(correction=0) * (1 + 1e-9)


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_the_parts_add_up_to_the_kl_term_whatever_the_estimator(estimator):
    site = site_of(posteriors(), k=3)
    for rows in (N, 1000):
        torch.testing.assert_close(sum(decompose_batch(site, rows, estimator)), site.log_ratio())
        trace = trace_of(site)
        value = TotalCorrelation(rows, beta=1.0, estimator=estimator)(trace)
        torch.testing.assert_close(value, trace.log_weight().mean(0))
        part = decompose_batch(site, rows, estimator)
        value = TotalCorrelation(rows, beta=5.0, alpha=2.0, gamma=0.5, estimator=estimator)(trace)
        kl = 2.0 * part.mutual + 5.0 * part.total + 0.5 * part.rest
        torch.testing.assert_close(value, (trace.log_likelihood() - kl).mean(0))


def test_the_total_correlation_of_known_codes():
    side = torch.tensor([-3.0, 0.0, 4.0]).double()
    grid = torch.cartesian_prod(side, side)  # independent dimensions
    part = decompose_batch(site_of(DiagonalNormal(grid, torch.full_like(grid, 0.5), 1), k=50), len(grid))
    torch.testing.assert_close(part.total, torch.zeros_like(part.total), rtol=0, atol=1e-12)
    line = (
        torch.arange(8.0).double()[:, None].expand(8, 2)
    )  # one dimension says which of 8 it is, and so does the other
    part = decompose_batch(site_of(DiagonalNormal(line, torch.full_like(line, 0.01), 1), k=50), 8)
    for found in (part.mutual, part.total):
        torch.testing.assert_close(found, torch.full_like(found, math.log(8)), rtol=0, atol=1e-9)
    many = decompose_batch(
        site_of(posteriors(), k=20_000), N
    )  # it is a divergence: not negative, as sums of wrong weights are
    assert many.total.mean() > 0.01 and 0 < many.mutual.mean() < math.log(N)


@pytest.mark.parametrize("b, rows", [(1, 10), (8, 7)])
def test_a_batch_that_shows_no_aggregated_posterior_is_refused(b, rows):
    match = (
        rf"of {rows} rows cannot be estimated from a batch of {b}: it takes two rows or more, and no more than there"
    )
    with pytest.raises(ValueError, match=match):
        TotalCorrelation(rows)(trace_of(site_of(posteriors(b))))


def similarity(m1, s1, m2, s2, c):
    """E exp(-|a - b|^2 / c) of two normals with independent elements."""
    wide = c + 2 * (s1**2 + s2**2)
    return torch.prod((c / wide).sqrt() * torch.exp(-((m1 - m2) ** 2) / wide))


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_mean_discrepancy_is_unbiased_for_its_closed_form(shift):
    m1, s1 = torch.tensor([shift, 0.0, -shift]), torch.tensor([1.0, 1.0 + shift, 1.0])
    m2, s2 = torch.zeros(3), torch.ones(3)
    discrepancy = MeanDiscrepancy("rbf", (0.2, 1.0))
    expected = sum(
        similarity(m1, s1, m1, s1, c) + similarity(m2, s2, m2, s2, c) - 2 * similarity(m1, s1, m2, s2, c)
        for c in (2 * 3 * 0.2, 2 * 3 * 1.0)
    )
    a, b = m1 + s1 * torch.randn(20_000, 6, 3), m2 + s2 * torch.randn(20_000, 4, 3)
    found = discrepancy(a, b)
    assert found.shape == (20_000,) and within(found, expected, errors=4)
    assert found.std() / 20_000**0.5 < 0.004  # so that an estimate with each draw paired with itself would not pass
    assert (expected == 0) == (shift == 0)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_the_mean_discrepancy_is_its_formula(kernel):
    a, b = torch.randn(5, 2).double(), torch.randn(4, 2).double()

    def k(one, other):
        r = ((one - other) ** 2).sum()
        return sum(c / (c + r) if kernel == "imq" else torch.exp(-r / c) for c in (2 * 2 * 0.3, 2 * 2 * 2.0))

    within_a = sum(k(a[i], a[j]) for i in range(5) for j in range(5) if i != j) / 20
    within_b = sum(k(b[i], b[j]) for i in range(4) for j in range(4) if i != j) / 12
    between = sum(k(one, other) for one in a for other in b) / 20
    found = MeanDiscrepancy(kernel, (0.3, 2.0))(a[None], b[None])
    torch.testing.assert_close(found[0], within_a + within_b - 2 * between)


def test_a_mean_discrepancy_takes_pairs_and_scales():
    with pytest.raises(ValueError, match=r"takes two draws of each or more; here are 1 and 3"):
        MeanDiscrepancy()(torch.zeros(1, 1, 2), torch.zeros(1, 3, 2))
    for scales in ((), (1.0, 0.0), (-1.0,), (math.inf,)):
        with pytest.raises(
            ValueError, match=r"scales=\[.*\] of a mean discrepancy must hold one number or more, positive"
        ):
            MeanDiscrepancy(scales=scales)


@pytest.mark.parametrize("kind", [Info, Wae])
def test_codes_are_drawn_to_the_prior_all_together(kind):
    """Means that are spread as the prior is are left alone; the same means moved are drawn back."""
    spread = torch.randn(400, D).double()
    for shift, far in ((0.0, False), (2.0, True)):
        loc = (spread + shift).requires_grad_()
        trace = trace_of(Site(loc[None], PointMass(loc, 1), standard(D)))
        goal = kind(beta=1.0)
        distance = goal.discrepancy.from_prior(trace.sites[0])
        assert (distance > 0.3) == far and (distance.abs() < 0.05) != far
        (pull,) = torch.autograd.grad(-distance, loc)
        assert (pull.mean() < -1e-4) == far


def test_info_and_wae_are_their_formulas(monkeypatch):
    site = site_of(posteriors(), k=3)
    trace = trace_of(site)
    monkeypatch.setattr(torch, "randn", lambda n, **kind: torch.linspace(-1, 1, math.prod(n), **kind).reshape(n))
    prior = site.p.rsample((3, N))
    for goal, kl in ((Info(alpha=0.25, beta=3.0), 0.75), (Wae(beta=3.0), 0.0)):
        distance = goal.discrepancy(site.z, prior).mean()  # with samples of one x in different sets
        expected = (trace.log_likelihood() - kl * trace.kl()).mean(0) - 3.0 * distance
        torch.testing.assert_close(goal(trace), expected)
    torch.testing.assert_close(Info(alpha=0.0, beta=0.0)(trace), Elbo()(trace))


def test_a_wasserstein_autoencoder_may_have_a_point_for_a_posterior():
    loc = torch.randn(20, D).double()
    trace = trace_of(Site(loc[None], PointMass(loc, 1), standard(D)))
    assert not trace.kl().isfinite().any()
    assert Wae()(trace).isfinite().all()
    torch.testing.assert_close(Wae(beta=0.0)(trace), Reconstruction()(trace))


def test_a_prior_that_would_learn_nothing_is_refused():
    prior = NormalMixture(torch.zeros(3).double(), posteriors(3))
    with pytest.raises(TypeError, match=r"those of a NormalMixture have no gradient.*Use model.prior=normal or flow"):
        Wae()(trace_of(site_of(posteriors(), prior)))
    assert Info()(trace_of(site_of(posteriors(), prior))).isfinite().all()


def correlated(n: int, rho: float) -> torch.Tensor:
    return MultivariateNormal(torch.zeros(D), torch.tensor([[1.0, rho], [rho, 1.0]])).sample((n,))


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_discriminator_learns_the_total_correlation(rho):
    goal = Factor(D, hidden=(64, 64))
    optimizer = torch.optim.Adam(goal.parameters(), lr=3e-3)
    for number in range(400):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - number / 400)
        optimizer.zero_grad()
        goal.lesson(correlated(500, rho)[None]).backward()
        optimizer.step()
    with torch.no_grad():
        z = correlated(20_000, rho)[None]
        assert goal.discriminator(z).mean() == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.06)
        log_ratio = MultivariateNormal(torch.zeros(D), torch.tensor([[1.0, rho], [rho, 1.0]])).log_prob(z)
        log_ratio = log_ratio - standard(D).log_prob(z.double())
        assert (goal.discriminator(z) - log_ratio).square().mean() < 0.05


def test_discriminator_and_codes_learn_from_their_own_part():
    goal = Factor(D, beta=3.0, hidden=(8,)).double()
    loc = torch.randn(N, D).double().requires_grad_()
    trace = trace_of(Site(loc[None], DiagonalNormal(loc, torch.ones_like(loc), 1), standard(D)))
    torch.manual_seed(5)
    value = goal(trace)
    with torch.no_grad():  # its own loss is not part of the value
        torch.testing.assert_close(value, Elbo()(trace) - 3.0 * goal.discriminator(trace.sites[0].z)[0])
    of_codes, *of_discriminator = torch.autograd.grad(-value.mean(), [loc, *goal.parameters()], retain_graph=True)
    torch.manual_seed(5)
    expected = torch.autograd.grad(goal.lesson(loc.detach()[None]), list(goal.parameters()))
    for found, alone in zip(of_discriminator, expected, strict=True):
        torch.testing.assert_close(found, alone)
    held = Elbo()(trace) - 3.0 * goal.discriminator(loc[None])[0]
    torch.testing.assert_close(of_codes, torch.autograd.grad(-held.mean(), loc)[0])


def test_codes_are_shuffled_over_the_batch_each_dimension_by_itself():
    goal = Factor(3, hidden=(4,))
    seen = []
    goal.discriminator.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    z = torch.arange(60.0).reshape(2, 10, 3)
    goal.lesson(z)
    true, shuffled = seen
    assert torch.equal(true, z) and not torch.equal(shuffled, z)
    assert torch.equal(shuffled.sort(1).values, z)  # every dimension keeps its values, sample set by sample set
    moved = (shuffled - torch.arange(3.0)).div(3)
    assert not torch.equal(moved[..., 0], moved[..., 1])


@pytest.mark.parametrize("of", ["means", "samples"])
def test_the_penalty_of_dip_is_on_the_covariance(of):
    q = posteriors(30)
    trace = trace_of(site_of(q))
    covariance = torch.cov(q.loc.T)
    if of == "samples":
        covariance = covariance + torch.diag(q.scale.square().mean(0))
        drawn = q.rsample((4000,)) - q.loc.mean(0)  # it is the covariance of the codes
        torch.testing.assert_close(
            drawn.flatten(0, 1).T @ drawn.flatten(0, 1) / 120_000, covariance, rtol=0.1, atol=0.05
        )
    off, on = covariance[0, 1] ** 2 * 2, (covariance.diagonal() - 1).square().sum()
    goal = Dip(beta=2.0, diagonal=5.0, of=of)
    torch.testing.assert_close(goal(trace), Elbo()(trace) - 2.0 * off - 10.0 * on)
    full = MultivariateNormal(q.loc, scale_tril=torch.diag_embed(q.scale))
    alike = Trace(trace.x, (Site(trace.sites[0].z, full, standard(D)),), trace.likelihood)
    torch.testing.assert_close(goal(alike), goal(trace))
    torch.testing.assert_close(Dip(beta=0.0, of=of)(trace), Elbo()(trace))


def test_the_penalty_of_dip_is_zero_for_codes_like_the_prior():
    half = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double() * math.sqrt(3 / 8)
    q = DiagonalNormal(half, torch.full_like(half, math.sqrt(0.5)), 1)  # 1/2 between them, and 1/2 of their own
    trace = trace_of(site_of(q))
    torch.testing.assert_close(Dip(beta=7.0, of="samples")(trace), Elbo()(trace))
    assert (Dip(beta=7.0, of="means")(trace) < Elbo()(trace)).all()


def test_information_below_its_floor_costs_and_above_it_does_not():
    line = torch.arange(8.0).double()[:, None].expand(8, D)
    for scale, information in ((0.01, math.log(8)), (1e6, 0.0)):
        trace = trace_of(site_of(DiagonalNormal(line, torch.full_like(line, scale), 1)))
        for floor in (0.5, 3.0):
            lacking = max(0.0, floor - information)
            expected = Elbo()(trace) - 4.0 * lacking
            torch.testing.assert_close(
                Mutual(floor, strength=4.0)(trace), expected, rtol=0, atol=1e-6 * abs(expected).max()
            )
    torch.testing.assert_close(Mutual(0.0)(trace), Elbo()(trace))


@pytest.mark.parametrize("b", [4, 64])
def test_information_is_estimated_from_below(b):
    known = LinearGaussian.random(x=4, z=2, scale=0.9)
    model = known.mean_field()
    q = model.encoder(known.sample(2))
    gain, _ = known.posterior()
    spread = gain @ known.marginal().covariance_matrix @ gain.mT
    own = torch.diag(q.variance[0])
    truth = 0.5 * (torch.logdet(spread + own) - torch.logdet(own))  # of z = gain x + noise, x normal
    estimates = []
    with torch.no_grad():
        for _ in range(300):
            trace = model(known.sample(b))
            lacking = Elbo()(trace).mean() - Mutual(100.0, strength=1.0)(trace).mean()
            estimates.append(100.0 - lacking)
    found = torch.stack(estimates)
    assert found.mean() < truth + 4 * found.std() / 300**0.5 and found.max() <= math.log(b) + 1e-9
    assert b == 4 or found.mean() > truth - 0.15


GOALS = [TotalCorrelation(40), Factor(2), Dip(), Info(), Mutual(), Wae()]


@pytest.mark.parametrize(
    "goal", [goal for goal in GOALS if not isinstance(goal, Factor)], ids=lambda goal: type(goal).__name__
)
def test_half_precision_is_for_networks(goal):
    case = MODELS["bernoulli"]
    x = case.data().fixed("train")
    with torch.no_grad():
        trace = case.make(x)(x)
        torch.manual_seed(3)
        expected = goal(trace)
        with torch.autocast("cpu", torch.bfloat16):
            torch.manual_seed(3)
            torch.testing.assert_close(goal(trace), expected)


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: type(goal).__name__)
def test_one_latent_variable_is_asked_for(goal):
    case = MODELS["ladder"]
    x = case.data().fixed("train")
    with pytest.raises(ValueError, match=r"derived for one latent variable; this model has 3. Use '(elbo|free_bits)'"):
        goal(case.make(x)(x))


@pytest.mark.parametrize(
    "goal, model, match",
    [
        (
            TotalCorrelation(40),
            "full_vamp",
            r"dimensions of a MultivariateNormal are not independent.*model.posterior=norm",
        ),
        (Mutual(), "iaf_flow", r"dimensions of a Remembered are not independent"),
        (
            Dip(),
            "mixture",
            r"here are DiagonalNormal and NormalMixture. Use model.posterior=normal and model.prior=normal",
        ),
        (Dip(), "iaf_flow", r"a posterior whose covariance is known"),
    ],
)
def test_a_posterior_or_prior_that_does_not_fit_is_named(goal, model, match):
    case = MODELS[model]
    x = case.data().fixed("train")
    with pytest.raises(TypeError, match=match):
        goal(case.make(x)(x))


def test_a_discriminator_for_another_size_is_refused():
    with pytest.raises(
        ValueError, match=r"reads codes of 3 elements, and those of this model have 2: set objective.lat"
    ):
        Factor(3)(trace_of(site_of(posteriors())))


@pytest.mark.parametrize(
    "make, names",
    [
        (lambda: TotalCorrelation(1, -1.0, -2.0, math.inf), ("rows", "beta", "alpha", "gamma")),
        (lambda: Factor(0, -1.0, (0,)), ("latent", "beta", "hidden")),
        (lambda: Dip(-1.0, -1.0), ("beta", "diagonal")),
        (lambda: Info(1.0, -1.0), ("alpha", "beta")),
        (lambda: Wae(math.nan), ("beta",)),
        (lambda: Mutual(-1.0, -1.0), ("nats", "strength")),
    ],
)
def test_numbers_that_cannot_be_are_listed(make, names):
    with pytest.raises(ValueError, match=r"^objective '\w+' cannot be so: ") as caught:
        make()
    assert all(f"{name}=" in str(caught.value) for name in names)
