"""Recipes of objectives. The weight of what an objective is about is `beta` in each that has one."""

import math
from collections.abc import Sequence
from typing import Literal

from .. import objectives
from ..objectives.objective import check

# Those whose `beta` is the weight of the whole KL term: with 1 they maximise the bound, or nearly.
WEIGH_KL = ("elbo", "free_bits", "balanced", "mutual")
# Those that train no likelihood: what a model trained by them says of log p(x) means nothing, and no bound is reported.
WITHOUT_LIKELIHOOD = ("vaegan",)
SCALES = objectives.MeanDiscrepancy.scales


def elbo(
    *, beta: float = 1.0, start: float = 0.0, warmup: int = 0, cycle: int = 0, cycles: int = 4, k: int = 1
) -> objectives.Elbo:
    """The evidence lower bound, with a weight on its KL term that may rise.

    Args:
        beta: The weight of the KL term; 1 is the bound.
        start: Its weight at step 0, if it rises.
        warmup: Steps of the rise; 0 for none.
        cycle: Steps from the start of one rise to the next; 0 for a single rise.
        cycles: How many rises.
        k: Samples of z for each x, averaged.
    """
    return objectives.Elbo(_weight(beta, start, warmup, cycle, cycles), k)


def free_bits(
    *,
    nats: float = 2.0,
    beta: float = 1.0,
    start: float = 0.0,
    warmup: int = 0,
    cycle: int = 0,
    cycles: int = 4,
    by: Literal["variable", "dimension", "group"] = "variable",
    groups: int = 1,
) -> objectives.FreeBits:
    """The evidence lower bound, with a KL term of which every part counts for no less than so many nats.

    Args:
        nats: The floor of each part.
        beta: The weight of the KL term.
        start: Its weight at step 0, if it rises.
        warmup: Steps of the rise; 0 for none.
        cycle: Steps from the start of one rise to the next; 0 for a single rise.
        cycles: How many rises.
        by: What a part is: "variable" (a latent variable), "dimension" (each of its elements), "group" (neighbours).
        groups: How many groups a latent variable is divided into.
    """
    return objectives.FreeBits(nats, _weight(beta, start, warmup, cycle, cycles), by=by, groups=groups)


def capacity(
    *, nats: float = 25.0, beta: float = 100.0, start: float = 0.0, warmup: int = 0, k: int = 1
) -> objectives.Capacity:
    """The likelihood, with a KL term that is led along a capacity which may rise.

    Args:
        nats: The capacity that the KL term is to have.
        beta: What a nat more or less costs.
        start: The capacity at step 0, if it rises.
        warmup: Steps of the rise; 0 for none.
        k: Samples of z for each x, averaged.
    """
    check("capacity", {"nats": nats, "beta": beta, "start": start, "warmup": warmup})
    return objectives.Capacity(objectives.Weight(nats, start, warmup), beta, k)


def balanced(
    *,
    prior: float = 0.8,
    levels: bool = False,
    beta: float = 1.0,
    start: float = 0.0,
    warmup: int = 0,
    cycle: int = 0,
    cycles: int = 4,
    k: int = 1,
) -> objectives.Balanced:
    """The evidence lower bound, with the gradient of its KL term shared out between prior and posterior, and levels.

    Args:
        prior: The part of that gradient which the prior receives; the posterior receives the rest. It is for priors
            that learn: with another, the posterior's KL term has the weight 1 - prior, and that is all.
        levels: Whether latent variables that are used more cost more while the weight rises.
        beta: The weight of the KL term.
        start: Its weight at step 0, if it rises.
        warmup: Steps of the rise; 0 for none.
        cycle: Steps from the start of one rise to the next; 0 for a single rise.
        cycles: How many rises.
        k: Samples of z for each x, averaged.
    """
    return objectives.Balanced(prior, levels, _weight(beta, start, warmup, cycle, cycles), k)


def geco(*, distortion: float, k: int = 1) -> objectives.Geco:
    """The least KL term at which the distortion is what is asked for.

    Args:
        distortion: The nats for each datum that are left to say of x once its code is known. A run by `elbo` reports
            where it ends; ask for less than that to have better reconstructions, for more to have better samples.
        k: Samples of z for each x, averaged.
    """
    return objectives.Geco(distortion, k)


def iwae(*, k: int = 5) -> objectives.Iwae:
    """The importance-weighted bound.

    Args:
        k: Samples of z for each x.
    """
    return objectives.Iwae(k)


def renyi(*, alpha: float = 0.5, k: int = 5) -> objectives.Renyi:
    """The variational Renyi bound, between the importance-weighted bound and the evidence lower bound.

    Args:
        alpha: Order of the divergence: 0 is `iwae`, 1 is `elbo`, and beyond it is lower still.
        k: Samples of z for each x.
    """
    return objectives.Renyi(alpha, k)


def stl(*, k: int = 1) -> objectives.StickTheLanding:
    """The bound, with the gradient that vanishes where the posterior is exact.

    Args:
        k: Samples of z for each x, averaged.
    """
    return objectives.StickTheLanding(k)


def dreg(*, k: int = 8) -> objectives.Dreg:
    """The importance-weighted bound, with doubly reparameterised gradients.

    Args:
        k: Samples of z for each x.
    """
    return objectives.Dreg(k)


def tc(
    *,
    rows: int,
    beta: float = 6.0,
    alpha: float = 1.0,
    gamma: float = 1.0,
    estimator: Literal["stratified", "weighted"] = "stratified",
    k: int = 1,
) -> objectives.TotalCorrelation:
    """The beta-TC-VAE: the three parts of the KL term, each with a weight.

    Args:
        rows: How many there are in the training data.
        beta: The weight of the total correlation.
        alpha: The weight of the mutual information of code and datum.
        gamma: The weight of the distance of each dimension from its prior.
        estimator: Of the aggregated posterior within a batch: "stratified" or "weighted".
        k: Samples of z for each x, averaged.
    """
    return objectives.TotalCorrelation(rows, beta, alpha, gamma, estimator, k)


def factor(
    *, latent: int, beta: float = 10.0, hidden: Sequence[int] = (256, 256, 256), k: int = 1
) -> objectives.Factor:
    """The FactorVAE: the bound, less the total correlation as a discriminator estimates it.

    Args:
        latent: Elements of z.
        beta: The weight of the total correlation.
        hidden: Widths of the discriminator's hidden layers.
        k: Samples of z for each x, averaged.
    """
    return objectives.Factor(latent, beta, hidden, k)


def dip(
    *, beta: float = 10.0, diagonal: float = 10.0, of: Literal["means", "samples"] = "means", k: int = 1
) -> objectives.Dip:
    """The DIP-VAE: the bound, less the squared distance of the codes' covariance from the prior's.

    Args:
        beta: The weight of what is off the diagonal.
        diagonal: How many times that the diagonal weighs.
        of: The covariance of the codes' "means" (DIP-VAE I) or of the codes themselves, "samples" (II).
        k: Samples of z for each x, averaged.
    """
    return objectives.Dip(beta, diagonal, of, k)


def info(
    *,
    alpha: float = 0.5,
    beta: float = 100.0,
    kernel: Literal["imq", "rbf"] = "rbf",
    scales: Sequence[float] = SCALES,
    k: int = 1,
) -> objectives.Info:
    """The InfoVAE: part of the KL term is replaced by the mean discrepancy of all codes from the prior.

    Args:
        alpha: The part of the KL term that is left out.
        beta: The weight of the mean discrepancy.
        kernel: "rbf" or "imq" (inverse multiquadratic).
        scales: Of the kernels that are added up; 1 is the mean distance of two draws from N(0, I).
        k: Samples of z for each x, averaged.
    """
    return objectives.Info(alpha, beta, objectives.MeanDiscrepancy(kernel, tuple(map(float, scales))), k)


def mutual(
    *,
    nats: float = 2.0,
    strength: float = 10.0,
    beta: float = 1.0,
    start: float = 0.0,
    warmup: int = 0,
    cycle: int = 0,
    cycles: int = 4,
    k: int = 1,
) -> objectives.Mutual:
    """The evidence lower bound, with a floor under the mutual information of code and datum.

    Args:
        nats: The floor; the logarithm of train.batch is as far as it can be seen.
        strength: What a nat below it costs: keep it above beta.
        beta: The weight of the KL term.
        start: Its weight at step 0, if it rises.
        warmup: Steps of the rise; 0 for none.
        cycle: Steps from the start of one rise to the next; 0 for a single rise.
        cycles: How many rises.
        k: Samples of z for each x, averaged.
    """
    return objectives.Mutual(nats, strength, _weight(beta, start, warmup, cycle, cycles), k)


def wae(
    *, beta: float = 100.0, kernel: Literal["imq", "rbf"] = "imq", scales: Sequence[float] = SCALES, k: int = 1
) -> objectives.Wae:
    """The Wasserstein autoencoder: the likelihood, less the mean discrepancy of all codes from the prior. No bound.

    Args:
        beta: The weight of the mean discrepancy.
        kernel: "imq" (inverse multiquadratic) or "rbf".
        scales: Of the kernels that are added up; 1 is the mean distance of two draws from N(0, I).
        k: Samples of z for each x, averaged.
    """
    return objectives.Wae(beta, objectives.MeanDiscrepancy(kernel, tuple(map(float, scales))), k)


def vaegan(
    *,
    event: Sequence[int],
    beta: float = 4.0,
    pixels: float = 1.0,
    features: float = 1.0,
    adversarial: float = 0.8,
    warmup: int = 0,
    penalty: float = 0.1,
    hidden: Sequence[int] = (16, 32, 64),
    centre: Sequence[float] = (0.0,),
    unit: Sequence[float] = (1.0,),
    k: int = 1,
) -> objectives.Adversarial:
    """The VAE-GAN: sharp images, by a critic that learns to tell them from data. No likelihood is trained, no bound.

    Args:
        event: Shape of one x.
        beta: The weight of the KL term.
        pixels: The weight of how far pictures are from data.
        features: The weight of how far they are in what the critic's hidden layers make of both.
        adversarial: How hard the critic pulls at a picture, in parts of how hard these distances do.
        warmup: Steps over which that rises from 0.
        penalty: The weight of the critic's squared gradient at the data.
        hidden: Widths of the critic's hidden layers; of images each is a convolution that halves them.
        centre: Of the data: one number, or one for each channel of images, or for each element of vectors.
        unit: Spread of the data, likewise.
        k: Samples of z for each x, averaged.
    """
    check("vaegan", {"adversarial": adversarial, "warmup": warmup})
    weight = objectives.Weight(adversarial, warmup=warmup)
    return objectives.Adversarial(event, beta, pixels, features, weight, penalty, hidden, centre, unit, k)


def reconstruction(*, penalty: float = 0.0) -> objectives.Reconstruction:
    """The log-likelihood without a KL term: an autoencoder. No bound.

    Args:
        penalty: The weight of log p(z), which holds the codes together: with train.weight_decay a regularised
            autoencoder, RAE-L2. 0 for a plain one.

    Raises:
        ValueError: The weight is negative or not finite.
    """
    return objectives.Reconstruction(penalty or None)


def _weight(beta: float, start: float, warmup: int, cycle: int, cycles: int) -> objectives.Weight:
    """The weight of a KL term.

    Raises:
        ValueError: Some numbers are out of range (all that are, are listed), or a rise is longer than its cycle.
    """
    given = {"beta": beta, "start": start, "warmup": warmup, "cycle": cycle}
    wrong = [f"{key}={v} must be 0 or more, and finite" for key, v in given.items() if not 0 <= v < math.inf]
    wrong += [] if cycles >= 1 else [f"cycles={cycles} must be 1 or more"]
    if wrong:
        raise ValueError("the weight of the KL term cannot be so: " + "; ".join(wrong) + ".")
    return objectives.Weight(beta, start, warmup, cycle, cycles)
