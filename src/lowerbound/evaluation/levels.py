"""Which of several latent variables are dead: they carry nothing, and the model would do as well without them.

A latent variable is used if the mean of its posterior moves with the data, and if it carries its share of half a nat:
all that are called dead for what little they carry have together less than half a nat.
"""

from collections.abc import Sequence

from .bounds import Latent

# Nats that latent variables must carry all together to be called used.
USED = 0.5


def dead_levels(latents: Sequence[Latent]) -> list[int]:
    """The latent variables that are dead, as indices, in the order drawn; a single one is collapse.

    Args:
        latents: What evaluation found of each.
    """
    least = USED / max(1, len(latents))
    return [i for i, latent in enumerate(latents) if latent.rate.mean < least or latent.active_units == 0]
