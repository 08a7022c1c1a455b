"""The ladder of multi-layer perceptrons: its rungs, the prior of its top, and what is shared."""

import math

import pytest
import torch

from helpers import grey
from lowerbound import evaluate, recipes
from lowerbound.data import Data
from lowerbound.objectives import Elbo, Weight
from lowerbound.recipes import ladder
from lowerbound.run import full
from lowerbound.train import Options, Trainer

SMALL = dict(event=(6,), latent=2, hidden=(8, 7), levels=5, family="categorical")


def rows(n=40):
    return grey(n, (6,)).float()


def test_each_rung_sees_those_above_it_and_x():
    x = rows(4)
    first, second, third = ladder(x, rungs=3, **SMALL).eval()(x, k=64).sites
    assert first.q.loc.std(0).max() == 0
    assert second.p.loc.std(0).min() > 1e-4 and third.q.loc.std(0).min() > 1e-4
    for site in (first, second, third):
        assert site.z.shape == (64, 4, 2)
        assert site.q.loc.mean(0).std(0).min() > 1e-4


@pytest.mark.parametrize("prior", ["normal", "vamp"])
def test_the_bound_is_its_terms_written_out(prior):
    x = rows(5)
    model = ladder(x, prior=prior, prior_components=3, **SMALL).eval()
    trace = model(x, k=2)
    top, below = model.levels
    z1, z2 = (site.z for site in trace.sites)
    a1, a2 = model.encoder(x)
    q1 = top.posterior.q(a1)
    if prior == "vamp":
        vamp = top.prior.prior
        each = torch.stack([vamp.encoder(u[None]).log_prob(z1) for u in vamp.inputs])
        log_p1 = (each + vamp.logits.log_softmax(0)[:, None, None]).logsumexp(0)
    else:
        log_p1 = -0.5 * (z1.square().sum(-1) + 2 * math.log(2 * math.pi))
    h = model.root + top.merge.f(z1)
    log_p = log_p1 + below.prior.p(h).log_prob(z2)
    log_q = q1.log_prob(z1) + below.posterior.q(h + a2).log_prob(z2)
    log_likelihood = model.decoder(h + below.merge.f(z2)).log_prob(x)
    torch.testing.assert_close(trace.log_weight(), log_likelihood + log_p - log_q, rtol=1e-4, atol=1e-4)


def test_pseudo_inputs_are_read_by_the_encoder_of_the_top():
    x = rows()
    model = ladder(x, prior="vamp", prior_components=4, **SMALL).eval()
    top = model.levels[0]
    pseudo = top.prior.prior.inputs
    q = model(pseudo.detach()).sites[0].q
    mixture = top.prior(model.root)[0]
    torch.testing.assert_close(mixture.normals.loc, q.loc[0])
    torch.testing.assert_close(mixture.normals.scale, q.scale[0])
    with torch.no_grad():
        next(top.posterior.q.parameters()).add_(0.1)
    torch.testing.assert_close(top.prior(model.root)[0].normals.loc, model(pseudo.detach()).sites[0].q.loc[0])


def test_rows_are_drawn_apart_and_what_is_held_is_held():
    x = rows()
    for prior in ("normal", "vamp"):
        model = ladder(x, prior=prior, prior_components=4, **SMALL | {"family": "normal"}).eval()
        z = [site.z[0] for site in model(x[:1]).sites]
        spread = []
        for count in range(3):
            mean = model.generate(50, z=[v.expand(50, -1) for v in z[:count]]).mean
            spread.append(mean.std(0).mean())
        assert spread[0] > spread[1] > spread[2] == 0


def test_two_rungs_learn_to_use_both():
    torch.manual_seed(0)
    x = grey(400, (6,))
    split = dict(zip(("train", "valid", "test"), torch.arange(400).split([300, 50, 50])))
    data = Data("waves", x, split, levels=5)
    model = ladder(x.float(), prior="vamp", prior_components=10, **SMALL | {"hidden": (32, 32)})
    before = evaluate(model, data.fixed("test"), k=20).bound.mean
    trainer = Trainer(
        model, Elbo(Weight(1.0, warmup=150)), Options(steps=400, batch=50, lr=5e-3, valid_every=0, ema=0.0)
    )
    for _ in trainer.fit(data):
        pass
    found = evaluate(model, data.fixed("test"), k=20)
    assert found.bound.mean > before + 2
    assert all(latent.rate.mean > 0.05 for latent in found.latents)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="leaves no state between the rungs"):
        ladder(hidden=[])
    with pytest.raises(ValueError, match="rungs=0 must be 1 or more"):
        ladder(rungs=0)
    with pytest.raises(ValueError, match="prior='flow' should be one of 'normal', 'vamp'"):
        full(ladder, "model", {"name": "ladder", "prior": "flow"})


def test_gates_are_for_vectors():
    with pytest.raises(ValueError, match="activation='gated' should be one of 'silu', 'relu', 'tanh', 'gelu'"):
        full(recipes.conv, "model", {"name": "conv", "activation": "gated"})
    for name in ("mlp", "ladder", "table"):
        assert full(recipes.MODELS[name], "model", {"name": name, "activation": "gated"})["activation"] == "gated"
