"""Models that are told something of each row: labels, numbers, or a part of an image."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import Categorical, Independent

from helpers import COLUMNS, grey, mixed, plane
from lowerbound import checkpoint, cli, nets, recipes
from lowerbound.choices import choose
from lowerbound.cli.opening import _class, _read
from lowerbound.data import REGIONS, Data, hidden_pixels, split
from lowerbound.distributions import Completed
from lowerbound.evaluation import bracket, evaluate
from lowerbound.metrics import Estimate
from lowerbound.objectives import Elbo, Reconstruction
from lowerbound.train import Ensemble, Options, Trainer
from lowerbound.train.batches import Batches
from lowerbound.views import View

SMALL = dict(latent=2, hidden=(16, 16))
QUICK = Options(steps=12, batch=8, warmup=0, valid_every=6)


def labelled(n: int = 90, classes: int = 3, **more) -> Data:
    """Rows of four levels whose mean a label decides."""
    labels = torch.arange(n) % classes
    x = (labels[:, None] + grey(n, (6,)) % 2).to(torch.uint8)
    return Data("labelled", x, split(n), labels=labels, levels=5, **more)


def images(n: int = 60, event=(1, 6, 4), **more) -> Data:
    return Data("images", grey(n, event), split(n), levels=5, **more)


def cases() -> dict[str, tuple[Data, dict]]:
    numbers = replace(labelled(), labels=torch.randn(90, 2) * 3 + 7, given="label")
    grey_family = dict(family="logistic_mixture", levels=5, components=2)
    return {
        "class": (labelled(given="label"), grey_family | dict(event=(6,), classes=3)),
        "numbers": (numbers, grey_family | dict(event=(6,), attributes=2)),
        "top": (images(given="top"), grey_family | dict(event=(1, 6, 4), given="top")),
        "left": (images(event=(2, 5, 7), given="left"), grey_family | dict(event=(2, 5, 7), given="left")),
        "border": (images(given="border", noise="binarize"), dict(event=(1, 6, 4), given="border", family="bernoulli")),
        "conv_class": (
            replace(images(), labels=torch.arange(60) % 4, given="label"),
            grey_family | dict(event=(1, 6, 4), classes=4, network="conv", channels=(8,)),
        ),
        "conv_top": (
            replace(Data("reals", plane(60, (1, 6, 4)), split(60)), given="top"),
            dict(event=(1, 6, 4), given="top", network="conv", channels=(8,), family="normal", scale="element"),
        ),
    }


def make(data: Data, table: dict):
    torch.manual_seed(0)
    return recipes.cvae(data.fixed("train"), *data.context("train"), **SMALL, **table)


CASES = list(cases())


@pytest.mark.parametrize("name", CASES)
def test_it_trains_is_evaluated_and_reaches_every_parameter(name):
    data, table = cases()[name]
    model = make(data, table)
    x, context = data.fixed("train"), data.context("train")
    trace = model(x[:7], *(c[:7] for c in context), k=3)
    assert trace.log_weight().shape == (3, 7) and trace.log_weight().isfinite().all()
    # the prior starts at N(0, I) whatever it is told, and the first layer of it is reached once its last has moved
    torch.testing.assert_close(trace.sites[0].p.mean, torch.zeros(7, 2))
    for _ in range(2):
        steps = list(Trainer(model, Elbo(), QUICK).fit(data))
    assert steps[-1].validation is not None and math.isfinite(steps[-1].validation.valid.bound.mean)
    model.train()
    model(x, *context).log_weight().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert model.generate(5, *(c[:5] for c in context)).sample().shape == (5, *data.event)


@pytest.mark.parametrize("name", CASES)
def test_replayed_and_resumed_it_is_the_same_to_the_bit(name):
    data, table = cases()[name]
    plain = Trainer(make(data, table), Elbo(), replace(QUICK, compile="off"))
    whole = [float(step.terms.loss) for step in plain.fit(data)]
    first = Trainer(make(data, table), Elbo(), QUICK)
    begun = first.fit(data)
    half = [float(next(begun).terms.loss) for _ in range(5)]
    second = Trainer(make(data, table), Elbo(), QUICK)
    second.load(*first.state())
    assert half + [float(step.terms.loss) for step in second.fit(data)] == whole


def test_a_stack_of_them_is_trained_as_each_alone():
    data, table = cases()["class"]
    # without noise in z the two are the same
    table = table | dict(posterior="point")
    alone = Trainer(make(data, table), Reconstruction(), QUICK)
    expected = [float(step.terms.loss) for step in alone.fit(data)]
    stack = Ensemble([make(data, table) for _ in range(2)], [Reconstruction()] * 2, QUICK)
    found = [[float(step.terms.loss) for step in steps if step] for steps in stack.fit(data)]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected)[:, None].expand(-1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_of_it_is_the_model(name, tmp_path):
    data, table = cases()[name]
    trainer = Trainer(make(data, table), Elbo(), QUICK)
    list(trainer.fit(data))
    run = {"data": {}, "model": {"name": "cvae"} | SMALL | table, "objective": {}, "train": {}}
    checkpoint.save_model(tmp_path / checkpoint.MODEL, trainer.result(), json.loads(json.dumps(run)), 12)
    loaded, _ = checkpoint.load_model(tmp_path)
    x, context = data.fixed("test"), data.context("test")
    found = [evaluate(model, x, *context, k=3) for model in (trainer.averaged, loaded)]
    torch.testing.assert_close(found[0].values, found[1].values)


def test_what_is_known_of_an_image_costs_nothing_and_is_kept():
    data, table = cases()["left"]
    model = make(data, table).eval()
    x, (known,) = data.fixed("test"), data.context("test")
    mask = hidden_pixels("left", (5, 7))
    assert known[..., mask].isnan().all() and torch.equal(known[..., ~mask], x[..., ~mask])
    p = model.generate(len(x), known)
    for drawn in (p.sample(), p.mean):
        assert torch.equal(drawn[..., ~mask], x[..., ~mask]) and not drawn.isnan().any()
    other = x.clone()
    other[..., ~mask] = 4 - other[..., ~mask]
    torch.testing.assert_close(p.log_prob(other), p.log_prob(x))
    assert data.dims == 2 * int(mask.sum()) and data.explained == "rest|left"
    # bits for each pixel that is explained
    found = evaluate(model, x, known, k=2, discrete=True, dims=data.dims)
    assert found.bits_per_dim.mean == pytest.approx(-found.bound.mean / math.log(2) / data.dims)


def test_the_probabilities_of_all_completions_add_up_to_one():
    logits = torch.randn(2, 1, 3, 2)
    places = torch.tensor([0, 3, 5])
    known = torch.tensor([[[math.nan, 1.0], [0.0, math.nan], [1.0, math.nan]]])
    p = Completed(Independent(Categorical(logits=logits), 2), known, places)
    every = torch.cartesian_prod(*[torch.arange(2.0)] * 3)
    x = known.expand(8, 1, 3, 2).clone().flatten(-2)
    x[..., places] = every[:, None]
    total = p.log_prob(x.unflatten(-1, (3, 2))[:, None]).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(2))
    torch.manual_seed(0)
    drawn = p.sample((4000,)).flatten(-2)[..., places]
    frequency = (drawn == 1).double().mean(0).squeeze(-2)
    torch.testing.assert_close(frequency, logits.softmax(-1)[:, 0, :, 1].double(), atol=0.04, rtol=0)


@pytest.mark.parametrize("given", REGIONS)
@pytest.mark.parametrize("size", [(3, 3), (5, 7), (8, 8)])
def test_a_part_is_known_and_a_part_is_hidden(given, size):
    mask = hidden_pixels(given, size)
    assert 0 < int(mask.sum()) < mask.numel()


@pytest.mark.slow
def test_a_label_is_worth_what_it_says_of_the_data():
    # x is the label: told it, nothing is left to say; without it, log 3
    labels = torch.arange(600) % 3
    x = torch.nn.functional.one_hot(labels, 3).to(torch.uint8)
    data = Data("labels", x, split(600), labels=labels, levels=2)
    bounds = []
    options = Options(steps=400, batch=64, lr=1e-2)
    for told in (data.conditional("label"), data):
        table = dict(event=(3,), family="bernoulli", latent=2, hidden=(16,))
        rows = told.fixed("train")
        model = (
            recipes.cvae(rows, *told.context("train"), classes=3, **table) if told.given else recipes.mlp(rows, **table)
        )
        list(Trainer(model, Elbo(), options).fit(told))
        bounds.append(evaluate(model, told.fixed("test"), *told.context("test"), k=100).bound)
    assert bounds[0].mean > -0.1
    assert bounds[1].mean < -math.log(3) + 0.05


def test_the_prior_of_a_conditional_model_is_drawn_from_a_row_each():
    torch.manual_seed(0)
    data, table = cases()["class"]
    model = make(data, table).eval()
    with torch.no_grad():
        model.prior.net[-1].net[-2].weight.normal_(std=3.0)
    labels = torch.tensor([0.0, 1.0, 2.0]).repeat(2000)
    with torch.no_grad():
        p = model.prior(labels[:3])
        seen = []
        model.decoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        model.generate(6000, labels)
    drawn = seen[0].unflatten(0, (2000, 3))
    torch.testing.assert_close(drawn.mean(0), p.mean, atol=0.15, rtol=0.1)
    torch.testing.assert_close(drawn.std(0), p.stddev, atol=0.05, rtol=0.1)


def test_log_p_of_x_given_a_label_lies_between_two_bounds():
    data, table = cases()["conv_class"]
    data = replace(data, noise="binarize")
    model = make(data, table | dict(family="bernoulli")).eval()
    context = data.context("test")
    found = bracket(model, 6, *(c[:6] for c in context), temperatures=60)
    bound = evaluate(model, found.x, *(c[:6] for c in context), k=2000).values
    assert Estimate.of(found.lower).mean - 0.3 < bound.mean() < Estimate.of(found.upper).mean + 0.3


def test_some_labels_are_known_as_many_of_each_class():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 9 + [-1])
    data = Data("few", grey(100, (6,)), split(100), labels=labels, levels=5).conditional("train label", 12)
    told = data.told
    known = told[~told.isnan()]
    assert len(known) == 12 and known.long().bincount().tolist() == [4, 4, 4]
    assert torch.isin((~told.isnan()).nonzero().flatten(), data.split["train"]).all()
    assert data.context("test")[0].isnan().all() and data.explained == "x"
    assert data.conditional("label").told[-1].isnan() and data.conditional("label").explained == "x|label"
    every = data.conditional("train label").told
    assert torch.equal(~every[data.split["train"]].isnan(), labels[data.split["train"]] >= 0)
    assert every[data.split["valid"]].isnan().all()


def test_rows_to_train_on_are_told_their_numbers_and_no_others():
    data = labelled(90).conditional("row")
    assert torch.equal(data.context("train")[0], data.split["train"].float())
    assert data.context("valid")[0].isnan().all() and data.context("test")[0].isnan().all()
    assert (data.explained, data.dims) == ("x", data.event.numel())
    batches = Batches(data, replace(QUICK, batch=10), torch.device("cpu"))
    x, numbers = batches.draw(3, None)
    assert torch.equal(x, data.x[numbers.long()].float()) and len(batches.train) == len(data.split["train"])


def test_batches_hold_rows_with_a_label_however_few_there_are():
    data = labelled(900).conditional("train label", 9)
    batches = Batches(data, replace(QUICK, batch=50), torch.device("cpu"))
    share = torch.cat([batches.draw(i, None)[1] for i in range(16)]).isfinite().double().mean()
    assert 0.1 < share < 0.3
    everywhere = Batches(labelled(900).conditional("label"), QUICK, torch.device("cpu"))
    assert len(everywhere.train) == len(data.split["train"])


def test_unknown_labels_and_numbers_are_read_as_nothing():
    assert nets.OneHot(3)(torch.tensor([1.0, math.nan])).tolist() == [[0, 1, 0], [0, 0, 0]]
    read = nets.Attributes(torch.tensor([5.0]), torch.tensor([2.0]))
    assert read(torch.tensor([[9.0], [math.nan]])).tolist() == [[2.0], [0.0]]
    known = nets.KnownPart(torch.zeros(1, 1, 2), torch.ones(1, 1, 1))(torch.tensor([[[[3.0, math.nan]]]]))
    assert known.tolist() == [[[[3.0, 0.0]], [[1.0, 0.0]]]]


def test_what_cannot_be_told_is_said():
    with pytest.raises(ValueError, match=r"images has no labels, and this model is told them of rows\. Put"):
        images(given="label")
    rows = Data("rows", mixed(30), split(30), columns=COLUMNS)
    with pytest.raises(ValueError, match="rows is a table, of which a model has all columns together"):
        rows.conditional("label")
    with pytest.raises(ValueError, match="given=top tells a model a part of an image"):
        labelled(given="top")
    with pytest.raises(ValueError, match="images of 2x2 are too small to have parts"):
        images(event=(1, 2, 2), given="top")
    with pytest.raises(ValueError, match="given='bottom' is not known"):
        images(given="bottom")
    with pytest.raises(ValueError, match="labelled=500 is how many of the 72 rows"):
        labelled().conditional("train label", 500)
    with pytest.raises(ValueError, match="this model is conditional, and was told nothing"):
        data, table = cases()["class"]
        make(data, table)(data.fixed("test"))
    with pytest.raises(ValueError, match="classes=0 and attributes=0"):
        recipes.cvae(event=(6,))
    with pytest.raises(ValueError, match="network=conv is for images"):
        recipes.cvae(event=(6,), classes=2, network="conv")
    with pytest.raises(ValueError, match="given=top is for images"):
        recipes.cvae(event=(6,), given="top")


def test_a_normal_rest_is_seen_from_its_lowest_to_its_highest_value():
    data, table = cases()["conv_top"]
    view = View.alone(make(data, table).eval(), data.event)
    assert view.low < data.x.mean() < view.high


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A short run that is told the classes of digits."""
    folder = tmp_path_factory.mktemp("told") / "run"
    arguments = ["train", "digits", "model.given=label", "model.hidden=32", "train.steps=60", "--k", "2"]
    assert cli.app([*arguments, "--out", str(folder)], result_action="return_value") == 0
    return folder


def test_the_command_line_makes_rows_of_a_class(told, lowerbound, tmp_path):
    tables = checkpoint.load_model(told)[1]
    assert tables["model"]["classes"] == 10 and tables["model"]["names"] == [str(i) for i in range(10)]
    assert (told / "figures" / "labels.png").is_file()
    assert lowerbound("sample", told, "--label", "7", "-n", "5", "-o", tmp_path / "x.npz")[0] == 0
    assert np.load(tmp_path / "x.npz")["x"].shape == (5, 1, 8, 8)
    # of the 64 each column is a class: seven rows of ten
    assert lowerbound("sample", told, "-o", tmp_path / "x.png")[0] == 0
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width / picture.height == pytest.approx(10 / 7, rel=0.05)
    for verb in ("reconstruct", "interpolate", "traverse", "encode"):
        assert lowerbound(verb, told)[0] == 0, verb
    assert "log p(x|label) >=" in lowerbound("evaluate", told, "--k", "5")[1]
    made = {}
    for name, more in (("own", ()), ("three", ("--label", "3"))):
        assert lowerbound("decode", told, told / "latents.npz", *more, "-o", tmp_path / f"{name}.npz")[0] == 0
        made[name] = np.load(tmp_path / f"{name}.npz")["x"]
    model, tables = checkpoint.load_model(told)
    codes = np.load(told / "latents.npz")
    view = View.alone(model.eval(), tables["model"]["event"])
    with torch.no_grad():
        z, labels = torch.from_numpy(codes["z0"]), torch.from_numpy(codes["labels"])
        own, three = (view.generate(len(z), [z], context=(c.float(),)) for c in (labels, torch.full_like(labels, 3)))
    np.testing.assert_allclose(made["own"], own, atol=1e-4)
    np.testing.assert_allclose(made["three"], three, atol=1e-4)


def test_labels_of_another_file_are_counted_as_the_model_counts_them(lowerbound, tmp_path):
    x, y = grey(60, (6, 5)).numpy(), np.arange(60) % 4 + 5
    np.savez(tmp_path / "all.npz", x=x, labels=y)
    told = tmp_path / "run"
    small = ["model.hidden=16", "train.steps=20", "--k", "2"]
    assert lowerbound("train", tmp_path / "all.npz", "model.given=label", *small, "--out", told)[0] == 0
    np.savez(tmp_path / "some.npz", x=x[y > 6], labels=y[y > 6])
    _, context, labels, _ = _read(checkpoint.load_model(told)[1], tmp_path / "some.npz")
    assert context[0].tolist() == labels.tolist() == (y[y > 6] - 5).tolist()
    assert lowerbound("encode", told, tmp_path / "some.npz")[0] == 0
    np.savez(tmp_path / "others.npz", x=x, labels=y + 2)
    np.savez(tmp_path / "factors.npz", x=x, labels=np.stack((y, y), 1) / 7)
    for name, wrong in (
        ("others", "the model knows no class 9, 10;"),
        ("factors", "labels are 2 numbers, and the model"),
    ):
        status, _, said = lowerbound("encode", told, tmp_path / f"{name}.npz")
        assert status == 1 and wrong in " ".join(said.split())


def test_a_model_that_is_told_labels_needs_one_of_each_row():
    data = replace(labelled(), labels=torch.where(torch.arange(90) < 20, -1, labelled().labels))
    run = {"data": {"name": "made"}, "model": {"given": "label"}, "objective": {}, "train": {}}
    with pytest.raises(ValueError, match=r"20 of 90 rows of .* have none.* choose model.name=m2"):
        choose(run, data.conditional("label"))


def test_the_number_of_a_row_is_no_label(lowerbound, tmp_path):
    small = ["model.hidden=16", "model.prior_components=20", "train.steps=20", "--k", "2"]
    assert lowerbound("train", "digits", "model.prior=exemplar", *small, "--out", tmp_path / "run")[0] == 0
    assert not (tmp_path / "run" / "figures" / "labels.png").exists()
    for command in (("doctor",), ("evaluate", "--refine", "2", "--k", "2"), ("sample",), ("encode",)):
        verb, *more = command
        status, said, wrong = lowerbound(verb, tmp_path / "run", *more)
        assert status == (verb == "doctor" and "no findings" not in said), (verb, said, wrong)
        assert "broke off" not in said


def test_the_command_line_completes_images(lowerbound, tmp_path):
    np.save(tmp_path / "x.npy", grey(60, (6, 5)).numpy())
    run = tmp_path / "run"
    small = ["model.hidden=16", "train.steps=20", "--k", "2"]
    assert lowerbound("train", tmp_path / "x.npy", "model.given=top", *small, "--out", run)[0] == 0
    assert (run / "figures" / "completions.png").is_file()
    assert "log p(rest|top) >=" in lowerbound("evaluate", run, "--k", "5")[1]
    for more in ((), (tmp_path / "x.npy",)):
        assert lowerbound("sample", run, *more, "-n", "24", "-o", tmp_path / "c.npz", "--draw")[0] == 0
        found = np.load(tmp_path / "c.npz")
        assert found["x"].shape == (3, 6, 1, 6, 5)
        assert (found["x"][..., :3, :] == found["original"][:, None, ..., :3, :]).all()
    assert lowerbound("sample", run)[0] == 0
    assert lowerbound("sample", run, "--label", "1")[0] != 0
    for verb in ("reconstruct", "interpolate", "traverse", "encode"):
        assert lowerbound(verb, run)[0] == 0, verb
    assert "z alone does not say which image" in " ".join(lowerbound("decode", run, run / "latents.npz")[2].split())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("sample", "RUN", "--label", "12"), "--label 12 is no label that the model knows"),
        (("sample", "RUN", "--label", "seven"), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (("sample", "RUN", "photos"), "is no model that completes images"),
        (("refit", "RUN"), "has no prior of one latent vector"),
        (("lab", "digits", "model.given=label"), "a laboratory compares models of p(x)"),
        (("train", "digits", "train.labelled=5"), "train.labelled=5 is how many labels a model learns from"),
        (("train", "shapes", "model.name=m2", "train.labelled=5"), "has labels that are numbers"),
        (("train", "digits", "model.given=bottom"), "given='bottom'"),
    ],
)
def test_bad_input_on_the_command_line(told, lowerbound, command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, wrong = lowerbound(*(told if word == "RUN" else word for word in command))
    assert status == 1 and message in " ".join(wrong.split())


def test_of_classes_that_are_called_by_numbers_a_number_is_a_name():
    classes = {"classes": 3}
    assert _class("2", classes | {"names": ["1", "2", "3"]}) == 1
    assert _class("2", classes | {"names": ["a", "b", "c"]}) == _class("2", classes | {"names": []}) == 2
    with pytest.raises(ValueError, match="--label 0 is no label that the model knows: 1, 2, 3"):
        _class("0", classes | {"names": ["1", "2", "3"]})
