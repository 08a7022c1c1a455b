"""Images decoded once: a file in the cache that holds their rows packed, mapped into memory ever after.

    rows     uint8, one array (n, *event)
    facts    JSON: its shape, and what else was found while decoding
    end      the length of the facts, and a mark

The rows begin with the file, on a page of their own, and are read page by page as they are used: they may be more
than fits in memory. What comes last is written last, so a file cut short has no end and counts as none.

A file is named by the digest of all that its rows depend on, and so is never out of date: what has changed has
another name. It is written under a temporary name, synced and renamed: a kill at any moment leaves no wrong file, and
of two processes that decode the same images at once each gets its own rows and one of the files stays.

The files lie in `decoded` in the user's cache folder (on Linux ~/.cache/lowerbound, or below $XDG_CACHE_HOME). They
take channels x height x width bytes an image, may be deleted at any time, and go when unopened for 60 days.
"""

import contextlib
import io
import json
import math
import mmap
import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

END = struct.Struct("<Q8s")
MARK = b"lbrows 1"
ROWS, PART = ".rows", ".part"
DAY = 86_400
KEPT = {ROWS: 60 * DAY, PART: DAY}
# Of Linux on all common processors; Python has the name since 3.13.
NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)

Fill = Callable[[io.BufferedIOBase], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of images, and what was found while decoding them.

    Args:
        x: The rows; a write to them stays in this process.
        facts: Of whoever decoded them, with "shape", the shape of x.
        path: The file that holds them; None where they are in memory only.
        note: What happened, to be printed; nothing where they were found.
    """

    x: UInt8[Tensor, "n *event"]
    facts: dict[str, Any]
    path: Path | None
    note: str = ""

    def forget(self) -> None:
        """Delete the file, if there is one; x stays as it is."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()


def find(key: str) -> Rows | None:
    """The rows kept under a key; None where there are none, or only a damaged file."""
    path = _place() / f"{key}{ROWS}"
    _clean(path)
    try:
        with path.open("rb") as file:
            x, facts = _mapped(file)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return Rows(x, facts, path)


def make(key: str, size: int, fill: Fill, unchanged: Callable[[], bool]) -> Rows:
    """Rows decoded now, and kept under a key unless there is nowhere to keep them: they are then held in memory.

    Args:
        key: The digest of all that the rows depend on.
        size: At most so many bytes are filled.
        fill: Writes the rows to a file, from its beginning, and returns the facts; called twice where the disk
            fails half-way. What it raises leaves nothing behind.
        unchanged: Whether the rows are still those of the key, when all are decoded.
    """
    path = _place() / f"{key}{ROWS}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Filling up a disk harms others, and may take minutes to fail.
        if shutil.disk_usage(path.parent).free < size:
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        with _temporary(path) as (file, part):
            facts = fill(file)
            _finish(file, facts)
            x, facts = _mapped(file)
            if not unchanged():
                return Rows(x, facts, None, "images changed while they were read: they will be decoded anew")
            part.replace(path)
    except OSError as error:
        memory = io.BytesIO()
        facts = fill(memory)
        shape = facts["shape"]
        x = torch.frombuffer(memory.getbuffer(), dtype=torch.uint8, count=math.prod(shape)).reshape(shape)
        why = error.strerror or error
        return Rows(x, facts, None, f"decoded into memory, as {path.parent} cannot be written ({why})")
    _sync(path.parent)
    megabytes = f"{x.numel() / 1e6:,.0f} MB" if x.numel() >= 1e6 else "less than 1 MB"
    return Rows(x, facts, path, f"decoded {len(x):,} images once into {path}, {megabytes}")


def _place() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("lowerbound")) / "decoded"


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[io.BufferedRandom, Path]]:
    """A new file beside a path, and its name, gone at the end unless it was renamed."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _finish(file: io.BufferedRandom, facts: dict[str, Any]) -> None:
    """Put the facts and the end behind the rows, and all of it on the disk."""
    file.seek(math.prod(facts["shape"]))
    text = json.dumps(facts).encode()
    file.write(text + END.pack(len(text), MARK))
    file.truncate()
    file.flush()
    os.fsync(file.fileno())


def _mapped(file: io.BufferedReader | io.BufferedRandom) -> tuple[UInt8[Tensor, "n *event"], dict[str, Any]]:
    """The rows of a file, mapped, and the facts.

    Raises:
        OSError: It cannot be read, or is too short to have an end.
        ValueError: It has no end, or not the bytes that its facts say.
    """
    end = file.seek(-END.size, os.SEEK_END)
    length, mark = END.unpack(file.read(END.size))
    if mark != MARK or length > end:
        raise ValueError("cut short")
    file.seek(end - length)
    facts = json.loads(file.read(length))
    size = math.prod(facts["shape"])
    if size != end - length:
        raise ValueError("cut short")
    if sys.platform == "linux":
        # Private, so that a write to x neither fails nor reaches the file. Linux counts such a map as memory unless
        # told otherwise, and refuses one that is larger than the machine's.
        pages = mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE | NORESERVE)
    else:
        pages = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    return torch.frombuffer(pages, dtype=torch.uint8).reshape(facts["shape"]), facts


def _clean(needed: Path) -> None:
    """Delete what killed processes left beside a file, and rows long unopened, but not the file itself."""
    with contextlib.suppress(OSError):
        for path in needed.parent.iterdir():
            with contextlib.suppress(OSError):
                old = path.suffix in KEPT and time.time() - path.stat().st_mtime > KEPT[path.suffix]
                if old and path != needed:
                    path.unlink()


def _sync(place: Path) -> None:
    """Put the names in a folder on the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
