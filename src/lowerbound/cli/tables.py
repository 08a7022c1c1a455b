"""`impute` and `score`: what rows of a table lack, and how strange they are, by a model of such tables."""

import itertools
import json as jsonlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .opening import alone
from .output import TABLES, target
from .terminal import Device, Json, Run, Seed, app, at_least, load, out, part

if TYPE_CHECKING:
    import pyarrow
    from torch import Tensor

    from ..data.tables.coding import Coding
    from ..data.tables.reading import Source
    from ..models import Model

OutTable = Annotated[Path | None, Parameter(name=["--out", "-o"], help="Where to put it: .csv, .parquet, ...")]
# Rows that scores are compared with: of those held out at most so many, and so many of those drawn from the model.
HELD_OUT, DRAWN = 10_000, 1_000
# Below this p-value a row is counted as strange.
RARE = 0.05
WIDTH = 80


@app.command
def impute(
    run: Run,
    table: Annotated[Path, Parameter(help="A table like the one the model was trained on, with holes.")],
    /,
    *,
    out_file: OutTable = None,
    draws: Annotated[int, Parameter(help="Fillings to draw, a numbered file each; 0 for the single best one.")] = 0,
    uncertainty: Annotated[
        bool,
        Parameter(
            negative="",
            help="Beside each column with holes, one that says how far off its fillings may be: the standard deviation "
            "of a number, in its own units (days for dates), or the probability that a level is another.",
        ),
    ] = False,
    k: Annotated[int, Parameter(help="Importance samples for each row.")] = 1000,
    seed: Seed = 0,
    device: Device = "cpu",
) -> int:
    """Fill the holes of a table. It needs the model only, not its data; every row in is a row out.

    Numbers become their mean given the rest of the row, levels the likeliest. With --draws they are drawn from what
    they could be, which is what a calculation with error bars needs: do it with each file, and compare.
    """
    at_least(0, draws=draws, seed=seed)
    at_least(1, k=k)
    if draws and uncertainty:
        raise ValueError("--uncertainty is of the single best filling, and draws show theirs: leave one of them out.")
    file = target(out_file, table.with_name(f"{table.name.split('.')[0]}-filled.csv"), TABLES)
    model, coding = _open(run, device, seed)
    from ..data.tables.writing import write_table
    from ..evaluation import impute as fill
    from ..evaluation import impute_with_uncertainty

    source, x, notes = _read(model, coding, table)
    for note in notes:
        out.print(note, markup=False)
    if uncertainty:
        found = impute_with_uncertainty(model, x, coding.columns, k=k, seed=seed)
        fillings = found.rows[None]
    else:
        rows = fill(model, x, k=k, draws=draws, seed=seed)
        fillings = rows if draws else rows[None]
    file.parent.mkdir(parents=True, exist_ok=True)
    for i, filling in enumerate(fillings, 1):
        place = file.with_name(f"{file.name.split('.')[0]}-{i:02}{''.join(file.suffixes)}") if draws else file
        filled = coding.restore(source, coding.decode(filling, within=False))
        write_table(place, _beside(filled, source, coding, found.uncertainty) if uncertainty else filled)
        out.print(f"wrote {place}", markup=False, soft_wrap=True)
    lacking = int(x.isnan().any(1).sum())
    out.print(f"{len(x):,} rows, {lacking:,} of them with something that the model did not know")
    return 0


@app.command
def score(
    run: Run,
    table: Annotated[Path, Parameter(help="A table like the one the model was trained on.")],
    /,
    *,
    out_file: OutTable = None,
    against: Annotated[
        Path | None,
        Parameter(help="Rows that are held to be normal; by default those that the run held out to test on."),
    ] = None,
    top: Annotated[int, Parameter(help="How many of the strangest rows to show.")] = 5,
    attribution: Annotated[
        bool, Parameter(negative="", help="A column for each column that is modelled: what it adds, in nats.")
    ] = False,
    k: Annotated[int, Parameter(help="Importance samples for each row.")] = 100,
    seed: Seed = 0,
    device: Device = "cpu",
    json: Json = False,
) -> int:
    """How strange the rows of a table are. The table is written again, every row and cell of it, with three columns.

    `score` is minus the bound on log p of the row, in nats: high is strange. `p_value` is the chance that a normal row
    scores as high, by comparison with rows that were not trained on (those that were look more normal than they are).
    `because` names the column that adds most over what it adds in those.
    """
    at_least(0, top=top, seed=seed)
    at_least(1, k=k)
    file = target(out_file, table.with_name(f"{table.name.split('.')[0]}-scored.csv"), TABLES)
    model, coding = _open(run, device, seed)
    import pyarrow as pa

    from ..data.tables.writing import write_table
    from ..evaluation import calibrate
    from ..evaluation import score as score_rows

    source, x, notes = _read(model, coding, table)
    normal, usual = _normal(model, coding, run, against, x, seed)
    found, reference = (score_rows(model, rows, k=k, seed=seed) for rows in (x, normal))
    p_values, excess = calibrate(found.values, reference.values), found.excess(reference)
    cells = _whole(source)
    names = [column.name for column in coding.columns]
    order = excess.nan_to_num(-math.inf).argsort(1, descending=True).tolist()
    blamed = [[i for i in row if known[i]] for row, known in zip(order, (~excess.isnan()).tolist(), strict=True)]
    more = {
        "score": pa.array(found.values.numpy()),
        "p_value": pa.array(p_values.numpy()),
        "because": pa.array([names[row[0]] if row else None for row in blamed], pa.string()),
    }
    if attribution:
        more |= {f"score: {names[i]}": pa.array(excess[:, i].numpy(), from_pandas=True) for i in range(len(names))}
    file.parent.mkdir(parents=True, exist_ok=True)
    written = cells
    for name, array in more.items():
        written = written.append_column(_free(written, name), array)
    write_table(file, written)

    strangest = [
        {
            "row": i + 1,
            "score": found.values[i].item(),
            "p_value": p_values[i].item(),
            "because": [
                {"column": names[j], "value": str(cells.column(names[j])[i]), "excess": excess[i, j].item()}
                for j in blamed[i][:2]
            ],
        }
        for i in found.values.argsort(descending=True, stable=True)[:top].tolist()
    ]
    if json:
        told = {"rows": len(x), "out": str(file), "against": usual, "reference": len(normal), "k": k, "notes": notes}
        print(jsonlib.dumps(told | {"strangest": strangest}))  # noqa: T201
        return 0
    rare = int((p_values <= RARE).sum())
    lines = [
        *notes,
        f"p-values compare with {usual}",
        f"{len(x):,} rows, {rare:,} of them with a p-value of {RARE} or less; of normal rows, about "
        f"{RARE * len(x):,.0f} would have one",
        *_told(strangest),
        f"wrote {file}",
    ]
    for line in lines:
        out.print(line, markup=False)
    return 0


def _open(run: Path, device: str, seed: int) -> "tuple[Model, Coding]":
    """The model of a run, or of a model file, and how the cells of its table are numbers.

    Raises:
        ValueError: It is no model of a table.
    """
    view, coding = alone(run, device, seed)
    if coding is None:
        raise ValueError(
            f"{run} is no model of a table, and only such a model knows what a missing value is. Train one: lowerbound "
            "train table.csv."
        )
    return view.model, coding


def _read(model: Any, coding: "Coding", table: Path) -> "tuple[Source, Tensor, tuple[str, ...]]":
    """A table like the one that was learnt, its rows as numbers (n, d), and what was noticed, a line each.

    Raises:
        ValueError: It has no rows or lacks columns, or a cell holds what the model gives no probability.
    """
    import torch

    from ..choices import check_support
    from ..data.tables.reading import open_table

    source = open_table(table)
    encoded = coding.encode(source)
    if len(encoded.x) == 0:
        raise ValueError(f"{table} has no rows, so there is nothing to do. Give a table with some.")
    tables: dict[str, dict[str, Any]] = {"model": dict(coding.table()), "data": {"name": "table", "path": str(table)}}
    check_support(tables, model.decoder.family.support, encoded.x.float(), torch.arange(1, len(encoded.x) + 1))
    return source, encoded.x, (*source.notes, *encoded.notes)


def _normal(
    model: "Model", coding: "Coding", run: Path, against: Path | None, x: "Tensor", seed: int
) -> "tuple[Tensor, str]":
    """Rows to compare scores with, and what they are, in words: given ones, held-out ones, or those of the model."""
    from ..data import some

    if against:
        _, rows, notes = _read(model, coding, against)
        return rows, "; ".join((f"the {len(rows):,} rows of {against.name}", *notes))
    try:
        _, data = load(run, "cpu")
    except (ValueError, OSError) as error:
        why = re.split(r"[.:] | \(|\.$", str(error))[0]
    else:
        held_out = part(data, "test")
        rows = held_out[some(len(held_out), HELD_OUT)]
        return rows, f"{len(rows):,} rows of {data.name} that the run held out"
    import torch

    from ..evaluation import undisturbed

    with undisturbed(model, seed), torch.no_grad():
        drawn = model.generate(DRAWN).sample().cpu()
    # a row with holes has less to add up: they have those of the rows that are scored
    holes = x[torch.arange(DRAWN) % len(x)].isnan()
    return drawn.masked_fill(holes, math.nan), f"{DRAWN:,} rows drawn from the model itself, because {why}"


def _whole(source: "Source") -> "pyarrow.Table":
    """All cells of a table, as they are."""
    import pyarrow

    return pyarrow.Table.from_batches(source.batches(), source.schema)


def _free(cells: "pyarrow.Table", name: str) -> str:
    """A name that no column has yet: this one, or with a number."""
    names = itertools.chain([name], (f"{name} {i}" for i in itertools.count(2)))
    return next(free for free in names if free not in cells.column_names)


def _beside(filled: "pyarrow.Table", source: "Source", coding: "Coding", uncertainty: "Tensor") -> "pyarrow.Table":
    """A filled table with a column of uncertainty beside each that had holes."""
    import pyarrow
    from pyarrow import compute

    from ..data.tables.cells import tidy

    cells = _whole(source)
    for i, column in enumerate(coding.columns):
        # a level that the model does not know is no hole: it stays as it was
        hole = pyarrow.chunked_array([tidy(chunk, column.missing)[0].is_null() for chunk in cells[column.name].chunks])
        if compute.any(hole).as_py():
            known = pyarrow.scalar(None, pyarrow.float64())
            values = compute.if_else(hole, pyarrow.array(uncertainty[:, i].double().numpy()), known)
            at = filled.schema.get_field_index(column.name) + 1
            filled = filled.add_column(at, _free(filled, f"{column.name} (uncertainty)"), values)
    return filled


def _told(strangest: Sequence[Mapping[str, Any]]) -> list[str]:
    """The strangest rows as lines of a terminal: what is most to blame, and below it what comes next."""
    lines = [f"{'row':>9} {'score':>9} {'p-value':>8}  because (nats more than usual)"] if strangest else []
    for found in strangest:
        begin = f"{found['row']:>9,} {found['score']:>9.1f} {found['p_value']:>8.2g}"
        for cell in found["because"] or [None]:
            why, nats = "nothing of it is known", ""
            if cell:
                why, nats = f"{cell['column']} = {cell['value']}", f" ({cell['excess']:+.1f})"
            room = WIDTH - len(begin) - len(nats) - 2
            lines.append(f"{begin}  {why if len(why) <= room else why[: room - 3] + '...'}{nats}")
            begin = " " * len(begin)
    return lines
