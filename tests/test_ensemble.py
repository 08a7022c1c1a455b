"""Several models at once: each as it would be alone."""

import copy
from dataclasses import replace

import pytest
import torch

from helpers import MODELS
from lowerbound import recipes
from lowerbound.data import Data
from lowerbound.objectives import Elbo, FreeBits, Iwae, Reconstruction, Weight
from lowerbound.train import Ensemble, Options, Trainer, TrainingError, tensors
from lowerbound.train import ensemble as ensemble_module
from lowerbound.train.replay import fastest

QUICK = Options(steps=12, batch=8, warmup=3, valid_every=0, lr=1e-2)


def models(name: str, count: int = 3):
    case = MODELS[name]
    data = case.data()
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(case.make(data.fixed("train")))
    return data, made


def bits(n: int = 64) -> Data:
    x = (torch.rand(n, 12) < 0.3).to(torch.uint8)
    return Data("bits", x, dict(zip(("train", "valid", "test"), torch.arange(n).split([n - 16, 8, 8]))), levels=2)


def autoencoders(count: int = 3, hidden=(16, 16)):
    """Models whose training has no noise."""
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(recipes.mlp(event=(12,), latent=2, hidden=hidden, posterior="point"))
    return made


@pytest.mark.parametrize("compile", ["off", "replay"])
@pytest.mark.parametrize("optimizer", ["adamw", "adamax", "muon"])
def test_each_model_is_trained_as_it_would_be_alone(optimizer, compile):
    data = bits()
    options = replace(QUICK, optimizer=optimizer, compile=compile, valid_every=5, weight_decay=0.1)
    ensemble = Ensemble(autoencoders(), [Reconstruction()] * 3, options)
    together = list(ensemble.fit(data))
    assert len(together) == 12
    for i, model in enumerate(autoencoders()):
        trainer = Trainer(model, Reconstruction(), options)
        alone = list(trainer.fit(data))
        for one, all in zip(alone, together, strict=True):
            assert all[i].number == one.number and all[i].lr == one.lr
            torch.testing.assert_close(all[i].terms.loss, one.terms.loss, rtol=1e-4, atol=1e-4)
            # muon rounds to bfloat16, which is coarse enough for the last bit of a gradient to show
            assert all[i].grad_norm == pytest.approx(one.grad_norm, rel=0.02 if optimizer == "muon" else 1e-3)
            assert (all[i].validation is None) == (one.validation is None)
        for name, t in trainer.result().items():
            torch.testing.assert_close(ensemble.trainers[i].result()[name], t, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "full_vamp"])
def test_its_gradients_are_those_of_each(name, monkeypatch):
    """With the same number wherever noise is drawn, since what is drawn differs."""
    data, made = models(name)
    made = [model.eval() for model in made]  # without dropout
    alone = copy.deepcopy(made)
    for draw in ("randn", "rand"):
        monkeypatch.setattr(torch, draw, lambda shape, generator=None, **kind: torch.full(shape, 0.3, **kind))
    objectives = [Elbo(Weight(beta), k=2) for beta in (0.1, 1.0, 4.0)]
    x, step = data.fixed("train")[:40], torch.tensor(1.0)
    same(Ensemble(made, objectives, QUICK)._gradient(x, step), alone, objectives, x, step)


def test_and_where_all_share_the_buffers_that_are_the_same():
    """What is done to the data before the first weights is done once for all."""

    def made(units):
        models = autoencoders(hidden=(128, 128))
        for model, unit in zip(models, units, strict=True):
            for name, t in model.named_buffers():
                if name.endswith("unit"):
                    t.fill_(unit)
        return models

    data = bits(600)
    x, step, objectives = data.fixed("train"), torch.tensor(1.0), [Reconstruction()] * 3
    options = replace(QUICK, batch=len(x))
    for units, names in (([2.0, 2.0, 2.0], {"shift", "unit"}), ([1.0, 2.0, 3.0], {"shift"})):
        ensemble = Ensemble(made(units), objectives, options)
        next(ensemble.fit(data))
        assert {name.split(".")[-1] for name in ensemble.common if "encoder" in name} == names
        now = made(units)
        for model, trained in zip(now, ensemble.trainers, strict=True):
            model.load_state_dict(trained.model.state_dict())
        same(ensemble._gradient(x, step), now, objectives, x, step)


class Counted(torch.nn.Module):
    """A map that keeps the mean of what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, h):
        if self.training:
            self.seen.mul_(0.5).add_(h.detach().reshape(-1, 2).mean(0))
        return h + self.seen


def test_a_buffer_that_training_writes_is_each_models_own():
    made = autoencoders(hidden=(4,))
    for model in made:
        model.encoder.net = torch.nn.Sequential(model.encoder.net, Counted())
    ensemble = Ensemble(made, [Reconstruction()] * 3, QUICK)
    for _ in ensemble.fit(bits()):
        pass
    assert not any(name.endswith("seen") for name in ensemble.common)
    seen = [model.encoder.net[1].seen for model in made]
    assert all(t.abs().sum() > 0 for t in seen) and not torch.equal(seen[0], seen[1])


def test_and_where_products_are_large():
    def made():
        return autoencoders(hidden=(256, 256, 300))

    x, step = bits(300).fixed("train"), torch.tensor(1.0)
    objectives = [Reconstruction()] * 3
    same(Ensemble(made(), objectives, QUICK)._gradient(x, step), made(), objectives, x, step)


def same(found, made, objectives, x, step) -> None:
    terms, norms, gradients = found
    for i, (model, objective) in enumerate(zip(made, objectives, strict=True)):
        alone, norm, expected = Trainer(model, objective, QUICK).gradient(x, step)
        torch.testing.assert_close(norms[i], norm, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(terms.loss[i], alone.loss, rtol=1e-4, atol=1e-4)
        for g, one in zip(gradients, expected, strict=True):
            torch.testing.assert_close(g[i], torch.zeros_like(g[i]) if one is None else one, rtol=1e-2, atol=1e-3)


def test_models_differ_by_their_weights_and_draws():
    data, made = models("bernoulli", 4)
    objectives = [Elbo(Weight(beta, warmup=4)) for beta in (0.0, 0.0, 1.0, 50.0)]
    for one, other in zip(made[0].parameters(), made[1].parameters(), strict=True):
        other.data.copy_(one.data)  # the same start and the same objective: only the noise differs
    ensemble = Ensemble(made, objectives, replace(QUICK, steps=300, warmup=0))
    for steps in ensemble.fit(data):
        pass
    rates = [float(step.terms.rate) for step in steps]
    assert rates[3] < rates[2] < min(rates[:2])
    assert rates[0] != rates[1]


def test_a_bad_model_does_not_disturb_the_others():
    data = bits()
    made = autoencoders()
    with torch.no_grad():
        next(made[1].parameters()).fill_(float("nan"))
    ensemble = Ensemble(made, [Reconstruction()] * 3, replace(QUICK, give_up=100))
    for steps in ensemble.fit(data):
        pass
    assert [step.skipped for step in steps] == [0, 12, 0]
    for i in (0, 2):
        trainer = Trainer(autoencoders()[i], Reconstruction(), QUICK)
        list(trainer.fit(data))
        for name, t in trainer.result().items():
            torch.testing.assert_close(ensemble.trainers[i].result()[name], t, rtol=2e-2, atol=2e-3)


def test_one_that_is_out_of_patience_stops_and_the_others_go_on():
    data = bits()
    options = replace(QUICK, steps=40, valid_every=2, patience=2)
    made = autoencoders()
    with torch.no_grad():
        made[1].decoder.net[1].bias[:] = 30.0  # far off: it is the last to run out
    ensemble = Ensemble(copy.deepcopy(made), [Reconstruction()] * 3, options)
    numbers = [[step and step.number for step in steps] for steps in ensemble.fit(data)]
    lasted = [sum(row[i] is not None for row in numbers) for i in range(3)]
    assert lasted[1] > max(lasted[0], lasted[2])
    for i, model in enumerate(made):
        alone = [step.number for step in Trainer(model, Reconstruction(), options).fit(data)]
        assert [row[i] for row in numbers if row[i]] == alone


def test_any_number_of_an_objective_may_differ_if_it_is_a_fraction():
    data, made = models("bernoulli", 2)
    ensemble = Ensemble(
        made, [FreeBits(0.5, Weight(2.0, start=0.5, warmup=4)), FreeBits(1.5, Weight(1.0, warmup=4))], QUICK
    )
    assert sorted(ensemble.numbers) == ["beta.end", "beta.start", "nats"]
    assert len(list(ensemble.fit(data))) == 12


def test_what_cannot_be_stacked_is_refused():
    _, made = models("bernoulli", 2)
    with pytest.raises(ValueError, match="2 models and 1 objectives: give one objective for each"):
        Ensemble(made, [Elbo()])
    with pytest.raises(ValueError, match=r"objectives differ in k: \[1, 2\]"):
        Ensemble(made, [Elbo(), Elbo(k=2)])
    with pytest.raises(ValueError, match="objectives differ in kind"):
        Ensemble(made, [Elbo(), Iwae(1)])
    other = recipes.mlp(event=(12,), latent=3, hidden=(4,))
    with pytest.raises(ValueError, match="model 1 differs from model 0 in more than numbers: "):
        Ensemble([made[0], other], [Elbo()] * 2)


def test_what_cannot_be_vectorised_is_refused():
    data, made = models("full_vamp", 2)
    with pytest.raises(ValueError, match=r"their operations cannot be stacked \(.+\)"):
        next(Ensemble(made, [Elbo()] * 2, QUICK).fit(data))


def test_models_that_are_alike_in_shape_alone_are_refused():
    def made(**options):
        return recipes.mlp(event=(12,), latent=2, hidden=(8, 8), **options)

    for one, other in (
        (made(activation="relu", residual=False), made(activation="tanh", residual=False)),
        (made(dropout=0.1), made(dropout=0.3)),
        (made(family="normal"), made(family="laplace")),
    ):
        with pytest.raises(ValueError, match="model 1 differs from model 0"):
            Ensemble([one, other], [Elbo()] * 2)
    model = made()
    with pytest.raises(ValueError, match="one model is given twice"):
        Ensemble([model, model], [Elbo()] * 2)

    class Own(torch.nn.Module):
        k, horizon = 1, 0

    with pytest.raises(ValueError, match="an objective with parameters of its own belongs to one model"):
        Ensemble([made(), made()], [Own(), Own()])


def test_it_is_recorded(monkeypatch):
    found = []

    def watch(gradient, *rest):
        found.append(fastest(gradient, *rest) is not gradient)
        return gradient

    monkeypatch.setattr(ensemble_module, "fastest", watch)
    for name in ("bernoulli", "conv", "mixture"):
        data, made = models(name)
        next(Ensemble(made, [Elbo(Weight(beta)) for beta in (0.5, 1.0, 2.0)], QUICK).fit(data))
    assert found == [True] * 3


def test_it_goes_on_from_the_states_of_its_trainers():
    data = bits()
    whole = Ensemble(autoencoders(), [Reconstruction()] * 3, QUICK)
    list(whole.fit(data))
    first = Ensemble(autoencoders(), [Reconstruction()] * 3, QUICK)
    for steps in first.fit(data):
        if steps[0].number == 5:
            break
    second = Ensemble(autoencoders(), [Reconstruction()] * 3, QUICK)
    for one, other in zip(first.trainers, second.trainers, strict=True):
        other.load(*one.state())
    list(second.fit(data))
    for one, other in zip(whole.trainers, second.trainers, strict=True):
        expected, found = one.state()[0], other.state()[0]
        assert all(torch.equal(found[name], t) for name, t in expected.items() if not name.startswith("noise"))
    third = Ensemble(autoencoders(), [Reconstruction()] * 3, QUICK)
    third.trainers[0].load(*first.trainers[0].state())
    with pytest.raises(ValueError, match=r"models \[1, 2\] are behind the others, which are at step 5"):
        next(third.fit(data))


def test_the_models_are_the_stack():
    made = autoencoders()
    before = [{name: t.clone() for name, t in tensors(model).items()} for model in made]
    ensemble = Ensemble(made, [Reconstruction()] * 3, QUICK)
    for model, kept in zip(made, before, strict=True):
        assert all(torch.equal(t, kept[name]) for name, t in tensors(model).items())
    next(iter(ensemble.fit(bits())))
    name = ensemble.learned[0]
    for i, model in enumerate(made):
        assert torch.equal(dict(model.named_parameters())[name.removeprefix("model.")], ensemble.tensors[name][i])


@pytest.mark.parametrize("compile", ["off", "replay"])
def test_a_module_that_is_in_two_places_is_stacked_once(compile):
    """The encoder is part of a VampPrior too."""
    data = MODELS["bernoulli"].data()
    x = data.fixed("train")
    made = [recipes.mlp(x, event=(6,), latent=2, hidden=(8,), prior="vamp", prior_components=3) for _ in range(2)]
    alone, objectives = copy.deepcopy(made), [Elbo(Weight(beta)) for beta in (0.5, 2.0)]
    ensemble = Ensemble(made, objectives, replace(QUICK, compile=compile))
    steps = list(ensemble.fit(data))
    assert len(steps) == QUICK.steps
    for trainer, before in zip(ensemble.trainers, alone, strict=True):
        assert all(type(p) is torch.nn.Parameter for p in trainer.model.parameters())
        moved = [not torch.equal(p, q) for p, q in zip(trainer.model.parameters(), before.parameters(), strict=True)]
        assert all(moved)


def test_a_model_that_gives_up_is_no_end_to_the_others():
    data = bits()
    objectives = [Reconstruction(), Reconstruction(), Reconstruction()]
    ensemble = Ensemble(autoencoders(), objectives, replace(QUICK, give_up=3))
    with torch.no_grad():
        next(ensemble.trainers[1].model.parameters()).fill_(torch.nan)
    steps = list(ensemble.fit(data))
    assert len(steps) == QUICK.steps and [each[1] is None for each in steps] == [False] * 2 + [True] * 10
    assert all(each[0] is not None and each[2] is not None for each in steps)
    assert list(ensemble.failed) == [1] and "first tensor that is not finite" in ensemble.failed[1]
    # its state remembers, and the others can go on from it
    again = Ensemble(autoencoders(), objectives, replace(QUICK, give_up=3, steps=14))
    again.load(*ensemble.state())
    assert [[step is None for step in each] for each in again.fit(data)] == [[False, True, False]] * 2


def test_when_the_last_one_gives_up_it_is_the_end():
    ensemble = Ensemble(autoencoders(2), [Reconstruction()] * 2, replace(QUICK, give_up=3))
    for trainer in ensemble.trainers:
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError, match="training stopped"):
        list(ensemble.fit(bits()))
