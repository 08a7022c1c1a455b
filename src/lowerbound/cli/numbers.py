"""`evaluate`: bounds, and how good the rows of a model of a table are, in words or as JSON."""

import json as jsonlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.markup import escape

from .terminal import Device, Json, Run, Seed, Split, app, at_least, load, out, part

if TYPE_CHECKING:
    from rich.table import Table

    from ..data import Data
    from ..evaluation import Evaluation, Refinement
    from ..metrics import Estimate
    from ..synthesis import Assessment, Comparison

LINES = 40
SCORES = {"f1_macro": "mean F1 of its levels", "accuracy": "accuracy", "auc": "AUC", "r2": "R²"}


@app.command
def evaluate(
    run: Run, /, *, split: Split = "test", k: int = 1000, seed: Seed = 0, rows: int = 0,
    refine: int = 0, target: str | None = None, bound_only: Annotated[bool, Parameter(negative="")] = False,
    device: Device = "cpu", json: Json = False,
) -> int:  # fmt: skip
    """Bounds on log p(x) of held-out data, with their standard errors.

    Of a table also what each column adds, how well hidden entries are filled, and how good synthetic rows are: whether
    they look like real ones, serve like real ones, and give away the rows that were trained on.

    Args:
        run: The folder of the run.
        split: Which rows: train, valid or test.
        k: Importance samples for each datum.
        seed: Of the samples.
        rows: How many rows to take the bound of, chosen at random; 0 for all.
        refine: Steps by which the posterior of each datum is improved, beginning at the encoder's; the bound with these
            stands beside the other then. 0 for none; 20 to 100 do well.
        target: A column of a table to predict by training on synthetic rows; by default the target of its data.
        bound_only: Leave out all but the bound.
        device: Where to compute: cpu, cuda.
        json: Print JSON only.
    """
    from ..data import some
    from ..evaluation import evaluate as evaluate_model
    from ..evaluation import refined_bound
    from ..experiment import has_likelihood, is_probability, read_run

    at_least(1, k=k)
    at_least(0, rows=rows, seed=seed, refine=refine)
    model, data = load(run, device)
    x = part(data, split)
    target = _target(run, data, target)
    why_not = "asked for the bound only" if bound_only else _why_not(data, split)
    labels = data.labels_of(split, rows)
    x, *context = (t[some(len(x), rows)] if rows else t for t in (x, *data.context(split)))
    found = evaluate_model(
        model,
        x,
        *context,
        k=k,
        seed=seed,
        discrete=is_probability(model, data),
        dims=data.dims,
        labels=labels,
        likelihood=has_likelihood(read_run(run)),
    )
    if refine and not found.is_bound:
        raise ValueError(
            f"--refine {refine} improves a bound, and there is none: {found.no_bound}. Leave --refine out."
        )
    refined = refined_bound(model, x, *context, steps=refine, k=k, seed=seed) if refine else None
    more = None
    if data.columns and not why_not:
        from ..synthesis import assess

        more = assess(model, data, split=split, target=target, seed=seed)
    if json:
        table = {"table": None if more is None else more.summary()} if data.columns else {}
        refinement = {"refinement": refined.summary()} if refined else {}
        print(jsonlib.dumps({"split": split} | found.summary() | refinement | table))  # noqa: T201
        return 0
    for line in in_words(found, data, split):
        out.print(line)
    if refined is not None:
        _refinement(refined, data.explained)
    if more is not None:
        _show(more, data, split)
    elif data.columns and not bound_only:
        out.print(f"\nnothing on columns and synthetic rows: {why_not}", soft_wrap=True)
    return 0


def in_words(found: "Evaluation", data: "Data", split: str) -> list[str]:
    """An evaluation in words, for a terminal."""
    n, rows = len(found.values), len(data.split[split])
    of = f"{n:,} row" if n == rows == 1 else f"the {n:,} rows" if n == rows else f"{n:,} of the {rows:,} rows"
    used = f"{found.active_units} of {found.units} {found.unit}s active"
    if not found.is_bound:
        spent = f"distortion {found.distortion} nats (-log p(x|z))" if found.likelihood else f"rate {found.rate} nats"
        return [
            f"on {of} of the {split} split: [bold]no bound[/bold]. {found.no_bound[0].upper()}{found.no_bound[1:]}.",
            f"{spent}; {used}",
        ]
    bits = f" = {found.bits_per_dim} bits/dim" if found.bits_per_dim else ""
    samples = "1 sample" if found.k == 1 else f"{found.k:,} samples"
    return [
        f"on {of} of the {split} split, importance-weighted with {samples} each:",
        f"[bold]log p({data.explained}) >= {found.bound} nats[/bold]{bits}",
        f"ELBO {found.elbo} = -(distortion {found.distortion} + rate {found.rate}); {used}",
        *([f"{found.accuracy * 100} % of the classes are right, none being told"] if found.accuracy else []),
    ]


def _refinement(found: "Refinement", explained: str) -> None:
    """The bound with the encoder's posteriors and with refined ones, a row each."""
    from rich.table import Table

    from ..metrics import Estimate

    steps = f"{found.steps:,} step{'s' * (found.steps > 1)}"
    out.print(f"\n[bold]refined posteriors[/bold], {steps} for each datum from the encoder's, with the same noise")
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column(f"log p({explained}) >=", justify="right", no_wrap=True)
    table.add_column("ELBO", justify="right", no_wrap=True)
    for name, bound, elbo in (
        ("the encoder's", found.amortised, found.amortised_elbo),
        ("refined", found.refined, found.refined_elbo),
    ):
        table.add_row(name, _text(Estimate.of(bound)), _text(Estimate.of(elbo)))
    table.add_row("difference", _text(found.gain), _text(found.elbo_gain))
    out.print(table)
    kept = found.better.float().mean().item()
    out.print(f"[dim]{kept:.0%} of the data keep the refined posterior: the others had the better one already.[/dim]")


def _target(run: Path, data: "Data", asked: str | None) -> str | None:
    """The column to predict: the one asked for, or the one that the run's data have for a target.

    Raises:
        ValueError: There is no such column.
    """
    from .. import experiment
    from ..run import hint

    names = [column.name for column in data.columns]
    if asked is None:
        return experiment.read_run(run)["data"].get("target") if names else None
    if asked not in names:
        there = f"the columns are {', '.join(names[:20])}" if names else "the data are no table"
        raise ValueError(f"--target {asked}: there is no such column{hint(asked, names)}: {there}.")
    return asked


def _why_not(data: "Data", split: str) -> str:
    """Why synthetic rows cannot be held against those of a split; nothing if they can."""
    if split == "train":
        return "they are held against rows that were not trained on. Ask for --split test"
    few = min(len(data.split["train"]), len(data.split[split]))
    return f"{few:,} rows are too few to hold them against. It takes 10 held-out rows" if few < 10 else ""


def _show(found: "Assessment", data: "Data", split: str) -> None:
    """Columns, and synthetic rows, as two tables."""
    likeness, privacy = found.fidelity, found.privacy
    whole = len(data.split[split])
    of = f"the {whole:,}" if found.rows == whole else f"{found.rows:,} of the {whole:,}"
    out.print(f"\n[bold]columns[/bold], on {of} rows of the {split} split")
    out.print(_columns(found))
    if len(found.names) > LINES:
        out.print(f"and {len(found.names) - LINES:,} more, whose distributions are nearer: --json has them all")
    code = "" if found.bounds is None else f"nats: added to log p(x) by each; the code adds {found.bounds.code}. "
    for line in (
        f"{code}filled: the error where an entry was hidden, in standard deviations or in % wrong; guess: that of "
        "the mean or of the most frequent level.",
        "off: how far the distribution in synthetic rows is from that in held-out rows (Kolmogorov-Smirnov, total "
        f"variation); real: the same for training rows. Means over {likeness.sets} sets of {likeness.rows:,} rows.",
    ):
        out.print(f"[dim]{line}[/dim]")
    out.print(f"\n[bold]synthetic rows[/bold], {likeness.rows:,} at a time, beside what a perfect model would get")
    out.print(_rows(found))
    if found.utility is None:
        out.print("[dim]whether something can be learnt from them: name a column to predict with --target.[/dim]")
    else:
        sizes = f"{found.utility.rows:,} rows each, tested on {found.utility.tested:,} held-out ones"
        out.print(f"[dim]predicted: by gradient boosting, trained on {sizes}.[/dim]")
    out.print("[dim]AUC: area under the curve; 0.5 is chance. membership: whether a row was trained on.[/dim]")
    out.print(
        f"[dim]training rows: {privacy.rows:,} synthetic and as many held-out rows against {privacy.bank:,} of them. "
        "Holes are no part of any comparison: synthetic rows are given those of real ones.[/dim]"
    )


def _columns(found: "Assessment") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("column", no_wrap=True, max_width=20, overflow="ellipsis")
    for title in ("nats", "filled", "guess", "off", "real"):
        table.add_column(title, justify="right", no_wrap=True)
    marginals = found.fidelity.marginals
    excess = [m.distance.synthetic.mean - m.distance.real.mean for m in marginals]
    worst = sorted(range(len(marginals)), key=lambda i: (math.isnan(excess[i]), -excess[i]))[:LINES]
    for i in sorted(worst):
        nats = "-" if found.bounds is None else _text(found.bounds.columns[i])
        imputed, distance = found.imputed[i], marginals[i].distance
        level = marginals[i].column.is_level
        filled = [_percent(value) if level else _text(value) for value in (imputed.error, imputed.guess)]
        guess = filled[1].partition(" ±")[0] + (" %" if level and "±" in filled[1] else "")
        real = _text(distance.real).partition(" ±")[0]
        table.add_row(escape(found.names[i]), nats, filled[0], guess, _text(distance.synthetic), real)
    return table


def _rows(found: "Assessment") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("synthetic", justify="right", no_wrap=True)
    table.add_column("perfect", justify="right", no_wrap=True)
    likeness, privacy = found.fidelity, found.privacy
    if likeness.pairs is not None:
        table.add_row("associations of pairs, off by", *map(_text, _both(likeness.pairs)))
    table.add_row("told from held-out rows, AUC", *map(_text, _both(likeness.told_apart)))
    if found.utility is not None:
        target = found.utility.target
        target = escape(target if len(target) <= 16 else f"{target[:15]}…")
        for name, score in found.utility.scores.items():
            table.add_row(f"{target} predicted, {SCORES[name]}", *map(_text, _both(score)))
    table.add_row("closest training row, median distance", *map(_text, _both(privacy.median)))
    table.add_row("closest training row, 5 % quantile", *map(_text, _both(privacy.nearest)))
    table.add_row("copies of training rows", *map(_percent, _both(privacy.copies)))
    table.add_row("nearer to training than to held-out rows", _percent(privacy.nearer), "50 %")
    table.add_row("membership told by synthetic rows, AUC", _text(privacy.by_rows), "0.5")
    if privacy.by_bound is not None:
        table.add_row("membership told by the bound, AUC", _text(privacy.by_bound), "0.5")
    return table


def _both(found: "Comparison") -> tuple["Estimate", "Estimate"]:
    return found.synthetic, found.real


def _text(value: "Estimate") -> str:
    return str(value) if math.isfinite(value.mean) else "-"


def _percent(value: "Estimate") -> str:
    return f"{value * 100.0} %" if math.isfinite(value.mean) else "-"
