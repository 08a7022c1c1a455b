"""The named sets and the rendered ones: their splits, bits and factors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lowerbound.data import binarized_mnist, digits, fashion, glyphs, mnist, shapes
from lowerbound.data.named import LAROCHELLE_SHA256

BESIDE = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def real(monkeypatch):
    """The folder of real data."""
    folder = Path(os.environ.get("LOWERBOUND_DATA", BESIDE))
    if not (folder / "mnist").is_dir():
        pytest.skip(f"REAL DATA MISSING: set LOWERBOUND_DATA to a folder with mnist/ (looked in {folder})")
    monkeypatch.setenv("LOWERBOUND_DATA", str(folder))
    return folder


def test_importing_data_imports_nothing_heavy():
    heavy = "sklearn", "PIL", "matplotlib", "simplejpeg", "rich", "platformdirs"
    code = f"import sys, lowerbound.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_digits():
    data = digits()
    assert data.x.shape == (1797, 1, 8, 8)
    assert data.x.dtype == torch.uint8
    assert data.levels == int(data.x.max()) + 1 == 17
    assert data.labels_of("test").unique().tolist() == list(range(10))
    assert data.fingerprint() == digits().fingerprint() != digits(split_seed=1).fingerprint()
    assert len(data.label_names) == 10


@pytest.mark.parametrize("load", [mnist, fashion])
def test_mnist_and_its_binarisations(real, load):
    grey, dynamic, static = (load(binarize=word) for word in ("none", "dynamic", "static"))
    for data in (grey, dynamic, static):
        assert [len(data.split[part]) for part in ("train", "valid", "test")] == [50_000, 10_000, 10_000]
        assert data.event == (1, 28, 28)
        assert data.labels_of("test").bincount().tolist() == grey.labels[60_000:].bincount().tolist()
    assert (grey.observed_levels, dynamic.observed_levels, static.observed_levels) == (256, 2, 2)
    assert static.x.max() == 1
    assert static.x[:100].equal(load(binarize="static").x[:100])
    # Two independent sets of bits around the same grey.
    expected = grey.test.float().mean() / 255
    assert abs(static.test.float().mean() - expected) < 1e-3
    assert abs(dynamic.fixed("test").mean() - expected) < 1e-3
    assert not dynamic.fixed("test").equal(static.test.float())


def test_mnist_validates_on_the_last_official_training_images(real):
    data = mnist()
    assert data.labels_of("train")[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.labels_of("test")[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.split["valid"].tolist() == list(range(50_000, 60_000))


def test_larochelles_bits(real, tmp_path, monkeypatch):
    data = binarized_mnist()
    assert data.labels is None
    assert data.levels == 2
    assert data.x.shape == (70_000, 1, 28, 28)
    # Bits of the test part are draws around the grey of MNIST's test images, in another order.
    assert abs(data.test.float().mean() - mnist().test.float().mean() / 255) < 1e-3
    (tmp_path / "binarized_mnist").mkdir()
    flipped = {part: getattr(data, part).numpy().copy() for part in LAROCHELLE_SHA256}
    flipped["valid"][5, 0, 14, 14] ^= 1
    np.savez(tmp_path / "binarized_mnist" / "binarized_mnist.npz", **flipped)
    monkeypatch.setenv("LOWERBOUND_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"valid of .*does not hold what was published"):
        binarized_mnist()


@pytest.mark.parametrize("load", [binarized_mnist, mnist, fashion])
def test_nearly_all_may_be_learnt_from(real, load):
    few, usual = load(valid=100), load()
    assert few.split["train"].tolist() == list(range(59_900))
    assert few.split["valid"].tolist() == list(range(59_900, 60_000))
    assert few.test.equal(usual.test)
    for valid in (0, 60_000):
        with pytest.raises(ValueError, match=r"of 60,000 images are to be held out"):
            load(valid=valid)


def test_larochelles_text_is_read_where_there_is_no_npz(tmp_path, monkeypatch):
    import hashlib

    bits = np.random.default_rng(0).integers(0, 2, (70_000, 784), dtype="uint8")
    monkeypatch.setenv("LOWERBOUND_DATA", str(tmp_path))
    (tmp_path / "binarized_mnist").mkdir()
    for part, rows in zip(LAROCHELLE_SHA256, np.split(bits, [50_000, 60_000]), strict=True):
        text = np.full((len(rows), 2 * 784), ord(" "), "uint8")
        text[:, ::2] = rows + ord("0")
        text[:, -1] = ord("\n")
        (tmp_path / "binarized_mnist" / f"binarized_mnist_{part}.amat").write_bytes(text.tobytes())
        monkeypatch.setitem(LAROCHELLE_SHA256, part, hashlib.sha256(rows.tobytes()).hexdigest())
    assert binarized_mnist().x.reshape(-1, 784).numpy().tobytes() == bits.tobytes()


def test_an_unknown_binarisation_has_a_hint():
    with pytest.raises(ValueError, match=r"binarize='dynamik' is not known. Did you mean 'dynamic'"):
        mnist(binarize="dynamik")


@pytest.mark.parametrize("load", [shapes, glyphs])
def test_rendered_sets_follow_their_seed(load):
    data = load(n=60)
    assert data.fingerprint() == load(n=60).fingerprint()
    assert data.fingerprint() != load(n=60, seed=1).fingerprint()
    assert data.labels.shape == (60, len(data.label_names))
    assert data.x.flatten(1).amax(1).min() > 80  # every image shows something
    assert load(n=10, size=40).event == (1, 40, 40)


@pytest.mark.parametrize("load", [shapes, glyphs])
def test_rendered_sets_refuse_what_they_cannot_do(load):
    with pytest.raises(ValueError, match=r"n=10,000,000, and there are .* Give n from 3"):
        load(n=10_000_000)
    with pytest.raises(ValueError, match=r"size=8, and below 16 pixels"):
        load(size=8)


def test_factors_of_shapes_can_be_read_off_the_image():
    data = shapes(n=4_000)
    x = data.x[:, 0].double() / 255
    factor = dict(zip(data.label_names, data.labels.double().T, strict=True))
    weight = x.sum((1, 2))
    pixel = torch.arange(32) + 0.5
    across = (x.sum(1) * pixel).sum(1) / weight
    down = (x.sum(2) * pixel).sum(1) / weight
    assert torch.corrcoef(torch.stack([across, factor["x"]]))[0, 1] > 0.9
    assert torch.corrcoef(torch.stack([down, factor["y"]]))[0, 1] > 0.9
    # The brightest pixel is the intensity, the area the square of the scale.
    assert (x.amax((1, 2)) - (0.4 + 0.15 * factor["intensity"])).abs().max() < 0.05
    radius = (weight / (0.4 + 0.15 * factor["intensity"])).sqrt()
    for shape in range(4):
        of = factor["shape"] == shape
        assert torch.corrcoef(torch.stack([radius[of], factor["scale"][of]]))[0, 1] > 0.98
    # Sprites stay inside, and no two images are alike.
    assert max(x[:, 0].max(), x[:, -1].max(), x[:, :, 0].max(), x[:, :, -1].max()) == 0
    assert len(data.x.flatten(1).unique(dim=0)) > 3_900


def test_glyphs_of_different_factors_differ():
    data = glyphs(n=2_000)
    assert len(data.x.flatten(1).unique(dim=0)) == 2_000
    # Slanted, bold and upright cuts of one letter all draw it: none is an empty box.
    ink = torch.stack([data.x[data.labels[:, 1] == font].float().mean() for font in range(20)])
    assert ink.min() > 10
    assert (ink.max() / ink.min()) < 3
