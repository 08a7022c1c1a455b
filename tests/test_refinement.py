"""Refinement: posteriors that are improved for each datum, and bounds that stay bounds."""

import sys

import pytest
import torch
from torch import nn

from helpers import MODELS, LinearGaussian, within
from lowerbound import families, priors, recipes
from lowerbound.evaluation import inference_gap, refine, refined_bound
from lowerbound.models import VAE, Conditional


def full(exact: LinearGaussian, shift: float) -> VAE:
    """A model whose family holds the true posterior, and whose encoder is off by a shift."""
    gain, covariance = exact.posterior()
    n = len(covariance)
    family = families.FullNormal((n,)).double()
    tril = torch.linalg.cholesky(covariance)
    net = nn.Linear(len(exact.centre), family.shape[0]).double()
    spread = torch.cat((families.unconstrained(tril.diagonal()), tril[family.below[0], family.below[1]]))
    with torch.no_grad():
        net.weight.copy_(torch.cat((gain, torch.zeros(len(spread), gain.shape[1], dtype=torch.float64))))
        net.bias.copy_(torch.cat((shift - gain @ exact.centre, spread)))
    return VAE(Conditional(net, family), priors.StandardNormal((n,)).double(), exact.decoder())


def test_refinement_reaches_the_exact_evidence():
    exact = LinearGaussian.random(x=5, z=3)
    x = exact.sample(50)
    found = refined_bound(full(exact, 0.4), x, steps=150, k=300, lr=0.05)
    truth = exact.marginal().log_prob(x)
    before, after = truth - found.amortised_elbo, truth - found.refined_elbo
    assert before.mean() > 0.3 and after.mean() < 0.03 and found.better.all()
    assert (truth - found.refined).abs().mean() < 0.05 < (truth - found.amortised).abs().mean()
    assert found.elbo_gain.mean == pytest.approx((before - after).mean().item())


def test_a_refined_bound_is_a_bound():
    exact = LinearGaussian.random(x=5, z=3)
    x = exact.sample(1).expand(2000, 5)
    for steps in (1, 30):
        found = refined_bound(exact.mean_field(0.5), x, steps=steps, k=4)
        ratio = (found.refined - exact.marginal().log_prob(x)).exp()
        assert within(ratio, 1.0) and ratio.std() > 0.01  # unbiased for p(x), and so below log p(x)
        assert (found.refined_elbo - exact.marginal().log_prob(x)).mean() < 0


def test_refinement_closes_the_amortisation_gap():
    exact = LinearGaussian.random(x=6, z=3)
    x, model = exact.sample(40), exact.mean_field(0.3)
    gap = inference_gap(model, x, temperatures=0)
    found = refined_bound(model, x, steps=200, k=500)
    assert abs(found.elbo_gain.mean - gap.amortisation.mean) < 0.05
    assert found.gain.mean < found.elbo_gain.mean


@pytest.mark.parametrize("lr", [1e-6, 30.0])
def test_a_search_that_ends_lower_is_not_kept(lr):
    exact = LinearGaussian.random(x=5, z=3)
    x = exact.sample(200)
    found = refined_bound(full(exact, 0.0), x, steps=3, k=20, lr=lr)  # the encoder is right: nothing can be gained
    assert found.elbo_gain.mean > -1e-6
    if lr > 1:
        assert not found.better.any()
        assert torch.equal(found.refined, found.amortised)


@pytest.mark.parametrize("name", list(MODELS))
def test_any_model_is_refined_and_left_as_it_was(name):
    case = MODELS[name]
    x = case.data().fixed("train")
    model = case.make(x).train()
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(0.1 * torch.randn_like(p))
    before = {n: t.clone() for n, t in model.state_dict().items()}
    noise = torch.get_rng_state()
    found = refined_bound(model, x[:12], steps=20, k=20)
    assert torch.equal(torch.get_rng_state(), noise) and model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert found.elbo_gain.mean > 0 and found.better.any()
    again = refined_bound(model, x[:12], steps=20, k=20)
    assert torch.equal(found.refined, again.refined)
    # what is given back is what a trace takes
    code = refine(model.eval(), x[:12], steps=20)
    drawn = model.trace(x[:12], code, k=200).log_weight().mean(0)
    assert drawn.mean() > found.amortised_elbo.mean()


def test_rows_are_searched_as_many_at_a_time_as_memory_holds(monkeypatch):
    exact = LinearGaussian.random(x=6, z=3)
    x, model = exact.sample(25), exact.mean_field(0.3)
    passed = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: passed.append(inputs[0].shape[:-1].numel()))
    for file in ("refinement", "tightness"):
        monkeypatch.setattr(sys.modules[f"lowerbound.evaluation.{file}"], "DECODED", 4 * 6 * 10)
    found = refined_bound(model, x, steps=10)
    assert max(passed) <= 40 and len(found.refined) == 25 and found.elbo_gain.mean > 0
    assert refine(model, x, steps=10).batch_shape == (25,)


def test_what_cannot_be_refined_is_refused():
    exact = LinearGaussian.random()
    x = exact.sample(3)
    with pytest.raises(ValueError, match=r"not one Conditional.*no parameters of q to move"):
        refined_bound(exact.model(), x)
    point = recipes.mlp(torch.rand(9, 6).round(), event=(6,), latent=2, hidden=(8,), posterior="point")
    with pytest.raises(ValueError, match=r"this posterior is a point.*model.posterior=normal"):
        refine(point, torch.ones(3, 6))
    for wrong in (dict(steps=0), dict(lr=0.0)):
        with pytest.raises(ValueError, match=r"give 1 or more of steps and rows, and a positive lr"):
            refine(exact.mean_field(), x, **wrong)
    with pytest.raises(ValueError, match=r"0 rows"):
        refined_bound(exact.mean_field(), x[:0])
    with pytest.raises(ValueError, match=r"k=0: give 1 sample or more"):
        refined_bound(exact.mean_field(), x, k=0)
