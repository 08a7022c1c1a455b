"""The command line: every verb does what it says, and every mistake gets one message and leaves nothing."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lowerbound import checkpoint, cli, experiment
from lowerbound.cli.terminal import out
from lowerbound.run import TABLES, read

SMALL = ["train.steps=12", "train.batch=16", "train.valid_every=4", "model.hidden=8", "model.latent=2"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(folder, *arguments):
    """A run made by the command itself, in this process."""
    said = cli.app(
        ["train", "digits", *SMALL, *arguments, "--out", str(folder), "--k", "2"], result_action="return_value"
    )
    assert said == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A plain autoencoder."""
    return trained(tmp_path_factory.mktemp("runs") / "plain", "model.posterior=point")


def document(text):
    """The one JSON document that a text is, in strict JSON."""

    def no(constant):
        raise AssertionError(f"{constant} is not JSON")

    assert text.count("\n") == 1
    return json.loads(text, parse_constant=no)


# what works


def test_training_says_what_it_does_and_leaves_a_run(lowerbound, tmp_path):
    status, said, err = lowerbound("train", "digits", *SMALL, "--k", 2)
    assert status == 0 and err == ""
    lines = said.splitlines()
    assert lines[0] == "data   digits: rows of 1x8x8; 1,437 train, 180 valid, 180 test"
    assert re.fullmatch(r"model  mlp, [\d,]+ parameters; folder runs/digits", lines[1])
    assert "  model.family=logistic_mixture  (x is one of the 17 integers 0..16)" in lines
    steps = [line for line in lines if line.startswith("step ")]
    assert len(steps) == 3 and re.fullmatch(
        r"step 4/12 bound -\d+\.\d valid -\d+\.\d rate \d+\.\d dist \d+\.\d [\d.]+k?/s \d:\d\d left", steps[0]
    )
    assert "on the 180 rows of the test split, importance-weighted with 2 samples each:" in lines
    assert re.search(r"^log p\(x\) >= -\d+\.\d+ ± \d+\.\d+ nats = \d\.\d+ ± \d\.\d+ bits/dim$", said, re.MULTILINE)
    assert lines[-1] == "report  runs/digits/report.html"
    for name in ("run.toml", "model.safetensors", "state.safetensors", "log.jsonl", "report.html", "evaluation.json"):
        assert (tmp_path / "runs/digits" / name).stat().st_size > 0
    assert max(map(len, lines)) <= 120


def test_a_run_file_trains_the_same_run_again_and_takes_overrides(lowerbound, run, tmp_path):
    assert lowerbound("train", run / "run.toml", "--out", "again", "--k", 2)[0] == 0
    for name in ("log.jsonl", "model.safetensors", "run.toml", "evaluation.json"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()
    assert lowerbound("train", run / "run.toml", "model.latent=3", "train.seed=1", "--out", "other", "--k", 2)[0] == 0
    other = read(tmp_path / "other" / "run.toml")
    assert other["model"]["latent"] == 3 and other["train"]["seed"] == 1 and other["model"]["hidden"] == [8]


def test_names_among_the_overrides_do_not_undo_the_others(lowerbound):
    more = ["objective.k=3", "objective.name=iwae", "model.channels=4", "model.latent=3", "model.name=conv"]
    assert lowerbound("train", "digits", "train.steps=2", *more, "--out", "r", "--k", 1)[0] == 0
    found = read(Path("r/run.toml"))
    assert found["objective"] == {"name": "iwae", "k": 3}
    assert found["model"]["name"] == "conv" and found["model"]["channels"] == [4] and found["model"]["latent"] == 3


@pytest.mark.parametrize("verb", ["train", "resume", "evaluate", "list", "options"])
def test_json_is_one_document_and_nothing_else(verb, lowerbound, run):
    arguments = {
        "train": ["train", "digits", *SMALL, "--out", "r", "--k", 2],
        "resume": ["resume", run, "--k", 2],
        "evaluate": ["evaluate", run, "--k", 2],
        "list": ["list"],
        "options": ["options", "conv"],
    }[verb]
    status, said, err = lowerbound(*arguments, "--json")
    assert status == 0 and err == ""
    found = document(said)
    if verb in ("train", "resume", "evaluate"):
        assert found["is_bound"] is True and found["split"] == "test" and found["k"] == 2 and found["n"] == 180
        assert found["bound"]["mean"] < 0 < found["bound"]["standard_error"]
    if verb == "options":
        known = {option["option"]: option for option in found["options"]}
        assert known["model.channels"]["default"] == [32, 64, 64] and known["model.latent"]["meaning"]


def test_evaluation_can_be_narrowed(lowerbound, run):
    said = lowerbound("evaluate", run, "--k", 3, "--rows", 7, "--split", "valid")[1]
    assert "on 7 of the 180 rows of the valid split, importance-weighted with 3 samples each:" in said
    both = [lowerbound("evaluate", run, "--k", 3, "--seed", 4)[1] for _ in range(2)]
    assert both[0] == both[1] != lowerbound("evaluate", run, "--k", 3, "--seed", 5)[1]


def test_posteriors_can_be_refined(lowerbound, run, plain):
    status, said, wrong = lowerbound("evaluate", run, "--k", 20, "--refine", 5, "--rows", 10)
    assert (status, wrong) == (0, "")
    lines = said.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("refined posteriors, 5 steps"))
    assert lines[at + 1].split() == ["log", "p(x)", ">=", "ELBO"]
    for line, name in zip(lines[at + 2 :], ("the encoder's", "refined", "difference"), strict=False):
        assert line.startswith(name) and line.count("±") == 2
    found = json.loads(lowerbound("evaluate", run, "--k", 20, "--refine", 5, "--rows", 10, "--json")[1])["refinement"]
    gain = found["refined_elbo"]["mean"] - found["amortised_elbo"]["mean"]
    assert found["elbo_gain"]["mean"] == pytest.approx(gain) and gain > 0 and found["steps"] == 5
    assert "refinement" not in json.loads(lowerbound("evaluate", run, "--k", 2, "--json")[1])
    assert "the posterior is a point" in lowerbound("evaluate", plain, "--refine", 5)[2]


def test_a_plain_autoencoder_has_no_bound_and_no_number_is_called_one(lowerbound, plain):
    status, said, _ = lowerbound("evaluate", plain, "--k", 2)
    assert status == 0 and "no bound" in said and "log p(x) >=" not in said and "bits/dim" not in said
    found = document(lowerbound("evaluate", plain, "--k", 2, "--json")[1])
    assert found["is_bound"] is False and found["bound"]["mean"] is None and found["bits_per_dim"] is None
    assert found["distortion"]["mean"] > 0


SHAPES = {
    "sample": {"x": (20, 1, 8, 8)},
    "reconstruct": {"x": (20, 1, 8, 8), "reconstruction": (20, 1, 8, 8)},
    "interpolate": {"x": (20, 5, 1, 8, 8)},
    "traverse": {"x": (2, 5, 1, 8, 8), "dims": (2,), "values": (2, 5)},
    "decode": {"x": (180, 1, 8, 8)},
    "encode": {"z0": (180, 2), "labels": (180,)},
}


def arguments_of(verb, run, lowerbound):
    if verb == "decode":
        lowerbound("encode", run, "--out", "z.npz")
        return [verb, run, "z.npz"]
    more = {"sample": ["-n", 20], "reconstruct": ["-n", 20], "interpolate": ["-n", 20, "--steps", 5],
            "traverse": ["--steps", 5]}  # fmt: skip
    return [verb, run, *more.get(verb, [])]


@pytest.mark.parametrize("verb", list(SHAPES))
def test_arrays_are_written_by_name_as_npz_and_parquet(verb, lowerbound, run):
    import pyarrow.parquet as parquet

    arguments = arguments_of(verb, run, lowerbound)
    status, said, err = lowerbound(*arguments, "--out", "new/folder/a.npz")
    assert status == 0 and err == "" and said.endswith("wrote new/folder/a.npz\n")
    with np.load("new/folder/a.npz", allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    assert {name: array.shape for name, array in arrays.items()} == SHAPES[verb]
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert lowerbound(*arguments, "--out", "a.parquet")[0] == 0
    table = parquet.read_table("a.parquet")
    for name, array in arrays.items():
        columns = [c for c in table.column_names if c == name or re.fullmatch(rf"{name}_\d+", c)]
        again = np.stack([table[c].to_numpy() for c in columns], 1)
        np.testing.assert_array_equal(again, array.reshape(len(array), -1))


@pytest.mark.parametrize(
    "verb, columns, rows",
    [("sample", 16, 2), ("reconstruct", 16, 2), ("interpolate", 5, 20), ("traverse", 5, 2), ("decode", 16, 12)],
)
def test_pictures_are_grids_of_what_was_asked_for(verb, columns, rows, lowerbound, run):
    assert lowerbound(*arguments_of(verb, run, lowerbound), "--out", "a.png")[0] == 0
    with Image.open("a.png") as picture:
        picture.load()
        width, height = picture.size
    # tiles are square, with thin lines between: the ratio of the sides tells the grid
    assert width / height == pytest.approx(columns / rows, rel=0.1)


def test_pictures_and_arrays_have_a_place_in_the_run(lowerbound, run):
    assert lowerbound("sample", run)[1] == f"wrote {run}/samples.png\n"
    assert lowerbound("encode", run)[1] == f"wrote {run}/latents.npz\n"
    assert lowerbound("decode", run, run / "latents.npz")[1] == f"wrote {run}/decoded.png\n"


def test_draws_repeat_with_their_seed(lowerbound, run):
    def sampled(*more):
        assert lowerbound("sample", run, "-n", 5, "--out", "s.npz", *more)[0] == 0
        return np.load("s.npz")["x"]

    assert (sampled() == sampled()).all() and (sampled() != sampled("--seed", 1)).any()
    drawn = sampled("--draw")
    assert (drawn == drawn.round()).all() and drawn.min() >= 0 and drawn.max() <= 16


def test_decoding_what_was_encoded_reconstructs(lowerbound, run):
    lowerbound("encode", run, "--out", "z.npz")
    lowerbound("decode", run, "z.npz", "--out", "x.npz")
    model, _ = checkpoint.load_model(run)
    with torch.inference_mode():
        mean = model.generate(180, z=[torch.from_numpy(np.load("z.npz")["z0"])]).mean
    np.testing.assert_allclose(np.load("x.npz")["x"], mean, rtol=1e-4, atol=1e-4)


def test_dimensions_to_traverse_can_be_chosen(lowerbound, run):
    status, said, _ = lowerbound("traverse", run, "--dims", 1, 0, "--row", 3, "--out", "t.npz")
    assert status == 0 and said.startswith("dimensions, top to bottom: 1, 0\n")
    assert np.load("t.npz")["dims"].tolist() == [1, 0]


@pytest.mark.parametrize(
    "name", ["mlp", "conv", "elbo", "free_bits", "iwae", "reconstruction", "train", "digits", "folder"]
)
def test_options_are_explained(name, lowerbound):
    status, said, err = lowerbound("options", name)
    assert status == 0 and err == "" and "event" not in said
    for line in said.splitlines()[2:]:
        assert re.match(r"(data|model|objective|train)\.\w+(=\S+)?  \w|    \S", line), line


def test_a_terminal_of_80_columns_is_enough(monkeypatch, lowerbound):
    monkeypatch.setenv("COLUMNS", "80")
    for verb in ("train", "resume", "evaluate", "sample", "reconstruct", "interpolate", "traverse", "encode", "decode",
                 "list", "options"):  # fmt: skip
        status, said, _ = lowerbound(verb, "--help")
        assert status == 0 and max(map(len, said.splitlines())) <= 80
    assert max(map(len, lowerbound("list")[1].splitlines())) <= 80
    monkeypatch.setattr(out, "soft_wrap", False)
    monkeypatch.setattr(type(out), "is_terminal", True)
    assert max(map(len, re.sub(r"\x1b\[[\d;]*m", "", lowerbound("options", "conv")[1]).splitlines())) <= 80


# how it stops


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 7, 12, "evaluation"])
def test_a_signal_saves_and_says_how_to_go_on(number, at, lowerbound, run, monkeypatch, tmp_path):
    proceed, evaluate = experiment.proceed, experiment.evaluate

    def interrupted(begun):
        for step in proceed(begun):
            if step.number == at:
                signal.raise_signal(number)
            yield step

    def interrupted_evaluation(*arguments, **more):
        signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "proceed", interrupted)
        if at == "evaluation":
            patch.setattr(experiment, "evaluate", interrupted_evaluation)
        status, said, err = lowerbound("train", "digits", *SMALL, "--out", "a folder", "--k", 2)
    assert status == 128 + number and "log p(x)" not in said
    what = "stopped while evaluating; the training is done and saved. Evaluate and report with:"
    if at != "evaluation":
        what = f"stopped at step {at} of 12; everything is saved. Go on with:"
    assert err.splitlines() == [what, "lowerbound resume 'a folder'"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if at == 7:
        assert lowerbound("evaluate", "a folder", "--k", 2)[0] == 0
    status, said, err = lowerbound("resume", "a folder", "--k", 2)
    first = "going on from step" if at in (1, 7) else "training ended at step 12: evaluating"
    assert status == 0 and err == "" and said.startswith(first)
    for name in ("log.jsonl", "model.safetensors", "run.toml", "evaluation.json"):
        assert (tmp_path / "a folder" / name).read_bytes() == (run / name).read_bytes()
    assert experiment.evaluate is evaluate


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_as_if_nothing_had_been(lowerbound, run, tmp_path):
    driver = (
        "import os, sys, torch; torch.set_num_threads(1)\n"
        "from lowerbound import experiment, cli\n"
        "experiment.SECONDS_BETWEEN_SAVES = 0.001\n"
        "real = experiment.proceed\n"
        "def proceed(begun):\n"
        "    for step in real(begun):\n"
        "        if step.number == 8: os.kill(os.getpid(), 9)\n"
        "        yield step\n"
        "experiment.proceed = proceed\n"
        f"sys.argv = ['lowerbound', 'train', 'digits', *{SMALL}, '--out', 'killed']\n"
        "cli.main()\n"
    )
    assert (
        subprocess.run([sys.executable, "-c", driver], capture_output=True, timeout=120).returncode == -signal.SIGKILL
    )
    assert lowerbound("evaluate", "killed", "--k", 2)[0] == 0
    assert lowerbound("resume", "killed", "--k", 2)[0] == 0
    for name in ("log.jsonl", "model.safetensors", "run.toml", "evaluation.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (run / name).read_bytes()


def test_a_full_disk_is_said_with_what_to_do(lowerbound, monkeypatch, run, tmp_path):
    real, count = checkpoint.write, [0]

    def full_disk(path, content):
        count[0] += path.name == "state.safetensors"
        if count[0] == 3:
            raise OSError(errno.ENOSPC, f"could not write {path}: No space left on device")
        real(path, content)

    monkeypatch.setattr(experiment, "SECONDS_BETWEEN_SAVES", 0)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", full_disk)
        status, _, err = lowerbound("train", "digits", *SMALL, "--out", "r", "--k", 2)
    assert status == 1 and err.startswith(
        "error: could not write r/state.safetensors: No space left on device. Make room"
    )
    assert err.rstrip().endswith("lowerbound resume r")
    assert lowerbound("resume", "r", "--k", 2)[0] == 0
    assert (tmp_path / "r" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m lowerbound.cli list | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout == "data\n" and done.stderr == ""


def test_an_interruption_before_training_is_quiet(lowerbound, monkeypatch):
    monkeypatch.setattr(experiment, "start", lambda *a, **k: signal.raise_signal(signal.SIGINT))
    # a job that a shell started in the background ignores the signal, and so would this test
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert lowerbound("train", "digits") == (130, "", "")
    finally:
        signal.signal(signal.SIGINT, before)


# what cannot work: each is one message, and nothing is left


def make_folder(name):
    Path(name).mkdir(parents=True)


def image(name, size=(8, 8), seed=0):
    rows = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype("uint8")
    Image.fromarray(rows).save(name)


def folder(name, count=12):
    make_folder(name)
    for i in range(count):
        image(f"{name}/{i:02}.png", seed=i)
    return name


def array(x, name="rows.npy"):
    np.save(name, x)
    return name


def corrupt():
    folder("photos")
    os.truncate("photos/03.png", 60)
    return "photos"


def mixed():
    image(f"{folder('photos')}/large.png", (9, 9))
    return "photos"


def pickled():
    np.savez("rows.npz", x=np.array([[1, None]] * 9, dtype=object))
    return "rows.npz"


def text(content, name="run.toml"):
    Path(name).write_text(content)
    return name


def hole(value):
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[7, 2] = value
    return array(x)


def reals():
    return array(np.random.default_rng(0).normal(size=(40, 3)) - 3)


BAD = {
    "no such name": (lambda: "digit", [], r"'digit' is neither a data set \(did you mean 'digits'\?\) nor a path"),
    "no such path": (lambda: "no/where", [], "no/where does not exist. Check the path"),
    "no such run file": (lambda: "x.toml", [], "there is no file x.toml: give a run as TOML"),
    "empty folder": (lambda: make_folder("photos") or "photos", [], "photos holds no images. What is read: .png"),
    "empty folder with markup": (lambda: make_folder("[red]") or "[red]", [], r"\[red\] holds no images"),
    "one image": (lambda: image("a.png") or "a.png", [], "a.png is one image, and learning takes many"),
    "corrupt image": (corrupt, [], r"1 of 12 images cannot be read:\n  03.png: .*\n.*data.skip_bad=true"),
    "mixed sizes": (mixed, [], "13 images have 2 sizes, 8-9 high and 8-9 wide; .* data.size=64"),
    "a run": (lambda: make_folder("r") or (text("", "r/run.toml") and "r"), [], "r is a run: go on with it"),
    "NaN": (lambda: hole(np.nan), [], r"1 of 120 values are NaN or infinite, the first in row 7 at \(2,\)"),
    "infinity": (lambda: hole(-np.inf), [], r"1 of 120 values are NaN or infinite, the first in row 7 at \(2,\)"),
    "constant": (lambda: array(np.full((9, 3), 2.0)), [], "all 27 values are 2, so there is nothing to learn"),
    "one row": (lambda: array(np.ones((1, 3))), [], "1 row cannot be divided into .* at least 3 rows"),
    "two images": (lambda: folder("p", 2), [], "2 rows cannot be divided into .* at least 3 rows"),
    "pickle": (pickled, [], "array 'x' holds Python objects, which only pickle can read"),
    "a table": (lambda: text("1,2", "a.csv"), [], "a.csv has no column to model"),
    "something else": (lambda: text("", "a.docx"), [], "a.docx is not a kind of file that is read"),
    "too few for a batch": (reals, ["train.batch=33"], r"train.batch=33 is more than the 32 rows there are"),
    "bits": (lambda: "digits", ["model.family=bernoulli"], r"explain digits: it takes 0 and 1, but row \d+ has \d+"),
    "units": (reals, ["model.family=continuous_bernoulli"], r"cannot explain rows.npy: it takes numbers from 0 to 1"),
    "levels": (reals, ["model.family=categorical"], r"takes the integers 0 to 255, but row \d+ has -\d.* at position"),
    "levels of a mixture": (reals, ["model.family=logistic_mixture"], "takes the integers 0 to 255"),
    "conv of vectors": (reals, ["model.name=conv"], r"recipe 'conv' is for images, .* Use model.name=mlp"),
    "TOML": (lambda: text("x =="), [], "run.toml is not valid TOML: "),
    "a table of a run": (lambda: text("[modle]\nlatent=3"), [], r"holds 'modle' \(did you mean 'model'\?\), but a run"),
    "no table of a run": (lambda: text("data = 3"), [], r"holds data=3, but a run is made of the tables"),
    "a key of a run": (lambda: text("[data]\nname='digits'\n[model]\nlatnt=3"), [], r"'latnt' \(did you mean 'latent'"),
    "a run without data": (lambda: text("[model]\nlatent=3"), [], "the table 'data' names no recipe: give data.name"),
}  # fmt: skip
WRONG = {
    "latent=3": "is no override: write table.key=value, such as model.latent=64",
    "model.latent": "is no override: write table.key=value",
    "=": "is no override",
    "modle.latent=3": r"there is no table 'modle' \(did you mean 'model'\?\)",
    "model.latnt=3": r"model 'mlp' cannot be built: it has no option 'latnt' \(did you mean 'latent'",
    "model.scäle=ü": r"no option 'scäle' \(did you mean 'scale'\?\)",
    "model.[red]=1": r"no option '\[red\]'",
    "model.name=cnov": r"there is no model 'cnov' \(did you mean 'conv'\?\). There are: mlp, conv",
    "objective.name=elb": r"there is no objective 'elb' \(did you mean 'elbo'\?\)",
    "train.name=fast": "train cannot be built: it has no option 'name'",
    "data.size=8": "data 'digits' cannot be built: it has no option 'size'",
    "model.family=bernouli": r"should be one of 'bernoulli', .* \(did you mean 'bernoulli'\?\)",
    "model.latent=many": "latent='many' should be a whole number",
    "model.latent=3.5": "latent=3.5 should be a whole number",
    "model.latent=true": "latent=True should be a whole number",
    "model.latent=": "latent='' should be a whole number",
    "model.latent=0": "latent=0 must be 1 or more",
    "model.latent=-3": "latent=-3 must be 1 or more",
    "model.hidden=8,0": r"hidden=\[8, 0\] must hold numbers of 1 or more",
    "model.dropout=1.5": r"dropout=1.5 must be in \[0, 1\)",
    "model.components=0": "components=0 must be 1 or more",
    "model.levels=1": "levels=1 must be 2 or more",
    "model.prior_components=0": "prior_components=0 must be 1 or more",
    "model.scale=-1": "scale=-1.0 must be 'element', 'shared' or a positive number",
    "model.scale=large": "scale='large' must be 'element', 'shared' or a positive number",
    "model.event=3": "leave model.event out, the data say it",
    "objective.k=0": "k=0: an objective takes 1 sample of z or more",
    "objective.beta=-1": "beta=-1.0 must be 0 or more, and finite",
    "objective.beta=inf": "beta=inf must be 0 or more, and finite",
    "objective.warmup=13": "the objective's schedule ends at step 13, training at step 12",
    "objective.cycles=0": "cycles=0 must be 1 or more",
    "train.batch=0": "batch=0 must be 1 or more",
    "train.steps=-1": "steps=-1 must be 1 or more",
    "train.steps=[1]": r"steps=\[1\] should be a whole number",
    "train.lr=nan": "lr=nan should be a number",
    "train.lr=0": "lr=0.0 must be positive",
    "train.ema=1": r"ema=1.0 must be in \[0, 1\)",
}


def one_message(status, said, err):
    """A mistake is a status, one message and nothing else."""
    assert status == 1 and said == "" and err.startswith("error: ") and err.count("error: ") == 1
    assert "Traceback" not in err and "Warning" not in err
    return err


@pytest.mark.parametrize("name", list(BAD))
def test_what_cannot_be_trained_on_is_said_and_nothing_is_left(name, lowerbound, tmp_path):
    make, more, match = BAD[name]
    what = make()
    before = sorted(tmp_path.rglob("*"))
    assert re.search(match, one_message(*lowerbound("train", what, *more, "--out", "out/run")))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("override", list(WRONG))
def test_what_cannot_be_set_is_said_and_nothing_is_left(override, lowerbound, tmp_path):
    said = one_message(*lowerbound("train", "digits", "train.steps=12", override, "--out", "out/run"))
    assert re.search(WRONG[override], said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "override, match",
    [("model.channels=8,8,8,8", r"would halve images of 8x8 4 times: give 1 to 3 widths"),
     ("model.channels=[]", r"give 1 to 3 widths"), ("model.channels=0", "must hold numbers of 1 or more"),
     ("model.blocks=-1", "blocks=-1 must be 0 or more"), ("model.hidden=8", "model 'conv' .* has no option 'hidden'")],
)  # fmt: skip
def test_what_a_convolution_cannot_be_is_said(override, match, lowerbound, tmp_path):
    said = one_message(*lowerbound("train", "digits", override, "model.name=conv", "--out", "r"))
    assert re.search(match, said) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, match",
    [(["--k", 0], "--k 0 is too small: give 1 or more"), (["--device", "gpu"], "no device 'gpu': give cpu, cuda"),
     (["--out", "file"], "file is a file; a run is kept in a folder"), (["--out", "file/x"], "file is a file"),
     (["--out", "mine"], r"mine is not empty, and holds no run \(thesis.txt is there\)"),
     (["--out", "mine", "--force"], r"mine is not empty, and holds no run \(thesis.txt is there\)")],
)  # fmt: skip
def test_where_and_how_a_run_cannot_be_is_said(arguments, match, lowerbound, tmp_path):
    text("x", "file")
    make_folder("mine")
    text("years", "mine/thesis.txt")
    assert re.search(match, one_message(*lowerbound("train", "digits", *SMALL, *arguments)))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine", "thesis.txt"]
    assert (tmp_path / "mine/thesis.txt").read_text() == "years"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("verb", ["train", "resume", "evaluate", "sample"])
def test_a_gpu_that_is_not_there_is_said(verb, lowerbound, run, tmp_path):
    arguments = ["train", "digits", "--out", "r"] if verb == "train" else [verb, run]
    said = one_message(*lowerbound(*arguments, "--device", "cuda"))
    assert "device 'cuda' is not here" in said and list(tmp_path.iterdir()) == []


def test_a_corrupt_image_can_be_left_out(lowerbound):
    corrupt()
    status, said, err = lowerbound("train", "photos", "data.skip_bad=true", "train.steps=2", "model.hidden=8", "--k", 2)
    assert status == 0 and err == "" and "skipped 1 images that cannot be read" in said


def test_markup_and_blanks_in_names_are_only_characters(lowerbound, tmp_path):
    folder("[red]my photos")
    status, said, _ = lowerbound(
        "train", "[red]my photos", "train.steps=2", "model.hidden=8", "--out", "[bold]r [/]", "--k", 2
    )
    assert status == 0 and "[red]my photos: rows of 3x8x8" in said and "folder [bold]r [/]" in said
    assert said.endswith("report  [bold]r [/]/report.html\n")
    assert lowerbound("sample", "[bold]r [/]", "--out", "[i]a.png")[1] == "wrote [i]a.png\n"
    assert "holds a run already" in lowerbound("train", "[red]my photos", "--out", "[bold]r [/]")[2]


def test_a_run_that_exists_is_replaced_only_by_force(lowerbound, run, tmp_path):
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    said = one_message(*lowerbound("train", "digits", *SMALL, "--out", run))
    assert "holds a run already: go on with it (lowerbound resume" in said and "--force" in said
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    assert lowerbound("train", "digits", *SMALL, "--out", "r", "--k", 2)[0] == 0
    assert lowerbound("train", "digits", *SMALL, "model.latent=3", "--out", "r", "--k", 2, "--force")[0] == 0
    assert read(tmp_path / "r/run.toml")["model"]["latent"] == 3


@pytest.mark.parametrize("verb", ["resume", "evaluate", "sample", "reconstruct", "interpolate", "traverse", "encode"])
def test_a_run_that_is_not_there_is_said(verb, lowerbound, tmp_path):
    assert "there is no run in digits: it has no run.toml" in one_message(*lowerbound(verb, "digits"))
    make_folder("runs/digits")
    text("", "runs/digits/run.toml")
    assert "there is no run in digits (did you mean runs/digits?)" in one_message(*lowerbound(verb, "digits"))


def copied(run, to):
    make_folder(to)
    for path in run.iterdir():
        if path.is_file():
            (Path(to) / path.name).write_bytes(path.read_bytes())
    return Path(to)


@pytest.mark.parametrize(
    "name, change, match",
    [
        ("model.safetensors", lambda b: b[:999], "model.safetensors cannot be read: it is cut short"),
        ("model.safetensors", lambda b: b.replace(b'"format":"1"', b'"format":"9"'), "Upgrade: pip install --upgrade"),
        ("model.safetensors", lambda b: b.replace(b'"format":"1"', b'"format":"x"'), "its metadata is damaged"),
        ("split.safetensors", lambda b: b[:-1], "split.safetensors cannot be read: it is cut short"),
        ("run.toml", lambda b: b[:9], "run.toml is not valid TOML|run.toml has no table"),
        ("run.toml", lambda b: b.replace(b"split_seed = 0", b"split_seed = 1"), "are not those that .* was trained on"),
        (
            "run.toml",
            lambda b: b.replace(b'"digits"', b'"dgits"'),
            r"there is no data 'dgits' \(did you mean 'digits'\?\)",
        ),
    ],
)
def test_a_damaged_run_is_said(name, change, match, lowerbound, run):
    broken = copied(run, "r")
    content = change((broken / name).read_bytes())
    assert content != (broken / name).read_bytes()
    (broken / name).write_bytes(content)
    for verb in ("evaluate", "reconstruct"):
        assert re.search(match, one_message(*lowerbound(verb, broken)))
    if name != "model.safetensors":
        assert re.search(match, one_message(*lowerbound("resume", broken)))


def test_the_model_file_alone_samples_and_decodes(lowerbound, run, tmp_path):
    model = tmp_path / "alone.safetensors"
    model.write_bytes((run / "model.safetensors").read_bytes())
    assert lowerbound("sample", model, "-n", 3, "--out", tmp_path / "x.npz")[0] == 0
    with np.load(tmp_path / "x.npz") as found:
        assert found["x"].shape == (3, 1, 8, 8)
    assert lowerbound("encode", run, "--out", tmp_path / "z.npz")[0] == 0
    assert lowerbound("decode", model, tmp_path / "z.npz")[0] == 0
    assert (tmp_path / "decoded.png").is_file()


def test_leftovers_are_harmless_and_a_run_can_move(lowerbound, run):
    moved = copied(run, "elsewhere/moved")
    (moved / ".model.safetensors.a1b2").write_bytes(b"half")
    (moved / ".log.jsonl.a1b2").write_bytes(b"")
    (moved / "log.jsonl").write_bytes((moved / "log.jsonl").read_bytes()[:-20])
    assert lowerbound("evaluate", moved, "--k", 2)[1] == lowerbound("evaluate", run, "--k", 2)[1]
    assert lowerbound("resume", moved, "--k", 2)[0] == 0


@pytest.mark.parametrize(
    "arguments, match",
    [
        (["evaluate", "--k", 0], "--k 0 is too small"),
        (["evaluate", "--rows", -1], "--rows -1 is too small: give 0 or more"),
        (["evaluate", "--seed", -1], "--seed -1 is too small"),
        (["evaluate", "--split", "tset"], r"there is no split 'tset' \(did you mean 'test'\?\): train, valid, test"),
        (["sample", "-n", 0], "--count 0 is too small: give 1 or more"),
        (["sample", "-n", 10**12], "1,000,000,000,000 rows are .* ask for 16,777,216 rows or fewer"),
        (["sample", "--seed", -1], "--seed -1 is too small"),
        (["sample", "--out", "new/a.jpg"], r"cannot write new/a.jpg: give --out a name that ends in .png, .npz"),
        (["sample", "--out", "[red]"], r"cannot write \[red\]: give --out"),
        (["sample", "--out", "file/a.png"], "file: "),
        (["encode", "--out", "a.png"], "cannot write a.png: give --out a name that ends in .npz, .csv"),
        (["reconstruct", "-n", -1], "--count -1 is too small"),
        (["interpolate", "--steps", 1], "--steps 1 is too small: give 2 or more"),
        (["interpolate", "--split", "all"], "there is no split 'all'"),
        (["traverse", "--row", 180], "there is no row 180 in the test split: it has rows 0 to 179"),
        (["traverse", "--row", -1], "there is no row -1"),
        (["traverse", "--dims", 0, 2, 7], "no latent dimension 2, 7: .* has dimensions 0 to 1"),
        (["traverse", "--dims", -1], "there is no latent dimension -1"),
        (["options"], "there is no recipe 'RUN'"),
    ],
    ids=lambda a: " ".join(map(str, a)) if isinstance(a, list) else "",
)  # fmt: skip
def test_what_a_verb_cannot_do_is_said(arguments, match, lowerbound, run, tmp_path):
    text("", "file")
    verb, *more = arguments
    what = "RUN" if verb == "options" else run
    assert re.search(match, one_message(*lowerbound(verb, what, *more)))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def other_member():
    with zipfile.ZipFile("z.npz", "w") as archive:
        archive.writestr("z0.npy", "nonsense")


LATENTS = {
    "no file": (lambda: None, "there is no file z.npz"),
    "no npz": (lambda: text("x", "z.npz"), "z.npz cannot be read as an .npz of plain numbers"),
    "cut": (lambda: np.savez("z.npz", z0=np.zeros((3, 2))) or os.truncate("z.npz", 90), "cannot be read as an .npz"),
    "nonsense": (other_member, "cannot be read as an .npz|holds no latent|must hold rows"),
    "pickle": (lambda: np.savez("z.npz", z0=np.array([None])), "cannot be read as an .npz of plain numbers"),
    "no z0": (lambda: np.savez("z.npz", z=np.zeros((3, 2))), "holds no latent variables: it needs an array z0"),
    "shape": (lambda: np.savez("z.npz", z0=np.zeros((3, 5))), r"its rows have shape \(5,\), and those of the latent"),
    "one too many": (lambda: np.savez("z.npz", z0=np.zeros((3, 2)), z1=np.zeros((3, 2))), "does not fit the model"),
    "unequal": (lambda: np.savez("z.npz", z0=np.zeros((3, 2)), z1=np.zeros((2, 2))), "3 in z0, 2 in z1"),
    "no rows": (lambda: np.savez("z.npz", z0=np.zeros((0, 2))), "it must hold rows of finite numbers"),
    "a number": (lambda: np.savez("z.npz", z0=np.zeros(())), "it must hold rows of finite numbers"),
    "text": (lambda: np.savez("z.npz", z0=np.array([["a", "b"]])), "it must hold rows of finite numbers"),
    "NaN": (lambda: np.savez("z.npz", z0=np.full((3, 2), np.nan)), "it must hold rows of finite numbers"),
}


@pytest.mark.parametrize("name", list(LATENTS))
def test_what_cannot_be_decoded_is_said(name, lowerbound, run, tmp_path):
    make, match = LATENTS[name]
    make()
    assert re.search(match, one_message(*lowerbound("decode", run, "z.npz", "--out", "x.png")))
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("arguments", [["trian", "digits"], ["train"], ["train", "digits", "--bogus"], ["list", "x"],
                                       ["evaluate", "r", "--k", "many"]], ids=" ".join)  # fmt: skip
def test_a_command_that_is_none_is_said(arguments, lowerbound):
    status, said, err = lowerbound(*arguments)
    assert status not in (0, None) and said == "" and "Error" in err and "Traceback" not in err


def test_a_mistake_can_be_looked_into(lowerbound, monkeypatch):
    monkeypatch.setenv("LOWERBOUND_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["lowerbound", "evaluate", "nowhere"])
    with pytest.raises(FileNotFoundError, match="there is no run in nowhere"):
        cli.main()


def test_tables_of_a_run_are_those_of_the_design():
    assert TABLES == ("data", "model", "objective", "train")
