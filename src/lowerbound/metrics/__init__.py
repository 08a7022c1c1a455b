"""Metrics: numbers about a model, each with its standard error where it has one.

* `traces`: what a posterior says of each latent dimension.
* `aggregate`: the parts of the KL term, and where the prior and the aggregated posterior differ.
* `distances`: how far samples are from data.
* `representation`: what a classifier reads off the codes.
* `smoothness`: how near the data an interpolation stays, and how straight it is.
* `disentanglement`: whether each dimension stands for one known factor.
"""

from .aggregate import Decomposition, aggregated_log_prob, decompose, holes
from .disentanglement import SCORES, Dci, dci, every_score
from .distances import class_features, classifier_test, squared_mmd
from .estimate import Estimate
from .representation import linear_probe, neighbours_accuracy
from .smoothness import Geodesic, excess_distance, geodesic, stretch
from .traces import ACTIVE, Halves, Moments, kl_per_dimension, knows_its_mean, posterior_mean

__all__ = [
    "ACTIVE",
    "SCORES",
    "Dci",
    "Decomposition",
    "Estimate",
    "Geodesic",
    "Halves",
    "Moments",
    "aggregated_log_prob",
    "class_features",
    "classifier_test",
    "dci",
    "decompose",
    "every_score",
    "excess_distance",
    "geodesic",
    "holes",
    "kl_per_dimension",
    "knows_its_mean",
    "linear_probe",
    "neighbours_accuracy",
    "posterior_mean",
    "squared_mmd",
    "stretch",
]
