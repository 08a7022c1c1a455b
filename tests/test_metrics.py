"""Metrics: numbers from traces, against numpy and by hand."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import kl_divergence

from helpers import MODELS, LinearGaussian
from lowerbound.distributions import DiagonalNormal
from lowerbound.metrics import Estimate, Moments, kl_per_dimension, posterior_mean
from lowerbound.models import Site


def test_an_estimate_is_numpys_mean_and_standard_error():
    values = np.random.default_rng(0).normal(3, 2, 500).astype(np.float32)
    found = Estimate.of(torch.from_numpy(values))
    assert found.mean == pytest.approx(values.mean(dtype=np.float64))
    assert found.standard_error == pytest.approx(values.std(ddof=1, dtype=np.float64) / np.sqrt(500))


def test_an_estimate_of_one_value_knows_that_it_does_not_know():
    found = Estimate.of(torch.tensor([2.5]))
    assert found.mean == 2.5 and math.isnan(found.standard_error)
    assert str(found) == "2.5"


def test_an_estimate_is_added_up_in_double_precision():
    values = torch.full((100_000,), 1e4, dtype=torch.float32)
    values[::2] += 1
    assert Estimate.of(values).mean == 10_000.5


@pytest.mark.parametrize(
    "mean, error, text",
    [
        (-81.234, 0.1234, "-81.23 ± 0.12"),
        (5.0, 12.0, "5 ± 12"),
        (0.123456, 0.00123, "0.1235 ± 0.0012"),
        (1e4, 0.0, "1e+04"),
    ],
)
def test_an_estimate_shows_the_digits_that_its_error_supports(mean, error, text):
    assert str(Estimate(mean, error)) == text


@pytest.mark.parametrize("hits", [0, 30, 150, 300])
def test_the_error_of_a_share_is_the_binomials_and_never_zero(hits):
    found = Estimate.of_share(hits, 300)
    assert found.mean == hits / 300
    binomial = math.sqrt(found.mean * (1 - found.mean) / 300)
    assert binomial <= found.standard_error + 1e-6 and 0 < found.standard_error < 1.1 * binomial + 0.004


def test_an_estimate_in_other_units():
    assert Estimate(-2.0, 0.5) * -3.0 == Estimate(6.0, 1.5)


@pytest.mark.parametrize("sizes", [[10], [1, 9], [3, 3, 4], [1] * 10])
def test_moments_are_numpys_however_the_rows_arrive(sizes):
    rows = 1e6 + torch.randn(10, 2, 3)
    moments = Moments()
    for part in rows.split(sizes):
        moments.add(part)
    expected = rows.numpy().astype(np.float64)
    np.testing.assert_allclose(moments.mean, expected.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance(), expected.var(0, ddof=1), rtol=1e-6)
    assert moments.n == 10


def test_the_variance_of_one_row_is_zero():
    moments = Moments()
    moments.add(torch.randn(1, 3))
    assert torch.equal(moments.variance(), torch.zeros(3).double())


@pytest.mark.parametrize("name", ["bernoulli", "conv", "ladder"])
def test_the_kl_of_the_dimensions_adds_up(name):
    case = MODELS[name]
    x = case.data().fixed("train")
    trace = case.make(x).eval()(x[:5], k=4)
    for site in trace.sites:
        by_dimension = kl_per_dimension(site)
        assert by_dimension.shape == (5, *site.z.shape[2:])
        kl = site.kl()
        expected = kl.mean(0) if kl.ndim == 2 else kl
        torch.testing.assert_close(by_dimension.flatten(1).sum(1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["full_vamp", "iaf_flow", "mixture"])
def test_what_does_not_factorise_has_no_kl_by_dimension(name):
    case = MODELS[name]
    x = case.data().fixed("train")
    assert kl_per_dimension(case.make(x)(x[:5]).sites[0]) is None


def test_the_mean_of_a_posterior_is_exact_where_it_is_known():
    q = DiagonalNormal(torch.randn(5, 2), torch.ones(5, 2), 1)
    site = Site(q.rsample((3,)), q, q)
    assert torch.equal(posterior_mean(site), q.mean)
    above = DiagonalNormal(torch.randn(3, 5, 2), torch.ones(3, 5, 2), 1)  # one posterior for each sample above
    assert torch.equal(posterior_mean(Site(above.rsample(), above, above)), above.mean.mean(0))
    assert kl_divergence(q, q).abs().max() == 0


def test_the_mean_of_a_flow_is_that_of_its_samples():
    case = MODELS["iaf_flow"]
    x = case.data().fixed("train")
    site = case.make(x)(x[:5], k=7).sites[0]
    torch.testing.assert_close(posterior_mean(site), site.z.mean(0))


def test_the_mean_of_the_exact_posterior():
    exact = LinearGaussian.random()
    gain, _ = exact.posterior()
    x = exact.sample(6)
    torch.testing.assert_close(posterior_mean(exact.model()(x).sites[0]), (x - exact.centre) @ gain.mT)
