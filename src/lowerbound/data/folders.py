"""Folders of images: every picture in them as one row of uint8, (channels, height, width).

The order is that of the sorted relative paths, so that a split names the same pictures on every machine. Folders
named train, valid and test are the split; folders below them, or else the first ones, are the classes.

Images are decoded once: their rows are kept in a cache and mapped into memory from there, see decoded.py.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

import torch
from torch import Tensor

from .dataset import Data, complete, nearest, one_of, split
from .rows import Options, read_rows
from .tables import ENDINGS

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
PART_FOLDERS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}


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
    options = Options(_parse_size(size), fit, skip_bad, color)
    names, notes = _walk(root)
    rows = read_rows(root, names, options)
    skipped = set(rows.facts["skipped"])
    kept = [PurePath(name) for i, name in enumerate(names) if i not in skipped]
    parts, labels, label_names, more = _classes(kept)
    try:
        return Data(
            root.resolve().name,
            rows.x,
            complete(parts, split_seed) if parts else split(len(kept), seed=split_seed),
            labels,
            label_names,
            levels=256,
            notes=(*notes, *rows.facts["notes"], *more, *([rows.note] if rows.note else [])),
        )
    except ValueError:
        rows.forget()  # nothing can be learnt from them
        raise


def _parse_size(size: int | str | None) -> tuple[int, int] | None:
    """Height and width of "48x64", 64 or "64"."""
    if size is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", str(size))
    if not found:
        raise ValueError(f"size={size!r} is not a size. Give 64 for 64x64, or height x width as '48x64'.")
    return int(found[1]), int(found[2] or found[1])


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """The relative paths of the images under a folder, in order, and a note on the other files."""
    if not root.exists():
        siblings = [path.name for path in root.parent.iterdir()] if root.parent.is_dir() else []
        raise ValueError(f"{root} does not exist.{nearest(root.name, siblings)} Give the path of a folder of images.")
    if not root.is_dir():
        raise ValueError(f"{root} is a file, and images are read from a folder. Give the folder: {root.parent}.")
    files = list(_below(root))
    images = [name for name in files if name.lower().endswith(IMAGES)]
    rest = [PurePath(name) for name in files if not name.lower().endswith(IMAGES)]
    others = Counter(path.suffix.lower() or path.name for path in rest)
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(5))
    if not images:
        tables = sorted(name for name in files if name.lower().endswith(ENDINGS))
        table = f" A table is one file: give it, as in {root / tables[0]}." if tables else ""
        only = f", only {kinds}" if kinds else ""
        raise ValueError(f"{root} holds no images{only}. What is read: {', '.join(IMAGES)}.{table}")
    notes = [f"passed over {sum(others.values()):,} files that are not images ({kinds})"] if others else []
    return sorted(images), notes


def _below(folder: Path, inside: str = "") -> Iterator[str]:
    """The relative paths of the files under a folder, but for hidden ones."""
    try:
        entries = list(os.scandir(folder))
    except PermissionError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path), f"{inside}{entry.name}/")
        elif entry.is_file():
            yield inside + entry.name


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
