"""Imputation: against the exact conditional, and as a verb that gives every row back."""

import csv
from pathlib import Path

import pytest
import torch

from helpers import COLUMNS, LinearGaussian, mixed
from lowerbound import recipes
from lowerbound.columns import Column
from lowerbound.distributions import Cyclic, DiagonalNormal, Joint, Levels, Numbers, Part
from lowerbound.evaluation import impute, impute_with_uncertainty
from lowerbound.models import VAE
from lowerbound.priors import StandardNormal

pytest.importorskip("pyarrow")


def test_one_filling_is_the_exact_conditional_mean():
    truth = LinearGaussian.random(x=4, z=2, scale=0.5)
    model = truth.model()
    x = truth.sample(40)
    known = torch.tensor([True, True, False, True])
    marginal = truth.marginal()
    mean, cov = marginal.loc, marginal.covariance_matrix
    gain = cov[2, known] @ torch.linalg.inv(cov[known][:, known])
    expected = mean[2] + (x[:, known] - mean[known]) @ gain

    class Rows(torch.nn.Module):
        """p(x|z) of the exact model, as a table has it."""

        def __init__(self):
            super().__init__()
            self.net = model.decoder.net

        def forward(self, z):
            loc = self.net(z)
            numbers = Numbers(loc, torch.full_like(loc, truth.scale))
            return Joint([Part(torch.arange(4), numbers, torch.zeros(4, dtype=loc.dtype))])

    class Wide(torch.nn.Module):
        """The exact posterior of filled rows, made wider, so that weights are what mends it."""

        def __init__(self):
            super().__init__()
            self.encoder = truth.model(spread=9.0).encoder

        def forward(self, x):
            return self.encoder(torch.where(x.isnan(), truth.centre.float(), x))

    table = VAE(Wide(), StandardNormal((2,)).double(), Rows())
    table.float()
    holes = x.clone().float()
    holes[:, 2] = torch.nan
    filled = impute(table, holes, k=20_000)
    assert torch.equal(filled[:, known], holes[:, known])
    assert (filled[:, 2] - expected).abs().max() < 0.1
    draws = impute(table, holes, k=4000, draws=60)
    assert draws.shape == (60, 40, 4) and torch.equal(draws[7][:, known], holes[:, known])
    left = (cov[2, 2] - gain @ cov[known, 2]).sqrt()
    spread = (draws[:, :, 2] - expected.float()).square().mean().sqrt()
    assert spread == pytest.approx(left.item(), rel=0.1)
    found = impute_with_uncertainty(table, holes, [Column(name, "real") for name in "abcd"], k=20_000)
    assert torch.equal(found.rows, filled) and found.uncertainty[:, known].isnan().all()
    assert found.uncertainty[:, 2].numpy() == pytest.approx(left.item(), rel=0.1)


class Fixed(torch.nn.Module):
    """x -> N(0, 1.5^2), whatever x is."""

    def forward(self, x):
        return DiagonalNormal(torch.zeros(len(x), 1), torch.full((1,), 1.5), 1)


class Mixed(torch.nn.Module):
    """z -> a number N(3z, 1), one of three levels with log-odds (0, z, 2z), and an hour of the day, whatever z is."""

    def __init__(self):
        super().__init__()
        self.along = torch.nn.Parameter(torch.tensor([[3.0, 0.1]]))

    def forward(self, z):
        level = Levels((z * torch.arange(3.0)).log_softmax(-1)[..., None, :])
        hour = Cyclic(self.along.expand(*z.shape[:-1], 1, 2), torch.tensor([24.0]))
        kinds = (Numbers(3 * z, torch.ones(1)), level, hour)
        return Joint([Part(torch.tensor([i]), entries, torch.zeros(1)) for i, entries in enumerate(kinds)])


def test_the_uncertainty_of_a_level_is_the_chance_that_it_is_another():
    columns = [Column("a", "real"), Column("b", "category", ("x", "y", "z")), Column("hour", "cyclic", period=24.0)]
    x = torch.tensor([[6.0, torch.nan, 1.0], [-1.0, torch.nan, 1.0], [0.3, 2.0, torch.nan]])
    found = impute_with_uncertainty(VAE(Fixed(), StandardNormal((1,)), Mixed()), x, columns, k=40_000)
    # p(z|a) is N(0.3 a, 0.1), and the levels are enumerated
    z = torch.linspace(-8, 8, 4001)
    weight = torch.distributions.Normal(0.3 * x[:2, :1], 0.1**0.5).log_prob(z).softmax(-1)
    p = weight @ (z[:, None] * torch.arange(3.0)).softmax(-1)
    assert torch.equal(found.rows[:2, 1], p.argmax(-1).float())
    assert found.uncertainty[:2, 1].tolist() == pytest.approx((1 - p.amax(-1)).tolist(), abs=0.02)
    # the hour is near midnight, on both sides of it
    hours = torch.arange(0, 24, 0.01)
    density = Mixed()(torch.zeros(1)).parts[2].entries.log_prob(hours[:, None])[:, 0].exp() * 0.01
    middle = found.rows[2, 2]
    distance = (hours - middle + 12).remainder(24) - 12
    assert middle < 0.5
    assert found.uncertainty[2, 2].item() == pytest.approx((density @ distance.square()).sqrt().item(), rel=0.05)
    assert torch.equal(found.uncertainty.isnan(), ~x.isnan())


@pytest.mark.parametrize("missing", ["random", "self"])
def test_a_plain_autoencoder_fills_holes_by_its_code(missing):
    x = mixed(30)
    described = [column.table() for column in COLUMNS]
    model = recipes.table(x, columns=described, latent=2, hidden=(8,), posterior="point", missing=missing).eval()
    filled = impute(model, x, k=300)
    if missing == "random":
        torch.testing.assert_close(filled, torch.where(x.isnan(), model(x).likelihood.mean[0], x))
    draws = impute(model, x, k=5, draws=3)
    found = impute_with_uncertainty(model, x, COLUMNS, k=300)
    assert torch.equal(found.rows, filled) and torch.equal(found.uncertainty.isnan(), ~x.isnan())
    assert not draws.isnan().any() and not filled.isnan().any() and not torch.equal(draws[0], draws[1])


def test_what_cannot_be_says_nothing_of_the_rest():
    model = VAE(Fixed(), StandardNormal((1,)), Mixed())
    impossible = torch.tensor([[torch.nan, 7.0, torch.nan]])
    for filled in (impute(model, impossible, k=2000), *impute(model, impossible, k=2000, draws=2)):
        assert filled.isfinite().all() and filled[0, 1] == 7
    assert impute(model, impossible, k=2000)[0, 0].abs() < 0.5


class Spread(torch.nn.Module):
    """z -> a number whose logarithm is N(0, 40^2) where z is above 0, else a hundredth wide; and z itself, nearly."""

    def forward(self, z):
        log_normal = Numbers(torch.zeros_like(z), torch.where(z > 0, 40.0, 0.01), logarithmic=True)
        parts = (log_normal, torch.ones(1)), (Numbers(z, torch.full((1,), 1e-3)), torch.zeros(1))
        return Joint([Part(torch.tensor([i]), entries, harmless) for i, (entries, harmless) in enumerate(parts)])


def test_numbers_without_measure_do_not_spoil_the_others():
    model = VAE(Fixed(), StandardNormal((1,)), Spread())
    model.idle = torch.nn.Parameter(torch.zeros(1))  # a model computes where its parameters are
    x = torch.tensor([[torch.nan, -1.0]])
    found = impute_with_uncertainty(model, x, [Column(name, "real") for name in "ab"], k=4000)
    assert found.rows[0, 0].item() == pytest.approx(1, abs=0.05)
    assert found.uncertainty[0, 0].item() == pytest.approx(0.01, rel=0.5)


def test_mistakes_are_refused():
    model = recipes.mlp(event=(4,), latent=2, hidden=(8,), family="normal")
    with pytest.raises(ValueError, match="only a model of a table has columns, and knows what a missing value is"):
        impute(model, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="k=0 is too small"):
        impute(model, torch.zeros(3, 4), k=0)
    with pytest.raises(ValueError, match="draws=-1 is too small"):
        impute(model, torch.zeros(3, 4), draws=-1)
    with pytest.raises(ValueError, match="1 columns are described, and x has 4"):
        impute_with_uncertainty(model, torch.zeros(3, 4), [Column("a", "real")])
    with pytest.raises(ValueError, match="x has 4 columns, and the model is of tables of 8"):
        impute(recipes.table(columns=[c.table() for c in COLUMNS], latent=2, hidden=(8,)), torch.zeros(3, 4))


def table(name):
    with Path(name).open() as file:
        return list(csv.DictReader(file))


def test_every_row_in_is_a_row_out_and_what_is_known_stays(lowerbound, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [(i, f"{20 + i % 40}", "red" if i % 3 else "blue", f"{(i % 40) * 0.5:.1f}") for i in range(200)]
    Path("t.csv").write_text("\n".join(["age,colour,size", *(f"{a},{c},{s}" for _, a, c, s in rows)]) + "\n")
    options = ["train.steps=20", "train.batch=16", "model.hidden=8", "model.latent=2"]
    status, said, wrong = lowerbound("train", "t.csv", *options, "--k", "2")
    assert (status, wrong) == (0, ""), wrong
    Path("holes.csv").write_text("age,colour,size\n33,,6.5\n,blue,\n41,green,3.0\n55,red,17.5\n")
    status, said, wrong = lowerbound("impute", "runs/t", "holes.csv", "--out", "full.csv", "--k", "20")
    assert (status, wrong) == (0, ""), wrong
    assert "colour" in said and "'green'" in said, "a level that was never seen is counted"
    assert "4 rows, holes in them: 3, of these filled: 3" in said
    full = table("full.csv")
    assert [row["age"] for row in full][0::2] == ["33", "41"] and full[3] == {
        "age": "55",
        "colour": "red",
        "size": "17.5",
    }
    assert full[2]["colour"] == "green", "what is known stays, even what the model has no number for"
    assert all(value for row in full for value in row.values())
    assert full[0]["colour"] in ("red", "blue") and 0 <= float(full[1]["size"]) <= 19.5
    assert lowerbound("impute", "runs/t", "holes.csv", "--out", "many.csv", "--draws", "2", "--k", "20")[0] == 0
    assert Path("many-01.csv").is_file() and Path("many-02.csv").is_file()
    # new rows load where the old ones did
    assert lowerbound("sample", "runs/t", "-n", "30", "--out", "new.csv")[0] == 0
    assert len(table("new.csv")) == 30
    status, _, wrong = lowerbound("impute", "runs/t", "holes.csv", "--out", "full.docx")
    assert status == 1 and "give --out a name that ends in .csv, .tsv" in wrong and not Path("full.docx").exists()
    status, _, wrong = lowerbound("impute", "runs/t", "nothing.csv")
    assert status == 1 and "nothing.csv" in wrong
