"""Variational autoencoders that are right by default.

The public names, each imported when it is first asked for: ``import lowerbound as lb``.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "distributions": ["DiagonalNormal", "DiscretizedLogistic", "PointMass"],
    "models": ["VAE", "Conditional", "Level", "Model", "Site", "TopDownVAE", "Trace"],
    "objectives": [
        "Balanced",
        "Capacity",
        "Dip",
        "Dreg",
        "Elbo",
        "Factor",
        "FreeBits",
        "Adversarial",
        "Geco",
        "Info",
        "Iwae",
        "Mutual",
        "Reconstruction",
        "Renyi",
        "StickTheLanding",
        "TotalCorrelation",
        "Wae",
        "Weight",
    ],
    "train": ["Ensemble", "Options", "Step", "Trainer", "TrainingError"],
    "evaluation": [
        "Evaluation",
        "annealed_bound",
        "bracket",
        "calibrate",
        "column_bounds",
        "draw_given",
        "evaluate",
        "held_out_imputation",
        "impute",
        "impute_with_uncertainty",
        "inference_gap",
        "refine",
        "refined_bound",
        "score",
        "tightness",
    ],
    "metrics": ["Estimate"],
    "checkpoint": ["load_model", "save_model"],
    "recipes": ["codes", "conv", "cvae", "ladder", "m2", "mlp", "pixel", "sequence", "table", "topdown"],
    "refit": ["fit_prior"],
}
_MODULES = (
    "checkpoint", "data", "doctor", "families", "figures", "lab", "latents", "metrics", "nets", "objectives", "priors",
    "recipes", "report", "sklearn", "synthesis",
)  # fmt: skip
_OWNER = {name: module for module, names in _HOME.items() for name in names}

__version__ = "0.1.0"
__all__ = ["__version__", *sorted(_OWNER), *_MODULES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import lowerbound`` and the command line start at once."""
    if name in _OWNER:
        return getattr(import_module(f".{_OWNER[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
