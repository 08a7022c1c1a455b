"""A folder of 1,673 JPEGs: opening it for the first time and again, and training on it against rows in memory."""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import simplejpeg
import torch

import lowerbound as lb
from lowerbound.data import Data, folder

from ..contestants import ours
from ..race import Bar, race
from ..report import Row, Table
from ..settings import Settings
from ..timing import Spread, interleave, timed

SIZE = 64
BATCH = 64
AGAINST_MEMORY = Bar(0.95, 1.0)


def run(settings: Settings) -> Iterator[Table]:
    """Opening, and training."""
    root = Path(os.environ.get("LOWERBOUND_DATA", "")) / "caltech101_subset"
    if "LOWERBOUND_DATA" not in os.environ or not root.is_dir():
        missing = "skipped: set LOWERBOUND_DATA to a folder that holds caltech101_subset/, 1,673 JPEGs in 20 folders"
        yield Table("a folder of JPEGs", "", "", notes=[missing])
        return
    files = sorted(root.rglob("*.jpg"))
    with _empty_cache():
        yield opening(root, files, settings)
        yield training(folder(path=str(root), size=SIZE), settings)


def opening(root: Path, files: list[Path], settings: Settings) -> Table:
    """Images/s: decoding alone, the first opening of the folder, and the next."""

    def first() -> float:
        with _empty_cache():
            return timed(lambda: folder(path=str(root), size=SIZE))()

    def again() -> float:
        # all of it is read, as a pass of training does: an opening alone may read none
        return timed(lambda: folder(path=str(root), size=SIZE).x.sum())()

    with ProcessPoolExecutor(settings.threads) as pool:
        # the workers are started, and the files are in the system's cache, before anything is timed
        list(pool.map(_decode, files, chunksize=16))
        runs = {
            "decoding alone, on all cores": timed(lambda: list(pool.map(_decode, files, chunksize=16))),
            "the first opening": first,
            "the next opening, and reading it all": again,
        }
        seconds = interleave(runs, min(3, settings.rounds))
    alone = next(iter(runs))
    rows = [
        Row(
            name,
            len(files) / Spread.of(took).median,
            Spread.of_ratios(seconds[alone], took) if name != alone else None,
            seconds=took,
        )
        for name, took in seconds.items()
    ]
    return Table(f"{len(files):,} JPEGs at {SIZE}x{SIZE}", "images/s", "times decoding's speed", rows)


def _decode(file: Path) -> int:
    """Decode a JPEG at about twice the size wanted: the least that any reader must do."""
    data = file.read_bytes()
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    scale = min(1.0, 2 * SIZE / min(height, width))
    return simplejpeg.decode_jpeg(data, "RGB", min_height=int(scale * height), min_width=int(scale * width)).size


def training(data: Data, settings: Settings) -> Table:
    """Samples/s on the folder's rows, from the second pass on, and on a copy of them in memory."""
    memory = replace(data, x=data.x.clone())
    names = {"the folder": data, "the same rows in memory": memory, "the same rows in memory, again (A/A)": memory}
    contestants = []
    for name, rows in names.items():
        torch.manual_seed(0)
        # a light network, so that what the rows cost can be seen
        model = lb.mlp(rows.train[:1000].float(), event=rows.event, hidden=[256, 256], family="normal")
        checked = memory.train[:256].float()
        contestants.append(ours.on(rows, model, BATCH, name, checked))
    samples = len(data.split["train"]) // BATCH * BATCH
    bars = {"the same rows in memory": AGAINST_MEMORY}
    title = f"training on the folder from the second pass on, MLP {SIZE}x{SIZE}, batch {BATCH}"
    table = race(title, contestants, samples, settings.rounds, bars)
    return replace(table, ratio_of="the folder is times as fast")


@contextmanager
def _empty_cache() -> Iterator[None]:
    """A cache of its own for lowerbound, empty at first and gone afterwards."""
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        try:
            yield
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before
