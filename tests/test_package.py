"""The package: what is public is there, and what needs no torch does not wait for it."""

import resource
import subprocess
import sys

import pytest

import lowerbound
from lowerbound import catalogue, recipes


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_is_there_and_the_list_is_whole():
    for name in lowerbound.__all__:
        assert getattr(lowerbound, name) is not None
    assert dir(lowerbound) == sorted(lowerbound.__all__) and len(set(lowerbound.__all__)) == len(lowerbound.__all__)
    assert lowerbound.__doc__ and lowerbound.VAE.__module__ == "lowerbound.models"


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'lowerbound' has no attribute 'VEA'"):
        lowerbound.VEA


def test_names_mean_the_same_in_whatever_order_they_are_asked_for():
    assert fresh("import lowerbound as lb; lb.Trainer; print(callable(lb.evaluate))") == "True\n"


def test_importing_it_does_not_import_torch():
    assert fresh("import sys, lowerbound; print('torch' in sys.modules, 'numpy' in sys.modules)").split() == [
        "False", "False"
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["train", "--help"], ["--version"]], ids=" ".join)
def test_help_and_names_answer_at_once(arguments):
    code = (
        f"import sys; sys.argv = ['lowerbound', *{arguments}]\n"
        "from lowerbound.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules), 'they take a second'\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert fresh(code).strip()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # of the processor, not of the wall: others are at work on it
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_the_catalogue_names_what_the_recipes_are():
    assert {kind: set(entries) for kind, entries in catalogue.CATALOGUE.items()} == {
        kind: set(entries) for kind, entries in recipes.CATALOGUES.items()
    }
    assert all(line and len(line) <= 61 for entries in catalogue.CATALOGUE.values() for line in entries.values())
