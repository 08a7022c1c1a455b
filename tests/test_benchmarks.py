"""The benchmark suite: its arithmetic, its contestants that need only PyTorch, and its reports."""

import re
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks.__main__ import guarded, main
from benchmarks.contestants import limit, of_package, ours, plain, transposed
from benchmarks.problem import Problem, bits, pixels
from benchmarks.race import Bar, Contestant, fairness, losses, race
from benchmarks.report import Row, Table, load, save, show
from benchmarks.sections import LONG, SECTIONS, conv, gpu, quality
from benchmarks.settings import Settings
from benchmarks.timing import Spread, interleave

SMALL = Problem(bits(128), 32, hidden=(24, 16), latent=4)
FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_spread_is_the_median_and_quartiles():
    assert Spread.of([5, 1, 4, 2, 3]) == Spread(3, 2, 4)
    assert Spread.of([7.0]) == Spread(7, 7, 7)
    assert Spread.of_ratios([2, 9, 8], [1, 3, 2]) == Spread(3, 2.5, 3.5)


def test_a_ratio_is_taken_within_a_round():
    slow_rounds = [1.0, 10.0, 100.0]
    assert Spread.of_ratios([2 * s for s in slow_rounds], slow_rounds) == Spread(2, 2, 2)


def test_contestants_take_turns_and_warm_up():
    calls = []

    def run_of(name):
        def run():
            calls.append(name)
            return float(len(calls))

        return run

    seconds = interleave({name: run_of(name) for name in "abc"}, rounds=2, warmup=1, pause=0)
    assert "".join(calls) == "abcabcabc"
    assert seconds == {"a": [4, 7], "b": [5, 8], "c": [6, 9]}


def test_flops_of_a_step():
    b, layers = 64, Problem(bits(64), 64).layers()
    assert layers == [(784, 512), (512, 512), (512, 40), (20, 512), (512, 512), (512, 784)]
    flops = sum(product.flops for product in limit.training(b, layers))
    assert flops == 6 * b * sum(i * o for i, o in layers) - 2 * b * 784 * 512


@pytest.mark.parametrize("product", limit.training(8, [(12, 10), (6, 5)]), ids=str)
def test_every_routine_of_the_limit_computes_the_product(product):
    torch.manual_seed(1)
    a, b = product.operands()
    torch.manual_seed(1)
    for name, routine in limit.routines(product).items():
        found = torch.as_tensor(routine())
        torch.testing.assert_close(found.T if "transposed" in name else found, a @ b)


def test_the_limit_runs_all_products():
    assert limit.products(SMALL).run() > 0


TORCH_ONLY = [ours.trainer, ours.again, ours.averaged, plain.resident, plain.loader, plain.pil]


def alike(contestants, passes):
    before = losses(contestants)
    for _ in range(passes):
        assert all(contestant.run() > 0 for contestant in contestants)
    assert max(losses(contestants).values()) < min(before.values()) - 3
    assert not any(note.startswith("NOT") for note in fairness(contestants, before))


def test_contestants_start_alike_train_and_stay_alike():
    contestants = [make(SMALL) for make in TORCH_ONLY]
    assert len({contestant.parameters for contestant in contestants}) == 1
    alike(contestants, 3)


@pytest.mark.parametrize(("package", "names"), [("jax", ["step", "scan"]), ("lightning", ["trainer"])])
def test_contestants_of_other_packages_start_and_stay_alike(package, names):
    pytest.importorskip(package)
    found, notes = of_package(package, names, SMALL)
    assert not notes
    alike([ours.trainer(SMALL), *found], 3)


def test_pythae():
    pytest.importorskip("pythae")
    problem = Problem(bits(256), 64, hidden=(512,), latent=4)
    found, _ = of_package("pythae", ["trainer"], problem)
    alike([ours.trainer(problem), *found], 10)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "benchmarks.contestants.jax", None)
    monkeypatch.delitem(sys.modules, "benchmarks.contestants.jax")
    monkeypatch.setitem(sys.modules, "jax", None)
    found, notes = of_package("jax", ["step"], SMALL)
    assert not found
    assert notes == ["left out: jax, since jax is not installed"]


@pytest.mark.parametrize("shape", conv.CHANNELS)
def test_the_straightforward_convolutions_start_and_stay_alike(shape):
    x, levels = (bits(32), 2) if shape == "28x28x1" else (pixels(32), 256)
    problem = Problem(x, 16, latent=conv.LATENT, levels=levels)
    mine = ours.trainer(problem, model=conv.model(shape, x))
    theirs = transposed.contestant(problem, conv.CHANNELS[shape], conv.FAMILIES[shape])
    for contestant in (mine, theirs):
        assert contestant.run() > 0
    assert theirs.loss() == pytest.approx(mine.loss(), rel=0.1)


def fake(name, seconds, parameters=0, loss=None):
    return Contestant(name, lambda: seconds, parameters, None if loss is None else lambda: loss)


def test_a_race_compares_the_first_with_the_rest():
    contestants = [fake("ours", 1.0, 100, 80.0), fake("theirs", 2.5, 100, 80.5), fake("limit", 0.5)]
    bars = {"theirs": Bar(2, 3), "limit": Bar(0.6, 0.7)}
    table = race("a race", contestants, 1000, 3, bars)
    first, theirs, least = table.rows
    assert (first.value, first.ratio, first.verdict) == (1000, None, "")
    assert (theirs.value, theirs.ratio.median, theirs.verdict) == (400, 2.5, "bar")
    assert (least.ratio.median, least.verdict) == (0.5, "MISSED")
    assert not any(note.startswith("NOT") for note in table.notes)


@pytest.mark.parametrize(("parameters", "before", "after"), [(102, 80.0, 50.0), (100, 90.0, 50.0), (100, 80.0, 70.0)])
def test_what_is_not_the_same_is_said(parameters, before, after):
    contestants = [fake("ours", 1.0, 100, 50.0), fake("theirs", 1.0, parameters, after)]
    notes = fairness(contestants, {"ours": 80.0, "theirs": before})
    assert sum(note.startswith("NOT THE SAME") for note in notes) == 1


@pytest.mark.parametrize(
    ("ratio", "under", "verdict"),
    [(2.9, False, "aim"), (2.0, False, "bar"), (1.9, False, "MISSED"), (1.9, True, "bar"), (2.1, True, "MISSED")],
)
def test_verdicts(ratio, under, verdict):
    assert Row("", ratio=Spread(ratio, 0, 0), bar=2.0, aim=1.0 if under else 2.9, under=under).verdict == verdict


TABLE = Table(
    "a title",
    "samples/s",
    "ours is times as fast",
    (
        Row("ours, of a name that is quite long, and then some, so that it needs a second line", 123_456.0),
        Row("theirs", 0.0123, Spread(1.5, 1.2, 1.75), 1.6, 2.2, seconds=(1.0, 2.0)),
    ),
    ("a note",),
)


def test_json_round_trip(tmp_path):
    file = tmp_path / "deep" / "results.json"
    save(file, {"processor": "a"}, {"quick": True}, {"mlp": [TABLE, TABLE], "conv": []})
    assert load(file) == {"mlp": [TABLE, TABLE], "conv": []}


def test_tables_are_at_most_100_columns_wide():
    console = Console(width=100, record=True)
    show(TABLE, console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 100
    assert any("MISSED" in line for line in lines)


def test_the_readme_lists_the_sections():
    text = (FOLDER / "README.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert listed == list(SECTIONS)
    assert all(f"`{name}`" in text.splitlines()[2] for name in LONG)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_can_run(name):
    assert callable(import_module(f"benchmarks.sections.{name}").run)


def test_an_unknown_section_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "mpl"])
    with pytest.raises(SystemExit):
        main()
    assert "no such section: mpl" in capsys.readouterr().err


def test_an_error_ends_its_section_only():
    def run(settings):
        yield TABLE
        raise ValueError("what went wrong")

    failed = []
    tables = list(guarded("conv", run, Settings(), failed))
    assert tables[0] == TABLE
    assert tables[1].notes[-1] == "ValueError: what went wrong"
    assert failed == ["conv"]


def test_the_gpu_section_needs_a_gpu():
    (table,) = gpu.run(Settings(device="cpu"))
    assert "skipped" in table.notes[0]


def test_the_gpu_section_in_small_on_the_cpu():
    small = gpu.Sizes(128, (64,), 64, 2**12, channels=(8, 8), side=8, conv_batch=8, conv_rows=8)
    tables = list(gpu.everything(Settings(quick=True), small))
    assert [bool(table.rows) for table in tables] == [True] * 5
    assert tables[-1].rows[0].ratio.median > 0


def test_the_clock_of_time_to_quality(monkeypatch):
    monkeypatch.setattr(quality, "TARGET", -1e9)
    monkeypatch.setattr(quality, "K", 5)
    clock = quality.Clock(seconds=3.0)
    clock.look(ours.mlp(SMALL), SMALL.x[:20].float())
    assert clock.reached == 3.0
    slower = quality.Clock(seconds=36.0, looks=[(36.0, -100.0)])
    table = quality.table({"ours": clock, "theirs": slower}, [])
    assert table.rows[1].ratio.median == 12
    assert table.rows[1].what == "theirs (stopped: more than)"


def test_a_smaller_problem_has_fewer_steps():
    assert SMALL.steps == 4
    assert replace(SMALL, batch=64).steps == 2
