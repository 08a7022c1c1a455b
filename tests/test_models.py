"""Models: the trace is what the formulas need, exactly."""

import math

import pytest
import torch
from torch import nn

from helpers import (
    MODELS,
    POSTERIORS,
    PRIORS,
    WITHOUT_MEAN,
    Beside,
    LinearGaussian,
    Merge,
    Top,
    encoder_of,
    ladder,
    within,
)
from lowerbound import families, nets
from lowerbound.metrics import kl_per_dimension, posterior_mean
from lowerbound.models import VAE, Conditional, Level, TopDownVAE
from lowerbound.priors import StandardNormal


def test_every_importance_weight_is_the_evidence_where_the_posterior_is_true():
    exact = LinearGaussian.random()
    x = exact.sample(30)
    log_w = exact.model()(x, k=20).log_weight()
    assert log_w.shape == (20, 30)
    torch.testing.assert_close(log_w, exact.marginal().log_prob(x).expand(20, 30), rtol=0, atol=1e-9)


def test_the_mean_weight_is_the_evidence_where_the_posterior_is_wrong():
    exact = LinearGaussian.random()
    x = exact.sample(5)
    log_w = exact.model(shift=0.3, spread=1.5)(x, k=50_000).log_weight()
    assert log_w.std(0).min() > 0.01
    assert within((log_w - exact.marginal().log_prob(x)).exp(), 1.0)


def test_the_bound_in_closed_form_is_the_mean_of_the_sampled_one():
    exact = LinearGaussian.random()
    x = exact.sample(4)
    trace = exact.model(shift=0.5, spread=1.3)(x, k=50_000)
    assert trace.kl().shape == (4,)
    assert within(trace.sites[0].log_ratio(), trace.kl())
    assert within(trace.log_weight(), (trace.log_likelihood().mean(0) - trace.kl()), errors=8)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_trace_adds_up(name):
    case = MODELS[name]
    data = case.data()
    x = data.fixed("train")
    model = case.make(x).eval()
    trace = model(x[:7], k=3)
    assert len(trace.sites) == case.sites
    assert trace.log_likelihood().shape == trace.log_weight().shape == (3, 7)
    by_hand = trace.likelihood.log_prob(x[:7])
    for site in trace.sites:
        by_hand = by_hand - site.q.log_prob(site.z) + site.p.log_prob(site.z)
    torch.testing.assert_close(trace.log_weight(), by_hand, rtol=1e-4, atol=1e-3)
    total = sum(site.kl().expand(3, 7) for site in trace.sites)
    torch.testing.assert_close(trace.kl().expand(3, 7), total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(MODELS))
def test_encoding_once_is_encoding_every_time(name):
    case = MODELS[name]
    x = case.data().fixed("train")
    model = case.make(x).eval()
    torch.manual_seed(1)
    whole = model(x[:5], k=4).log_weight()
    torch.manual_seed(1)
    torch.testing.assert_close(model.trace(x[:5], model.encoder(x[:5]), k=4).log_weight(), whole)


@pytest.mark.parametrize("name", list(MODELS))
def test_generating_from_the_z_of_a_trace_reconstructs(name):
    case = MODELS[name]
    x = case.data().fixed("train")
    model = case.make(x).eval()
    trace = model(x[:5])
    again = model.generate(5, z=[site.z[0] for site in trace.sites])
    torch.testing.assert_close(again.log_prob(x[:5]), trace.log_likelihood()[0], rtol=1e-4, atol=1e-3)
    drawn = model.generate(9).sample()
    assert drawn.shape == (9, *x.shape[1:])
    assert drawn.isfinite().all()


def test_the_first_levels_held_and_the_rest_drawn():
    model = ladder()
    z = [site.z[0] for site in model(torch.randn(1, 6)).sites]
    seen = []

    def held(count):
        rows = [v.expand(50, -1) for v in z[:count]]
        return model.generate(50, z=rows).mean.std(0).sum()

    spreads = [held(count) for count in range(4)]
    assert spreads[3] < 1e-4 < 1e-2 < min(spreads[:3])
    # what is held is used: another z of the first level gives other pictures from the same noise
    for first in (z[0], z[0] + 1):
        torch.manual_seed(3)
        seen.append(model.generate(4, z=[first.expand(4, -1)]).mean)
    assert (seen[0] - seen[1]).abs().min() > 0


def test_a_ladder_of_one_level_is_a_vae():
    size, state = 2, 3
    family, likelihood = families.Normal((size,)), families.Normal((6,))
    features, decode = nets.mlp((6,), (4,), hidden=(8,)), nets.mlp((size,), likelihood.shape, hidden=(8,))

    class Encode(nn.Module):
        def forward(self, x):
            return [features(x)]

    class FromFeatures(nn.Module):
        def forward(self, h, a, p):
            return family(a.expand(*h.shape[:-1], -1))

    class Standard(nn.Module):
        def forward(self, h):
            return family(h.new_zeros(*h.shape[:-1], 2 * size)), h

    class OnlyZ(nn.Module):
        def forward(self, h, z):
            return z

    decoder = Conditional(decode, likelihood)
    flat = VAE(Conditional(features, family), StandardNormal((size,)), decoder)
    tall = TopDownVAE(Encode(), [Level(Standard(), FromFeatures(), OnlyZ())], decoder, (state,))
    x = torch.randn(5, 6)
    torch.manual_seed(7)
    here = flat(x, k=3)
    torch.manual_seed(7)
    there = tall(x, k=3)
    assert torch.equal(here.sites[0].z, there.sites[0].z)
    torch.testing.assert_close(here.log_weight(), there.log_weight())
    torch.testing.assert_close(here.kl().expand(3, 5), there.kl())
    torch.testing.assert_close(posterior_mean(here.sites[0]), posterior_mean(there.sites[0]))
    torch.testing.assert_close(kl_per_dimension(here.sites[0]), kl_per_dimension(there.sites[0]))
    torch.manual_seed(7)
    drawn = flat.generate(4).mean
    torch.manual_seed(7)
    torch.testing.assert_close(tall.generate(4).mean, drawn)


def test_each_level_sees_those_above_it():
    model = ladder()
    trace = model(torch.randn(1, 6), k=64)
    first, second, third = trace.sites
    assert first.q.loc.std(0).max() < 1e-6  # nothing above: the same for every sample
    assert second.p.loc.std(0).min() > 1e-4 and third.q.loc.std(0).min() > 1e-4


def test_the_weight_of_a_ladder_is_unbiased():
    """Two levels, all linear, whose x has a known density."""
    a, b, s = 0.8, 1.7, 0.6  # z2 = a z1 + noise; x = b z2 + s noise
    one = families.Normal((1,)).double()

    class Prior(nn.Module):
        def __init__(self, top):
            super().__init__()
            self.top = top

        def forward(self, h):
            loc = h * 0 if self.top else a * h
            return one(torch.cat((loc, torch.zeros_like(loc)), -1)), h

    class Posterior(nn.Module):
        def forward(self, h, x, p):
            loc = (p.loc + 0.4 * x).expand_as(h)
            return one(torch.cat((loc, torch.full_like(loc, -0.1)), -1))

    class Last(nn.Module):
        def forward(self, h, z):
            return z

    class Same(nn.Module):
        def forward(self, x):
            return [x, x]

    class Linear(nn.Module):
        def forward(self, h):
            return b * h

    levels = [Level(Prior(True), Posterior(), Last()), Level(Prior(False), Posterior(), Last())]
    model = TopDownVAE(Same(), levels, Conditional(Linear(), families.Normal((1,), s).double()), (1,)).double()
    x = torch.tensor([[0.3], [-2.0]]).double()
    scale = math.sqrt(b**2 * (1 + a**2) + s**2)
    truth = torch.distributions.Normal(torch.zeros(()).double(), scale).log_prob(x[:, 0])
    log_w = model(x, k=100_000).log_weight()
    assert log_w.std(0).min() > 0.1
    assert within((log_w - truth).exp(), 1.0)
    draws = model.generate(20_000).sample()
    assert abs(draws.std() - scale) < 0.03 * scale


def test_a_condition_reaches_encoder_prior_and_decoder():
    class Pair(nn.Module):
        def __init__(self, family, inputs):
            super().__init__()
            self.part = Conditional(nets.mlp((inputs,), family.shape, hidden=(8,)), family)

        def forward(self, v, c):
            return self.part(torch.cat((v, c.expand(*v.shape[:-1], -1)), -1))

    z, x = families.Normal((2,)), families.Normal((3,))
    model = VAE(Pair(z, 4), Conditional(nets.mlp((1,), z.shape, hidden=(8,)), z), Pair(x, 3))
    rows, labels = torch.randn(5, 3), torch.arange(5.0)[:, None]
    torch.manual_seed(0)
    one = model(rows, labels, k=2)
    torch.manual_seed(0)
    other = model(rows, labels + 1, k=2)
    assert one.log_weight().shape == (2, 5)
    assert (one.sites[0].q.loc != other.sites[0].q.loc).any()
    assert (one.sites[0].p.loc != other.sites[0].p.loc).any()
    held = [torch.zeros(5, 2)]
    assert (model.generate(5, labels, z=held).mean != model.generate(5, labels + 1, z=held).mean).any()


@pytest.mark.parametrize("prior", list(PRIORS))
@pytest.mark.parametrize("posterior", list(POSTERIORS))
def test_every_posterior_meets_every_prior(posterior, prior):
    if posterior == "point" and prior != "normal":
        pytest.skip("a point posterior never asks its prior anything")
    if prior == "exemplar" and posterior in WITHOUT_MEAN:
        pytest.skip("exemplars are around means, which a flow does not know")
    encoder = encoder_of(posterior, (6,), (2,))
    likelihood = families.Bernoulli((6,))
    decoder = Conditional(nets.mlp((2,), likelihood.shape, hidden=(8,)), likelihood)
    model = VAE(encoder, PRIORS[prior]((2,), encoder, torch.rand(3, 6)), decoder)
    x = torch.randint(0, 2, (8, 6)).float()
    trace = model(x, k=3)
    assert model.generate(4).sample().shape == (4, 6)
    if posterior == "point":
        assert (trace.kl() == math.inf).all() and (trace.log_weight() == -math.inf).all()
        return
    value = (trace.log_likelihood() - trace.kl()).mean()
    value.backward()
    assert value.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad.abs().sum() > 0 for name, p in model.named_parameters()), "every parameter takes part"


def test_the_likelihood_of_a_trace_is_computed_once():
    case = MODELS["mixture"]
    x = case.data().fixed("train")[:4]
    trace = case.make(x)(x)
    assert trace.log_likelihood() is trace.log_likelihood()
    assert trace.kl() is trace.kl()


def test_helpers_build_the_levels_they_say():
    model = ladder()
    assert isinstance(model.levels[1].posterior, Beside)
    assert all(isinstance(level.prior, Top) and isinstance(level.merge, Merge) for level in model.levels)
