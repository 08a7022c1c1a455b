"""The aggregated posterior against the prior: each term against its exact value."""

import math

import pytest
import torch
import zuko
from torch.distributions import MultivariateNormal

from helpers import MODELS, LinearGaussian
from lowerbound import priors
from lowerbound.distributions import DiagonalNormal, PointMass
from lowerbound.metrics import Decomposition, Estimate, aggregated_log_prob, decompose, holes, strays


def standard(*event: int, dtype: torch.dtype = torch.float64) -> DiagonalNormal:
    return DiagonalNormal(torch.zeros(event, dtype=dtype), torch.ones(event, dtype=dtype), len(event))


def close(found: Estimate | None, exact: float, errors: float = 4.0) -> bool:
    return found is not None and abs(found.mean - exact) <= errors * found.standard_error


def adds_up(parts: Decomposition) -> None:
    assert parts.mutual_information.mean + parts.gap.mean == pytest.approx(parts.kl.mean, abs=1e-9)
    if parts.total_correlation is not None and parts.dimension_wise is not None:
        assert parts.total_correlation.mean + parts.dimension_wise.mean == pytest.approx(parts.gap.mean, abs=1e-9)


@pytest.mark.parametrize("name", ["bernoulli", "full_vamp", "iaf_flow", "mixture", "conv", "spatial"])
def test_the_terms_add_up_to_the_kl_whatever_the_model(name):
    case = MODELS[name]
    x = case.data().fixed("train")
    with torch.no_grad():
        site = case.make(x).eval()(x).sites[0]
    parts = decompose(site.z[0], site.q, site.p)
    adds_up(parts)
    assert parts.n == len(x)
    assert parts.kl.mean == pytest.approx((site.q.log_prob(site.z) - site.p.log_prob(site.z)).mean().item(), rel=1e-3)
    assert (parts.total_correlation is not None) == isinstance(site.q, DiagonalNormal)
    assert (parts.dimension_wise is not None) == (isinstance(site.q, DiagonalNormal) and name in ("bernoulli", "conv"))


@pytest.mark.parametrize(
    "prior", [priors.Mixture((3,), 4), zuko.flows.NSF(3, transforms=2, hidden_features=(8,))], ids=["mixture", "flow"]
)
def test_the_prior_is_any_distribution(prior):
    q = DiagonalNormal(torch.randn(50, 3), torch.rand(50, 3) + 0.1, 1)
    z = q.rsample()
    parts = decompose(z, q, prior())
    adds_up(parts)
    assert parts.total_correlation is not None and parts.dimension_wise is None
    same = decompose(z, q, standard(3, dtype=torch.float32))
    assert parts.mutual_information == same.mutual_information  # no matter of the prior's


def test_of_a_linear_gaussian_model_every_term_is_known():
    """Each posterior is diag(scale^2) around a linear map of x, so that q(z) is normal with covariance S."""
    exact = LinearGaussian.random(x=5, z=3)
    with torch.no_grad():
        site = exact.mean_field(shift=0.3)(exact.sample(3000)).sites[0]
    gain, _ = exact.posterior()
    noise = site.q.variance[0]
    total = gain @ exact.marginal().covariance_matrix @ gain.mT + torch.diag(noise)
    log_det = torch.logdet(total).item()
    variances = total.diagonal()
    parts = decompose(site.z[0], site.q, site.p)
    adds_up(parts)
    assert close(parts.mutual_information, 0.5 * (log_det - noise.log().sum().item()))
    assert close(parts.total_correlation, 0.5 * (variances.log().sum().item() - log_det))
    assert close(parts.dimension_wise, 0.5 * (variances + 0.3**2 - 1 - variances.log()).sum().item())
    assert parts.mutual_information.standard_error < 0.05


def test_with_the_exact_posterior_the_gap_is_the_bias_of_few_data():
    """There is none. The chi-squared distance of the posteriors from the prior is 1 / det(covariance) - 1."""
    exact = LinearGaussian.random(scale=2.0)
    model, (_, covariance) = exact.model(), exact.posterior()
    found = []
    for _ in range(60):
        with torch.no_grad():
            site = model(exact.sample(200)).sites[0]
        found.append(decompose(site.z[0], site.q, site.p))
    bias = (1 / torch.det(covariance).item() - 1) / (2 * 200)
    information = -0.5 * torch.logdet(covariance).item()
    gap = Estimate.of(torch.tensor([parts.gap.mean for parts in found]))
    known = Estimate.of(torch.tensor([parts.mutual_information.mean for parts in found]))
    assert bias > 5 * gap.standard_error  # or the test could not see it
    assert gap.mean == pytest.approx(bias, rel=0.35)
    assert close(known, information - bias)
    assert found[0].total_correlation is None and found[0].dimension_wise is None


def test_the_information_of_few_posteriors_is_that_of_quadrature():
    loc = torch.tensor([-1.0, 0.2, 0.5, 3.0], dtype=torch.float64)
    scale = torch.tensor([0.5, 1.0, 0.3, 0.7], dtype=torch.float64)
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    log_q = DiagonalNormal(loc[:, None], scale[:, None], 0).log_prob(grid)
    log_mean = log_q.logsumexp(0) - math.log(4)
    information = ((log_q.exp() * (log_q - log_mean)).sum(1) * (grid[1] - grid[0])).mean().item()
    q = DiagonalNormal(loc.repeat(500)[:, None], scale.repeat(500)[:, None], 1)
    parts = decompose(q.rsample(), q, standard(1))
    assert close(parts.mutual_information, information)
    assert parts.total_correlation.mean == pytest.approx(0, abs=1e-12)  # of one dimension
    kl = 0.5 * (scale.square() + loc.square() - 1 - 2 * scale.log()).mean().item()
    assert close(parts.kl, kl)


def test_isolated_posteriors_know_which_datum_it_is():
    loc = 100 * torch.arange(40.0)[:, None].expand(-1, 2)
    q = DiagonalNormal(loc, torch.ones(40, 2), 1)
    parts = decompose(q.rsample(), q, standard(2, dtype=torch.float32))
    assert parts.mutual_information.mean == pytest.approx(math.log(40), abs=1e-9)
    # both dimensions tell the datum, and one would do
    assert parts.total_correlation.mean == pytest.approx(math.log(40), abs=1e-9)


def test_a_collapsed_posterior_knows_nothing():
    q = standard(3).expand((200,))
    parts = decompose(q.rsample(), q, standard(3))
    for part in (parts.kl, parts.mutual_information, parts.gap, parts.total_correlation, parts.dimension_wise):
        assert part.mean == pytest.approx(0, abs=1e-9)


def test_the_total_correlation_of_correlated_codes():
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    loc = MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance).sample((2000,))
    q = DiagonalNormal(loc, torch.full_like(loc, 0.5), 1)
    parts = decompose(q.rsample(), q, standard(2))
    rho = 0.8 / 1.25
    assert close(parts.total_correlation, -0.5 * math.log(1 - rho**2))


def test_the_total_correlation_of_independent_dimensions_is_not_negative_beyond_its_error():
    found = []
    for _ in range(20):
        loc = torch.randn(300, 4)
        q = DiagonalNormal(loc, torch.full_like(loc, 0.7), 1)
        found.append(decompose(q.rsample(), q, standard(4, dtype=torch.float32)).total_correlation)
    assert all(part.mean > -3 * part.standard_error for part in found)


def test_standard_errors_are_the_spread_over_new_data():
    found = []
    for _ in range(150):
        loc = torch.randn(200, 2)
        q = DiagonalNormal(loc, torch.full_like(loc, 0.8), 1)
        found.append(decompose(q.rsample(), q, standard(2, dtype=torch.float32)))
    for name in ("kl", "mutual_information", "gap"):
        estimates = [getattr(parts, name) for parts in found]
        spread = torch.tensor([e.mean for e in estimates]).std().item()
        said = torch.tensor([e.standard_error for e in estimates]).mean().item()
        assert 0.8 * spread < said < 1.3 * spread, name


def test_narrow_posteriors_far_out_lose_no_digits():
    loc = 1000 + torch.randn(30, 2)
    q = DiagonalNormal(loc, torch.full_like(loc, 1e-3), 1)
    parts = decompose(loc, q, standard(2, dtype=torch.float32))
    assert parts.mutual_information.mean == pytest.approx(math.log(30), abs=1e-3)


def test_the_chunks_make_no_difference(monkeypatch):
    q = DiagonalNormal(torch.randn(70, 2, 3), torch.rand(70, 2, 3) + 0.1, 2)
    z = q.rsample()
    whole = decompose(z, q, standard(2, 3, dtype=torch.float32))
    monkeypatch.setattr("lowerbound.metrics.aggregate.CHUNK", 100)
    parts = decompose(z, q, standard(2, 3, dtype=torch.float32))
    for name in ("kl", "mutual_information", "gap", "total_correlation", "dimension_wise"):
        assert getattr(parts, name).mean == pytest.approx(getattr(whole, name).mean, abs=1e-12)


def test_the_aggregated_density_is_the_mean_of_all():
    q = DiagonalNormal(torch.randn(9, 2, dtype=torch.float64), torch.rand(9, 2, dtype=torch.float64) + 0.1, 1)
    z = torch.randn(7, 2, dtype=torch.float64)
    torch.testing.assert_close(aggregated_log_prob(q, z).exp(), q.log_prob(z[:, None]).exp().mean(1))


def test_what_has_no_terms_is_refused():
    q = standard(2).expand((5,))
    with pytest.raises(ValueError, match="one sample of each"):
        decompose(torch.zeros(4, 2).double(), q, standard(2))
    with pytest.raises(ValueError, match="two data or more"):
        decompose(torch.zeros(1, 2).double(), standard(2).expand((1,)), standard(2))
    with pytest.raises(ValueError, match="take the top level"):
        decompose(q.rsample(), q, q)
    point = PointMass(torch.randn(5, 2), 1)
    with pytest.raises(ValueError, match="plain autoencoder, has no density"):
        decompose(point.rsample(), point, standard(2, dtype=torch.float32))


def matching(n: int) -> tuple[DiagonalNormal, torch.Tensor]:
    """Posteriors whose aggregate is a standard normal in two dimensions, and a sample of each."""
    q = DiagonalNormal(0.6 * torch.randn(n, 2), torch.full((n, 2), 0.8), 1)
    return q, q.rsample()


def test_a_prior_that_matches_has_as_many_holes_as_the_quantile_says():
    scores = []
    for _ in range(30):
        q, _ = matching(400)
        _, held_out = matching(1000)
        found = holes(q, held_out, torch.randn(1000, 2), quantile=0.05)
        scores.append((found.mean - 0.05) / found.standard_error)
    scores = torch.tensor(scores)
    assert abs(scores.mean()) < 0.6 and 0.6 < scores.std() < 1.4


def test_a_prior_that_is_too_wide_has_holes_of_a_known_share():
    q, _ = matching(3000)
    _, held_out = matching(3000)
    found = holes(q, held_out, 2 * torch.randn(3000, 2))
    # |z|^2 is exponential: the 1 % tail of N(0, I) is beyond -2 log 0.01, which N(0, 4 I) passes with 0.01^(1/4)
    assert close(found, 0.01**0.25)


def test_a_prior_elsewhere_is_one_hole_and_one_inside_has_none():
    q, _ = matching(300)
    _, held_out = matching(300)
    far, inside = holes(q, held_out, 100 + torch.randn(200, 2)), holes(q, held_out, 0.1 * torch.randn(200, 2))
    assert far.mean == 1 and inside.mean == 0
    assert far.standard_error > 0 and inside.standard_error > 0


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_codes_stray_from_a_prior_as_often_as_its_own_draws_and_wider_ones_more(scale):
    codes, draws = scale * torch.randn(4000, 2), torch.randn(20_000, 2)
    found = strays(standard(2, dtype=torch.float32), codes, draws, part=0.9)
    # |z|^2 / 2 is exponential: its middle 90 % lie between -log 0.95 and -log 0.05, and codes are wider by the square
    inside = 0.95 ** (1 / scale**2) - 0.05 ** (1 / scale**2)
    assert found.mean == pytest.approx(1 - inside, abs=4 * found.standard_error + 0.005)


def test_points_that_lie_elsewhere_all_stray():
    prior, draws = standard(20, dtype=torch.float32), torch.randn(1000, 20)
    near, far = torch.zeros(50, 20), torch.full((50, 20), 5.0)  # at the mode is elsewhere, in many dimensions
    assert strays(prior, near, draws).mean == strays(prior, far, draws).mean == 1
    for part, codes, own in ((1.0, near, draws), (0.98, near[:0], draws), (0.98, near, draws[:50])):
        with pytest.raises(ValueError, match="give a part between 0 and 1, one code or more, and draws enough"):
            strays(prior, codes, own, part)


def test_points_have_no_holes_to_speak_of():
    with pytest.raises(ValueError, match="500 of 500 held-out samples: posteriors that are point masses"):
        holes(PointMass(torch.randn(100, 2), 1), torch.randn(500, 2), torch.randn(500, 2))


@pytest.mark.parametrize("quantile, held", [(0.0, 500), (1.0, 500), (0.01, 50)])
def test_a_quantile_that_cannot_be_taken_is_refused(quantile, held):
    q, z = matching(500)
    with pytest.raises(ValueError, match="a quantile lies between 0 and 1"):
        holes(q, z[:held], z, quantile)
