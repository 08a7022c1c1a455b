"""Posteriors that are a diagonal normal pushed through steps, all of whose parameters come from the encoder.

Axes: ``*batch``, then ``n`` elements.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints

from ..distributions.flows import Pushed, Step
from ..distributions.normal import DiagonalNormal
from ..distributions.point import Remembered
from .family import Family, positive
from .posteriors import length

PARAMETER_RANGE = 30.0


class AmortizedFlow(Family):
    """A diagonal normal pushed through steps of one kind; see `distributions.flows`.

    Its density is exact for any value: at once for a draw, by inversion for others. Its divergence from a prior is
    estimated from draws.

    Args:
        event: Shape of one value, of length one.
        step: The kind: `Planar()`, `Radial()` or `Sylvester(columns, reflections)`.
        steps: How many.

    >>> from lowerbound.distributions.flows import Planar
    >>> family = AmortizedFlow((3,), Planar(), steps=2)
    >>> family.shape  # mean and scale, then a direction, a normal and an offset for each step
    (20,)
    """

    def __init__(self, event: Sequence[int], step: Step, steps: int) -> None:
        n = length(event)
        super().__init__(event, params=1)
        self.step = step
        self.steps = steps
        self.shape = (2 * n + steps * step.size(n),)

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers."""
        return constraints.real

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """The normal of the first numbers, pushed through the steps of the others."""
        n = self.event[0]
        (params,) = self.split(params)
        loc, scale, raw = params.split((n, n, self.shape[0] - 2 * n), -1)
        # steps far from the identity are hard to invert, and products of their parameters overflow
        bounded = raw / (1 + raw.abs() / PARAMETER_RANGE)
        base = DiagonalNormal(loc, positive(scale), 1)
        return Remembered(Pushed(base, self.step, bounded.unflatten(-1, (self.steps, self.step.size(n)))))

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Zeros: a unit normal."""
        return x.new_zeros(self.shape)
