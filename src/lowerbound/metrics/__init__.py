"""Metrics: numbers about a model, each with its standard error where it has one.

* `traces`: what a posterior says of each latent dimension.
* `aggregate`: the parts of the KL term, and where the prior and the aggregated posterior differ.
* `codes`: how many codes have a use, and how evenly they are used.
* `strays`: whether codes that may be points lie where the prior is.
* `distances`: how far samples are from data.
* `representation`: what a classifier reads off the codes.
* `classification`: how often a model with a class among its latent variables names the right one.
* `smoothness`: how near the data an interpolation stays, and how straight it is.
* `disentanglement`: whether each dimension stands for one known factor.
"""

from .aggregate import Decomposition, aggregated_log_prob, decompose, holes
from .classification import accuracy, class_probabilities
from .codes import code_counts, perplexity, usage
from .disentanglement import SCORES, Dci, dci, every_score
from .distances import class_features, classifier_test, squared_mmd
from .estimate import Estimate
from .representation import linear_probe, neighbours_accuracy
from .smoothness import Geodesic, excess_distance, geodesic, stretch
from .strays import MIDDLE, STRAY, strays
from .traces import ACTIVE, Activity, Halves, Moments, kl_per_dimension, knows_its_mean, posterior_mean

__all__ = [
    "ACTIVE",
    "MIDDLE",
    "SCORES",
    "STRAY",
    "Activity",
    "Dci",
    "Decomposition",
    "Estimate",
    "Geodesic",
    "Halves",
    "Moments",
    "accuracy",
    "aggregated_log_prob",
    "class_features",
    "class_probabilities",
    "classifier_test",
    "code_counts",
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
    "perplexity",
    "posterior_mean",
    "squared_mmd",
    "strays",
    "stretch",
    "usage",
]
