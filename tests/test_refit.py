"""Refitting: the fitted prior is the density of the codes, the bound is what theory says, and a new run is a run."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import nn

from helpers import LinearGaussian, ladder
from lowerbound import checkpoint, cli, families, priors, recipes
from lowerbound.data import digits
from lowerbound.doctor import examine
from lowerbound.evaluation import evaluate
from lowerbound.experiment import read_run
from lowerbound.models import VAE, Conditional
from lowerbound.refit import codes, fit_prior
from lowerbound.run import write
from lowerbound.train import log

SMALL = ["train.steps=30", "train.batch=64", "model.hidden=16", "model.latent=3", "--k", "2"]


class Fixed(nn.Module):
    """x -> N(x, scale^2): codes are data, and nothing is to be learned."""

    def __init__(self, family: families.Family, *rest: float) -> None:
        super().__init__()
        self.family, self.rest = family, rest
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.distributions.Distribution:
        raw = [families.unconstrained(torch.full_like(x, scale)) for scale in self.rest]
        return self.family(torch.cat([x * self.one, *raw], -1))


def plain(size: int, posterior: families.Family, *rest: float) -> VAE:
    decoder = Conditional(nn.Identity(), families.Normal((size,), 0.3))
    return VAE(Fixed(posterior, *rest), priors.StandardNormal((size,)), decoder)


def two_clusters(n: int) -> torch.Tensor:
    side = torch.where(torch.rand(n, 1) < 0.3, -1.0, 1.0)
    return torch.cat((4 * side, 2 * side), -1) + 0.4 * torch.randn(n, 2) * torch.tensor([1.0, 2.0])


# the fit


@pytest.mark.parametrize(("prior", "options"), [("gmm", {"components": 2}), ("flow", {"steps": 300})])
def test_a_wrong_prior_is_replaced_by_the_right_one(prior, options):
    truth = LinearGaussian.random()
    model = truth.model()
    model.prior.loc += 1.5
    x, held_out, test = truth.sample(3000), truth.sample(1000), truth.sample(500)
    exact = truth.marginal().log_prob(test)
    before = evaluate(model, test, k=1).values
    again = fit_prior(model, x, held_out, prior=prior, **options)
    after = evaluate(again, test, k=1).values
    # with the true posterior, the bound is exact for every x and sample once the prior is
    assert (exact - before).mean() > 1 and abs((exact - after).mean()) < 0.03
    assert (exact - after).abs().mean() < 0.2
    assert again.encoder is model.encoder and again.decoder is model.decoder
    assert (model.prior.loc == 1.5).all()


def test_two_clusters_are_found_and_the_bound_rises_by_what_the_prior_missed():
    model = plain(2, families.Normal((2,)), 0.3)
    x, held_out, test = two_clusters(3000), two_clusters(500), two_clusters(500)
    one, two = (fit_prior(model, x, held_out, components=n) for n in (1, 2))
    p = two.prior()
    order = p.component_distribution.loc[:, 0].argsort()
    torch.testing.assert_close(p.mixture_distribution.probs[order], torch.tensor([0.3, 0.7]), atol=0.03, rtol=0)
    centres = torch.tensor([[-4.0, -2.0], [4.0, 2.0]])
    torch.testing.assert_close(p.component_distribution.loc[order], centres, atol=0.1, rtol=0)
    expected = torch.diag(torch.tensor([0.16 + 0.09, 0.64 + 0.09]))  # of the data, and of the posterior
    for covariance in p.component_distribution.covariance_matrix:
        torch.testing.assert_close(covariance, expected, atol=0.08, rtol=0)
    bounds = [evaluate(m, test, k=1) for m in (model, one, two)]
    assert bounds[0].elbo.mean < bounds[1].elbo.mean < bounds[2].elbo.mean
    # the gain of the second component is how far q(z), of two clusters, is from the normal of the same moments
    z = two_clusters(20_000) + 0.3 * torch.randn(20_000, 2)
    missed = (p.log_prob(z) - torch.distributions.MultivariateNormal(z.mean(0), z.T.cov()).log_prob(z)).mean()
    assert abs(bounds[2].elbo.mean - bounds[1].elbo.mean - missed) < 0.1


@pytest.mark.parametrize(("prior", "options"), [("gmm", {"components": 3}), ("flow", {"steps": 400})])
def test_an_autoencoder_draws_from_where_its_codes_are_whatever_their_units(prior, options):
    unit = torch.tensor([1e-2, 3e3])
    model = plain(2, families.Point((2,)))
    x, held_out = (two_clusters(n) * unit + 5 * unit for n in (2000, 500))
    again = fit_prior(model, x, held_out, prior=prior, **options)
    assert not evaluate(again, held_out, k=1).is_bound
    draws, real = again.prior().sample((20_000,)) / unit - 5, two_clusters(20_000)
    torch.testing.assert_close(draws.mean(0), real.mean(0), atol=0.5, rtol=0)
    torch.testing.assert_close(draws.T.cov(), real.T.cov(), atol=1.2, rtol=0.1)
    # two clusters, and hardly anything between them
    assert (draws[:, 0].abs() < 1.5).float().mean() < 0.02
    assert abs((draws[:, 0] < 0).float().mean() - 0.3) < 0.04


def test_held_out_codes_decide_how_far_a_mixture_follows_few_rows():
    model = plain(12, families.Point((12,)))
    x, held_out, fresh = (torch.randn(n, 12) for n in (40, 40, 1000))
    again = fit_prior(model, x, held_out, components=4)
    closely = GaussianMixture(4, reg_covar=1e-5, random_state=0).fit(x.double().numpy())
    assert again.prior().log_prob(fresh).mean() > closely.score(fresh.numpy()) + 3


def test_codes_are_samples_of_the_posteriors_and_nobody_else_is_disturbed():
    model = plain(2, families.Normal((2,)), 0.5).train()
    x = torch.tensor([[0.0, 10.0]]).expand(300, 2) + torch.tensor([[100.0, 0.0]]) * torch.arange(300)[:, None]
    state = torch.get_rng_state()
    z = codes(model, x, draws=40, seed=3)
    assert z.shape == (12_000, 2) and model.training and torch.equal(torch.get_rng_state(), state)
    noise = z - x.repeat_interleave(40, 0)  # the draws of a row are together
    assert noise.abs().max() < 3 and abs(noise.std() - 0.5) < 0.02 and abs(noise.mean()) < 0.02
    first, second = (fit_prior(model, x[:200], x[200:], components=2) for _ in range(2))
    assert torch.equal(first.prior.loc, second.prior.loc) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", [lambda: priors.FullMixture((2,), 3), lambda: priors.ScaledFlow((2,), hidden=(8,))])
def test_fitted_priors_are_densities_in_their_own_units(make):
    prior = make().double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        prior.shift.copy_(torch.tensor([1.0, -2.0]))
        prior.unit.copy_(torch.tensor([2.0, 0.5]))
        p = prior()
        axes = [torch.linspace(s - 12 * u, s + 12 * u, 301, dtype=torch.float64) for s, u in ((1.0, 2.0), (-2.0, 0.5))]
        grid = torch.cartesian_prod(*axes)
        mass = p.log_prob(grid).exp() * (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
        assert abs(mass.sum() - 1) < 2e-3
        draws = p.sample((40_000,))
        torch.testing.assert_close(draws.mean(0), mass @ grid, atol=0.06, rtol=0)
        values = -p.log_prob(draws)
        assert abs(values.mean() + (mass * p.log_prob(grid)).sum()) < 5 * values.std() / 200 + 2e-3
    (-prior().log_prob(torch.randn(200, 2).double()).mean()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in prior.parameters())


# what cannot be fitted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior": "gmn"}, "no prior 'gmn' to fit.*did you mean 'gmm'.*gmm, flow"),
        ({"components": 0}, "components=0, steps=3000: each must be 1 or more"),
        ({"components": 21}, "21 components for 20 rows: give 20 or fewer"),
    ],
)
def test_what_is_asked_for_can_be_had(options, words):
    x = two_clusters(20)
    with pytest.raises(ValueError, match=words):
        fit_prior(plain(2, families.Point((2,))), x, x, **options)


def test_models_and_rows_that_say_nothing_are_refused():
    model = plain(2, families.Point((2,)))
    x = two_clusters(20)
    with pytest.raises(ValueError, match="20 rows to fit to and 1 to judge the fit by are too few"):
        fit_prior(model, x, x[:1])
    with pytest.raises(ValueError, match="codes of these rows are all the same"):
        fit_prior(model, torch.ones(20, 2), x)
    spatial = recipes.conv(event=(1, 4, 4), latent=1, spatial=True, channels=(8,), levels=5)
    with pytest.raises(ValueError, match=r"z of this model is of shape 1x2x2.*model\.spatial=false"):
        fit_prior(spatial, torch.zeros(9, 1, 4, 4), torch.zeros(9, 1, 4, 4), components=2)


def test_directions_and_codes_are_refused():
    sphere = recipes.mlp(event=(2,), latent=3, hidden=(8,), family="normal", posterior="sphere", prior="sphere")
    x = two_clusters(20)
    for prior in ("gmm", "flow"):
        with pytest.raises(ValueError, match=r"z of this model is a direction or a code.*Keep the prior"):
            fit_prior(sphere, x, x, prior=prior, components=2)


def test_a_ladder_is_refused():
    from lowerbound.refit import _check_latent

    with pytest.raises(ValueError, match="3 latent variables whose priors depend on what is above them"):
        _check_latent(ladder(), torch.randn(2, 6))


# a new run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run of digits."""
    folder = tmp_path_factory.mktemp("refit") / "digits"
    assert cli.app(["train", "digits", *SMALL, "--out", str(folder)], result_action="return_value") == 0
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_refitted_run_is_a_run_and_the_old_one_is_left_alone(lowerbound, run):
    old = contents(run)
    status, said, wrong = lowerbound("refit", run, "--components", 3, "--k", 5)
    assert (status, wrong) == (0, ""), wrong
    new = run.with_name("digits-gmm")
    assert contents(run) == old
    assert "gmm of 3 components, fitted to the codes of 1,437 training rows" in said
    assert "on 180 rows of the test split, with 5 samples each" in said
    assert said.count("log p(x) >=") == 2 and f"wrote {new}" in said

    model, tables = checkpoint.load_model(new)
    assert (tables["model"]["prior"], tables["model"]["prior_components"]) == ("gmm", 3)
    saved = json.loads((new / "evaluation.json").read_text())
    again = evaluate(model, digits().fixed("test", 1000), k=5, discrete=True)
    assert again.summary() | {"split": "test"} == saved
    assert f"{again.bound} nats" in said
    assert "fitted to the codes of the 1,437 training rows of digits" in (new / "report.html").read_text()
    before, _ = checkpoint.load_model(run)
    for name, tensor in before.state_dict().items():
        assert name.startswith("prior.") or torch.equal(tensor, model.state_dict()[name])

    for verb in (("evaluate", new, "--k", 2), ("sample", new, "-n", 4, "--out", new / "s.npz")):
        assert lowerbound(*verb)[::2] == (0, "")
    assert np.load(new / "s.npz")["x"].shape == (4, 1, 8, 8)

    findings = examine(model, read_run(new), log.read(new), digits(), thorough=False)
    assert "prior with holes" in {f.name for f in findings} and not any(f.blind for f in findings)

    status, _, wrong = lowerbound("refit", run)
    assert status == 1 and "holds a run already" in wrong and "--force" in wrong
    (new / "mine.txt").write_text("mine")
    status, said, _ = lowerbound("refit", run, "--components", 2, "--k", 5, "--force", "--json")
    found = json.loads(said)
    assert status == 0 and found["run"] == str(new) and found["rows"] == 1437
    gain = found["after"]["bound"]["mean"] - found["before"]["bound"]["mean"]
    assert math.isclose(found["gain"]["mean"], gain, abs_tol=1e-9)
    # the same rows with the same noise: the difference is known far better than either
    assert found["gain"]["standard_error"] < 0.5 * found["after"]["bound"]["standard_error"]
    assert checkpoint.load_model(new)[1]["model"]["prior_components"] == 2 and (new / "mine.txt").exists()
    assert not [path for path in new.parent.iterdir() if path.name.startswith(".")]


def test_a_prior_that_is_no_better_is_said_to_be(lowerbound, run, monkeypatch):
    from lowerbound import refit

    far = priors.FullMixture((3,), 2)
    far.shift += 4
    monkeypatch.setattr(refit, "_mixture", lambda *_: far)
    status, said, _ = lowerbound("refit", run, "--components", 2, "--k", 5, "--out", run.with_name("worse"))
    assert status == 0 and "the bound FALLS by" in said and "chance" not in said


def test_a_plain_autoencoder_becomes_a_generator(lowerbound, tmp_path):
    folder = tmp_path / "ae"
    status, _, wrong = lowerbound(
        "train", "digits", *SMALL, "model.posterior=point", "objective.name=reconstruction", "--out", folder
    )
    assert (status, wrong) == (0, ""), wrong
    status, said, wrong = lowerbound("refit", folder, "--prior", "gmm", "--out", tmp_path / "new")
    assert (status, wrong) == (0, ""), wrong
    assert "no bound, before or after: the posterior is a point" in said and "log p(x) >=" not in said
    model, _ = checkpoint.load_model(tmp_path / "new")
    z, draws = codes(model, digits().fixed("test")), model.prior().sample((5000,))
    spread = z.std(0)
    assert ((draws.mean(0) - z.mean(0)).abs() < 0.3 * spread).all()
    assert ((draws.std(0) / spread - 1).abs() < 0.2).all()
    assert lowerbound("sample", tmp_path / "new", "--out", tmp_path / "s.png")[0] == 0


# what cannot be refitted


def test_mistakes_are_one_clear_message(lowerbound, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, words in (
        ((run, "--prior", "flwo"), "no prior 'flwo' to fit (did you mean 'flow'?)"),
        ((run, "--out", run), "is the run that is to be refitted"),
        ((run, "--components", 0), "--components 0 is too small"),
        ((tmp_path / "nothing",), "there is no run in"),
    ):
        status, said, wrong = lowerbound("refit", *arguments)
        assert (status, said) == (1, "") and words in wrong.replace("\n", " ")


def test_a_run_without_its_data_names_the_remedy(lowerbound, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, 4)).astype("float32"))
    status, _, wrong = lowerbound("train", tmp_path / "x.npy", *SMALL, "--out", tmp_path / "run")
    assert (status, wrong) == (0, ""), wrong
    (tmp_path / "x.npy").rename(tmp_path / "y.npy")
    status, _, wrong = lowerbound("refit", tmp_path / "run")
    assert status == 1 and "the codes of the training rows" in wrong and "run.toml where they are now" in wrong
    assert not (tmp_path / "run-gmm").exists()
    toml = tmp_path / "run" / "run.toml"
    toml.write_text(toml.read_text().replace("x.npy", "y.npy"))
    assert lowerbound("refit", tmp_path / "run")[0] == 0


def test_a_model_without_such_a_prior_is_refused_before_anything_is_read(lowerbound, run, tmp_path):
    for file in ("run.toml", "split.safetensors"):
        (tmp_path / file).write_bytes((run / file).read_bytes())
    table = read_run(run)["model"]
    spatial = {"name": "conv", "event": [1, 8, 8], "spatial": True, "family": table["family"], "levels": 17}
    (tmp_path / "run.toml").write_text(write(read_run(run) | {"model": spatial}))
    status, _, wrong = lowerbound("refit", tmp_path, "--prior", "flow")
    assert status == 1 and "spatial=true" in wrong and "model.spatial=false" in wrong
