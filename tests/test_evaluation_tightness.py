"""Tightness: one set of weights, bounds that rise with their number."""

import math

import pytest
import torch

from helpers import LinearGaussian, ladder, within
from lowerbound.evaluation import evaluate, tightness


def test_bounds_rise_on_every_datum_towards_the_evidence():
    exact = LinearGaussian.random()
    model, x = exact.mean_field(0.2), exact.sample(50)
    found = tightness(model, x, ks=(1, 5, 50, 1000))
    assert (found.bounds.diff(dim=0) >= -1e-9).all()
    assert (found.bounds[-1] - exact.marginal().log_prob(x)).abs().mean() < 0.1
    for k in (1, 5, 50):
        assert found.bound(k).mean == pytest.approx(evaluate(model, x, k=k).bound.mean, abs=0.5)


@pytest.mark.parametrize("k", [1, 5])
def test_the_bound_with_few_of_many_samples_is_that_with_few(k):
    exact = LinearGaussian.random()
    model, x = exact.mean_field(0.3), exact.sample(4)
    parts = torch.stack([tightness(model, x, ks=(k, 20), seed=seed).bounds[0] for seed in range(60)])
    whole = torch.stack([evaluate(model, x, k=k, seed=seed).values for seed in range(600)])
    spread = (parts.var(0) / 60 + whole.var(0) / 600).sqrt()
    assert ((parts.mean(0) - whole.mean(0)).abs() < 5 * spread).all()


def test_all_weights_count_where_the_posterior_is_true():
    exact = LinearGaussian.random()
    x = exact.sample(7)
    found = tightness(exact.model(), x, ks=(1, 100))
    torch.testing.assert_close(found.effective, torch.full((7,), 100.0, dtype=torch.float64))
    torch.testing.assert_close(found.bounds, exact.marginal().log_prob(x).expand(2, 7), rtol=0, atol=1e-9)


def test_fewer_count_where_it_is_not():
    """For weights that are log-normal of variance s, k exp(-s) of k count."""
    exact = LinearGaussian(torch.eye(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 1.0)
    _, covariance = exact.posterior()
    shift = 0.5
    found = tightness(exact.mean_field(shift), exact.sample(2000), ks=(1, 1000))
    # moving a normal of variance c by d makes log-weights normal with variance d^2 / c
    expected = 1000 * math.exp(-(shift**2) / covariance.item())
    assert found.effective.mean() == pytest.approx(expected, rel=0.05)


def test_several_latent_variables_are_one_weight():
    model, x = ladder(), torch.randn(40, 6)
    found = tightness(model, x, ks=(1, 10))
    assert within(found.bounds[0] - evaluate(model, x, k=200).values, 0.0) or found.bounds[0].mean() < 0
    assert (found.effective >= 1 - 1e-9).all() and (found.effective <= 10 + 1e-9).all()


@pytest.mark.parametrize("ks", [(), (0, 10), (3, 10), (10, 5)])
def test_numbers_that_do_not_divide_each_other_are_refused(ks):
    exact = LinearGaussian.random()
    with pytest.raises(ValueError, match=r"each a multiple of the one before"):
        tightness(exact.model(), exact.sample(3), ks=ks)
