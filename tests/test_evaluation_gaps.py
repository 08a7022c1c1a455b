"""The inference gap: its parts are those of a model where both are known."""

import sys

import pytest
import torch
from torch import nn

from helpers import LinearGaussian, ladder
from lowerbound import families, priors, recipes
from lowerbound.evaluation import inference_gap
from lowerbound.metrics import Estimate
from lowerbound.models import VAE, Conditional


def agrees(found: Estimate, expected: float, floor: float = 0.02) -> bool:
    return abs(found.mean - expected) < 4 * found.standard_error + floor


def parts(exact: LinearGaussian, shift: float) -> tuple[float, float]:
    """KL of the best diagonal normal to the posterior, and what moving it and its wider spread cost on top."""
    _, covariance = exact.posterior()
    precision = torch.linalg.inv(covariance)
    approximation = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    moved = torch.full((len(precision),), shift, dtype=torch.float64)
    variance = covariance.diagonal()  # of `mean_field`; the best has 1 / precision
    total = 0.5 * (
        (precision.diagonal() * variance).sum()
        + moved @ precision @ moved
        - len(precision)
        - variance.log().sum()
        - torch.logdet(precision)
    )
    return approximation.item(), (total - approximation).item()


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_both_gaps_of_a_diagonal_posterior_are_the_known_ones(shift):
    exact = LinearGaussian.random(x=6, z=3)
    x = exact.sample(60)
    found = inference_gap(exact.mean_field(shift), x)
    approximation, amortisation = parts(exact, shift)
    assert agrees(found.approximation, approximation)
    assert agrees(found.amortisation, amortisation)
    assert found.total.mean == pytest.approx(found.approximation.mean + found.amortisation.mean)
    assert agrees(Estimate.of(found.evidence - exact.marginal().log_prob(x)), 0.0)
    # a normal of full covariance can be the posterior itself
    assert agrees(Estimate.of(exact.marginal().log_prob(x) - found.richer), 0.0, floor=0.05)


def full_posterior(exact: LinearGaussian, shift: float) -> VAE:
    """The true posterior as a network and a family, its centre moved on request."""
    gain, covariance = exact.posterior()
    family = families.FullNormal((len(covariance),)).double()
    tril = torch.linalg.cholesky(covariance)
    net = nn.Linear(len(exact.centre), family.shape[0]).double()
    spread = torch.cat((families.unconstrained(tril.diagonal()), tril[family.below[0], family.below[1]]))
    with torch.no_grad():
        net.weight.copy_(torch.cat((gain, torch.zeros(len(spread), gain.shape[1], dtype=torch.float64))))
        net.bias.copy_(torch.cat((shift - gain @ exact.centre, spread)))
    return VAE(Conditional(net, family), priors.StandardNormal((len(covariance),)).double(), exact.decoder())


def test_the_true_posterior_has_no_gap():
    exact = LinearGaussian.random()
    x = exact.sample(30)
    found = inference_gap(full_posterior(exact, 0.0), x)
    assert found.richer is None
    torch.testing.assert_close(found.encoder, exact.marginal().log_prob(x), rtol=0, atol=1e-6)
    assert agrees(found.approximation, 0.0) and agrees(found.amortisation, 0.0)


def test_a_moved_posterior_of_the_true_family_loses_by_amortisation_alone():
    exact = LinearGaussian.random()
    _, covariance = exact.posterior()
    shift = torch.full((2,), 0.3, dtype=torch.float64)
    found = inference_gap(full_posterior(exact, 0.3), exact.sample(60), temperatures=0)
    assert agrees(found.approximation, 0.0)
    assert agrees(found.amortisation, (0.5 * shift @ torch.linalg.inv(covariance) @ shift).item(), floor=0.05)
    assert found.means == "importance sampling"


@pytest.mark.parametrize("posterior", ["normal", "iaf", "sphere"])
def test_any_family_can_be_searched(posterior):
    x = torch.randint(0, 2, (60, 6)).float()
    prior = "sphere" if posterior == "sphere" else "normal"
    model = recipes.mlp(x, event=(6,), latent=2, hidden=(8,), posterior=posterior, prior=prior)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(0.3 * torch.randn_like(p))
    found = inference_gap(model, x[:20], steps=100, temperatures=20 if posterior == "sphere" else 0)
    assert found.amortisation.mean > 0.05 and found.approximation.mean > -0.05
    assert (found.richer is None) == (posterior != "normal") and found.means == "importance sampling"
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_rows_are_searched_as_many_at_a_time_as_memory_holds(monkeypatch):
    exact = LinearGaussian.random(x=6, z=3)
    x = exact.sample(60)
    model = exact.mean_field(0.3)
    passed = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: passed.append(inputs[0].shape[:-1].numel()))
    monkeypatch.setattr("lowerbound.evaluation.gaps.DECODED", 4 * 6 * 25)  # 25 rows with 4 samples each
    monkeypatch.setattr(sys.modules["lowerbound.evaluation.tightness"], "DECODED", 6 * 100)
    found = inference_gap(model, x, temperatures=0)
    assert max(passed) <= 100 and len(found.evidence) == 60
    approximation, amortisation = parts(exact, 0.3)
    assert agrees(found.approximation, approximation) and agrees(found.amortisation, amortisation)


def test_what_has_no_gap_to_split_is_refused():
    exact = LinearGaussian.random()
    x = exact.sample(3)
    with pytest.raises(ValueError, match=r"not one Conditional.*no parameters of q to move"):
        inference_gap(exact.model(), x)
    with pytest.raises(ValueError, match=r"not one Conditional"):
        inference_gap(ladder(), torch.randn(3, 6))
    point = recipes.mlp(torch.rand(9, 6).round(), event=(6,), latent=2, hidden=(8,), posterior="point")
    with pytest.raises(ValueError, match=r"this posterior is a point.*model.posterior=normal"):
        inference_gap(point, torch.ones(3, 6))
    for wrong in (dict(steps=0), dict(k=0), dict(temperatures=-1)):
        with pytest.raises(ValueError, match=r"give 1 or more of steps, samples and rows"):
            inference_gap(exact.mean_field(), x, **wrong)
    with pytest.raises(ValueError, match=r"0 rows"):
        inference_gap(exact.mean_field(), x[:0])
