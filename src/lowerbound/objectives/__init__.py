"""Objectives: trace -> (b,) in nats, to be maximised.

Most are lower bounds on log p(x), or one whose terms are weighed differently. Likelihoods are summed over dimensions
and never averaged, so a weight of 1 on the KL term is the evidence lower bound whatever the data.

Averaged over the data the KL term is a sum of three (Hoffman & Johnson 2016; Chen et al. 2018),

    E_x KL(q(z|x) || p(z)) = I(x; z)  +  KL(q(z) || prod_j q(z_j))  +  sum_j KL(q(z_j) || p(z_j)),

with the aggregated posterior q(z) = 1/n sum_i q(z|x_i): what a code says of its datum, how far its dimensions are from
independent, and how far each is from its prior. The objectives about the aggregated posterior weigh these apart, or
put another distance in their place. What is known of it in training is a batch: their terms are of the batch as
a whole, and every datum is given the same share.

A schedule is a function of the step, which reaches the objective as a tensor: a compiled training step is not compiled
again when a weight changes. With no step given the schedule is at its end. A number that is a fraction may be a tensor
too, with one value for each model of an `Ensemble`: no code here asks how large it is.

Axes: ``k`` importance samples, ``b`` batch, ``d`` elements of one latent variable.
"""

from .adversarial import Adversarial, Critic
from .aggregate import BatchDecomposition, MeanDiscrepancy, decompose_batch, log_aggregate, log_prob_pairs
from .disentangling import Dip, Factor, TotalCorrelation
from .importance import Dreg, Iwae, Renyi, StickTheLanding
from .matching import Info, Mutual, Wae
from .objective import Objective, Weight
from .weighted import Balanced, Capacity, Elbo, FreeBits, Geco, Reconstruction

__all__ = [
    "Adversarial",
    "Balanced",
    "BatchDecomposition",
    "Capacity",
    "Critic",
    "Dip",
    "Dreg",
    "Elbo",
    "Factor",
    "FreeBits",
    "Geco",
    "Info",
    "Iwae",
    "MeanDiscrepancy",
    "Mutual",
    "Objective",
    "Reconstruction",
    "Renyi",
    "StickTheLanding",
    "TotalCorrelation",
    "Wae",
    "Weight",
    "decompose_batch",
    "log_aggregate",
    "log_prob_pairs",
]
