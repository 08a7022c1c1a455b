"""Files: what comes back is what went in, what is damaged is said so, and a failed save costs nothing."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from helpers import MODELS, ladder
from lowerbound import checkpoint, recipes
from lowerbound.checkpoint import (
    load_model,
    load_split,
    load_state,
    read_tensors,
    save_model,
    save_split,
    save_state,
    write,
    write_tensors,
)
from lowerbound.objectives import Elbo
from lowerbound.run import full
from lowerbound.train import Options, Trainer, tensors

QUICK = Options(steps=6, batch=8, warmup=3, valid_every=2, patience=9)
RUN = {
    "data": {"name": "digits"},
    "model": full(recipes.mlp, "model", {"name": "mlp", "event": [6], "latent": 2, "hidden": [8], "prior": "vamp",
                                         "prior_components": 3}),
    "objective": {"name": "elbo"},
    "train": {},
}  # fmt: skip


def model(seed: int = 0):
    torch.manual_seed(seed)
    return recipes.mlp(event=(6,), latent=2, hidden=(8,), prior="vamp", prior_components=3)


def saved(tmp_path, **metadata):
    path = tmp_path / checkpoint.MODEL
    save_model(path, tensors(model()), RUN, 5)
    return path


def rewritten(path, change):
    """The file with its metadata and tensors changed, by the format's own library."""
    found, metadata = read_tensors(path)
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    change(found, texts)
    save_file(found, path, metadata=texts)
    return path


@pytest.mark.parametrize("name", list(MODELS))
def test_a_model_comes_back_bit_for_bit(name, tmp_path):
    case = MODELS[name]
    rows = case.data().fixed("train")
    torch.manual_seed(1)
    before = case.make(rows)
    save_model(tmp_path / "m.safetensors", tensors(before), RUN, 3)
    torch.manual_seed(2)
    after, run = load_model(tmp_path / "m.safetensors", lambda: case.make(rows + 1))
    assert run == RUN and not after.training
    kept = before.state_dict()
    assert all(torch.equal(t, kept[key]) for key, t in after.state_dict().items())
    torch.manual_seed(3)
    here = before.eval()(rows[:4], k=2).log_weight()
    torch.manual_seed(3)
    assert torch.equal(after(rows[:4], k=2).log_weight(), here)


def test_a_run_builds_its_model_and_what_is_shared_stays_shared(tmp_path):
    path = saved(tmp_path)
    found, run = load_model(tmp_path)  # the folder
    again, _ = load_model(str(path))  # the file, as text
    assert run == RUN
    assert found.prior.encoder is found.encoder
    assert torch.equal(found.prior.inputs, again.prior.inputs) and torch.equal(found.prior.inputs, model().prior.inputs)
    stored, metadata = read_tensors(path)
    assert not [name for name in stored if name.startswith("prior.encoder")]  # once
    assert metadata["step"] == 5 and metadata["format"] == checkpoint.FORMAT


@pytest.mark.parametrize("optimizer, ema", [("adamw", 0.9), ("adamax", 0.0)])
@pytest.mark.parametrize("name", ["bernoulli", "full_vamp", "ladder"])
def test_training_goes_on_from_a_file_bit_for_bit(name, optimizer, ema, tmp_path):
    case = MODELS[name]
    data = case.data()
    options = replace(QUICK, optimizer=optimizer, ema=ema)

    def fresh(seed):
        torch.manual_seed(seed)
        return Trainer(case.make(data.fixed("train")), Elbo(), options)

    first, losses = fresh(1), []
    for step in first.fit(data):
        losses.append(float(step.terms.loss))
        if step.number == 2:
            save_state(tmp_path / "s.safetensors", first, 12.5)
    second = fresh(2)
    assert load_state(tmp_path / "s.safetensors", second) == 12.5
    assert [float(step.terms.loss) for step in second.fit(data)] == losses[2:]
    expected = first.result()
    assert all(torch.equal(t, expected[key]) for key, t in second.result().items())


def test_a_split_comes_back(tmp_path):
    parts = {"train": torch.tensor([3, 1]), "valid": torch.tensor([0]), "test": torch.tensor([2])}
    save_split(tmp_path / "s", parts, "abc")
    found, fingerprint = load_split(tmp_path / "s")
    assert fingerprint == "abc" and all(torch.equal(found[key], t) for key, t in parts.items())


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*model.safetensors. Is this the folder of a run"):
        load_model(tmp_path)


def damage(kind, path):
    whole = path.read_bytes()
    content = {
        "cut short": whole[: len(whole) // 2],
        "cut in the header": whole[:40],
        "eight bytes": whole[:8],
        "empty": b"",
        "text": b"this is a letter to my aunt\n" * 20,
        "a pickle": b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01u." * 9,
        "noise": bytes(range(256)) * 10,
    }[kind]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "kind", ["cut short", "cut in the header", "eight bytes", "empty", "text", "a pickle", "noise"]
)
def test_a_damaged_file_is_said_to_be_damaged(kind, tmp_path):
    path = damage(kind, saved(tmp_path))
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read: it is cut short or is no safetensors"):
        load_model(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_file_of_others_is_said_to_be_theirs(metadata, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "m", metadata=metadata)
    with pytest.raises(ValueError, match=r"was not written by lowerbound: it does not say which run"):
        load_model(tmp_path / "m")


def test_a_newer_format_asks_for_an_upgrade(tmp_path):
    def newer(found, texts):
        texts["format"] = "2"

    with pytest.raises(ValueError, match=r"has format 2, written by lowerbound .* reads up to format 1. Upgrade: pip"):
        load_model(rewritten(saved(tmp_path), newer))


def test_a_file_without_a_run_is_no_model(tmp_path):
    def without(found, texts):
        del texts["run"]

    with pytest.raises(ValueError, match=r"holds no model: its metadata has no run"):
        load_model(rewritten(saved(tmp_path), without))


@pytest.mark.parametrize("damaged", [{"format": "1x"}, {"format": '"one"'}, {"run": "{"}])
def test_damaged_metadata_are_said_to_be_damaged(damaged, tmp_path):
    def damage_texts(found, texts):
        texts.update(damaged)

    with pytest.raises(ValueError, match=r"cannot be read: its metadata is damaged"):
        load_model(rewritten(saved(tmp_path), damage_texts))


def test_a_file_without_a_fingerprint_is_no_split(tmp_path):
    with pytest.raises(ValueError, match=r"holds no split: it does not say of which data"):
        load_split(saved(tmp_path))


def test_a_file_without_a_state_is_no_state(tmp_path):
    data = MODELS["bernoulli"].data()
    trainer = Trainer(MODELS["bernoulli"].make(data.fixed("train")), Elbo(), QUICK)
    with pytest.raises(ValueError, match=r"holds no training state"):
        load_state(saved(tmp_path), trainer)


def test_a_state_of_another_model_or_optimizer_does_not_fit(tmp_path):
    data = MODELS["bernoulli"].data()
    trainer = Trainer(MODELS["bernoulli"].make(data.fixed("train")), Elbo(), QUICK)
    save_state(tmp_path / "s", trainer)
    other = Trainer(ladder(), Elbo(), QUICK)
    with pytest.raises(ValueError, match=r"the model that is being trained: only in the file: model.decoder"):
        load_state(tmp_path / "s", other)


def drop(found, texts):
    del found["prior.logits"]


def add(found, texts):
    found["prior.surplus"] = torch.zeros(1)


def bend(found, texts):
    found["prior.logits"] = torch.zeros(7)


@pytest.mark.parametrize(
    "change, match",
    [
        (drop, r"missing from the file: prior.logits\."),
        (add, r"only in the file: prior.surplus\."),
        (bend, r"prior.logits has shape \[7\] in the file and \[3\] in the model\."),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, match, tmp_path):
    with pytest.raises(ValueError, match=r"does not fit the model that its run describes: " + match):
        load_model(rewritten(saved(tmp_path), change))


def full_disk(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_save(failing, tmp_path, monkeypatch):
    path = saved(tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr(os, failing, full_disk) if failing == "fsync" else monkeypatch.setattr(
        type(path), "replace", full_disk
    )
    with pytest.raises(OSError, match=r"could not write .*No space left on device. What was there before is untouched"):
        save_model(path, tensors(model(1)), RUN, 6)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing half-written is left behind
    load_model(path)


def test_a_disk_that_really_fills_up_leaves_the_earlier_save(tmp_path):
    """The kernel refuses the write in the middle of the file, as a full disk does."""
    path = saved(tmp_path)
    before = path.read_bytes()
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from lowerbound.checkpoint import write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write(Path(sys.argv[1]), b'x' * 5000)\n"
        "except OSError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-B", "-c", script, str(path)], capture_output=True, text=True)
    assert "could not write" in done.stdout and "untouched" in done.stdout, done.stderr
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_kill_while_saving_leaves_the_earlier_save(tmp_path, monkeypatch):
    path = saved(tmp_path)
    before = path.read_bytes()

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_model(path, tensors(model(1)), RUN, 6)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_is_written_replaces_what_was_there_and_others_may_read_it(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "one")
    write(path, "zwölf")
    assert path.read_text(encoding="utf-8") == "zwölf" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match=r"could not write .*nowhere/a.txt: No such file or directory"):
        write(tmp_path / "nowhere" / "a.txt", "one")


def test_what_is_not_contiguous_comes_back_as_it_looks(tmp_path):
    t = torch.randn(3, 4).T
    write_tensors(tmp_path / "t", {"t": t}, {"note": {"a": [1, None]}})
    found, metadata = read_tensors(tmp_path / "t")
    assert torch.equal(found["t"], t) and metadata["note"] == {"a": [1, None]}
