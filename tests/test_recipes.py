"""Recipes: every combination that makes sense builds, starts near the data, and learns; the rest is refused."""

import dataclasses
import inspect
import json
import math
import typing

import pytest
import torch

from helpers import WITHOUT_MEAN, fives, grey, plane
from lowerbound import families, nets, recipes
from lowerbound.metrics import kl_per_dimension
from lowerbound.models import VAE
from lowerbound.objectives import Elbo, MeanDiscrepancy, Reconstruction, Weight
from lowerbound.run import accepts, full, options
from lowerbound.train import Loss, Options, fill, tensors

ALL = [(kind, name) for kind, names in recipes.CATALOGUES.items() for name in names] + [("train", "")]
SIZES = [(1, 28, 28), (1, 28, 20), (3, 37, 53), (1, 5, 9), (2, 8, 8)]
DATA = {
    "bernoulli": lambda n, event: (grey(n, event) > 2).float(),
    "continuous_bernoulli": lambda n, event: grey(n, event).float() / 4,
    "categorical": lambda n, event: grey(n, event).float(),
    "logistic": lambda n, event: grey(n, event).float(),
    "logistic_mixture": lambda n, event: grey(n, event).float(),
    "normal": plane,
    "laplace": plane,
    "student_t": plane,
}


@pytest.mark.parametrize("kind, name", ALL)
def test_every_option_is_explained_typed_and_has_a_plain_default(kind, name):
    recipe = recipes.recipe(kind, name)
    text = inspect.getdoc(recipe)
    assert text and text.splitlines()[0].endswith(".")
    for key, parameter in options(recipe).items():
        assert f"    {key}: " in text, f"{key} has no line"
        assert parameter.annotation is not inspect.Parameter.empty
        if parameter.default is not inspect.Parameter.empty:
            assert accepts(parameter.annotation, parameter.default)
    table = full(recipe, kind, {})
    assert json.loads(json.dumps(table)) == table


def test_the_words_of_the_signatures_are_those_of_the_catalogues():
    assert typing.get_args(recipes.FamilyName) == tuple(recipes.FAMILIES)
    assert typing.get_args(recipes.PosteriorName) == tuple(recipes.POSTERIORS)
    assert typing.get_args(recipes.PriorName) == tuple(recipes.PRIORS)
    assert typing.get_args(recipes.ActivationName) == tuple(nets.ACTIVATIONS)


def learns(model: VAE, x: torch.Tensor, goal=None, steps: int = 6) -> None:
    loss = Loss(model, goal or Elbo())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    first = None
    for step in range(steps):
        terms = loss(x, torch.tensor(float(step)))
        optimizer.zero_grad()
        terms.loss.backward()
        assert terms.loss.isfinite()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        first = terms.loss.item() if first is None else first
        optimizer.step()
    assert terms.loss.item() < first


@pytest.mark.parametrize("family", list(recipes.FAMILIES))
@pytest.mark.parametrize("recipe, event", [("mlp", (6,)), ("mlp", (1, 4, 5)), ("conv", (1, 4, 5)), ("conv", (3, 6, 4))])
def test_every_family_learns(family, recipe, event):
    x = DATA[family](40, event)
    small = dict(hidden=(8,)) if recipe == "mlp" else dict(channels=(8,))
    model = recipes.MODELS[recipe](x, event=event, latent=2, family=family, levels=5, components=2, **small)
    learns(model, x, steps=12)
    assert model.generate(3).sample().shape == (3, *event)
    assert model.decoder.family.support.check(model.generate(50).sample()).all()


@pytest.mark.parametrize("prior", list(recipes.PRIORS))
@pytest.mark.parametrize("posterior", list(recipes.POSTERIORS))
def test_every_posterior_learns_with_every_prior(posterior, prior):
    x = DATA["bernoulli"](40, (6,))
    small = dict(event=(6,), latent=2, hidden=(8,), prior_components=3)
    if (posterior == "sphere" and prior not in ("sphere", "vamp")) or (prior == "sphere" != posterior):
        with pytest.raises(ValueError, match=r"one lies on a sphere and the other does not.*sphere, vamp"):
            recipes.mlp(x, torch.arange(40), posterior=posterior, prior=prior, **small)
        return
    if prior == "exemplar" and posterior in WITHOUT_MEAN:
        with pytest.raises(ValueError, match=r"around the means of posteriors.*no closed form.*posterior='normal'"):
            recipes.mlp(x, torch.arange(40), posterior=posterior, prior=prior, **small)
        return
    model = recipes.mlp(x, torch.arange(40), posterior=posterior, prior=prior, **small)
    learns(model, x, Reconstruction() if posterior == "point" else None, steps=15)
    assert model.generate(3).sample().shape == (3, 6) or posterior == "point"


def test_exemplars_are_rows_and_no_row_twice():
    x, numbers = DATA["bernoulli"](6, (6,)), torch.tensor([9, 4, 7, 1, 3, 8])
    small = dict(event=(6,), latent=2, hidden=(8,), prior="exemplar")
    prior = recipes.mlp(x, numbers, prior_components=3, **small).prior
    assert torch.equal(prior.rows, x[[list(numbers).index(i) for i in prior.numbers]])
    with pytest.raises(ValueError, match=r"must know which rows it is made of: train on data.conditional\('row'\)"):
        recipes.mlp(x, prior_components=3, **small)
    with pytest.raises(ValueError, match=r"prior_components=7 exemplars cannot be had of 6 training rows"):
        recipes.mlp(x, numbers, prior_components=7, **small)
    assert recipes.given({"name": "mlp", "prior": "exemplar"}) == "row" and recipes.given({"name": "mlp"}) == ""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spatial", [False, True])
def test_images_of_any_size(size, spatial):
    x = fives(8, size)
    model = recipes.conv(x, event=size, latent=2, spatial=spatial, channels=(8, 8), levels=5, components=2)
    trace = model(x, k=2)
    bottom = nets.pyramid(size[1:], 2)[-1]
    assert trace.sites[0].z.shape == ((2, 8, 2, *bottom) if spatial else (2, 8, 2))
    assert trace.log_likelihood().shape == (2, 8)
    Elbo()(trace).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.generate(2).sample().shape == (2, *size)
    # different images have different codes, and different codes make different images
    assert model.encoder(x).mean.flatten(1).std(0).min() > 1e-4
    assert model.generate(8, z=[torch.randn_like(trace.sites[0].z[0])]).mean.std(0).min() > 1e-6


@pytest.mark.parametrize("prior", ["normal", "mixture", "vamp"])
def test_a_spatial_latent_with_every_prior_that_has_a_shape(prior):
    x = fives(20, (1, 6, 6))
    model = recipes.conv(
        x, event=(1, 6, 6), latent=2, spatial=True, channels=(8,), levels=5, prior=prior, prior_components=3
    )
    learns(model, x)
    if prior == "normal":
        assert kl_per_dimension(model(x).sites[0]).shape == (20, 2, 3, 3)


@pytest.mark.parametrize("family", list(recipes.FAMILIES))
def test_a_model_starts_near_its_data(family):
    x = DATA[family](300, (6,))
    x[:, 0] = x[0, 0]  # a column that never changes
    torch.manual_seed(0)
    told = recipes.mlp(x, event=(6,), latent=2, hidden=(8,), family=family, levels=5, components=2)
    torch.manual_seed(0)
    blind = recipes.mlp(event=(6,), latent=2, hidden=(8,), family=family, levels=5, components=2)
    with torch.no_grad():
        for model in (told, blind):
            model.decoder.net[0].net[-2].weight.zero_()  # what the decoder says before it knows z
        assert told(x).log_likelihood().mean() > blind(x).log_likelihood().mean()
    assert told(x).log_weight().isfinite().all()


@pytest.mark.parametrize("recipe, small", [("mlp", dict(hidden=(8,))), ("conv", dict(channels=(8,)))])
def test_a_model_without_data_is_filled_from_one_with(recipe, small):
    x = plane(30, (2, 4, 4))
    options_of = dict(event=(2, 4, 4), latent=2, family="normal", prior="vamp", prior_components=3, **small)
    told, blind = recipes.MODELS[recipe](x, **options_of), recipes.MODELS[recipe](**options_of)
    fill(blind, tensors(told))
    torch.manual_seed(0)
    here = told(x).log_weight()
    torch.manual_seed(0)
    assert torch.equal(blind(x).log_weight(), here)


def test_standardisation_is_of_each_element_with_one_spread_a_channel():
    x = plane(200, (2, 3, 4)) * torch.tensor([1.0, 10.0]).reshape(2, 1, 1)
    shift, unit = recipes.standardisation(x, (2, 3, 4))
    torch.testing.assert_close(shift, x.mean(0))
    assert unit.shape == (2, 1, 1)
    y = (x - shift) / unit
    torch.testing.assert_close(y.square().mean((0, 2, 3)), torch.ones(2))
    rows = plane(200, (5,))
    rows[:, 2] = 3e7  # it never changes, and its spread is not the rounding error of its mean
    shift, unit = recipes.standardisation(rows, (5,))
    assert unit[2] == 1 and shift[2] == 3e7
    torch.testing.assert_close(unit[:2], rows.std(0, correction=0)[:2])
    assert recipes.standardisation(None, (2, 3, 4))[1].shape == (2, 1, 1)


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, 1e6])
def test_a_constant_column_is_no_unit_of_its_own(constant):
    x = torch.randn(5000, 3)
    x[:, 1] = constant
    _, unit = recipes.standardisation(x, (3,))
    assert unit[1] == 1 and (unit[[0, 2]] - 1).abs().max() < 0.1


def test_small_numbers_beside_large_ones_keep_their_own_unit():
    x = torch.randn(5000, 2) * torch.tensor([1e-3, 1.0]) + torch.tensor([0.0, 1e5])
    _, unit = recipes.standardisation(x, (2,))
    assert abs(unit[0] / 1e-3 - 1) < 0.1


def test_pseudo_inputs_start_as_rows_of_the_data():
    x = plane(40, (6,))
    model = recipes.mlp(x, event=(6,), latent=2, hidden=(8,), family="normal", prior="vamp", prior_components=100)
    rows = {tuple(row) for row in x.tolist()}
    assert model.prior.inputs.shape == (100, 6)
    assert {tuple(row) for row in model.prior.inputs.tolist()} == rows  # all of them, since there are fewer


def test_dropout_hides_inputs_in_training_only():
    x = DATA["bernoulli"](30, (6,))
    model = recipes.mlp(x, event=(6,), latent=2, hidden=(8,), dropout=0.5)
    assert not torch.equal(model.train().encoder(x).loc, model.encoder(x).loc)
    assert torch.equal(model.eval().encoder(x).loc, model.encoder(x).loc)
    assert torch.equal(model.train().decoder(torch.ones(1, 2)).mean, model.decoder(torch.ones(1, 2)).mean)


@pytest.mark.parametrize("scale, numbers", [("element", 2), ("shared", 1), (0.5, 1)])
def test_the_scale_is_predicted_learned_or_given(scale, numbers):
    x = plane(30, (6,))
    model = recipes.mlp(x, event=(6,), latent=2, hidden=(8,), family="normal", scale=scale)
    assert model.decoder.family.shape == (6 * numbers,)
    p = model.generate(4)
    if scale == 0.5:
        assert (p.scale == 0.5).all()
    elif scale == "shared":
        torch.testing.assert_close(p.scale, x.std(0, correction=0).expand(4, 6))


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5])
def test_an_impossible_dropout_is_refused(dropout):
    with pytest.raises(ValueError, match=rf"dropout={dropout} must be in \[0, 1\)"):
        recipes.mlp(event=(6,), dropout=dropout)


@pytest.mark.parametrize("recipe", [recipes.mlp, recipes.conv])
def test_numbers_that_no_network_can_have_are_listed_at_once(recipe):
    width = "hidden" if recipe is recipes.mlp else "channels"
    wrong = {
        "event": (1, 0, 4), "latent": 0, width: (8, 0), "components": 0, "prior_components": -1, "levels": 1,
        "dropout": 1.0, "scale": "elements",
    }  # fmt: skip
    with pytest.raises(ValueError, match="this model cannot be built") as caught:
        recipe(**wrong)
    for name in wrong:
        assert f"{name}=" in str(caught.value)
    for scale in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match=r"scale=.* must be 'element', 'shared' or a positive number"):
            recipe(event=(1, 8, 8), scale=scale)


def test_an_image_is_halved_no_more_often_than_it_can_be():
    match = r"channels=\[8, 8, 8\] would halve images of 3x4 3 times: give 1 to 2 widths"
    with pytest.raises(ValueError, match=match):
        recipes.conv(event=(1, 3, 4), channels=(8, 8, 8))
    with pytest.raises(ValueError, match=r"blocks=-1 must be 0 or more"):
        recipes.conv(event=(1, 8, 8), blocks=-1)
    plain = recipes.conv(event=(1, 3, 4), channels=(8, 8), blocks=0, levels=5)
    assert plain(torch.zeros(2, 1, 3, 4)).log_weight().isfinite().all()


@pytest.mark.parametrize("recipe", [recipes.elbo, recipes.free_bits, recipes.balanced, recipes.mutual])
def test_a_weight_that_cannot_be_is_refused_with_all_that_is_wrong(recipe):
    wrong = dict(beta=-1.0, start=math.inf, warmup=-1, cycle=-1, cycles=0)
    with pytest.raises(ValueError, match="the weight of the KL term cannot be so") as caught:
        recipe(**wrong)
    for name in wrong:
        assert f"{name}=" in str(caught.value)
    for nats in (-1.0, math.inf):
        with pytest.raises(ValueError, match=rf"nats={nats} must be 0 or more, and finite"):
            recipes.free_bits(nats=nats)


def test_a_capacity_that_cannot_be_is_refused_with_all_that_is_wrong():
    wrong = dict(nats=-1.0, beta=-2.0, start=math.inf, warmup=-1)
    with pytest.raises(ValueError, match="objective 'capacity' cannot be so") as caught:
        recipes.capacity(**wrong)
    for name in wrong:
        assert f"{name}=" in str(caught.value)


@pytest.mark.parametrize("event", [(6,), (4, 4)])
def test_convolutions_are_for_images(event):
    with pytest.raises(ValueError, match=r"'conv' is for images, .*Use model.name=mlp"):
        recipes.conv(event=event)


@pytest.mark.parametrize("wrong", [dict(posterior="full"), dict(posterior="iaf"), dict(prior="flow")])
def test_what_is_for_vectors_is_refused_for_a_spatial_latent(wrong):
    with pytest.raises(
        ValueError,
        match=r"cannot be had with spatial=true: of a z with places, the posterior is one",
    ):
        recipes.conv(event=(1, 8, 8), spatial=True, **wrong)


# What only the data, the model or the user can know.
REQUIRED = {"tc": dict(rows=100), "factor": dict(latent=2), "geco": dict(distortion=30.0), "vaegan": dict(event=[6])}
WITHOUT_BETA = {"geco", "iwae", "renyi", "stl", "dreg", "reconstruction"}


@pytest.mark.parametrize("name", list(recipes.OBJECTIVES))
def test_objectives_are_made_from_plain_arguments(name):
    recipe, required = recipes.OBJECTIVES[name], REQUIRED.get(name, {})
    goal = recipe(**required)
    assert goal.k >= 1 and goal.horizon == 0
    assert {key for key, p in options(recipe).items() if p.default is p.empty} == required.keys()
    assert ("beta" in options(recipe)) == (name not in WITHOUT_BETA)
    for key, value in {"k": 7, "nats": 0.25, "alpha": 0.125, "latent": 3, "rows": 5, "distortion": -4.0}.items():
        if key in options(recipe):
            found = getattr(recipe(**required | {key: value}), key)
            assert value == (found.end if isinstance(found, Weight) else found)
    assert dataclasses.is_dataclass(goal) or list(goal.parameters())


@pytest.mark.parametrize("name", [name for name in recipes.OBJECTIVES if name not in WITHOUT_BETA])
def test_the_weight_of_an_objective_is_its_beta(name):
    recipe, required = recipes.OBJECTIVES[name], REQUIRED.get(name, {})
    goal = recipe(beta=3.0, **required)
    assert (goal.beta.end if isinstance(goal.beta, Weight) else goal.beta) == 3.0
    assert recipe(beta=0.0, **required)
    if {"start", "warmup"} <= options(recipe).keys():
        made = recipe(beta=3.0, start=1.0, warmup=10)
        assert made.horizon == 10
    if "cycle" in options(recipe):
        assert float(made.beta(torch.tensor(5.0))) == 2.0
        assert recipe(beta=3.0, warmup=5, cycle=10, cycles=2).horizon == 15


def test_other_options_of_objectives_reach_them():
    made = recipes.capacity(nats=8.0, start=2.0, warmup=10)
    assert float(made.nats(torch.tensor(5.0))) == 5.0 and made.beta == 100.0
    assert (made := recipes.free_bits(by="group", groups=3)).by == "group" and made.groups == 3
    assert (made := recipes.balanced(prior=0.7, levels=True, warmup=3)).prior == 0.7 and made.levels
    assert (made := recipes.tc(rows=9, alpha=0.5, gamma=2.0, estimator="weighted")).estimator == "weighted"
    assert (made.rows, made.alpha, made.gamma) == (9, 0.5, 2.0)
    assert (made := recipes.dip(diagonal=3.0, of="samples")).diagonal == 3.0 and made.of == "samples"
    assert recipes.mutual(strength=4.0).strength == 4.0
    widths = [
        m.out_features for m in recipes.factor(latent=2, hidden=(5, 6)).modules() if isinstance(m, torch.nn.Linear)
    ]
    assert widths == [5, 6, 1]
    for recipe, kernel in ((recipes.info, "imq"), (recipes.wae, "rbf")):
        assert recipe().discrepancy.kernel != kernel
        assert recipe(kernel=kernel, scales=[1.0, 2.0]).discrepancy == MeanDiscrepancy(kernel, (1.0, 2.0))


def test_the_type_of_an_option_is_found_before_its_recipe_is_named():
    assert recipes.annotation("model", "", "latent") is int
    assert recipes.annotation("model", "mlp", "channels") is typing.Any
    assert recipes.annotation("model", "", "channels") == typing.get_type_hints(recipes.conv)["channels"]
    assert recipes.annotation("train", "", "lr") is float
    assert recipes.recipe("train", "") is Options
    with pytest.raises(ValueError, match=r"there is no objective 'elbow' \(did you mean 'elbo'\?\)"):
        recipes.recipe("objective", "elbow")


def test_the_decoder_mirrors_the_encoder():
    model = recipes.mlp(event=(6,), latent=2, hidden=(9, 7), residual=False)
    widths = [m.out_features for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert widths == [9, 7, 4, 7, 9, 6]
    assert isinstance(model.encoder.family, families.Normal)
    assert math.isfinite(float(model(torch.ones(2, 6)).log_weight().detach().sum()))
