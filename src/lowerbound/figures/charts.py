"""Charts of one run: how training went, where the data lie in the latent space, what each dimension carries.

Axes: ``n`` rows, ``d`` dimensions.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from .canvas import BLUE, CLASSES, FAINT, INK, ORANGE, QUIET, canvas, plain

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure


def curves(log: Sequence[Mapping[str, Any]]) -> "matplotlib.figure.Figure":
    """Bound, rate and distortion against the step: batches as a thin line, validations as strong ones.

    Panels that have no finite number in them are left out. The axes show what training settled to, not the wild
    numbers it began with.

    Args:
        log: One mapping for each logged step, with `step`, `bound`, `rate`, `distortion`, and where it validated
            `valid_bound`, `train_bound` and so on; nats. A number may be None.
    """
    panels = [
        ("bound", "Bound: higher is better"),
        ("rate", "Rate: nats in the code"),
        ("distortion", "Distortion: nats left to say"),
    ]
    panels = [panel for panel in panels if _series(log, panel[0]) or _series(log, f"valid_{panel[0]}")]
    figure, all_axes = canvas(9.2, 2.7, max(1, len(panels)))
    for axes, (name, title) in zip(all_axes, panels, strict=False):
        batch = _series(log, name)
        strong = {
            "training": (_series(log, f"train_{name}"), BLUE),
            "held out": (_series(log, f"valid_{name}"), ORANGE),
        }
        axes.set_title(title, loc="left", fontsize=9.5, color=INK)
        axes.set_xlabel("step")
        axes.plot(*_xy(batch), color=FAINT, linewidth=0.9, zorder=1)
        for points, colour in (strong["training"], strong["held out"]):
            marker = "o" if len(points) == 1 else None
            axes.plot(*_xy(points), color=colour, linewidth=1.6, marker=marker, markersize=4, zorder=2)
        _limits(axes, batch, [points for points, _ in strong.values()])
        _end_labels(axes, [(label, points[-1], colour) for label, (points, colour) in strong.items() if points])
    return figure


def latent_map(
    points: Float[Tensor, "n 2"],
    labels: Num[Tensor, " n"] | None = None,
    *,
    names: Sequence[str] = (),
    axes_titles: tuple[str, str] = ("", ""),
    title: str = "",
    circles: bool = False,
    size: float = 4.5,
) -> "matplotlib.figure.Figure":
    """Points of a plane, coloured by their labels.

    Whole numbers with few values are classes, named where they lie; anything else has a continuous colour.

    Args:
        points: Where.
        labels: What colours them; one colour for all if not given.
        names: Names of the classes 0, 1, ...; their numbers if not given.
        axes_titles: What the two directions are.
        title: What the colour is.
        circles: Whether to draw where a standard normal has one and two standard deviations.
        size: Width in inches.
    """
    points = points.detach().cpu().double()
    figure, (axes,) = canvas(size, size, 1)
    axes.set_xlabel(axes_titles[0])
    axes.set_ylabel(axes_titles[1])
    axes.set_title(plain(title), loc="left", fontsize=9.5, color=INK)
    axes.grid(False)
    values = None if labels is None else labels.detach().cpu()
    classes = [] if values is None else values.unique().tolist()
    x, y = points.numpy().T
    if values is None:
        dots = axes.scatter(x, y, color=BLUE)
    elif values.is_floating_point() or len(classes) > 40:
        dots = axes.scatter(x, y, c=values.double().numpy(), cmap="viridis")
        bar = figure.colorbar(dots, ax=axes, shrink=0.6, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize=8, colors=QUIET)
    else:
        colours = _class_colours(len(classes))
        # a class drawn last would hide the others: all points in one call, in their own order
        dots = axes.scatter(x, y, color=[colours[classes.index(value)] for value in values.tolist()])
        _name_classes(axes, points, values, classes, names, colours)
    dots.set(sizes=[max(7.0, min(26.0, 9000 / max(1, len(points))))], linewidths=0, alpha=0.75)
    if circles:
        _circles(axes)
    axes.set_aspect("equal", adjustable="datalim")
    return figure


def kl_bars(
    values: Float[Tensor, " d"],
    active: Bool[Tensor, " d"] | None = None,
    *,
    unit: str = "nats",
    title: str = "KL of each latent dimension",
    noun: str = "dimension",
    ordered: bool = True,
    size: tuple[float, float] = (4.5, 3.2),
) -> "matplotlib.figure.Figure":
    """What each latent dimension carries, as bars, largest first; those that are not active in grey.

    Args:
        values: Nats, or whatever the unit says.
        active: Which are in use; all if not given.
        unit: Of the values.
        title: What they are.
        noun: What each of them is of.
        ordered: Whether to sort them.
        size: Width and height in inches.
    """
    values = values.detach().cpu().double().nan_to_num(0.0, 0.0, 0.0)
    active = torch.ones(len(values), dtype=torch.bool) if active is None else active.detach().cpu()
    order = values.argsort(descending=True, stable=True) if ordered else torch.arange(len(values))
    figure, (axes,) = canvas(*size, 1)
    few = len(values) <= 40
    axes.bar(
        range(len(values)),
        values[order].tolist(),
        width=0.8 if few else 1.0,
        color=[BLUE if active[i] else "#b8bec7" for i in order],
        linewidth=0,
    )
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=min(0.0, values.min().item()))
    if few:
        axes.set_xticks(range(len(values)), [str(i.item()) for i in order], fontsize=8 if len(values) <= 20 else 6)
        axes.set_xlabel(noun)
    else:
        axes.set_xlabel(f"{noun}, largest first" if ordered else noun)
    return figure


def vectors(
    rows: Float[Tensor, "n d"], *, names: Sequence[str] = (), group: int = 0, title: str = ""
) -> "matplotlib.figure.Figure":
    """Rows that are not images, as a heat map: one line a row, one column a dimension.

    Args:
        rows: Values from 0 (dark) to 1 (light).
        names: Of the columns; their numbers if not given.
        group: Rows that belong together; a gap sets each group off. 0 for none.
        title: What they are.
    """
    rows = rows.detach().cpu().float().clamp(0, 1)
    n, d = rows.shape
    line = max(0.04, min(0.2, 6 / n))
    figure, (axes,) = canvas(max(4.5, min(9.2, 1 + 0.5 * d)), 0.75 + line * n, 1)
    axes.imshow(rows.numpy(), aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    for start in range(group, n, group) if group > 1 else ():
        axes.axhline(start - 0.5, color="white", linewidth=max(1.5, 0.2 * line * 72))
    axes.spines[:].set_visible(False)
    axes.grid(False)
    axes.set_yticks([])
    # names stand upright, so that more of them have room
    shown = range(d) if d <= (40 if names else 16) else sorted({round(i * (d - 1) / 8) for i in range(9)})
    if names:
        axes.set_xticks(shown, [names[i] for i in shown], rotation=90)
    else:
        axes.set_xticks(shown)
        axes.set_xlabel("column")
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    return figure


def _series(log: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of every entry that has a finite one."""
    pairs = [(entry["step"], entry.get(key)) for entry in log]
    return [(float(step), float(value)) for step, value in pairs if value is not None and math.isfinite(value)]


def _xy(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _limits(
    axes: "matplotlib.axes.Axes", batch: list[tuple[float, float]], strong: list[list[tuple[float, float]]]
) -> None:
    """Limits that hold all but the first tenth of the lines, and all but the extremes of the noisy one."""
    start = 0.1 * max(x for points in (batch, *strong) for x, _ in points)
    shown = [y for points in strong for x, y in points if x > start or len(points) == 1]
    noisy = torch.tensor([y for x, y in batch if x > start], dtype=torch.float64)
    if len(noisy):
        shown += torch.quantile(noisy, torch.tensor([0.02, 0.98], dtype=torch.float64)).tolist()
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    margin = 0.08 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)


def _end_labels(axes: "matplotlib.axes.Axes", ends: list[tuple[str, tuple[float, float], str]]) -> None:
    """Names of lines at their right ends, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    apart = 0.1 * (high - low)
    ends = sorted(ends, key=lambda end: end[1][1])
    heights = [min(max(y, low), high) for _, (_, y), _ in ends]
    for i, (below, above) in enumerate(pairwise(heights)):
        missing = max(0.0, apart - (above - below))
        heights[i] -= missing / 2
        heights[i + 1] += missing / 2
    for (label, (x, _), colour), y in zip(ends, heights, strict=True):
        style: dict[str, Any] = {"color": colour, "fontsize": 8.5, "va": "center", "annotation_clip": False}
        axes.annotate(label, (x, y), xytext=(5, 0), textcoords="offset points", **style)


def _class_colours(count: int) -> Sequence[Any]:
    if count <= len(CLASSES):
        return CLASSES
    import matplotlib

    return [matplotlib.colormaps["turbo"](0.05 + 0.9 * i / (count - 1)) for i in range(count)]


def _name_classes(
    axes: "matplotlib.axes.Axes",
    points: Tensor,
    values: Tensor,
    classes: list[int],
    names: Sequence[str],
    colours: Sequence[Any],
) -> None:
    """Each class's name at the median of its points; beside them all, where two of few names would overlap."""
    found = [names[value] if 0 <= value < len(names) else str(value) for value in classes]
    found = [name if len(name) <= 24 else f"{name[:23]}…" for name in (" ".join(name.split()) for name in found)]
    medians = torch.stack([points[values == value].median(0).values for value in classes])
    apart = torch.pdist(medians).min() if len(classes) > 1 else math.inf
    if apart < 0.08 * (points.amax(0) - points.amin(0)).max() and len(classes) <= len(CLASSES):
        for name, colour in zip(found, colours, strict=False):
            # matplotlib leaves out of a legend what starts with an underscore
            axes.scatter([], [], color=colour, label=plain(f" {name}"), s=26, linewidths=0)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8, handletextpad=0.2)
        return
    for name, colour, (x, y) in zip(found, colours, medians.tolist(), strict=False):
        label = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour, "linewidth": 1.2, "alpha": 0.9}
        text = axes.text(x, y, name, color=INK, fontsize=8, ha="center", va="center", zorder=5, bbox=label)
        text.set_parse_math(False)


def _circles(axes: "matplotlib.axes.Axes") -> None:
    from matplotlib.patches import Circle

    for radius in (1, 2):
        axes.add_patch(Circle((0, 0), radius, fill=False, color=QUIET, linewidth=0.8, alpha=0.6, linestyle=(0, (4, 3))))
        at = radius / math.sqrt(2)
        axes.annotate(f"{radius}σ", (at, -at), color=QUIET, fontsize=8, ha="left", va="top")
