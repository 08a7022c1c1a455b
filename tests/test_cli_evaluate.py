"""`lowerbound evaluate` of a table: columns and synthetic rows, beside what a perfect model would get."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

OPTIONS = ["train.steps=20", "train.batch=16", "model.hidden=8", "model.latent=2", "--k", "2"]
NAMES = ["age", "[b]colour[/b]", "size", "sold"]


def write(path, n, seed=0):
    generator = np.random.default_rng(seed)
    lines = [",".join(NAMES)]
    for _ in range(n):
        age = generator.integers(18, 80)
        colour = "red" if age + generator.normal(0, 10) > 45 else "blue"
        size = "" if generator.random() < 0.1 else f"{age / 3 + generator.normal():.1f}"
        lines.append(f"{age},{colour},{size},{'yes' if generator.random() < age / 90 else 'no'}")
    Path(path).write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a small table, trained once."""
    from lowerbound import cli

    folder, before = tmp_path_factory.mktemp("evaluate"), Path.cwd()
    os.chdir(folder)
    try:
        write("t.csv", 300)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["lowerbound", "train", "t.csv", *OPTIONS])
            with pytest.raises(SystemExit) as end:
                cli.main()
        assert end.value.code == 0
    finally:
        os.chdir(before)
    return folder / "runs" / "t"


def test_it_says_it_by_column_and_beside_real_rows(lowerbound, run):
    status, said, wrong = lowerbound("evaluate", run, "--k", 5, "--target", "sold")
    assert (status, wrong) == (0, ""), wrong
    lines = said.splitlines()
    assert "log p(x) >=" in said and "columns, on the 30 rows of the test split" in said
    at = next(i for i, line in enumerate(lines) if line.split() == ["column", "nats", "filled", "guess", "off", "real"])
    assert [line.split()[0] for line in lines[at + 1 : at + 5]] == NAMES
    assert "%" in lines[at + 2] and "%" not in lines[at + 3] and all(len(line) <= 80 for line in lines[at : at + 5])
    table = lines[next(i for i, line in enumerate(lines) if line.split() == ["synthetic", "perfect"]) :]
    assert all(len(line) <= 80 for line in table[:12])
    for what in (
        "associations of pairs",
        "told from held-out rows",
        "sold predicted, mean F1",
        "copies of training rows",
    ):
        assert sum(what in line for line in table) == 1
    assert "trained on 240 rows each, tested on 30 held-out ones" in said


def test_json_has_all_of_it(lowerbound, run):
    status, said, wrong = lowerbound("evaluate", run, "--k", 5, "--json", "--seed", 3)
    assert (status, wrong) == (0, "") and said.count("\n") == 1
    found = json.loads(said)
    table = found["table"]
    assert found["n"] == table["rows"] == 30 and table["utility"] is None
    assert [column["name"] for column in table["columns"]] == NAMES
    for column in table["columns"]:
        assert column["nats"]["mean"] < 0 and 0 <= column["distance"]["synthetic"]["mean"] <= 1
        assert column["imputation"]["guess"]["mean"] > 0
    assert set(table["privacy"]) >= {"nearer", "copies", "by_rows", "by_bound"}
    assert json.loads(lowerbound("evaluate", run, "--k", 5, "--json", "--seed", 3)[1]) == found
    only = json.loads(lowerbound("evaluate", run, "--k", 5, "--json", "--seed", 3, "--bound-only")[1])
    assert only == found | {"table": None}


def test_what_cannot_be_asked_is_said(lowerbound, run, tmp_path, monkeypatch):
    said = lowerbound("evaluate", run, "--k", 2, "--bound-only")[1]
    assert "synthetic" not in said and "log p(x) >=" in said
    said = lowerbound("evaluate", run, "--k", 2, "--split", "train")[1]
    assert "held against rows that were not trained on. Ask for --split test" in said
    status, _, wrong = lowerbound("evaluate", run, "--k", 2, "--target", "slod")
    assert status == 1 and "--target slod: there is no such column (did you mean 'sold'?)" in " ".join(wrong.split())
    monkeypatch.chdir(tmp_path)
    write("few.csv", 40)
    assert lowerbound("train", "few.csv", *OPTIONS)[0] == 0
    status, said, _ = lowerbound("evaluate", "runs/few", "--k", 2)
    assert status == 0 and "4 rows are too few to hold them against. It takes 10 held-out rows" in said


def test_the_target_of_the_data_is_predicted_unasked_and_a_point_has_no_nats(lowerbound, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("t.csv", 200)
    assert lowerbound("train", "t.csv", "data.target=sold", "model.posterior=point", *OPTIONS)[0] == 0
    status, said, wrong = lowerbound("evaluate", "runs/t", "--k", 2)
    assert (status, wrong) == (0, ""), wrong
    assert "no bound" in said and "sold predicted, accuracy" in said
    assert "nats: added" not in said and "told by the bound" not in said
    assert "Synthetic rows" in Path("runs/t/report.html").read_text()
