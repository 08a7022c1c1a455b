"""Whether a prior is where the codes are, of which each may be a point: it needs the prior's density alone.

Draws of a prior in many dimensions lie where log p(z) is near its mean, in a thin shell for a normal one. Codes that
are likelier than all of them, or less likely, are elsewhere, and what the prior draws is not what they decode to.

Axes: ``n`` codes, ``m`` draws, ``*event`` one latent variable.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from .estimate import Estimate

# The part of a prior's draws that is called its middle, and the share of codes outside of it from which on the prior is
# called elsewhere.
MIDDLE, STRAY = 0.98, 0.5


@torch.no_grad()
def strays(
    p: Distribution, codes: Float[Tensor, "n *event"], draws: Float[Tensor, "m *event"], part: float = MIDDLE
) -> Estimate:
    """The share of codes whose log p(z) is not among those of the middle part of the prior's own draws.

    It is 1 - part where the codes are draws of the prior, and 1 where they never meet. It looks one way: codes within a
    part of where the prior is are inside.

    Args:
        p: The prior, the same for all.
        codes: Codes of data.
        draws: Samples of the prior.
        part: How much of the prior is its middle.

    Raises:
        ValueError: The part is not between 0 and 1, or there are no codes or fewer draws than show its ends.
    """
    if not 0 < part < 1 or len(codes) == 0 or len(draws) * (1 - part) < 2:
        raise ValueError(
            f"part={part} of {len(draws):,} draws, for {len(codes):,} codes: give a part between 0 and 1, one code or "
            "more, and draws enough that some lie on both sides of the part."
        )
    own, found = p.log_prob(draws).double(), p.log_prob(codes).double()
    low, high = own.quantile(torch.tensor([(1 - part) / 2, (1 + part) / 2], dtype=own.dtype, device=own.device))
    return Estimate.of_share(int(((found < low) | (found > high)).sum()), len(found))
