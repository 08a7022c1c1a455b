"""The figures of tables: their errors, masks, imputers and records, where the answer is known."""

import gzip
import re
import sys
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tables import FIGURES, __main__, adbench, breast, hivae, imputers, scale, synthesis, wine
from benchmarks.tables.asked import OURS, Asked, Records, folder
from benchmarks.tables.ours import described, rows, train
from lowerbound.columns import Column

MIXED = (
    Column("size", "real"),
    Column("grade", "ordinal", ("1", "2", "3", "4")),
    Column("colour", "category", ("red", "green", "blue")),
)


def related(n=200, seed=0):
    """Rows whose columns all follow from one number, and the same with a tenth of each column missing."""
    generator = np.random.default_rng(seed)
    level = generator.integers(0, 3, n)
    x = np.stack([level + 0.01 * generator.normal(size=n), level, level], 1).astype(float)
    holed = x.copy()
    for i in range(3):
        holed[i * (n // 10) : (i + 1) * (n // 10), i] = np.nan
    return x, holed


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_can_run(name):
    module = import_module(f"benchmarks.tables.{name}")
    assert callable(module.run)
    assert module.SEEDS >= 1


def test_errors_are_those_of_the_paper():
    truth = np.array([[0.0, 0, 0], [10, 3, 1], [4, 1, 2], [np.nan, 2, 2]])
    filled = np.array([[0.0, 0, 0], [7, 1, 1], [8, 1, 0], [3, 2, 2]])
    hidden = np.array([[False] * 3, [True] * 3, [True] * 3, [False] * 3])
    found = hivae.errors_of(truth, filled, hidden, MIXED)
    numeric, ordinal, categorical = np.sqrt((9 + 16) / 2) / 10, 2 / 2 / 4, 1 / 2
    assert found["numeric"] == pytest.approx(numeric)
    assert found["ordinal"] == pytest.approx(ordinal)
    assert found["categorical"] == pytest.approx(categorical)
    assert found["all"] == pytest.approx((numeric + ordinal + categorical) / 3)


@pytest.mark.parametrize("method", imputers.PEERS)
def test_peers_fill_what_follows_from_the_rest(method):
    x, holed = related()
    filled = imputers.PEERS[method](holed, MIXED, 0)
    known = ~np.isnan(holed)
    assert np.array_equal(filled[known], x[known])
    assert np.isin(filled[:, 1:], [0, 1, 2]).all()
    wrong = hivae.errors_of(x, filled, ~known, MIXED)
    if method == imputers.MEANS:
        assert wrong["categorical"] > 0.4
    else:
        assert wrong["all"] < 0.05


@pytest.mark.parametrize("method", imputers.PEERS)
def test_a_level_that_is_the_only_one_known_is_filled_in(method):
    _, holed = related(40)
    holed[:, 2] = np.where(np.isnan(holed[:, 2]), np.nan, 1)
    assert (imputers.PEERS[method](holed, MIXED, 0)[:, 2] == 1).all()


def test_chained_regressions_are_scikit_learns_on_numbers():
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    generator = np.random.default_rng(0)
    x = generator.normal(size=(150, 2)) @ generator.normal(size=(2, 5)) + 0.3 * generator.normal(size=(150, 5))
    x = np.where(generator.random(x.shape) < 0.2, np.nan, x)
    x = (x - np.nanmean(x, 0)) / np.nanstd(x, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = IterativeImputer(max_iter=imputers.ROUNDS, tol=0).fit_transform(x)
    columns = [Column(f"c{i}", "real") for i in range(5)]
    np.testing.assert_allclose(imputers.chained(x, columns, 0), expected, atol=1e-6)


def test_numbers_stand_for_rows():
    x, holed = related(20)
    wide = imputers.Wide(holed, MIXED)
    assert wide.encode(x).shape == (20, 1 + 1 + 3)
    np.testing.assert_allclose(wide.decode(wide.encode(x)), x)
    assert np.isnan(wide.encode(holed)).any(1).tolist() == np.isnan(holed).any(1).tolist()


def test_masks_count_from_1(tmp_path):
    (tmp_path / "mask.csv").write_text("2,1\n4,3\n9,1\n")
    assert np.argwhere(hivae.mask(tmp_path / "mask.csv", (5, 3))).tolist() == [[1, 0], [3, 2]]


def test_a_set_is_read_with_levels_as_codes(tmp_path):
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(b"-1,0.5,7,0\n4,2.5,1,3\nnan,1.5,7,9\n"))
    (tmp_path / "data_types.csv").write_text("type,dim,nclass\nordinal,3,3\npos,1,\ncat,2,2\ncount,1,")
    x, columns = hivae.read(tmp_path)
    np.testing.assert_array_equal(x, [[0, 0.5, 1, 0], [1, 2.5, 0, 3], [np.nan, 1.5, 1, 9]])
    assert [column.kind for column in columns] == ["ordinal", "positive", "binary", "count"]
    assert columns[0].levels == ("-1", "4")


def test_holes_of_the_published_protocols():
    x = np.random.default_rng(0).normal(size=(50, 5))
    assert np.isnan(breast.holes(x, 1234)).sum() == x.size // 2
    gone = np.isnan(wine.holes(x))
    assert not gone[:, 2:].any()
    np.testing.assert_array_equal(gone[:, :2], x[:, :2] > x[:, :2].mean(0))


def test_records_are_kept_and_what_failed_is_named(tmp_path):
    asked = []

    def measure():
        asked.append(1)
        return {"error": 0.5}

    records = Records.open(tmp_path / "a.jsonl", lambda record: True)
    records.measured(measure, method=OURS, seed=0, settings={"train": {"steps": 4}})
    records.measured(measure, method="means", seed=0)
    assert records.measured(lambda: {"error": 1 / 0}, method="peer", seed=0) is None
    assert records.failed == ["peer 0"]
    again = Records.open(tmp_path / "a.jsonl", __main__.keep(quick=False, again=False))
    assert again.measured(measure, method="means", seed=0)["error"] == 0.5
    assert len(asked) == 2
    again.measured(measure, method=OURS, seed=0, settings={"train": {"steps": 5}})
    assert len(asked) == 3
    anew = Records.open(tmp_path / "a.jsonl", __main__.keep(quick=False, again=True))
    assert [record["key"]["method"] for record in anew.found] == ["means"]
    assert not Records.open(tmp_path / "a.jsonl", __main__.keep(quick=True, again=False)).found


def test_our_model_is_trained_as_the_command_line_trains_it():
    _, holed = related(60)
    looks = []
    overrides = {"model": {"latent": 2}, "train": {"steps": 4, "valid_every": 2}}
    trained = train(rows("related", holed, MIXED), overrides, 7, lambda model, seconds: looks.append(seconds))
    assert trained.steps == 4
    assert trained.run["train"]["seed"] == 7
    assert trained.run["objective"]["name"] == "iwae"
    assert looks == sorted(looks)
    assert len(looks) == 4
    assert described(overrides) == "our settings: model.latent=2 train.steps=4 train.valid_every=2"


def test_all_rows_but_two_are_trained_on():
    _, holed = related(60)
    sizes = {part: len(at) for part, at in rows("related", holed, MIXED).split.items()}
    assert sizes == {"train": 58, "valid": 1, "test": 1}


def task(train, test):
    return synthesis.Task("toy", frozenset({"a"}), "class", train, test)


def test_utility_is_1_where_the_class_follows_and_low_where_a_class_is_lost():
    a = np.tile([0.0, 1.0], 200).tolist()
    real = {"a": a, "b": ["x", "?"] * 200, "class": ["no", "yes"] * 200}
    toy = task(real, real)
    assert synthesis.utility(toy, real, 0) == 1
    assert synthesis.utility(toy, real | {"class": ["no"] * 400}, 0) == pytest.approx((2 / 3) / 2)


def test_cells_become_features():
    train = {"a": [1, 2.5, "?"], "b": ["y", "x", "?"], "class": ["no", "yes", "no"]}
    toy = task(train, train)
    x, y = synthesis.matrix(toy, {"a": ["3", None, 1.0], "b": ["x", "z", None], "class": ["yes", "no", "no"]})
    np.testing.assert_array_equal(x, [[3, 0], [np.nan, np.nan], [1, np.nan]])
    assert y.tolist() == [1, 0, 0]


def test_sooner_needs_two_looks_in_a_row():
    mine = {"looks": [(1.0, 0.8), (2.0, 0.7), (3.0, 0.8), (4.0, 0.9)], "f1": [0.9], "training": 5.0}
    theirs = {"f1": [0.7, 0.75, 0.8], "training": 40.0}
    table = synthesis.sooner({OURS: [mine], synthesis.TVAE: [theirs]}, 3.0, 10.0)
    assert table.rows[1].ratio.median == 10
    assert table.rows[1].verdict == "aim"
    never = synthesis.sooner({OURS: [mine | {"looks": [(1.0, 0.8), (2.0, 0.7)]}], synthesis.TVAE: [theirs]}, 3.0, 10.0)
    assert any(note.startswith("NOT reached") for note in never.notes)


@pytest.mark.parametrize("method", [method for method in adbench.PEERS if method != "PyOD's VAE"])
def test_detectors_find_what_is_far_off(method):
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.normal(size=(200, 3)), generator.normal(6, 1, size=(5, 3))])
    y = np.repeat([0, 1], [200, 5])
    for mode in adbench.MODES:
        fitted, tested, labels = adbench.parts(x, y, mode, 0)
        assert adbench.auroc(labels, adbench.PEERS[method](fitted, tested, 0)) > 0.98


def test_the_parts_of_the_two_settings():
    x, y = np.arange(12.0)[:, None], np.repeat([0, 1], [10, 2])
    fitted, tested, labels = adbench.parts(x, y, "semi-supervised", 0)
    assert len(fitted) == 5
    assert labels.sum() == 2
    assert sorted([*fitted[:, 0], *tested[:, 0]]) == x[:, 0].tolist()
    fitted, tested, _ = adbench.parts(x, y, "unsupervised", 0)
    assert fitted is tested


def test_a_row_is_not_its_own_neighbour():
    x = np.arange(10.0)[:, None]
    unit = x.std()
    np.testing.assert_allclose(adbench.neighbours(x, x, 0)[0] * unit, 5)


def test_the_table_to_read_is_of_20_columns_and_is_read_whole(tmp_path):
    file = tmp_path / "table.parquet"
    scale.write_parquet(file, 500)
    found = scale.read(file, 500)
    assert found["rows"] == 500
    assert scale.part(0, 10).num_columns == 20
    assert 0.05 < found["peak"] < 2


def test_data_that_are_not_there_are_named(monkeypatch):
    monkeypatch.delenv("LOWERBOUND_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set LOWERBOUND_DATA to a folder that holds hivae"):
        folder("hivae")


def test_breast_from_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("benchmarks.machine.limit_threads", lambda threads: 1)
    monkeypatch.setattr(imputers, "PEERS", {imputers.MEANS: imputers.means})
    monkeypatch.setattr(breast, "FIGURE", replace(breast.FIGURE, k=5))
    monkeypatch.setattr(sys, "argv", ["tables", "breast", "--quick", "--out", str(tmp_path / "breast.json")])
    __main__.main()
    assert "standardised MSE" in capsys.readouterr().out
    assert (tmp_path / "breast.json").is_file()
    assert len((tmp_path / "breast.jsonl").read_text().splitlines()) == 2


def test_few_steps_where_it_is_to_be_quick(tmp_path):
    asked = Asked(Records(tmp_path / "none"), quick=True)
    assert asked.overrides({"train": {"steps": 9, "lr": 1.0}})["train"] == {"steps": 40, "valid_every": 20, "lr": 1.0}


def test_the_readme_lists_the_figures():
    text = (Path(__main__.__file__).parents[1] / "README.md").read_text().partition("## Tables")[2]
    assert re.findall(r"^\| (\w+) \| \w", text, flags=re.MULTILINE)[1:] == list(FIGURES)
