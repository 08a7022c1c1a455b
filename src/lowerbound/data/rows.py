"""The rows of many images: those kept from the last time that the same bytes were opened, else decoded on all cores.

Threads do it: decoders let go of Python's lock, and for small images two threads are within 5 % of two processes,
which take longer to start than a thousand images take to decode.
"""

import hashlib
import io
import json
import math
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from . import decoded
from .images import GREY_MODES, Seen, decoder, look, read


@dataclass(frozen=True)
class Options:
    """What the rows of the same images depend on.

    Args:
        shape: Height and width; None keeps those of the images, which must share one.
        fit: "crop" or "pad".
        skip_bad: Leave out images that cannot be read, instead of stopping.
        color: "auto", "grey" or "rgb".
    """

    shape: tuple[int, int] | None
    fit: str
    skip_bad: bool
    color: str


def read_rows(root: Path, names: Sequence[str], options: Options) -> decoded.Rows:
    """The rows of the images of these names under a folder, in their order.

    The facts that come with them are "skipped", the numbers of the names without a row, and "notes".

    Raises:
        ValueError: Images of several sizes and no size given, or damaged ones (all are listed).
    """
    files = [root / name for name in names]
    # Pillow warns of very large images and of odd metadata; what cannot be decoded is listed.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(16, os.cpu_count() or 2)) as pool:
        warnings.simplefilter("ignore")
        stamps, digests = zip(*_each(pool, _content, files), strict=True)
        told = json.dumps([decoder(), asdict(options), names, digests])
        key = hashlib.sha256(told.encode()).hexdigest()[:32]
        return decoded.find(key) or _decode(
            root, files, options, pool, key, lambda: stamps == tuple(map(_stamp, files))
        )


def _decode(
    root: Path,
    files: Sequence[Path],
    options: Options,
    pool: ThreadPoolExecutor,
    key: str,
    unchanged: Callable[[], bool],
) -> decoded.Rows:
    """The rows of files, decoded now and kept under a key."""
    headers = _each(pool, look, files)
    seen = [header for header in headers if isinstance(header, Seen)]
    height, width = options.shape or _common_size(root, seen)
    auto = options.color == "auto"
    grey = options.color == "grey" or (auto and all(header.mode in GREY_MODES for header in seen))
    event = 1 if grey else 3, height, width
    size = math.prod(event)
    lock = threading.Lock()

    def fill(file: io.BufferedIOBase) -> dict[str, Any]:
        def one(i: int) -> tuple[bool, str]:
            row = np.zeros(event, "uint8")
            outcome = read(files[i], headers[i], row, resize=options.shape is not None, fit=options.fit)
            with lock:
                file.seek(i * size)
                file.write(row.data)
            return outcome

        def stored(i: int) -> ndarray:
            file.seek(i * size)
            return np.frombuffer(file.read(size), "uint8").reshape(event)

        outcomes = _each(pool, one, range(len(files)))
        bad = {file: why for file, (ok, why) in zip(files, outcomes, strict=True) if not ok}
        if bad and (not options.skip_bad or len(bad) == len(files)):
            raise ValueError(_bad_message(root, bad, len(files)))
        good = [i for i, (ok, _) in enumerate(outcomes) if ok]
        all_grey = grey or (auto and all((row[:1] == row[1:]).all() for row in map(stored, good)))
        if bad or all_grey != grey:
            # In place: no row is written over one that has yet to move.
            for new, old in enumerate(good):
                row = stored(old)[: 1 if all_grey else 3]
                file.seek(new * row.nbytes)
                file.write(row.data)
        return {
            "shape": [len(good), 1 if all_grey else 3, height, width],
            "skipped": [i for i, (ok, _) in enumerate(outcomes) if not ok],
            "notes": _notes(seen, outcomes, height, width),
        }

    return decoded.make(key, len(files) * size, fill, unchanged)


def _notes(seen: Sequence[Seen], outcomes: Sequence[tuple[bool, str]], height: int, width: int) -> list[str]:
    """What was skipped or converted."""
    bad = sum(not ok for ok, _ in outcomes)
    kinds = Counter(why for ok, why in outcomes if ok and why)
    notes = [f"skipped {bad:,} images that cannot be read"] if bad else []
    notes += [f"{count:,} images {kind}" for kind, count in sorted(kinds.items())]
    if several := sum(header.frames > 1 for header in seen):
        notes.append(f"{several:,} images have several frames: took the first")
    if small := sum(header.height < height or header.width < width for header in seen):
        notes.append(f"{small:,} images are smaller than {height}x{width}: enlarged")
    return notes


def _each(pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """A function of each item, a few at a time: handing over single ones costs as much as reading a small file."""
    blocks = [items[i : i + 8] for i in range(0, len(items), 8)]
    done = pool.map(lambda block: [function(item) for item in block], blocks)
    return [result for results in done for result in results]


def _content(file: Path) -> tuple[tuple[int, ...], str]:
    """The stamp of a file, and the digest of its bytes, or why there is none."""
    stamp = _stamp(file)
    try:
        return stamp, hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        return stamp, str(error)


def _stamp(file: Path) -> tuple[int, ...]:
    """What changes when a file is written to; nothing where it cannot be found."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ino


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


def _bad_message(root: Path, bad: dict[Path, str], n: int) -> str:
    listed = [f"  {file.relative_to(root).as_posix()}: {why}" for file, why in list(bad.items())[:10]]
    listed += [f"  and {len(bad) - 10:,} more"] if len(bad) > 10 else []
    advice = "Mend or remove them, or leave them out with data.skip_bad=true."
    return f"{root}: {len(bad):,} of {n:,} images cannot be read:\n" + "\n".join(listed) + f"\n{advice}"
