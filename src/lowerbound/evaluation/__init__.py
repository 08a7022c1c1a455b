"""Evaluation: how good a model is on data, in nats, each number with its standard error.

`evaluate` streams bounds and metrics over data. The rest asks how good the bounds are: `tightness` what more samples
would give, `annealed_bound` and `bracket` where log p(x) lies, `inference_gap` what the encoder and its family lose.
`score` says how strange single data are, `impute` what rows of a table lack, `draw_given` what rows with some things
said of them are like, `column_bounds` and `held_out_imputation` where a model of a table is good.
"""

from .annealing import Bracket, Start, annealed_bound, bracket, is_unbounded
from .bounds import DECODED, Evaluation, Latent, evaluate
from .classification import classify
from .columns import ColumnBounds, Imputed, column_bounds, held_out_imputation
from .conditions import Conditions, Given, draw_given
from .gaps import InferenceGap, inference_gap
from .imputation import Imputation, impute, impute_with_uncertainty
from .levels import USED, dead_levels
from .refinement import Refinement, refine, refined_bound
from .scores import Scores, calibrate, score
from .tightness import Tightness, tightness
from .undisturbed import undisturbed

__all__ = [
    "DECODED",
    "USED",
    "Bracket",
    "ColumnBounds",
    "Conditions",
    "Evaluation",
    "Given",
    "Imputation",
    "Imputed",
    "InferenceGap",
    "Latent",
    "Refinement",
    "Scores",
    "Start",
    "Tightness",
    "annealed_bound",
    "bracket",
    "calibrate",
    "classify",
    "column_bounds",
    "dead_levels",
    "draw_given",
    "evaluate",
    "held_out_imputation",
    "impute",
    "impute_with_uncertainty",
    "inference_gap",
    "is_unbounded",
    "refine",
    "refined_bound",
    "score",
    "tightness",
    "undisturbed",
]
