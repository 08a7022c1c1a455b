"""The examination of a trained model: every check, in the order in which one would ask.

First what the log says of the training, then whether z is used, then whether prior and likelihood are right, then how
good the bound is. What a check needs and cannot have makes its finding "unknown", with the reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..data import Data
from ..models import Model
from ..run import Table
from . import bounds, codebook, collapse, learning, likelihood, regularisation
from .finding import Finding, find_out
from .subject import NEEDS, Subject


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Attributes:
        name: What is looked for; what its finding is called.
        look: The check; None where it does not concern such a model.
        needs: What it cannot do without, of `NEEDS`.
        bound: Whether it concerns only a model that has one.
        costly: Whether it takes long.
        fallback: What is asked instead where something is missing.
    """

    name: str
    look: Callable[[Subject], Finding | None]
    needs: tuple[str, ...]
    bound: bool = True
    costly: bool = False
    fallback: Callable[[Subject], Finding | None] | None = None


HELD_OUT = ("weights", "data", "rows", "numbers")

CHECKS = (
    Check("learning rate", learning.learning_rate, ("log",), bound=False),
    Check("skipped updates", learning.skipped_updates, ("log",), bound=False),
    Check("unfinished training", learning.schedule, ("log",), bound=False),
    Check("length of training", learning.still_improving, ("log",), bound=False),
    Check("dead units", collapse.dead_units, HELD_OUT, bound=False),
    Check("posterior collapse", collapse.posterior_collapse, HELD_OUT, fallback=collapse.collapse_in_log),
    Check("decoder that ignores z", collapse.decoder_without_z, (*HELD_OUT, "likelihood"), bound=False),
    Check("latent size", collapse.latent_size, HELD_OUT, bound=False),
    Check("codebook", codebook.codebook, ("weights",)),
    Check(
        "over-regularisation", regularisation.over_regularisation, HELD_OUT, fallback=regularisation.too_large_a_weight
    ),
    Check(
        "under-regularisation",
        regularisation.under_regularisation,
        HELD_OUT,
        bound=False,
        fallback=regularisation.too_small_a_weight,
    ),
    Check("prior with holes", regularisation.prior_holes, HELD_OUT),
    Check("scale of the likelihood", likelihood.scale_of_likelihood, (*HELD_OUT, "likelihood"), bound=False),
    Check("generalisation gap", bounds.generalisation_gap, HELD_OUT, fallback=bounds.generalisation_in_log),
    Check("tightness of the bound", bounds.tightness_of_bound, HELD_OUT),
    Check("inference gap", bounds.inference, HELD_OUT, costly=True),
    Check("distance to log p(x)", bounds.bracketed, ("weights",), costly=True),
)


def examine(
    model: Model,
    run: Mapping[str, Table],
    log: Sequence[Mapping[str, Any]],
    data: Data | None = None,
    *,
    split: str = "test",
    thorough: bool = True,
) -> list[Finding]:
    """What is wrong with a trained model, and what is right.

    Args:
        model: The model, with the weights that were kept; it is left as it was.
        run: The four tables, complete.
        log: The lines of its log, in order, as `log.jsonl` has them.
        data: The data it was trained on; None if they are gone, and then model, tables and log are asked alone.
        split: Which rows to look at.
        thorough: Whether to take the minute that the inference gap and the bracket of log p(x) need.

    Returns:
        One finding for each check that concerns such a model, in the order asked.
    """
    subject = Subject(model, run, log, data, split)
    findings = []
    for check in CHECKS:
        if thorough or not check.costly:
            found = find_out(check.name, partial(_look, check, subject), run)
            findings += [found] if found else []
    return findings


def _look(check: Check, subject: Subject) -> Finding | None:
    """What a check finds, or what its fallback does, or why neither can tell."""
    if check.bound and not subject.has_bound:
        return None
    for need in check.needs:
        there, reason = NEEDS[need]
        if not there(subject):
            instead = check.fallback(subject) if check.fallback else None
            # without a log the model itself can still be looked at
            return instead or Finding(check.name, "unknown", reason, blind=need != "log")
    return check.look(subject)
