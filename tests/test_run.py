"""Runs: tables against signatures, and texts against types."""

import inspect
import tomllib
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import COLUMNS
from lowerbound import catalogue, recipes
from lowerbound.run import (
    TABLES,
    accepts,
    as_typed,
    build,
    describe,
    find,
    full,
    hint,
    override,
    parse,
    plain,
    read,
    write,
)
from lowerbound.train import Options

Word = Literal["one", "two"]


def recipe(x=None, *, size: int = 3, rate: float = 0.5, widths: Sequence[int] = (4, 5), word: Word = "one",
           scale: str | float = "shared", flag: bool = False, name_of: str | None = None):  # fmt: skip
    return x, size, rate, widths, word, scale, flag, name_of


def needy(*, path: str, depth: int = 1):
    return path, depth


CASES = [
    (int, [1, -3], [1.0, True, "1", None, [1]]),
    (float, [1, 1.5, float("inf")], [True, "1", None, float("nan")]),
    (str, ["a", ""], [1, None, ["a"]]),
    (bool, [True, False], [0, 1, "true"]),
    (Sequence[int], [[1, 2], (), (3,)], [1, "12", [1.5], [True], [None]]),
    (Sequence[Sequence[int]], [[[1], []]], [[1]]),
    (Word, ["one", "two"], ["three", 1, ["one"]]),
    (str | float, ["a", 2, 2.5], [True, None, [1]]),
    (str | None, ["a", None], [1, True]),
    (None, [None], [0, ""]),
    (Any, [1, "a", None, [1]], []),
    (inspect.Parameter.empty, [1, "a"], []),
]


@pytest.mark.parametrize("annotation, good, bad", CASES, ids=str)
def test_values_are_of_their_types(annotation, good, bad):
    assert [v for v in good if not accepts(annotation, v)] == []
    assert [v for v in bad if accepts(annotation, v)] == []


def test_types_have_words():
    assert describe(int) == "a whole number" and describe(Sequence[int]) == "a list, each a whole number"
    assert describe(str | float) == "text or a number" and describe(str | None) == "text or none"
    assert describe(Word) == "one of 'one', 'two'" and describe(bool) == "true or false"


@pytest.mark.parametrize(
    "text, annotation, value",
    [
        ("64", int, 64),
        ("1_000", int, 1000),
        ("64", float, 64),
        ("1e-3", float, 1e-3),
        ("64", str, "64"),
        ("shared", str | float, "shared"),
        ("0.5", str | float, 0.5),
        ("1e4", int, 10_000),
        ("512", Sequence[int], [512]),
        ("512,256", Sequence[int], [512, 256]),
        ("[512, 256]", Sequence[int], [512, 256]),
        ("a,b", Sequence[str], ["a", "b"]),
        ("a,b", str, "a,b"),
        ("true", bool, True),
        ("False", bool, False),
        ("true", str, "true"),
        ("none", str | None, None),
        ("none", str, "none"),
        ('"a b"', str, "a b"),
        ("one", Word, "one"),
        (" 7 ", int, 7),
        ("photos/2024", str, "photos/2024"),
    ],
)
def test_texts_are_read_as_the_type_wants_them(text, annotation, value):
    found = parse(text, annotation)
    assert found == value and type(found) is type(value)


@given(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.lists(st.integers(), max_size=5))
@settings(max_examples=80, deadline=None)
def test_what_is_written_on_the_command_line_is_what_is_read(value):
    kind = Sequence[int] if isinstance(value, list) else type(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    assert parse(text, kind) == value


@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=20))
@settings(max_examples=80, deadline=None)
def test_any_text_is_a_text_and_never_an_error(text):
    assert isinstance(parse(text, str), str)
    assert parse(text, Any) is not None or text.strip().lower() == "none"


@pytest.mark.parametrize(
    "annotation, value",
    [(int, 3), (float, 0.1), (str, "a b"), (bool, True), (str | None, None), (Sequence[int], [3]), (Sequence[int], [])],
)
def test_what_is_shown_as_typed_can_be_typed(annotation, value):
    assert parse(as_typed(value), annotation) == value


def empty_run():
    return {kind: {} for kind in TABLES}


def test_overrides_reach_their_table():
    run = empty_run() | {"model": {"name": "conv", "latent": 3}}
    override(run, "model.latent=64", recipes.annotation)
    override(run, "train.lr = 1e-3", recipes.annotation)
    override(run, "model.channels=8,16", recipes.annotation)
    override(run, "data.path=a=b", lambda *a: str)
    assert run["model"] == {"name": "conv", "latent": 64, "channels": [8, 16]}
    assert run["train"] == {"lr": 1e-3} and run["data"] == {"path": "a=b"}
    override(run, "model.name = mlp", recipes.annotation)
    assert run["model"] == {"name": "mlp"}  # the options of another recipe mean nothing to it


@pytest.mark.parametrize("text", ["latent=64", "model.latent", "model.=3", "=", "", ".a=1"])
def test_what_is_no_override_is_refused(text):
    with pytest.raises(ValueError, match=r"is no override: write table.key=value|there is no table ''"):
        override(empty_run(), text, recipes.annotation)


def test_training_has_one_recipe_and_no_name():
    run = empty_run() | {"train": {"lr": 1.0}}
    override(run, "train.name=x", recipes.annotation)
    with pytest.raises(ValueError, match=r"train cannot be built: it has no option 'name'.*Its options: steps, batch"):
        full(Options, "train", run["train"])
    assert run["train"]["lr"] == 1.0


def test_a_table_that_is_mistyped_is_guessed():
    with pytest.raises(ValueError, match=r"there is no table 'modle' \(did you mean 'model'\?\) in 'modle.latent=3'"):
        override(empty_run(), "modle.latent=3", recipes.annotation)


def test_hints_are_close_or_not_given():
    assert hint("latnet", ["latent", "hidden"]) == " (did you mean 'latent'?)"
    assert hint("xyzzy", ["latent", "hidden"]) == ""


def test_a_table_is_completed_with_every_default():
    table = full(recipe, "model", {"name": "r", "size": 7})
    assert table == {
        "name": "r", "size": 7, "rate": 0.5, "widths": [4, 5], "word": "one", "scale": "shared", "flag": False,
        "name_of": None,
    }  # fmt: skip
    assert full(recipe, "model", table) == table
    assert plain(((1, 2), [3])) == [[1, 2], [3]]


def test_all_that_is_wrong_with_a_table_is_said_at_once():
    table = {"name": "r", "sizes": 3, "rate": "fast", "widths": 3, "word": "tow", "flag": 1}
    with pytest.raises(ValueError, match=r"model 'r' cannot be built") as caught:
        full(recipe, "model", table)
    text = str(caught.value)
    for part in (
        "it has no option 'sizes' (did you mean 'size'?)",
        "rate='fast' should be a number",
        "widths=3 should be a list, each a whole number",
        "word='tow' should be one of 'one', 'two' (did you mean 'two'?)",
        "flag=1 should be true or false",
        "Its options: size, rate, widths",
    ):
        assert part in text


def test_a_recipe_is_called_with_its_table():
    assert build(recipe, "model", {"name": "r", "size": 7}, "rows")[:2] == ("rows", 7)
    assert build(Options, "train", {"steps": 7}).steps == 7
    assert build(needy, "data", {"name": "n", "path": "p"}) == ("p", 1)
    with pytest.raises(ValueError, match=r"data 'n' needs data.path\."):
        build(needy, "data", {"name": "n"})


def test_a_recipe_is_found_by_name():
    assert find(recipes.MODELS, "model", {"name": "mlp"}) is recipes.mlp
    with pytest.raises(ValueError, match=r"'model' names no recipe: give model.name, one of mlp, conv"):
        find(recipes.MODELS, "model", {})
    with pytest.raises(ValueError, match=r"there is no model 'covn' \(did you mean 'conv'\?\)\. There are: mlp, conv"):
        find(recipes.MODELS, "model", {"name": "covn"})


@pytest.mark.parametrize("model", list(recipes.MODELS))
@pytest.mark.parametrize("objective", list(recipes.OBJECTIVES))
def test_a_full_run_comes_back_from_its_file(model, objective, tmp_path):
    given = {"columns": [column.table() for column in COLUMNS]} if model == "table" else {"latent": 5}
    run = {
        "data": full(recipes.DATA["digits"], "data", {"name": "digits"}),
        "model": full(recipes.MODELS[model], "model", {"name": model} | given),
        "objective": full(recipes.OBJECTIVES[objective], "objective", {"name": objective}),
        "train": full(Options, "train", {"lr": 3e-4}),
    }
    path = tmp_path / "run.toml"
    path.write_text(write(run), encoding="utf-8")
    assert read(path) == run


def test_none_is_left_out_of_a_file_and_is_the_default():
    run = empty_run() | {"model": full(recipe, "model", {"name": "r"})}
    written = tomllib.loads(write(run))
    assert "name_of" not in written["model"]
    assert full(recipe, "model", written["model"]) == run["model"]


def test_a_file_that_is_no_toml_or_no_run_is_refused(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("model = {", encoding="utf-8")
    with pytest.raises(ValueError, match=r"run.toml is not valid TOML"):
        read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"run.toml is not valid TOML"):
        read(path)
    path.write_text("[modle]\nlatent = 3\n[train]\nsteps = 4\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds 'modle' \(did you mean 'model'\?\), but a run is made of the tables"):
        read(path)
    path.write_text("model = 3\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds model=3, but a run is made of the tables"):
        read(path)
    path.write_text("[train]\nsteps = 4\n", encoding="utf-8")
    assert read(path) == empty_run() | {"train": {"steps": 4}}


def test_the_catalogue_of_names_is_that_of_the_recipes():
    assert {kind: set(names) for kind, names in recipes.CATALOGUES.items()} == {
        kind: set(names) for kind, names in catalogue.CATALOGUE.items()
    }
