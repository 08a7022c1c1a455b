"""`lowerbound lab`: what it prints, what it refuses, and how it goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lowerbound.cli.terminal import out
from lowerbound.run import read

SMALL = ["model.hidden=8", "model.latent=2", "train.steps=12", "train.batch=16", "train.warmup=2"]
QUICK = ["--weights", "0.5,1", *SMALL]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_it_says_what_it_does_and_what_came_of_it(lowerbound, monkeypatch):
    monkeypatch.setattr(out, "_width", 80)
    status, said, wrong = lowerbound("lab", "digits", *QUICK)
    assert (status, wrong) == (0, "")
    assert "mlp at objective.beta = 0.5, 1; a plain autoencoder; folder labs/digits" in said
    assert "train.patience=0  (all weights are trained equally long)" in said
    for word in ("100 %", "rate", "distort.", "autoencoder", "As a generator", "page  labs/digits/lab.html"):
        assert word in said
    table = said[said.index("beta  ") :].splitlines()[:4]
    assert [row.split()[0] for row in table] == ["beta", "0.5", "1", "autoencoder"]
    assert max(map(len, table)) <= 80
    assert Path("labs/digits/lab.html").is_file()
    # every member is a run that the other verbs take
    assert lowerbound("sample", "labs/digits/beta-1", "-n", "4")[0] == 0


def test_json_is_all_there_is(lowerbound):
    status, said, _ = lowerbound("lab", "digits", *QUICK, "--json")
    found = json.loads(said)
    assert status == 0 and found["weights"] == [0.5, 1.0] and set(found["advice"]) == {
        "generator", "compressor", "features"
    }  # fmt: skip
    assert found == json.loads(Path("labs/digits/lab.json").read_text())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["digits", "--weights", "1"], "a laboratory compares, so it takes two weights or more"),
        (["digits", "--weights", "0.5,-2"], "--weights -2: a weight is a finite number of 0 or more"),
        (["digits", "--weights", "0.5,two,x"], "--weights '0.5,two,x': two, x is no number"),
        (["digits", "--weights", ","], "nothing is no number"),
        (["digits", "--weights", "nan,1"], "--weights nan: a weight is a finite number"),
        (["digits", "--seeds", "0"], "--seeds 0 is too small"),
        (["digits", "--vary", "bta"], "has no weight 'bta' (did you mean 'beta'?)"),
        (["digitz"], "is neither a data set (did you mean 'digits'?) nor a path"),
        (["digits", "objective.beta=3"], "is what the laboratory varies"),
        (["digits", "--resume"], "there is no laboratory in labs/digits"),
        (["digits", "--resume", "--seeds", "2"], "a laboratory goes on as it began"),
    ],
)
def test_mistakes_get_one_message_and_leave_nothing(lowerbound, arguments, message):
    status, said, wrong = lowerbound("lab", *arguments)
    assert status == 1 and said == ""
    assert message in wrong and wrong.startswith("error: ") and "Traceback" not in wrong
    assert not Path("labs").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_half_way_loses_nothing(lowerbound, how):
    command = [
        sys.executable,
        "-m",
        "lowerbound.cli",
        "lab",
        "digits",
        "--weights",
        "0.5,1",
        *SMALL,
        "train.steps=3000",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as running:
        for line in running.stdout:
            if "models at once" in line:
                running.send_signal(how)
                break
        _, wrong = running.communicate(timeout=60)
    if how != signal.SIGKILL:
        assert running.returncode == 128 + how
        assert "1 models are finished" in wrong and "lowerbound lab labs/digits --resume" in wrong
    known = json.loads(Path("labs/digits/progress.json").read_text())
    assert known["finished"] == ["autoencoder"]
    status, said, _ = lowerbound("lab", "digits", "--resume")
    assert status == 0 and "trained 3 models" in said
    assert "autoencoder: step" not in said, "what is finished is not trained again"


def test_a_run_as_a_file_is_taken_but_for_what_the_laboratory_sets(lowerbound):
    assert lowerbound("train", "digits", *SMALL, "--k", "2")[0] == 0
    status, said, _ = lowerbound("lab", "runs/digits/run.toml", "--weights", "0.5,1", "--out", "labs/again")
    assert status == 0
    assert "objective.beta of the file is left out: the laboratory sets it" in said
    assert "train.patience of the file is left out" in said
    kept = read(Path("labs/again/beta-0.5/run.toml"))
    assert kept["train"]["patience"] == 0 and kept["train"]["steps"] == 12 and kept["objective"]["beta"] == 0.5
