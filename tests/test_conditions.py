"""Rows given conditions: against truncated conditional normals, an enumeration, and rejection from the model itself."""

import math

import pytest
import torch
from torch import nn

from helpers import COLUMNS, LinearGaussian
from lowerbound import recipes
from lowerbound.distributions import DiagonalNormal, Joint, Levels, Missing, Numbers, Part
from lowerbound.evaluation.conditions import Conditions, _effective, _resampled, draw_given
from lowerbound.models import VAE
from lowerbound.priors import StandardNormal

NAN = math.nan


class PosteriorOfKnown(nn.Module):
    """x with holes -> p(z|known x) of a linear-Gaussian model, or something that is moved and narrower."""

    def __init__(self, exact, shift=0.0, spread=1.0):
        super().__init__()
        self.exact, self.shift, self.spread = exact, shift, spread
        self.idle = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        weight, variance = self.exact.weight, self.exact.scale**2
        known = (~x.isnan()).double()
        precision = (
            torch.eye(weight.shape[1], dtype=torch.float64)
            + torch.einsum("bd,di,dj->bij", known, weight, weight) / variance
        )
        pull = ((x - self.exact.centre).nan_to_num() @ weight / variance)[..., None]
        loc = torch.linalg.solve(precision, pull)[..., 0] + self.shift
        return torch.distributions.MultivariateNormal(loc, precision_matrix=precision / self.spread)


class Rows(nn.Module):
    """p(x|z) of a linear-Gaussian model, as a table has it."""

    def __init__(self, exact):
        super().__init__()
        self.net = exact.decoder().net

    def forward(self, z):
        loc = self.net(z)
        d = loc.shape[-1]
        numbers = Numbers(loc, torch.full_like(loc, self.scale))
        return Joint([Part(torch.arange(d), numbers, torch.zeros(d, dtype=loc.dtype))])


def normal_table(exact, **wrong):
    decoder = Rows(exact)
    decoder.scale = exact.scale
    return VAE(PosteriorOfKnown(exact, **wrong), StandardNormal((exact.weight.shape[1],)).double(), decoder)


def one_range(low, high):
    return torch.tensor([[low, high]], dtype=torch.float64)


@pytest.mark.parametrize("wrong", [{}, {"shift": 2.0, "spread": 0.2}], ids=["exact encoder", "wrong encoder"])
def test_rows_are_truncated_conditional_normals(wrong):
    exact = LinearGaussian.random(x=4, z=2, scale=0.6)
    p = exact.marginal()
    fixed = exact.centre + torch.tensor([0.7, -0.4, NAN, NAN], dtype=torch.float64)
    # x_2, x_3 | x_0, x_1: a normal
    of, rest = torch.tensor([0, 1]), torch.tensor([2, 3])
    cov = p.covariance_matrix
    gain = cov[rest][:, of] @ torch.linalg.inv(cov[of][:, of])
    loc = p.loc[rest] + gain @ (fixed[of] - p.loc[of])
    left = cov[rest][:, rest] - gain @ cov[of][:, rest]
    # x_2 at least half a standard deviation above its mean, or more than one and a half below
    sd = left[0, 0].sqrt()
    limits = torch.stack(
        [torch.stack([loc[0] + 0.5 * sd, loc[0] + 9 * sd]), torch.stack([loc[0] - 9 * sd, loc[0] - 1.5 * sd])]
    )
    unit = torch.distributions.Normal(0.0, 1.0)
    tails = 1 - unit.cdf(torch.tensor(0.5)), unit.cdf(torch.tensor(-1.5))
    share = float(sum(tails))
    density = [unit.log_prob(torch.tensor(v)).exp() for v in (0.5, 1.5)]
    mean = loc[0] + sd * float(density[0] - density[1]) / share
    n = 4000
    found = draw_given(normal_table(exact, **wrong), Conditions(fixed, {2: limits}), n, seed=3)
    assert found.x.shape == (n, 4) and found.size >= n
    assert torch.equal(found.x[:, :2], fixed[:2].expand(n, 2)), "what is fixed is exactly so"
    high, low = found.x[:, 2] >= limits[0, 0], found.x[:, 2] <= limits[1, 1]
    assert (high | low).all()
    error = 5 / math.sqrt(found.size)
    assert found.share == pytest.approx(share, abs=error)
    assert high.double().mean() == pytest.approx(float(tails[0]) / share, abs=error)
    assert found.x[:, 2].mean() == pytest.approx(float(mean), abs=2 * error * float(sd))
    others = loc[1] + left[1, 0] / left[0, 0] * (mean - loc[0])
    assert found.x[:, 3].mean() == pytest.approx(float(others), abs=2 * error * float(left[1, 1].sqrt()))
    known = torch.distributions.MultivariateNormal(p.loc[of], cov[of][:, of]).log_prob(fixed[of])
    assert found.log_known == pytest.approx(float(known), abs=0.1)


class TwoHalves(nn.Module):
    """Three levels a, b, c whose probabilities depend on the sign of z alone: everything can be counted."""

    TABLE = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], [[0.3, 0.7], [0.6, 0.4], [0.99, 0.01]]])

    def forward(self, z):
        log_p = self.TABLE[(z[..., 0] > 0).long()].log()
        return Joint([Part(torch.arange(3), Levels(log_p), torch.zeros(3))])


class Vague(nn.Module):
    """The same q(z|x) for each x, to one side."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor([0.8]))

    def forward(self, x):
        return DiagonalNormal(self.loc.expand(len(x), 1), torch.full((len(x), 1), 0.5), 1)


def halves():
    return VAE(Vague(), StandardNormal((1,)), TwoHalves())


def test_levels_are_as_an_enumeration_says():
    p = TwoHalves.TABLE.double()
    # a is 1, c is 1: what is b?
    joint = 0.5 * p[:, 0, 1, None] * p[:, 1] * p[:, 2, 1, None]
    expected = joint.sum(0) / joint.sum()
    only = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    found = draw_given(halves(), Conditions(torch.tensor([1.0, NAN, NAN]), {2: only}), 4000)
    assert (found.x[:, 0] == 1).all() and (found.x[:, 2] == 1).all()
    assert found.x[:, 1].mean() == pytest.approx(float(expected[1]), abs=5 / math.sqrt(found.size))
    assert math.exp(found.log_known) * found.share == pytest.approx(float(joint.sum()), rel=0.1)
    # the same condition, once as a known entry and once as a limit
    known = draw_given(halves(), Conditions(torch.tensor([1.0, NAN, 1.0])), 4000)
    assert math.exp(known.log_known) == pytest.approx(float(joint.sum()), rel=0.1)
    assert known.share == 1
    assert known.x[:, 1].mean() == pytest.approx(float(expected[1]), abs=5 / math.sqrt(known.size))


def test_without_conditions_all_weights_are_equal():
    found = draw_given(halves(), Conditions(torch.full((3,), NAN)), 500)
    assert found.size == pytest.approx(found.proposals, rel=1e-9)
    assert (found.share, found.log_known) == (1.0, pytest.approx(0.0, abs=1e-9))


def test_the_effective_sample_size_is_that_of_its_formula():
    w = torch.rand(50, dtype=torch.float64)
    assert _effective([w[:20].log(), w[20:].log()]) == pytest.approx(float(w.sum() ** 2 / w.square().sum()))
    assert _effective([torch.zeros(7, dtype=torch.float64) - 5000]) == pytest.approx(7)


def test_resampling_takes_each_as_often_as_its_weight_says():
    w = torch.rand(40, dtype=torch.float64).pow(3)
    chosen = _resampled(w.log(), 1000)
    wanted = 1000 * w / w.sum()
    counts = chosen.bincount(minlength=40)
    assert len(chosen) == 1000 and ((counts - wanted).abs() < 1).all()


def test_few_latent_variables_still_give_different_rows():
    exact = LinearGaussian.random(x=3, z=1)
    far = float(exact.marginal().loc[0] + 3.3 * exact.marginal().covariance_matrix[0, 0].sqrt())
    free = torch.full((3,), NAN)
    found = draw_given(normal_table(exact), Conditions(free, {0: one_range(far, math.inf)}), 300, most=5000)
    assert found.size < 30 and found.proposals == 5000
    assert (found.x[:, 0] >= far).all()
    assert len(found.x[:, 1].unique()) == 300


def test_any_table_model_agrees_with_rejection_from_itself():
    columns = [column.table() for column in COLUMNS]
    model = recipes.table(columns=columns, latent=2, hidden=(16,)).eval()
    with torch.no_grad():
        for p in model.decoder.parameters():
            p.mul_(1.5)
        rows = model.generate(40_000).sample()
    level = next(i for i, column in enumerate(COLUMNS) if column.is_level)
    number = next(i for i, column in enumerate(COLUMNS) if column.kind == "real")
    middle = float(rows[:, number].median())
    fixed = torch.full((len(COLUMNS),), NAN)
    fixed[level] = 1.0
    found = draw_given(model, Conditions(fixed, {number: one_range(middle, math.inf)}), 3000)
    kept = rows[(rows[:, level] == 1) & (rows[:, number] >= middle)]
    assert math.exp(found.log_known) * found.share == pytest.approx(len(kept) / len(rows), rel=0.1)
    for i, column in enumerate(COLUMNS):
        if i not in (level, number):
            middle = kept[:, i].double().median()
            below = (kept[:, i] <= middle).double().mean()
            assert (found.x[:, i] <= middle).double().mean() == pytest.approx(float(below), abs=0.06), column.name


def test_what_holes_say_is_left_aside():
    class Telling(nn.Module):
        def __init__(self):
            super().__init__()
            self.whole = TwoHalves()

        def forward(self, z):
            return Missing(self.whole(z), lambda x: 3 * x - 1)

    conditions = Conditions(torch.tensor([1.0, NAN, NAN]), {2: torch.tensor([[1.0, 1.0]])})
    plain = draw_given(halves(), conditions, 200)
    telling = draw_given(VAE(Vague(), StandardNormal((1,)), Telling()), conditions, 200)
    assert torch.equal(plain.x, telling.x) and plain.log_known == telling.log_known


def test_draws_repeat_with_their_seed_and_leave_no_trace():
    model = halves().train()
    conditions = Conditions(torch.tensor([NAN, 1.0, NAN]))
    before = torch.get_rng_state()
    first = draw_given(model, conditions, 100, seed=5)
    assert torch.equal(before, torch.get_rng_state()) and model.training
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(first.x, draw_given(model, conditions, 100, seed=5).x)
    assert not torch.equal(first.x, draw_given(model, conditions, 100, seed=6).x)


def test_a_point_posterior_is_no_guide_and_no_harm():
    columns = [column.table() for column in COLUMNS]
    model = recipes.table(columns=columns, latent=2, hidden=(8,), posterior="point").eval()
    level = next(i for i, column in enumerate(COLUMNS) if column.is_level)
    fixed = torch.full((len(COLUMNS),), NAN)
    fixed[level] = 1.0
    found = draw_given(model, Conditions(fixed), 50)
    assert (found.x[:, level] == 1).all() and found.size >= 50 and not found.x.isnan().any()


def test_mistakes_are_refused():
    nothing = Conditions(torch.tensor([NAN, NAN, NAN]), {0: one_range(2.0, 3.0)}, "a>=2")
    with pytest.raises(ValueError, match="nothing satisfies a>=2: of 5,000 rows that the model drew none did"):
        draw_given(halves(), nothing, 10, most=5000)
    with pytest.raises(ValueError, match="nothing satisfies the conditions"):
        draw_given(halves(), Conditions(torch.tensor([7.0, NAN, NAN])), 10, most=2000)
    with pytest.raises(ValueError, match="n=0, most=100000: give 1 or more"):
        draw_given(halves(), nothing, 0)
    model = recipes.mlp(event=(4,), latent=2, hidden=(8,), family="normal")
    with pytest.raises(ValueError, match="only a model of a table has columns"):
        draw_given(model, Conditions(torch.zeros(4)), 10)
    with pytest.raises(ValueError, match="the conditions are on rows of 5 columns, and the model is of tables of 3"):
        draw_given(halves(), Conditions(torch.zeros(5)), 10)
    with pytest.raises(ValueError, match="limits for column 3, and the model is of tables of 3"):
        draw_given(halves(), Conditions(torch.zeros(3), {3: one_range(0.0, 1.0)}), 10)
