"""Whether the latent variables are used, by posterior and decoder, and the units of the networks.

A posterior that does not move with x has collapsed onto the prior, and z says nothing of x. The other side of it is a
decoder that explains x as well by the code of another datum (Bowman et al. 2016, https://arxiv.org/abs/1511.06349;
Lucas et al. 2019, https://arxiv.org/abs/1911.02469).

Axes: ``n`` rows, ``u`` units of a layer, ``*event`` one latent variable.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..choices import principal_directions
from ..evaluation import undisturbed
from ..metrics import ACTIVE, Estimate, posterior_mean
from .finding import Finding
from .subject import Subject

# Nats that z must carry, or that the decoder must lose without it, to be called used.
USED = 0.5
SENSITIVITY = (0.003, 0.03)
# The least part of the latent dimensions that should be active, where there are more than a few.
ACTIVE_SHARE, FEW_UNITS = 0.15, 16
VARIANCE = 0.95
# The part of the units of a network that may be dead or saturated.
DEAD = 0.1
SATURATED = 0.99
REVIVED = (
    "The KL term no longer prices z out before it has found a use, and the decoder learns to read it. A decoder that "
    "can do less by itself (narrower, and not autoregressive) leaves z more to say."
)
ACTIVATIONS = (nn.SiLU, nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid)


def posterior_collapse(subject: Subject) -> Finding:
    """Whether the posterior moves with the data, in every latent variable."""
    latents = subject.held_out.latents
    rates = [latent.rate.mean for latent in latents]
    activity = torch.cat([latent.activity.flatten() for latent in latents])
    counts = [int((activity > threshold).sum()) for threshold in (ACTIVE, *SENSITIVITY)]
    where = f"; rate {_each(rates)}" if len(rates) > 1 else f"; rate {rates[0]:.2f} nats"
    what = (
        f"{counts[0]} of {len(activity):,} latent dimensions are active (posterior mean varies by more than {ACTIVE}; "
        f"{counts[1]} at {SENSITIVITY[0]}, {counts[2]} at {SENSITIVITY[1]}){where}"
    )
    # a level is collapsed by its rate, or by having no dimension whose mean moves
    gone = [i for i, v in enumerate(latents) if v.rate.mean < USED or v.active_units == 0]
    if not gone:
        return Finding("posterior collapse", "healthy", what + ".", min(rates), USED)
    which = "" if len(latents) == 1 else f" of level {', '.join(str(i + 1) for i in gone)}"
    return Finding(
        "posterior collapse",
        "finding",
        f"{what}: the posterior{which} has collapsed onto the prior, and z says nothing of x.",
        min(rates),
        USED,
        _revive(subject),
        REVIVED,
    )


def collapse_in_log(subject: Subject) -> Finding | None:
    """The rate as the log has it, where the data are gone."""
    rates = [entry["valid_rate"] for entry in subject.log if entry.get("valid_rate") is not None]
    rates = rates or [entry["rate"] for entry in subject.log[-5:] if entry.get("rate") is not None]
    if not rates:
        return None
    what = f"The rate was {rates[-1]:.2f} nats when the log ended"
    if rates[-1] >= USED:
        return Finding("posterior collapse", "healthy", what + ".", rates[-1], USED)
    words = what + ": the posterior has collapsed onto the prior, and z says nothing of x."
    return Finding("posterior collapse", "finding", words, rates[-1], USED, _revive(subject), REVIVED)


def decoder_without_z(subject: Subject) -> Finding:
    """How many nats log p(x|z) falls where z comes from another datum: nothing, where the decoder does without it."""
    trace = subject.trace
    with undisturbed(subject.model, seed=0), torch.no_grad():
        own = subject.model.generate(len(trace.x), z=[site.z[0] for site in trace.sites]).log_prob(trace.x)
        others = [site.z[0].roll(1, 0) for site in trace.sites]
        swapped = subject.model.generate(len(trace.x), z=others).log_prob(trace.x)
    fall = Estimate.of(own - swapped)
    what = f"With the code of another datum, log p(x|z) falls by {fall} nats"
    if fall.mean >= USED:
        return Finding("decoder that ignores z", "healthy", what + ": the decoder reads z.", fall.mean, USED)
    return Finding(
        "decoder that ignores z",
        "finding",
        f"{what}: the decoder explains x as well without knowing which x it is. Either it is strong enough to do "
        "without z, or z was never worth its cost.",
        fall.mean,
        USED,
        _revive(subject),
        REVIVED,
    )


def latent_size(subject: Subject) -> Finding | None:
    """Whether there are far more latent dimensions than are used."""
    units, used = subject.units, subject.held_out.active_units
    if used == 0:
        return None  # that is collapse
    means = torch.cat([posterior_mean(site).flatten(1) for site in subject.trace.sites], 1)
    directions, _ = principal_directions(means, VARIANCE)
    share = min(used, directions) / units
    what = (
        f"{used} of {units:,} latent dimensions are active, and {directions} directions hold {VARIANCE:.0%} of the "
        "variance of the posterior means"
    )
    if units <= FEW_UNITS or share >= ACTIVE_SHARE:
        return Finding("latent size", "healthy", what + ".", share, ACTIVE_SHARE)
    size = int(subject.run["model"]["latent"])
    return Finding(
        "latent size",
        "finding",
        f"{what}: the latent space is far larger than what is used of it.",
        share,
        ACTIVE_SHARE,
        (f"model.latent={max(2, math.ceil(1.25 * size * share))}",),
        "The same bound from a smaller model: the dimensions that are left out carry nothing, and cost noise in the "
        "decoder and time.",
    )


def dead_units(subject: Subject) -> Finding | None:
    """Units of the networks that give the same for all data, or have run into the flat ends of their activation."""
    counts = _count_dead(subject)
    if not counts:
        return None
    dead, units = (sum(numbers) for numbers in zip(*counts.values(), strict=True))
    share = dead / units
    what = f"{dead:,} of {units:,} units give the same for all data, or are saturated"
    if share <= DEAD:
        return Finding("dead units", "healthy", what + ".", share, DEAD)
    remedy: tuple[str, ...] = (f"train.lr={float(subject.run['train']['lr']) / 3:.2g}",)
    remedy += () if subject.run["model"].get("activation") == "silu" else ("model.activation=silu",)
    worst = max(counts, key=lambda name: counts[name][0] / counts[name][1])
    return Finding(
        "dead units",
        "finding",
        f"{what}; most in {worst} ({counts[worst][0]:,} of {counts[worst][1]:,}).",
        share,
        DEAD,
        remedy,
        "Shorter steps do not throw units to where they have no gradient, and silu has one nearly everywhere.",
    )


def _revive(subject: Subject) -> tuple[str, ...]:
    """What brings a collapsed posterior back: what made it collapse is set right, else the KL term is free at first."""
    if subject.weight is not None and subject.weight > 1:
        return ("objective.beta=1",)
    if subject.fixed_scale is not None:
        return ("model.scale=shared",)
    warmup = max(1, int(subject.run["train"]["steps"]) // 4)
    return ("objective.name=free_bits", "objective.nats=4", f"objective.warmup={warmup}")


def _each(rates: list[float]) -> str:
    return "of each level " + ", ".join(f"{rate:.2f}" for rate in rates) + " nats"


def _count_dead(subject: Subject) -> dict[str, tuple[int, int]]:
    """For each activation of the networks: how many of its units are dead, and how many there are."""
    counts: dict[str, tuple[int, int]] = {}

    def look(name: str, bounded: bool) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            # a unit of a convolution is a channel, of which every pixel tells
            values = (output.movedim(1, -1) if output.ndim == 4 else output).flatten(0, -2)
            still = values.std(0) <= 1e-6 * values.abs().amax(0)
            if bounded:
                still |= (values.abs() > SATURATED).float().mean(0) > SATURATED
            units = values.shape[1]
            counts[name] = min(int(still.sum()), *counts.get(name, (units, units))[:1]), units

        return hook

    modules = [(name, module) for name, module in subject.model.named_modules() if isinstance(module, ACTIVATIONS)]
    hooks = [m.register_forward_hook(look(name, isinstance(m, nn.Tanh | nn.Sigmoid))) for name, m in modules]
    try:
        subject.infer(subject.x)
    finally:
        for hook in hooks:
            hook.remove()
    return counts
