"""Evaluation: how good a model is on data, in nats, each number with its standard error.

`evaluate` streams bounds and metrics over data. The rest asks how good the bounds are: `tightness` what more samples
would give, `annealed_bound` and `bracket` where log p(x) lies, `inference_gap` what the encoder and its family lose.
"""

from .annealing import Bracket, Start, annealed_bound, bracket
from .bounds import DECODED, Evaluation, Latent, evaluate
from .gaps import InferenceGap, inference_gap
from .imputation import impute
from .tightness import Tightness, tightness
from .undisturbed import undisturbed

__all__ = [
    "DECODED",
    "Bracket",
    "Evaluation",
    "InferenceGap",
    "Latent",
    "Start",
    "Tightness",
    "annealed_bound",
    "bracket",
    "evaluate",
    "impute",
    "inference_gap",
    "tightness",
    "undisturbed",
]
