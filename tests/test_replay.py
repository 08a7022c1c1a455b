"""The recorded step: the plain one to the bit on everything there is, and not used where it could not be."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from helpers import MODELS, OBJECTIVES, suits
from lowerbound import recipes
from lowerbound.data import Data
from lowerbound.models import Trace
from lowerbound.objectives import Elbo, FreeBits, Weight
from lowerbound.train import OPTIMIZERS, Options, Trainer, TrainingError, tensors
from lowerbound.train import trainer as trainer_module
from lowerbound.train.batches import Batches
from lowerbound.train.replay import fastest
from test_golden import CASES, data_of, digits, model_of

QUICK = Options(steps=12, batch=8, warmup=3, valid_every=0, lr=1e-2, decay="constant")


@pytest.fixture
def recorded(monkeypatch) -> list[bool]:
    """Whether each step that was to be recorded was, in the order of asking."""
    found: list[bool] = []

    def watch(gradient, *rest):
        replay = fastest(gradient, *rest)
        found.append(replay is not gradient)
        return replay

    monkeypatch.setattr(trainer_module, "fastest", watch)
    return found


def trained(model: nn.Module, objective, data, options: Options) -> tuple[list[float], dict[str, Tensor]]:
    trainer = Trainer(model, objective, options)
    values = [(float(s.terms.loss), float(s.terms.rate), s.grad_norm) for s in trainer.fit(data)]
    return values, trainer.state()[0]


def same_as_plain(make, objective, data, options: Options) -> None:
    results = []
    for compile in ("off", "replay"):
        torch.manual_seed(0)
        results.append(trained(make(), copy.deepcopy(objective), data, replace(options, compile=compile)))
    (plain_values, plain), (values, state) = results
    assert repr(values) == repr(plain_values)  # repr: nan is nan
    assert state.keys() == plain.keys()
    for name, t in plain.items():
        assert torch.equal(state[name].nan_to_num(), t.nan_to_num()), name


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_trains_the_same_to_the_bit(name, recorded):
    case = MODELS[name]
    data = case.data()
    same_as_plain(lambda: case.make(data.fixed("train")), Elbo(Weight(1.0, warmup=5)), data, QUICK)
    assert recorded == [True]


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_objective_too(name, recorded):
    case = MODELS["mixture" if suits(name, "mixture") else "bernoulli"]
    data = case.data()
    same_as_plain(lambda: case.make(data.fixed("train")), OBJECTIVES[name](), data, QUICK)
    assert recorded == [True]


@pytest.mark.parametrize("name", list(CASES))
def test_every_recipe_too(name, recorded):
    objective, arguments = CASES[name][3:]
    data = data_of(name)
    optimizer = next((word for word in OPTIMIZERS if name.endswith(word)), "adamw")
    same_as_plain(
        lambda: model_of(name, data),
        recipes.OBJECTIVES[objective](**arguments),
        data,
        replace(QUICK, steps=max(QUICK.steps, arguments.get("warmup", 0)), batch=32, optimizer=optimizer),
    )
    assert recorded == [True]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_noise_in_the_data_and_dropout_and_either_precision(precision, recorded):
    data = digits("noisy")

    def make():
        return recipes.mlp(data.fixed("train"), event=data.event, latent=2, hidden=(16,), dropout=0.3, family="normal")

    same_as_plain(make, Elbo(k=2), data, replace(QUICK, precision=precision))
    assert recorded == [True]


class Wrapped(nn.Module):
    """An objective with something of its own: `change` is called with the trace and the step."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change, self.k, self.horizon = change, 1, 0
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0

    def forward(self, trace: Trace, step: Tensor | None = None) -> Tensor:
        return self.change(self, Elbo()(trace, step), trace, step)


def value_decides(self, bound, trace, step):
    return bound * 2 if bound.mean() < -1e9 else bound


def a_number_is_read(self, bound, trace, step):
    return bound * (1 + float(step))


def numpy_computes(self, bound, trace, step):
    return bound * torch.from_numpy(trace.x.detach().numpy() ** 2).mean()


def a_generator_draws(self, bound, trace, step):
    return bound + torch.rand((), generator=torch.Generator().manual_seed(0))


def python_counts(self, bound, trace, step):
    self.calls += 1
    return bound * self.calls


@pytest.mark.parametrize("change", [value_decides, a_number_is_read, numpy_computes, a_generator_draws, python_counts])
def test_what_a_list_of_operations_does_not_show_is_not_replayed(change, recorded):
    case = MODELS["mixture"]
    data = case.data()
    with pytest.warns(UserWarning, match="this training step cannot be recorded"):
        trained(case.make(data.fixed("train")), Wrapped(change), data, QUICK)
    assert recorded == [False]


def a_buffer_is_written(self, bound, trace, step):
    self.seen += 1
    return bound + 0.1 * self.seen * trace.kl()


def a_constant_is_written(self, bound, trace, step):
    mask = torch.zeros(3)
    mask[1:] = bound[:1].detach()
    return bound * mask.sum()


@pytest.mark.parametrize("change", [a_buffer_is_written, a_constant_is_written])
def test_tensors_that_are_written_are_written_anew_each_time(change, recorded):
    case = MODELS["bernoulli"]
    data = case.data()
    objectives = []

    class Once(Wrapped):
        def __init__(self, change):
            super().__init__(change)
            objectives.append(self)

    results = []
    for compile in ("off", "replay"):
        torch.manual_seed(0)
        options = replace(QUICK, compile=compile)
        results.append(trained(case.make(data.fixed("train")), Once(change), data, options))
    assert recorded == [True]
    assert results[0][0] == results[1][0]
    assert objectives[0].seen == objectives[1].seen


def a_buffer_is_read(self, bound, trace, step):
    return bound * self.seen.exp()


def test_a_buffer_that_the_caller_changes_is_read_anew(recorded):
    case = MODELS["bernoulli"]
    data = case.data()
    results = []
    for compile in ("off", "replay"):
        torch.manual_seed(0)
        objective = Wrapped(a_buffer_is_read)
        trainer = Trainer(case.make(data.fixed("train")), objective, replace(QUICK, compile=compile))
        losses = []
        for step in trainer.fit(data):
            losses.append(float(step.terms.loss))
            objective.seen.fill_(-0.3 * step.number)
        results.append(losses)
    assert recorded == [True] and results[0] == results[1]


@pytest.mark.parametrize("compile", ["off", "replay"])
def test_a_model_that_was_left_in_evaluation_is_trained_with_its_dropout(compile):
    case = MODELS["bernoulli"]
    data = case.data()
    losses = []
    for training in (True, False):
        torch.manual_seed(0)
        model = case.make(data.fixed("train")).train(training)
        trainer = Trainer(model, Elbo(), replace(QUICK, compile=compile))
        found = []
        for step in trainer.fit(data):
            found.append(float(step.terms.loss))
            if step.number == 6:
                break
        model.train(training)
        losses.append(found + [float(step.terms.loss) for step in trainer.fit(data)])
    assert losses[0] == losses[1] and len(losses[0]) == QUICK.steps


class Shared(nn.Module):
    """Parameters of an objective whose gradients are one tensor, and a constant one."""

    def __init__(self) -> None:
        super().__init__()
        self.k, self.horizon = 1, 0
        self.a, self.b, self.c = (nn.Parameter(torch.ones(())) for _ in range(3))

    def forward(self, trace: Trace, step: Tensor | None = None) -> Tensor:
        return Elbo()(trace, step) * (self.a + self.b) + self.c


def test_clipping_shortens_each_gradient_once(recorded):
    data = digits("bits")
    states = []
    for compile in ("off", "replay"):
        torch.manual_seed(0)
        model = recipes.mlp(data.fixed("train"), event=data.event, latent=2, hidden=(16,))
        objective = Shared()
        options = replace(QUICK, clip=0.01, batch=32, compile=compile)
        trainer = Trainer(model, objective, options)
        norms = []
        for step in trainer.optimizers:
            run = step.step
            step.step = lambda lr, run=run: (norms.append([float(p.grad) for p in objective.parameters()]), run(lr))
        list(trainer.fit(data))
        assert all(a == b for a, b, _ in norms)
        states.append(norms)
    assert states[0] == states[1] and recorded == [True]


@pytest.mark.parametrize("compile", ["off", "replay"])
def test_what_is_not_a_number_stays_none_in_a_wide_network(compile):
    data = digits("bits")
    model = recipes.mlp(
        data.fixed("train"), event=data.event, latent=2, hidden=(512, 512), activation="relu", residual=False
    )
    trainer = Trainer(model, Elbo(), replace(QUICK, batch=64, give_up=2, compile=compile))
    steps = trainer.fit(data)
    next(steps)
    with torch.no_grad():
        model.encoder.net[-1].net[3].weight[7] = float("nan")
    with pytest.raises(TrainingError, match="not finite is the weight encoder"):
        list(steps)


def test_a_schedule_goes_on_rising(recorded):
    case = MODELS["bernoulli"]
    data = case.data()
    objective = FreeBits(0.1, Weight(1.0, warmup=5, cycle=6, cycles=1))
    same_as_plain(lambda: case.make(data.fixed("train")), objective, data, replace(QUICK, steps=9))
    assert recorded == [True]


def test_only_what_changes_is_computed_again():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1, bias=False))
    parameters = list(model.parameters())
    scale = torch.full((3,), 2.0)

    def gradient(x, step):
        loss = (model(x) * (scale.exp() + torch.ones_like(scale)).sum() * torch.rand(())).mean()
        return loss.detach(), loss.detach(), torch.autograd.grad(loss, parameters)

    x, step = torch.randn(5, 4), torch.zeros(())
    replay = fastest(gradient, model, (x, step), (torch.randn(5, 4), step))
    assert replay is not gradient
    counts = []
    for run in (gradient, replay):
        with torch.autograd.profiler.profile() as found:
            run(x, step)
        counts.append({event.key: event.count for event in found.key_averages()})
    assert counts[0]["aten::exp"] == 1 and "aten::exp" not in counts[1]
    assert counts[1]["aten::rand"] == counts[0]["aten::rand"] == 1
    assert sum(counts[1].values()) < sum(counts[0].values()) / 2
    with torch.no_grad():
        parameters[0] += 1  # in place, as an optimiser does: the replay sees it
    torch.manual_seed(0)
    expected = gradient(x, step)
    torch.manual_seed(0)
    found = replay(x, step)
    assert torch.equal(found[0], expected[0]) and all(map(torch.equal, found[2], expected[2]))


def test_recording_leaves_the_model_and_the_data_as_they_were():
    rows = torch.randn(40, 6)
    parts = dict(zip(("train", "valid", "test"), torch.arange(40).split([30, 5, 5])))
    data = Data("rows", rows.clone(), parts)
    model = recipes.mlp(rows, event=(6,), latent=2, hidden=(8,), family="normal")
    before = {name: t.clone() for name, t in tensors(model).items()}
    trainer = Trainer(model, Elbo(), QUICK)
    steps = trainer.fit(data)
    trainer._fastest(Batches(data, QUICK, trainer.device))
    assert all(torch.equal(t, before[name]) for name, t in tensors(model).items())
    assert torch.equal(data.x, rows)
    next(steps)
    assert not all(torch.equal(t, before[name]) for name, t in tensors(model).items())
