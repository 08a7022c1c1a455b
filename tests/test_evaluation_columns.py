"""Evaluation by column: parts that add up to the bound, and imputation against exact answers."""

import math

import pytest
import torch
from torch import nn

from helpers import LinearGaussian
from lowerbound import recipes
from lowerbound.columns import Column
from lowerbound.distributions import DiagonalNormal, Joint, Levels, Numbers
from lowerbound.distributions.joint import Part
from lowerbound.evaluation import evaluate
from lowerbound.evaluation.columns import column_bounds, held_out_imputation
from lowerbound.models import VAE
from lowerbound.priors import StandardNormal

REAL = Column("height", "real")


class Rows(nn.Module):
    """p(x|z) of a linear-Gaussian model, as a table has it."""

    def __init__(self, truth):
        super().__init__()
        self.net, self.scale = truth.model().decoder.net, truth.scale

    def forward(self, z):
        loc = self.net(z)
        numbers = Numbers(loc, torch.full_like(loc, self.scale))
        return Joint([Part(torch.arange(loc.shape[-1]), numbers, torch.zeros(loc.shape[-1], dtype=loc.dtype))])


class Filled(nn.Module):
    """The exact posterior of filled rows, made wider: importance weights mend what is missing."""

    def __init__(self, truth, spread):
        super().__init__()
        self.encoder, self.centre = truth.model(spread=spread).encoder, truth.centre.float()

    def forward(self, x):
        return self.encoder(torch.where(x.isnan(), self.centre, x))


def exact(spread=1.0):
    truth = LinearGaussian.random(x=4, z=2, scale=0.5)
    return truth, VAE(Filled(truth, spread), StandardNormal((2,)).double(), Rows(truth)).float()


class Blind(nn.Module):
    """A posterior that knows nothing of x."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return DiagonalNormal(self.loc.expand(len(x), 1), torch.ones(len(x), 1), 1)


class Constant(nn.Module):
    """A number and a level that know nothing of z."""

    def forward(self, z):
        zero = torch.zeros(*z.shape[:-1], 1)
        level = Levels(torch.tensor([0.2, 0.7, 0.1]).log().expand(*z.shape[:-1], 1, 3))
        number = Numbers(zero + 4, zero + 1)
        return Joint([Part(torch.tensor([0]), number, torch.zeros(1)), Part(torch.tensor([1]), level, torch.zeros(1))])


@pytest.mark.parametrize("missing", ["random", "self"])
def test_the_parts_add_up_to_the_bound(missing):
    model = recipes.table(
        columns=[REAL.table(), Column("sex", "binary", ("F", "M")).table()],
        latent=3,
        hidden=(8,),
        missing=missing,
    )
    x = torch.stack([torch.randn(30), torch.randint(2, (30,)).float()], 1)
    x[:5, 0] = torch.nan
    found = column_bounds(model, x, k=4, seed=2)
    total = sum(column.mean for column in found.columns) + found.code.mean
    assert total == pytest.approx(evaluate(model, x, k=4, seed=2).bound.mean, abs=1e-4)
    assert found.known == pytest.approx((25 / 30, 1.0)) and model.training


def test_with_the_exact_posterior_they_are_the_exact_parts():
    truth, model = exact()
    x = truth.sample(500).float()
    found = column_bounds(model, x, k=400)
    gain, covariance = truth.posterior()
    variance = truth.scale**2
    loc = truth.centre + (x.double() - truth.centre) @ gain.T @ truth.weight.T
    spread = ((truth.weight @ covariance) * truth.weight).sum(1)
    terms = -0.5 * (((x - loc).square() + spread) / variance + math.log(2 * math.pi * variance))
    assert [c.mean for c in found.columns] == pytest.approx(terms.mean(0).tolist(), abs=0.02)
    assert [c.standard_error for c in found.columns] == pytest.approx((terms.std(0) / 500**0.5).tolist(), rel=0.1)
    rest = truth.marginal().log_prob(x.double()).mean() - terms.sum(1).mean()
    assert found.code.mean == pytest.approx(rest.item(), abs=0.03)


def test_a_column_that_is_missing_adds_nothing():
    _, model = exact()
    x = torch.randn(20, 4)
    x[:, 1] = torch.nan
    found = column_bounds(model, x, k=10)
    assert found.columns[1].mean == 0 and found.known == (1.0, 0.0, 1.0, 1.0)


def test_a_point_posterior_has_no_bound_and_a_likelihood():
    columns = [REAL.table(), Column("sex", "binary", ("F", "M")).table()]
    model = recipes.table(columns=columns, latent=2, hidden=(8,), posterior="point").eval()
    x = torch.stack([torch.randn(30), torch.randint(2, (30,)).float()], 1)
    found = column_bounds(model, x, k=3)
    terms = model(x).likelihood.terms(x)[0].mean(0)
    assert [c.mean for c in found.columns] == pytest.approx(terms.tolist(), rel=1e-4)
    assert found.code.mean == -math.inf


def test_imputation_reaches_the_error_that_is_left():
    truth, model = exact(spread=4.0)
    x = truth.sample(1500).float()
    marginal = truth.marginal()
    cov = marginal.covariance_matrix
    # hidden so rarely that the rest of the row is nearly always known
    found = held_out_imputation(model, x, [REAL] * 4, hidden=0.1, k=600)
    for j, imputed in enumerate(found):
        rest = [i for i in range(4) if i != j]
        left = cov[j, j] - cov[j, rest] @ torch.linalg.solve(cov[rest][:, rest], cov[rest, j])
        best = (left / cov[j, j]).sqrt().item()
        assert 0.8 * best < imputed.error.mean < 1.35 * best + 3 * imputed.error.standard_error
        assert imputed.guess.mean == pytest.approx(1, abs=4 * imputed.guess.standard_error)
        assert 90 < imputed.hidden < 210


def test_who_knows_nothing_does_as_well_as_a_guess():
    model = VAE(Blind(), StandardNormal((1,)), Constant())
    levels = torch.multinomial(torch.tensor([0.2, 0.7, 0.1]), 3000, replacement=True).float()
    x = torch.stack([4 + torch.randn(3000), levels], 1)
    number, level = held_out_imputation(model, x, [REAL, Column("kind", "category", ("a", "b", "c"))], k=2)
    assert number.error.mean == pytest.approx(1, abs=0.1)
    assert number.error.mean == pytest.approx(number.guess.mean, abs=0.01)
    assert level.error == level.guess and level.error.mean == pytest.approx(0.3, abs=0.07)
    assert level.error.standard_error == pytest.approx((0.21 / level.hidden) ** 0.5, rel=0.1)


def test_what_comes_round_again_is_compared_the_shorter_way():
    from lowerbound.evaluation.columns import _imputed

    x = torch.tensor([23.5, 0.5, 23.0, 1.0])
    away = torch.tensor([True, True, False, False])
    hour = Column("hour", "cyclic", period=24.0)
    found = _imputed(hour, x, x.masked_fill(away, torch.nan), torch.tensor([0.5, 23.5, 23.0, 1.0]), away)
    # an hour off each time; the mean direction is midnight, half an hour off
    assert found.error.mean / found.guess.mean == pytest.approx(2, rel=1e-4)


def test_mistakes_are_refused():
    _, model = exact()
    x = torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r"hidden=1.0, 4 columns, x of shape \(5, 4\)"):
        held_out_imputation(model, x, [REAL] * 4, hidden=1.0)
    with pytest.raises(ValueError, match="3 columns"):
        held_out_imputation(model, x, [REAL] * 3)
    with pytest.raises(ValueError, match="k=0, and x has 5 rows"):
        column_bounds(model, x, k=0)
    image = recipes.mlp(event=(4,), latent=2, hidden=(8,), family="normal")
    with pytest.raises(ValueError, match="only a model of a table has columns, and knows what a missing value is"):
        column_bounds(image, x)
