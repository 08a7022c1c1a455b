"""Figures of latent variables that are drawn one after another: what each carries, and what it decides.

Axes: ``l`` latent variables, in the order drawn; ``n`` images, ``c h w`` channels, height and width.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from .canvas import BLUE, INCH, INK, QUIET, canvas, plain
from .sheets import grid

if TYPE_CHECKING:
    import matplotlib.figure

UNUSED = "#b8bec7"
# The part of a chart's width that is kept for what is written behind the longest bar.
ROOM = 0.6


def level_bars(
    rates: Float[Tensor, " l"],
    said: Sequence[str],
    dead: Sequence[int] = (),
    *,
    names: Sequence[str],
    title: str = "Rate of each level, top first",
) -> "matplotlib.figure.Figure":
    """What each of several latent variables carries, as lying bars from the top down; dead ones in grey.

    Args:
        rates: Nats of each.
        said: What to write behind each bar.
        dead: Which of them are not used.
        names: What each is called.
        title: What is shown.
    """
    rates = rates.detach().cpu().double()
    count = len(rates)
    line = max(0.13, min(0.3, 7 / count))
    figure, (axes,) = canvas(9.2, 0.55 + line * count, 1)
    colours = [UNUSED if i in dead else BLUE for i in range(count)]
    axes.barh(range(count), rates.tolist(), height=0.72, color=colours, linewidth=0)
    longest = max(rates.max().item(), 1e-6)
    size = min(8.5, 72 * line * 0.62)
    for i, (rate, words) in enumerate(zip(rates.tolist(), said, strict=True)):
        colour = QUIET if i in dead else INK
        axes.annotate(
            plain(words), (rate, i), xytext=(6, 0), textcoords="offset points", va="center", fontsize=size, color=colour
        )
    axes.set_xlim(0, longest / ROOM)
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_yticks(range(count), [plain(name) for name in names], fontsize=size)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.grid(False)
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    return figure


def rows_of_images(rows: Sequence[tuple[str, Float[Tensor, "_ c h w"]]], *, pad: int = 2) -> "matplotlib.figure.Figure":
    """Rows of images with a name before each; the first row stands apart. Each pixel is a square of whole pixels.

    Args:
        rows: The name of each row, and its images, all of one shape; values from 0 to 1.
        pad: Gap between images, in pixels of the page.
    """
    from matplotlib.figure import Figure

    columns = max(len(images) for _, images in rows)
    sheets = [(name, grid(images, columns, pad=pad)) for name, images in rows]
    margin = 12 + 7 * max(len(name) for name, _ in sheets)
    gap = 6 * pad
    width, line = max(sheet.size for _, sheet in sheets)
    height = gap + len(sheets) * (line - pad) + pad
    figure = Figure(figsize=((margin + width) / INCH, height / INCH), facecolor="white")
    top = 0.0
    for i, (name, sheet) in enumerate(sheets):
        bottom = (height - top - line) / height
        own = sheet.width / (margin + width)
        axes = figure.add_axes((margin / (margin + width), bottom, own, line / height))
        axes.imshow(sheet, interpolation="nearest", aspect="auto")
        axes.axis("off")
        middle = (height - top - line / 2) / height
        place = (margin - 8) / (margin + width)
        figure.text(place, middle, plain(name), ha="right", va="center", fontsize=8.5, color=INK if i else QUIET)
        top += line - pad + (gap if i == 0 else 0)
    return figure
