"""The published numbers: every row runs, small; what is stopped goes on to the bit; and the page says what was kept."""

import math
import sys
from importlib import import_module

import pytest
import torch

import lowerbound as lb
from benchmarks.published import __main__, bound, results
from benchmarks.published.asked import TINY_K, TINY_ROWS, Asked, of_data
from benchmarks.published.rows import ROWS
from lowerbound import run
from lowerbound.experiment import resume
from lowerbound.metrics import Estimate


class Never:
    """A clock whose time is never over."""

    over = False


class Looks:
    """A clock whose time is over at the so-manieth look."""

    def __init__(self, count):
        self.left = count

    @property
    def over(self):
        self.left -= 1
        return self.left <= 0


def asked(name, folder, clock=None, **more):
    return Asked(name, ROWS[name], folder, clock or Never(), smoke=True, **more)


OF_A_BOUND = [name for name, row in ROWS.items() if row.module == "bound"]


@pytest.mark.parametrize("name", OF_A_BOUND)
def test_every_row_runs_small(name, tmp_path):
    found = bound.measure(asked(name, tmp_path / name))
    assert found["steps"] == 6
    assert found["k"] == TINY_K
    assert found["images"] == TINY_ROWS // 10
    nats = [-v for line in bound.lines(tmp_path / name / f"bounds_{TINY_K}.jsonl") for v in line["bound"]]
    of_one = math.log(2) * 3 * 32 * 32 if ROWS[name].unit == "bits/dim" else 1.0
    assert found["value"] == pytest.approx(sum(nats) / len(nats) / of_one)
    assert 0 < found["value"] < found["elbo"]


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.module != "bound"])
def test_rows_of_other_kinds_run_small(name, tmp_path):
    try:
        module = import_module(f"benchmarks.published.{ROWS[name].module}")
    except ModuleNotFoundError:
        pytest.skip(f"benchmarks/published/{ROWS[name].module}.py is not written")
    assert module.measure(asked(name, tmp_path / name))["said"]


@pytest.mark.parametrize("name", OF_A_BOUND)
def test_the_file_of_a_row_asks_for_what_there_is(name, monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.published.asked.of_data", lambda path: path)
    row = ROWS[name]
    tables = Asked(name, row, tmp_path, Never(), seed=3).tables()
    for kind in run.TABLES:
        recipe = import_module("lowerbound.recipes").recipe(kind, tables[kind].get("name", ""))
        run.full(recipe, kind, tables[kind])
    assert tables["train"]["seed"] == 3
    assert row.bar is None or row.bar <= float(row.published.split()[0])


def test_what_is_stopped_at_any_time_goes_on_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(bound, "BLOCK", 3)
    whole = bound.measure(asked("static_vae", tmp_path / "whole"))
    pieces = 0
    while (found := bound.measure(asked("static_vae", tmp_path / "pieces", Looks(2)))) is None:
        pieces += 1
    assert pieces >= 5
    ours, theirs = (resume(tmp_path / way).trainer.state()[0] for way in ("pieces", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert {key: v for key, v in found.items() if "seconds" not in key} == {
        key: v for key, v in whole.items() if "seconds" not in key
    }


def test_a_line_that_was_cut_short_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(bound, "BLOCK", 3)
    small = asked("static_vae", tmp_path / "run")
    first = bound.measure(small)
    file = tmp_path / "run" / f"bounds_{TINY_K}.jsonl"
    file.write_text(file.read_text()[:-20])
    again = bound.measure(small)
    assert again["value"] == first["value"]
    assert len(bound.lines(file)) == 3


def test_the_bound_is_that_of_the_whole_test_set(tmp_path):
    small = asked("fashion_normal", tmp_path / "run")
    found = bound.measure(small)
    trained = bound.train(small.tables(), small.folder, "cpu", Never())
    model = trained.trainer.averaged
    values = lb.evaluate(model, trained.data.fixed("test"), k=TINY_K, seed=0).values
    assert found["value"] == pytest.approx(Estimate.of(-values).mean)
    assert found["standard_error"] == pytest.approx(Estimate.of(values).standard_error)


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path):
    bound.measure(asked("static_vae", tmp_path / "run"))
    other = asked("static_vae", tmp_path / "run", overrides=["train.lr=0.5"])
    with pytest.raises(ValueError, match=r"holds a run with another train\.lr"):
        bound.measure(other)


def test_data_that_are_not_there_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("LOWERBOUND_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"say where it is by data\.path=FILE"):
        of_data(tmp_path / "nothing.npz")
    (tmp_path / "some.npz").write_bytes(b"")
    assert of_data(tmp_path.joinpath("some.npz").relative_to(tmp_path)) == (tmp_path / "some.npz").resolve()


def command(monkeypatch, *words):
    monkeypatch.setattr("benchmarks.machine.limit_threads", lambda threads: 1)
    monkeypatch.setattr(sys, "argv", ["published", *words])
    __main__.main()


def test_from_the_command_line_in_pieces(monkeypatch, tmp_path, capsys):
    words = ["static_vae", "--smoke", "--seed", "1", "--runs", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, *words, "--minutes", "1e-9")
    assert stopped.value.code == __main__.UNFINISHED
    assert "Run the same command again" in capsys.readouterr().err
    command(monkeypatch, *words)
    command(monkeypatch, *words, "train.lr=0.001")
    (record,) = [r for r in results.read("static_vae", tmp_path / "smoke") if not r["overrides"]]
    assert record["seed"] == 1
    assert record["value"] > 0
    assert len(results.read("static_vae", tmp_path / "smoke")) == 2


def kept(seed, value, overrides=(), **more):
    return {
        "seed": seed,
        "overrides": list(overrides),
        "value": value,
        "standard_error": 0.2,
        "elbo": value + 2,
        "k": 5000,
        "passes": 100.0,
        "training_seconds": 10.0,
        "evaluation_seconds": 5.0,
        "machine": "a machine",
        "commit": "abc",
        "uncommitted_changes": False,
    } | more


def test_the_page_says_what_was_kept_and_what_was_not_run(tmp_path):
    for seed, value in enumerate((88.0, 88.2, 88.4, 88.6)):
        results.keep("static_vae", kept(seed, value), tmp_path)
    results.keep("static_vae", kept(3, 88.2), tmp_path)
    results.keep("fashion_vamp", kept(0, 230.0), tmp_path)
    lines = results.page(tmp_path).splitlines()
    of = {name: next(line for line in lines if f"benchmarks.published {name}`" in line) for name in ROWS}
    assert "| 88.20 ± 0.16 (4 seeds) | reached |" in of["static_vae"]
    assert "| 230.00 ± 0.20 | missed |" in of["fashion_vamp"]
    unrun = [name for name in ROWS if "| not run |" in of[name]]
    assert unrun == [name for name in ROWS if name not in ("static_vae", "fashion_vamp")]
    assert sum(line.startswith("| static_vae |") for line in lines) == 4


def test_the_page_in_the_guide_is_that_of_the_measurements():
    assert results.page() in results.PAGE.read_text()


def test_the_page_is_written_in_its_place(tmp_path):
    file = tmp_path / "results.md"
    file.write_text(f"before\n\n{results.BEGIN}\nold\n{results.END}\n\nafter\n")
    tables = results.write(tmp_path, file)
    assert file.read_text() == f"before\n\n{results.BEGIN}\n\n{tables}\n\n{results.END}\n\nafter\n"
    assert results.write(tmp_path, file) == tables
