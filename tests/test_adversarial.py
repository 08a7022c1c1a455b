"""The VAE-GAN: two optimisations in one step, gradient by gradient, and sharp where a distance alone would blur.

That it learns, replays and goes on to the bit is held for it with all other objectives.
"""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers import COLUMNS, MODELS, grey, mixed, plane
from lowerbound import recipes
from lowerbound.choices import choose
from lowerbound.data import Data
from lowerbound.evaluation import evaluate
from lowerbound.models import VAE
from lowerbound.objectives import Adversarial, Elbo, Weight
from lowerbound.train import Loss, Options, Trainer

EVENTS = [(6,), (2, 3), (2, 5, 6)]


def model_of(event, x=None, **options) -> VAE:
    return recipes.mlp(x, event=event, latent=2, hidden=(8,), family="normal", **options)


def made(event, n=5, k=1, **options):
    """A model, its objective and a trace, in double precision, with data far from standard."""
    x = 40 + 9 * plane(n, event).double()
    torch.set_default_dtype(torch.float64)
    goal = Adversarial(event, hidden=(7, 6), centre=(50.0,), unit=(20.0,), k=k, **options)
    model = model_of(event, x)
    return model, goal, model(x, k=k)


def gradients(value, parameters):
    return torch.autograd.grad(value, list(parameters), retain_graph=True, allow_unused=True)


def by_hand(goal: Adversarial, trace, pictures):
    """Likeness and suspicion, means over the pictures, from their formulas."""
    k, n = len(pictures), math.prod(goal.event)
    x, pictures = (trace.x.expand(k, *trace.x.shape) - 50) / 20, (pictures - 50) / 20
    of_x, of_pictures = (goal.critic(t.flatten(0, 1))[1] for t in (x, pictures))
    elements = (x - pictures).square().mean().log()
    layers = [(a.detach() - b).square().mean().log() for a, b in zip(of_x, of_pictures)]
    likeness = -n / 2 * (goal.pixels * elements + goal.features * sum(layers) / len(layers))
    return likeness, -F.logsigmoid(goal.critic(pictures.flatten(0, 1))[0]).mean()


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("k", [1, 3])
def test_one_step_has_the_gradients_of_two_separate_optimisations(event, k):
    model, goal, trace = made(event, k=k, beta=0.7, pixels=0.4, features=1.3, adversarial=Weight(0.6), penalty=2.0)
    together = -goal(trace).mean()

    pictures = trace.likelihood.mean
    likeness, suspicion = by_hand(goal, trace, pictures)
    # the adaptive weight: the lengths of both gradients at the decoder's output
    pull, push = (gradients(term, [pictures])[0].norm() for term in (likeness, suspicion))
    weight = 0.6 * (pull / push).detach()
    of_model = -(likeness - 0.7 * trace.kl().mean() - weight * suspicion)
    torch.testing.assert_close(together, of_model, rtol=1e-4, atol=0)  # the critic's own loss is not in the value
    for found, expected in zip(gradients(together, model.parameters()), gradients(of_model, model.parameters())):
        assert (found is None) == (expected is None)  # the likelihood's scale: nobody learns it
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)

    real, false = ((t - 50) / 20 for t in (trace.x, pictures.detach().flatten(0, 1)))
    real.requires_grad_()
    logits = goal.critic(real)[0]
    slope = torch.autograd.grad(logits.sum(), real, create_graph=True)[0]
    of_critic = -F.logsigmoid(logits).mean() - F.logsigmoid(-goal.critic(false)[0]).mean()
    of_critic = of_critic + 2.0 / 2 * slope.square().flatten(1).sum(1).mean()
    parameters = list(goal.critic.parameters())
    for found, expected in zip(gradients(together, parameters), gradients(of_critic, parameters)):
        torch.testing.assert_close(found, expected)
        assert expected.abs().sum() > 0


def test_the_critic_pulls_as_hard_as_it_is_told():
    _, goal, trace = made((6,), beta=0.0)
    found = {}
    for strength in (0.0, 0.25, 2.0):
        goal.adversarial = Weight(strength)
        found[strength] = gradients(goal(trace).mean(), [trace.likelihood.loc])[0]
    alone = found[0.0]
    for strength in (0.25, 2.0):
        assert float((found[strength] - alone).norm() / alone.norm()) == pytest.approx(strength, rel=1e-4)


def test_the_critics_pull_rises_from_nothing():
    _, goal, trace = made((6,), adversarial=Weight(0.8, warmup=10))
    assert goal.horizon == 10

    def pull(step):
        return gradients(goal(trace, step).mean(), [trace.likelihood.loc])[0]

    steps = [pull(torch.tensor(float(s))) for s in (0, 5, 10, 99)]
    torch.testing.assert_close(steps[1] - steps[0], 0.5 * (steps[2] - steps[0]))
    torch.testing.assert_close(steps[3], steps[2])
    torch.testing.assert_close(pull(None), steps[2])
    goal.adversarial = Weight(0.0)
    torch.testing.assert_close(pull(None), steps[0])


def test_the_penalty_is_on_the_slope_of_the_critic_at_the_data():
    goal = made((6,), penalty=3.0)[1]
    x, pictures = torch.randn(5, 6), torch.randn(5, 6)
    whole = goal.lesson(x, pictures)[0]
    goal.penalty = 0.0
    penalty = whole - goal.lesson(x, pictures)[0]
    shifts = 1e-5 * torch.eye(6)[:, None]  # difference quotients, element by element
    slopes = (goal.critic((x + shifts).flatten(0, 1))[0] - goal.critic((x - shifts).flatten(0, 1))[0]) / 2e-5
    expected = 3.0 / 2 * slopes.unflatten(0, (6, -1)).square().sum(0).mean()
    assert float(expected.detach()) > 1e-6
    torch.testing.assert_close(penalty, expected, rtol=1e-6, atol=0)


def test_units_do_not_matter():
    torch.set_default_dtype(torch.float64)
    x = plane(5, (6,)).double()
    shift, unit = torch.tensor([3.0, 0, 0, -1, 0, 7]), torch.tensor([0.1, 1, 5, 2, 1, 30])
    values: list[torch.Tensor] = []
    for y, centre, spread in ((x, (0.0,), (1.0,)), (shift + unit * x, shift.tolist(), unit.tolist())):
        torch.manual_seed(1)
        model = model_of((6,), y)
        goal = Adversarial((6,), hidden=(7,), centre=centre, unit=spread)
        values.append(goal(model(y)))
    torch.testing.assert_close(values[1], values[0])


def test_a_look_without_gradients_finds_the_same_value():
    _, goal, trace = made((2, 5, 6))
    with torch.no_grad():
        value = goal(trace)
    assert not value.requires_grad
    torch.testing.assert_close(value, goal(trace).detach())


def corners(n: int) -> Data:
    """Rows of one element that is -1 or 1, to be explained through a z that says nothing."""
    x = torch.randint(0, 2, (n, 1)).float() * 2 - 1
    parts = torch.arange(n).split([n - 20, 10, 10])
    return Data("corners", x, dict(zip(("train", "valid", "test"), parts)))


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_pictures_are_sharp_where_a_distance_alone_would_blur(strength):
    data = corners(500)
    torch.manual_seed(0)
    model = recipes.mlp(data.fixed("train"), event=(1,), latent=2, hidden=(32, 32), family="normal")
    goal = Adversarial((1,), beta=50.0, adversarial=Weight(strength), features=0.0, hidden=(32, 32), penalty=0.03)
    trainer = Trainer(model, goal, Options(steps=400, batch=64, lr=1e-2, valid_every=0))
    assert len(list(trainer.fit(data))) == 400
    assert trainer.averaged(data.fixed("test")).kl().mean() < 0.05  # z says nothing: half of it is anybody's guess
    pictures = trainer.averaged.generate(400).mean.detach()
    if strength:
        assert pictures.abs().mean() > 0.6
    else:
        assert pictures.abs().mean() < 0.2


@pytest.mark.parametrize("family", [name for name in recipes.FAMILIES if name != "categorical"])
def test_every_likelihood_with_a_mean_learns_through_it(family):
    event = (1, 4, 5)
    x = grey(8, event).float()
    x = {"bernoulli": x.gt(2).float(), "continuous_bernoulli": x / 4}.get(family, x)
    model = recipes.conv(x, event=event, latent=2, channels=(8,), family=family, levels=5, components=2)
    goal = Adversarial(event, hidden=(4,))
    Loss(model, goal)(x, torch.zeros(())).loss.backward()
    found = model.decoder.net[-1].bias.grad
    assert found.isfinite().all() and found.abs().sum() > 0


def test_a_likelihood_without_a_mean_to_learn_through_is_refused():
    x = grey(8, (6,)).float()
    model = recipes.mlp(x, event=(6,), latent=2, hidden=(8,), family="categorical", levels=5)
    with pytest.raises(TypeError, match=r"the mean of p\(x\|z\).*a Categorical has none.*Use model.family=normal"):
        Adversarial((6,))(model(x))
    rows = mixed(20)
    table = MODELS["table"].make(rows)
    with pytest.raises(TypeError, match=r"a Joint has none that could be learned through"):
        Adversarial((len(COLUMNS),))(table(rows))


def test_a_critic_of_other_rows_is_refused():
    model = model_of((6,))
    with pytest.raises(ValueError, match=r"shape \(1, 2, 3\), and those of this model have .*objective.event=\[6\]"):
        Adversarial((1, 2, 3))(model(torch.zeros(4, 6)))


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(event=[]), r"event=\[\] must hold"),
        (dict(beta=-1.0), r"beta=-1.0"),
        (dict(adversarial=math.nan), r"adversarial=nan"),
        (dict(warmup=-3), r"warmup=-3"),
        (dict(penalty=math.inf), r"penalty=inf"),
        (dict(pixels=0.0, features=0.0), r"pixels and features are both 0, and nothing ties a picture"),
        (dict(hidden=[]), r"hidden=\[\] must hold"),
        (dict(hidden=[4, 0]), r"hidden=\[4, 0\] must hold"),
        (dict(event=[3, 8, 8], centre=[1.0, 2.0]), r"centre holds 2 numbers and must hold 1 or 3 for rows of shape"),
        (dict(unit=[0.0]), r"unit finite and above 0"),
    ],
)
def test_numbers_that_it_cannot_have_are_refused(wrong, words):
    with pytest.raises(ValueError, match="objective 'vaegan' cannot be so: .*" + words):
        recipes.vaegan(**{"event": [6]} | wrong)


def test_the_options_of_the_recipe_reach_it():
    goal = recipes.vaegan(
        event=[3, 8, 8], beta=2.0, pixels=0.3, features=0.7, adversarial=0.9, warmup=4, penalty=5.0, hidden=[4, 5],
        centre=[1.0, 2.0, 3.0], unit=[4.0], k=2,
    )  # fmt: skip
    assert (goal.beta, goal.pixels, goal.features, goal.penalty, goal.k) == (2.0, 0.3, 0.7, 5.0, 2)
    assert goal.adversarial == Weight(0.9, warmup=4) and goal.horizon == 4
    assert goal.standardize.shift.shape == (3, 1, 1) and float(goal.standardize.unit) == 4.0
    assert [m.out_channels for m in goal.modules() if isinstance(m, torch.nn.Conv2d)] == [4, 5]


def test_the_critic_is_trained_and_not_saved_with_the_model():
    data = corners(100)
    model = recipes.mlp(data.fixed("train"), event=(1,), latent=1, hidden=(4,), family="normal")
    trainer = Trainer(model, Adversarial((1,), hidden=(4,)), Options(steps=3, batch=16, valid_every=0))
    before = [p.detach().clone() for p in trainer.objective.parameters()]
    list(trainer.fit(data))
    assert all(not torch.equal(p, b) for p, b in zip(trainer.objective.parameters(), before))
    assert not any("critic" in name for name in trainer.result()) and Elbo()(model(data.fixed("test"))).isfinite().all()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("vaegan")


def test_the_command_line_says_that_there_is_no_bound(lowerbound, runs):
    small = ("model.hidden=[16]", "model.latent=2", "objective.hidden=[4]", "train.steps=20", "train.valid_every=10")
    status, said, error = lowerbound("train", "digits", "objective.name=vaegan", *small, "--out", runs / "run")
    assert status == 0, error
    assert "model.family=normal" in said and "objective.warmup=2" in said and "train.patience=0" in said
    assert "objective.centre" not in said and "log p(x) >=" not in said and "ELBO" not in said
    assert "no bound; loss" in said and "no bound. It was trained without a likelihood, and what it says of" in said
    report = (runs / "run" / "report.html").read_text()
    assert "It was trained without a likelihood" in report and "one point for each datum" not in report
    assert "Distortion" not in report
    log = [json.loads(line) for line in (runs / "run" / "log.jsonl").read_text().splitlines()]
    assert all(line["bound"] is None and line["distortion"] is None and line["rate"] > 0 for line in log)
    assert log[-1]["valid_bound"] is None and log[-1]["valid_rate"] > 0

    status, _, wrong = lowerbound("evaluate", runs / "run", "--k", "2", "--refine", "2")
    assert status == 1 and "improves a bound, and there is none" in " ".join(wrong.split())
    status, said, _ = lowerbound("evaluate", runs / "run", "--k", "2", "--json")
    found = json.loads(said)
    assert status == 0 and found["is_bound"] is False and found["rate"]["mean"] > 0
    assert found["bound"]["mean"] is None and found["elbo"]["mean"] is None and found["distortion"]["mean"] is None
    status, said, _ = lowerbound("refit", runs / "run", "--components", "2", "--k", "2")
    assert status == 0 and "no bound, before or after: it was trained without a likelihood" in said
    status, said, _ = lowerbound("doctor", runs / "run", "--json")
    found = {each["name"]: each for each in json.loads(said)["findings"]}
    assert found["learning rate"]["verdict"] == "unknown" and "what the critic learns" in found["learning rate"]["what"]
    for verb in (("sample", runs / "run"), ("decode", runs / "run", runs / "z.npz")):
        np.savez(runs / "z.npz", z0=np.zeros((3, 2)))
        assert lowerbound(*verb, "-o", runs / "x.png")[0] == 0
        status, _, wrong = lowerbound(*verb, "--draw", "-o", runs / "y.png")
        assert status == 1 and "no likelihood to draw from" in " ".join(wrong.split())


def test_only_what_was_trained_without_a_likelihood_has_no_bound():
    x = plane(30, (6,))
    model = model_of((6,), x)
    found = evaluate(model, x, k=2)
    without = evaluate(model, x, k=2, likelihood=False)
    assert found.is_bound and not found.no_bound
    assert not without.is_bound and "without a likelihood" in without.no_bound and without.bits_per_dim is None
    assert found.rate == without.rate and found.summary()["bound"]["mean"] == found.bound.mean
    point = evaluate(recipes.mlp(x, event=(6,), latent=2, hidden=(8,), posterior="point", family="normal"), x, k=2)
    assert not point.is_bound and "the posterior is a point" in point.no_bound


def digits(**tables):
    run = {"data": {"name": "digits"}, "model": {}, "objective": {"name": "vaegan"}, "train": {}}
    return {kind: run[kind] | tables.get(kind, {}) for kind in run}


def test_the_data_say_what_the_critic_reads():
    data = recipes.DATA["digits"]()
    run = digits()
    choose(run, data)
    x = data.fixed("train").float()
    assert run["objective"]["event"] == [1, 8, 8]
    assert run["objective"]["centre"] == pytest.approx([float(x.mean())], rel=0.05)
    assert run["objective"]["unit"] == pytest.approx([float(x.std())], rel=0.05)
    columns = torch.randn(60, 3) * torch.tensor([1.0, 10.0, 0.0]) + 5
    run = digits(data={"name": "array"})
    choose(run, Data("columns", columns, dict(zip(("train", "valid", "test"), torch.arange(60).split([40, 10, 10])))))
    assert len(run["objective"]["unit"]) == 3 and run["objective"]["unit"][2] == 1.0
    assert run["objective"]["centre"] == pytest.approx(columns[:40].mean(0).tolist())


def test_what_does_not_fit_the_data_or_keeps_by_a_bound_is_refused():
    data = recipes.DATA["digits"]()
    with pytest.raises(ValueError, match=r"objective.event=\[2, 8, 8\], but a row of digits has shape \[1, 8, 8\]"):
        choose(digits(objective={"event": [2, 8, 8]}), data)
    with pytest.raises(ValueError, match=r"train.patience=3 keeps the weights with the best bound"):
        choose(digits(train={"patience": 3}), data)
    with pytest.raises(ValueError, match=r"one mean of a whole row, and the columns of rows are of many kinds"):
        rows = dict(zip(("train", "valid", "test"), torch.arange(60).split([40, 10, 10])))
        choose(digits(data={"name": "table"}), Data("rows", mixed(60), rows, columns=COLUMNS))
    with pytest.raises(ValueError, match=r"one mean of a whole row, and model.given=top explains a part of it"):
        choose(digits(model={"given": "top"}), data.conditional("top"))
    with pytest.raises(ValueError, match=r"one mean of a whole row, and model.name=pixel draws a row one element"):
        choose(digits(model={"name": "pixel"}), data)
    with pytest.raises(ValueError, match=r"train.compile=on .* differentiates its critic twice"):
        choose(digits(train={"compile": "on"}), data)
    with pytest.raises(ValueError, match=r"objective 'vaegan' has a KL term, which is infinite"):
        choose(digits(model={"posterior": "point"}), data)


def test_a_model_that_sums_its_classes_out_is_refused():
    model = recipes.m2(event=(6,), classes=3, latent=2, hidden=(8,))
    with pytest.raises(TypeError, match=r"sums one out and learns by those sums alone. Use objective.name=elbo"):
        Adversarial((6,), 1.0, hidden=(8, 8))(model(torch.rand(4, 6), torch.tensor([0.0, 1.0, 2.0, math.nan])))
