"""Scores: against exact densities, as sums over columns, and as p-values that are valid."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from helpers import COLUMNS, MODELS, LinearGaussian
from lowerbound import recipes
from lowerbound.distributions import Joint, Levels, Numbers, Part
from lowerbound.evaluation import calibrate, score
from lowerbound.models import VAE
from lowerbound.priors import StandardNormal


class Wide(nn.Module):
    """x -> N(0, 1.5^2), whatever x is: the weights do all the work. As torch has it, which vmap refuses to draw."""

    def forward(self, x):
        zero = torch.zeros(len(x), 1, dtype=x.dtype)
        return Independent(Normal(zero, torch.full_like(zero, 1.5)), 1)


class Rows(nn.Module):
    """z -> a number N(3z, 1), and a level whose log-odds are 2z."""

    def __init__(self, unit=1.0):
        super().__init__()
        self.unit = nn.Parameter(torch.tensor(unit, dtype=torch.float64))

    def forward(self, z):
        number = Numbers(3 * z * self.unit, self.unit.expand(1))
        log_p = torch.stack((nn.functional.logsigmoid(-2 * z), nn.functional.logsigmoid(2 * z)), -1)
        nothing = torch.zeros(1, dtype=z.dtype)
        return Joint([Part(torch.tensor([0]), number, nothing), Part(torch.tensor([1]), Levels(log_p), nothing)])


def small(unit=1.0):
    return VAE(Wide(), StandardNormal((1,)).double(), Rows(unit))


def exact(x, unit=1.0):
    """-log p(x), E[-log p(x_j|z)] of each column and KL(p(z|x) || p(z)) of `small`, by integration over z."""
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None, None]
    terms = Rows(unit)(z).terms(x.expand(len(z), *x.shape)).detach()
    log_joint = terms.sum(-1) + Normal(0.0, 1.0).log_prob(z[..., 0])
    value = -(log_joint.logsumexp(0) + math.log(16 / 4000))
    weight = log_joint.softmax(0)[..., None]
    return value, -(weight * terms).sum(0), (weight[..., 0] * (terms.sum(-1) + value)).sum(0)


def rows():
    return torch.tensor([[0.5, 1.0], [-4.0, 1.0], [9.0, math.nan], [math.nan, 0.0]], dtype=torch.float64)


def test_a_score_is_minus_log_p_and_its_terms_are_what_theory_says():
    found = score(small(), rows(), k=40_000)
    value, terms, divergence = exact(rows())
    assert (found.values - value).abs().max() < 0.05
    assert (found.terms - terms).abs().max() < 0.1
    assert (found.rate - divergence).abs().max() < 0.1
    assert torch.equal(found.known, ~rows().isnan()) and (found.terms[~found.known] == 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_score_is_its_datums_own_whoever_stands_beside_it(name):
    torch.manual_seed(1)
    x = MODELS[name].data().fixed("train")
    model = MODELS[name].make(x)
    x = x[:11]
    before = torch.get_rng_state()
    together = score(model, x, k=7).values
    assert torch.equal(torch.get_rng_state(), before) and model.training
    assert torch.allclose(together, score(model, x, k=7).values, rtol=0, atol=0)
    others = torch.cat([score(model, x[[4]], k=7).values, score(model, x[[9, 4]], k=7).values])
    assert torch.allclose(others, together[[4, 9, 4]], rtol=1e-5)
    other = score(model, x, k=7, seed=1).values
    assert torch.allclose(other, together, rtol=1e-5) != MODELS[name].drawn


def test_what_vmap_refuses_is_done_one_by_one_and_gives_the_same():
    together = score(small(), rows(), k=5).values
    assert torch.equal(torch.cat([score(small(), row[None], k=5).values for row in rows()]), together)


def test_with_the_exact_posterior_one_sample_is_enough():
    truth = LinearGaussian.random()
    x = truth.sample(30)
    found = score(truth.model(), x, k=1)
    assert torch.allclose(found.values, -truth.marginal().log_prob(x))
    assert found.terms is None and found.rate is None
    with pytest.raises(ValueError, match="only the score of a row of a table is a sum over columns"):
        found.excess(found)


def test_terms_and_rate_add_up_and_nothing_known_scores_nothing():
    torch.manual_seed(1)
    x = MODELS["table"].rows(50)
    model = MODELS["table"].make(x)
    x[7] = math.nan
    found = score(model, x, k=20)
    assert torch.allclose(found.terms.sum(1) + found.rate, found.values, rtol=1e-14)
    assert found.values[7] == found.rate[7] == 0 and (found.values[:7] != 0).all()


def test_an_excess_does_not_depend_on_the_unit_of_its_column():
    unit = torch.tensor([1000.0, 1.0], dtype=torch.float64)
    reference = torch.stack((torch.randn(20).double(), torch.tensor([0.0, 1.0]).double().repeat(10)), 1)
    reference[3, 0] = math.nan
    mine = score(small(), rows()).excess(score(small(), reference))
    scaled = score(small(1000.0), rows() * unit).excess(score(small(1000.0), reference * unit))
    assert torch.allclose(mine, scaled, equal_nan=True)
    assert torch.equal(mine.isnan(), rows().isnan())
    usual = score(small(), reference).terms[~reference[:, 0].isnan(), 0].mean()
    assert torch.allclose(mine[0, 0], score(small(), rows()).terms[0, 0] - usual)


def test_an_excess_is_over_rows_that_know_the_column_even_where_holes_count():
    torch.manual_seed(1)
    x = MODELS["table"].rows(50)
    columns = [column.table() for column in COLUMNS]
    found = score(recipes.table(x, columns=columns, latent=2, hidden=(8,), missing="self"), x, k=20)
    assert (found.terms[~found.known] != 0).all(), "that it is missing has a probability, too"
    assert torch.allclose(found.excess(found).nanmean(0), torch.zeros(len(columns)).double(), atol=1e-9)


def test_what_cannot_be_is_infinitely_strange_by_its_own_column():
    x = rows()
    x[1, 1] = 7
    found = score(small(), x, k=50)
    assert found.values.isinf().tolist() == [False, True, False, False]
    assert found.terms.isinf().nonzero().tolist() == [[1, 1]] and not found.terms.isnan().any()
    assert torch.allclose(found.terms.sum(1) + found.rate, found.values)
    assert found.excess(score(small(), rows(), k=50))[1].isinf().tolist() == [False, True]


def test_the_excess_names_the_entry_that_was_broken():
    torch.manual_seed(0)
    reference = torch.stack((3 * torch.randn(50), torch.randint(0, 2, (50,))), 1).double()
    odd = torch.tensor([[60.0, 1.0], [-9.0, 1.0]], dtype=torch.float64)
    excess = score(small(), odd, k=2000).excess(score(small(), reference, k=2000))
    assert excess.argmax(1).tolist() == [0, 1], "a number far from all; a level that the number speaks against"


def test_p_values_are_valid_whichever_score_is_the_new_one():
    scores = torch.randn(40).double()
    p = torch.stack([calibrate(scores[[i]], torch.cat((scores[:i], scores[i + 1 :])))[0] for i in range(40)])
    assert torch.allclose(p.sort().values, torch.arange(1, 41).double() / 40), "each rank once"
    ties = torch.tensor([0.0, 1.0, 1.0, 1.0, 2.0]).double()
    p = torch.stack([calibrate(ties[[i]], torch.cat((ties[:i], ties[i + 1 :])))[0] for i in range(5)])
    for level in (0.2, 0.4, 0.6, 0.8, 1.0):
        assert (p <= level + 1e-9).double().mean() <= level + 1e-9


def test_mistakes_are_refused():
    point = recipes.mlp(event=(4,), latent=2, hidden=(8,), family="normal", posterior="point")
    with pytest.raises(ValueError, match="the posterior of this model is a point"):
        score(point, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="x has 0 rows"):
        score(small(), rows()[:0])
    with pytest.raises(ValueError, match="k=0 is too small"):
        score(small(), rows(), k=0)
    with pytest.raises(ValueError, match="no scores of reference"):
        calibrate(torch.zeros(3), torch.zeros(0))
