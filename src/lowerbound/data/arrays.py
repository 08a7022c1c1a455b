"""Arrays: rows that someone has already put into a .npy, .npz or idx file.

The numbers say what they are, and the choice is printed: whole numbers from 0 are levels (their likelihood is a
probability), anything else is continuous (its likelihood is a density). Nothing is rescaled.
"""

import gzip
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped
from numpy import ndarray
from torch import Tensor

from .dataset import Data, complete, nearest, one_of, split

SUFFIXES = (".npy", ".npz", ".idx", "-ubyte", ".idx.gz", "-ubyte.gz")
TABLES = (".csv", ".tsv", ".parquet", ".arff", ".xlsx", ".json", ".jsonl", ".feather")
IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_LEVELS = 65_536
# What an .npz calls the rows of a part, and their labels: numpy.savez(train=...), and the form of Keras.
PART_KEYS = {
    "train": (("train", "x_train", "X_train"), ("y_train", "train_labels")),
    "valid": (("valid", "val", "x_valid", "x_val", "X_valid", "X_val"), ("y_valid", "y_val", "valid_labels")),
    "test": (("test", "x_test", "X_test"), ("y_test", "test_labels")),
}
DAMAGED = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error)


def array(
    *,
    path: str,
    key: str | None = None,
    labels: str | None = None,
    noise: str = "none",
    split_seed: int = 0,
    channels: str | None = None,
) -> Data:
    """Rows from a .npy, .npz or idx file: vectors (n, d) or images (n, h, w), (n, h, w, c) or (n, c, h, w).

    Args:
        path: The file. An .npz with arrays train, valid and test (or x_train, ...) brings its own split.
        key: The array of an .npz; by default "x", "X", or the only one that has rows.
        labels: The array of labels of an .npz, by default "y" or "labels" if it has one for each row; for other files
            the path of one, beside the first. -1, NaN and an empty name are no class.
        noise: "none", "binarize" or "dequantize": what happens to integers before the likelihood sees them.
        split_seed: Of the split into 80 % train, 10 % valid, 10 % test, where the file has none.
        channels: "first" or "last", for images whose shape does not tell.

    Raises:
        ValueError: Where the file does not hold numeric rows; it says what it holds and what to do.
    """
    file = Path(path)
    check_path(file)
    if file.suffix.lower() == ".npz":
        x, y, parts, passed = _read_npz(file, key, labels)
    else:
        x, y, parts, passed = _read_array(file), None, {}, ()
        if labels is not None:
            check_path(file.parent / labels)
            y = _read_array(file.parent / labels)
    rows, levels, notes = _as_levels(file.name, x)
    rows, more = _as_images(file.name, rows, channels)
    classes, names = _as_labels(file.name, y, len(rows))
    return Data(
        file.stem,
        torch.from_numpy(np.ascontiguousarray(rows)),
        complete(parts, split_seed) if parts else split(len(rows), seed=split_seed),
        classes,
        names,
        noise=noise,
        levels=levels,
        notes=(*passed, *notes, *more),
    )


def parse_idx(data: bytes, name: str) -> Shaped[ndarray, "..."]:
    """The array in the bytes of an idx file: two zeros, type, number of axes, big-endian sizes, values.

    Source: *LeCun, http://yann.lecun.com/exdb/mnist/*.
    """
    axes = data[3] if len(data) > 3 else 0
    start = 4 + 4 * axes
    if data[:2] != b"\0\0" or len(data) < start or axes == 0 or data[2] not in IDX_DTYPES:
        raise ValueError(
            f"{name} does not begin as an idx file does (it begins {data[:4].hex()}). "
            "Save the array with numpy.save, as .npy."
        )
    dtype = np.dtype(IDX_DTYPES[data[2]])
    shape = tuple(np.frombuffer(data, ">u4", axes, 4).tolist())
    expected = start + dtype.itemsize * int(np.prod(shape))
    if len(data) != expected:
        raise ValueError(
            f"{name} says it has shape {shape}, which takes {expected:,} bytes, and it has {len(data):,}. "
            "It was cut off or damaged: copy it again."
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def check_path(file: Path) -> None:
    """Raises unless there is a file whose name says that it holds an array."""
    name = file.name.lower()
    if not file.exists():
        siblings = [path.name for path in file.parent.iterdir()] if file.parent.is_dir() else []
        raise ValueError(f"{file} does not exist.{nearest(file.name, siblings)} Check the path.")
    if file.is_dir():
        raise ValueError(f'{file} is a folder, and an array is a file. For a folder of images use data.name="folder".')
    if name.endswith(TABLES):
        raise ValueError(
            f"{file.name} is a table, and an array is numbers alone: use data.name=table, which reads CSV, TSV, "
            "Parquet and Arrow."
        )
    if not name.endswith(SUFFIXES):
        raise ValueError(
            f"{file.name} is not a kind of file that is read. Give a folder of images, or an array: "
            f"{', '.join(SUFFIXES)}."
        )


def _read_array(file: Path) -> ndarray:
    """The array of a .npy or idx file."""
    try:
        if file.suffix.lower() == ".npy":
            return np.load(file, allow_pickle=False)
        data = file.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except DAMAGED as error:
        raise _unreadable(file.name, error) from error
    return parse_idx(data, file.name)


def _read_npz(
    file: Path, key: str | None, labels: str | None
) -> tuple[ndarray, ndarray | None, dict[str, Tensor], tuple[str, ...]]:
    """Rows, labels, and the split of an .npz, each as far as it has them; and a note on what was passed over."""
    with file.open("rb") as stream:
        try:
            archive = np.load(stream, allow_pickle=False)
            shapes = _shapes(archive)
        except DAMAGED as error:
            raise _unreadable(file.name, error) from error
        for asked in (key, labels):
            if asked is not None and asked not in shapes:
                raise ValueError(
                    f"{file.name} has no array {asked!r}.{nearest(asked, shapes)} It has {_listed(shapes)}."
                )
        keys = {} if key or labels else _part_keys(shapes)
        if not keys:
            key = key or _rows_key(file.name, shapes)
            n = shapes[key][:1]
            named = [name for name in ("y", "labels") if shapes.get(name) and name != key]
            found = labels or next((name for name in named if shapes[name][:1] == n), None)
            notes = [f"{file.name}: {name} {shapes[name]} are no labels of rows {shapes[key]}" for name in named]
            return _member(archive, key), _member(archive, found) if found else None, {}, () if found else tuple(notes)
        if len({shapes[rows][1:] for rows, _ in keys.values()}) > 1:
            raise ValueError(f"{file.name}: rows of the parts differ in shape: {_listed(shapes)}. Make them the same.")
        pieces = [_member(archive, rows) for rows, _ in keys.values()]
        known = [_member(archive, name) for _, name in keys.values() if name]
    indices = torch.arange(sum(map(len, pieces))).split([len(piece) for piece in pieces])
    return (
        np.concatenate(pieces),
        np.concatenate(known) if len(known) == len(pieces) else None,
        dict(zip(keys, indices, strict=True)),
        (),
    )


def _shapes(archive: np.lib.npyio.NpzFile) -> dict[str, tuple[int, ...]]:
    """The shape of each array of an .npz, from its header: nothing large is read."""
    shapes = {}
    assert archive.zip is not None
    for name in archive.files:
        with archive.zip.open(f"{name}.npy") as member:
            version = np.lib.format.read_magic(member)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version, np.lib.format.read_array_header_2_0)
            shapes[name] = read(member)[0]
    return shapes


def _part_keys(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, str | None]]:
    """For each part that an .npz has, its rows and its labels; nothing without train and one more part."""
    found = {}
    for part, (rows, labels) in PART_KEYS.items():
        if key := next((name for name in rows if len(shapes.get(name, ())) > 1), None):
            found[part] = key, next((name for name in labels if name in shapes), None)
    return found if "train" in found and len(found) > 1 else {}


def _rows_key(file: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The array of an .npz that is meant where none was named."""
    with_rows = [name for name, shape in shapes.items() if len(shape) > 1]
    for name in ("x", "X"):
        if name in shapes:
            return name
    if len(shapes) == 1 or len(with_rows) == 1:
        return (with_rows or list(shapes))[0]
    raise ValueError(f"{file} has {_listed(shapes)}, and none is called x. Say which one: data.key=NAME.")


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "no arrays"


def _member(archive: np.lib.npyio.NpzFile, name: str) -> ndarray:
    try:
        return archive[name]
    except DAMAGED as error:
        raise _unreadable(f"array {name!r}", error) from error


def _unreadable(what: str, error: Exception) -> ValueError:
    if "allow_pickle" in str(error):
        return ValueError(
            f"{what} holds Python objects, which only pickle can read, and unpickling runs whatever code is in the "
            "file. Save it as plain numbers: numpy.save(path, numpy.stack(rows).astype('float32'))."
        )
    return ValueError(f"{what} cannot be read ({error}). It was cut off or damaged: save or copy it again.")


def _as_levels(file: str, x: ndarray) -> tuple[ndarray, int | None, tuple[str, ...]]:
    """Rows in a torch dtype, their number of levels if they are integers from 0, and notes."""
    if x.dtype.kind not in "buif":
        raise ValueError(
            f"{file}: the values are {x.dtype}, and rows must be real numbers. Convert them: "
            "numpy.save(path, x.astype('float32')), with a column for each category."
        )
    if x.size == 0:
        raise ValueError(f"{file} has shape {x.shape}: there is nothing in it. Give at least 3 rows.")
    if x.dtype.kind == "b":
        return x.astype("uint8"), 2, ()
    if x.dtype.kind == "f":
        if ((x == 0) | (x == 1)).all():
            return x.astype("uint8"), 2, (f"{file}: {x.dtype} that holds only 0 and 1: read as bits",)
        note = f"{file}: whole numbers stored as {x.dtype}: read as continuous; save them as uint8 to have levels"
        # What overflows float32 becomes infinite, which Data refuses by row and position.
        with np.errstate(over="ignore"):
            return x.astype("float32"), None, (note,) if (x == np.round(x)).all() else ()
    low, high = int(x.min()), int(x.max())
    if low < 0 or high >= MOST_LEVELS:
        why = "some are negative" if low < 0 else f"more than {MOST_LEVELS:,} levels"
        return x.astype("float32"), None, (f"{file}: integers from {low:,} to {high:,}: continuous, as {why}",)
    dtype = "uint8" if high < 256 else "int16" if high < 32_768 else "int32"
    # Eight bits whose last levels happen not to occur are still eight bits; sixteen grey levels are sixteen.
    return x.astype(dtype), 256 if 64 <= high < 256 else high + 1, ()


def _as_images(file: str, x: ndarray, channels: str | None) -> tuple[ndarray, tuple[str, ...]]:
    """Vectors as they are, images with their channels first, and notes."""
    if channels is not None:
        one_of("channels", channels, ("first", "last"))
    if x.ndim == 3:
        return x[:, None], ()
    if x.ndim == 2:
        return x, ()
    if x.ndim != 4:
        raise ValueError(
            f"{file} has shape {x.shape}, and what is read is vectors (n, d) or images (n, h, w), (n, h, w, c), "
            "(n, c, h, w). Reshape it: x.reshape(len(x), -1)."
        )
    first, last = x.shape[1] in (1, 3, 4), x.shape[3] in (1, 3, 4)
    if channels is None and first and last:
        raise ValueError(f"{file}: shape {x.shape} has channels first or last. Say which: data.channels=last.")
    if channels == "last" or (channels is None and last):
        return np.moveaxis(x, 3, 1), ()
    note = f"{file}: shape {x.shape} read as (n, channels, height, width); data.channels=last reads it the other way"
    return x, () if first or channels else (note,)


def _as_labels(file: str, y: ndarray | None, n: int) -> tuple[Tensor | None, tuple[str, ...]]:
    """Classes 0..c-1 with their names, -1 where none is known; or factors with theirs.

    A row without a class has -1, NaN or an empty name; but -1 beside one other number is a class as well. There are no
    labels where no row has one.
    """
    if y is None:
        return None, ()
    if len(y) != n or y.ndim > 2 or (y.ndim == 2 and y.dtype.kind not in "buif"):
        raise ValueError(f"{file}: labels have shape {y.shape} for {n:,} rows. Give (n,) classes or (n, f) factors.")
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    unknown = np.isnan(y) if y.dtype.kind == "f" else y == "" if y.dtype.kind in "US" else np.zeros(y.shape, bool)
    if y.ndim == 1 and (y.dtype.kind != "f" or (y == np.round(y))[~unknown].all()):
        if y.dtype.kind not in "US" and len(np.unique(y[~unknown & (y != -1)])) != 1:
            unknown = unknown | (y == -1)
        if unknown.all():
            return None, ()
        names, known = np.unique(
            y[~unknown].astype("int64") if y.dtype.kind in "bf" else y[~unknown], return_inverse=True
        )
        classes = np.full(n, -1)
        classes[~unknown] = known
        return torch.from_numpy(classes.astype("int64")), tuple(str(name) for name in names)
    factors = y.reshape(n, -1).astype("float32" if y.dtype.kind == "f" else "int64")
    return torch.from_numpy(factors), tuple(f"factor {i}" for i in range(factors.shape[1]))
