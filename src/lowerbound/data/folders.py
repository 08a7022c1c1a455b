"""Folders of images: every picture in them as one row of uint8, (channels, height, width).

The order is that of the sorted relative paths, so that a split names the same pictures on every machine. Folders
named train, valid and test are the split; folders below them, or else the first ones, are the classes.
"""

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from .dataset import Data, complete, nearest, one_of, split

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
PART_FOLDERS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
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


def folder(
    *,
    path: str,
    size: int | str | None = None,
    fit: str = "crop",
    skip_bad: bool = False,
    color: str = "auto",
    split_seed: int = 0,
) -> Data:
    """The images under a folder: PNG, JPEG, WebP, BMP and TIFF, turned upright, with classes from subfolders.

    Args:
        path: The folder. Hidden files are passed over, and so are files that are not images.
        size: Of the rows: 64 for 64x64, or "48x64" for height x width. None keeps the size, if all share one.
        fit: "crop" scales the short side to the size and cuts the middle out; "pad" scales the long side to it
            and fills up with black.
        skip_bad: Leave out images that cannot be read, instead of stopping.
        color: "auto" is one channel if all images are grey, else three; "grey" and "rgb" convert.
        split_seed: Of the split into 80 % train, 10 % valid, 10 % test, for what folders do not say.

    Raises:
        ValueError: Where there are no images, images of several sizes and no size given, or damaged ones (all
            are listed).
    """
    root = Path(path)
    one_of("fit", fit, ("crop", "pad"))
    one_of("color", color, ("auto", "grey", "rgb"))
    shape = _parse_size(size)
    files, notes = _walk(root)
    # Pillow warns of very large images and of odd metadata; what cannot be decoded is listed below.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 2)) as pool:
        warnings.simplefilter("ignore")
        headers = list(pool.map(_look, files))
        seen = [header for header in headers if isinstance(header, Seen)]
        shape = shape or _common_size(root, seen)
        grey = color == "grey" or (color == "auto" and all(header.mode in GREY_MODES for header in seen))
        x = np.zeros((len(files), 1 if grey else 3, *shape), "uint8")
        read = partial(_read, resize=size is not None, fit=fit)
        outcomes = list(pool.map(read, files, headers, x))
    bad = {file: why for file, (ok, why) in zip(files, outcomes, strict=True) if not ok}
    if bad and (not skip_bad or len(bad) == len(files)):
        raise ValueError(_bad_message(root, bad, len(files)))
    kinds = Counter(why for ok, why in outcomes if ok and why)
    notes += [f"skipped {len(bad):,} images that cannot be read"] if bad else []
    notes += [f"{count:,} images {kind}" for kind, count in sorted(kinds.items())]
    if several := sum(header.frames > 1 for header in seen):
        notes.append(f"{several:,} images have several frames: took the first")
    if small := sum(header.height < shape[0] or header.width < shape[1] for header in seen):
        notes.append(f"{small:,} images are smaller than {shape[0]}x{shape[1]}: enlarged")

    good = [i for i, file in enumerate(files) if file not in bad]
    x = x[good] if bad else x
    if color == "auto" and not grey and (x[:, :1] == x[:, 1:]).all():
        x = np.ascontiguousarray(x[:, :1])
    parts, labels, names, more = _classes([files[i].relative_to(root) for i in good])
    return Data(
        root.resolve().name,
        torch.from_numpy(x),
        complete(parts, split_seed) if parts else split(len(x), seed=split_seed),
        labels,
        names,
        levels=256,
        notes=(*notes, *more),
    )


def _parse_size(size: int | str | None) -> tuple[int, int] | None:
    """Height and width of "48x64", 64 or "64"."""
    if size is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", str(size))
    if not found:
        raise ValueError(f"size={size!r} is not a size. Give 64 for 64x64, or height x width as '48x64'.")
    return int(found[1]), int(found[2] or found[1])


def _walk(root: Path) -> tuple[list[Path], list[str]]:
    """The images under a folder in the order of their relative paths, and a note on the other files."""
    if not root.exists():
        siblings = [path.name for path in root.parent.iterdir()] if root.parent.is_dir() else []
        raise ValueError(f"{root} does not exist.{nearest(root.name, siblings)} Give the path of a folder of images.")
    if not root.is_dir():
        raise ValueError(f"{root} is a file, and images are read from a folder. Give the folder: {root.parent}.")
    files = []
    for file in root.rglob("*"):
        inside = file.relative_to(root).parts
        if file.is_file() and not any(part.startswith(".") or part == "__MACOSX" for part in inside):
            files.append(file)
    images = [file for file in files if file.suffix.lower() in IMAGES]
    others = Counter(file.suffix.lower() or file.name for file in files if file.suffix.lower() not in IMAGES)
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(5))
    if not images:
        raise ValueError(
            f"{root} holds no images"
            + (f", only {kinds}" if kinds else "")
            + ". What is read: "
            + ", ".join(IMAGES)
            + "."
        )
    notes = [f"passed over {sum(others.values()):,} files that are not images ({kinds})"] if others else []
    return sorted(images, key=lambda file: file.relative_to(root).as_posix()), notes


def _look(file: Path) -> Seen | str:
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


def _common_size(root: Path, seen: Sequence[Seen]) -> tuple[int, int]:
    """The height and width that all images share."""
    sizes = Counter((header.height, header.width) for header in seen)
    if len(sizes) > 1:
        heights, widths = zip(*sizes, strict=True)
        common = ", ".join(f"{h}x{w} ({count:,})" for (h, w), count in sizes.most_common(3))
        raise ValueError(
            f"{root}: {len(seen):,} images have {len(sizes):,} sizes, {min(heights)}-{max(heights)} high and "
            f"{min(widths)}-{max(widths)} wide; the most frequent are {common}. Rows must share one: "
            "data.size=64 scales and crops each to 64x64 (data.fit=pad keeps all of it)."
        )
    return next(iter(sizes), (1, 1))


def _read(file: Path, header: Seen | str, row: ndarray, *, resize: bool, fit: str) -> tuple[bool, str]:
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


def _bad_message(root: Path, bad: dict[Path, str], n: int) -> str:
    listed = [f"  {file.relative_to(root).as_posix()}: {why}" for file, why in list(bad.items())[:10]]
    listed += [f"  and {len(bad) - 10:,} more"] if len(bad) > 10 else []
    advice = "Mend or remove them, or leave them out with data.skip_bad=true."
    return f"{root}: {len(bad):,} of {n:,} images cannot be read:\n" + "\n".join(listed) + f"\n{advice}"


def _classes(
    files: Sequence[PurePath],
) -> tuple[dict[str, Tensor], Tensor | None, tuple[str, ...], list[str]]:
    """The split, the classes and their names as far as the folders say them, and notes."""
    parts = [PART_FOLDERS.get(file.parts[0].lower()) if len(file.parts) > 1 else None for file in files]
    by_folder = None not in parts and {"train"} < set(parts)
    given: dict[str, Tensor] = {
        part: torch.tensor([i for i, of in enumerate(parts) if of == part])
        for part in ("train", "valid", "test")
        if by_folder and part in parts
    }
    level = 1 if by_folder else 0
    classes = [file.parts[level] if len(file.parts) > level + 1 else None for file in files]
    names = sorted({name for name in classes if name is not None})
    if None in classes or len(names) < 2:
        outside = classes.count(None)
        partly = (
            [f"{outside:,} images lie outside the {len(names):,} class folders: no labels"] if names and outside else []
        )
        return given, None, (), partly
    index = {name: i for i, name in enumerate(names)}
    return given, torch.tensor([index[name] for name in classes if name is not None]), tuple(names), []
