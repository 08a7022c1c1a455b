"""The catalogue: functions that compose a model or an objective, and the names by which runs and the command line call
things.

A recipe takes keyword-only arguments of JSON types, each with a default unless nobody but the data or the user can
know it. That of a model takes one thing more, which exists only at run time: the training data, from which starting
values are taken (the encoder's standardisation, the decoder's bias, the VampPrior's pseudo-inputs). Without data
everything starts neutral, to be filled from a file.

A recipe never changes meaning: a new option defaults to what was done before. Your own model needs no entry here: build
it and give it to `Trainer`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from .. import data
from ..catalogue import TOLD
from ..nets import START_ROWS, standardisation
from ..run import find, options
from ..train import Options
from .codes import codes
from .conditional import cvae
from .ladder import ladder
from .models import RealName, TableScaleName, conv, mlp, table
from .objectives import (
    balanced,
    capacity,
    dip,
    dreg,
    elbo,
    factor,
    free_bits,
    geco,
    info,
    iwae,
    mutual,
    reconstruction,
    renyi,
    stl,
    tc,
    vaegan,
    wae,
)
from .parts import FAMILIES, POSTERIORS, PRIORS, ActivationName, FamilyName, PosteriorName, PriorName, assemble
from .pixel import pixel
from .semisupervised import m2
from .sequence import sequence
from .topdown import topdown

DATA: dict[str, Callable[..., Any]] = {
    "digits": data.digits,
    "mnist": data.mnist,
    "fashion": data.fashion,
    "binarized_mnist": data.binarized_mnist,
    "chorales": data.chorales,
    "shapes": data.shapes,
    "glyphs": data.glyphs,
    "folder": data.folder,
    "array": data.array,
    "table": data.table,
}
MODELS: dict[str, Callable[..., Any]] = {
    "mlp": mlp,
    "conv": conv,
    "ladder": ladder,
    "topdown": topdown,
    "pixel": pixel,
    "codes": codes,
    "sequence": sequence,
    "cvae": cvae,
    "m2": m2,
    "table": table,
}
OBJECTIVES: dict[str, Callable[..., Any]] = {
    "elbo": elbo,
    "free_bits": free_bits,
    "capacity": capacity,
    "balanced": balanced,
    "geco": geco,
    "iwae": iwae,
    "renyi": renyi,
    "stl": stl,
    "dreg": dreg,
    "tc": tc,
    "factor": factor,
    "dip": dip,
    "info": info,
    "mutual": mutual,
    "wae": wae,
    "vaegan": vaegan,
    "reconstruction": reconstruction,
}
CATALOGUES: dict[str, dict[str, Callable[..., Any]]] = {"data": DATA, "model": MODELS, "objective": OBJECTIVES}

__all__ = [
    "CATALOGUES",
    "DATA",
    "FAMILIES",
    "MODELS",
    "OBJECTIVES",
    "POSTERIORS",
    "PRIORS",
    "START_ROWS",
    "ActivationName",
    "FamilyName",
    "PosteriorName",
    "PriorName",
    "RealName",
    "TableScaleName",
    "annotation",
    "assemble",
    "balanced",
    "capacity",
    "codes",
    "conv",
    "cvae",
    "dip",
    "dreg",
    "elbo",
    "factor",
    "free_bits",
    "geco",
    "given",
    "info",
    "iwae",
    "ladder",
    "m2",
    "mlp",
    "mutual",
    "pixel",
    "recipe",
    "reconstruction",
    "renyi",
    "sequence",
    "standardisation",
    "stl",
    "table",
    "tc",
    "topdown",
    "vaegan",
    "wae",
]


def recipe(kind: str, name: str) -> Callable[..., Any]:
    """The recipe of this name in a table of a run; the table `train` has one only.

    Raises:
        ValueError: There is none.
    """
    return Options if kind == "train" else find(CATALOGUES[kind], kind, {"name": name} if name else {})


def annotation(kind: str, name: str, key: str) -> Any:
    """The type of an option, of the recipe of this name or, where none is named yet, of any that has it; else Any."""
    if kind == "train":
        candidates: list[Callable[..., Any]] = [Options]
    else:
        candidates = [CATALOGUES[kind][name]] if name in CATALOGUES[kind] else list(CATALOGUES[kind].values())
    known = (options(candidate).get(key) for candidate in candidates)
    return next((parameter.annotation for parameter in known if parameter), Any)


def given(model: Mapping[str, Any]) -> str:
    """What a model is told of each row: what its table says, else what such models are told; nothing for most."""
    untold = "row" if model.get("prior") == "exemplar" else ""
    return str(model.get("given", TOLD.get(model.get("name", ""), untold)))
