"""`score`, and `impute --uncertainty`: every row and cell comes back, and what is broken is named."""

import csv
import json
import random
import shutil
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")


def rows(n, seed=0):
    """Two numbers that move together, a count of their sign, and a level that says it too; some holes."""
    draw = random.Random(seed)
    found = []
    for _ in range(n):
        a = draw.gauss(0, 1)
        row = [f"{50 + 10 * a:.1f}", f"{-3 * a + draw.gauss(0, 0.3):.2f}", "warm" if a > 0 else "cold"]
        found.append(["" if i and draw.random() < 0.1 else cell for i, cell in enumerate(row)])
    return found


def put(name, lines, header=("heat", "ice", "state")):
    with Path(name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])


def get(name):
    with Path(name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a table and a run of it."""
    import sys

    from lowerbound import cli

    home = tmp_path_factory.mktemp("tables")
    put(home / "t.csv", rows(600))
    options = ["train.steps=400", "train.batch=64", "train.lr=5e-3", "model.hidden=32", "model.latent=2"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.chdir(home)
        patch.setattr(sys, "argv", ["lowerbound", "train", "t.csv", *options, "--k", "2"])
        cli.main()
    assert not end.value.code
    return home


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A copy of that folder, which is the current one."""
    home = shutil.copytree(trained, tmp_path / "home")
    run = home / "runs" / "t" / "run.toml"
    run.write_text(run.read_text().replace(str(trained.resolve()), str(home.resolve())))
    monkeypatch.chdir(home)


ODD = [
    ["50.1", "0.2", "warm"],
    ["?", "", ""],
    ["52.0", "-0.5", "lukewarm"],
    ["58.0", "90.0", "warm"],
    ["", "-9", "cold"],
]


@pytest.mark.usefixtures("here")
def test_every_cell_comes_back_with_a_score_and_what_is_broken_is_named(lowerbound):
    put("odd.csv", ODD + rows(60, seed=1))
    status, said, wrong = lowerbound("score", "runs/t", "odd.csv", "--attribution", "--top", "2")
    assert (status, wrong) == (0, ""), wrong
    assert "60 rows of t that the run held out" in said and "65 rows, " in said
    assert "state: 1 value that is none of its levels, taken as missing: 'lukewarm'" in said
    assert all(len(line) <= 80 for line in said.splitlines() if " = " in line) and said.count("ice = ") == 2
    found, given = get("odd-scored.csv"), get("odd.csv")
    assert [{name: row[name] for name in given[0]} for row in found] == given, "as they were, '?' and all"
    assert float(found[1]["score"]) == 0 and found[1]["p_value"] == "1" and found[1]["because"] == ""
    assert found[3]["because"] == "ice" and found[4]["because"] == "ice"
    assert float(found[3]["p_value"]) == pytest.approx(1 / 61) and float(found[0]["p_value"]) > 0.05
    strange = {max(("heat", "ice", "state"), key=lambda name: float(found[3][f"score: {name}"]))}
    assert strange == {"ice"} and found[4]["score: heat"] == ""
    # normal rows are as strange as normal rows are
    assert sum(float(row["p_value"]) <= 0.2 for row in found[5:]) < 25
    # the same alone, and of nothing
    put("none.csv", [["", "", ""]])
    assert lowerbound("score", "runs/t", "none.csv", "--attribution")[0] == 0
    assert set(get("none-scored.csv")[0].values()) == {"", "0", "1"}
    put("one.csv", ODD[3:4])
    assert lowerbound("score", "runs/t", "one.csv")[0] == 0
    assert float(get("one-scored.csv")[0]["score"]) == pytest.approx(float(found[3]["score"]), rel=1e-5)


@pytest.mark.usefixtures("here")
def test_what_scores_are_compared_with(lowerbound):
    put("odd.csv", ODD)
    put("normal.csv", rows(99, seed=2))
    status, said, _ = lowerbound(
        "score", "runs/t", "odd.csv", "--against", "normal.csv", "--json", "--out", "o.parquet"
    )
    told = json.loads(said)
    assert status == 0 and told["rows"] == 5 and told["reference"] == 99 and told["out"] == "o.parquet"
    assert told["strangest"][0]["row"] == 4 and told["strangest"][0]["p_value"] == pytest.approx(0.01)
    assert (
        told["strangest"][0]["because"][0]["column"] == "ice" and told["strangest"][0]["because"][0]["value"] == "90.0"
    )
    # a model file alone
    shutil.copy("runs/t/model.safetensors", "m.safetensors")
    status, said, wrong = lowerbound("score", "m.safetensors", "odd.csv")
    assert (status, wrong) == (0, ""), wrong
    assert "1,000 rows drawn from the model itself, because there is no run in m.safetensors" in said
    assert get("odd-scored.csv")[3]["because"] == "ice"
    # a table that changed, and one that is gone
    put("t.csv", rows(500))
    assert (
        "drawn from the model itself, because the data 't' are not those" in lowerbound("score", "runs/t", "odd.csv")[1]
    )
    Path("t.csv").unlink()
    said = lowerbound("score", "runs/t", "odd.csv")[1]
    assert "drawn from the model itself, because " in said and "t.csv is not there" in said


@pytest.mark.usefixtures("here")
def test_columns_that_are_there_already_keep_their_names(lowerbound):
    put("odd.csv", [[*row, "7"] for row in ODD], ("heat", "ice", "state", "score"))
    assert lowerbound("score", "runs/t", "odd.csv")[0] == 0
    found = get("odd-scored.csv")
    assert [row["score"] for row in found] == ["7"] * 5 and float(found[1]["score 2"]) == 0


@pytest.mark.usefixtures("here")
def test_uncertainty_stands_beside_what_was_filled_and_nowhere_else(lowerbound):
    put("holes.csv", [["40.0", "3.1", ""], ["", "-0.1", "warm"], ["", "", "lukewarm"], ["50.0", "0.1", "cold"]])
    status, _, wrong = lowerbound("impute", "runs/t", "holes.csv", "--uncertainty", "--k", "200", "--out", "full.csv")
    assert (status, wrong) == (0, ""), wrong
    found = get("full.csv")
    beside = [f"{name}{more}" for name in ("heat", "ice", "state") for more in ("", " (uncertainty)")]
    assert list(found[0]) == beside
    filled = [[row[f"{name} (uncertainty)"] != "" for name in ("heat", "ice", "state")] for row in found]
    assert filled == [[False, False, True], [True, False, False], [True, True, False], [False] * 3]
    assert found[2]["state"] == "lukewarm"
    assert 0 <= float(found[0]["state (uncertainty)"]) < 0.5
    assert 0 < float(found[1]["heat (uncertainty)"]) < float(found[2]["heat (uncertainty)"]), (
        "the ice tells of the heat"
    )
    status, _, wrong = lowerbound("impute", "runs/t", "holes.csv", "--uncertainty", "--draws", "2")
    assert status == 1 and "leave one of them out" in wrong


@pytest.mark.parametrize(
    ("lines", "header", "said"),
    [
        ([], ("heat", "ice", "state"), "no rows"),
        ([["1.0", "2.0"]], ("heat", "ice"), "lacks 1 of the 3 columns that were learnt: 'state'"),
        (
            [["1.0", "2.0", "warm"], ["1.0", "much", "warm"]],
            ("heat", "ice", "state"),
            "row 2, column 'ice': 'much' is no",
        ),
        ([["inf", "2.0", "warm"]], ("heat", "ice", "state"), "row 1, column 'heat': 'inf' is no finite number"),
        ([["-5", "2.0", "warm"]], ("heat", "ice", "state"), "'heat' is positive, but row 1 has -5"),
    ],
)
@pytest.mark.usefixtures("here")
def test_tables_that_cannot_be_scored_are_refused(lowerbound, lines, header, said):
    put("odd.csv", lines, header)
    status, _, wrong = lowerbound("score", "runs/t", "odd.csv")
    assert status == 1 and said in wrong.replace("\n", " ")
    assert not Path("odd-scored.csv").exists()


@pytest.mark.usefixtures("here")
def test_other_mistakes_are_refused(lowerbound):
    put("odd.csv", ODD)
    for options, said in (
        (["--out", "x.docx"], "give --out a name that ends in .csv, .tsv"),
        (["--against", "nothing.csv"], "nothing.csv"),
        (["--k", "0"], "--k 0 is too small"),
        (["--top", "-1"], "--top -1 is too small"),
    ):
        status, _, wrong = lowerbound("score", "runs/t", "odd.csv", *options)
        assert status == 1 and said in wrong


@pytest.mark.usefixtures("here")
def test_a_run_keeps_its_columns_however_they_would_be_inferred_later(lowerbound, monkeypatch):
    def infer(*_):
        raise AssertionError("inferred anew")

    monkeypatch.setattr("lowerbound.data.tables.schema.infer", infer)
    status, said, wrong = lowerbound("evaluate", "runs/t", "--bound-only", "--k", "5")
    assert (status, wrong) == (0, "") and "60 rows of the test split" in said
    with pytest.raises(AssertionError, match="inferred anew"):
        lowerbound("train", "t.csv", "--out", "new")


@pytest.mark.usefixtures("here")
def test_impute_gives_back_the_table_with_its_holes_filled_and_nothing_else_changed(lowerbound):
    lines = [
        ["cold", "12345.678900", "r1", "?", "a, b"],
        ["lukewarm", "0012.5", "?", "1e2", ""],
        ["", "", "r3", "-0.10", "x"],
        [" warm ", "NA", "r4", "0.1000", "NA"],
    ]
    names = ("state", "heat", "name", "ice", "note")
    lines[1][1] = "12.50"
    put("holes.csv", lines, names)
    status, said, wrong = lowerbound("impute", "runs/t", "holes.csv", "--k", "50")
    assert (status, wrong) == (0, "")
    assert (
        "holes.csv: ignored, as not learnt: name, note" in said
        and "4 rows, holes in them: 4, of these filled: 4" in said
    )
    found = [list(row.values()) for row in get("holes-filled.csv")]
    assert [list(row) for row in get("holes-filled.csv")] == [list(names)] * 4
    holes = {(0, 3), (2, 0), (2, 1), (3, 1)}
    for i, (row, now) in enumerate(zip(lines, found, strict=True)):
        for j, cell in enumerate(row):
            assert (now[j] != cell) if (i, j) in holes else (now[j] == cell), (i, j, now[j])
    assert found[2][0] in ("warm", "cold") and all(float(found[i][j]) for i, j in holes - {(2, 0)})
    # typed where a file has types, beside a level that no type can hold
    assert lowerbound("impute", "runs/t", "holes.csv", "--k", "50", "--out", "full.parquet")[0] == 0
    import pyarrow.parquet as pq

    full = pq.read_table("full.parquet")
    assert full["heat"].to_pylist()[:2] == [12345.6789, 12.5] and full["state"].to_pylist()[1] == "lukewarm"


@pytest.mark.usefixtures("here")
def test_tables_are_read_as_the_schema_of_the_run_says(lowerbound):
    Path("schema.toml").write_text('delimiter = "~"\n')
    Path("w.csv").write_text("\n".join("~".join(row) for row in [("heat", "ice", "state"), *rows(60)]))
    options = ["data.schema=schema.toml", "train.steps=5", "--out", "w"]
    assert lowerbound("train", "w.csv", *options)[0] == 0
    Path("holes.csv").write_text("heat~ice~state\n50.0~~warm\n")
    assert f'schema = "{Path("schema.toml").resolve()}"' in Path("w/run.toml").read_text()
    status, said, wrong = lowerbound("impute", "w", "holes.csv", "--k", "5")
    assert (status, wrong) == (0, "") and "1 row, holes in them: 1, of these filled: 1" in said
    assert lowerbound("encode", "w", "holes.csv", "--out", "z.csv")[0] == 0
    # without the schema the file is read as others are
    Path("schema.toml").unlink()
    status, _, wrong = lowerbound("impute", "w", "holes.csv", "--k", "5")
    assert status == 1 and "lacks 3 of the 3 columns" in wrong
