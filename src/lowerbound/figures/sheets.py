"""Sheets of images, each pixel a square of whole pixels.

Axes: ``n`` images, ``c h w`` channels, height and width.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    import PIL.Image

GAP = 214


def unit_interval(
    x: Float[Tensor, "*shape"], low: float | int | Float[Tensor, "..."], high: float | int | Float[Tensor, "..."]
) -> Float[Tensor, "*shape"]:
    """Data units to 0..1 for display: low becomes 0, high becomes 1, what lies outside is clamped.

    >>> unit_interval(torch.tensor([0.0, 8.0, 99.0]), 0, 16)
    tensor([0.0000, 0.5000, 1.0000])
    """
    width = torch.as_tensor(high - low, dtype=x.dtype, device=x.device).clamp(min=1e-30)
    return ((x - low) / width).clamp(0, 1)


def grid(
    images: Float[Tensor, "n c h w"],
    columns: int = 16,
    *,
    pad: int = 2,
    scale: int | None = None,
    breaks: Sequence[int] = (),
) -> "PIL.Image.Image":
    """A sheet of images in rows, each pixel enlarged to a square of whole pixels.

    One channel is grey, three are red, green, blue, a fourth is opacity over white; any other number of channels is
    laid out side by side.

    Args:
        images: Values from 0 to 1; what lies outside is clamped.
        columns: Images in a row.
        pad: Gap between images, in pixels of the sheet.
        scale: Pixels of the sheet for each pixel of an image; by default what makes small images large enough to see
            and keeps the sheet within the width of a page, as far as a whole number can.
        breaks: Rows that have a wider gap above them.

    Raises:
        ValueError: No images, or fewer than one column.
    """
    import PIL.Image

    if images.ndim != 4 or images.numel() == 0 or columns < 1:
        raise ValueError(
            f"images of shape {tuple(images.shape)} in {columns} columns make no sheet: "
            "give at least one image, as (n, channels, height, width), and at least one column."
        )
    n, _, h, w = images.shape
    colours = _colours(images.detach().float().cpu().nan_to_num(0.0).clamp(0, 1))
    if scale is None:
        room = 920 - pad * (columns + 1)
        scale = max(1, min(room // (columns * colours.shape[2]), 64 // max(h, w)))
    colours = (colours * 255).round().to(torch.uint8)
    colours = colours.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    _, h, w, _ = colours.shape
    rows = -(-n // columns)
    tops, top = [], pad
    for row in range(rows):
        top += 5 * pad if row in breaks else 0
        tops.append(top)
        top += h + pad
    sheet = torch.full((top, pad + min(n, columns) * (w + pad), 3), GAP, dtype=torch.uint8)
    for i, image in enumerate(colours):
        row, column = divmod(i, columns)
        left = pad + column * (w + pad)
        sheet[tops[row] : tops[row] + h, left : left + w] = image
    return PIL.Image.fromarray(sheet.numpy())


def _colours(images: Tensor) -> Tensor:
    """Red, green and blue of each pixel, channels last, in 0..1."""
    if images.shape[1] == 4:
        opacity = images[:, 3:]
        images = images[:, :3] * opacity + 1 - opacity
    elif images.shape[1] != 3:
        images = torch.cat(images.split(1, 1), -1).expand(-1, 3, -1, -1)
    return images.permute(0, 2, 3, 1)
