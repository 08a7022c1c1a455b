"""Data, its noise, its split and what it refuses."""

import pytest
import torch

from lowerbound.data import Data, split


def ramp(top: int = 256, **changes) -> Data:
    """Sixty rows of integers that take every level."""
    x = (torch.arange(60 * 8) % top).to(torch.uint8).reshape(60, 8)
    return Data(**{"name": "ramp", "x": x, "split": split(60), "levels": top} | changes)


@pytest.mark.parametrize("n", [3, 5, 10, 1797])
def test_split_is_a_partition_without_empty_parts(n):
    parts = split(n, seed=3)
    assert list(parts) == ["train", "valid", "test"]
    assert all(len(rows) > 0 for rows in parts.values())
    assert torch.cat(list(parts.values())).sort().values.equal(torch.arange(n))


def test_split_follows_its_seed():
    assert split(50, seed=1)["test"].equal(split(50, seed=1)["test"])
    assert not split(50, seed=1)["test"].equal(split(50, seed=2)["test"])


@pytest.mark.parametrize("bad", [{"n": 2}, {"n": 100, "valid": 0.0}, {"n": 100, "valid": 0.6, "test": 0.5}])
def test_split_refuses_empty_parts(bad):
    with pytest.raises(ValueError, match=rf"{bad['n']} rows .* each part needs at least one.*at least 3 rows"):
        split(**bad)


def test_binarize_draws_bits_with_the_grey_as_their_probability():
    data = ramp(17, noise="binarize")
    rows = torch.arange(17, dtype=torch.uint8).repeat(20_000, 1)
    bits = data.draw(rows, torch.Generator().manual_seed(0))
    assert bits.dtype == torch.float32
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert bits[:, 0].max() == 0  # black is never white, and white never black
    assert bits[:, 16].min() == 1
    p = torch.arange(17) / 16
    error = (p * (1 - p) / len(rows)).sqrt()
    assert ((bits.mean(0) - p).abs() <= 4.5 * error + 1e-6).all()


def test_dequantize_stays_in_the_cell_and_fills_it():
    data = ramp(noise="dequantize")
    rows = torch.full((1_000, 1_000), 255, dtype=torch.uint8)
    y = data.draw(rows, torch.Generator().manual_seed(0))
    assert y.dtype == torch.float32
    assert y.max() < 256  # some of a million would round up to it
    assert y.floor().equal(rows.float())
    assert abs(y.mean() - 255.5) < 4.5 / 12**0.5 / 1000


@pytest.mark.parametrize("noise", ["none", "binarize", "dequantize"])
def test_draws_follow_the_generator_and_fixed_is_fixed(noise):
    data = ramp(noise=noise)
    draws = [data.draw(data.train, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert draws[0].equal(draws[1])
    assert draws[0].equal(draws[2]) == (noise == "none")
    torch.manual_seed(5)
    first = data.fixed("test")
    torch.manual_seed(6)
    assert first.equal(data.fixed("test"))
    assert first.shape == data.test.shape
    assert first.dtype == torch.float32


@pytest.mark.parametrize(("noise", "observed"), [("none", 17), ("binarize", 2), ("dequantize", None)])
def test_levels_before_and_after_noise(noise, observed):
    data = ramp(17, noise=noise)
    assert data.discrete
    assert data.observed_levels == observed
    if observed is not None:
        assert data.fixed("train").max() <= observed - 1


def test_continuous_data_is_not_discrete():
    data = Data("normal", torch.randn(20, 3), split(20))
    assert not data.discrete
    assert data.observed_levels is None
    assert data.fixed("valid").equal(data.valid)


def test_parts_and_labels_belong_together():
    x = torch.arange(40).reshape(40, 1)
    data = Data("ids", x, split(40), labels=torch.arange(40))
    for part in ("train", "valid", "test"):
        assert getattr(data, part)[:, 0].equal(data.labels_of(part))
    assert ramp().labels_of("test") is None
    assert data.event == (1,)


def test_fingerprint_sees_every_part():
    base = ramp()
    pixel = base.x.clone()
    pixel[7, 3] += 1
    others = [
        ramp(x=pixel),
        ramp(x=base.x.reshape(60, 2, 4)),
        ramp(x=base.x.short()),
        ramp(split=split(60, seed=1)),
        ramp(labels=torch.zeros(60, dtype=torch.int64)),
        ramp(noise="dequantize"),
    ]
    assert base.fingerprint() == ramp().fingerprint()
    assert len({data.fingerprint() for data in [base, *others]}) == 1 + len(others)


def with_value(value: float) -> torch.Tensor:
    x = torch.randn(60, 2, 3)
    x[7, 1, 2] = value
    x[9, 0, 0] = value
    return x


HALF = torch.arange(30)
BAD = {
    "nan": ({"x": with_value(float("nan")), "levels": None}, r"2 of 360 values are NaN.*row 7 at \(1, 2\).*drop"),
    "infinity": ({"x": with_value(float("inf")), "levels": None}, r"2 of 360 .*infinite.*row 7"),
    "constant": ({"x": torch.full((60, 3), 4, dtype=torch.uint8)}, r"all 180 values are 4.*nothing to learn"),
    "no rows": ({"x": torch.zeros(0, 3)}, r"shape \(0, 3\).*at least one row"),
    "no columns": ({"x": torch.zeros(60)}, r"shape \(60,\).*rows first"),
    "complex": ({"x": torch.randn(60, 2, dtype=torch.complex64)}, "complex64.*must be real"),
    "levels": ({"levels": 100}, "run from 0 to 255, and levels=100.*levels=256"),
    "noise": ({"noise": "dequantise"}, "noise='dequantise' is not known. Did you mean 'dequantize'"),
    "noise without levels": ({"noise": "binarize", "levels": None}, "not known to be integers.*leave out noise"),
    "labels": ({"labels": torch.arange(59)}, "59 labels for 60 rows"),
    "part missing": ({"split": {"train": HALF, "test": HALF + 30}}, "needs rows for each of train, valid, test"),
    "overlap": ({"split": {"train": HALF, "valid": HALF + 30, "test": HALF[:2]}}, "names a row twice"),
    "outside": ({"split": {"train": HALF, "valid": HALF + 30, "test": HALF + 60}}, "not among the 60"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_refused(case):
    changes, match = BAD[case]
    with pytest.raises(ValueError, match=match):
        ramp(**changes)


def test_a_part_that_does_not_exist_has_a_hint():
    with pytest.raises(ValueError, match=r"part='tests' is not known. Did you mean 'test'"):
        ramp().fixed("tests")
