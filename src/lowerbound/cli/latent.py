"""`sample`, `reconstruct`, `interpolate`, `traverse`, `encode` and `decode`: what a model makes of x and z."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .terminal import Count, Device, Draw, OutFile, Run, Seed, Split, app, load, out, part

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Data
    from ..figures import Picture
    from ..views import View


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
    """New data: z drawn from the prior, and decoded."""
    from ..views import undisturbed

    view, _ = _view(run, device)
    _at_least(count, 1, "count")
    with undisturbed(view.model, seed):
        x = view.generate(count, draw=draw)
    return _put(out_file or run / "samples.png", lambda: view.sheet(x), {"x": x})


@app.command
def reconstruct(
    run: Run, /, *, count: Count = 32, split: Split = "test", out_file: OutFile = None, seed: Seed = 0,
    device: Device = "cpu",
) -> int:  # fmt: skip
    """Held-out data, each with its reconstruction below it."""
    import torch

    from ..views import undisturbed

    view, data = _view(run, device)
    x = _rows(data, split, count, seed)
    with undisturbed(view.model, seed):
        again = view.reconstruct(x)
    columns = view.columns(len(x))
    shown = len(x) // columns * columns
    stack = torch.stack([x[:shown], again[:shown]])
    return _put(out_file or run / "reconstructions.png", lambda: view.stacks(stack), {"x": x, "reconstruction": again})


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
        out_file: Where to put them: .png, .npz.
        seed: Of the choice of pairs.
        device: Where to compute: cpu, cuda.
    """
    from ..views import undisturbed

    view, data = _view(run, device)
    _at_least(steps, 2, "steps")
    x = _rows(data, split, 2 * count, seed)
    with undisturbed(view.model, seed):
        means = view.means(x)
        n = len(x) // 2
        paths = view.interpolate([m[:n] for m in means], [m[n : 2 * n] for m in means], steps, spherical=not linear)
    return _put(out_file or run / "interpolations.png", lambda: view.strips(paths), {"x": paths})


@app.command
def traverse(
    run: Run, /, *, row: int = 0, dims: list[int] | None = None, steps: int = 9, split: Split = "test",
    out_file: OutFile = None, seed: Seed = 0, device: Device = "cpu",
) -> int:  # fmt: skip
    """One datum, with one latent dimension at a time moved through the prior's quantiles.

    Args:
        run: The folder of the run.
        row: Which row of the split.
        dims: Which dimensions of the first latent variable; by default the eight most active.
        steps: Points of each traversal, from the 1 % to the 99 % quantile.
        split: Which rows: train, valid or test.
        out_file: Where to put them: .png, .npz.
        seed: Of the draws from the prior.
        device: Where to compute: cpu, cuda.
    """
    import torch

    from ..latents import quantile_values
    from ..views import undisturbed

    view, data = _view(run, device)
    _at_least(steps, 2, "steps")
    x = part(data, split)
    if not 0 <= row < len(x):
        raise ValueError(f"there is no row {row} in the {split} split: it has rows 0 to {len(x) - 1}.")
    with undisturbed(view.model, seed):
        means = view.means(x[:2000])
        activity = means[0].flatten(1).var(0)
        chosen = dims if dims is not None else activity.topk(min(8, len(activity))).indices.tolist()
        sites = view.infer(x[row : row + 1])[1]
        is_bound = bool(sites[0].kl().isfinite().all())
        reach = view.reach(sites[0], is_bound, means[0])
        fractions = torch.linspace(0.01, 0.99, steps).tolist()
        values = [quantile_values(reach, dim, fractions) for dim in chosen]
        moved = view.traverse(view.means(x[row : row + 1]), [(0, dim) for dim in chosen], values)
    out.print(f"dimensions, top to bottom: {', '.join(map(str, chosen))}")
    arrays = {"x": moved, "dims": torch.tensor(chosen), "values": torch.stack(values)}
    return _put(out_file or run / "traversals.png", lambda: view.strips(moved), arrays)


@app.command
def encode(run: Run, /, *, split: Split = "test", out_file: OutFile = None, device: Device = "cpu") -> int:
    """The posterior means of data, with their labels where there are any.

    As .npz (z0, z1, ...: an array for each latent variable; labels) or .parquet (a column for each dimension).
    """
    from ..views import undisturbed

    view, data = _view(run, device)
    x = part(data, split)
    with undisturbed(view.model, 0):
        arrays = {f"z{i}": mean for i, mean in enumerate(view.means(x))}
    labels = data.labels_of(split)
    arrays |= {} if labels is None else {"labels": labels}
    return _put(out_file or run / "latents.npz", None, arrays)


@app.command
def decode(
    run: Run, latents: Annotated[Path, Parameter(help="An .npz with z0, z1, ..., as `encode` writes it.")], /, *,
    out_file: OutFile = None, draw: Draw = False, seed: Seed = 0, device: Device = "cpu",
) -> int:  # fmt: skip
    """Data for given latent variables. Those of later levels that are not given are drawn from their priors."""
    from ..views import undisturbed

    view, data = _view(run, device)
    z = _latents(latents)
    with undisturbed(view.model, seed):
        sites = view.infer(data.fixed("test")[:1])[1]
        wanted = [tuple(site.z.shape[2:]) for site in sites]
        given = [tuple(rows.shape[1:]) for rows in z]
        if given != wanted[: len(given)] or len({len(rows) for rows in z}) != 1:
            raise ValueError(
                f"{latents} does not fit the model: its arrays hold rows of shape {given}, and the latent variables "
                f"have shape {wanted}."
            )
        x = view.generate(len(z[0]), z, draw=draw)
    return _put(out_file or run / "decoded.png", lambda: view.sheet(x), {"x": x})


def _view(run: Path, device: str) -> tuple["View", "Data"]:
    """A run's model of its data, and the data."""
    from ..views import View

    model, data = load(run, device)
    return View.of(model, data), data


def _rows(data: "Data", split: str, count: int, seed: int) -> "Tensor":
    """Some rows of a split, chosen at random: some sets are sorted by class."""
    import torch

    x = part(data, split)
    _at_least(count, 1, "count")
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:count]]


def _latents(path: Path) -> list["Tensor"]:
    """The arrays z0, z1, ... of an .npz."""
    import zipfile

    import numpy as np
    import torch

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [f"z{i}" for i in range(len(arrays.files)) if f"z{i}" in arrays.files]
            z = [torch.from_numpy(arrays[name]).float() for name in names]
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} cannot be read as .npz: {error}.") from None
    if not z:
        raise ValueError(f"{path} holds no latent variables: it needs an array z0, as `lowerbound encode` writes it.")
    return z


def _put(path: Path, picture: "Callable[[], Picture] | None", arrays: "dict[str, Tensor]") -> int:
    """Write a picture or arrays, as the name of the file says."""
    import io

    import numpy as np

    from .. import checkpoint

    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower()
    if kind == ".png" and picture:
        from ..figures import png

        content = png(picture())
    elif kind == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **{name: array.cpu().numpy() for name, array in arrays.items()})
        content = buffer.getvalue()
    elif kind == ".parquet":
        content = _parquet(arrays)
    else:
        kinds = ".png, .npz or .parquet" if picture else ".npz or .parquet"
        raise ValueError(f"cannot write {path}: choose a name that ends in {kinds}.")
    checkpoint.write(path, content)
    out.print(f"wrote {path}")
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


def _at_least(value: int, least: int, name: str) -> None:
    if value < least:
        raise ValueError(f"--{name} {value} is too few: give {least} or more.")
