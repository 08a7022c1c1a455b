"""`sample`: new data, of any kind that the model makes or of one that is asked for."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .opening import alone, beside, check_draw, given, own, told
from .output import PICTURES, ROWS, in_memory, put, target
from .terminal import Count, Device, Draw, Label, OutRows, Run, Seed, app, at_least, out

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.tables.where import Where
    from ..models import Model

# How often an image is completed.
WAYS = 6


@app.command
def sample(
    run: Run,
    what: Annotated[
        Path | None,
        Parameter(help="Of a model that completes images: images to complete. By default held-out ones of the run."),
    ] = None,
    /,
    *,
    count: Count = 64,
    where: Annotated[
        str | None,
        Parameter(help='Of a table, what rows are to be like: "sex=F, age>=30, state=Texas|Ohio, joined<2015-01-01".'),
    ] = None,
    label: Label = None,
    out_file: OutRows = None,
    draw: Draw = False,
    seed: Seed = 0,
    device: Device = "cpu",
) -> int:
    """New data: z drawn from the prior, and decoded. It needs the model only, not its data.

    Of a table, new rows as a file like it (.csv, .parquet, ...); these are always draws, since a mean row is no row.
    With --where they are drawn from what the model knows of such rows; an effective sample size says how many
    independent rows they are worth.

    Of a model that is told labels, of the class that --label names; else of each class in turn, a column each. Of a
    model that completes images, what is known, six ways in which it may go on, and the image itself.
    """
    from ..data import REGIONS
    from ..recipes import given as given_of
    from ..views import without_gradients

    at_least(1, count=count)
    opened = alone(run, device, seed)
    if given_of(opened.table) in REGIONS:
        if label is not None:
            raise ValueError(f"--label is for a model that is told labels, and {run} completes images: leave it out.")
        return _complete(run, what, count, out_file, draw, seed, device)
    if what is not None:
        raise ValueError(f"{run} is no model that completes images, so {what} is of no use to it: leave it out.")
    check_draw(opened, draw)
    view, coding, context = opened.view, opened.coding, told(opened, label, count)
    usual = beside(run) / ("samples.csv" if coding else "samples.png")
    file = target(out_file, usual, ROWS if coding else PICTURES)
    in_memory(view, count)
    if where is None:
        with without_gradients(view.model, seed):
            x = view.generate(count, context=context, draw=draw or coding is not None)
    else:
        if coding is None:
            raise ValueError(
                f"--where is about the columns of a table, and {run} is no model of a table: leave it out."
            )
        from ..data.tables.where import read_where

        asked = read_where(where, coding)
        coding = asked.coding
        x = _rows(view.model, asked, count, seed)
    classes = min(count, int(opened.table["classes"])) if context and label is None else 0
    return put(file, lambda: view.sheet(x, classes or None), {"x": x}, coding)


def _complete(
    run: Path, what: Path | None, count: int, out_file: Path | None, draw: bool, seed: int, device: str
) -> int:
    """Images of which a part is known, a row each: that part, several ways to go on, and the image itself."""
    import torch

    from ..data import some
    from ..views import without_gradients

    file = target(out_file, beside(run) / "samples.png", PICTURES)
    opened = own(run, device, "test", seed) if what is None else given(run, what, device, seed)
    view = opened.view
    n = max(1, count // (WAYS + 2))
    chosen = some(len(opened.x), n, seed) if what is None else slice(n)
    x, known = opened.x[chosen], opened.context[0][chosen]
    in_memory(view, len(x) * WAYS)
    with without_gradients(view.model, seed):
        made = view.generate(len(x) * WAYS, context=(known.repeat_interleave(WAYS, 0),), draw=draw)
    made = made.unflatten(0, (len(x), WAYS))
    middle = torch.where(known.isnan(), (view.low + view.high) / 2, known)
    shown = torch.cat((middle[:, None], made, x[:, None]), 1)
    return put(file, lambda: view.strips(shown), {"x": made, "known": known, "original": x}, opened.coding)


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
