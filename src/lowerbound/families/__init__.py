"""Families: parameter tensor -> distribution.

A family is what generalised linear models call one: the kind of distribution a conditional returns, together with the
map from an unconstrained network output to its parameters. An encoder's family makes q(z|x), a decoder's p(x|z).

Densities are in the data's own units. A location-scale family predicts in standardised units and maps back by
``shift`` and ``unit`` (the data's mean and spread), so that multiplying the data by c lowers the log-density by exactly
log c for each dimension.

Scales are ``exp(s / (1 + |s| / 7))``: monotone, smooth, between e^-7 and e^7 for every finite network output, with
a gradient that fades but never dies. Parameters are computed in float32 or better, also under bfloat16 autocast.

Axes: ``*batch``, then ``*event``. The first event axis carries the parameters.
"""

from .autoregressive import Autoregressive
from .codebook import Codebook
from .codes import Coded, Codes, FiniteScalar, OneHot, VectorQuantized
from .colours import LinkedLogisticMixture
from .columns import Columns, TableRows
from .elements import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogisticMixture,
    Laplace,
    Located,
    LocationScale,
    Normal,
    StudentT,
)
from .family import Family, positive, precise, unconstrained
from .flows import AmortizedFlow
from .missing import Missing, Missingness
from .posteriors import Householder, LowRankNormal, VonMisesFisher
from .vectors import FullNormal, InverseAutoregressive, Point

__all__ = [
    "AmortizedFlow",
    "Autoregressive",
    "Bernoulli",
    "Categorical",
    "Codebook",
    "Coded",
    "Codes",
    "Columns",
    "ContinuousBernoulli",
    "DiscretizedLogisticMixture",
    "Family",
    "FiniteScalar",
    "FullNormal",
    "Householder",
    "InverseAutoregressive",
    "Laplace",
    "LinkedLogisticMixture",
    "Located",
    "LocationScale",
    "LowRankNormal",
    "Missing",
    "Missingness",
    "Normal",
    "OneHot",
    "Point",
    "StudentT",
    "TableRows",
    "VectorQuantized",
    "VonMisesFisher",
    "positive",
    "precise",
    "unconstrained",
]
