"""The files of the named sets: `$LOWERBOUND_DATA` first, then the cache, then the public source.

What is checked is the content, not its wrapper: one .gz file differs from another of the same bytes by its
compressor. A download goes to a temporary name and is renamed when it is whole and its SHA-256 is right, so that
a file with the right name is always the right file, whenever the program was killed.
"""

import contextlib
import gzip
import hashlib
import http.client
import os
import tempfile
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 20


def find(name: str, file: str, url: str, sha256: str) -> Path:
    """The path of a file of a named set, downloaded if it is nowhere on this machine.

    Args:
        name: The set, which is also its folder.
        file: The file in it.
        url: Where it is published.
        sha256: Of its content, as `content` returns it.

    Raises:
        OSError: Where it is not here and cannot be downloaded: it says which file to put where.
        ValueError: Where what was downloaded is not what was published.
    """
    if found := here(name, file):
        return found
    target = _places()[-1] / name / file
    target.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(target) as part:
        try:
            _download(url, part, f"{name}/{file}")
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise OSError(
                f"{name}: {file} is not on this machine and {url} cannot be reached ({reason}). "
                f"Download it elsewhere and put it at {target}, or set LOWERBOUND_DATA to the folder that holds "
                f"{Path(name) / file}."
            ) from error
        content(part, sha256, url=url)
        part.replace(target)
    return target


def here(name: str, file: str) -> Path | None:
    """The path of a file of a named set if it is on this machine."""
    candidates = (place / name / file for place in _places())
    return next((path for path in candidates if path.is_file()), None)


def content(path: Path, sha256: str, url: str = "") -> bytes:
    """The bytes published in a file: of .gz what was compressed, of .amat a byte for each digit.

    Args:
        path: The file.
        sha256: Of the content.
        url: Where it came from, if it came just now.

    Raises:
        ValueError: Where it is not what was published.
    """
    raw = path.read_bytes()
    try:
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error):
        data = raw
    # Larochelle's .amat is text, bits and blanks; published checksums are of neither form.
    if ".amat" in path.name:
        data = bytes(data).translate(bytes(byte & 1 for byte in range(256)), delete=b" \t\r\n")
    verify(data, sha256, url or str(path), "Nothing was kept; try again later." if url else "Delete it and try again.")
    return data


def verify(data: bytes, sha256: str, source: str, advice: str) -> None:
    """Raises unless the bytes are those that were published."""
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise ValueError(
            f"{source} does not hold what was published: the SHA-256 of its content is {found[:16]}..., not "
            f"{sha256[:16]}.... {advice}"
        )


def _places() -> list[Path]:
    """The folders that may hold named sets, in the order of looking; the last one is ours to write to."""
    import platformdirs

    cache = Path(platformdirs.user_cache_dir("lowerbound"))
    given = os.environ.get("LOWERBOUND_DATA")
    return [Path(given).expanduser(), cache] if given else [cache]


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A new file beside the target, gone at the end unless it was renamed."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _download(url: str, path: Path, label: str) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with (
        urllib.request.urlopen(url, timeout=30) as source,
        path.open("wb") as sink,
        Progress(*columns) as bar,
    ):
        length = source.headers.get("Content-Length")
        task = bar.add_task(label, total=int(length) if length else None)
        while chunk := source.read(CHUNK):
            sink.write(chunk)
            bar.advance(task, len(chunk))
