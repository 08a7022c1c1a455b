"""One image: a file of any kind and turn as uint8 pixels of a given shape, upright.

The header is looked at first, as the shape may depend on the headers of all. JPEGs are decoded at the eighth of their
size that is still twice what is asked, and by Pillow where the fast decoder refuses; Lanczos does the rest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

# To be raised with every change here, in rows.py or in decoded.py that changes a row or a note of any folder.
VERSION = 1
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N")
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Seen:
    """What the header of an image says: its height and width as shown, and how to get there."""

    height: int
    width: int
    orientation: int
    mode: str
    jpeg: bool
    frames: int


def decoder() -> list[Any]:
    """What the rows depend on besides the files: the versions of this and of the libraries, and Pillow's limits."""
    import PIL
    import simplejpeg
    from PIL import Image, ImageFile

    limits = [Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES]
    return [VERSION, PIL.__version__, simplejpeg.__version__, *limits]


def look(file: Path) -> Seen | str:
    """The header of an image, or why it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            # Pillow turns TIFFs itself; for a PNG it would decode all of it to look for late metadata.
            upright = image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info)
            orientation = 1 if upright else image.getexif().get(ORIENTATION, 1)
            width, height = image.size if orientation < 5 else image.size[::-1]
            jpeg = image.format in ("JPEG", "MPO")
            return Seen(height, width, orientation, image.mode, jpeg, getattr(image, "n_frames", 1))
    except UnidentifiedImageError:
        return "not an image" if file.stat().st_size else "empty file"
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        return str(error) or type(error).__name__


def read(file: Path, header: Seen | str, row: ndarray, *, resize: bool, fit: str) -> tuple[bool, str]:
    """Fills a row (channels, height, width) from a file; whether that worked, and why not or what was converted."""
    from PIL import Image

    if isinstance(header, str):
        return False, header
    channels, *shape = row.shape
    stored = [header.height, header.width]
    if header.orientation >= 5:  # what follows is before turning, and a quarter turn swaps the sides
        stored, shape = stored[::-1], shape[::-1]
    scale = (max if fit == "crop" else min)(shape[0] / stored[0], shape[1] / stored[1]) if resize else 1.0
    extent = [float(side) for side in stored]
    try:
        image, kind = _fast_jpeg(file, header, stored, scale, channels), ""
        if image is not None:
            # A scaled size is rounded up, so the picture ends within the last pixel: see `_fitted`.
            extent = [side * (8 * size // side) / 8 for side, size in zip(stored, image.size[::-1], strict=True)]
        else:
            with Image.open(file) as opened:
                opened.load()
                image, kind = _eight_bits(opened)
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        return False, str(error) or type(error).__name__
    image = image.convert("L" if channels == 1 else "RGB")
    if resize:
        image = _fitted(image, extent, shape, fit)
    if (turn := _turns().get(header.orientation)) is not None:
        image = image.transpose(turn)
    pixels = np.asarray(image)
    row[:] = pixels if channels == 1 else pixels.transpose(2, 0, 1)
    return True, kind


def _fast_jpeg(file: Path, header: Seen, stored: Sequence[int], scale: float, channels: int) -> Any:
    """A JPEG decoded at some eighths of its size, at least twice what the scale asks; None if Pillow must."""
    import simplejpeg
    from PIL import Image

    if not header.jpeg or header.mode not in ("L", "RGB"):
        return None
    height, width = (math.ceil(min(1.0, 2 * scale) * side) for side in stored)
    grey = header.mode == "L" or channels == 1
    try:
        pixels = simplejpeg.decode_jpeg(
            file.read_bytes(), "GRAY" if grey else "RGB", min_height=height, min_width=width
        )
    except ValueError:
        # It also stops at what is harmless, such as stray bytes between markers: Pillow has the last word.
        return None
    return Image.fromarray(pixels[..., 0] if grey else pixels)


def _fitted(image: Any, extent: Sequence[float], shape: Sequence[int], fit: str) -> Any:
    """An image scaled to a shape, its middle cut out or black around it.

    Args:
        image: The image.
        extent: Height and width of the picture in its pixels, from the top left.
        shape: Height and width of the result.
        fit: "crop" or "pad".
    """
    from PIL import Image

    (height, width), (h, w) = extent, shape
    lanczos = Image.Resampling.LANCZOS
    if fit == "crop":
        scale = max(h / height, w / width)
        top, left = (height - h / scale) / 2, (width - w / scale) / 2
        box = max(0.0, left), max(0.0, top), min(width, width - left), min(height, height - top)
        return image.resize((w, h), lanczos, box)
    scale = min(h / height, w / width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    canvas = Image.new(image.mode, (w, h))
    canvas.paste(image.resize((columns, rows), lanczos, (0, 0, width, height)), ((w - columns) // 2, (h - rows) // 2))
    return canvas


def _eight_bits(image: Any) -> tuple[Any, str]:
    """An image of any mode as 8-bit grey or RGB on white, and what was done to it."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point pixels; save them as an array, .npy")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype("int64")
        if values.min() < 0 or values.max() > 65_535:
            raise ValueError("32-bit pixels; save them as an array, .npy")
        return Image.fromarray(((values * 255 + 32_767) // 65_535).astype("uint8")), "of 16 bits: scaled to 8 bits"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3] != (255, 255):
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image).convert("RGB"), "have transparent parts: put on white"
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"), ""


def _turns() -> dict[int, Any]:
    """What turns an image upright, for each EXIF orientation but the upright one."""
    from PIL.Image import Transpose as T

    turns = T.FLIP_LEFT_RIGHT, T.ROTATE_180, T.FLIP_TOP_BOTTOM, T.TRANSPOSE, T.ROTATE_270, T.TRANSVERSE, T.ROTATE_90
    return dict(enumerate(turns, start=2))
