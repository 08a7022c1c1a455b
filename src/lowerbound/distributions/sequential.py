"""Sequences drawn step by step, each step given those before it.

    log p(x) = sum_t log p(x_t | x_<t)

Where x is known all its steps are explained at once, in one pass of a network that lets none see itself or what comes
after it. A draw goes from step to step and carries what the network remembers, so that it costs as much as that pass,
not as many passes as there are steps.

Axes: ``*batch`` independent sequences, ``*step`` one step, ``t`` time, which comes last in x.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution


def in_steps(x: Shaped[Tensor, "*x"], event: Sequence[int]) -> Shaped[Tensor, "*lead_t_step"]:
    """Sequences with time first: of an x of one axis a step has the shape (1,)."""
    lead, (*step, t) = x.shape[: x.ndim - len(event)], event
    return x.movedim(-1, -len(event)).reshape(*lead, t, *(step or (1,)))


@runtime_checkable
class Transition(Protocol):
    """What says p(x_t | x_<t, h), of all steps at once and of one after the other. The two must agree."""

    def parallel(self, h: Tensor, steps: Tensor) -> Distribution:
        """Of all steps of x, (*batch, t, *step): a distribution of steps, with the batch (*batch, t)."""

    def advance(self, h: Tensor, last: Tensor | None, state: Any) -> tuple[Distribution, Any]:
        """Of the step behind `last`, (*batch, *step), and what is remembered then; of the first where both are None."""


class Sequential(Distribution):
    """p(x|h) = prod_t p(x_t | x_<t, h). Graves 2013, https://arxiv.org/abs/1308.0850

    It has no mean in closed form: look at draws.

    Args:
        transition: p(x_t | x_<t, h).
        h: What every step is told besides, a vector for each sequence.
        event: Shape of x; time is its last axis.

    >>> from lowerbound.distributions import Bernoulli
    >>> class Copied:  # the first is a fair coin, and the others are likely to be what came before
    ...     def parallel(self, h, steps):
    ...         before = torch.cat((torch.full_like(steps[..., :1, :], 0.5), steps[..., :-1, :]), -2)
    ...         return Bernoulli(h[..., None, :] * (before - 0.5), 1)
    ...     def advance(self, h, last, state):
    ...         return Bernoulli(h * (0 if last is None else last - 0.5), 1), None
    >>> p = Sequential(Copied(), torch.full((1,), 40.0), (6,))
    >>> p.log_prob(torch.ones(6)).exp()
    tensor(0.5000)
    >>> len(p.sample().unique())
    1
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, transition: Transition, h: Float[Tensor, "*batch width"], event: Sequence[int]) -> None:
        self.transition = transition
        self.h = h
        super().__init__(h.shape[:-1], torch.Size(event), validate_args=False)

    def terms(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch t"]:
        """log p(x_t | x_<t, h) of each step, in nats."""
        steps = in_steps(value, self.event_shape)
        return self.transition.parallel(self.h, steps).log_prob(steps)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats, summed over the steps."""
        return self.terms(value).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_event"]:
        """A draw, one step after the other."""
        h = self.h.expand(*sample_shape, *self.h.shape)
        last: Tensor | None = None
        state: Any = None
        drawn = []
        for _ in range(self.event_shape[-1]):
            p, state = self.transition.advance(h, last, state)
            last = p.sample().to(h.dtype)
            drawn.append(last)
        return torch.stack(drawn, -1).reshape(*h.shape[:-1], *self.event_shape)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "Sequential":
        """The same distribution over a larger batch."""
        return Sequential(self.transition, self.h.expand(*batch_shape, self.h.shape[-1]), self.event_shape)
