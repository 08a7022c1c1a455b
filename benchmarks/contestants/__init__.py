"""The contestants: each module turns a `Problem` into a `Contestant`. Those of other packages need them installed."""

from collections.abc import Callable, Sequence
from importlib import import_module

from ..problem import Problem
from ..race import Contestant


def of_package(package: str, names: Sequence[str], problem: Problem) -> tuple[list[Contestant], list[str]]:
    """The contestants that a package enters, or a note that it is not installed."""
    if package == "jax" and problem.device != "cpu":
        return [], ["left out: jax, which is installed for the CPU alone"]
    try:
        module = import_module(f".{package}", __package__)
    except ModuleNotFoundError as missing:
        return [], [f"left out: {package}, since {missing.name} is not installed"]
    makers: list[Callable[[Problem], Contestant]] = [getattr(module, name) for name in names]
    return [make(problem) for make in makers], []
