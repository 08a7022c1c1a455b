"""Finding and downloading: nothing half-way or wrong is ever taken for the real file."""

import gzip
import hashlib
import http.client
import io
import urllib.error
import urllib.request

import pytest

from lowerbound.data.files import content, find

BYTES = bytes(range(256)) * 100
DIGEST = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no LOWERBOUND_DATA."""
    monkeypatch.delenv("LOWERBOUND_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    return tmp_path / "cache" / "lowerbound"


@pytest.fixture
def source(tmp_path):
    """A published file: a .gz of BYTES."""
    file = tmp_path / "published.gz"
    file.write_bytes(gzip.compress(BYTES))
    return file


class Source(io.BytesIO):
    """A stub of what urlopen returns, that fails at the end."""

    headers = {}  # noqa: RUF012

    def __init__(self, data, error):
        super().__init__(data)
        self.error = error

    def read(self, n=-1):
        if data := super().read(n):
            return data
        raise self.error


def files_under(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_downloads_once(cache, source):
    path = find("things", "a.gz", source.as_uri(), DIGEST)
    assert path == cache / "things" / "a.gz"
    assert content(path, DIGEST) == BYTES
    source.unlink()
    assert find("things", "a.gz", source.as_uri(), DIGEST) == path
    assert files_under(cache) == [path]


def test_the_given_folder_comes_first(cache, source, tmp_path, monkeypatch):
    find("things", "a.gz", source.as_uri(), DIGEST)
    given = tmp_path / "given" / "things" / "a.gz"
    given.parent.mkdir(parents=True)
    given.write_bytes(gzip.compress(BYTES, mtime=1, compresslevel=1))  # another wrapper of the same content
    monkeypatch.setenv("LOWERBOUND_DATA", str(tmp_path / "given"))
    assert find("things", "a.gz", source.as_uri(), DIGEST) == given
    assert content(given, DIGEST) == BYTES


def test_a_wrong_checksum_leaves_nothing_behind(cache, source):
    source.write_bytes(gzip.compress(BYTES[:-1]))
    with pytest.raises(ValueError, match=r"published.gz does not hold what was published.*Nothing was kept"):
        find("things", "a.gz", source.as_uri(), DIGEST)
    assert files_under(cache) == []


def test_without_a_network_it_says_which_file_to_put_where(cache, monkeypatch):
    def refuse(url, timeout):
        raise urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(OSError, match=r"a.gz is not on this machine.*refused.*put it at .*LOWERBOUND_DATA") as error:
        find("things", "a.gz", "http://example.org/a.gz", DIGEST)
    assert str(cache / "things" / "a.gz") in str(error.value)
    assert files_under(cache) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ConnectionResetError("reset"), http.client.IncompleteRead(b"")])
def test_an_interrupted_download_leaves_nothing_behind(cache, monkeypatch, error):
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Source(BYTES[:1000], error))
    with pytest.raises((KeyboardInterrupt, OSError)):
        find("things", "a.gz", "http://example.org/a.gz", DIGEST)
    assert files_under(cache) == []


def test_what_a_kill_left_is_not_taken_for_the_file(cache, source):
    left = cache / "things" / ".a.gz.abc123.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(gzip.compress(BYTES)[:50])
    assert content(find("things", "a.gz", source.as_uri(), DIGEST), DIGEST) == BYTES


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(BYTES)[:-20])
    with pytest.raises(ValueError, match=r"a.gz does not hold what was published.*Delete it"):
        content(file, DIGEST)


@pytest.mark.parametrize("line", ["0 1 1 0\n1 0 0 1\n", "0 1 1 0 \r\n1 0 0 1 \r\n"])
def test_the_content_of_a_text_of_bits_is_its_bits(tmp_path, line):
    bits = bytes([0, 1, 1, 0, 1, 0, 0, 1])
    file = tmp_path / "bits.amat"
    file.write_text(line)
    assert content(file, hashlib.sha256(bits).hexdigest()) == bits
