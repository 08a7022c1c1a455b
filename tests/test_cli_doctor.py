"""`lowerbound doctor`: what it looks at, what it prints where, and what it exits with."""

import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from lowerbound import cli, experiment
from lowerbound.cli import doctor as verb
from lowerbound.doctor import Finding
from lowerbound.run import read

SMALL = ["train.steps=12", "train.batch=16", "train.valid_every=4", "model.hidden=8", "model.latent=2"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def told(monkeypatch):
    """Replaces the examination of a model, which is tested elsewhere: what it is asked is kept, its answer is given."""
    asked = []

    def answer(findings):
        def examine(model, run, log, data=None):
            asked.append((model, run, log, data))
            return findings

        monkeypatch.setattr("lowerbound.doctor.examine", examine)
        return asked

    return answer


def plane(path, n=400, d=8):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n, 3)) @ generator.normal(size=(3, d)) + 0.1 * generator.normal(size=(n, d))
    np.save(path, x)
    return x


def train(folder, what="digits"):
    said = cli.app(["train", str(what), *SMALL, "--out", str(folder), "--k", "2"], result_action="return_value")
    assert said == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "a run")


HEALTHY = Finding("posterior collapse", "healthy", "Both dimensions move.", 2.0, 0.5)
FOUND = Finding(
    "over-regularisation", "finding", "The KL term weighs 100.", 100.0, 4.0, ("objective.beta=1",), "More nats for z."
)
UNKNOWN = Finding("inference gap", "unknown", "There are several latent variables.")
BLIND = Finding("dead units", "unknown", "There are no data.", blind=True)


# data


def test_healthy_data_exit_with_0_and_are_told_in_a_line_each(lowerbound):
    status, said, err = lowerbound("doctor", "digits")
    lines = said.splitlines()
    assert status == 0 and err == ""
    assert lines[0] == "digits: rows of 1x8x8; 1,437 train, 180 valid, 180 test"
    assert lines[1] == "no findings, 15 healthy, 0 unknown"
    assert lines.index("healthy") == 3 and len(lines) == 4 + 15
    starts = {line.index(re.split(r"\s{2,}", line.strip())[1]) for line in lines[4:]}
    assert len(starts) == 1, "the words stand in a column"


def test_a_finding_comes_with_number_threshold_and_the_whole_command(lowerbound):
    status, said, _ = lowerbound("doctor", "digits", "model.latent=512", "train.seed=3")
    lines = said.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("forecast of collapse"))
    assert status == 1 and lines[at] == "forecast of collapse  460 (threshold 256)"
    # what was said already is kept, but for what the remedy replaces
    assert re.fullmatch(r"  lowerbound train digits train\.seed=3 model\.latent=\d+", lines[at + 2])
    assert at < lines.index("healthy")


def test_json_is_one_document(lowerbound):
    plane("table.npy")
    x = np.load("table.npy")
    x[:, 2] = 7
    np.save("table.npy", x)
    status, said, err = lowerbound("doctor", "table.npy", "--json")
    found = json.loads(said, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert status == found["status"] == 1 and err == "" and said.count("\n") == 1
    assert found["of"] == "table.npy" and found["kind"] == "data"
    assert [each["name"] for each in found["findings"] if each["verdict"] == "finding"] == ["constant columns"]
    assert set(found["findings"][0]) == {"name", "verdict", "what", "number", "threshold", "remedy", "effect"}


def test_the_remedy_for_data_heals_them(lowerbound):
    x = plane("table.npy")
    x[:, 2] = 7
    x[300:] = x[:100]
    np.save("table.npy", x)
    names = ["duplicates", "leakage between splits", "constant columns"]
    found = json.loads(lowerbound("doctor", "table.npy", "--json")[1])["findings"]
    ill = {each["name"]: each["remedy"] for each in found if each["verdict"] == "finding"}
    assert set(ill) == set(names)
    for name, file in (("duplicates", "distinct.npy"), ("constant columns", "varying.npy")):
        exec(ill[name][0], {"numpy": np, "x": x})
        x = np.load(file)
    assert x.shape == (300, 7) and lowerbound("doctor", "varying.npy")[0] == 0


def test_a_run_file_is_data_with_its_options(lowerbound, run):
    status, said, _ = lowerbound("doctor", run / "run.toml", "--json")
    found = json.loads(said)
    assert status == 1 and found["kind"] == "data"
    assert next(each for each in found["findings"] if each["name"] == "latent size")["number"] == 2


# runs


@pytest.mark.parametrize(
    "findings, expected",
    [([HEALTHY], 0), ([HEALTHY, UNKNOWN], 0), ([HEALTHY, FOUND, UNKNOWN], 1), ([UNKNOWN], 2), ([HEALTHY, BLIND], 2)],
    ids=["healthy", "healthy as far as one sees", "finding", "unknown", "nothing to see by"],
)
def test_the_exit_status_is_that_of_the_findings(lowerbound, run, told, findings, expected):
    asked = told(findings)
    status, said, err = lowerbound("doctor", run, "--json")
    found = json.loads(said)
    assert status == found["status"] == expected and found["kind"] == "run" and err == ""
    assert found["findings"] == [each.summary() for each in findings]
    (model, tables, log, data), *_ = asked
    assert not model.training and tables["model"]["latent"] == 2 and log[-1]["step"] == 12 and len(data.x) == 1797


@pytest.mark.parametrize("lose", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:999])])
def test_a_run_that_lost_its_weights_says_what_brings_them_back(lowerbound, run, tmp_path, lose):
    shutil.copytree(run, tmp_path / "lost")
    file = tmp_path / "lost" / "model.safetensors"
    before = file.read_bytes()
    lose(file)
    status, said, _ = lowerbound("doctor", "lost", "--json")
    (found,) = json.loads(said)["findings"]
    assert status == 2 and found["name"] == "weights of the run"
    assert "from which lowerbound resume lost writes it anew" in found["what"]
    assert lowerbound("resume", "lost", "--k", "2")[0] == 0 and file.read_bytes() == before


def test_remedies_of_a_run_are_commands_that_train_it_again(lowerbound, run, told, tmp_path):
    remedy = ("lowerbound resume RUN", "train.lr=0.1", "train.seed=1")
    both = Finding("resumed", "finding", "It was cut.", remedy=remedy)
    told([FOUND, both, HEALTHY])
    shutil.copytree(run, "mine")
    train_again = "  lowerbound train mine/run.toml objective.beta=1 --out mine-2"
    lines = lowerbound("doctor", "mine")[1].splitlines()
    assert lines[0] == "mine: mlp on digits" and train_again in lines
    assert "  lowerbound resume mine" in lines
    assert "  lowerbound train mine/run.toml train.lr=0.1 train.seed=1 --out mine-2" in lines
    # a folder that is there is not offered, and names with blanks are quoted
    (tmp_path / "mine-2").mkdir()
    assert train_again.replace("mine-2", "mine-3") in lowerbound("doctor", "mine")[1].splitlines()
    assert f"lowerbound train '{run}/run.toml' objective.beta=1 --out '{run}-2'" in lowerbound("doctor", run)[1]
    # the command is right
    command = train_again.replace("mine-2", "other").split()[1:]
    assert lowerbound(*command, "train.steps=2", "--k", 1)[0] == 0
    assert read(tmp_path / "other" / "run.toml")["objective"]["beta"] == 1


@pytest.mark.parametrize("form", ["folder", "folder without run.toml", "model file", "here"])
def test_a_run_is_known_by_its_files(lowerbound, run, told, form, tmp_path, monkeypatch):
    told([FOUND])
    shutil.copytree(run, "mine")
    what = "mine"
    if form == "folder without run.toml":
        (tmp_path / "mine" / "run.toml").unlink()
    elif form == "model file":
        what = "mine/model.safetensors"
    elif form == "here":
        monkeypatch.chdir("mine")
        what = "."
    status, said, _ = lowerbound("doctor", what)
    assert status == 1 and "mlp on digits" in said
    assert ("train DATA" in said) == (form == "folder without run.toml")


def test_a_run_whose_data_are_gone_or_changed_is_looked_at_without_them(lowerbound, told, tmp_path):
    plane("table.npy")
    train("mine", "table.npy")
    asked = told([HEALTHY])
    assert lowerbound("doctor", "mine")[0] == 0 and asked[-1][3] is not None
    shutil.move("table.npy", "moved.npy")
    status, said, _ = lowerbound("doctor", "mine")
    assert status == 2 and asked[-1][3] is None
    assert re.search(r"could not tell\n  data of the run  .*table\.npy does not exist", said)
    assert lowerbound("doctor", "mine", "data.path=moved.npy")[1].count("data of the run") == 0
    assert asked[-1][3] is not None
    np.save("table.npy", np.load("moved.npy") + 1)
    said = lowerbound("doctor", "mine")[1]
    assert asked[-1][3] is None and "are not those that mine was trained on" in said


def test_where_the_data_are_now_is_said_in_the_commands_too(lowerbound, told):
    plane("table.npy")
    train("mine", "table.npy")
    shutil.move("table.npy", "moved.npy")
    told([FOUND])
    said = lowerbound("doctor", "mine", "data.path=moved.npy")[1]
    command = "lowerbound train mine/run.toml data.path=moved.npy objective.beta=1 --out mine-2"
    assert f"  {command}" in said.splitlines()
    assert lowerbound(*command.split()[1:], "train.steps=2", "--k", 1)[0] == 0


@pytest.mark.parametrize("form", ["labs/x", "labs/x/lab.toml", "."])
def test_a_laboratory_is_not_taken_for_pictures(lowerbound, tmp_path, monkeypatch, form):
    lab = tmp_path / "labs" / "x"
    lab.mkdir(parents=True)
    (lab / "lab.toml").write_text("")
    Image.new("L", (8, 8)).save(lab / "samples.png")
    if form == ".":
        monkeypatch.chdir(lab)
    status, said, err = lowerbound("doctor", form)
    assert status == 1 and said == "" and "none of its runs has begun" in err and "--resume" in err
    for name in ("autoencoder", "beta-0.5", "beta-1"):
        (lab / name).mkdir()
        (lab / name / "run.toml").write_text("")
    err = lowerbound("doctor", form)[2]
    assert "is a laboratory of 3 runs" in err and "There are autoencoder, beta-0.5, beta-1." in err
    assert re.search(r"lowerbound doctor \S*x/beta-1\. ", err)


def test_what_a_run_was_trained_with_cannot_be_said_anew(lowerbound, run):
    status, _, err = lowerbound("doctor", run, "model.latent=3")
    assert status == 1 and "model.latent=3: a run is looked at as it was trained" in err


def test_a_run_is_examined_in_earnest(lowerbound, run):
    status, said, err = lowerbound("doctor", run, "--json")
    found = json.loads(said)
    assert status == found["status"] and err == "" and len(found["findings"]) > 5
    assert {"posterior collapse", "learning rate"} <= {each["name"] for each in found["findings"]}


# what is neither


@pytest.mark.parametrize(
    "what, match",
    [
        ("digts", r"'digts' is neither a data set \(did you mean 'digits'\?\) nor a path"),
        ("no/where", "does not exist"),
        ("empty", "holds no images"),
        ("words.txt", "is not a kind of file that is read"),
        ("lost.toml", "there is no file lost.toml"),
        ("broken", "cannot be read"),
    ],
)
def test_what_is_neither_run_nor_data_gets_one_message(lowerbound, tmp_path, what, match):
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.txt").write_text("words")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nothing")
    status, said, err = lowerbound("doctor", what)
    assert status == 1 and said == "" and err.startswith("error: ") and re.search(match, err)
    assert err.count("\n") == 1


@pytest.mark.parametrize("what", ["digits", "run"])
def test_a_device_that_is_not_there_is_refused(lowerbound, run, what):
    status, _, err = lowerbound("doctor", run if what == "run" else what, "--device", "tpu")
    assert status == 1 and "there is no device 'tpu'" in err


# on a terminal


@pytest.fixture
def terminal(monkeypatch):
    """The console as a terminal of 80 columns."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=80, highlight=False, color_system=None)
    monkeypatch.setattr(verb, "out", screen)
    return screen.file


def test_on_a_terminal_lines_fit_and_commands_can_be_copied(lowerbound, terminal):
    assert lowerbound("doctor", "digits", "model.latent=512", "train.lr=0.00123", "train.weight_decay=0.0123")[0] == 1
    lines = terminal.getvalue().splitlines()
    commands = [line for line in lines if "lowerbound train" in line]
    assert commands and all("model.latent=" in line for line in commands) and max(map(len, commands)) > 80
    assert all(len(line) <= 80 for line in lines if line not in commands)
    # what goes on in a second line goes on in its column
    start = next(line for line in lines if line.startswith("  values and likelihood")).index("Integers")
    healthy = lines[lines.index("healthy".ljust(len(lines[0])).rstrip()) + 1 :]
    assert all(not line[:start].strip() or line[start - 2 : start] == "  " for line in healthy if line.strip())


def test_brackets_in_names_are_no_markup(lowerbound, terminal):
    plane("[red]x[bold].npy")
    lowerbound("doctor", "[red]x[bold].npy")
    assert "[red]x[bold]: rows of 8" in terminal.getvalue()


def test_numbers_are_short():
    assert [verb._short(n) for n in (5120.0, 0.0123456, 1e30, 99.5, 3.0)] == ["5,120", "0.0123", "1e+30", "99.5", "3"]


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; sys.argv = ['lowerbound', 'doctor', '--help']\n"
        "from lowerbound.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "data or weights are gone" in " ".join(done.stdout.split()), done.stderr


def test_a_run_is_not_touched(lowerbound, run, told):
    told([HEALTHY])
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    lowerbound("doctor", run)
    assert before == {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert experiment.read_run(run)["model"]["latent"] == 2
