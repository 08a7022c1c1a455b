"""Imputation: against the exact conditional, and as a verb that gives every row back."""

import csv
from pathlib import Path

import pytest
import torch

from helpers import LinearGaussian
from lowerbound import recipes
from lowerbound.distributions import Joint, Numbers
from lowerbound.distributions.joint import Part
from lowerbound.evaluation import impute
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


def test_mistakes_are_refused():
    model = recipes.mlp(event=(4,), latent=2, hidden=(8,), family="normal")
    with pytest.raises(ValueError, match="only a model of a table knows what a missing value is"):
        impute(model, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="k=0, draws=0"):
        impute(model, torch.zeros(3, 4), k=0)


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
    assert "4 rows, 3 of them with something that the model did not know" in said
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
