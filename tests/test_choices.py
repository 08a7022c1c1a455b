"""Choices: whatever the data are, what is chosen works, is said in one line each, and never goes against the user."""

import numpy as np
import pytest
import torch

from lowerbound import experiment, recipes
from lowerbound.choices import OF_A_BATCH, VARIANCE_KEPT, Choice, choose, principal_directions
from lowerbound.data import Data, split
from lowerbound.refusals import describe_support
from lowerbound.run import TABLES, as_typed, full, override


def grey(n, *event, levels=256):
    return torch.randint(0, levels, (n, *event)).to(torch.uint8)


def data(x, **more):
    return Data("made", x, split(len(x)), **more)


DATA = {
    "bits": lambda: data(grey(40, 6, levels=2), levels=2),
    "bit images": lambda: data(grey(40, 1, 8, 8, levels=2), levels=2),
    "17 levels": lambda: data(grey(40, 1, 8, 8, levels=17), levels=17),
    "8-bit images": lambda: data(grey(30, 3, 16, 20), levels=256),
    "8-bit, binarised": lambda: data(grey(30, 1, 8, 8), levels=256, noise="binarize"),
    "8-bit, dequantised": lambda: data(grey(30, 1, 8, 8), levels=256, noise="dequantize"),
    "continuous images": lambda: data(torch.randn(30, 1, 17, 16)),
    "one column": lambda: data(torch.randn(50, 1)),
    "wide": lambda: data(torch.randn(20, 300)),
    "constant columns": lambda: data(torch.cat([torch.randn(40, 3), torch.full((40, 2), 1e9)], 1)),
    "huge": lambda: data(torch.randn(40, 3) * 1e12),
    "tiny": lambda: data(torch.randn(40, 3) * 1e-12),
    "three rows": lambda: data(torch.randn(3, 4)),
    "three images": lambda: data(grey(3, 1, 16, 16), levels=256),
    "a line of pixels": lambda: data(grey(20, 1, 1, 30), levels=256),
    "constant where it learns": lambda: data((torch.arange(10) == split(10)["test"])[:, None].float()),
}


def empty():
    return {kind: {} for kind in TABLES} | {"data": {"name": "made"}}


def begin(run, made, folder, monkeypatch):
    monkeypatch.setitem(recipes.DATA, "made", lambda: made)
    return experiment.start(run, folder)


@pytest.mark.parametrize("kind", list(DATA))
def test_what_is_chosen_trains(kind, tmp_path, monkeypatch):
    run = empty() | {"train": {"steps": 3}}
    begun = begin(run, DATA[kind](), tmp_path / "run", monkeypatch)
    losses = [float(step.terms.loss) for step in experiment.proceed(begun)]
    assert len(losses) == 3 and np.isfinite(losses).all() and begun.trainer.skipped == 0
    assert experiment.finish(begun, k=2).is_bound


@pytest.mark.parametrize("kind", list(DATA))
def test_each_choice_is_one_line_with_a_reason_and_an_override_that_repeats_it(kind):
    run, again = empty(), empty()
    made = choose(run, DATA[kind]())
    assert {"model.name", "model.family", "model.latent", "train.batch", "train.steps"} <= {c.key for c in made}
    for choice in made:
        line = str(choice)
        assert "\n" not in line and choice.reason and len(line) < 120
        assignment, _, reason = line.partition("  (")
        assert assignment == f"{choice.key}={as_typed(choice.value)}" and reason == f"{choice.reason})"
        override(again, assignment, recipes.annotation)
    again["model"]["event"] = run["model"]["event"]
    assert again == run
    assert choose(again, DATA[kind]()) == []  # nothing is left open
    for table in TABLES[1:]:
        full(recipes.recipe(table, run[table].get("name", "")), table, run[table])


GIVEN = {
    "model": {"name": "conv", "latent": 3, "family": "normal", "dropout": 0.0, "channels": [8]},
    "objective": {"name": "iwae", "k": 3},
    "train": {"batch": 5, "steps": 7, "valid_every": 3, "patience": 1},
}


@pytest.mark.parametrize("table, key", [(table, key) for table in GIVEN for key in GIVEN[table]])
def test_what_a_run_says_is_never_overwritten(table, key):
    run = empty()
    run[table] = {key: GIVEN[table][key]}
    if (table, key) == ("objective", "k"):
        run[table]["name"] = "iwae"
    made = choose(run, DATA["8-bit images"]())
    assert run[table][key] == GIVEN[table][key] and f"{table}.{key}" not in {c.key for c in made}


@pytest.mark.parametrize(
    "kind, family",
    [("bits", "bernoulli"), ("17 levels", "logistic_mixture"), ("8-bit, binarised", "bernoulli"), ("wide", "normal"),
     ("8-bit, dequantised", "normal"), ("continuous images", "normal")],
)  # fmt: skip
def test_the_values_decide_the_likelihood(kind, family):
    run = empty()
    choose(run, DATA[kind]())
    assert run["model"]["family"] == family
    assert run["model"].get("levels") == (17 if kind == "17 levels" else None)


def test_an_event_that_is_not_the_datas_is_refused():
    run = empty() | {"model": {"event": [3]}}
    with pytest.raises(
        ValueError, match=r"model.event=\[3\], but a row of made has shape \[6\]: leave model.event out"
    ):
        choose(run, DATA["bits"]())


def test_a_point_posterior_takes_the_likelihood_alone():
    run = empty() | {"model": {"posterior": "point"}}
    choose(run, DATA["bits"]())
    assert run["objective"]["name"] == "reconstruction"
    run = empty() | {"model": {"posterior": "point"}, "objective": {"name": "iwae"}}
    with pytest.raises(
        ValueError, match=r"objective 'iwae' has a KL term, which is infinite for model.posterior=point"
    ):
        choose(run, DATA["bits"]())


@pytest.mark.parametrize(
    "objective, what",
    [
        ({"name": "reconstruction"}, "objective 'reconstruction' does not make the KL term"),
        ({"name": "capacity"}, "objective 'capacity'"),
        ({"beta": 0.0}, r"objective 'elbo' with objective.beta=0 does not"),
        ({"name": "info", "alpha": 1.0}, r"objective 'info' with objective.alpha=1 does not"),
        ({"name": "wae"}, "objective 'wae' does not"),
        ({"name": "iwae"}, "objective 'iwae' takes samples"),
    ],
)
def test_quantised_codes_learn_by_a_kl_term_that_is_a_cost(objective, what):
    run = empty() | {"model": {"name": "codes"}, "objective": objective}
    with pytest.raises(ValueError, match=what):
        choose(run, DATA["17 levels"]())


def test_codes_that_are_drawn_learn_by_their_cost_and_by_several_samples():
    drawn = {"name": "codes", "quantiser": "gumbel"}
    for objective in ({"name": "capacity"}, {"name": "iwae"}, {"name": "info", "beta": 0.0}):
        choose(empty() | {"model": dict(drawn), "objective": objective}, DATA["17 levels"]())
    with pytest.raises(ValueError, match="from this term alone the prior over codes learns"):
        choose(empty() | {"model": dict(drawn), "objective": {"name": "reconstruction"}}, DATA["17 levels"]())


def test_codes_have_no_latent_dimensions_to_be_made_independent():
    for quantiser in ("vq", "gumbel"):
        run = empty() | {"model": {"name": "codes", "quantiser": quantiser}, "objective": {"name": "tc"}}
        with pytest.raises(ValueError, match="objective 'tc' is about latent dimensions, and codes are choices"):
            choose(run, DATA["17 levels"]())


def test_pixels_that_are_drawn_one_by_one_are_integers():
    with pytest.raises(ValueError, match=r"made continuous by data.noise=dequantize. Leave one of the two out"):
        choose(empty() | {"model": {"name": "pixel"}}, DATA["8-bit, dequantised"]())
    with pytest.raises(ValueError, match=r"draws images of integers.* and the rows of made are continuous"):
        choose(empty() | {"model": {"name": "pixel"}}, DATA["continuous images"]())


def test_exemplars_are_no_more_than_there_are_rows():
    run = empty() | {"model": {"prior": "exemplar"}}
    choose(run, DATA["bits"]())
    assert run["model"]["prior_components"] == len(split(40)["train"])
    many = empty() | {"model": {"prior": "exemplar"}}
    choose(many, data(grey(300, 6, levels=2), levels=2))
    assert "prior_components" not in many["model"]


def test_a_point_posterior_may_match_the_prior(tmp_path, monkeypatch):
    run = empty() | {"model": {"posterior": "point"}, "objective": {"name": "wae"}, "train": {"steps": 3}}
    begun = begin(run, DATA["bits"](), tmp_path / "run", monkeypatch)
    assert len(list(experiment.proceed(begun))) == 3
    assert not experiment.finish(begun, k=2).is_bound


def test_an_objective_is_told_what_it_has_to_know():
    run = empty() | {"objective": {"name": "tc"}}
    made = {c.key: c for c in choose(run, DATA["bits"]())}
    assert made["objective.rows"].value == len(DATA["bits"]().split["train"]) == run["objective"]["rows"]
    run = empty() | {"objective": {"name": "factor"}, "model": {"latent": 3}}
    assert {c.key: c.value for c in choose(run, DATA["bits"]())}["objective.latent"] == 3
    run = empty() | {"objective": {"name": "mutual"}, "train": {"batch": 16}}
    assert {c.key: c.value for c in choose(run, DATA["bits"]())}["objective.nats"] == 1.4
    run = empty() | {"objective": {"name": "mutual", "nats": 3.0}, "train": {"batch": 16}}
    with pytest.raises(
        ValueError, match=r"objective.nats=3 is a floor that cannot be seen .* log 16 = 2.8 nats at most"
    ):
        choose(run, DATA["bits"]())


@pytest.mark.parametrize("name", [name for name in recipes.OBJECTIVES if name not in ("reconstruction", "geco")])
@pytest.mark.parametrize("kind", ["bits", "continuous images"])
def test_every_objective_trains_by_its_name_alone(name, kind, tmp_path, monkeypatch):
    run = empty() | {"objective": {"name": name}, "train": {"steps": 2}}
    begun = begin(run, DATA[kind](), tmp_path / "run", monkeypatch)
    assert all(np.isfinite(float(step.terms.loss)) for step in experiment.proceed(begun))
    assert begun.run["train"]["batch"] >= (16 if name in OF_A_BATCH else 1)


def test_the_discriminator_reads_all_of_a_spatial_code(tmp_path, monkeypatch):
    run = empty() | {"objective": {"name": "factor"}, "model": {"spatial": True, "latent": 2}, "train": {"steps": 2}}
    begun = begin(run, DATA["continuous images"](), tmp_path / "run", monkeypatch)
    assert len(list(experiment.proceed(begun))) == 2
    height, width = begun.trainer.model(begun.data.fixed("train")[:1]).sites[0].z.shape[-2:]
    choice = next(c for c in begun.choices if c.key == "objective.latent")
    assert choice.value == 2 * height * width and choice.reason == f"2 channels of {height}x{width}"


def test_what_nobody_but_the_user_can_say_is_asked_for(tmp_path, monkeypatch):
    run = empty() | {"objective": {"name": "geco"}, "train": {"steps": 2}}
    with pytest.raises(ValueError, match=r"objective 'geco' needs objective.distortion"):
        begin(run, DATA["bits"](), tmp_path / "run", monkeypatch)
    run = empty() | {"objective": {"name": "geco", "distortion": 3.0}, "train": {"steps": 2}}
    assert len(list(experiment.proceed(begin(run, DATA["bits"](), tmp_path / "run", monkeypatch)))) == 2


@pytest.mark.parametrize("n, d", [(50, 3), (50, 1), (5, 40), (1, 4), (2, 2), (30, 30)])
@pytest.mark.parametrize("part", [0.1, 0.5, VARIANCE_KEPT, 0.99])
def test_principal_directions_are_those_of_the_singular_values(n, d, part):
    rng = np.random.default_rng(n * d)
    x = rng.normal(size=(n, d)) * np.linspace(1, 5, d) + 100
    values = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    kept, of = principal_directions(torch.from_numpy(x).float(), part)
    assert of == min(n, d)
    expected = 1 if values.sum() < 1e-9 else int((np.cumsum(values) / values.sum() < part).sum()) + 1
    assert kept == min(expected, of)


def test_values_outside_a_support_are_named_where_the_user_has_them(tmp_path, monkeypatch):
    made = DATA["17 levels"]()
    x = made.x.clone() % 2
    row = int(made.split["valid"][1])
    x[row, 0, 2, 3] = 9
    run = empty() | {"model": {"name": "mlp", "family": "bernoulli"}, "train": {"batch": 4, "steps": 1}}
    with pytest.raises(ValueError, match=rf"takes 0 and 1, but row {row} has 9 at position \[0, 2, 3\] \(values go"):
        begin(run, Data("made", x, made.split, levels=17), tmp_path / "run", monkeypatch)
    assert not (tmp_path / "run").exists()


def test_supports_have_words():
    from torch.distributions import constraints

    assert describe_support(constraints.boolean) == "0 and 1"
    assert describe_support(constraints.integer_interval(0, 16)) == "the integers 0 to 16"
    assert describe_support(constraints.unit_interval) == "numbers from 0 to 1"
    assert describe_support(constraints.real) == "all numbers"


def test_a_choice_reads_as_an_override():
    assert str(Choice("model.channels", [32], "why")) == "model.channels=32  (why)"


@pytest.mark.parametrize(
    "objective, patience",
    [
        ({"name": "elbo"}, 8),
        ({"name": "iwae"}, 8),
        ({"name": "reconstruction"}, 8),
        ({"name": "elbo", "beta": 4.0}, 0),
        ({"name": "free_bits", "beta": 0.1}, 0),
        ({"name": "capacity"}, 0),
        ({"name": "tc"}, 0),
    ],
    ids=str,
)
def test_the_bound_ends_training_early_only_where_it_is_what_is_trained(objective, patience):
    run = {kind: {} for kind in TABLES} | {"objective": dict(objective)}
    choose(run, DATA["17 levels"]())
    assert run["train"]["patience"] == patience


def test_a_ladder_goes_down_to_two_pixels_and_warms_up():
    data = recipes.DATA["digits"]()
    run = {kind: {} for kind in TABLES} | {"data": {"name": "digits"}, "model": {"name": "topdown"}}
    made = {choice.key: choice for choice in choose(run, data)}
    assert run["model"]["channels"] == [32, 64] and "until 2 pixels are left" in made["model.channels"].reason
    assert run["objective"]["warmup"] == round(0.9 * run["train"]["steps"]) > 0
    assert run["model"]["latent"] == 4
    conv = {kind: {} for kind in TABLES} | {"data": {"name": "digits"}, "model": {"name": "conv"}}
    choose(conv, data)
    assert conv["model"]["channels"] == [32] and "warmup" not in conv["objective"]
