"""Imports point down, and nothing is ever pickled: read off the source."""

import ast
from pathlib import Path

import pytest

import lowerbound

HOME = Path(lowerbound.__file__).parent
FILES = sorted(HOME.rglob("*.py"))

# Bottom first. What stands on one line knows nothing of its neighbours, and only of the lines above it here.
LAYERS = [
    {"distributions", "files", "linear", "columns"},
    {"families", "nets"},
    {"models", "priors"},
    {"objectives", "metrics", "latents"},
    {"evaluation"},
    {"train"},
    {"data", "run", "figures", "catalogue"},
    {"refusals"},
    {"recipes", "choices", "views"},
    {"page", "synthesis"},
    {"checkpoint", "report", "doctor"},
    {"experiment"},
    {"lab", "refit", "sklearn"},
    {"cli", "explorer"},
]
LEVEL = {name: i for i, layer in enumerate(LAYERS) for name in layer}


def part(path: Path) -> str:
    """The module of the top level that a file belongs to."""
    return path.relative_to(HOME).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The modules of the top level that a file imports, wherever in it: by name, relative or not."""
    depth = len(path.relative_to(HOME).parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = ["lowerbound", *path.relative_to(HOME).parts[: depth - node.level]]
                base = ".".join([*package, *([node.module] if node.module else [])])
            else:
                base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("lowerbound.")}
    return found - {part(path)}


def test_every_module_has_its_place():
    modules = {part(path) for path in FILES} - {"__init__", "__main__"}
    assert modules <= LEVEL.keys()
    assert "distributions" in modules and len(modules) > 15


@pytest.mark.parametrize("path", [p for p in FILES if part(p) != "__init__"], ids=lambda p: str(p.relative_to(HOME)))
def test_imports_point_down(path):
    own = part(path)
    wrong = {name for name in imported(path) & LEVEL.keys() if LEVEL[name] >= LEVEL.get(own, 99)}
    assert not wrong, f"{own} imports {wrong}, which stand beside or above it"


def test_imports_are_seen_by_this_test():
    assert {"distributions", "models"} <= imported(HOME / "metrics" / "traces.py")
    assert {"data", "run", "train"} <= imported(HOME / "recipes" / "__init__.py")
    assert "objectives" in imported(HOME / "recipes" / "objectives.py")
    assert "report" in imported(HOME / "experiment.py")  # inside a function


def test_the_heart_imports_torch_alone():
    tree = ast.parse((HOME / "models.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = {"abc", "collections", "dataclasses", "typing", "functools", "torch", "jaxtyping"}
    assert {name.split(".")[0] for name in names} <= allowed


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOME)))
def test_nothing_is_pickled(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    forbidden = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & forbidden
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in forbidden
            if node.module == "torch":
                assert not {alias.name for alias in node.names} & {"load", "save"}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr not in ("load", "save")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOME)))
def test_a_file_is_one_thing_and_says_what(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)) or not text.strip()
    assert text.count("\n") < 550, "about 400 lines are a file; more is a package"


def test_the_public_names_are_there():
    for name in lowerbound.__all__:
        assert getattr(lowerbound, name) is not None
    assert set(lowerbound.__all__) == set(dir(lowerbound))
    with pytest.raises(AttributeError, match="module 'lowerbound' has no attribute 'nothing'"):
        lowerbound.nothing
