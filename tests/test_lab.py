"""The laboratory: its members are runs, whatever stops it leads on to the same bytes, and what it says is so."""

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from lowerbound import experiment, lab, recipes
from lowerbound.lab import training
from lowerbound.lab.measures import Measured, Results
from lowerbound.lab.plan import Member, Plan
from lowerbound.lab.words import best_compressor, best_extractor, best_generator, headline
from lowerbound.metrics import Estimate
from lowerbound.run import TABLES, override

SMALL = [
    "model.hidden=8",
    "model.latent=2",
    "train.steps=24",
    "train.batch=16",
    "train.valid_every=8",
    "train.warmup=5",
]
WEIGHTS = (0.0, 1.0, 4.0)


def tables(*overrides, data="digits"):
    run = {kind: {} for kind in TABLES} | {"data": {"name": data}}
    for assignment in (*SMALL, *overrides):
        override(run, assignment, recipes.annotation)
    return run


def start(folder, *overrides, weights=WEIGHTS, data="digits", **more):
    return lab.start(tables(*overrides, data=data), folder, weights=weights, **more)


def trained(begun):
    for _ in lab.proceed(begun):
        pass
    return begun


def stopped(begun, after, save):
    """A laboratory that was left after so many steps, with or without having saved."""
    for i, progress in enumerate(lab.proceed(begun), 1):
        if i == after:
            if save:
                progress.save()
            return


def contents(folder):
    names = ("log.jsonl", "model.safetensors", "run.toml")
    return {f"{path.name}/{name}": (path / name).read_bytes() for path in folder.iterdir() if path.is_dir()
            for name in names if (path / name).is_file()}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A laboratory that nothing interrupted, measured and written."""
    begun = trained(start(tmp_path_factory.mktemp("labs") / "whole"))
    return begun, lab.finish(begun, list(lab.measure(begun)))


class TestTraining:
    def test_each_member_is_a_run_and_the_autoencoder_is_the_run_it_would_be_alone(self, whole, tmp_path):
        begun, _ = whole
        names = ["autoencoder", "beta-0", "beta-1", "beta-4"]
        assert begun.finished == names == [member.name for member in begun.plan.members()]
        for member in begun.plan.members():
            again = experiment.resume(begun.folder / member.name)
            assert again.trainer.done and again.run["train"]["patience"] == 0
            assert again.run["objective"] == member.run["objective"]
        alone = experiment.start({kind: dict(t) for kind, t in begun.plan.members()[0].run.items()}, tmp_path / "alone")
        for _ in experiment.proceed(alone):
            pass
        for name in ("log.jsonl", "model.safetensors"):
            assert (tmp_path / "alone" / name).read_bytes() == (begun.folder / "autoencoder" / name).read_bytes()

    def test_members_differ_in_the_weight_alone_and_begin_from_the_same_weights(self, whole):
        begun, _ = whole
        runs = [member.run for member in begun.plan.members() if member.weight is not None]
        assert [run["objective"].pop("beta") for run in runs] == list(WEIGHTS)
        assert runs[0] == runs[1] == runs[2]
        first, second = (
            experiment.make_trainer(member.run, begun.data, "cpu").model for member in begun.plan.members()[1:3]
        )
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))

    @pytest.mark.parametrize("after", [1, 10, 24, 25, 30, 47])
    @pytest.mark.parametrize("save", [True, False], ids=["stopped", "killed"])
    def test_whatever_stops_it_it_goes_on_to_the_same_bytes(self, whole, tmp_path, after, save):
        stopped(start(tmp_path / "lab"), after, save)
        again = trained(lab.resume(tmp_path / "lab"))
        assert again.finished == whole[0].finished
        assert contents(tmp_path / "lab") == contents(whole[0].folder)
        assert not list((tmp_path / "lab").glob("*.safetensors")), "the state of members together is no longer needed"

    def test_a_kill_after_a_save_goes_on_from_it(self, whole, tmp_path, monkeypatch):
        monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", 0.0)
        stopped(start(tmp_path / "lab"), 30, save=False)
        again = lab.resume(tmp_path / "lab")
        steps = [progress.step for progress in lab.proceed(again)]
        assert steps[0] == 7, "six of the members' steps were made and saved"
        assert contents(tmp_path / "lab") == contents(whole[0].folder)

    def test_what_is_finished_is_not_trained_again(self, whole):
        again = lab.resume(whole[0].folder)
        assert list(lab.proceed(again)) == []

    def test_models_that_cannot_be_stacked_are_trained_one_after_another_and_it_is_said(self, tmp_path):
        begun = start(tmp_path / "lab", "objective.name=factor", weights=(0.0, 5.0))
        progress = list(lab.proceed(begun))
        assert begun.finished == ["autoencoder", "beta-0", "beta-5"]
        assert any("one after another" in note and "parameters of its own" in note for note in begun.notes)
        assert [p.done for p in progress] == list(range(1, 73)) and {p.total for p in progress} == {72}
        alone = experiment.start({kind: dict(t) for kind, t in begun.plan.members()[2].run.items()}, tmp_path / "alone")
        for _ in experiment.proceed(alone):
            pass
        left, right = (tmp_path / folder / "model.safetensors" for folder in ("alone", "lab/beta-5"))
        assert left.read_bytes() == right.read_bytes()

    def test_seeds_are_members_of_their_own(self, tmp_path):
        begun = trained(start(tmp_path / "lab", "train.steps=4", "train.warmup=0", weights=(0.5, 1.0), seeds=2))
        assert begun.finished == [
            *("autoencoder-seed0", "beta-0.5-seed0", "beta-1-seed0"),
            *("autoencoder-seed1", "beta-0.5-seed1", "beta-1-seed1"),
        ]
        results = lab.finish(begun, list(lab.measure(begun)))
        pair = [m.numbers["rate"].mean for m in results.members if m.member.weight == 1.0]
        assert len(set(pair)) == 2
        found = results.at("rate", 1.0)
        assert found.mean == pytest.approx(sum(pair) / 2)
        assert found.standard_error == pytest.approx(abs(pair[0] - pair[1]) / 2)

    def test_codes_that_are_drawn_are_compared(self, tmp_path):
        codes = {"name": "codes", "quantiser": "gumbel", "codes": 4, "channels": [4], "prior_width": 8}
        run = {"data": {"name": "digits"}, "model": codes, "objective": {}, "train": {"steps": 6, "batch": 16}}
        begun = trained(lab.start(run, tmp_path / "lab", weights=(1.0, 4.0)))
        results = lab.finish(begun, list(lab.measure(begun)))
        assert all(0 <= found.numbers["active_units"].mean <= 16 for found in results.members)
        assert "how many latent choices move with the data" in (tmp_path / "lab" / "lab.html").read_text()

    def test_another_option_of_an_objective_is_varied_by_name(self, tmp_path):
        begun = start(tmp_path / "lab", "objective.name=free_bits", weights=(0.0, 3.0), vary="nats")
        assert [m.run["objective"].get("nats") for m in begun.plan.members()] == [None, 0.0, 3.0]
        assert [m.name for m in begun.plan.members()] == ["autoencoder", "nats-0", "nats-3"]


class TestRefusals:
    @pytest.mark.parametrize(
        "asked, message",
        [
            (
                dict(weights=(1.0,)),
                r"--weights 1: a laboratory compares, so it takes two weights or more.*objective.beta=1",
            ),
            (dict(weights=()), r"takes two weights or more"),
            (dict(weights=(-1.0, 1.0, math.inf)), r"--weights -1, inf: a weight is a finite number of 0 or more"),
            (dict(weights=(1.0, 1.0)), r"--weights 1,1: each weight is to be given once"),
            (dict(seeds=0), r"--seeds 0 is too small"),
            (dict(vary="gamma"), r"objective 'elbo' has no weight 'gamma'.*It could vary beta or start"),
            (dict(device="tpu"), r"there is no device 'tpu'"),
        ],
    )
    def test_what_cannot_work_is_refused_and_leaves_nothing(self, tmp_path, asked, message):
        with pytest.raises(ValueError, match=message):
            start(tmp_path / "lab", **asked)
        assert not (tmp_path / "lab").exists()

    @pytest.mark.parametrize(
        "overrides, message",
        [
            (["objective.beta=2"], r"objective.beta=2 is what the laboratory varies: leave it out"),
            (["objective.name=iwae"], r"objective 'iwae' has no weight 'beta'. It has nothing to vary"),
            (["model.name=codes"], r"which the encoder of quantised codes does not hear"),
            (["model.posterior=point"], r"objective 'elbo' has a KL term, which is infinite"),
            (["train.batch=5000"], r"train.batch=5000 is more than the 1,437 rows"),
            (["model.family=bernoulli"], r"family 'bernoulli' cannot explain digits"),
        ],
    )
    def test_so_are_options_that_cannot_work(self, tmp_path, overrides, message):
        with pytest.raises(ValueError, match=message):
            start(tmp_path / "lab", *overrides)
        assert not (tmp_path / "lab").exists()

    def test_a_folder_with_something_else_in_it_is_left_alone(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(FileExistsError, match="is not empty, and holds no laboratory"):
            start(tmp_path, force=True)
        with pytest.raises(FileExistsError, match="is a file; a laboratory is kept in a folder"):
            start(tmp_path / "notes.txt")
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_a_laboratory_is_replaced_by_force_alone_and_only_it(self, tmp_path):
        start(tmp_path)
        (tmp_path / "beta-1").mkdir()
        (tmp_path / "beta-1" / "run.toml").write_text("")
        (tmp_path / "beta-4").mkdir()
        (tmp_path / "beta-4" / "mine.txt").write_text("mine")
        with pytest.raises(FileExistsError, match=r"holds a laboratory already: go on with it .*--resume.*--force"):
            start(tmp_path)
        (tmp_path / "beta-1" / "notes.txt").write_text("mine too")
        start(tmp_path, force=True, weights=(0.5, 0.7))
        assert [path.name for path in (tmp_path / "beta-1").iterdir()] == ["notes.txt"]
        assert (tmp_path / "beta-4" / "mine.txt").is_file()
        assert Plan.read(tmp_path / "lab.toml").weights == (0.5, 0.7)

    def test_what_is_not_there_or_damaged_cannot_be_resumed(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no laboratory in .*lowerbound lab DATA"):
            lab.resume(tmp_path)
        start(tmp_path / "a")
        (tmp_path / "a" / "progress.json").write_text("{")
        with pytest.raises(ValueError, match=r"progress.json cannot be read .*--force"):
            lab.resume(tmp_path / "a")
        (tmp_path / "a" / "lab.toml").write_text("[lab]\nvary = 'beta'\n")
        with pytest.raises(ValueError, match="is no plan of a laboratory"):
            lab.resume(tmp_path / "a")

    def test_changed_data_are_refused(self, tmp_path):
        rows = torch.randn(60, 3).numpy()
        np.save(tmp_path / "x.npy", rows)
        run = tables("model.family=normal")
        run["data"] = {"name": "array", "path": str(tmp_path / "x.npy")}
        lab.start(run, tmp_path / "lab", weights=WEIGHTS)
        np.save(tmp_path / "x.npy", rows + 1)
        with pytest.raises(ValueError, match=r"are not those that the laboratory in .* began with"):
            lab.resume(tmp_path / "lab")


class Page(HTMLParser):
    """What a page asks for from elsewhere, and its text."""

    def __init__(self, text):
        super().__init__()
        self.foreign, self.said, self.pictures = [], "", 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if key in ("src", "href") and not value.startswith("data:"):
                self.foreign.append(value)
        self.pictures += tag == "img"
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data):
        self.said += data


class TestPage:
    def test_it_is_whole_and_each_figure_says_what_to_look_at(self, whole):
        begun, _ = whole
        page = Page((begun.folder / "lab.html").read_text(encoding="utf-8"))
        assert page.foreign == []
        for title in ("Rate and distortion", "Generation", "Interpolation", "Random latents", "Representation"):
            assert title in page.said
        captions = re.findall("<figcaption>(.*?)</figcaption>", (begun.folder / "lab.html").read_text(encoding="utf-8"))
        assert len(captions) == page.pictures == len(list((begun.folder / "figures").glob("*.png")))
        for caption in captions:
            assert "look" in caption.lower() and len(re.findall(r"[.:] [A-Z]|: look", caption)) >= 1, caption

    def test_the_same_members_give_the_same_page(self, whole):
        begun, _ = whole
        page = (begun.folder / "lab.html").read_bytes()
        lab.finish(begun, list(lab.measure(begun)))
        assert (begun.folder / "lab.html").read_bytes() == page

    def test_its_numbers_are_consistent(self, whole):
        begun, results = whole
        said = json.loads((begun.folder / "lab.json").read_text())
        assert [member["name"] for member in said["members"]] == begun.finished
        assert said["members"][0].get("rate") is None and said["members"][0]["distortion"]["mean"] > 0
        for measured in results.members[1:]:
            n = measured.numbers
            assert n["elbo"].mean == pytest.approx(-n["rate"].mean - n["distortion"].mean, rel=1e-6)
            assert n["bound"].mean >= n["elbo"].mean
            parts = n["mutual_information"].mean + n["total_correlation"].mean + n["dimension_wise"].mean
            assert parts == pytest.approx(n["kl"].mean, rel=1e-6)
            assert n["gap"].mean == pytest.approx(n["total_correlation"].mean + n["dimension_wise"].mean, rel=1e-6)
            # the KL term again, in closed form, on other rows
            assert n["kl"].mean == pytest.approx(n["rate"].mean, abs=0.2 * n["rate"].mean + 0.3)
            assert measured.kl.sum().item() == pytest.approx(n["rate"].mean, rel=1e-4)

    def test_without_labels_those_panels_are_left_out_and_it_says_so(self, tmp_path):
        np.save(tmp_path / "x.npy", torch.randn(300, 5).numpy())
        run = tables()
        run["data"] = {"name": "array", "path": str(tmp_path / "x.npy")}
        begun = trained(lab.start(run, tmp_path / "lab", weights=(0.5, 1.0)))
        results = lab.finish(begun, list(lab.measure(begun)))
        page = Page((tmp_path / "lab" / "lab.html").read_text(encoding="utf-8"))
        assert results.over("probe") == [] and "linear probe" not in page.said
        assert "without labels nothing can be said of what the codes know" in page.said
        assert "feature extractor" not in page.said and "As a generator" in page.said

    def test_hardly_any_data_are_enough_for_what_they_are_enough_for(self, tmp_path):
        np.save(tmp_path / "x.npy", torch.randn(24, 3).numpy())
        run = tables("train.batch=4")
        run["data"] = {"name": "array", "path": str(tmp_path / "x.npy")}
        begun = trained(lab.start(run, tmp_path / "lab", weights=(0.5, 1.0)))
        results = lab.finish(begun, list(lab.measure(begun)))
        assert results.left_out and results.over("rate") and not results.over("classifier")
        page = Page((tmp_path / "lab" / "lab.html").read_text(encoding="utf-8"))
        assert results.left_out[0] in page.said

    @pytest.mark.slow
    def test_factors_get_their_scores(self, tmp_path):
        begun = trained(start(tmp_path / "lab", "data.n=400", "data.size=16", weights=(0.5, 1.0), data="shapes"))
        assert begun.data.entropy == pytest.approx(math.log(737_280))
        results = lab.finish(begun, list(lab.measure(begun)))
        said = Page((tmp_path / "lab" / "lab.html").read_text(encoding="utf-8")).said
        assert "Disentanglement" in said and "orientation" in said
        assert 0 <= results.at("MIG", 1.0).mean <= 1


def results_of(**numbers):
    """Results with these numbers at the weights 0.5, 1 and 2."""
    blank = torch.zeros(1, 1)
    made = tuple(
        Measured(
            Member(f"beta-{weight:g}", weight, 0, {}),
            {name: Estimate(*values[i]) for name, values in numbers.items()},
            None, blank, blank, blank, None, False, (),
        )
        for i, weight in enumerate((0.5, 1.0, 2.0))
    )  # fmt: skip
    return Results(made, (0.5, 1.0, 2.0), "beta", dims=10, discrete=True, entropy=None)


class TestWords:
    def test_the_generator_is_the_one_whose_samples_are_told_apart_least_and_among_equals_the_nearest(self):
        apart = [(0.80, 0.02), (0.79, 0.02), (0.95, 0.01)]
        nearer = [(0.01, 0.001), (0.02, 0.001), (0.3, 0.01)]
        assert best_generator(results_of(classifier=apart, mmd=nearer)) == 0.5
        assert best_generator(results_of(classifier=[(0.9, 0.01), *apart[1:]], mmd=nearer)) == 1.0
        assert best_generator(results_of(elbo=nearer)) is None

    def test_the_compressor_has_the_shortest_code(self):
        found = results_of(elbo=[(-30.0, 1.0), (-28.0, 1.0), (-29.0, 1.0)])
        assert best_compressor(found) == 1.0
        (said,) = headline(found)
        assert "take beta = 1" in said and "28.0 ± 1.0 nats, 4.04 ± 0.14 bits/dim, the least measured" in said

    def test_the_extractor_is_the_cheapest_that_is_as_good_as_the_best(self):
        found = results_of(
            probe=[(0.95, 0.01), (0.96, 0.01), (0.955, 0.01)], active_units=[(9.0, math.nan)] * 2 + [(5.0, math.nan)]
        )
        assert best_extractor(found) == 2.0
        assert "0.955 ± 0.010, from 5 active dimensions" in headline(found)[0]

    def test_a_number_that_is_missing_at_one_weight_is_no_reason_to_be_silent_about_the_others(self):
        found = results_of(probe=[(0.95, 0.01), (0.5, 0.01), (math.nan, math.nan)], active_units=[(1.0, math.nan)] * 3)
        assert best_extractor(found) == 0.5


@pytest.mark.slow
def test_more_weight_buys_less_rate_and_pays_in_distortion(tmp_path):
    begun = trained(start(tmp_path / "lab", "model.hidden=64", "model.latent=8", "train.steps=600", "train.lr=0.004"))
    results = lab.finish(begun, list(lab.measure(begun)))
    rates, distortions = ([e.mean for e in results.over(name)] for name in ("rate", "distortion"))
    assert rates == sorted(rates, reverse=True) and distortions == sorted(distortions)
    assert best_compressor(results) == 1.0
    # without a KL term the codes lie anywhere; with much of it, they lie as the prior has them
    assert results.at("gap", 0.0).mean > 10 > 1 > results.at("gap", 4.0).mean


def test_convolutions_are_trained_one_after_another_on_a_cpu(tmp_path):
    options = ("model.name=conv", "model.channels=4", "model.latent=2", "train.steps=2", "train.warmup=0")
    run = {kind: {} for kind in TABLES} | {"data": {"name": "shapes"}}
    for assignment in ("data.n=60", "data.size=16", "train.batch=8", *options):
        override(run, assignment, recipes.annotation)
    begun = trained(lab.start(run, tmp_path / "lab", weights=(0.5, 1.0)))
    assert begun.finished == ["autoencoder", "beta-0.5", "beta-1"]
    assert begun.notes == [
        "The models are trained one after another: on a CPU, convolutions of several models at once take longer."
    ]


def lab_of(folder, rows, *overrides, labels=None, **more):
    """A laboratory of a few rows, trained for a few steps."""
    arrays = {"x": rows} | ({} if labels is None else {"labels": labels})
    np.savez(folder / "x.npz", **arrays)
    run = tables("train.steps=5", "train.warmup=0", *overrides)
    run["data"] = {"name": "array", "path": str(folder / "x.npz"), "key": "x"}
    if labels is not None:
        run["data"]["labels"] = "labels"
    return lab.start(run, folder / "lab", **({"weights": (0.5, 1.0)} | more))


class TestEveryKindOfModel:
    @pytest.mark.parametrize(
        "overrides",
        [
            ("model.prior=vamp", "model.prior_components=4"),
            ("model.prior=mixture", "model.prior_components=4"),
            ("model.prior=flow",),
            ("model.posterior=full",),
            ("model.posterior=iaf",),
            ("model.latent=1",),
            ("objective.name=wae",),
            ("objective.name=info",),
        ],
        ids=" ".join,
    )
    def test_it_has_its_page(self, tmp_path, overrides):
        begun = trained(lab_of(tmp_path, torch.randn(160, 4).numpy(), *overrides))
        results = lab.finish(begun, list(lab.measure(begun)))
        assert len(begun.finished) == 3 and not begun.failed
        page = Page((tmp_path / "lab" / "lab.html").read_text(encoding="utf-8"))
        assert "Random latents" in page.said and "Rate and distortion" in page.said
        assert results.at("mutual_information", 1.0) is not None

    def test_levels_have_no_path_through_them_and_that_is_all(self, tmp_path):
        rows = torch.randint(0, 4, (160, 5), dtype=torch.uint8).numpy()
        begun = trained(lab_of(tmp_path, rows, "model.family=categorical"))
        results = lab.finish(begun, list(lab.measure(begun)))
        assert results.at("stretch", 1.0) is None and results.at("classifier", 1.0) is not None

    def test_weights_about_the_recipes_own(self, tmp_path):
        begun = lab_of(tmp_path, torch.randn(160, 4).numpy(), "objective.name=wae", weights=None)
        assert begun.plan.weights[4] == 100.0 and begun.plan.weights[0] == 0.0

    def test_weights_that_are_nearly_alike_are_two_models(self, tmp_path):
        begun = lab_of(tmp_path, torch.randn(160, 4).numpy(), weights=(1_000_000.0, 1_000_001.0))
        assert len({member.name for member in begun.plan.members()}) == 3


class TestFailures:
    def test_a_member_that_diverges_leaves_the_others_their_page(self, tmp_path):
        options = ("train.give_up=3", "train.insane=6", "train.clip=0")
        begun = trained(lab_of(tmp_path, torch.randn(160, 4).numpy(), *options, weights=(0.0, 1.0, 1e38)))
        assert list(begun.failed) == ["beta-1e+38"] and begun.finished == ["autoencoder", "beta-0", "beta-1"]
        results = lab.finish(begun, list(lab.measure(begun)))
        page = Page((tmp_path / "lab" / "lab.html").read_text(encoding="utf-8"))
        assert "beta-1e+38 could not be trained: training stopped at step" in page.said
        assert math.isnan(results.over("rate")[2].mean) and results.at("rate", 1.0).mean > 0
        assert list(lab.proceed(lab.resume(tmp_path / "lab"))) == []

    def test_a_damaged_state_is_an_error_and_not_a_new_beginning(self, tmp_path, monkeypatch):
        monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", 0.0)
        stopped(lab_of(tmp_path, torch.randn(160, 4).numpy()), 8, save=False)
        state = tmp_path / "lab" / "together-seed0.safetensors"
        state.write_bytes(state.read_bytes()[:-100])
        with pytest.raises(ValueError, match="is cut short or is no safetensors file"):
            trained(lab.resume(tmp_path / "lab"))
        assert state.is_file()

    def test_a_device_that_is_not_there_is_refused_when_it_is_resumed(self, tmp_path):
        lab_of(tmp_path, torch.randn(160, 4).numpy())
        with pytest.raises(ValueError, match="device 'cuda:9' is not here"):
            lab.resume(tmp_path / "lab", device="cuda:9")


def test_of_a_table_with_holes_a_picture_is_a_row(tmp_path):
    pytest.importorskip("pyarrow")
    rows = [f"{i % 9},{i * 0.37 % 5:.2f},{'abc'[i % 3]},{'' if i % 6 == 0 else i % 2}" for i in range(400)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,d", *rows]) + "\n")
    run = tables("train.steps=8", "train.warmup=0")
    run["data"] = {"name": "table", "path": str(tmp_path / "t.csv"), "target": "c"}
    begun = trained(lab.start(run, tmp_path / "lab", weights=(0.5, 1.0)))
    results = lab.finish(begun, list(lab.measure(begun)))
    assert begun.plan.run["model"]["name"] == "table" and len(begun.finished) == 3
    for name in ("rate", "classifier", "probe", "nearest", "mutual_information"):
        assert results.at(name, 1.0) is not None, results.left_out
    assert results.left_out[0] == "rows with holes: distances and labels are of whole rows only"
