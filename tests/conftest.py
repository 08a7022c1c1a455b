"""Every test starts from the same random state, on one thread: what it finds does not depend on what ran before."""

import sys

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """What is decoded in tests is not kept where a user's is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def lowerbound(monkeypatch, capsys):
    """The command in this process: (status, stdout, stderr)."""
    from lowerbound import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["lowerbound", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return call
