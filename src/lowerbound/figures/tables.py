"""Figures of tables: the distribution of each column in two sets of rows, and how pairs of columns hang together.

Axes: ``n``, ``m`` rows, ``d`` columns.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..columns import Column
from .canvas import FAINT, INK, ORANGE, QUIET, canvas, plain

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

ACROSS = 4
# Of a histogram at most; of few rows fewer, or their noise is all there is to see.
BINS = 28
# Bars of a column of levels: the most frequent ones, and one for the rest.
BARS = 7
NAMED = 24
REAL = "#b8bec7"


def marginals(
    columns: Sequence[Column],
    real: Float[Tensor, "n d"],
    synthetic: Float[Tensor, "m d"],
    notes: Sequence[str] = (),
) -> "matplotlib.figure.Figure":
    """The distribution of each column, in real rows as grey bars and in synthetic ones in orange, as small multiples.

    Numbers outside all but 1 % of the real ones are not shown; nor is what is missing.

    Args:
        columns: What the rows hold.
        real: Rows, NaN where a value is missing.
        synthetic: Other rows.
        notes: A few words under the name of each column.
    """
    from matplotlib.gridspec import GridSpec

    lines = math.ceil(len(columns) / ACROSS)
    figure, all_axes = canvas(9.2, 0.2 + 1.75 * lines, len(columns))
    grid = GridSpec(lines, ACROSS, figure)
    for i, (axes, column) in enumerate(zip(all_axes, columns, strict=True)):
        axes.set_subplotspec(grid[i])
        values = [rows[:, i].detach().cpu().double() for rows in (real, synthetic)]
        known = [one[~one.isnan()] for one in values]
        if all(len(one) for one in known):
            (_bars if column.is_level else _histogram)(axes, column, *known)
        axes.tick_params(labelsize=7)
        title = column.name if len(column.name) <= 26 else f"{column.name[:25]}…"
        axes.set_title(plain(title), loc="left", fontsize=9, color=INK, pad=14 if notes else 5)
        if notes:
            axes.text(0, 1.03, notes[i], transform=axes.transAxes, fontsize=7, color=QUIET, va="bottom")
    return figure


def associations(
    names: Sequence[str], real: Float[Tensor, "d d"], synthetic: Float[Tensor, "d d"]
) -> "matplotlib.figure.Figure":
    """How pairs of columns hang together in real rows and in synthetic ones, and the difference, as heat maps.

    Args:
        names: Of the columns.
        real: From -1 to 1; NaN, and white, where there is none.
        synthetic: The same of other rows.
    """
    figure, all_axes = canvas(9.2, 3.85, 3)
    short = [plain(name if len(name) <= 14 else f"{name[:13]}…") for name in names]
    off = synthetic - real
    # what is hardly a difference shall not look like one
    reach = max(0.2, float(off.abs().nan_to_num().max()))
    panels = (("held-out rows", real, 1.0), ("synthetic rows", synthetic, 1.0), ("synthetic less held-out", off, reach))
    pictures = []
    for axes, (title, values, limit) in zip(all_axes, panels, strict=True):
        apart = values.detach().cpu().double().masked_fill(torch.eye(len(values), dtype=torch.bool), torch.nan)
        pictures.append(axes.imshow(apart.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"))
        axes.set_title(title, loc="left", fontsize=9.5, color=INK)
        axes.spines[:].set_visible(False)
        axes.grid(False)
        shown = short if len(short) <= NAMED else []
        axes.set_xticks(range(len(shown)), shown, rotation=90, fontsize=7)
        beside = shown if axes is all_axes[0] else []
        axes.set_yticks(range(len(beside)), beside, fontsize=7)
    for picture, beneath, limit in ((pictures[0], all_axes[:2], 1.0), (pictures[2], all_axes[2:], reach)):
        bar = figure.colorbar(picture, ax=beneath, location="bottom", shrink=0.8 / len(beneath), aspect=30, pad=0.03)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize=7, colors=QUIET)
        bar.set_ticks([-limit, 0, limit], labels=[f"−{limit:.2g}", "0", f"{limit:.2g}"])
    return figure


def _bars(axes: "matplotlib.axes.Axes", column: Column, real: Tensor, synthetic: Tensor) -> None:
    """Shares of levels: the most frequent ones from the top, in their own order where they have one."""
    shares = torch.stack([one.long().bincount(minlength=len(column.levels)) / len(one) for one in (real, synthetic)])
    order = shares.mean(0).argsort(descending=True, stable=True)
    shown = order if len(order) <= BARS + 1 else order[:BARS]
    if column.kind == "ordinal":
        shown = shown.sort().values
    names = [column.levels[level] for level in shown]
    found = shares[:, shown]
    if len(shown) < len(order):
        names.append(f"{len(order) - len(shown)} more")
        found = torch.cat([found, (1 - found.sum(1, keepdim=True)).clamp(min=0)], 1)
    places = torch.arange(len(names)).double()
    axes.barh((places - 0.2).tolist(), found[0].tolist(), height=0.4, color=REAL, linewidth=0)
    axes.barh((places + 0.2).tolist(), found[1].tolist(), height=0.4, color=ORANGE, linewidth=0)
    axes.set_yticks(range(len(names)), [plain(name if len(name) <= 12 else f"{name[:11]}…") for name in names])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(_ticks())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _histogram(axes: "matplotlib.axes.Axes", column: Column, real: Tensor, synthetic: Tensor) -> None:
    """Shares of equal bins; of whole numbers that are close together, a bin each."""
    real, synthetic = (one + (column.origin or 0.0) for one in (real, synthetic))
    bins = max(6, min(BINS, round(2 * len(real) ** (1 / 3))))
    low, high = torch.quantile(real, torch.tensor([0.005, 0.995], dtype=real.dtype)).tolist()
    if column.period is not None:
        low, high = 0.0, column.period
    if column.decimals == 0 and not column.is_date:
        # bins of as many whole numbers each, or the bars would come and go
        width = max(1, math.ceil((high - low + 1) / bins))
        edges = torch.arange(math.floor(low), math.ceil(high) + width + 1, width, dtype=real.dtype) - 0.5
    else:
        low, high = (low, high) if low < high else (low - 0.5, low + 0.5)
        edges = torch.linspace(low, high, bins + 1)
    heights = [torch.histogram(one.float(), edges.float()).hist / len(one) for one in (real, synthetic)]
    axes.stairs(heights[0].numpy(), edges.numpy(), fill=True, color=REAL, linewidth=0)
    axes.stairs(heights[1].numpy(), edges.numpy(), color=ORANGE, linewidth=1.4)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    if column.is_date:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=2, maxticks=4)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
        return
    axes.xaxis.set_major_locator(_ticks())
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))


def _ticks() -> "matplotlib.ticker.MaxNLocator":
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4, steps=[1, 2, 5, 10])


def _short(value: float) -> str:
    """A number in a few characters."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if letter == 'k' else size):g}{letter}".replace("-", "−")
    return f"{value:g}".replace("-", "−")
