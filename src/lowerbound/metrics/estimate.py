"""Estimates: a number, and how far it would move if it were measured again on other data."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A mean over data, and its standard error."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Float[Tensor, " n"]) -> "Estimate":
        """The mean of independent values."""
        values = values.double()
        error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(values.mean().item(), error)

    @classmethod
    def of_share(cls, hits: int, n: int) -> "Estimate":
        """The share of n independent trials that hit.

        The standard error is that of Laplace's share (hits + 1) / (n + 2): never zero, for no number of trials makes
        certain.

        >>> print(Estimate.of_share(10, 10))
        1.000 ± 0.087
        """
        shrunk = (hits + 1) / (n + 2)
        return cls(hits / n, math.sqrt(shrunk * (1 - shrunk) / n))

    def __mul__(self, factor: float) -> "Estimate":
        """In other units."""
        return Estimate(self.mean * factor, self.standard_error * abs(factor))

    def summary(self) -> dict[str, float | None]:
        """The numbers, JSON-able; null where one is not finite."""
        numbers = {"mean": self.mean, "standard_error": self.standard_error}
        return {key: value if math.isfinite(value) else None for key, value in numbers.items()}

    def __str__(self) -> str:
        """Mean ± standard error, to the digit that the error supports."""
        if not math.isfinite(self.standard_error) or self.standard_error <= 0:
            return f"{self.mean:.4g}"
        digits = max(0, 1 - math.floor(math.log10(self.standard_error)))
        return f"{self.mean:.{digits}f} ± {self.standard_error:.{digits}f}"
