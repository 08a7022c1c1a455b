"""The doctor on models: each that was made sick on purpose is diagnosed by name, and a healthy one passes."""

import functools
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Distribution

from helpers import MODELS, LinearGaussian, bits, ladder
from lowerbound import checkpoint, experiment, families, nets, priors, recipes
from lowerbound.data import Data
from lowerbound.distributions import DiagonalNormal, Quantized
from lowerbound.doctor import Finding, bounds, codebook, collapse, examine, regularisation, status
from lowerbound.doctor.finding import find_out
from lowerbound.doctor.run import CHECKS
from lowerbound.doctor.subject import Subject
from lowerbound.models import VAE, Conditional
from lowerbound.objectives import Elbo
from lowerbound.refit import PRIORS, refit
from lowerbound.run import TABLES, full, override
from lowerbound.train import Options, Trainer, TrainingError
from lowerbound.train import log as logs

REFIT = "lowerbound refit RUN --prior gmm"
SMALL = ("model.hidden=64,64", "train.steps=1000", "train.patience=0")


def train(folder, *overrides):
    """A run of the digits, as the command line would make it."""
    run = {kind: {} for kind in TABLES} | {"data": {"name": "digits"}}
    for assignment in (*SMALL, *overrides):
        override(run, assignment, recipes.annotation)
    begun = experiment.start(run, folder)
    try:
        for _ in experiment.proceed(begun):
            pass
    except TrainingError:
        experiment.save(begun)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of the run with some overrides; it is trained once."""
    home = tmp_path_factory.mktemp("runs")
    return functools.cache(lambda *overrides: train(home / ("_".join(overrides) or "healthy"), *overrides))


@pytest.fixture
def healthy(trained):
    return trained()


def look(folder, thorough=False, data=True):
    model, run = checkpoint.load_model(folder)
    there = experiment.load_data(run) if data else None
    return examine(model, run, logs.read(folder), there, thorough=thorough)


def named(findings, verdict="finding"):
    return {finding.name for finding in findings if finding.verdict == verdict}


def of(findings, name) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_a_healthy_run_passes(healthy):
    findings = look(healthy, thorough=True)
    assert named(findings) == set() and named(findings, "unknown") == set() and status(findings) == 0
    assert [finding.name for finding in findings] == [check.name for check in CHECKS if check.name != "codebook"]
    for finding in findings:
        json.dumps(finding.summary(), allow_nan=False)
        assert finding.what.endswith(".") and finding.name and not finding.remedy


def test_a_kl_weight_of_100_is_over_regularisation(trained):
    findings = look(trained("objective.beta=100"))
    assert {"over-regularisation", "posterior collapse", "decoder that ignores z"} <= named(findings)
    assert "scale of the likelihood" not in named(findings)
    assert of(findings, "over-regularisation").number == 100
    assert "0 of 21 latent dimensions are active" in of(findings, "posterior collapse").what
    for name in ("over-regularisation", "posterior collapse"):
        assert of(findings, name).remedy == ("objective.beta=1",)


def test_noise_of_ten_times_the_datas_is_too_wide_a_likelihood(trained):
    findings = look(trained("model.family=normal", "model.scale=60"))
    found = of(findings, "scale of the likelihood")
    assert found.verdict == "finding" and found.number < 0.15 and found.remedy == ("model.scale=shared",)
    assert "too wide, fixed at 60 where about" in found.what
    assert "over-regularisation" not in named(findings)
    assert of(findings, "posterior collapse").remedy == ("model.scale=shared",)


def test_too_narrow_a_likelihood_is_found_as_well(trained):
    found = of(look(trained("model.family=normal", "model.scale=0.5")), "scale of the likelihood")
    assert found.verdict == "finding" and found.number > 2 and "too narrow" in found.what


def test_a_latent_space_of_512_is_too_large(trained):
    findings = look(trained("model.latent=512"))
    found = of(findings, "latent size")
    assert named(findings) == {"latent size"}
    (remedy,) = found.remedy
    assert 2 <= int(remedy.removeprefix("model.latent=")) <= 64


def test_a_learning_rate_that_diverges_is_named(trained):
    findings = look(trained("train.lr=1"))
    assert "learning rate" in named(findings)
    assert of(findings, "learning rate").remedy == ("train.lr=0.002",)
    assert {"skipped updates", "unfinished training"} <= named(findings)


class Chain(Distribution):
    """Bits of which each is likely to be the one before it again: autoregressive, and as good without z as with it."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, first, weight):
        self.first, self.weight = first, weight
        super().__init__(first.shape[:-1], first.shape[-1:], validate_args=False)

    def logits(self, x):
        return self.first + torch.cat((torch.zeros_like(x[..., :1]), (2 * x - 1)[..., :-1] * self.weight), -1)

    def log_prob(self, x):
        return -nn.functional.binary_cross_entropy_with_logits(
            self.logits(x), x.expand(*self.batch_shape, *x.shape[-1:]), reduction="none"
        ).sum(-1)

    def sample(self, shape=()):
        x = torch.zeros(*shape, *self.first.shape)
        for i in range(x.shape[-1]):
            x[..., i] = torch.bernoulli(self.logits(x)[..., i].sigmoid())
        return x


class ChainDecoder(nn.Module):
    def __init__(self, z, x):
        super().__init__()
        self.net, self.weight = nets.mlp((z,), (x,), hidden=(16,)), nn.Parameter(torch.zeros(x - 1))

    def forward(self, z):
        return Chain(self.net(z), self.weight)


def test_a_decoder_that_needs_no_z_is_named():
    torch.manual_seed(1)
    flips = (torch.rand(2000, 8) < 0.2).float()
    flips[:, 0] = torch.rand(2000).round()
    x = flips.cumsum(1) % 2
    parts = dict(zip(("train", "valid", "test"), torch.arange(2000).split([1400, 300, 300])))
    data = Data("chain", x.to(torch.uint8), parts, levels=2)
    posterior = families.Normal((3,))
    encoder = Conditional(nets.mlp((8,), posterior.shape, hidden=(16,)), posterior)
    model = VAE(encoder, priors.StandardNormal((3,)), ChainDecoder(3, 8))
    trainer = Trainer(model, Elbo(), Options(steps=1000, warmup=20, lr=1e-2, compile="off", valid_every=100))
    log = [logs.entry(step) for step in trainer.fit(data) if step.number % 20 == 0]
    run = tables(model={"name": "mlp", "latent": 3}, train={"steps": 1000})
    findings = examine(trainer.averaged, run, log, data, thorough=False)
    assert named(findings) == {"decoder that ignores z", "posterior collapse"}
    remedies = of(findings, "decoder that ignores z").remedy
    assert remedies[0] == "objective.name=free_bits"


def tables(**changes):
    names = {"model": "mlp", "objective": "elbo"}
    run = {kind: {"name": name} | changes.get(kind, {}) for kind, name in names.items()}
    run["train"] = changes.get("train", {})
    complete = {kind: full(recipes.recipe(kind, t.get("name", "")), kind, t) for kind, t in run.items()}
    return complete | {"data": {"name": "digits", "split_seed": 0}}


def line(step, bound, **more):
    return {"step": step, "loss": -bound, "bound": bound, "rate": 5.0, "distortion": -bound - 5, "skipped": 0} | more


def looked(step, valid, gap=1.0):
    return line(step, valid, valid_bound=valid, valid_rate=5.0, valid_distortion=-valid - 5, train_bound=valid + gap)


def by_heart(peak=6):
    """Looks of which the held-out bound falls after one of them, and the bound of what is trained on does not."""
    return [looked(10 * i, -100.0 - abs(i - peak) / 2, gap=1.0 + max(0, i - peak) / 2) for i in range(1, 13)]


def check(name, log, **changes):
    """One check of a run whose data are gone."""
    model = LinearGaussian.random().mean_field()
    return next(f for f in examine(model, tables(**changes), log, thorough=False) if f.name == name)


RISE = [line(10 * i, -100 * math.exp(-i / 5) - 50) for i in range(1, 41)]


def test_a_loss_that_is_not_a_number_is_divergence():
    broken = [*RISE[:20], *({**entry, "loss": None, "bound": None} for entry in RISE[20:])]
    assert check("learning rate", RISE).verdict == "healthy"
    found = check("learning rate", broken)
    assert found.verdict == "finding" and "20 of 40 logged batches is not a number" in found.what


def test_a_rising_weight_is_no_divergence():
    """The loss of a KL weight that rises grows, while the bound rises; and with a small weight it is the other way."""
    warmed = [{**entry, "loss": 50.0 + entry["step"]} for entry in RISE]
    assert check("learning rate", warmed).verdict == "healthy"
    cheap = [{**entry, "bound": -50.0 - entry["step"]} for entry in RISE]
    assert check("learning rate", cheap).verdict == "healthy"
    both = [{**entry, "bound": -50.0 - entry["step"], "loss": 50.0 + entry["step"]} for entry in RISE]
    assert check("learning rate", both).verdict == "finding"


def test_skipped_updates_are_counted():
    assert check("skipped updates", [*RISE, line(410, -50, skipped=4)]).verdict == "healthy"
    found = check("skipped updates", [*RISE, line(410, -50, skipped=41)])
    assert found.verdict == "finding" and found.number == pytest.approx(0.1) and "41 of 410" in found.what


def test_a_training_that_was_cut_is_told_from_one_that_ended_early_as_asked():
    looks = [*RISE, *(looked(400 + i, -50.0 - (i > 0)) for i in range(9))]
    assert check("unfinished training", RISE, train={"steps": 400}).verdict == "healthy"
    cut = check("unfinished training", looks, train={"steps": 1000})
    assert cut.verdict == "finding" and cut.remedy == ("lowerbound resume RUN",)
    assert check("unfinished training", looks, train={"steps": 1000, "patience": 8}).verdict == "healthy"
    assert check("unfinished training", looks, train={"steps": 1000, "patience": 9}).verdict == "finding"
    risen = check("unfinished training", RISE, train={"steps": 400}, objective={"warmup": 500})
    assert risen.verdict == "finding" and "before the weight of the KL term" in risen.what


def test_a_bound_that_still_rises_calls_for_more_steps():
    rising = [looked(10 * i, -200.0 + 10 * i) for i in range(1, 12)]
    found = check("length of training", rising, train={"steps": 110})
    assert found.verdict == "finding" and found.remedy == ("train.steps=220",)
    assert check("length of training", [looked(10 * i, -100 * 0.5**i) for i in range(1, 21)]).verdict == "healthy"


def test_a_short_log_tells_nothing():
    found = check("learning rate", RISE[:9])
    assert found.verdict == "unknown" and "fewer than 10 lines" in found.what


def test_held_out_rows_that_once_fared_better_are_learned_by_heart():
    looks = by_heart()
    found = check("generalisation gap", looks)
    assert found.verdict == "finding" and found.number == pytest.approx(3) and "train.patience=8" in found.remedy
    assert check("generalisation gap", looks, train={"patience": 3}).verdict == "healthy"
    far = check("generalisation gap", [looked(10 * i, -100.0, gap=9) for i in range(1, 13)], train={"patience": 3})
    assert far.verdict == "finding" and far.remedy == ("model.dropout=0.2",)


def test_a_bound_that_falls_as_something_else_is_trained_is_not_learned_by_heart():
    """A KL weight that rises to 4 costs the bound of all rows, held out or not."""
    both = [looked(10 * i, -100.0 - abs(i - 6)) for i in range(1, 13)]
    assert check("generalisation gap", both).verdict == "healthy"
    rising = {"beta": 4.0, "warmup": 200}
    assert check("generalisation gap", by_heart(), objective=rising).verdict == "healthy"
    assert check("generalisation gap", by_heart(), objective=rising | {"warmup": 60}).verdict == "finding"


def test_a_run_without_its_data_says_what_it_still_can(healthy):
    findings = look(healthy, data=False)
    assert named(findings) == set() and status(findings) == 2
    assert {"learning rate", "posterior collapse", "generalisation gap", "over-regularisation"} <= named(
        findings, "healthy"
    )
    assert named(findings, "unknown") == {
        "dead units", "decoder that ignores z", "latent size", "prior with holes", "scale of the likelihood",
        "tightness of the bound",
    }  # fmt: skip
    assert all("data of this run are not there" in f.what for f in findings if f.verdict == "unknown")


def test_log_p_is_bracketed_without_data(healthy):
    model, run = checkpoint.load_model(healthy)
    found = bounds.bracketed(Subject(model, run, logs.read(healthy), None))
    assert found is not None and found.verdict in ("healthy", "finding")
    assert "rows that the model made up" in found.what


def test_few_held_out_rows_tell_nothing(healthy):
    model, run = checkpoint.load_model(healthy)
    data = experiment.load_data(run)
    few = replace(data, split={**data.split, "test": data.split["test"][:3]})
    findings = examine(model, run, logs.read(healthy), few, thorough=False)
    assert named(findings) == set() and "fewer than 20 held-out rows" in of(findings, "latent size").what
    assert status(findings) == 2


def test_weights_that_are_not_finite_are_no_model(healthy):
    model, run = checkpoint.load_model(healthy)
    next(model.decoder.parameters()).data.fill_(math.nan)
    findings = examine(model, run, logs.read(healthy), experiment.load_data(run))
    assert "not finite" in of(findings, "dead units").what
    assert of(findings, "distance to log p(x)").verdict == "unknown"
    assert of(findings, "learning rate").verdict == "healthy" and status(findings) == 2
    # an objective whose KL term has no weight is judged by a rate that is not known
    found = of(examine(model, tables(objective={"name": "iwae"}), [], experiment.load_data(run)), "over-regularisation")
    assert found.verdict == "unknown" and "not finite" in found.what


@pytest.mark.parametrize(
    "error, what, code",
    [
        (RuntimeError("out of memory:\nall of it"), "The check broke off: RuntimeError: out of memory:.", 2),
        (ValueError("this is no model for it."), "This is no model for it.", 0),
    ],
)
def test_a_check_that_fails_costs_nothing_of_what_others_find(healthy, monkeypatch, error, what, code):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("lowerbound.doctor.bounds.tightness", fail)
    findings = look(healthy)
    assert of(findings, "tightness of the bound").what == what and named(findings, "unknown") == {
        "tightness of the bound"
    }
    assert status(findings) == code and len(named(findings, "healthy")) > 10


def test_a_number_that_is_none_decides_nothing():
    found = find_out("fall", lambda: Finding("fall", "finding", "It falls by nan.", math.nan, 0.5), tables())
    assert found.verdict == "unknown" and status([found, Finding("other", "healthy", "Fine.")]) == 2


@pytest.mark.parametrize(
    "findings, code",
    [
        ([], 2),
        ([Finding("a", "healthy", "Fine.")], 0),
        ([Finding("a", "healthy", "Fine."), Finding("b", "unknown", "No such thing.")], 0),
        ([Finding("a", "healthy", "Fine."), Finding("b", "unknown", "No data.", blind=True)], 2),
        ([Finding("a", "finding", "Ill."), Finding("b", "unknown", "No data.", blind=True)], 1),
    ],
)
def test_the_status_is_healthy_only_where_that_can_be_known(findings, code):
    assert status(findings) == code


def test_no_pass_is_of_more_rows_than_memory_holds(healthy, monkeypatch):
    """All checks that pass rows through the decoder do so in batches, and find the same."""
    whole = look(healthy)
    passed = []
    model, run = checkpoint.load_model(healthy)
    model.decoder.register_forward_pre_hook(lambda module, inputs: passed.append(inputs[0].shape[:-1].numel()))
    for module in ("doctor.subject", "evaluation.bounds"):
        monkeypatch.setattr(f"lowerbound.{module}.DECODED", 64 * 50)
    names = ("dead units", "posterior collapse", "decoder that ignores z", "latent size", "prior with holes")
    monkeypatch.setattr("lowerbound.doctor.run.CHECKS", [each for each in CHECKS if each.name in names])
    parts = examine(model, run, logs.read(healthy), experiment.load_data(run))
    assert max(passed) <= 50 and [found.name for found in parts] == list(names)
    for found in parts:
        assert found.verdict == of(whole, found.name).verdict == "healthy"
        assert found.number == pytest.approx(
            of(whole, found.name).number,
            rel=0.15,
            abs=0.15,
            # 180 rows have few in their lowest 1 %
        )


def test_large_rows_are_fewer_where_each_costs_a_search():
    rows = {
        side: Subject(LinearGaussian.random().model(), tables(model={"event": [3, side, side]}), [], None).costly
        for side in (28, 64, 128, 512)
    }
    assert rows == {28: 64, 64: 21, 128: 8, 512: 8}


def test_a_plain_autoencoder_has_no_bound_and_says_so_once(trained):
    findings = look(trained("model.posterior=point"), thorough=True)
    assert named(findings) == {"under-regularisation"} and named(findings, "unknown") == set()
    found = of(findings, "under-regularisation")
    assert found.number > 0.9 and found.remedy == (REFIT, "model.posterior=normal", "objective.name=elbo")


def test_a_plain_autoencoder_whose_prior_was_fitted_is_well(trained):
    folder = trained("model.posterior=point")
    refitted = refit(folder, folder.with_name("refitted"), k=1).folder
    findings = look(refitted)
    found = of(findings, "under-regularisation")
    assert named(findings) == set() and found.number < 0.3 and "no bound" in found.what


def test_a_tiny_weight_leaves_holes(trained):
    findings = look(trained("objective.beta=0.01"))
    assert {"under-regularisation", "prior with holes"} <= named(findings)
    assert of(findings, "prior with holes").remedy == (REFIT, "objective.beta=1")
    assert of(findings, "under-regularisation").remedy == (REFIT, "objective.beta=1")
    folder = trained("objective.beta=0.01")
    refitted = look(refit(folder, folder.with_name("cheap_refitted"), k=1).folder)
    assert not {"under-regularisation", "prior with holes"} & named(refitted)
    assert regularisation.REFITTED == PRIORS


def test_dead_and_saturated_units_are_counted():
    x = torch.randn(50, 4)
    data = Data("rows", x, dict(zip(("train", "valid", "test"), torch.arange(50).split([20, 10, 20]))))
    posterior, likelihood = families.Normal((2,)), families.Normal((4,), "shared")
    first, second = nn.Linear(4, 8), nn.Linear(8, 4)
    with torch.no_grad():
        first.bias[:3] = -100.0
        second.bias[0] = 100.0
    encoder = nn.Sequential(first, nn.ReLU(), second, nn.Tanh())
    model = VAE(Conditional(encoder, posterior), priors.StandardNormal((2,)), Conditional(nn.Linear(2, 4), likelihood))
    found = of(examine(model, tables(), [], data, thorough=False), "dead units")
    assert found.verdict == "finding" and found.number == 4 / 12 and "4 of 12" in found.what
    assert "encoder.net.1 (3 of 8)" in found.what


@pytest.mark.parametrize("name", list(MODELS))
def test_every_kind_of_model_can_be_looked_at(name):
    case = MODELS[name]
    data = case.data(1500)
    model = case.make(data.fixed("train"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    findings = examine(model, tables(), RISE, data, thorough=name in ("mixture", "ladder"))
    assert all(math.isfinite(f.number) for f in findings if f.number is not None)
    assert not any("broke off" in f.what for f in findings)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    if name == "ladder":
        assert "several latent variables" in of(findings, "distance to log p(x)").what
        assert "amortisation gap" in of(findings, "inference gap").what
        assert "of each level" in (what := of(findings, "posterior collapse").what) and "active in each level" in what


def test_every_remedy_can_be_typed(trained, healthy):
    """Each override is one that a run of the same kind accepts."""
    model, run = checkpoint.load_model(healthy)
    sick = [look(trained(changed)) for changed in ("objective.beta=100", "model.latent=512")]
    longer = run | {"train": run["train"] | {"steps": 10_000}}
    sick.append(examine(model, longer, [*RISE, line(410, -1e6, skipped=90)], thorough=False))
    typed = {remedy for findings in sick for f in findings for remedy in f.remedy if "=" in remedy}
    assert len(typed) >= 4
    for remedy in typed:
        changed = {kind: dict(table) for kind, table in run.items()}
        override(changed, remedy, recipes.annotation)
        kind = remedy.partition(".")[0]
        full(recipes.recipe(kind, changed[kind].get("name", "")), kind, changed[kind])


ILL = Finding("gap", "finding", "Far.", 3.0, 1.0, ("model.dropout=0.2", "objective.name=elbo"), "It comes nearer.")


def test_remedies_that_the_run_has_already_are_left_out():
    def remedy(**changes):
        return find_out("gap", lambda: ILL, tables(**changes))

    assert remedy(objective={"name": "iwae"}) == ILL
    one = remedy(model={"dropout": 0.3})
    assert one.remedy == ("model.dropout=0.2",) and one.effect == ILL.effect
    none = remedy(model={"dropout": 0.2})
    assert none.verdict == "finding" and none.remedy == ()
    assert none.effect.startswith("model.dropout=0.2, objective.name=elbo is there already: what is left is more data")


def test_what_is_typed_goes_beyond_what_the_run_has():
    def subject(**changes):
        return Subject(LinearGaussian.random().model(), tables(**changes), [], None)

    assert [subject(model={"dropout": part}).more_dropout for part in (0.0, 0.2, 0.45, 0.7)] == [
        ("model.dropout=0.2",),
        ("model.dropout=0.3",),
        ("model.dropout=0.5",),
        ("model.dropout=0.7",),
    ]
    posteriors = [bounds._richer(subject(model={"posterior": name})) for name in ("laplace", "normal", "full", "iaf")]
    full, flow = ("model.posterior=full",), ("model.posterior=iaf",)
    assert posteriors == [full, full, flow, ("objective.name=iwae",)]
    weighted = subject(model={"posterior": "iaf"}, objective={"name": "iwae", "k": 8})
    assert bounds._richer(weighted) == ("objective.k=16",)
    priors = [regularisation._nearer_prior(subject(model={"prior": name})) for name in ("normal", "vamp")]
    assert priors == [("model.prior=vamp",), ("model.prior=flow",)]
    rises = [
        collapse._longer_rise(subject(train={"steps": 1000}, objective=objective))
        for objective in ({"warmup": 300}, {"warmup": 900}, {"name": "iwae"})
    ]
    assert rises == [
        ("objective.warmup=900",),
        ("train.steps=2000", "objective.warmup=1800"),
        ("objective.name=elbo", "objective.warmup=900"),
    ]
    assert "objective.nats=12" in collapse._revive(subject(objective={"name": "free_bits", "nats": 6.0}))[0]
    assert subject(objective={"name": "mutual", "beta": 100.0}).weight == 100


def test_collapse_is_told_dimension_by_dimension():
    class Encoder(nn.Module):
        """Dimension 1 says the most, 0 little, the others nothing."""

        def forward(self, x):
            loc = torch.cat((0.5 * x[:, :1], 3 * x[:, 1:2], torch.zeros(len(x), 8)), 1)
            scale = torch.ones_like(loc)
            scale[:, 1] = 0.01
            return DiagonalNormal(loc, scale, 1)

    likelihood = families.Normal((4,), "shared")
    decoder = Conditional(nn.Linear(10, 4), likelihood)
    model = VAE(Encoder(), priors.StandardNormal((10,)), decoder)
    x = torch.randn(300, 4)
    data = Data("rows", x, dict(zip(("train", "valid", "test"), torch.arange(300).split([100, 50, 150]))))
    found = of(examine(model, tables(), [], data, thorough=False), "posterior collapse")
    assert "half of it in 1 dimension;" in found.what
    assert found.what.endswith("not active: dimensions 2, 3, 4, 5, 6, 7 and 2 more.")


def test_a_model_of_several_levels_is_asked_level_by_level():
    model = ladder()
    with torch.no_grad():  # the last level's posterior is its prior: it has collapsed, the others have not
        for p in model.levels[2].posterior.parameters():
            p.zero_()
        for level in model.levels[:2]:
            for p in level.posterior.parameters():
                p.mul_(3)
    data = MODELS["ladder"].data(600)
    found = of(examine(model, tables(), [], data, thorough=False), "posterior collapse")
    assert found.verdict == "finding" and "posterior of level 3 has collapsed" in found.what
    assert found.remedy == ("objective.warmup=9000",)


def test_a_classifier_that_says_nothing_is_to_be_taught():
    parts = dict(zip(("train", "valid", "test"), torch.arange(300).split([200, 50, 50])))
    data = Data("bits", bits(300, (6,)), parts, labels=torch.arange(300) % 3, levels=2, given="train label")
    model = recipes.m2(event=(6,), classes=3, latent=2, hidden=(8,))
    found = of(examine(model, tables(model={"name": "m2"}), [], data, thorough=False), "posterior collapse")
    assert "the classifier gives all classes nearly the same probability" in found.what
    assert found.remedy == ("train.steps=20000", "model.alpha=2")


def test_a_decoder_that_reads_x_is_to_read_less_of_it():
    def remedy(**options):
        run = tables()
        run["model"] |= options
        return collapse._revive(Subject(LinearGaussian.random().model(), run, [], None))[0][:-3]

    assert remedy() == ()
    assert [remedy(word_dropout=part) for part in (0.0, 0.4, 1.0)] == [
        ("model.word_dropout=0.4",),
        ("model.word_dropout=0.7",),
        ("model.word_dropout=1",),
    ]
    assert remedy(reach=3) == ("model.reach=1",) and remedy(reach=1) == ()


@pytest.mark.parametrize(
    "options, remedy",
    [
        ({}, ("model.commitment=0.1",)),
        ({"commitment": 0.1, "hierarchy": True}, ("model.hierarchy=false",)),
        ({"quantiser": "fsq", "hierarchy": True}, ("model.hierarchy=false",)),
        ({"quantiser": "fsq"}, ("train.steps=20000",)),
    ],
)
def test_codes_are_not_revived_by_a_weight_that_their_encoder_does_not_hear(options, remedy):
    run = tables(model={"name": "codes"} | options, objective={"name": "elbo", "beta": 4.0})
    subject = Subject(LinearGaussian.random().model(), run, [], None)
    assert subject.weight is None and regularisation.too_large_a_weight(subject) is None
    assert collapse._revive(subject)[0] == collapse._revive_levels(subject)[0] == remedy
    drawn = Subject(subject.model, tables(model={"name": "codes", "quantiser": "gumbel"}), [], None)
    assert drawn.weight == 1.0 and collapse._revive(drawn)[0][0] == "objective.name=free_bits"


@pytest.mark.parametrize(
    "options, used, size, remedy",
    [
        ({"codebook": "gradient"}, 2, 8, "model.codebook=ema"),
        ({}, 2, 8, "model.codes=3"),
        ({"quantiser": "residual"}, 7, 8, "model.depth=1"),
        ({"quantiser": "residual", "depth": 1, "hierarchy": True}, 7, 8, "model.hierarchy=false"),
        ({"hierarchy": True}, 7, 8, "model.hierarchy=false"),
        ({"quantiser": "gumbel", "codebook": "gradient"}, 2, 8, "model.codes=3"),
        ({"quantiser": "fsq"}, 7, 16, "model.grid=[3, 3]"),
        ({"quantiser": "fsq", "grid": [2, 2, 2, 2]}, 3, 16, "model.grid=[2, 2]"),
    ],
)
def test_a_codebook_is_asked_for_that_is_smaller_than_it_was(options, used, size, remedy):
    subject = Subject(LinearGaussian.random().model(), tables(model={"name": "codes"} | options), [], None)
    assert codebook._livelier(subject, used, size) == (remedy,)


@pytest.mark.parametrize(
    "used, codes, verdict, remedy",
    [(2, 8, "finding", ("model.codes=3",)), (8, 8, "healthy", ()), (2, 500, "unknown", ())],
)
def test_a_codebook_of_which_hardly_anything_is_chosen_is_named(used, codes, verdict, remedy):
    """Of so many codes the first are chosen, each as often as the others."""

    class Encoder(nn.Module):
        def forward(self, x):
            chosen = (torch.arange(4 * len(x)) % used).reshape(len(x), 1, 2, 2)
            return Quantized(chosen.float(), chosen, codes, torch.zeros(len(x)))

    class Prior(nn.Module):
        def forward(self):
            return DiagonalNormal(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), 3)

    likelihood = families.Normal((4,), "shared")
    model = VAE(Encoder(), Prior(), Conditional(nn.Sequential(nn.Flatten(-3), nn.Linear(4, 4)), likelihood))
    x = torch.randn(300, 4)
    data = Data("rows", x, dict(zip(("train", "valid", "test"), torch.arange(300).split([100, 50, 150]))))
    run = tables()
    run["model"] |= {"codes": codes}
    findings = examine(model, run, [], data)
    found = of(findings, "codebook")
    assert found.verdict == verdict and found.remedy == remedy
    if verdict != "unknown":
        assert found.number == used / codes and f"(perplexity {used})" in found.what
    # what asks for a density of q does not concern a choice
    asked = {"latent size", "tightness of the bound", "inference gap", "distance to log p(x)"}
    assert not asked & {each.name for each in findings}
