"""`sample`, `reconstruct`, `interpolate`, `traverse`, `encode` and `decode`: what a model makes of x and z."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .terminal import Count, Device, Draw, OutFile, Run, Seed, Split, app, at_least, load, out, part

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Data
    from ..data.tables.coding import Coding
    from ..figures import Picture
    from ..views import View

Dims = Annotated[
    list[int] | None,
    Parameter(negative="", consume_multiple=True),
]
PICTURES = (".png", ".npz", ".parquet")
ARRAYS = (".npz", ".parquet")
TABLES = (".csv", ".tsv", ".gz", ".parquet", ".arrow", ".feather")
ROWS = (*TABLES, ".npz", ".png")
MOST_VALUES = 2**30


@app.command
def sample(
    run: Run,
    /,
    *,
    count: Count = 64,
    out_file: OutFile = None,
    draw: Draw = False,
    seed: Seed = 0,
    device: Device = "cpu",
) -> int:
    """New data: z drawn from the prior, and decoded. It needs the model only, not its data.

    Of a table, new rows as a file like it (.csv, .parquet, ...); these are always draws, since a mean row is no row.
    """
    from ..views import without_gradients

    at_least(1, count=count)
    view, coding = _alone(run, device, seed)
    usual = _beside(run) / ("samples.csv" if coding else "samples.png")
    file = target(out_file, usual, ROWS if coding else PICTURES)
    _in_memory(view, count)
    with without_gradients(view.model, seed):
        x = view.generate(count, draw=draw or coding is not None)
    return _put(file, lambda: view.sheet(x), {"x": x}, coding)


@app.command
def reconstruct(
    run: Run, /, *, count: Count = 32, split: Split = "test", out_file: OutFile = None, seed: Seed = 0,
    device: Device = "cpu",
) -> int:  # fmt: skip
    """Held-out data, each with its reconstruction below it."""
    import torch

    from ..views import without_gradients

    at_least(1, count=count)
    file = target(out_file, run / "reconstructions.png", PICTURES)
    view, data = _view(run, device, seed)
    x = _rows(data, split, count, seed)
    with without_gradients(view.model, seed):
        again = view.reconstruct(x)
    columns = view.columns(len(x))
    shown = len(x) // columns * columns
    stack = torch.stack([x[:shown], again[:shown]])
    return _put(file, lambda: view.stacks(stack), {"x": x, "reconstruction": again})


@app.command
def interpolate(
    run: Run, /, *, count: Count = 6, steps: int = 11, linear: bool = False, split: Split = "test",
    out_file: OutFile = None, seed: Seed = 0, device: Device = "cpu",
) -> int:  # fmt: skip
    """Paths between pairs of held-out data, a row each.

    Args:
        run: The folder of the run.
        count: How many pairs.
        steps: Points of a path, both ends included.
        linear: Straight lines; by default arcs that keep the distance from the origin.
        split: Which rows: train, valid or test.
        out_file: Where to put them: .png, .npz, .parquet.
        seed: Of the choice of pairs.
        device: Where to compute: cpu, cuda.
    """
    from ..views import without_gradients

    at_least(1, count=count)
    at_least(2, steps=steps)
    file = target(out_file, run / "interpolations.png", PICTURES)
    view, data = _view(run, device, seed)
    x = _rows(data, split, 2 * count, seed)
    if len(x) < 2:
        raise ValueError(f"the {split} split has 1 row, and a path joins two: choose another with --split.")
    _in_memory(view, len(x) // 2 * steps)
    with without_gradients(view.model, seed):
        means = view.means(x)
        n = len(x) // 2
        paths = view.interpolate([m[:n] for m in means], [m[n : 2 * n] for m in means], steps, spherical=not linear)
    return _put(file, lambda: view.strips(paths), {"x": paths})


@app.command
def traverse(
    run: Run, /, *, row: int = 0, dims: Dims = None, steps: int = 9, split: Split = "test",
    out_file: OutFile = None, seed: Seed = 0, device: Device = "cpu",
) -> int:  # fmt: skip
    """One datum, with one latent dimension at a time moved through the prior's quantiles.

    Args:
        run: The folder of the run.
        row: Which row of the split.
        dims: Which dimensions of the first latent variable, as in --dims 0 3; by default the eight most active.
        steps: Points of each traversal, from the 1 % to the 99 % quantile.
        split: Which rows: train, valid or test.
        out_file: Where to put them: .png, .npz, .parquet.
        seed: Of the draws from the prior.
        device: Where to compute: cpu, cuda.
    """
    import torch

    from ..latents import quantile_values
    from ..views import without_gradients

    at_least(2, steps=steps)
    file = target(out_file, run / "traversals.png", PICTURES)
    view, data = _view(run, device, seed)
    x = part(data, split)
    if not 0 <= row < len(x):
        raise ValueError(f"there is no row {row} in the {split} split: it has rows 0 to {len(x) - 1}.")
    with without_gradients(view.model, seed):
        means = view.means(x[:2000])
        activity = means[0].flatten(1).var(0, correction=0)
        chosen = dims or activity.topk(min(8, len(activity))).indices.tolist()
        if wrong := [dim for dim in chosen if not 0 <= dim < len(activity)]:
            raise ValueError(
                f"there is no latent dimension {', '.join(map(str, wrong))}: the first latent variable has dimensions "
                f"0 to {len(activity) - 1}."
            )
        _in_memory(view, len(chosen) * steps)
        sites = view.infer(x[row : row + 1])[1]
        is_bound = bool(sites[0].kl().isfinite().all())
        reach = view.reach(sites[0], is_bound, means[0])
        fractions = torch.linspace(0.01, 0.99, steps).tolist()
        values = [quantile_values(reach, dim, fractions) for dim in chosen]
        moved = view.traverse(view.means(x[row : row + 1]), [(0, dim) for dim in chosen], values)
    out.print(f"dimensions, top to bottom: {', '.join(map(str, chosen))}")
    arrays = {"x": moved, "dims": torch.tensor(chosen), "values": torch.stack(values)}
    return _put(file, lambda: view.strips(moved), arrays)


@app.command
def encode(
    run: Run,
    /,
    *,
    split: Split = "test",
    out_file: Annotated[Path | None, Parameter(name=["--out", "-o"], help="Where to put them: .npz, .parquet.")] = None,
    device: Device = "cpu",
) -> int:
    """The posterior means of data, with their labels where there are any.

    As .npz (z0, z1, ...: an array for each latent variable; labels) or .parquet (a column for each dimension).
    """
    from ..views import without_gradients

    file = target(out_file, run / "latents.npz", ARRAYS)
    view, data = _view(run, device)
    x = part(data, split)
    with without_gradients(view.model, 0):
        arrays = {f"z{i}": mean for i, mean in enumerate(view.means(x))}
    labels = data.labels_of(split)
    arrays |= {} if labels is None else {"labels": labels}
    return _put(file, None, arrays)


@app.command
def decode(
    run: Run, latents: Annotated[Path, Parameter(help="An .npz with z0, z1, ..., as `encode` writes it.")], /, *,
    out_file: OutFile = None, draw: Draw = False, seed: Seed = 0, device: Device = "cpu",
) -> int:  # fmt: skip
    """Data for given latent variables. It needs the model only, not its data.

    Latent variables of later levels that are not given are drawn from their priors.
    """
    import torch

    from ..views import without_gradients

    z = _latents(latents)
    view, coding = _alone(run, device, seed)
    usual = _beside(run) / ("decoded.csv" if coding else "decoded.png")
    file = target(out_file, usual, ROWS if coding else PICTURES)
    _in_memory(view, len(z[0]))
    with without_gradients(view.model, seed):
        sites = view.infer(torch.zeros(1, *view.event))[1]
        wanted = [tuple(site.z.shape[2:]) for site in sites]
        given = [tuple(rows.shape[1:]) for rows in z]
        if given != wanted[: len(given)]:
            raise ValueError(
                f"{latents} does not fit the model: its rows have shape {', '.join(map(str, given))}, and those of the "
                f"latent variables {', '.join(map(str, wanted))}."
            )
        x = view.generate(len(z[0]), z, draw=draw)
    return _put(file, lambda: view.sheet(x), {"x": x}, coding)


def _alone(run: Path, device: str, seed: int) -> "tuple[View, Coding | None]":
    """A run's model, without its data, and how its rows are cells, if of a table; `run` may be the model file."""
    from .. import checkpoint, experiment
    from ..views import View

    at_least(0, seed=seed)
    if not run.is_file() and not (run / checkpoint.MODEL).is_file():
        experiment.read_run(run)  # says what is missing, and what it may have been
    model, tables = checkpoint.load_model(run, device=str(experiment.find_device(device)))
    if "columns" not in tables["model"]:
        return View.alone(model, tables["model"]["event"]), None
    from ..data.tables import coding

    described = {key: tables["model"].get(key, []) for key in ("columns", "aside")}
    return View.alone(model, [len(tables["model"]["columns"])]), coding.Coding.of(described)


def _beside(run: Path) -> Path:
    """The folder of a run, or of its model file."""
    return run.parent if run.is_file() else run


def _view(run: Path, device: str, seed: int = 0) -> tuple["View", "Data"]:
    """A run's model of its data, and the data."""
    from ..views import View

    at_least(0, seed=seed)
    model, data = load(run, device)
    return View.of(model, data), data


def _rows(data: "Data", split: str, count: int, seed: int) -> "Tensor":
    """Some rows of a split."""
    from ..data import some

    x = part(data, split)
    return x[some(len(x), count, seed)]


def _latents(path: Path) -> list["Tensor"]:
    """The arrays z0, z1, ... of an .npz."""
    import zipfile
    import zlib

    import numpy as np
    import torch

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give an .npz, as `lowerbound encode` writes it.")
    arrays: dict[str, np.ndarray] = {}
    try:
        with path.open("rb") as file, zipfile.ZipFile(file):
            found = np.load(file, allow_pickle=False)
            while f"z{len(arrays)}" in found.files:
                arrays[f"z{len(arrays)}"] = np.asarray(found[f"z{len(arrays)}"])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as an .npz of plain numbers ({error}): write it with `lowerbound encode`."
        ) from None
    if not arrays:
        raise ValueError(f"{path} holds no latent variables: it needs an array z0, as `lowerbound encode` writes it.")
    for name, array in arrays.items():
        if array.dtype.kind not in "iuf" or array.ndim < 2 or len(array) == 0 or not np.isfinite(array).all():
            raise ValueError(
                f"{path}: {name} has shape {array.shape} of {array.dtype}; it must hold rows of finite numbers, one "
                "or more."
            )
    if len({len(array) for array in arrays.values()}) != 1:
        counts = ", ".join(f"{len(array):,} in {name}" for name, array in arrays.items())
        raise ValueError(f"{path}: the arrays must have as many rows each, and have {counts}.")
    return [torch.from_numpy(array.astype("float32")) for array in arrays.values()]


def target(asked: Path | None, usual: Path, kinds: tuple[str, ...]) -> Path:
    """Where to write, in a format that there is: checked before anything is computed or made."""
    file = asked or usual
    if file.suffix.lower() not in kinds:
        listed = ", ".join(kinds[:-1]) + " or " + kinds[-1]
        raise ValueError(f"cannot write {file}: give --out a name that ends in {listed}.")
    if file.is_dir():
        raise ValueError(f"cannot write {file}: it is a folder. Choose another name with --out.")
    return file


def _in_memory(view: "View", rows: int) -> None:
    """Refuse more rows than memory holds."""
    values = rows * math.prod(view.event)
    if values > MOST_VALUES:
        raise ValueError(
            f"{rows:,} rows are {values:,} values, more than the {MOST_VALUES:,} that are made at once: "
            f"ask for {MOST_VALUES // math.prod(view.event):,} rows or fewer, several times with another --seed."
        )


def _put(
    path: Path,
    picture: "Callable[[], Picture] | None",
    arrays: "dict[str, Tensor]",
    coding: "Coding | None" = None,
) -> int:
    """Write a picture or arrays, or the rows x of a table, as the name of the file says."""
    import io

    import numpy as np

    from .. import checkpoint

    kind = path.suffix.lower()
    if coding and kind not in (".png", ".npz"):
        from ..data.tables.writing import write_table

        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, coding.decode(arrays["x"]))
        out.print(f"wrote {path}", markup=False, soft_wrap=True)
        return 0
    if kind == ".png":
        assert picture is not None
        from ..figures import png

        content = png(picture())
    elif kind == ".npz":
        buffer = io.BytesIO()
        plain: dict[str, Any] = {name: array.cpu().numpy() for name, array in arrays.items()}
        np.savez_compressed(buffer, **plain)
        content = buffer.getvalue()
    else:
        content = _parquet(arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(path, content)
    out.print(f"wrote {path}", markup=False, soft_wrap=True)
    return 0


def _parquet(arrays: "dict[str, Tensor]") -> bytes:
    """A table with a column for each element of each array."""
    import io

    import numpy as np

    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError("writing .parquet needs pyarrow: pip install 'lowerbound[tables]', or write .npz.") from None
    rows = len(next(iter(arrays.values())))
    columns: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        flat = array.cpu().reshape(rows, -1)
        names = [name] if flat.shape[1] == 1 else [f"{name}_{i}" for i in range(flat.shape[1])]
        columns |= dict(zip(names, flat.T.numpy(), strict=True))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()
