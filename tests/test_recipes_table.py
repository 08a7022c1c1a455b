"""The recipe for tables: holes are summed out exactly, imputation is learned, and all that sees a model bears NaN."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from helpers import COLUMNS, LinearGaussian, mixed
from lowerbound import families, nets, priors, recipes
from lowerbound.choices import choose, principal_directions
from lowerbound.columns import Column
from lowerbound.data import Data, split
from lowerbound.evaluation import evaluate
from lowerbound.models import VAE, Conditional
from lowerbound.objectives import Elbo, Iwae
from lowerbound.run import TABLES, full
from lowerbound.train import Ensemble, Options, Trainer
from lowerbound.views import View

DESCRIBED = [column.table() for column in COLUMNS]
SMALL = dict(columns=DESCRIBED, latent=3, hidden=(16, 16))


def table(n=300):
    return Data("made", mixed(n), split(n), columns=COLUMNS)


class PosteriorOfKnown(nn.Module):
    """x with holes -> the exact p(z|known x) of a linear-Gaussian model."""

    def __init__(self, exact):
        super().__init__()
        self.exact = exact
        self.idle = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        weight, variance = self.exact.weight, self.exact.scale**2
        known = (~x.isnan()).double()
        precision = (
            torch.eye(weight.shape[1], dtype=torch.float64)
            + torch.einsum("bd,di,dj->bij", known, weight, weight) / variance
        )
        pull = ((x - self.exact.centre).nan_to_num() @ weight / variance)[..., None]
        loc = torch.linalg.solve(precision, pull)[..., 0]
        return torch.distributions.MultivariateNormal(loc, precision_matrix=precision)


def holed(exact, n, part=0.3):
    x = exact.sample(n)
    return x.masked_fill(torch.rand(x.shape) < part, math.nan)


def log_p_of_known(exact, x):
    p, found = exact.marginal(), []
    for row in x:
        at = (~row.isnan()).nonzero()[:, 0]
        if len(at) == 0:
            found.append(torch.zeros((), dtype=torch.float64))
            continue
        own = torch.distributions.MultivariateNormal(p.mean[at], p.covariance_matrix[at][:, at])
        found.append(own.log_prob(row[at]))
    return torch.stack(found)


def exact_table(exact, posterior):
    size, z = exact.weight.shape
    family = families.Columns([Column(str(i), "real") for i in range(size)], real="normal", scale="column").double()
    with torch.no_grad():
        family.blocks[0].raw.fill_(families.unconstrained(torch.tensor(exact.scale, dtype=torch.float64)))
    decoder = exact.decoder()
    return VAE(posterior, priors.StandardNormal((z,)).double(), Conditional(decoder.net, family))


def test_at_the_exact_parameters_every_weight_is_the_likelihood_of_what_is_known():
    exact = LinearGaussian.random(x=6, z=2)
    x = holed(exact, 40, part=0.5)
    x[0] = math.nan
    model = exact_table(exact, PosteriorOfKnown(exact))
    expected = log_p_of_known(exact, x).expand(3, -1)
    torch.testing.assert_close(model(x, k=3).log_weight(), expected, rtol=1e-6, atol=1e-6)


def test_with_a_wrong_posterior_the_bound_rises_to_the_likelihood_of_what_is_known():
    exact = LinearGaussian.random(x=4, z=1)
    x = holed(exact, 40, part=0.5)
    family = families.Normal((1,)).double()
    encoder = Conditional(nn.Sequential(_Known(), nn.Linear(4, 2).double()), family)
    model = exact_table(exact, encoder)
    expected = log_p_of_known(exact, x).mean()
    loose, tight = (evaluate(model, x, k=k).bound.mean for k in (1, 4000))
    assert loose < expected - 0.05 and abs(tight - expected) < 0.02


class _Known(nn.Module):
    def forward(self, x):
        return 0.3 * x.nan_to_num()


def test_a_trained_model_comes_near_the_exact_likelihood_and_the_exact_imputation():
    torch.manual_seed(0)
    exact = LinearGaussian.random(x=6, z=2, scale=0.5)
    n = 3000
    complete = exact.sample(n)
    x = complete.masked_fill(torch.rand(complete.shape) < 0.3, math.nan).float()
    columns = tuple(Column(str(i), "real") for i in range(6))
    data = Data("linear", x, split(n, test=0.2), columns=columns)
    model = recipes.table(
        data.fixed("train"), columns=[c.table() for c in columns], latent=2, hidden=(64, 64), real="normal",
        scale="column",
    )  # fmt: skip
    trainer = Trainer(model, Iwae(5), Options(steps=1500, batch=128, lr=5e-3, warmup=50, valid_every=0))
    for _ in trainer.fit(data):
        pass
    held_out = data.fixed("test")
    expected = log_p_of_known(exact, held_out.double()).mean().item()
    found = evaluate(trainer.averaged, held_out, k=200).bound.mean
    start = evaluate(recipes.table(data.fixed("train"), columns=[c.table() for c in columns]), held_out).bound.mean
    assert expected - 0.25 < found < expected + 0.05 and start < expected - 1

    with torch.no_grad():
        trace = trainer.averaged(held_out, k=500)
        filled = trace.likelihood.expected(trace.log_weight().softmax(0)).double()
        best = PosteriorOfKnown(exact)(held_out.double()).mean @ exact.weight.T + exact.centre
    hole, truth = held_out.isnan(), complete[data.split["test"]]
    error, least = ((guess - truth)[hole].square().mean() for guess in (filled, best))
    assert error < 1.1 * least and least < 0.5 * truth.var(0).mean()


@pytest.mark.parametrize("real", ["normal", "student_t", "mixture"])
@pytest.mark.parametrize("scale", ["element", "column"])
def test_every_density_learns_from_mixed_columns(real, scale):
    data = table()
    model = recipes.table(data.fixed("train"), real=real, scale=scale, components=2, **SMALL)
    losses = [float(step.terms.loss) for step in Trainer(model, Iwae(3), OPTIONS).fit(data)]
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < np.mean(losses[:5])
    draws = model.generate(200).sample()
    assert draws.shape == (200, 8) and model.decoder.family.support.check(draws).all() and not draws.isnan().any()


OPTIONS = Options(steps=40, batch=32, lr=5e-3, warmup=5, valid_every=0)


@pytest.mark.parametrize("prior", ["normal", "mixture", "vamp", "flow"])
@pytest.mark.parametrize("posterior", ["normal", "full", "iaf"])
def test_every_posterior_and_prior_learns_from_mixed_columns(posterior, prior):
    data = table(100)
    model = recipes.table(data.fixed("train"), posterior=posterior, prior=prior, prior_components=5, **SMALL)
    Elbo()(model(data.fixed("train"))).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    if prior == "vamp":
        assert (model.prior.inputs.grad != 0).all(0).any() and not model.prior.inputs.isnan().any()
        assert model.prior.encoder.net[-1] is model.encoder.net[-1][-1]


def test_a_step_is_recorded_and_models_train_together():
    data, options = table(), Options(steps=3, batch=32, warmup=1, valid_every=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a step that cannot be recorded warns
        torch.manual_seed(0)
        models = [recipes.table(data.fixed("train"), **SMALL) for _ in range(2)]
        steps = list(Ensemble(models, [Iwae(2), Iwae(2)], options).fit(data))
    assert len(steps) == 3 and all(float(step.terms.loss) < math.inf for step in steps[-1])


def test_the_start_is_nearly_the_model_of_independent_columns():
    data = table(2000)
    x = data.fixed("train")
    model = recipes.table(x, **SMALL)
    family = model.decoder.family
    independent = family(family.marginal(x)).log_prob(x).mean()
    with torch.no_grad():
        found = model.eval()(x).log_likelihood().mean()
    assert abs(found - independent) < 1.0


def test_the_input_is_standard_numbers_levels_angles_and_what_is_known():
    x = torch.tensor([[3.0, math.e, 0.0, 2.0, 1.0, 0.0, 7 / 4, math.nan]])
    shift, unit = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]), torch.tensor([4.0, 1, 1, 1, 1, 1, 1, 1])
    read = nets.TableInput(COLUMNS, shift, unit)
    squash = lambda v: 3 * math.asinh(v / 3)
    expected = [squash(0.5), squash(1.0), 0.0, 0.0, 0.0, 1.0]  # three numbers, a hole, an angle
    expected += [0, 0, 1, 0, 1, 0, 0, 1, 0]  # grade, town, member
    expected += [1, 1, 1, 1, 1, 1, 1, 0]
    torch.testing.assert_close(read(x) * read.length, torch.tensor([expected]), atol=1e-5, rtol=0)
    assert read.width == len(expected)
    empty = read(torch.full((1, 8), math.nan))
    assert torch.equal(empty, torch.zeros(1, read.width))
    far = read(torch.tensor([[1e30, 1e30, 1e30, 0, 0, 0, 0, -1e30]]))
    assert far.isfinite().all() and far.abs().max() < 300


def test_other_units_of_a_table_are_another_bound_by_their_logarithms():
    x = mixed(400)
    moved = x.clone()
    moved[:, 0] *= 1000.0
    moved[:, 1] *= 0.01
    bounds = []
    for rows in (x, moved):
        torch.manual_seed(0)
        model = recipes.table(rows, **SMALL).eval()
        torch.manual_seed(1)
        bounds.append(model(rows, k=2).log_weight())
    known = (~x.isnan()).float()
    expected = bounds[0] - known[:, 0] * math.log(1000.0) - known[:, 1] * math.log(0.01)
    torch.testing.assert_close(bounds[1], expected, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("missing", ["random", "self", "linear"])
def test_a_table_is_viewed_with_its_holes(missing):
    data = table()
    model = recipes.table(data.fixed("train"), missing=missing, **SMALL).eval()
    for view in (View.of(model, data), View.alone(model, data.event)):
        assert view.low.shape == (8,) and (view.high > view.low).all()
        with torch.no_grad():
            rows = data.fixed("test")
            assert not view.reconstruct(rows).isnan().any()
            assert not view.generate(5, draw=True).isnan().any()
            view.stacks(torch.stack([rows, view.reconstruct(rows)]))
            view.sheet(rows)
    assert View.alone(model, [8]).high.tolist()[3:7] == [2.0, 3.0, 1.0, 7.0]
    names = [text.get_text() for text in View.of(model, data).sheet(rows).axes[0].get_xticklabels()]
    assert names == [column.name for column in data.columns]


def empty():
    return {kind: {} for kind in TABLES} | {"data": {"name": "made"}}


def test_a_table_is_chosen_for_and_every_choice_can_be_overridden():
    run, data = empty(), table()
    made = {choice.key: choice for choice in choose(run, data)}
    assert run["model"]["name"] == "table" and run["model"]["columns"] == DESCRIBED and "event" not in run["model"]
    assert made["model.name"].reason == (
        "8 columns: 2 real, 1 positive, 1 count, 1 ordinal, 1 category, 1 binary, 1 cyclic"
    )
    assert (run["objective"]["name"], run["objective"]["k"]) == ("iwae", 5)
    assert 2 <= run["model"]["latent"] <= 16 and run["model"]["hidden"] == [128] * 3
    assert run["train"]["hide"] == 0.25 and "filling is learned" in made["train.hide"].reason
    assert all(len(str(choice)) < 120 for choice in made.values())
    assert choose(run, data) == []
    for kind in TABLES[1:]:
        full(recipes.recipe(kind, run[kind].get("name", "")), kind, run[kind])
    given = {"latent": 3, "hidden": [8], "activation": "tanh"}
    run = empty() | {"model": dict(given), "objective": {"name": "elbo"}}
    choose(run, data)
    assert {key: run["model"][key] for key in given} == given and "k" not in run["objective"]


def test_what_is_not_for_tables_is_refused():
    run = empty() | {"model": {"name": "mlp"}}
    with pytest.raises(ValueError, match=r"model.name=mlp knows no columns of mixed kinds, and made is a table"):
        choose(run, table())
    run = empty() | {"model": {"columns": DESCRIBED[:2]}}
    with pytest.raises(ValueError, match=r"model.columns are not those of made: leave model.columns out"):
        choose(run, table())
    run = empty() | {"model": {"missing": "self"}, "train": {"hide": 0.5}}
    with pytest.raises(ValueError, match=r"train.hide=0.5 hides entries at random, and model.missing=self would learn"):
        choose(run, table())
    run = empty() | {"model": {"missing": "self"}}
    choose(run, table())
    assert "hide" not in run["train"]
    run = empty() | {"train": {"hide": 0.5}}
    with pytest.raises(ValueError, match=r"train.hide=0.5 makes holes in rows, .* is none. Leave train.hide out"):
        choose(run, recipes.DATA["digits"]())
    with pytest.raises(ValueError, match=r"latent=0 must be 1 or more; .*dropout=1.0"):
        recipes.table(**SMALL | dict(latent=0, dropout=1.0))


def test_a_large_column_does_not_decide_the_size_of_the_code():
    """One direction with three columns in large units, four others in small ones."""
    n = 400
    z = torch.randn(n, 5)
    x = torch.cat((1000 * z[:, :1] + torch.randn(n, 3), z[:, 1:], z[:, 1:] + 0.01 * torch.randn(n, 4)), 1)
    run = empty()
    choose(run, Data("made", x, split(n)))
    assert run["model"]["latent"] == 5
    assert principal_directions(x, 0.9)[0] == 1


def test_directions_take_holes_for_the_mean():
    x = torch.randn(300, 5)
    holes = torch.rand(x.shape) < 0.3
    filled = torch.where(holes, x.masked_fill(holes, math.nan).nanmean(0), x)
    assert principal_directions(x.masked_fill(holes, math.nan), 0.8) == principal_directions(filled, 0.8)
