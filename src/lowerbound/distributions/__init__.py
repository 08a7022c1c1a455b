"""Distributions that PyTorch lacks, and the Kullback-Leibler divergences between them.

Everything here is a `torch.distributions.Distribution`: `log_prob` sums over the event and returns the batch shape,
in nats. Latent variables need `rsample`, whose gradient flows to the parameters (Kingma & Welling 2014,
https://arxiv.org/abs/1312.6114); data need exact normalisation only.

A divergence is registered where it has a closed form. Where none is, `models.Site.kl` takes the one-sample estimate
log q(z) - log p(z), which is unbiased. `stop_gradient` gives the same distribution with its parameters held constant,
for the objectives that differentiate through the sample alone.

Axes: ``*batch`` independent distributions, ``*event`` one value.
"""

from .amounts import Amounts
from .autoregressive import Autoregressive
from .bernoulli import Bernoulli, ContinuousBernoulli
from .choice import OneOf
from .codes import Book, Coded, OneHot, Quantized
from .colours import LinkedLogistics
from .completed import Completed
from .correlated import LowRankNormal, ReflectedNormal
from .entries import Counts, Cyclic, Entries, Levels, LogisticNumbers, Numbers
from .flows import Planar, Pushed, Radial, Sylvester
from .joint import Joint, Part, Rows
from .laplace import DiagonalLaplace
from .logistic import DiscretizedLogistic, LogisticMixture
from .missing import Missing
from .normal import DiagonalNormal, NormalMixture
from .operations import has_one_value, kl_per_element, mixture, stop_gradient
from .point import PointMass, Remembered
from .sequential import Sequential, Transition, in_steps
from .sphere import UniformSphere, VonMisesFisher
from .spikes import Spiked
from .warped import Warped

__all__ = [
    "Amounts",
    "Autoregressive",
    "Bernoulli",
    "Book",
    "Coded",
    "Completed",
    "ContinuousBernoulli",
    "Counts",
    "Cyclic",
    "DiagonalLaplace",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "Entries",
    "Joint",
    "Levels",
    "LinkedLogistics",
    "LogisticMixture",
    "LogisticNumbers",
    "LowRankNormal",
    "Missing",
    "NormalMixture",
    "Numbers",
    "OneHot",
    "OneOf",
    "Part",
    "Planar",
    "PointMass",
    "Pushed",
    "Quantized",
    "Radial",
    "ReflectedNormal",
    "Remembered",
    "Rows",
    "Sequential",
    "Spiked",
    "Sylvester",
    "Transition",
    "UniformSphere",
    "VonMisesFisher",
    "Warped",
    "has_one_value",
    "in_steps",
    "kl_per_element",
    "mixture",
    "stop_gradient",
]
