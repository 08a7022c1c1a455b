"""Evaluation: the number reported is the thing named, for any k, batch and chunk."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from helpers import MODELS, LinearGaussian, within
from lowerbound import families, recipes
from lowerbound.distributions import DiagonalNormal
from lowerbound.evaluation import annealed_bound, bracket, evaluate, inference_gap, tightness
from lowerbound.models import VAE, Conditional
from lowerbound.priors import StandardNormal

DIVISIONS = [dict(batch=256), dict(batch=7), dict(batch=1, chunk=1), dict(batch=5, chunk=13), dict(chunk=3)]


@pytest.mark.parametrize("division", DIVISIONS)
@pytest.mark.parametrize("k", [1, 7, 100])
def test_the_bound_is_the_evidence_where_the_posterior_is_true(k, division):
    exact = LinearGaussian.random()
    x = exact.sample(23)
    truth = exact.marginal().log_prob(x)
    found = evaluate(exact.model(), x, k=k, **division)
    torch.testing.assert_close(found.values, truth, rtol=0, atol=1e-9)
    assert found.bound.mean == pytest.approx(truth.mean().item(), abs=1e-9)
    assert found.bound.standard_error == pytest.approx(np.std(truth.numpy(), ddof=1) / 23**0.5)
    assert found.is_bound and found.k == k and found.dims == 4


@pytest.mark.parametrize("division", DIVISIONS)
def test_any_division_of_the_samples_estimates_the_same_bound(division):
    exact = LinearGaussian.random()
    model, x = exact.mean_field(0.5), exact.sample(11)
    whole = torch.stack([evaluate(model, x, k=6, seed=seed).values for seed in range(40)])
    parts = torch.stack([evaluate(model, x, k=6, seed=100 + seed, **division).values for seed in range(40)])
    spread = ((whole.var(0) + parts.var(0)) / 40).sqrt()
    assert ((whole.mean(0) - parts.mean(0)).abs() < 5 * spread).all()


class Counting(nn.Module):
    """What passes through it, counted in rows."""

    def __init__(self, inner: nn.Module, event_ndim: int) -> None:
        super().__init__()
        self.inner, self.event_ndim, self.rows, self.seen = inner, event_ndim, 0, []

    def forward(self, x):
        self.rows += math.prod(x.shape[: x.ndim - self.event_ndim])
        self.seen.append(x.detach().reshape(-1, *x.shape[x.ndim - self.event_ndim :]))
        return self.inner(x)


@pytest.mark.parametrize("division", DIVISIONS)
@pytest.mark.parametrize("k", [1, 2, 10, 250])
def test_k_samples_are_k_samples_and_each_datum_is_encoded_once(k, division):
    exact = LinearGaussian.random()
    model, x = exact.mean_field(), exact.sample(13)
    model.encoder, model.decoder = Counting(model.encoder, 1), Counting(model.decoder, 1)
    evaluate(model, x, k=k, **division)
    assert model.encoder.rows == 13 and torch.equal(torch.cat(model.encoder.seen), x)
    assert model.decoder.rows == 13 * k
    assert len(torch.cat(model.decoder.seen).unique(dim=0)) == 13 * k  # no sample counted twice


@pytest.mark.parametrize("name, certain", [("residual", True), ("two_maps", True), ("gumbel", False)])
def test_samples_that_are_all_the_same_take_one_pass(name, certain):
    case = MODELS[name]
    x = case.data().fixed("test")
    model = case.make(x)
    model.decoder.net = Counting(model.decoder.net, 3)
    found = evaluate(model, x, k=50, batch=len(x), chunk=2 * len(x))
    # two rows pass at a time, ten times each
    assert model.decoder.net.rows == len(x) * (10 if certain else 50)
    if certain:
        torch.testing.assert_close(found.values, evaluate(model, x, k=1).values, rtol=1e-5, atol=0)


def test_no_pass_is_larger_than_a_chunk():
    exact = LinearGaussian.random()
    model, x = exact.mean_field(), exact.sample(40)
    model.decoder = Counting(model.decoder, 1)
    evaluate(model, x, k=9, batch=16, chunk=24)
    assert max(len(rows) for rows in model.decoder.seen) <= 24


def test_the_parts_of_the_bound_are_those_of_numpy():
    exact = LinearGaussian.random()
    model, x = exact.mean_field(), exact.sample(30)
    found = evaluate(model, x, k=4000)
    q, p = model.encoder(x), model.prior()
    rate = torch.distributions.kl_divergence(q, p).detach().numpy()
    assert found.rate.mean == pytest.approx(rate.mean())
    assert found.rate.standard_error == pytest.approx(rate.std(ddof=1) / 30**0.5)
    assert found.elbo.mean == pytest.approx(-(found.rate.mean + found.distortion.mean))
    # E_q[log p(x|z)] in closed form
    error = (x - model.decoder(q.mean).mean).square().sum(-1) + (q.variance @ exact.weight.square().mT).sum(-1)
    distortion = 0.5 * error / exact.scale**2 + 4 * (math.log(exact.scale) + 0.5 * math.log(2 * math.pi))
    assert found.distortion.mean == pytest.approx(distortion.mean().item(), abs=0.02)
    assert found.elbo.mean <= found.bound.mean <= exact.marginal().log_prob(x).mean() + 0.01


def test_bounds_tighten_with_k():
    exact = LinearGaussian.random(scale=0.4)
    model, x = exact.mean_field(0.15), exact.sample(300)
    bounds = [evaluate(model, x, k=k).bound.mean for k in (1, 4, 16, 64)]
    assert bounds == sorted(bounds)
    assert within(exact.marginal().log_prob(x) - evaluate(model, x, k=2000).values, 0.0, errors=8)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_seed_decides_everything_and_nothing_else_does(name):
    case = MODELS[name]
    data = case.data()
    model = case.make(data.fixed("train"))
    x = data.fixed("test")
    model.train()
    before = torch.get_rng_state()
    first = evaluate(model, x, k=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training and all(m.training for m in model.modules())
    torch.randn(5)
    model.eval()
    again = evaluate(model, x, k=3)
    assert not model.training
    assert torch.equal(first.values, again.values) and first.summary() == again.summary()
    assert torch.equal(first.values, evaluate(model, x, k=3, seed=1).values) != case.drawn
    assert len(first.latents) == case.sites
    assert first.rate.mean == pytest.approx(sum(v.rate.mean for v in first.latents), rel=1e-6)
    assert first.elbo.mean == pytest.approx(-first.rate.mean - first.distortion.mean)
    for latent in first.latents:
        if latent.kl is not None:
            assert latent.kl.sum().item() == pytest.approx(latent.rate.mean, rel=1e-4)
    assert first.parameters == sum(p.numel() for p in model.parameters())


def test_the_mode_is_left_alone_where_evaluation_fails():
    exact = LinearGaussian.random()
    model = exact.model().train()
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError):
        evaluate(model, torch.zeros(3, 17).double())
    assert model.training and torch.equal(torch.get_rng_state(), before)


def test_bits_are_nats_over_log_two_and_dimensions():
    case = MODELS["conv"]
    data = case.data()
    model, x = case.make(data.fixed("train")), data.fixed("test")
    found = evaluate(model, x, k=5, discrete=True)
    assert found.bits_per_dim.mean == pytest.approx(-found.bound.mean / math.log(2) / 30)
    assert found.bits_per_dim.standard_error == pytest.approx(found.bound.standard_error / math.log(2) / 30)
    assert found.summary()["bits_per_dim"]["mean"] == found.bits_per_dim.mean
    assert evaluate(model, x, k=5).bits_per_dim is None


def test_a_coin_costs_one_bit():
    likelihood = families.Bernoulli((6,))
    decoder = Conditional(nn.Linear(2, 6), likelihood)
    model = VAE(Conditional(nn.Linear(6, 4), families.Normal((2,))), StandardNormal((2,)), decoder)
    for p in model.parameters():
        nn.init.zeros_(p)
    found = evaluate(model, torch.randint(0, 2, (9, 6)), k=3, discrete=True)
    assert found.bits_per_dim.mean == pytest.approx(1.0)
    assert found.rate.mean == 0 and found.active_units == 0


def test_a_point_posterior_has_no_bound_and_no_number_is_given():
    x = torch.randint(0, 2, (20, 6)).float()
    model = recipes.mlp(x, event=(6,), latent=2, hidden=(8,), posterior="point")
    found = evaluate(model, x, k=3, discrete=True)
    assert not found.is_bound and found.bits_per_dim is None
    summary = found.summary()
    nothing = {"mean": None, "standard_error": None}
    assert summary["is_bound"] is False
    assert summary["bound"] == summary["elbo"] == summary["rate"] == nothing
    assert summary["distortion"]["mean"] > 0  # what it can say


def test_active_units_are_those_whose_mean_moves():
    class Encoder(nn.Module):
        def forward(self, x):
            loc = torch.stack((x[:, 0], 0.05 * x[:, 0], 0.2 * x[:, 1]), -1)  # variances 1, 0.0025, 0.04
            return DiagonalNormal(loc, torch.ones_like(loc), 1)

    exact = LinearGaussian.random(z=3)
    model = exact.mean_field()
    model.encoder = Encoder()
    x = torch.randn(4000, 4).double()
    found = evaluate(model, x, k=1)
    assert found.active_units == 2
    expected = np.var(np.stack([x[:, 0], 0.05 * x[:, 0], 0.2 * x[:, 1]], -1), axis=0, ddof=1)
    np.testing.assert_allclose(found.latents[0].activity, expected)
    assert found.summary()["latent_dimensions"] == 3


def test_integers_are_evaluated_as_they_are():
    case = MODELS["conv"]
    data = case.data()
    model = case.make(data.fixed("train"))
    as_bytes, as_floats = data.test, data.test.float()
    assert as_bytes.dtype == torch.uint8
    assert torch.equal(evaluate(model, as_bytes, k=2).values, evaluate(model, as_floats, k=2).values)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_numbers_of_a_model_on_a_gpu_are_on_the_cpu():
    exact = LinearGaussian.random()
    model, x = exact.mean_field().cuda(), exact.sample(30)
    found, gap, tight = bracket(model, 30, temperatures=3), inference_gap(model, x, steps=3), tightness(model, x)
    numbers = [evaluate(model, x, k=3).values, annealed_bound(model, x, temperatures=3), found.x, found.lower]
    numbers += [found.upper, gap.encoder, gap.optimal, gap.richer, gap.evidence, tight.bounds, tight.effective]
    assert all(values.device.type == "cpu" for values in numbers)
    assert (found.upper - evaluate(model, found.x, k=3).values).isfinite().all()


def test_a_condition_goes_along_with_its_rows():
    """p(x|c) of a linear-Gaussian model whose centre is moved by c: exact for every row."""
    exact = LinearGaussian.random()
    inner = exact.model()

    class Encoder(nn.Module):
        def forward(self, x, c):
            return inner.encoder(x - c)

    class Decoder(nn.Module):
        def forward(self, z, c):
            p = inner.decoder(z)
            return DiagonalNormal(p.loc + c, p.scale, 1)

    model = VAE(Encoder(), inner.prior, Decoder())
    model.weights = inner  # something to ask for dtype and device
    c, x = torch.randn(23, 1).double(), exact.sample(23)
    found = evaluate(model, x + c, c, k=5, batch=4)
    torch.testing.assert_close(found.values, exact.marginal().log_prob(x), rtol=0, atol=1e-9)


def test_no_data_are_refused():
    with pytest.raises(ValueError, match=r"no data to evaluate on: x has 0 rows.*split that has some"):
        evaluate(LinearGaussian.random().model(), torch.zeros(0, 4))


@pytest.mark.parametrize("wrong", [dict(k=0), dict(batch=0), dict(chunk=0), dict(k=-3)])
def test_counts_below_one_are_refused(wrong):
    with pytest.raises(ValueError, match=r"k=.*, batch=.*, chunk=.*: each must be 1 or more"):
        evaluate(LinearGaussian.random().model(), torch.zeros(3, 4).double(), **wrong)


@pytest.mark.parametrize("chunk", [None, 60, 24])
def test_a_collapsed_flow_is_not_called_active(chunk):
    """Its mean is not known in closed form, and the noise of the samples must not pass for activity."""
    family = families.InverseAutoregressive((4,), hidden=8, context=2)
    encoder = Conditional(Zero(family.shape[0]), family)
    decoder = Conditional(nn.Linear(4, 6), families.Bernoulli((6,)))
    model = VAE(encoder, StandardNormal((4,)), decoder)
    x = (torch.rand(400, 6) > 0.5).float()
    assert evaluate(model, x, k=96, batch=50, chunk=chunk).latents[0].activity.abs().max() < 0.01


class Zero(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, x):
        return torch.zeros(len(x), self.outputs)
