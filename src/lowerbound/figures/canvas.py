"""What all pictures share: the palette, empty axes, and how a picture becomes a file.

One inch is 100 pixels of a page, drawn at twice that for dense screens. One palette, no frames, labels on the lines
rather than in a legend where they fit. Classes have Paul Tol's colours (https://personal.sron.nl/~pault/), which
colour-blind readers can tell apart.
"""

import io
import warnings
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import PIL.Image

Picture = Union["PIL.Image.Image", "matplotlib.figure.Figure"]

INCH = 100
DENSITY = 2
INK, QUIET, FAINT = "#1f2328", "#6b7280", "#d5d9df"
BLUE, ORANGE = "#2b6cb0", "#c05621"
CLASSES = ("#332288", "#CC6677", "#44AA99", "#DDCC77", "#117733", "#88CCEE", "#882255", "#999933", "#AA4499", "#777777")


def png(picture: Picture) -> bytes:
    """The picture as a PNG file, the same bytes for the same picture."""
    import PIL.Image

    file = io.BytesIO()
    if isinstance(picture, PIL.Image.Image):
        picture.save(file, "PNG", optimize=True)
        return file.getvalue()
    with warnings.catch_warnings():
        # a class named in a script that the font lacks is drawn as boxes, which is no reason to stop
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        picture.savefig(file, format="png", dpi=INCH * DENSITY, metadata={"Software": None})
    return file.getvalue()


def is_chart(picture: Picture) -> bool:
    """Whether it is a drawing rather than a sheet of images, whose pixels mean something."""
    import PIL.Image

    return not isinstance(picture, PIL.Image.Image)


def page_size(picture: Picture) -> tuple[int, int]:
    """Its width and height on a page, in pixels of the page."""
    import PIL.Image

    if isinstance(picture, PIL.Image.Image):
        return picture.size
    width, height = picture.get_size_inches()
    return round(width * INCH), round(height * INCH)


def canvas(width: float, height: float, panels: int) -> "tuple[matplotlib.figure.Figure, list[matplotlib.axes.Axes]]":
    """A white figure with quiet axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    all_axes = [figure.add_subplot(1, panels, i + 1) for i in range(panels)]
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(length=0, labelsize=8, colors=QUIET)
        axes.xaxis.label.set(color=QUIET, fontsize=8.5)
        axes.yaxis.label.set(color=QUIET, fontsize=8.5)
        axes.grid(axis="y", color="#eef0f3", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, all_axes


def plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")
