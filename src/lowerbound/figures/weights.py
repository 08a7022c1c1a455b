"""Charts of many models that differ in one number: what each has become, side by side.

Weights stand at equal distances, since 0, 0.1 and 8 fit no scale. Where there are several seeds a value is their mean,
and its band is one standard error of it on either side; with one seed the band is the error of the measurement.

Axes: ``w`` weights, ``r`` rows of pictures, ``c`` columns of pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .canvas import BLUE, FAINT, INK, ORANGE, QUIET, canvas
from .sheets import grid

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

# A code of fewer nats than this says nothing.
COLLAPSED = 0.1
COLOURS = (BLUE, ORANGE, "#117733", "#882255")


@dataclass(frozen=True)
class Line:
    """One quantity over the weights: its values, their errors, and what it is for the model that has no weight."""

    label: str
    values: Sequence[float]
    errors: Sequence[float]
    reference: float | None = None


@dataclass(frozen=True)
class Panel:
    """Lines that share an axis.

    Attributes:
        title: What is shown.
        lines: At most four.
        marks: Heights to mark, by name: chance, a limit.
    """

    title: str
    lines: Sequence[Line]
    marks: Mapping[str, float] = field(default_factory=dict)


def over_weights(weights: Sequence[str], panels: Sequence[Panel], axis: str) -> "matplotlib.figure.Figure":
    """Quantities against the weight, a panel each; what the plain autoencoder has is a dotted line.

    Args:
        weights: Names of the weights, in order.
        panels: Side by side.
        axis: What the weight is.
    """
    figure, all_axes = canvas(9.2 if len(panels) > 1 else 4.6, 3.0, len(panels))
    places = list(range(len(weights)))
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.set_title(panel.title, loc="left", fontsize=9.5, color=INK)
        axes.set_xticks(places, weights, fontsize=8)
        axes.set_xlabel(axis)
        for colour, line in zip(COLOURS, panel.lines, strict=False):
            values, errors = (torch.tensor(list(v), dtype=torch.float64) for v in (line.values, line.errors))
            errors = errors.nan_to_num(0.0)
            low, high = (values - errors).tolist(), (values + errors).tolist()
            axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(
                places, values.tolist(), color=colour, linewidth=1.6, marker="o", markersize=3.5, label=line.label
            )
            if line.reference is not None:
                axes.axhline(line.reference, color=colour, linewidth=1.1, linestyle=(0, (1.5, 2)))
        for name, height in panel.marks.items():
            axes.axhline(height, color=QUIET, linewidth=0.8, linestyle=(0, (5, 3)))
            axes.annotate(name, (places[-1], height), xytext=(0, 3), textcoords="offset points", color=QUIET,
                          fontsize=8, ha="right")  # fmt: skip
        if len(panel.lines) > 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=INK)
        axes.margins(y=0.12)
    return figure


def rate_distortion(
    weights: Sequence[str],
    rates: Float[Tensor, " w"],
    distortions: Float[Tensor, " w"],
    errors: Float[Tensor, "w 2"],
    *,
    marked: int | None = None,
    entropy: float | None = None,
    autoencoder: float | None = None,
    dims: int | None = None,
    discrete: bool = False,
) -> "matplotlib.figure.Figure":
    """What a code costs against what is left to say: Alemi et al. 2018, https://arxiv.org/abs/1711.00464

    Lines of slope -1 join points of one bound. Where probabilities are meant, distortion cannot be negative, and no
    model comes below the line on which the two sum to the entropy of the data.

    Args:
        weights: Names of the points, in order.
        rates: Nats.
        distortions: Nats.
        errors: One standard error of each.
        marked: Which point maximises the bound itself.
        entropy: Of the data, in nats, where it is known.
        autoencoder: The distortion of the plain autoencoder, whose rate is infinite.
        dims: Elements of a datum, for a second scale in bits for each of them.
        discrete: Whether distortion is minus the logarithm of a probability.
    """
    figure, (axes,) = canvas(6.6, 4.4, 1)
    top, right = float(distortions.max()), float(rates.max())
    low = float(distortions.min()) if autoencoder is None else min(float(distortions.min()), autoencoder)
    reach = max(top - low, 1e-6)
    axes.set_xlim(-0.03 * right, 1.12 * right + 1e-6)
    bottom = low - 0.25 * reach
    axes.set_ylim(max(0.0, bottom) if discrete else bottom, top + 0.18 * reach)
    axes.grid(False)
    bounds = torch.linspace(float((rates + distortions).min()), float((rates + distortions).max()), 5).tolist()
    for bound in bounds:
        axes.axline((0, bound), slope=-1, color=FAINT, linewidth=0.9, zorder=0)
    if entropy is not None:
        axes.axline((0, entropy), slope=-1, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), zorder=0)
        axes.annotate("entropy of the data", (0, entropy), color=INK, fontsize=8, xytext=(4, -14),
                      textcoords="offset points")  # fmt: skip
    if autoencoder is not None:
        axes.axhline(autoencoder, color=ORANGE, linewidth=1.1, linestyle=(0, (1.5, 2)))
        axes.annotate("plain autoencoder: infinite rate", (0, autoencoder), color=ORANGE, fontsize=8,
                      xytext=(4, -11), textcoords="offset points")  # fmt: skip
    x, y = rates.tolist(), distortions.tolist()
    axes.errorbar(x, y, xerr=errors[:, 0].tolist(), yerr=errors[:, 1].tolist(), color=BLUE, linewidth=1.4, marker="o",
                  markersize=4.5, elinewidth=0.9, zorder=2)  # fmt: skip
    for i, name in enumerate(weights):
        name = f"{name}, collapsed" if x[i] < COLLAPSED else name
        bold: dict[str, Any] = {"fontweight": "bold", "color": INK} if i == marked else {"color": QUIET}
        axes.annotate(name, (x[i], y[i]), xytext=(6, 5), textcoords="offset points", fontsize=8.5, **bold)
    if marked is not None:
        axes.plot(x[marked], y[marked], "o", markersize=9, markerfacecolor="none", markeredgecolor=INK, zorder=3)
    corner: dict[str, Any] = {"fontsize": 8, "color": QUIET, "style": "italic", "xycoords": "axes fraction"}
    axes.annotate("auto-decoding: at rate 0 the code has collapsed", (0.015, 0.985), va="top", **corner)
    axes.annotate("auto-encoding: all is in the code", (0.985, 0.02), ha="right", **corner)
    axes.set_xlabel("rate: nats that the code costs")
    axes.set_ylabel("distortion: nats left to say")
    if dims is not None:
        _second_scale(axes, dims)
    return figure


def _second_scale(axes: "matplotlib.axes.Axes", dims: int) -> None:
    """Distortion in bits for each element, on the right."""
    nats = dims * 0.6931471805599453
    right = axes.secondary_yaxis("right", functions=(lambda v: np.asarray(v) / nats, lambda v: np.asarray(v) * nats))
    right.set_ylabel("bits/dim", color=QUIET, fontsize=8.5)
    right.tick_params(length=0, labelsize=8, colors=QUIET)
    right.spines["right"].set_visible(False)


def terms(
    weights: Sequence[str], parts: Mapping[str, Sequence[tuple[float, float]]], axis: str, title: str
) -> "matplotlib.figure.Figure":
    """What sums are made of: a stack of parts at each weight.

    Args:
        weights: Names of the weights, in order.
        parts: The parts, bottom first, each with its standard error; those below zero hang from the axis.
        axis: What the weight is.
        title: What the sum is.
    """
    figure, (axes,) = canvas(4.6, 3.2, 1)
    up, down = torch.zeros(len(weights), dtype=torch.float64), torch.zeros(len(weights), dtype=torch.float64)
    for colour, (name, found) in zip(COLOURS, parts.items(), strict=False):
        values, errors = torch.tensor(found, dtype=torch.float64).nan_to_num(0.0).T
        base = torch.where(values >= 0, up, down)
        how: dict[str, Any] = {"error_kw": {"elinewidth": 0.9, "ecolor": INK}, "width": 0.7, "color": colour}
        axes.bar(range(len(weights)), values.tolist(), yerr=errors.tolist(), bottom=base.tolist(), label=name, **how)
        up, down = up + values.clamp(min=0), down + values.clamp(max=0)
    axes.set_xticks(range(len(weights)), weights, fontsize=8)
    axes.set_xlabel(axis)
    axes.set_ylabel("nats")
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure


def dimensions(weights: Sequence[str], kl: Float[Tensor, "w d"], axis: str) -> "matplotlib.figure.Figure":
    """The KL term of each latent dimension at each weight, largest first, as a heat map."""
    figure, (axes,) = canvas(4.6, 3.2, 1)
    values = kl.double().sort(1, descending=True).values
    shown = axes.imshow(values.numpy(), aspect="auto", cmap="cividis", vmin=0, interpolation="nearest")
    axes.set_yticks(range(len(weights)), weights, fontsize=8)
    axes.set_ylabel(axis)
    axes.set_xlabel("latent dimension, largest first")
    axes.set_title("KL of each latent dimension", loc="left", fontsize=9.5, color=INK)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, colors=QUIET)
    bar.set_label("nats", color=QUIET, fontsize=8.5)
    return figure


def strips(
    labels: Sequence[str], rows: Float[Tensor, "r c *event"], *, group: int = 1, image: bool = True
) -> "matplotlib.figure.Figure":
    """Rows of pictures with a name at the left of each.

    Args:
        labels: A name for each row.
        rows: Values from 0 to 1.
        group: Rows that belong together; a gap sets each group off.
        image: Whether an element is an image, (channels, height, width); else it is a line of a heat map.
    """
    blocks = [_image_strip(row) if image else row.flatten(1).numpy() for row in rows]
    height, width = blocks[0].shape[:2]
    inches = 8.2 if image else 7.0
    line = max(0.16, min(1.1, inches * height / width)) if image else max(0.5, 0.09 * height)
    gaps = (len(rows) - 1) // group if group > 1 else 0
    figure, _ = canvas(inches + 1.0, line * len(rows) + 0.14 * gaps + 0.1, 1)
    figure.clear()
    figure.set_layout_engine("none")
    total = line * len(rows) + 0.14 * gaps + 0.1
    top = total - 0.05
    for i, (label, block) in enumerate(zip(labels, blocks, strict=True)):
        top -= 0.14 if i and group > 1 and i % group == 0 else 0
        axes = figure.add_axes(
            (0.95 / (inches + 1.0), (top - line) / total, inches / (inches + 1.0), 0.96 * line / total)
        )
        top -= line
        how: dict[str, Any] = {"cmap": None if image else "cividis", "aspect": "equal" if image else "auto"}
        axes.imshow(block, vmin=0, vmax=1, interpolation="nearest", **how)
        axes.set_anchor("W")
        axes.set_axis_off()
        axes.text(-0.01, 0.5, label, transform=axes.transAxes, ha="right", va="center", fontsize=8.5, color=INK)
    return figure


def _image_strip(images: Tensor) -> np.ndarray:
    return np.asarray(grid(images, len(images)))
