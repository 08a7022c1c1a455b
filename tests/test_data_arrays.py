"""Arrays: what the numbers and the shape say, and files that cannot be read."""

import gzip
import io
import math
import struct

import numpy as np
import pytest
import torch

from lowerbound.data import array, open_path

RNG = np.random.default_rng(0)


def saved(folder, x, name="a.npy") -> str:
    np.save(folder / name, x)
    return str(folder / name)


def idx(x: np.ndarray, code: int = 8) -> bytes:
    return bytes([0, 0, code, x.ndim]) + struct.pack(f">{x.ndim}I", *x.shape) + x.tobytes()


def grey(n=20, h=6, w=5, levels=256) -> np.ndarray:
    x = RNG.integers(0, levels, (n, h, w), dtype="uint8")
    x[0, 0, 0] = levels - 1
    return x


LEVELS = {
    "eight bits": (grey(), torch.uint8, 256, ""),
    "eight bits, no white": (grey(levels=201), torch.uint8, 256, ""),
    "seventeen greys": (grey(levels=17), torch.uint8, 17, ""),
    "bits": (grey(levels=2), torch.uint8, 2, ""),
    "bool": (grey(levels=2).astype(bool), torch.uint8, 2, ""),
    "bits as float": (grey(levels=2).astype("float64"), torch.uint8, 2, "holds only 0 and 1: read as bits"),
    "int64": (grey().astype("int64"), torch.uint8, 256, ""),
    "big-endian": (grey().astype(">i4"), torch.uint8, 256, ""),
    "counts": (np.array([[0, 1_000]] * 9), torch.int16, 1_001, ""),
    "uint16": (np.array([[0, 40_000]] * 9, "uint16"), torch.int32, 40_001, ""),
    "negative": (grey().astype("int64") - 5, torch.float32, None, "continuous, as some are negative"),
    "huge": (np.array([[0, 10**12]] * 9), torch.float32, None, "continuous, as more than 65,536 levels"),
    "float64": (RNG.normal(size=(9, 4)), torch.float32, None, ""),
    "float16": (RNG.normal(size=(9, 4)).astype("float16"), torch.float32, None, ""),
    "whole floats": (grey().astype("float32"), torch.float32, None, "whole numbers stored as float32"),
}


@pytest.mark.parametrize("case", LEVELS)
def test_the_numbers_say_their_levels(tmp_path, case):
    x, dtype, levels, note = LEVELS[case]
    data = array(path=saved(tmp_path, x))
    assert data.x.dtype == dtype
    assert data.levels == levels
    assert len(data.notes) == bool(note)
    assert note in "".join(data.notes)
    np.testing.assert_allclose(data.x.reshape(x.shape).double(), x.astype("float64"), rtol=1e-6)


SHAPES = {
    "vectors": ((9, 7), None, (7,), (0, 1)),
    "images": ((9, 6, 5), None, (1, 6, 5), None),
    "channels last": ((9, 6, 5, 3), None, (3, 6, 5), (0, 3, 1, 2)),
    "channels first": ((9, 3, 6, 5), None, (3, 6, 5), (0, 1, 2, 3)),
    "said to be last": ((9, 3, 6, 4), "last", (4, 3, 6), (0, 3, 1, 2)),
    "said to be first": ((9, 3, 6, 4), "first", (3, 6, 4), (0, 1, 2, 3)),
    "two channels": ((9, 2, 6, 5), None, (2, 6, 5), (0, 1, 2, 3)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_the_shape_says_where_channels_are(tmp_path, case):
    shape, channels, event, order = SHAPES[case]
    x = RNG.normal(size=shape).astype("float32")
    data = array(path=saved(tmp_path, x), channels=channels)
    assert data.event == event
    expected = x[:, None] if order is None else x.transpose(order)
    assert data.x.numpy().tobytes() == expected.tobytes()
    assert bool(data.notes) == (case == "two channels")


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (np.zeros((9, 3, 6, 4)), "shape .* has channels first or last. Say which: data.channels=last"),
        (np.arange(9.0), r"shape \(9,\), and what is read is vectors \(n, d\) or images"),
        (np.zeros((9, 2, 3, 4, 5)), r"Reshape it: x.reshape"),
        (np.array([["a", "b"]] * 9), "values are <U1, and rows must be real numbers"),
        (np.ones((9, 2), complex), "values are complex128"),
        (np.array([["2020-01-01"]] * 9, "datetime64[D]"), "values are datetime64"),
        (np.zeros((0, 4)), r"shape \(0, 4\): there is nothing in it"),
        (np.array([[0.5] * 4, [1.5] * 4]), "2 rows .* each part needs at least one"),
        (np.full((9, 4), 0.5), "all 36 values are 0.5"),
    ],
)
def test_rows_that_cannot_be_read(tmp_path, x, match):
    with pytest.raises(ValueError, match=match):
        array(path=saved(tmp_path, x))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_what_is_not_finite_is_named_by_row(tmp_path, value):
    x = RNG.normal(size=(9, 4))
    x[5, 2] = value
    with pytest.raises(ValueError, match=r"1 of 36 values are NaN or infinite, the first in row 5 at \(2,\)"):
        array(path=saved(tmp_path, x))


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_python_objects_are_refused(tmp_path, name):
    x = np.array([[1, 2], [3, [4]]] * 5, dtype=object)
    path = tmp_path / name
    np.save(path, x, allow_pickle=True) if name == "a.npy" else np.savez(path, x=x)
    with pytest.raises(ValueError, match=r"Python objects, which only pickle can read.*runs whatever code.*numpy.save"):
        array(path=str(path))


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a-ubyte", "a-ubyte.gz"])
def test_files_cut_off_are_named(tmp_path, name):
    buffer = io.BytesIO()
    if name.endswith("npy"):
        np.save(buffer, grey())
    elif name.endswith("npz"):
        np.savez(buffer, x=grey())
    else:
        buffer.write(gzip.compress(idx(grey())) if name.endswith("gz") else idx(grey()))
    (tmp_path / name).write_bytes(buffer.getvalue()[:-100])
    with pytest.raises(ValueError, match=rf"{name} .*cut off or damaged"):
        array(path=str(tmp_path / name))


def test_an_npz_gives_x_and_y(tmp_path):
    x, y = grey(), RNG.integers(5, 8, 20)
    np.savez(tmp_path / "a.npz", x=x, y=y, other=grey())
    data = array(path=str(tmp_path / "a.npz"))
    assert data.x[:, 0].numpy().tobytes() == x.tobytes()
    assert [int(data.label_names[i]) for i in data.labels] == y.tolist()
    assert data.label_names == ("5", "6", "7")


def test_keys_of_an_npz(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(path, left=grey(), right=grey(), kind=np.array(["dog", "cat"] * 10), short=np.zeros(3))
    with pytest.raises(ValueError, match=r"left \(20, 6, 5\), right .* none is called x. Say which one: data.key=NAME"):
        array(path=path)
    with pytest.raises(ValueError, match=r"no array 'lift'. Did you mean 'left'.*It has left"):
        array(path=path, key="lift")
    with pytest.raises(ValueError, match=r"no array 'kinds'. Did you mean 'kind'"):
        array(path=path, key="left", labels="kinds")
    with pytest.raises(ValueError, match=r"labels have shape \(3,\) for 20 rows"):
        array(path=path, key="left", labels="short")
    data = array(path=path, key="right", labels="kind")
    assert data.label_names == ("cat", "dog")
    assert data.labels[:2].tolist() == [1, 0]
    np.savez(path, images=grey(), kind=np.zeros(20))
    assert array(path=path).event == (1, 6, 5)


def test_labels_of_an_npz_are_classes_or_factors(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(path, x=grey(), y=RNG.normal(size=(20, 2)), labels=np.arange(20) % 3 == 0)
    factors = array(path=path)
    assert factors.labels.shape == (20, 2)
    assert factors.labels.dtype == torch.float32
    assert factors.label_names == ("factor 0", "factor 1")
    assert array(path=path, labels="labels").labels.tolist() == [int(i % 3 == 0) for i in range(20)]


@pytest.mark.parametrize(
    ("labels", "classes", "names"),
    [
        ([3, -1, 7, -1, 3], [0, -1, 1, -1, 0], ("3", "7")),
        ([3.0, math.nan, 7.0, -1.0, 3.0], [0, -1, 1, -1, 0], ("3", "7")),
        (["b", "", "a", "", "b"], [1, -1, 0, -1, 1], ("a", "b")),
        ([1, -1, 1, -1, -1], [1, 0, 1, 0, 0], ("-1", "1")),
    ],
)
def test_rows_without_a_class_are_no_class_of_their_own(tmp_path, labels, classes, names):
    path = tmp_path / "a.npz"
    np.savez(path, x=grey(), labels=np.array(labels * 4))
    data = array(path=str(path))
    assert data.labels.tolist() == classes * 4 and data.label_names == names and data.classes == 2


@pytest.mark.parametrize("labels", [[-1] * 20, [math.nan] * 20, [math.nan, -1.0] * 10, [""] * 20])
def test_where_no_row_has_a_class_there_are_no_labels(tmp_path, labels):
    np.savez(tmp_path / "a.npz", x=grey(), labels=np.array(labels))
    assert array(path=str(tmp_path / "a.npz")).labels is None


def test_one_class_and_rows_without_one(tmp_path):
    np.savez(tmp_path / "a.npz", x=grey(), labels=np.array([3.0, math.nan] * 10))
    data = array(path=str(tmp_path / "a.npz"))
    assert data.labels.tolist() == [0, -1] * 10 and data.label_names == ("3",)


def test_labels_of_other_rows_are_passed_over_with_a_word(tmp_path):
    np.savez(tmp_path / "a.npz", x=grey(), labels=np.arange(7) % 2)
    data = array(path=str(tmp_path / "a.npz"))
    assert data.labels is None and "a.npz: labels (7,) are no labels of rows (20, 6, 5)" in data.notes


@pytest.mark.parametrize("prefix", ["", "x_"])
def test_an_npz_with_parts_brings_its_split(tmp_path, prefix):
    path = str(tmp_path / "a.npz")
    train, test = grey(30), grey(7)
    np.savez(
        path,
        **{f"{prefix}train": train, f"{prefix}test": test, "y_train": np.arange(30) % 2, "y_test": np.arange(7) % 2},
    )
    data = array(path=path)
    assert data.test[:, 0].numpy().tobytes() == test.tobytes()
    assert len(data.valid) == 3
    assert len(data.train) == 27
    assert data.labels_of("test").tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert torch.cat([data.split["train"], data.split["valid"]]).sort().values.tolist() == list(range(30))


def test_parts_of_different_shapes_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", train=grey(30), test=grey(7, 5))
    with pytest.raises(ValueError, match=r"rows of the parts differ in shape: train \(30, 6, 5\), test \(7, 5, 5\)"):
        array(path=str(tmp_path / "a.npz"))


@pytest.mark.parametrize(("code", "dtype"), [(8, "u1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0E, ">f8")])
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "a.idx", "a.idx.gz"])
def test_idx_files(tmp_path, code, dtype, name):
    x = grey().astype(dtype)
    x = x / 7 if "f" in dtype else x
    raw = idx(x.astype(dtype), code)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    (tmp_path / "labels.idx").write_bytes(idx(np.arange(20, dtype="u1")))
    data = array(path=str(tmp_path / name), labels="labels.idx")
    np.testing.assert_allclose(data.x[:, 0].double(), x.astype("float64"), rtol=1e-6)
    assert data.labels.tolist() == list(range(20))


def test_what_is_no_idx_file(tmp_path):
    (tmp_path / "a.idx").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(ValueError, match=r"a.idx does not begin as an idx file does \(it begins 504b0304\)"):
        array(path=str(tmp_path / "a.idx"))


def test_noise_and_seed_are_passed_on(tmp_path):
    path = saved(tmp_path, grey(200))
    assert array(path=path, noise="dequantize").observed_levels is None
    assert array(path=path).fingerprint() == array(path=path).fingerprint()
    assert array(path=path).fingerprint() != array(path=path, split_seed=1).fingerprint()


def test_open_path_says_what_a_path_is(tmp_path):
    path = saved(tmp_path, grey(), "faces.npy")
    assert open_path(path) == {"name": "array", "path": path}
    assert open_path(str(tmp_path)) == {"name": "folder", "path": str(tmp_path)}
    with pytest.raises(ValueError, match=r"face.npy does not exist. Did you mean 'faces.npy'"):
        open_path(str(tmp_path / "face.npy"))
    with pytest.raises(ValueError, match=r"does not exist. Check the path"):
        open_path(str(tmp_path / "nowhere" / "a.npy"))
    for name, match in {
        "a.docx": "a.docx is not a kind of file that is read. Give a folder of images, or an array: .npy, .npz",
        "a.PNG": "is one image, and learning takes many. Give the folder",
    }.items():
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=match):
            open_path(str(tmp_path / name))
    with pytest.raises(ValueError, match=r"is a folder, and an array is a file"):
        array(path=str(tmp_path))
