"""`reconstruct`, `interpolate`, `traverse`, `encode` and `decode`: what a model makes of x, by way of z."""

import itertools
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .opening import alone, beside, check_draw, given, own, told
from .output import ARRAYS, PICTURES, ROWS, TABLES, in_memory, put, target
from .terminal import Count, Device, Draw, Label, OutFile, OutRows, Run, Seed, Split, app, at_least, out

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SHOWN = 32
Dims = Annotated[
    list[int] | None,
    Parameter(negative="", consume_multiple=True),
]
What = Annotated[
    Path | None,
    Parameter(help="Other data, like those of the run: a table, a folder of images, an array. All rows, in order."),
]


@app.command
def reconstruct(
    run: Run,
    what: What = None,
    /,
    *,
    count: Annotated[
        int | None, Parameter(name=["--count", "-n"], help="How many: 32, but all of other data if not in a picture.")
    ] = None,
    split: Split = "test",
    out_file: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="Where to put it: .png, .npz, .csv, .parquet, ...")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> int:
    """Held-out data, or other data like them, each with its reconstruction below it.

    As a table (.csv, .parquet, ...): of a model of tables the reconstructed rows alone, as a file like its table.
    """
    import torch

    from ..data import some
    from ..views import without_gradients

    at_least(1, count=SHOWN if count is None else count)
    usual = "reconstructions.csv" if what and what.suffix.lower() in TABLES else "reconstructions.png"
    file = target(out_file, beside(run) / usual, ROWS)
    if what is None:
        opened = own(run, device, split, seed)
        chosen: Tensor | slice = some(len(opened.x), count or SHOWN, seed)
    else:
        opened = given(run, what, device, seed)
        chosen = slice(count or (SHOWN if file.suffix.lower() == ".png" else None))
    view, (x, *context) = opened.view, (t[chosen] for t in (opened.x, *opened.context))
    with without_gradients(view.model, seed):
        again = view.reconstruct(x, *context)
    columns = view.columns(len(x))
    shown = len(x) // columns * columns
    stack = torch.stack([x[:shown], again[:shown]])
    return put(file, lambda: view.stacks(stack), {"x": x, "reconstruction": again}, opened.coding, "reconstruction")


@app.command
def interpolate(
    run: Run, /, *, count: Count = 6, steps: int = 11, linear: bool = False, split: Split = "test",
    out_file: OutFile = None, seed: Seed = 0, device: Device = "cpu",
) -> int:  # fmt: skip
    """Paths between pairs of held-out data, a row each; of a conditional model in the context of the first.

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
    from ..data import some
    from ..views import without_gradients

    at_least(1, count=count)
    at_least(2, steps=steps)
    file = target(out_file, run / "interpolations.png", PICTURES)
    opened = own(run, device, split, seed)
    chosen = some(len(opened.x), 2 * count, seed)
    view, (x, *context) = opened.view, (t[chosen] for t in (opened.x, *opened.context))
    if len(x) < 2:
        raise ValueError(f"the {split} split has 1 row, and a path joins two: choose another with --split.")
    in_memory(view, len(x) // 2 * steps)
    with without_gradients(view.model, seed):
        means = view.means(x, *context)
        n = len(x) // 2
        starts, ends = [m[:n] for m in means], [m[n : 2 * n] for m in means]
        paths = view.interpolate(starts, ends, steps, context=[c[:n] for c in context], spherical=not linear)
    return put(file, lambda: view.strips(paths), {"x": paths})


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
    opened = own(run, device, split, seed)
    view, x = opened.view, opened.x
    if not 0 <= row < len(x):
        raise ValueError(f"there is no row {row} in the {split} split: it has rows 0 to {len(x) - 1}.")
    with without_gradients(view.model, seed):
        means = view.means(x[:2000], *(c[:2000] for c in opened.context))
        activity = means[0].flatten(1).var(0, correction=0)
        chosen = dims or activity.topk(min(8, len(activity))).indices.tolist()
        if wrong := [dim for dim in chosen if not 0 <= dim < len(activity)]:
            raise ValueError(
                f"there is no latent dimension {', '.join(map(str, wrong))}: the first latent variable has dimensions "
                f"0 to {len(activity) - 1}."
            )
        in_memory(view, len(chosen) * steps)
        start, *context = (t[row : row + 1] for t in (x, *opened.context))
        sites = view.infer(start, *context)[1]
        is_bound = bool(sites[0].kl().isfinite().all())
        reach = view.reach(sites[0], is_bound, means[0])
        fractions = torch.linspace(0.01, 0.99, steps).tolist()
        values = [quantile_values(reach, dim, fractions) for dim in chosen]
        moved = view.traverse(view.means(start, *context), [(0, dim) for dim in chosen], values, context=context)
    out.print(f"dimensions, top to bottom: {', '.join(map(str, chosen))}")
    arrays = {"x": moved, "dims": torch.tensor(chosen), "values": torch.stack(values)}
    return put(file, lambda: view.strips(moved), arrays)


@app.command
def encode(
    run: Run,
    what: What = None,
    /,
    *,
    split: Split = "test",
    out_file: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="Where to put them: .npz, .csv, .parquet, ...")
    ] = None,
    device: Device = "cpu",
) -> int:
    """The posterior means of held-out data, or of other data like them, with their labels where there are any.

    As .npz (z0, z1, ...: an array for each latent variable; labels) or as a table (a column for each dimension: z0_0,
    z0_1, ...). A row in is a row out, in the same order; of a folder of images, that of their paths.
    """
    from ..views import without_gradients

    file = target(out_file, beside(run) / "latents.npz", ARRAYS)
    opened = own(run, device, split) if what is None else given(run, what, device)
    with without_gradients(opened.view.model, 0):
        arrays = {f"z{i}": mean for i, mean in enumerate(opened.view.means(opened.x, *opened.context))}
    arrays |= {} if opened.labels is None else {"labels": opened.labels}
    return put(file, None, arrays)


@app.command
def decode(
    run: Run,
    latents: Annotated[Path, Parameter(help="What `encode` writes: an .npz with z0, z1, ..., or a table.")],
    /,
    *,
    out_file: OutRows = None,
    draw: Draw = False,
    label: Label = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> int:
    """Data for given latent variables. It needs the model only, not its data.

    Latent variables of later levels that are not given are drawn from their priors. A model that is told labels is told
    --label, else those in the file, else each class in turn.
    """
    import torch

    from ..recipes import given as given_of
    from ..views import without_gradients

    z, labels = _latents(latents)
    opened = alone(run, device, seed)
    check_draw(opened, draw)
    if label is not None and given_of(opened.table) == "train label":
        raise ValueError("--label: z0 of this model says the class of each row. Change z0, or leave --label out.")
    view, coding, context = opened.view, opened.coding, told(opened, label, len(z[0]), labels)
    usual = beside(run) / ("decoded.csv" if coding else "decoded.png")
    file = target(out_file, usual, ROWS if coding else PICTURES)
    in_memory(view, len(z[0]))
    with without_gradients(view.model, seed):
        sites = view.infer(torch.zeros(1, *view.event), *(c[:1] for c in context))[1]
        wanted = [tuple(site.z.shape[2:]) for site in sites]
        if latents.suffix.lower() in TABLES:
            # a table holds the numbers of each latent variable, and not their shape
            pairs = zip(z, wanted, strict=False)
            whole = [rows.unflatten(1, s) if rows.shape[1] == math.prod(s) else rows for rows, s in pairs]
            z = whole + z[len(whole) :]
        shapes = [tuple(rows.shape[1:]) for rows in z]
        if shapes != wanted[: len(shapes)]:
            raise ValueError(
                f"{latents} does not fit the model: its rows have shape {', '.join(map(str, shapes))}, and those of "
                f"the latent variables {', '.join(map(str, wanted))}."
            )
        x = view.generate(len(z[0]), z, context=context, draw=draw)
    return put(file, lambda: view.sheet(x), {"x": x}, coding)


def _latents(path: Path) -> "tuple[list[Tensor], Tensor | None]":
    """The arrays z0, z1, ... of an .npz, or of a table with a column for each of their numbers; and their labels.

    Labels are those of an .npz that has one for each row.
    """
    import numpy as np
    import torch

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give an .npz, as `lowerbound encode` writes it.")
    arrays = _of_table(path) if path.suffix.lower() in TABLES else _of_npz(path)
    labels = arrays.pop("labels", None)
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
    z = [torch.from_numpy(array.astype("float32")) for array in arrays.values()]
    return z, None if labels is None or len(labels) != len(z[0]) else torch.from_numpy(labels)


def _of_npz(path: Path) -> "dict[str, np.ndarray]":
    import zipfile
    import zlib

    import numpy as np

    try:
        with path.open("rb") as file, zipfile.ZipFile(file):
            found = np.load(file, allow_pickle=False)
            names = itertools.takewhile(found.files.__contains__, (f"z{i}" for i in itertools.count()))
            arrays = {name: np.asarray(found[name]) for name in [*names, "labels"] if name in found.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as an .npz of plain numbers ({error}): write it with `lowerbound encode`."
        ) from None
    return arrays


def _of_table(path: Path) -> "dict[str, np.ndarray]":
    import numpy as np

    from ..data.tables.cells import numbers, tidy
    from ..data.tables.reading import open_table

    source = open_table(path)
    arrays: dict[str, np.ndarray] = {}
    # a latent variable of one number is one column, without a place
    while names := [name for name in source.schema.names if re.fullmatch(rf"z{len(arrays)}(_\d+)?", name)]:
        names.sort(key=lambda name: int(name.partition("_")[2] or 0))
        batches = [[numbers(tidy(batch.column(name))[0])[0] for name in names] for batch in source.batches()]
        arrays[f"z{len(arrays)}"] = np.concatenate([np.stack(columns, 1) for columns in batches])
    return arrays
