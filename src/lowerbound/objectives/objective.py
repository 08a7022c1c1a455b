"""What an objective is, the schedule of a weight, and what objectives refuse."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..models import Site, Trace


@runtime_checkable
class Objective(Protocol):
    """What training maximises the mean of."""

    @property
    def k(self) -> int:
        """How many samples of z it takes for each x."""

    @property
    def horizon(self) -> int:
        """The step at which its schedule reaches its end."""

    def __call__(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """The value for each x, in nats."""


@dataclass(frozen=True)
class Weight:
    """A number at each step: `end`, after a linear rise from `start`. Mostly the weight of the KL term.

    Bowman et al. 2016, https://arxiv.org/abs/1511.06349; with cycles, Fu et al. 2019, https://arxiv.org/abs/1903.10145

    Args:
        end: Its final value.
        start: Its value at step 0.
        warmup: Steps that the rise takes.
        cycle: Steps from one start of the rise to the next, at least `warmup`; 0 for a single rise.
        cycles: How many rises, when `cycle` is given.

    Raises:
        ValueError: A rise longer than its cycle, or a negative number.

    >>> w = Weight(end=1.0, warmup=100)
    >>> float(w(torch.tensor(50.0)))
    0.5
    """

    end: float = 1.0
    start: float = 0.0
    warmup: int = 0
    cycle: int = 0
    cycles: int = 4

    def __post_init__(self) -> None:
        """Check the numbers against each other."""
        if min(self.end, self.start, self.warmup, self.cycle) < 0 or self.cycles < 1:
            raise ValueError(f"a weight and its schedule cannot be negative, and cycles is at least 1: got {self}")
        if self.cycle and not self.warmup:
            raise ValueError(f"cycle={self.cycle} repeats a rise that has no length: give warmup, or leave cycle at 0.")
        if 0 < self.cycle < self.warmup:
            raise ValueError(
                f"warmup={self.warmup} steps do not fit in cycle={self.cycle} steps: "
                "make the cycle as long as the warm-up, or longer."
            )

    @property
    def horizon(self) -> int:
        """The step from which the weight stays at its end."""
        return (self.cycles - 1) * self.cycle + self.warmup if self.cycle else self.warmup

    def __call__(self, step: Tensor | None) -> Tensor | float:
        """The weight at this step, as a tensor where the step is one."""
        if step is None or not self.warmup:
            return self.end
        if self.cycle:
            step = torch.where(step < self.cycles * self.cycle, step % self.cycle, self.warmup)
        return self.start + (self.end - self.start) * (step / self.warmup).clamp(max=1.0)


# Weight 1 from the first step on.
ONE = Weight()


def only_site(trace: Trace, name: str, instead: str) -> Site:
    """The latent variable of a model that has one.

    Raises:
        ValueError: It has several.
    """
    if len(trace.sites) != 1:
        raise ValueError(
            f"objective {name!r} is derived for one latent variable; this model has {len(trace.sites)}. "
            f"Use {instead!r} instead."
        )
    return trace.sites[0]


def check(name: str, sizes: Mapping[str, float], wrong: Iterable[str] = ()) -> None:
    """Refuse numbers that an objective cannot have.

    Args:
        name: Of the objective.
        sizes: Numbers that must be finite, and not negative.
        wrong: What else is wrong.

    Raises:
        ValueError: Something is; all that is, is listed.
    """
    offences = [f"{key}={v} must be 0 or more, and finite" for key, v in sizes.items() if not 0 <= v < math.inf]
    if offences := [*offences, *wrong]:
        raise ValueError(f"objective {name!r} cannot be so: " + "; ".join(offences) + ".")
