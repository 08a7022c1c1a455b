"""The convolutional ladder: a hierarchy in form and in use, and for every objective, verb and way of training."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers import OBJECTIVES, fives, grey, plane
from lowerbound import data, evaluation, recipes
from lowerbound.data import Data
from lowerbound.metrics import kl_per_dimension, posterior_mean
from lowerbound.models import VAE
from lowerbound.nets.ladder import Features, Head, doubling, resolutions
from lowerbound.objectives import Elbo, FreeBits, Weight
from lowerbound.recipes.topdown import topdown
from lowerbound.train import Ensemble, Options, Trainer, fill, tensors

SMALL = dict(latent=2, channels=(8, 8), levels=5, components=2)
SIZES = [(1, 28, 28), (3, 37, 53), (1, 5, 9), (2, 8, 8)]
SEVERAL = ["elbo_k", "free_bits", "free_bits_group", "balanced", "geco", "stl"]
QUICK = Options(steps=12, batch=8, warmup=3, valid_every=0, lr=1e-2, decay="constant")


def small(event=(1, 8, 6), **changes):
    x = fives(60, event)
    return topdown(x, event=event, **SMALL | changes), x


def rows(event=(1, 8, 6)) -> Data:
    split = dict(zip(("train", "valid", "test"), torch.arange(60).split([40, 10, 10])))
    return Data("small", grey(60, event), split, levels=5)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_images_of_any_size(size, full):
    model, x = small(size, rungs=(2, 1), full=full)
    trace = model(x[:4], k=3)
    finest, coarsest = resolutions(size[1:], 2, full)
    assert [site.z.shape for site in trace.sites] == [(3, 4, 2, *coarsest)] + 2 * [(3, 4, 2, *finest)]
    assert finest == (size[1:] if full else tuple(math.ceil(side / 2) for side in size[1:]))
    assert trace.log_weight().shape == (3, 4)
    assert model.generate(2).sample().shape == (2, *size)
    assert kl_per_dimension(trace.sites[0]).shape == (4, 2, *coarsest)


@pytest.mark.parametrize("residual_posterior", [False, True])
def test_every_parameter_takes_part(residual_posterior):
    model, x = small(rungs=(1, 2), residual_posterior=residual_posterior)
    Elbo()(model(x[:8], k=2)).mean().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


def test_networks_take_any_leading_axes():
    model, x = small(rungs=(2,))
    model.eval()
    together = model.encoder(x[:12])
    apart = model.encoder(x[:12].reshape(3, 4, *x.shape[1:]))
    alone = model.encoder(x[0])
    for a, b, c in zip(together, apart, alone, strict=True):
        torch.testing.assert_close(b.flatten(0, 1), a)
        torch.testing.assert_close(c, a[0])
    h = torch.randn(3, 4, *model.root.shape)
    rung = model.levels[0]
    p, more = rung.prior(h)
    q = rung.posterior(more, together[0][:4], p)
    one, more_of_one = rung.prior(h[2, 1])
    torch.testing.assert_close(more[2, 1], more_of_one)
    torch.testing.assert_close(p.loc[2, 1], one.loc)
    torch.testing.assert_close(q.loc[2, 1], rung.posterior(more_of_one, together[0][1], one).loc)
    torch.testing.assert_close(rung.merge(more, p.loc)[2, 1], rung.merge(more_of_one, one.loc))


def test_a_ladder_of_one_rung_is_a_flat_model():
    model, x = small(channels=(8,), rungs=(1,))
    (rung,) = model.eval().levels

    class Encoder(nn.Module):
        def forward(self, x):
            p, h = rung.prior(model.root)
            return rung.posterior(h.expand(len(x), *h.shape), model.encoder(x)[0], p)

    class Prior(nn.Module):
        def forward(self):
            return rung.prior(model.root)[0]

    class Decoder(nn.Module):
        def forward(self, z):
            h = rung.prior(model.root)[1]
            return model.decoder(rung.merge(h.expand(*z.shape[:-3], *h.shape), z))

    flat = VAE(Encoder(), Prior(), Decoder())
    torch.manual_seed(1)
    here = model(x[:5], k=3)
    torch.manual_seed(1)
    there = flat(x[:5], k=3)
    torch.testing.assert_close(here.sites[0].z, there.sites[0].z)
    torch.testing.assert_close(here.log_weight(), there.log_weight())
    torch.testing.assert_close(here.kl(), there.kl().expand(3, 5))
    torch.testing.assert_close(posterior_mean(here.sites[0]), posterior_mean(there.sites[0]))


def test_each_level_sees_those_above_it_and_x():
    model, x = small(rungs=(1, 2))
    first, second, third = model.eval()(x[:2], k=64).sites
    assert first.q.loc.std(0).max() < 1e-6  # nothing above: the same for every sample
    assert second.p.loc.std(0).max() > 1e-4 and third.q.loc.std(0).max() > 1e-4
    for site in (first, second, third):
        assert (site.q.loc.mean(0)[0] - site.q.loc.mean(0)[1]).abs().max() > 1e-4


def test_the_first_levels_held_and_the_rest_drawn():
    model, x = small(rungs=(1, 2))
    z = [site.z[0] for site in model.eval()(x[:1]).sites]
    spreads = [
        model.generate(50, z=[v.expand(50, *v.shape[1:]) for v in z[:count]]).mean.std(0).mean() for count in range(4)
    ]
    assert spreads[3] < 1e-5 < 1e-3 < min(spreads[:3])
    torch.manual_seed(3)
    one = model.generate(4, z=[z[0].expand(4, *z[0].shape[1:])]).mean
    torch.manual_seed(3)
    other = model.generate(4, z=[z[0].expand(4, *z[0].shape[1:]) + 1]).mean
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("name", SEVERAL)
def test_every_objective_for_several_variables_trains_and_records_it(name):
    small_rows = rows()
    results = []
    for compile in ("off", "replay"):
        torch.manual_seed(0)
        model = topdown(small_rows.fixed("train"), event=(1, 8, 6), rungs=(1,), dropout=0.2, **SMALL)
        options = replace(QUICK, compile=compile)
        trainer = Trainer(model, copy.deepcopy(OBJECTIVES[name]()), options)
        results.append([float(step.terms.loss) for step in trainer.fit(small_rows)])
        assert trainer.skipped == 0
    assert results[0] == results[1] and all(map(math.isfinite, results[0]))


def test_a_trainer_goes_on_from_a_state_bit_for_bit():
    small_rows = rows()

    def start():
        torch.manual_seed(0)
        model = topdown(small_rows.fixed("train"), event=(1, 8, 6), rungs=(2, 1), residual_posterior=True, **SMALL)
        return Trainer(model, FreeBits(0.5), replace(QUICK, valid_every=4))

    whole, first, second = start(), start(), start()
    for _ in whole.fit(small_rows):
        pass
    for step in first.fit(small_rows):
        if step.number == 5:
            break
    second.load(*first.state())
    for _ in second.fit(small_rows):
        pass
    found = second.state()[0]
    assert all(torch.equal(t, found[name]) for name, t in whole.state()[0].items())


def test_an_ensemble_trains_as_each_alone():
    small_rows = rows()

    def model(seed):
        torch.manual_seed(seed)
        return topdown(small_rows.fixed("train"), event=(1, 8, 6), rungs=(1,), **SMALL)

    together = Ensemble([model(1), model(2)], [Elbo(Weight(0.0)), Elbo(Weight(2.0))], QUICK)
    for _ in together.fit(small_rows):
        pass
    rates = [evaluation.evaluate(t.averaged, small_rows.fixed("test")).rate.mean for t in together.trainers]
    assert not together.failed and all(map(math.isfinite, rates))
    assert rates[0] > rates[1]  # what costs nothing is not saved


def test_a_model_without_data_is_filled_from_one_with():
    model, x = small(rungs=(2, 1), residual_posterior=True)
    blind = topdown(event=(1, 8, 6), rungs=(2, 1), residual_posterior=True, **SMALL)
    fill(blind, tensors(model))
    torch.manual_seed(0)
    here = model(x).log_weight()
    torch.manual_seed(0)
    assert torch.equal(blind(x).log_weight(), here)


def test_a_residual_posterior_moves_with_its_prior():
    model, x = small(rungs=(1,), residual_posterior=True)
    rung = model.levels[0]
    a = model.encoder(x[:4])[0]
    p, h = rung.prior(model.root.expand(4, *model.root.shape))
    moved = copy.copy(p)
    moved.loc, moved.scale = 3 * p.loc + 1, 3 * p.scale
    q, there = rung.posterior(h, a, p), rung.posterior(h, a, moved)
    torch.testing.assert_close((there.loc - moved.loc) / moved.scale, (q.loc - p.loc) / p.scale)
    torch.testing.assert_close(there.scale / moved.scale, q.scale / p.scale)
    with torch.no_grad():
        for weight in rung.posterior.net.last.parameters():
            weight.zero_()
    assert evaluation.evaluate(model, x).latents[0].rate.mean == pytest.approx(0, abs=1e-6)


def test_depth_keeps_the_state_and_the_gradient_in_bounds():
    norms = []
    for count in (1, 24):
        model, x = small(channels=(16, 16), rungs=(count,))
        h = model.root.expand(1, 8, *model.root.shape)
        for level, a in zip(model.levels, model.encoder(x[:8]), strict=True):
            p, h = level.prior(h)
            h = level.merge(h, level.posterior(h, a, p).rsample())
        assert 0.3 < h.std() < 3
        trace = model(x[:8])
        assert trace.kl().mean() < 300  # rungs share what is said of x: their divergences add up to no more
        (-Elbo()(trace).mean()).backward()
        norms.append(float(torch.stack([p.grad.norm() for p in model.parameters()]).norm()))
    assert norms[1] < 3 * norms[0]


def test_a_ladder_of_24_rungs_trains_from_its_first_step():
    """Its gradients are as long as those of a short one, at the usual learning rate, and no update is skipped."""
    small_rows = rows()
    lengths = []
    for count in (1, 12):
        torch.manual_seed(0)
        model = topdown(small_rows.fixed("train"), event=(1, 8, 6), rungs=(count,), **SMALL)
        trainer = Trainer(model, Elbo(Weight(1.0, warmup=8)), replace(QUICK, steps=10, lr=8e-3, compile="off"))
        norms = [float(step.grad_norm) for step in trainer.fit(small_rows)]
        assert len(model.levels) == 2 * count and trainer.skipped == 0 and all(map(math.isfinite, norms))
        lengths.append(sorted(norms)[len(norms) // 2])
    assert lengths[1] < 2 * lengths[0]


def test_doubling_keeps_the_variance():
    h = torch.randn(20, 16, 8, 8)
    assert 0.8 < doubling(16, 24, (15, 16))(h).std() < 1.2
    assert 0.4 < Head((16, 8, 8), 12, inputs=2, gain=0.5)(h, torch.randn(20, 16, 8, 8)).std() < 1.2
    with pytest.raises(ValueError):
        Head((16, 8, 8), 12, inputs=2)(h)


def test_features_of_one_resolution_are_shared():
    up = Features((1, 7, 9), channels=(4, 8), rungs=(2, 1), full=True)
    found = up(torch.randn(3, 1, 7, 9))
    assert [tuple(a.shape) for a in found] == [(3, 8, 4, 5), (3, 4, 7, 9), (3, 4, 7, 9)]
    assert found[1] is found[2]


@pytest.mark.parametrize(
    "wrong, match",
    [
        (dict(event=(6,)), r"'topdown' is for images, .*Use model.name=mlp"),
        (dict(rungs=(1, 2, 3)), r"rungs=\[1, 2, 3\] says how many .* channels=\[8, 8\] makes 2: give one number for"),
        (dict(rungs=(0,)), r"rungs=\[0\] must hold numbers of 1 or more"),
        (dict(rungs=()), r"rungs=\[\] says how many"),
        (dict(channels=(8,) * 4), r"4 resolutions: give 1 to 3 widths"),
        (dict(channels=(8,) * 5, full=True), r"5 resolutions: give 1 to 4 widths"),
        (dict(latent=0, dropout=1.0), r"latent=0 must be 1 or more; dropout=1.0 must be in"),
        (dict(blocks=-1), r"blocks=-1 must be 0 or more"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong, match):
    with pytest.raises(ValueError, match=match):
        topdown(**dict(event=(1, 8, 8)) | SMALL | wrong)


@pytest.mark.parametrize("family", list(recipes.FAMILIES))
def test_every_family_starts_near_its_data_and_learns(family):
    x = {
        "bernoulli": lambda: (fives(40, (1, 6, 5)) > 2).float(),
        "continuous_bernoulli": lambda: torch.rand(40, 1, 6, 5),
    }
    x = x.get(
        family, lambda: plane(40, (1, 6, 5)) if family in ("normal", "laplace", "student_t") else fives(40, (1, 6, 5))
    )()
    model = topdown(x, event=(1, 6, 5), family=family, **SMALL)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    values = []
    for _ in range(12):
        loss = -Elbo()(model(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert all(map(math.isfinite, values)) and values[-1] < values[0]
    assert model.decoder.family.support.check(model.generate(9).sample()).all()


@pytest.mark.slow
def test_it_learns_digits_with_every_level():
    digits = data.digits()
    x, held_out = digits.fixed("train"), digits.fixed("valid")
    model = topdown(x, event=(1, 8, 8), latent=4, channels=(32, 32), rungs=(1,), levels=17)
    options = Options(steps=240, batch=64, warmup=50, lr=8e-3, valid_every=0)
    trainer = Trainer(model, Elbo(Weight(1.0, warmup=160)), options)
    for _ in trainer.fit(digits):
        pass
    found = evaluation.evaluate(trainer.averaged, held_out)
    assert found.elbo.mean > -100  # without latent variables it is -108.5
    assert min(latent.rate.mean for latent in found.latents) > 1


@pytest.mark.slow
def test_every_verb_knows_it(lowerbound, monkeypatch, tmp_path):
    monkeypatch.setitem(recipes.MODELS, "topdown", topdown)
    made = ("model.channels=8,8", "model.rungs=1,2", "model.latent=2", "model.blocks=0", "model.components=2")
    run, short = tmp_path / "run", ("train.steps=8", "train.warmup=2", "train.valid_every=4", "train.patience=0")
    status, out, err = lowerbound("train", "digits", "--out", run, "model.name=topdown", *made, *short)
    assert status == 0, err
    page = (run / "report.html").read_text()
    assert "has 3 latent variables" in page and "Look which level decides what" in page
    status, out, err = lowerbound("evaluate", run, "--k", 2)
    assert status == 0 and "log p(x) >=" in out, err
    status, out, err = lowerbound("doctor", run)
    assert "rate of each level" in out, err
