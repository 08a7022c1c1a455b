"""What a laboratory says in words: which weight is for whom, and the evidence."""

import math
from collections.abc import Callable, Sequence

from ..metrics import Estimate
from .measures import Results
from .plan import spell


def text(estimate: Estimate) -> str:
    """Mean ± standard error, with a proper minus sign."""
    return str(estimate).replace("-", "−")


def headline(results: Results) -> list[str]:
    """What was found, a paragraph for each use of a model."""
    advice = (_generator(results), _compressor(results), _extractor(results))
    found = [paragraph for paragraph in advice if paragraph]
    return found or ["Nothing could be told: see the notes."]


def facts(results: Results) -> list[tuple[str, str, str]]:
    """The weight for each use: name, value, why."""
    rows = []
    for name, pick, why in (
        ("To generate", best_generator(results), "samples most like data"),
        (
            "To compress" if results.discrete else "As a density",
            best_compressor(results),
            "shortest code in all" if results.discrete else "highest bound",
        ),
        ("To represent", best_extractor(results), "labels read off best"),
    ):
        if pick is not None:
            rows.append((name, f"{results.vary} = {spell(pick)}", why))
    return rows


def best_generator(results: Results) -> float | None:
    """The weight whose samples are told from data least; among equals the one with the smaller distance."""
    accuracy, mmd = results.over("classifier"), results.over("mmd")
    if not accuracy or not mmd:
        return None
    equals = _as_good_as_best(accuracy, min)
    return results.weights[min(equals, key=lambda i: mmd[i].mean)] if equals else None


def best_compressor(results: Results) -> float | None:
    """The weight with the shortest code: rate and distortion together."""
    elbo = results.over("elbo")
    return results.weights[max(_measured(elbo), key=lambda i: elbo[i].mean)] if _measured(elbo) else None


def best_extractor(results: Results) -> float | None:
    """The weight from whose codes labels are read best; among equals the largest, whose codes cost least."""
    probe = results.over("probe")
    return results.weights[max(_as_good_as_best(probe, max))] if _measured(probe) else None


def _as_good_as_best(found: Sequence[Estimate], best: Callable[..., int]) -> list[int]:
    """Those within a standard error of the best."""
    if not _measured(found):
        return []
    top = found[best(_measured(found), key=lambda i: found[i].mean)]
    # an error that is not known counts as none
    near = lambda e: abs(e.mean - top.mean) <= max(0.0, e.standard_error, top.standard_error)
    return [i for i in _measured(found) if near(found[i])]


def _measured(found: Sequence[Estimate]) -> list[int]:
    return [i for i, estimate in enumerate(found) if math.isfinite(estimate.mean)]


def _at(results: Results, name: str, weight: float | None) -> str:
    estimate = results.at(name, weight)
    return "unknown" if estimate is None else text(estimate)


def _generator(results: Results) -> str:
    weight = best_generator(results)
    if weight is None:
        return ""
    found = (
        f"As a generator, take {results.vary} = {spell(weight)}: a classifier tells its samples from held-out data "
        f"with accuracy {_at(results, 'classifier', weight)} (0.5 would be a guess), at a squared MMD of "
        f"{_at(results, 'mmd', weight)}."
    )
    other = 1.0 if weight != 1 and 1.0 in results.weights else None
    if other is not None:
        found += f" At 1 it is {_at(results, 'classifier', other)}."
    if results.at("classifier", None):
        found += f" For what the plain autoencoder makes of noise it is {_at(results, 'classifier', None)}."
    return found


def _compressor(results: Results) -> str:
    weight = best_compressor(results)
    if weight is None:
        return ""
    total = results.over("elbo")[results.weights.index(weight)] * -1.0
    if not results.discrete:
        return (
            f"As a density, take {results.vary} = {spell(weight)}: rate and distortion sum to {text(total)} nats, in "
            "the units of the data, the least measured."
        )
    found = (
        f"As a compressor without loss, take {results.vary} = {spell(weight)}: rate and distortion sum to "
        f"{text(total)} nats, {text(total * (1 / (results.dims * math.log(2))))} bits/dim, the least measured."
    )
    if results.entropy is not None:
        found += f" The data's entropy is {results.entropy:.1f} nats; no code is shorter on average."
    return found + " With loss, choose a point on the curve of rate and distortion by the rate you can afford."


def _extractor(results: Results) -> str:
    weight = best_extractor(results)
    if weight is None:
        return ""
    found = (
        f"As a feature extractor, take {results.vary} = {spell(weight)}: a linear classifier reads the labels off its "
        f"codes with accuracy {_at(results, 'probe', weight)}, from {_at(results, 'active_units', weight)} active "
        "dimensions."
    )
    if results.at("probe", None):
        found += f" From the plain autoencoder's it is {_at(results, 'probe', None)}."
    return found
