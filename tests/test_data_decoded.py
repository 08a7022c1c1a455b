"""The cache of decoded images: the same rows as decoding gives, whatever happens to the images or to the cache."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from lowerbound.data import decoded, folder, images, rows

linux = pytest.mark.skipif(sys.platform != "linux", reason="of Linux: /proc, and $XDG_CACHE_HOME in other processes")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An empty cache, and where in it rows are kept."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "lowerbound" / "decoded"


def picture(seed, mode="RGB", size=(40, 30)) -> Image.Image:
    shape = (*size[::-1], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype="uint8")).convert(mode)


@pytest.fixture
def photos(tmp_path):
    """A folder with twelve images of one size, in classes and of several kinds."""
    root = tmp_path / "photos"
    for i in range(12):
        file = root / "ab"[i % 2] / f"{i:02}.{'png' if i % 3 else 'jpg'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(file)
    return root


@pytest.fixture
def undecodable(monkeypatch):
    """Call it, and no image is decoded or looked at any more."""

    def stop():
        def refuse(*args, **kwargs):
            raise AssertionError("an image was decoded")

        for name in ("look", "read"):
            monkeypatch.setattr(rows, name, refuse)

    return stop


def kept(cache) -> list[Path]:
    """All files in the cache, temporary ones too."""
    return sorted(path for path in cache.rglob("*") if path.is_file())


def counted(monkeypatch) -> list[Path]:
    """A list that grows by each image that is decoded."""
    read: list[Path] = []

    def count(file, *args, **kwargs):
        read.append(file)
        return images.read(file, *args, **kwargs)

    monkeypatch.setattr(rows, "read", count)
    return read


def uncached(path, monkeypatch, tmp_path_factory, **options):
    """The data as decoded afresh."""
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("afresh")))
        return folder(path=str(path), **options)


@pytest.mark.parametrize("options", [{}, {"size": 16}, {"size": "8x24", "fit": "pad", "color": "grey"}])
def test_the_second_opening_decodes_nothing_and_gives_the_same(photos, cache, undecodable, options):
    first = folder(path=str(photos), **options)
    (file,) = kept(cache)
    note = f"decoded 12 images once into {file}, less than 1 MB"
    assert first.notes[-1] == note
    content = file.read_bytes()
    undecodable()
    second = folder(path=str(photos), **options)
    assert second.fingerprint() == first.fingerprint()
    assert second.x.is_contiguous()
    assert (*second.notes, note) == first.notes
    assert (second.name, second.label_names, second.levels) == (first.name, first.label_names, 256)
    assert file.read_bytes() == content
    assert kept(cache) == [file]


def test_what_was_skipped_and_converted_is_remembered(photos, cache, undecodable):
    (photos / "a" / "000.png").write_bytes(b"")
    (photos / "b" / "99.jpg").write_text("<html>404</html>")
    picture(50, "RGBA").save(photos / "b" / "50.png")
    clear = picture(51, "RGBA")
    clear.putalpha(0)
    clear.save(photos / "b" / "51.png")
    picture(52).save(photos / "a" / "52.tif", save_all=True, append_images=[picture(53)])
    (photos / "read.me").touch()
    first = folder(path=str(photos), skip_bad=True, size=35)
    assert first.notes[:-1] == (
        "passed over 1 files that are not images (1 .me)",
        "skipped 2 images that cannot be read",
        "1 images have transparent parts: put on white",
        "1 images have several frames: took the first",
        "15 images are smaller than 35x35: enlarged",
    )
    undecodable()
    second = folder(path=str(photos), skip_bad=True, size=35)
    assert second.notes == first.notes[:-1]
    assert second.fingerprint() == first.fingerprint()
    assert second.labels.tolist() == [0] * 7 + [1] * 8


def test_rows_are_packed_around_what_is_bad_and_grey(tmp_path, cache, undecodable):
    """Skipping and finding out that all is grey both move rows after they were written."""
    good = []
    for i in range(30):
        file = tmp_path / f"{i:02}.png"
        if i % 4 == 0:
            file.write_bytes(b"nothing")
        else:
            picture(i, "L").convert("RGB").save(file)
            good.append(np.asarray(picture(i, "L")))
    for opening in range(2):
        data = folder(path=str(tmp_path), skip_bad=True)
        assert data.x.shape == (22, 1, 30, 40)
        assert data.x.equal(torch.from_numpy(np.stack(good)[:, None])), opening
        undecodable()
    (file,) = kept(cache)
    assert file.stat().st_size < 22 * 30 * 40 + 500  # what was moved away is gone


def change_bytes(file: Path) -> None:
    """Other pixels of the same size, at the same time: only the content tells."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def bitmap(root: Path) -> Path:
    picture(70).save(root / "a" / "bitmap.bmp")
    return root / "a" / "bitmap.bmp"


CHANGES = {
    "another image": lambda root: picture(60).save(root / "a" / "60.png"),
    "an image less": lambda root: (root / "a" / "02.png").unlink(),
    "other content": lambda root: picture(61).save(root / "a" / "02.png"),
    "other content of the same size and time": lambda root: change_bytes(root / "a" / "bitmap.bmp"),
    "another name": lambda root: (root / "a" / "02.png").rename(root / "a" / "zz.png"),
    "two that swap names": lambda root: (
        [(root / "a" / old).rename(root / "a" / new) for old, new in (("02.png", "t"), ("04.png", "02.png"))]
        and (root / "a" / "t").rename(root / "a" / "04.png")
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_are_decoded_again(photos, cache, monkeypatch, tmp_path_factory, change):
    bitmap(photos)
    before = folder(path=str(photos))
    CHANGES[change](photos)
    read = counted(monkeypatch)
    after = folder(path=str(photos))
    assert len(read) == len(after.x)
    assert after.fingerprint() != before.fingerprint()
    assert after.fingerprint() == uncached(photos, monkeypatch, tmp_path_factory).fingerprint()
    assert len(kept(cache)) == 2


OPTIONS = [{}, {"size": 16}, {"size": "16x17"}, {"size": 16, "fit": "pad"}, {"color": "grey"}, {"skip_bad": True}]


def test_each_option_has_rows_of_its_own(photos, cache):
    for i, options in enumerate(OPTIONS):
        folder(path=str(photos), **options)
        assert len(kept(cache)) == i + 1, options


def test_each_version_and_limit_has_rows_of_its_own(photos, cache, monkeypatch):
    versions = [
        (images, "VERSION", 0),
        ("PIL.__version__", "0"),
        ("simplejpeg.__version__", "0"),
        (Image, "MAX_IMAGE_PIXELS", 10**9),
        (ImageFile, "LOAD_TRUNCATED_IMAGES", True),
    ]
    folder(path=str(photos))
    for i, version in enumerate(versions):
        monkeypatch.setattr(*version)
        folder(path=str(photos))
        assert len(kept(cache)) == i + 2, version


def test_what_does_not_change_rows_makes_no_new_ones(photos, cache, undecodable, tmp_path):
    folder(path=str(photos), size=16)
    undecodable()
    folder(path=str(photos), size="16x16", split_seed=3)
    for file in photos.rglob("*.png"):
        file.touch()
    (photos / "notes.txt").touch()
    folder(path=str(photos), size=16)
    photos.rename(tmp_path / "elsewhere")
    assert folder(path=str(tmp_path / "elsewhere"), size=16).name == "elsewhere"


def test_a_folder_that_cannot_be_written_is_read_all_the_same(photos, cache, undecodable):
    for place in (photos / "a", photos / "b", photos):
        place.chmod(0o555)
    try:
        first = folder(path=str(photos))
        undecodable()
        assert folder(path=str(photos)).fingerprint() == first.fingerprint()
    finally:
        for place in (photos, photos / "a", photos / "b"):
            place.chmod(0o755)


# What the file is to memory


@linux
def test_rows_are_mapped_from_the_file(photos, cache):
    for opening in range(2):
        data = folder(path=str(photos))
        (file,) = kept(cache)
        (line,) = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(file))]
        start, end = (int(side, 16) for side in re.match(r"(\w+)-(\w+)", line).groups())
        assert start == data.x.data_ptr(), opening
        assert start + data.x.nbytes <= end
        del data
        assert str(file) not in Path("/proc/self/maps").read_text()


def test_writing_to_rows_changes_neither_the_file_nor_others(photos, cache):
    first, second = folder(path=str(photos)), folder(path=str(photos))
    before = second.x.clone()
    first.x.fill_(7)
    assert second.x.equal(before)
    assert folder(path=str(photos)).x.equal(before)


@linux
def test_rows_may_be_larger_than_memory(cache):
    """A sparse file, three times as large as memory and swap: only its ends are ever read."""
    info = dict(re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text()))
    n = 3 * (int(info["MemTotal"]) + int(info["SwapTotal"])) // 1024
    cache.mkdir(parents=True)
    try:
        with (cache / f"large{decoded.ROWS}").open("w+b") as file:
            file.truncate(n << 20)
            file.seek((n - 1) << 20)
            file.write(b"\5")
            decoded._finish(file, {"shape": [n, 1 << 20]})
    except OSError as error:
        pytest.skip(f"no sparse files here: {error}")
    x = decoded.find("large").x
    assert x.shape == (n, 1 << 20)
    assert (x[0, 0], x[-1, 0]) == (0, 5)


# Damage


def cut(share):
    return lambda file: os.truncate(file, int(share * file.stat().st_size))


def longer(file):
    with file.open("ab") as stream:
        stream.write(b"\0" * 4096)


def facts_of_others(file):
    content = file.read_bytes()
    file.write_bytes(content[: -decoded.END.size] + decoded.END.pack(10**12, decoded.MARK))


def no_json(file):
    content = bytearray(file.read_bytes())
    content[-decoded.END.size - 4 : -decoded.END.size] = b"\xff" * 4
    file.write_bytes(content)


def a_row_less(file):
    file.write_bytes(file.read_bytes()[30 * 40 * 3 :])


DAMAGES = {
    "empty": cut(0),
    "its beginning": cut(0.3),
    "without its last byte": lambda file: os.truncate(file, file.stat().st_size - 1),
    "longer": longer,
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "length beyond the file": facts_of_others,
    "no JSON": no_json,
    "a row less": a_row_less,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_written_anew(photos, cache, undecodable, damage):
    first = folder(path=str(photos)).fingerprint()
    (file,) = kept(cache)
    whole = file.read_bytes()
    DAMAGES[damage](file)
    again = folder(path=str(photos))
    assert again.fingerprint() == first
    assert file.read_bytes() == whole
    assert kept(cache) == [file]
    undecodable()
    folder(path=str(photos))


def test_images_that_change_while_they_are_read_are_not_kept(photos, cache, monkeypatch):
    with monkeypatch.context() as patch:

        def meddle(file, *args, **kwargs):
            if file.name == "02.png":
                picture(80).save(file)
            return images.read(file, *args, **kwargs)

        patch.setattr(rows, "read", meddle)
        data = folder(path=str(photos))
    assert data.notes == ("images changed while they were read: they will be decoded anew",)
    assert len(data.x) == 12
    assert kept(cache) == []
    assert folder(path=str(photos)).x[1].equal(torch.from_numpy(np.asarray(picture(80)).transpose(2, 0, 1).copy()))


def test_errors_leave_nothing(photos, cache, tmp_path):
    (photos / "a" / "bad.png").touch()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"1 of 13 images cannot be read:\n  a/bad.png: empty file"):
            folder(path=str(photos))
    (photos / "a" / "bad.png").unlink()
    picture(9, size=(20, 50)).save(photos / "a" / "tall.png")
    with pytest.raises(ValueError, match="13 images have 2 sizes"):
        folder(path=str(photos))
    black = tmp_path / "black"
    black.mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8)).save(black / f"{i}.png")
    with pytest.raises(ValueError, match="all 256 values are 0"):
        folder(path=str(black))
    for i in range(2, 4):
        (black / f"{i}.png").unlink()
    with pytest.raises(ValueError, match="Give at least 3 rows"):
        folder(path=str(black))
    assert kept(cache) == []


# Nowhere to keep them


def test_a_cache_that_cannot_be_made(photos, cache, monkeypatch, tmp_path_factory):
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.write_text("a file where a folder should be")
    expected = uncached(photos, monkeypatch, tmp_path_factory).fingerprint()
    for _ in range(2):
        data = folder(path=str(photos))
        assert data.fingerprint() == expected
        assert len(data.notes) == 1
        assert data.notes[0].startswith(f"decoded into memory, as {cache} cannot be written (")


def test_a_disk_that_is_nearly_full_is_not_filled(photos, cache, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 12 * 30 * 40 * 3 - 1}))
    read = counted(monkeypatch)
    data = folder(path=str(photos))
    assert data.notes == (f"decoded into memory, as {cache} cannot be written (No space left on device)",)
    assert len(read) == 12
    assert kept(cache) == []


def test_a_disk_that_fails_half_way(photos, cache, monkeypatch, tmp_path_factory):
    """Files may not grow beyond five rows: for the writer that is as good as a full disk."""
    (photos / "a" / "000.png").touch()
    expected = uncached(photos, monkeypatch, tmp_path_factory, skip_bad=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * 30 * 40 * 3, hard))
    try:
        data = folder(path=str(photos), skip_bad=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert data.fingerprint() == expected.fingerprint()
    assert data.notes == (
        "skipped 1 images that cannot be read",
        f"decoded into memory, as {cache} cannot be written (File too large)",
    )
    assert kept(cache) == []


# Other processes

OPEN = """
import sys, time
from lowerbound.data import folder, images, rows

def slow(file, *args, **kwargs):
    time.sleep(float(sys.argv[2]))
    return images.read(file, *args, **kwargs)

rows.read = slow
sys.stdin.readline()
print(folder(path=sys.argv[1]).fingerprint())
"""


def start(photos, cache, seconds) -> subprocess.Popen:
    """A process that opens a folder when told to, and takes so long for an image."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache.parent.parent), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", OPEN, str(photos), str(seconds)]
    return subprocess.Popen(arguments, env=environment, stdin=-1, stdout=-1, stderr=-1, text=True)


@linux
def test_a_kill_half_way_leaves_nothing_that_is_taken_for_rows(photos, cache, monkeypatch, tmp_path_factory):
    process = start(photos, cache, 0.3)
    process.stdin.write("\n")
    process.stdin.flush()
    until = time.monotonic() + 60
    while not any(path.stat().st_size for path in kept(cache)):
        assert time.monotonic() < until and process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = kept(cache)
    assert left.suffix == decoded.PART

    expected = uncached(photos, monkeypatch, tmp_path_factory).fingerprint()
    read = counted(monkeypatch)
    assert folder(path=str(photos)).fingerprint() == expected
    assert len(read) == 12
    assert left in kept(cache)  # for all that is known, someone is still writing to it
    os.utime(left, (time.time() - 2 * decoded.DAY,) * 2)
    assert folder(path=str(photos)).fingerprint() == expected
    assert len(read) == 12
    (file,) = kept(cache)
    assert file.suffix == decoded.ROWS


@linux
def test_two_processes_at_once(photos, cache, monkeypatch, tmp_path_factory, undecodable):
    expected = uncached(photos, monkeypatch, tmp_path_factory).fingerprint()
    processes = [start(photos, cache, 0.02) for _ in range(2)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        said, complaints = process.communicate(timeout=120)
        assert said.strip() == expected, complaints
    assert [file.suffix for file in kept(cache)] == [decoded.ROWS]
    undecodable()
    assert folder(path=str(photos)).fingerprint() == expected


def test_many_threads_at_once(cache):
    """Each maps a file of its own, and the last one stays."""

    def fill(file):
        file.write(bytes(range(256)) * 100)
        return {"shape": [100, 256]}

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: decoded.make("same", 25_600, fill, lambda: True), range(40)))
    assert all(each.x.equal(torch.arange(256, dtype=torch.uint8).expand(100, 256)) for each in made)
    assert [file.name for file in kept(cache)] == [f"same{decoded.ROWS}"]


def test_rows_long_unopened_go_and_others_stay(photos, cache):
    for size in (8, 9, 10):
        folder(path=str(photos), size=size)
        (new,) = [file for file in kept(cache) if time.time() - file.stat().st_mtime < decoded.DAY]
        os.utime(new, (time.time() - decoded.KEPT[decoded.ROWS] - 60,) * 2)
        if size == 8:
            first = new
            folder(path=str(photos), size=8)  # opened again, it is young again
            assert time.time() - first.stat().st_mtime < 60
            os.utime(first, (time.time() - 2 * decoded.DAY,) * 2)
    (cache / "other").write_text("of someone else")
    os.utime(cache / "other", (0, 0))
    folder(path=str(photos), size=8)
    assert kept(cache) == sorted([first, cache / "other"])
