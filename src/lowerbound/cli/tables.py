"""`impute` and `score`: what rows of a table lack, and how strange they are, by a model of such tables."""

import itertools
import json as jsonlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .opening import Tabular, of_tables, read_rows
from .output import TABLES, target
from .terminal import Device, Json, Run, Seed, app, at_least, load, out, part

if TYPE_CHECKING:
    import pyarrow
    from torch import Tensor

    from ..data.tables.coding import Coding

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

    Numbers become their mean given the rest of the row, levels in order their median, others the likeliest. With
    --draws they are drawn from what they could be, which is what a calculation with error bars needs: do it with each
    file, and compare.
    """
    at_least(0, draws=draws, seed=seed)
    at_least(1, k=k)
    if draws and uncertainty:
        raise ValueError("--uncertainty is of the single best filling, and draws show theirs: leave one of them out.")
    file = target(out_file, table.with_name(f"{table.name.split('.')[0]}-filled.csv"), TABLES)
    learnt = of_tables(run, device, seed)
    model, coding = learnt.model, learnt.coding
    from ..data.tables.writing import write_table
    from ..evaluation import impute as fill
    from ..evaluation import impute_with_uncertainty

    rows = read_rows(learnt, table)
    for note in rows.notes:
        out.print(note, markup=False)
    whole, x = rows.source.whole(), rows.x
    if uncertainty:
        found = impute_with_uncertainty(model, x, coding.columns, k=k, seed=seed)
        fillings = found.rows[None]
    else:
        drawn = fill(model, x, k=k, draws=draws, seed=seed)
        fillings = drawn if draws else drawn[None]
    file.parent.mkdir(parents=True, exist_ok=True)
    for i, filling in enumerate(fillings, 1):
        place = file.with_name(f"{file.name.split('.')[0]}-{i:02}{''.join(file.suffixes)}") if draws else file
        full = _typed(coding.fill(whole, filling), coding, place)
        write_table(place, _beside(full, whole, coding, found.uncertainty) if uncertainty else full)
        out.print(f"wrote {place}", markup=False, soft_wrap=True)
    before, after = (coding.holes(cells) for cells in (whole, full))
    filled = _count(before) - _count(after)
    out.print(f"{len(x):,} row{'s' * (len(x) != 1)}, holes in them: {_count(before):,}, of these filled: {filled:,}")
    for name, holes in after.items():
        if left := _count({name: holes}):
            out.print(
                f"{name}: holes that stay, as the model does not know what they could hold: {left:,}", markup=False
            )
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
        bool,
        Parameter(
            negative="", help="A column for each one that is modelled: what it adds over what is usual, in nats."
        ),
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
    learnt = of_tables(run, device, seed)
    model, coding = learnt.model, learnt.coding
    import pyarrow as pa

    from ..data.tables.writing import write_table
    from ..evaluation import calibrate
    from ..evaluation import score as score_rows

    rows = read_rows(learnt, table)
    x = rows.x
    normal, usual, more = _normal(learnt, run, against, x, seed)
    found, reference = (score_rows(model, some, k=k, seed=seed) for some in (x, normal))
    p_values, excess = calibrate(found.values, reference.values), found.excess(reference)
    notes = [*rows.notes, *more]
    cells = rows.source.whole()
    names = [column.name for column in coding.columns]
    order = excess.nan_to_num(-math.inf).argsort(1, descending=True).tolist()
    blamed = [[i for i in row if known[i]] for row, known in zip(order, (~excess.isnan()).tolist(), strict=True)]
    beside = {
        "score": pa.array(found.values.float().numpy()),
        "p_value": pa.array(p_values.float().numpy()),
        "because": pa.array([names[row[0]] if row else None for row in blamed], pa.string()),
    }
    if attribution:
        each = excess.float().numpy()
        beside |= {f"score: {name}": pa.array(each[:, i], from_pandas=True) for i, name in enumerate(names)}
    file.parent.mkdir(parents=True, exist_ok=True)
    written = _typed(cells, coding, file)
    for name, array in beside.items():
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


def _normal(
    learnt: Tabular, run: Path, against: Path | None, x: "Tensor", seed: int
) -> "tuple[Tensor, str, tuple[str, ...]]":
    """Rows to compare scores with: given ones, held-out ones, or those of the model; what they are, and notes."""
    from ..data import some

    if against:
        rows = read_rows(learnt, against)
        return rows.x, f"the {len(rows.x):,} rows of {against.name}", rows.notes
    try:
        _, data = load(run, "cpu")
    except (ValueError, OSError) as error:
        why = re.split(r"[.:] | \(|\.$", str(error))[0]
    else:
        held_out = part(data, "test")
        chosen = held_out[some(len(held_out), HELD_OUT)]
        return chosen, f"{len(chosen):,} rows of {data.name} that the run held out", ()
    import torch

    from ..evaluation import undisturbed

    with undisturbed(learnt.model, seed), torch.no_grad():
        drawn = learnt.model.generate(DRAWN).sample().cpu()
    # a row with holes has less to add up: they have those of the rows that are scored
    holes = x[torch.arange(DRAWN) % len(x)].isnan()
    return drawn.masked_fill(holes, math.nan), f"{DRAWN:,} rows drawn from the model itself, because {why}", ()


def _typed(table: "pyarrow.Table", coding: "Coding", file: Path) -> "pyarrow.Table":
    """A table in the types that were learnt where the file has types, else to the letter."""
    from ..data.tables.writing import TEXT

    return table if TEXT.keys() & {suffix.lower() for suffix in file.suffixes} else coding.typed(table)


def _count(holes: Mapping[str, Any]) -> int:
    """How many cells are missing."""
    return int(sum(hole.to_numpy().sum() for hole in holes.values()))


def _free(cells: "pyarrow.Table", name: str) -> str:
    """A name that no column has yet: this one, or with a number."""
    names = itertools.chain([name], (f"{name} {i}" for i in itertools.count(2)))
    return next(free for free in names if free not in cells.column_names)


def _beside(
    filled: "pyarrow.Table", whole: "pyarrow.Table", coding: "Coding", uncertainty: "Tensor"
) -> "pyarrow.Table":
    """A filled table with a column of uncertainty beside each that had holes."""
    import pyarrow
    from pyarrow import compute

    holes = coding.holes(whole)
    for i, column in enumerate(coding.columns):
        hole = holes[column.name]
        if compute.any(hole).as_py():
            known = pyarrow.scalar(None, pyarrow.float32())
            values = compute.if_else(hole, pyarrow.array(uncertainty[:, i].float().numpy()), known)
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
