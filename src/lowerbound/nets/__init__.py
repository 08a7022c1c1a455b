"""Networks: tensors to tensors of given event shapes.

Depth trains because every layer that can be is a residual block that starts close to the identity: normalise,
transform, scale by a small learned gain, add (He et al. 2016, https://arxiv.org/abs/1603.05027; Touvron et al. 2021,
https://arxiv.org/abs/2103.17239).

Every network takes any number of leading axes, such as (k, b), and folds them into one here and nowhere else.
"""

from .conditions import Attributes, Beside, KnownPart, OneHot, channels_beside, planes
from .images import Down, Up, conv_block, conv_down, conv_up, norm, pyramid
from .masked import CausalNet, Embedded, Scaled
from .sequences import Attending, Reader, Recurrent, Steps, Summary
from .tables import TableInput, TableNumbers
from .vectors import (
    ACTIVATIONS,
    ROW_LENGTH,
    START_ROWS,
    Bias,
    Folded,
    Gated,
    Residual,
    Standardize,
    glorot,
    mlp,
    standardisation,
)

__all__ = [
    "ACTIVATIONS",
    "ROW_LENGTH",
    "START_ROWS",
    "Attending",
    "Attributes",
    "Beside",
    "Bias",
    "CausalNet",
    "Down",
    "Embedded",
    "Folded",
    "Gated",
    "KnownPart",
    "OneHot",
    "Reader",
    "Recurrent",
    "Residual",
    "Scaled",
    "Standardize",
    "Steps",
    "Summary",
    "TableInput",
    "TableNumbers",
    "Up",
    "channels_beside",
    "conv_block",
    "conv_down",
    "conv_up",
    "glorot",
    "mlp",
    "norm",
    "planes",
    "pyramid",
    "standardisation",
]
