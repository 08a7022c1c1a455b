"""`sample`: new data, of any kind that the model makes or of one that is asked for."""

import math
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .opening import alone, beside
from .output import PICTURES, ROWS, in_memory, put, target
from .terminal import Count, Device, Draw, OutRows, Run, Seed, app, at_least, out

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.tables.where import Where
    from ..models import Model


@app.command
def sample(
    run: Run,
    /,
    *,
    count: Count = 64,
    where: Annotated[
        str | None,
        Parameter(help='Of a table, what rows are to be like: "sex=F, age>=30, state=Texas|Ohio, joined<2015-01-01".'),
    ] = None,
    out_file: OutRows = None,
    draw: Draw = False,
    seed: Seed = 0,
    device: Device = "cpu",
) -> int:
    """New data: z drawn from the prior, and decoded. It needs the model only, not its data.

    Of a table, new rows as a file like it (.csv, .parquet, ...); these are always draws, since a mean row is no row.
    With --where they are drawn from what the model knows of such rows; an effective sample size says how many
    independent rows they are worth.
    """
    from ..views import without_gradients

    at_least(1, count=count)
    view, coding = alone(run, device, seed)
    usual = beside(run) / ("samples.csv" if coding else "samples.png")
    file = target(out_file, usual, ROWS if coding else PICTURES)
    in_memory(view, count)
    if where is None:
        with without_gradients(view.model, seed):
            x = view.generate(count, draw=draw or coding is not None)
    else:
        if coding is None:
            raise ValueError(
                f"--where is about the columns of a table, and {run} is no model of a table: leave it out."
            )
        from ..data.tables.where import read_where

        asked = read_where(where, coding)
        coding = asked.coding
        x = _rows(view.model, asked, count, seed)
    return put(file, lambda: view.sheet(x), {"x": x}, coding)


def _rows(model: "Model", asked: "Where", count: int, seed: int) -> "Tensor":
    """Rows that are as asked for; how well they stand for all such rows is printed."""
    from ..evaluation.conditions import draw_given

    for note in asked.notes:
        out.print(note, markup=False)
    found = draw_given(model, asked.conditions, count, seed=seed)
    fixed = [c for c, value in zip(asked.coding.columns, asked.conditions.fixed, strict=True) if not value.isnan()]
    share = ""
    if all(column.is_level or column.kind == "count" for column in fixed):
        share = f"; {100 * math.exp(found.log_known) * found.share:.3g}% of the model's rows are like that"
    elif asked.conditions.limits:
        names = ", ".join(column.name for column in fixed)
        share = f"; {100 * found.share:.3g}% of the model's rows with that {names} are like that"
    out.print(
        f"effective sample size {found.size:,.0f} for {count:,} rows, of {found.proposals:,} proposals{share}",
        markup=False,
    )
    if found.size < count / 2:
        out.print(
            "the rows come from few latent variables, and differ less than they should: take them for "
            f"{max(1, round(found.size)):,}, or ask for less"
        )
    return found.x
