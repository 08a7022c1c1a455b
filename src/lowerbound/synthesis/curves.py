"""The area under the curve of a score that should tell members of one group from those of another.

It is the probability that a random member of the first scores higher than one of the second, ties counting half: 0.5
if the score knows nothing. Its standard error is that of a two-sample U-statistic (DeLong, DeLong & Clarke-Pearson
1988, https://doi.org/10.2307/2531595).

Axes: ``n`` members of the first group, ``m`` of the second.
"""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ..metrics import Estimate


def area_under_curve(high: Float[ndarray, " n"], low: Float[ndarray, " m"]) -> Estimate:
    """P(high > low) + P(high = low) / 2, with its standard error, which is never 0: no number of trials makes certain.

    >>> area_under_curve(np.array([3.0, 2.0]), np.array([1.0, 2.0])).mean
    0.875
    """
    first, second = _share_below(high, low), 1 - _share_below(low, high)
    variance = sum(shares.var(ddof=1) / len(shares) for shares in (first, second) if len(shares) > 1)
    n = min(len(high), len(low))
    return Estimate(float(first.mean()), max(math.sqrt(variance), Estimate.of_share(n, n).standard_error))


def _share_below(a: ndarray, b: ndarray) -> ndarray:
    """For each of a, the share of b that is less, equal ones counting half."""
    b = np.sort(b)
    return (np.searchsorted(b, a, side="left") + np.searchsorted(b, a, side="right")) / (2 * len(b))
