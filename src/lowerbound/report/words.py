"""What a report says in words: for a newcomer, and exact."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..data import Data
from ..evaluation import Evaluation, dead_levels
from ..metrics import MIDDLE, STRAY, Estimate
from ..models import Model

COLLAPSED = (
    "the posterior has collapsed onto the prior, and the decoder models the data alone. Try a KL warm-up, free bits, a "
    "smaller weight of the KL term, or a weaker decoder."
)
SILENT = (
    "every datum has the same codes, and the decoder models the data alone. The command lowerbound doctor names "
    "what may bring them back."
)
FEW = " The rest have collapsed onto the prior: they carry nothing, and the model would do as well without them."
NO_BOUND = (
    "This model has no bound on log p(x). Its encoder gives one point for each datum and no distribution, as in a "
    "plain autoencoder, and it would take infinitely many nats to say which. "
)
NO_LIKELIHOOD = (
    "This model has no bound on log p(x). It was trained without a likelihood: its pictures are to resemble the data "
    "and to pass a critic, and what it says of log p(x) means nothing. "
)
WHERE_CODES_ARE = (
    "Its prior lies where the codes are ({share:.0%} of them are outside of its middle {middle:.0%}): it says how "
    "likely a code is, though not how likely a datum, and what is drawn from it decodes to new data."
)
ELSEWHERE = (
    "Its prior lies elsewhere than the codes ({share:.0%} of them are outside of its middle {middle:.0%}): it "
    "compresses, but it is no model of the data. The command lowerbound refit RUN --prior gmm fits a prior to the "
    "codes, and makes a generator of it."
)
DENSITY = (
    " The data are continuous: p(x) is a density in their own units and may exceed 1, so the bound may be positive, "
    "and it compares only with models of the same data in the same units."
)


def headline(
    evaluation: Evaluation,
    data: Data,
    log: Sequence[Mapping[str, Any]],
    split: str,
    strays: float | None = None,
) -> list[str]:
    """What was found, a list of paragraphs.

    Args:
        evaluation: The numbers.
        data: What the model was trained on.
        log: Of the training.
        split: Which rows were evaluated.
        strays: Of a model without a bound, the share of the codes that lie outside of its prior's middle part, if it
            is known.
    """
    if math.isnan(evaluation.distortion.mean):
        return [
            f"On {_rows(evaluation, data, split)}, log p({data.explained}) is not a number: the model has diverged."
        ]
    paragraphs = _bound(evaluation, data, split) if evaluation.is_bound else _no_bound(evaluation, data, split, strays)
    used, units = evaluation.active_units, evaluation.units
    if used == 0:
        which = f"The one {evaluation.unit} is not" if units == 1 else f"None of the {units:,} {evaluation.unit}s is"
        paragraphs.append(f"{which} used: {SILENT if evaluation.of_choices else COLLAPSED}")
    else:
        depth = len(evaluation.latents)
        dead = dead_levels(evaluation.latents) if depth > 1 else []
        few = evaluation.is_bound and units >= 8 and 4 * used <= units
        more = f" {which_levels(dead, depth)} dead." if dead else FEW if few else ""
        verb = "is" if used == 1 else "are"
        paragraphs.append(f"{used:,} of {_count(units, evaluation.unit)} {verb} used.{more}")
    last = log[-1] if log else {}
    if last.get("skipped"):
        paragraphs.append(
            f"{last['skipped']:,} of {last['step']:,} updates were skipped, because the loss or the gradient was not "
            "finite or was insanely large. A few do no harm; many call for a smaller learning rate."
        )
    return paragraphs


def facts(evaluation: Evaluation, data: Data, model: Model) -> list[tuple[str, str, str]]:
    """The numbers to show large: name, value, unit."""
    found = []
    if evaluation.is_bound:
        how = f"nats, {evaluation.k:,} samples" if evaluation.k > 1 else "nats, 1 sample"
        found.append((f"log p({data.explained}) at least", text(evaluation.bound), how))
        if evaluation.bits_per_dim is not None:
            found.append(("Bits per dimension", text(evaluation.bits_per_dim), "at most"))
        found.append(("Rate", text(evaluation.rate), "nats, the latent code"))
    if evaluation.likelihood:
        found.append(("Distortion", text(evaluation.distortion), "nats, x given the code"))
    if evaluation.accuracy is not None:
        found.append(("Accuracy", text(evaluation.accuracy), "of the likeliest class, with all labels hidden"))
    used = f"{evaluation.active_units} of {evaluation.units}"
    # one stands for all, and where only some are codes it is one of the others
    latent = min(evaluation.latents, key=lambda latent: latent.of_choices)
    found.append((f"Active {latent.unit}s", used, f"whose {latent.moves}"))
    found.append(("Parameters", f"{sum(p.numel() for p in model.parameters()):,}", "numbers that were trained"))
    return found


def overfitting(log: Sequence[Mapping[str, Any]]) -> str:
    """How far the bound on training rows is from that on held-out rows, if the log knows, and where it was best."""
    looks = [entry for entry in log if _finite(entry.get("train_bound")) and _finite(entry.get("valid_bound"))]
    if not looks:
        return ""
    last, best = looks[-1], max(looks, key=lambda entry: entry["valid_bound"])
    gap = last["train_bound"] - last["valid_bound"]
    found = f"At step {last['step']:,} the bound is {number(last['train_bound'])} on training rows and "
    found += f"{number(last['valid_bound'])} on held-out rows, with one sample"
    if gap <= 0:
        return found + ": held-out rows fare no worse."
    found += f", a gap of {number(gap)} nats"
    if gap > max(1.0, 0.05 * abs(last["valid_bound"])):
        found += ", which is overfitting. More data, a smaller model or fewer steps would close it"
    if best is not last:
        found += f". Held-out rows fared best at step {best['step']:,}, with {number(best['valid_bound'])}"
    return found + "."


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def which_levels(levels: Sequence[int], depth: int) -> str:
    """Some of several latent variables as the subject of a sentence, with its verb: "Levels 1 and 3 of 4 are"."""
    *first, last = [str(level + 1) for level in levels]
    return f"Levels {', '.join(first)} and {last} of {depth} are" if first else f"Level {last} of {depth} is"


def text(estimate: Estimate) -> str:
    """Mean ± standard error, with a proper minus sign."""
    return str(estimate).replace("-", "−")


def number(value: float) -> str:
    """A number in nats, to a tenth."""
    return f"{value:,.1f}".replace("-", "−")


def duration(seconds: float) -> str:
    """A time in the units one would say it in."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def _bound(evaluation: Evaluation, data: Data, split: str) -> list[str]:
    how = f"importance-weighted bound, {evaluation.k:,} samples" if evaluation.k > 1 else "one-sample bound"
    image = len(data.event) == 3
    first = (
        f"On {_rows(evaluation, data, split)}, the model gives log p({data.explained}) ≥ "
        f"{text(evaluation.bound)} nats each ({how})"
    )
    bits = evaluation.bits_per_dim
    if bits is not None:
        unit = "bits per pixel" if image and data.event[0] == 1 else "bits per dimension"
        first += f", or at most {text(bits)} {unit}"
        levels = data.observed_levels
        first += f"; to guess uniformly would cost {math.log2(levels):.2f}" if levels else ""
        if levels and bits.mean > math.log2(levels):
            first += ", so the model has learned nothing yet"
    second = (
        f"The evidence lower bound itself is {text(evaluation.elbo)} nats: the latent code costs "
        f"{number(evaluation.rate.mean)} (rate), and the {'pixels' if image else 'values'} given the code "
        f"{number(evaluation.distortion.mean)} (distortion)."
    )
    return [first + ".", second + ("" if bits is not None else DENSITY)]


def _no_bound(evaluation: Evaluation, data: Data, split: str, strays: float | None) -> list[str]:
    where = ""
    if strays is not None:
        where = (WHERE_CODES_ARE if strays <= STRAY else ELSEWHERE).format(share=strays, middle=MIDDLE)
    if not evaluation.likelihood:
        return [NO_LIKELIHOOD + where]
    return [
        NO_BOUND + where,
        f"On {_rows(evaluation, data, split)}, its reconstructions cost {text(evaluation.distortion)} nats each "
        "(−log p(x|z), the distortion). That leaves out the cost of the code, so it does not compare with a bound.",
    ]


def _rows(evaluation: Evaluation, data: Data, split: str) -> str:
    kind = "image" if len(data.event) == 3 else "row"
    n = len(evaluation.values)
    if split == "train":
        return f"{_count(n, f'training {kind}')}, which it has seen"
    return f"{_count(n, f'held-out {kind}')} of the {split} split"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
