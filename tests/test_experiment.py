"""Runs: whatever stops one, and whenever, going on gives the same bytes; what is damaged or changed is said so."""

import errno
import json
import os
import signal

import numpy as np
import pytest
import torch

from lowerbound import checkpoint, experiment, recipes
from lowerbound.run import TABLES, override, read, write
from lowerbound.train import log

OPTIONS = [
    "model.name=mlp",
    "model.hidden=8",
    "model.latent=2",
    "model.prior=vamp",
    "model.prior_components=3",
    "train.steps=30",
    "train.batch=16",
    "train.valid_every=6",
    "train.warmup=5",
]
SAME = ("log.jsonl", "model.safetensors", "run.toml", "evaluation.json")


def tables(*overrides, data="digits"):
    run = {kind: {} for kind in TABLES} | {"data": {"name": data}}
    for assignment in (*OPTIONS, *overrides):
        override(run, assignment, recipes.annotation)
    return run


def start(folder, *overrides, **more):
    return experiment.start(tables(*overrides), folder, **more)


def complete(begun):
    for _ in experiment.proceed(begun):
        pass
    return experiment.finish(begun, k=2)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in SAME}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    complete(start(folder))
    return folder


@pytest.fixture
def pictures():
    """Asks for the real report."""


@pytest.fixture(autouse=True)
def without_pictures(request, monkeypatch):
    """Drawing the report takes longer than all the rest of a small run: most tests do without."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("lowerbound.report.write", lambda path, **parts: checkpoint.write(path, "a report"))


@pytest.fixture
def often(monkeypatch):
    """Saves at nearly every step."""
    monkeypatch.setattr(experiment, "SECONDS_BETWEEN_SAVES", 0.002)


def killed(work):
    """Do it in a process of its own, which kills itself without a chance to clean up."""
    if (child := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(77)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dying(name, count, at):
    """`checkpoint.write`, dying at the count-th time that a file of this name is written."""
    real, left = checkpoint.write, [count]

    def write_or_die(path, content):
        left[0] -= path.name == name
        last = path.name == name and left[0] == 0
        if last and at == "during":
            (path.parent / f".{path.name}.x1y2").write_bytes(bytes(content[:50]) if isinstance(content, bytes) else b"")
        if last and at != "after":
            die()
        real(path, content)
        if last:
            die()

    return write_or_die


def test_the_same_tables_give_the_same_bytes(whole, tmp_path):
    complete(experiment.start(read(whole / "run.toml"), tmp_path / "again"))
    assert contents(tmp_path / "again") == contents(whole)


def test_saving_often_changes_nothing(whole, tmp_path, often):
    complete(start(tmp_path / "often"))
    assert contents(tmp_path / "often") == contents(whole)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("step", [1, 7, 18, 29, 30])
def test_a_run_killed_at_any_step_goes_on_to_the_same_bytes(step, whole, tmp_path, often):
    folder = tmp_path / "run"

    def work():
        for found in experiment.proceed(start(folder)):
            if found.number == step:
                die()

    assert killed(work) == signal.SIGKILL
    checkpoint.load_model(folder)  # a kill leaves a model
    taken_up = experiment.resume(folder)
    assert taken_up.trainer.step <= step
    complete(taken_up)
    assert contents(folder) == contents(whole)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    "name, count, at",
    [
        ("state.safetensors", 3, "before"),
        ("state.safetensors", 3, "during"),
        ("state.safetensors", 3, "after"),  # the model is older than the state
        ("model.safetensors", 3, "during"),
        ("evaluation.json", 1, "before"),
        ("evaluation.json", 1, "after"),
        ("report.html", 1, "before"),
    ],
)
def test_a_run_killed_while_it_writes_goes_on_to_the_same_bytes(name, count, at, whole, tmp_path, often, monkeypatch):
    folder = tmp_path / "run"

    def work():
        monkeypatch.setattr(checkpoint, "write", dying(name, count, at))
        complete(start(folder))

    assert killed(work) == signal.SIGKILL
    checkpoint.load_model(folder)
    complete(experiment.resume(folder))
    assert contents(folder) == contents(whole)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("name, at", [(n, at) for n in ("split.safetensors", "state.safetensors", "model.safetensors",
                                                        "run.toml") for at in ("during", "after")])  # fmt: skip
def test_a_run_killed_before_it_began_is_none_or_a_whole_one(name, at, whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def work():
        monkeypatch.setattr(checkpoint, "write", dying(name, 1, at))
        start(folder)

    assert killed(work) == signal.SIGKILL
    if (name, at) == ("run.toml", "after"):
        complete(experiment.resume(folder))
    else:
        with pytest.raises(FileNotFoundError, match="there is no run in"):
            experiment.resume(folder)
        complete(start(folder))  # and what is left is in nobody's way
    assert contents(folder) == contents(whole)


def test_a_run_may_be_left_and_taken_up_many_times(whole, tmp_path):
    folder, begun = tmp_path / "run", start(tmp_path / "run")
    for leave_after in (1, 5, 3, 10):
        for count, _ in enumerate(experiment.proceed(begun), 1):
            if count == leave_after:
                break
        experiment.save(begun)
        begun = experiment.resume(folder)
    complete(begun)
    assert contents(folder) == contents(whole)


def test_a_finished_run_is_evaluated_again_and_not_trained(whole, pictures):
    before = contents(whole)
    (whole / "evaluation.json").unlink()
    (whole / "report.html").unlink()
    again = experiment.resume(whole)
    assert list(experiment.proceed(again)) == []
    experiment.finish(again, k=2)
    assert contents(whole) == before and (whole / "report.html").stat().st_size > 10_000


def test_a_run_that_stopped_early_stays_stopped(tmp_path):
    stop = ("train.patience=1", "train.lr=5", "train.valid_every=1", "train.ema=0", "train.clip=0")
    begun = start(tmp_path / "run", *stop)
    steps = [step.number for step in experiment.proceed(begun)]
    assert len(steps) < 30
    experiment.finish(begun, k=2)
    before = contents(tmp_path / "run")
    again = experiment.resume(tmp_path / "run")
    complete(again)
    assert again.trainer.step == len(steps) and contents(tmp_path / "run") == before


def test_what_the_data_chose_is_told_after_going_on_too(tmp_path, pictures):
    begun = start(tmp_path / "run")
    assert begun.choices and experiment.resume(tmp_path / "run").choices == begun.choices
    complete(begun)
    assert str(begun.choices[0]).split("  ")[0] in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name, count", [("state.safetensors", 3), ("model.safetensors", 3), ("evaluation.json", 1)])
def test_a_full_disk_costs_what_came_after_the_last_save_only(name, count, whole, tmp_path, often, monkeypatch):
    folder, real, left = tmp_path / "run", checkpoint.write, [count]

    def full_disk(path, content):
        left[0] -= path.name == name
        if path.name == name and left[0] <= 0:
            raise OSError(errno.ENOSPC, f"could not write {path}: No space left on device")
        real(path, content)

    monkeypatch.setattr(checkpoint, "write", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        complete(start(folder))
    monkeypatch.setattr(checkpoint, "write", real)
    checkpoint.load_model(folder)
    complete(experiment.resume(folder))
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize("name", ["split.safetensors", "state.safetensors", "model.safetensors", "run.toml"])
@pytest.mark.parametrize("folder", ["run", "a/b/run"])
def test_a_run_that_cannot_be_begun_leaves_nothing(name, folder, tmp_path, monkeypatch):
    real = checkpoint.write

    def full_disk(path, content):
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, content)

    monkeypatch.setattr(checkpoint, "write", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        start(tmp_path / folder)
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_folder_is_kept(whole, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    for force in (False, True):
        with pytest.raises(FileExistsError, match=r"is not empty, and holds no run \(thesis.txt is there\)"):
            start(tmp_path / "mine", force=force)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="is a file; a run is kept in a folder"):
        start(tmp_path / "file", force=True)
    with pytest.raises(PermissionError, match=r"file is a file. Choose another with --out"):
        start(tmp_path / "file" / "run")
    before = contents(whole)
    with pytest.raises(FileExistsError, match=r"holds a run already: go on with it \(lowerbound resume .*--force"):
        start(whole)
    assert contents(whole) == before


def test_force_replaces_a_run_and_nothing_beside_it(tmp_path):
    folder = tmp_path / "run"
    complete(start(folder))
    (folder / "notes.txt").write_text("mine")
    begun = start(folder, "model.latent=3", force=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "log.jsonl").exists() and not (folder / "report.html").exists()
    assert begun.run["model"]["latent"] == 3 and experiment.resume(folder).trainer.step == 0


def array_run(tmp_path, x, *overrides):
    np.save(tmp_path / "rows.npy", x)
    run = tables("train.batch=4", "train.steps=4", *overrides, data="array")
    run["data"] = {"name": "array", "path": str(tmp_path / "rows.npy")}
    return experiment.start(run, tmp_path / "run")


def test_data_that_changed_are_refused(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    begun = array_run(tmp_path, x)
    experiment.resume(tmp_path / "run")
    x[3, 1] += 1e-3
    np.save(tmp_path / "rows.npy", x)
    with pytest.raises(ValueError, match=r"the data 'rows' are not those that .*run was trained on \(fingerprint"):
        experiment.resume(tmp_path / "run")
    with pytest.raises(ValueError, match="something was added, removed or changed"):
        experiment.check_unchanged(tmp_path / "run", experiment.load_data(begun.run))


def test_a_run_is_found_with_its_data_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.random.default_rng(0).normal(size=(40, 3)))
    run = tables("train.batch=4", "train.steps=2", data="array")
    run["data"] = {"name": "array", "path": "rows.npy"}
    complete(experiment.start(run, tmp_path / "run"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").rename(tmp_path / "elsewhere" / "moved")
    monkeypatch.chdir("/")
    moved = experiment.resume(tmp_path / "elsewhere" / "moved")
    assert (moved.trainer.step, len(moved.data.x)) == (2, 40)
    complete(moved)
    assert (tmp_path / "elsewhere" / "moved" / "evaluation.json").is_file()


def damaged(whole, folder, name, change):
    folder.mkdir()
    for file in (*SAME, "state.safetensors", "split.safetensors"):
        (folder / file).write_bytes((whole / file).read_bytes())
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    return folder


@pytest.mark.parametrize(
    "name, change, match",
    [
        ("state.safetensors", lambda b: b[: len(b) // 2], "state.safetensors cannot be read: it is cut short"),
        ("state.safetensors", lambda b: b"", "state.safetensors cannot be read"),
        ("split.safetensors", lambda b: b[:-3], "split.safetensors cannot be read: it is cut short"),
        ("run.toml", lambda b: b[: b.index(b"[train]") + 3], "run.toml is not valid TOML"),
        ("run.toml", lambda b: b[: b.index(b"[train]")], "run.toml has no table 'train': it was cut short"),
        ("run.toml", lambda b: b[: b.rindex(b"seed")], r"run.toml lacks train.seed, with which the run began"),
        ("run.toml", lambda b: b"", "run.toml has no table 'data' and no 'model' and no 'objective' and no 'train'"),
        ("run.toml", lambda b: b"\xff" + b, "run.toml is not valid TOML"),
    ],
)
def test_damaged_files_are_named(name, change, match, whole, tmp_path):
    folder = damaged(whole, tmp_path / "run", name, change)
    with pytest.raises(ValueError, match=match):
        experiment.resume(folder)


def test_a_damaged_model_is_written_anew_by_going_on(whole, tmp_path):
    folder = damaged(whole, tmp_path / "run", "model.safetensors", lambda b: b[:100])
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read"):
        checkpoint.load_model(folder)
    again = experiment.resume(folder)
    experiment.save(again)
    assert contents(folder)["model.safetensors"] == contents(whole)["model.safetensors"]


@pytest.mark.parametrize("tail", [b'{"step": 31', b"\xff\xfe\n", b"[1]\n", b'{"loss": 3}\n', b"\n\n", b"null\n"])
def test_a_log_with_a_broken_end_is_read_up_to_it(tail, whole, tmp_path):
    folder = damaged(whole, tmp_path / "run", "log.jsonl", lambda b: b + tail)
    assert len(log.read(folder)) == 30
    experiment.resume(folder)
    assert (folder / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()


def test_a_log_is_one_object_a_line_without_a_clock(whole):
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert set(lines[0]) == {"step", "loss", "bound", "rate", "distortion", "grad_norm", "lr", "skipped"}
    assert [line["step"] for line in lines if "valid_bound" in line] == [6, 12, 18, 24, 30]
    for line in lines:
        assert line["bound"] == pytest.approx(-line["rate"] - line["distortion"], abs=1e-3)


def test_every_default_is_written_out(whole):
    run = read(whole / "run.toml")
    assert run["train"]["weight_decay"] == 0.0 and run["model"]["activation"] == "silu"
    assert write(run) == (whole / "run.toml").read_text()
    assert all(value is not None for table in run.values() for value in table.values())


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "mps", "", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match=r"there is no device|is not here: torch .* finds \d+ CUDA devices"):
        experiment.find_device(name)
    assert experiment.find_device("cpu") == torch.device("cpu")


def test_weights_that_are_not_finite_are_not_evaluated(tmp_path):
    begun = start(tmp_path / "run", "train.ema=0")
    with torch.no_grad():
        next(begun.trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(RuntimeError, match="training ended with weights that are not finite, encoder"):
        experiment.finish(begun, k=2)
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_the_callers_random_state_is_left_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    complete(start(tmp_path / "run"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_density_has_no_bits(tmp_path):
    density = {"model": {"name": "mlp", "family": "normal", "hidden": [8], "latent": 2}}
    for extra, bits in ((density, False), ({"model": {"name": "mlp", "hidden": [8], "latent": 2}}, True)):
        run = {"data": {"name": "digits"}, "objective": {}, "train": {"steps": 3}} | extra
        begun = experiment.start(run, tmp_path / str(bits))
        assert experiment.is_probability(begun.trainer.averaged, begun.data) is bits


def test_an_objective_that_the_posterior_does_not_allow_leaves_no_folder(tmp_path):
    run = {
        "data": {"name": "digits"},
        "model": {"name": "mlp", "posterior": "point", "hidden": [8]},
        "objective": {"name": "stl"},
        "train": {"steps": 3},
    }
    with pytest.raises(ValueError, match="KL term, which is infinite"):
        experiment.start(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    def tables():
        return {
            "data": {"name": "digits"},
            "model": {"name": "mlp", "hidden": [8]},
            "objective": {},
            "train": {"steps": 3},
        }

    folder = tmp_path / "run"
    experiment.start(tables(), folder)
    (folder / "figures").mkdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_model", full_disk)
        with pytest.raises(OSError, match="No space left"):
            experiment.start(tables(), folder, force=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert (folder / "figures").is_dir()
    experiment.start(tables(), folder, force=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted(before)
