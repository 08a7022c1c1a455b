"""Whether the latent variables are used, by posterior and decoder, and the units of the networks.

A posterior that does not move with x has collapsed onto the prior, and z says nothing of x. The other side of it is a
decoder that explains x as well by the code of another datum (Bowman et al. 2016, https://arxiv.org/abs/1511.06349;
Lucas et al. 2019, https://arxiv.org/abs/1911.02469).

Axes: ``n`` rows, ``u`` units of a layer, ``*event`` one latent variable.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..choices import principal_directions
from ..evaluation import USED, Latent, dead_levels, undisturbed
from ..metrics import ACTIVE, Estimate, posterior_mean
from ..refusals import COMMITTED
from .finding import Finding
from .subject import Subject

SENSITIVITY = (0.003, 0.03)
# The least part of the latent dimensions that should be active, where there are more than a few.
ACTIVE_SHARE, FEW_UNITS = 0.15, 16
VARIANCE = 0.95
# How many dimensions are named by their numbers.
NAMED = 6
# The part of the units of a network that may be dead or saturated.
DEAD = 0.1
SATURATED = 0.99
# The part of its size within which a unit that gives the same for all data is rounded.
STILL = 1e-5
REVIVED = (
    "The KL term no longer prices z out before it has found a use, and the decoder learns to read it. A decoder that "
    "can do less by itself (narrower, and not autoregressive) leaves z more to say."
)
# The part of the training over which the KL term of several latent variables is to rise, and what is long enough.
RISE, LONG_RISE = 0.9, 0.8
RISEN = "Levels that are drawn late find a use only while the KL term does not price them out."
WEAKENED = "A decoder that can do less by itself leaves z more to say{}."
REQUANTISED = (
    "An encoder that is not held to vectors that mean nothing yet, or has one map to learn or more time, finds a use "
    "for codes. What they cost never reaches it, so that no weight of the KL term helps."
)
TAUGHT = "The classifier learns more of the labels that there are: log q(y|x) is what teaches it, and alpha weighs it."
# What decides how many latent variables a hierarchical model has.
HEIGHT = {"ladder": "model.rungs", "topdown": "model.rungs, model.channels", "codes": "model.hierarchy"}
# The commitment of codes that is weak, but holds them together.
WEAK_COMMITMENT = 0.1
ACTIVATIONS = (nn.SiLU, nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid)


def posterior_collapse(subject: Subject) -> Finding:
    """Whether the posterior moves with the data, in every latent variable."""
    latents = subject.held_out.latents
    rates = [latent.rate.mean for latent in latents]
    activity = torch.cat([latent.activity.flatten() for latent in latents])
    counts = [int((activity > threshold).sum()) for threshold in (ACTIVE, *SENSITIVITY)]
    where = f"; rate {_each(rates)}" if len(rates) > 1 else f"; rate {rates[0]:.2f} nats"
    where += _by_dimension(latents)
    held_out = subject.held_out
    what = (
        f"{counts[0]} of {held_out.units:,} {held_out.unit}s are active ({latents[0].moves} by more than {ACTIVE}; "
        f"{counts[1]} at {SENSITIVITY[0]}, {counts[2]} at {SENSITIVITY[1]}){where}"
    )
    threshold = USED / len(latents)
    gone = dead_levels(latents)
    if not gone:
        return Finding("posterior collapse", "healthy", what + ".", min(rates), threshold)
    remedy, effect = _revive(subject)
    if subject.run["model"].get("name") == "m2" and gone[0] == 0:
        what += ": level 1 is the class, and the classifier gives all classes nearly the same probability."
        remedy, effect = _taught(subject), TAUGHT
    elif len(latents) == 1 or len(gone) == len(latents):
        what += ": the posterior has collapsed onto the prior, and z says nothing of x."
    else:
        named = ", ".join(str(i + 1) for i in gone)
        which = f"level {named} has" if len(gone) == 1 else f"levels {named} has"
        what += f": the posterior of {which} collapsed onto the prior, and says nothing that the others do not."
        remedy, effect = _revive_levels(subject)
    return Finding("posterior collapse", "finding", what, min(rates), threshold, remedy, effect)


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
    return Finding("posterior collapse", "finding", words, rates[-1], USED, *_revive(subject))


def decoder_without_z(subject: Subject) -> Finding:
    """How many nats log p(x|z) falls where z comes from another datum: nothing, where the decoder does without it."""
    fall = Estimate.of(_log_likelihood(subject, 0) - _log_likelihood(subject, 1))
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
        *_revive(subject),
    )


def latent_size(subject: Subject) -> Finding | None:
    """Whether there are far more latent dimensions than are used."""
    latents = subject.held_out.latents
    used = subject.held_out.active_units
    if used == 0 or subject.is_coded:
        return None  # that is collapse, or a codebook's question
    gone = dead_levels(latents)
    # what a level that has collapsed would take is not known before it is back
    units = sum(v.activity.numel() for i, v in enumerate(latents) if i not in gone or len(gone) == len(latents))
    what, share = f"{used} of {units:,} latent dimensions are active", used / units
    if len(latents) == 1:  # what two of them say has no common unit
        means = subject.passes(subject.split, lambda trace: posterior_mean(trace.sites[0]).flatten(1))
        directions, _ = principal_directions(torch.cat(means), VARIANCE)
        what += f", and {directions} directions hold {VARIANCE:.0%} of the variance of the posterior means"
        share = min(used, directions) / units
    if units <= FEW_UNITS or share >= ACTIVE_SHARE:
        return Finding("latent size", "healthy", what + ".", share, ACTIVE_SHARE)
    size = subject.run["model"].get("latent")
    return Finding(
        "latent size",
        "finding",
        f"{what}: the latent space is far larger than what is used of it.",
        share,
        ACTIVE_SHARE,
        () if size is None else (f"model.latent={max(2, math.ceil(1.25 * int(size) * share))}",),
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


def _revive(subject: Subject) -> tuple[tuple[str, ...], str]:
    """What brings a collapsed posterior back, and how: what made it collapse is set right, else KL is free at first."""
    if subject.is_quantised:
        return _requantise(subject), REQUANTISED
    if subject.is_point:
        return _weaker_decoder(subject), WEAKENED.format(subject.sizes)
    if subject.weight is not None and subject.weight > 1:
        return ("objective.beta=1",), REVIVED
    if subject.fixed_scale is not None:
        return ("model.scale=shared",), REVIVED
    warmup = max(1, int(subject.run["train"]["steps"]) // 4)
    objective = subject.run["objective"]
    nats = 2 * float(objective["nats"]) if objective["name"] == "free_bits" else 4.0
    weaker = _weaker_decoder(subject)
    free = ("objective.name=free_bits", f"objective.nats={max(4.0, nats):g}", f"objective.warmup={warmup}")
    return (*weaker, *free), REVIVED


def _requantise(subject: Subject) -> tuple[str, ...]:
    """What brings codes back that fell silent: a weaker pull to their vectors, fewer maps, or more time."""
    model = subject.run["model"]
    if model["quantiser"] in COMMITTED and float(model["commitment"]) > WEAK_COMMITMENT:
        return (f"model.commitment={WEAK_COMMITMENT}",)
    if model["hierarchy"]:
        return ("model.hierarchy=false",)
    return (f"train.steps={2 * int(subject.run['train']['steps'])}",)


def _weaker_decoder(subject: Subject) -> tuple[str, ...]:
    """What takes from a decoder that reads x itself what it can do without z, where the run has such options."""
    model, found = subject.run["model"], []
    if "word_dropout" in model:
        hidden = float(model["word_dropout"])
        found.append(f"model.word_dropout={0.4 if hidden < 0.4 else min(1.0, hidden + 0.3):g}")
    if int(model.get("reach", 0)) > 1:
        found.append(f"model.reach={int(model['reach']) // 2}")
    return tuple(found)


def _taught(subject: Subject) -> tuple[str, ...]:
    """What makes a classifier learn more of the labels that there are."""
    model, train = subject.run["model"], subject.run["train"]
    return (f"train.steps={2 * int(train['steps'])}", f"model.alpha={max(1.0, 2 * float(model['alpha'])):g}")


def _revive_levels(subject: Subject) -> tuple[tuple[str, ...], str]:
    """What brings back some of several latent variables, and how."""
    if subject.is_quantised:
        return _requantise(subject), REQUANTISED
    option = HEIGHT.get(subject.run["model"].get("name", ""))
    fewer = f" What is dead even so says nothing that these data need: leave it out ({option})." if option else ""
    return _longer_rise(subject), RISEN + fewer


def _longer_rise(subject: Subject) -> tuple[str, ...]:
    """What gives latent variables that are drawn after others the time to find a use: a KL term that rises for longer.

    Nearly to the end of the training; where it does so already, of a training that is longer.
    """
    objective, steps = subject.run["objective"], int(subject.run["train"]["steps"])
    known = () if "warmup" in objective else ("objective.name=elbo",)
    if int(objective.get("warmup", 0)) < LONG_RISE * steps:
        return (*known, f"objective.warmup={int(RISE * steps)}")
    return (f"train.steps={2 * steps}", f"objective.warmup={int(2 * RISE * steps)}")


def _log_likelihood(subject: Subject, shift: int) -> Tensor:
    """log p(x|z) of held-out rows, (n,), with the code of the row that stands so far before each."""
    told = len(subject.context)
    rows = (subject.x, *subject.context, *(z.roll(shift, 0) for z in subject.codes))
    parts = zip(*(t.split(subject.at_once) for t in rows), strict=True)
    with undisturbed(subject.model, seed=0), torch.no_grad():
        return torch.cat(
            [subject.model.generate(len(x), *more[:told], z=more[told:]).log_prob(x) for x, *more in parts]
        )


def _by_dimension(latents: Sequence[Latent]) -> str:
    """How the rate is spread over the dimensions, where it can be told apart, and which of them are dead."""
    words = ""
    kls = [latent.kl.flatten() for latent in latents if latent.kl is not None]
    if len(kls) == len(latents) and (total := float(torch.cat(kls).sum())) >= USED:
        held = torch.cat(kls).sort(descending=True).values.cumsum(0)
        half = int((held < total / 2).sum()) + 1
        words += f", half of it in {half} dimension{'' if half == 1 else 's'}"
    if len(latents) > 1:
        counts = ", ".join(f"{latent.active_units} of {latent.activity.numel():,}" for latent in latents)
        return f"{words}; active in each level: {counts}"
    dead = (latents[0].activity.flatten() <= ACTIVE).nonzero().flatten().tolist()
    if not dead or latents[0].active_units == 0:
        return words
    more = f" and {len(dead) - NAMED:,} more" if len(dead) > NAMED else ""
    unit = latents[0].unit + ("" if len(dead) == 1 else "s")
    return f"{words}; not active: {unit} {', '.join(map(str, dead[:NAMED]))}{more}"


def _each(rates: list[float]) -> str:
    return "of each level " + ", ".join(f"{rate:.2f}" for rate in rates) + " nats"


def _count_dead(subject: Subject) -> dict[str, tuple[int, int]]:
    """For each activation of the networks: how many of its units are dead, and how many there are."""
    # of each unit the lowest and highest value, and how often of how many times it was at a flat end; an activation
    # that is used in places of different widths has units of its own in each
    seen: dict[tuple[str, int], list[tuple[Tensor, Tensor, Tensor, Tensor]]] = {}

    def look(name: str, bounded: bool) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            # a unit of a convolution is a channel, of which every pixel tells
            values = (output.movedim(1, -1) if output.ndim == 4 else output).flatten(0, -2)
            flat = (values.abs() > SATURATED).sum(0) if bounded else torch.zeros_like(values[0])
            found = values.amin(0), values.amax(0), flat, torch.tensor(len(values))
            seen.setdefault((name, values.shape[1]), []).append(found)

        return hook

    modules = [(name, module) for name, module in subject.model.named_modules() if isinstance(module, ACTIVATIONS)]
    hooks = [m.register_forward_hook(look(name, isinstance(m, nn.Tanh | nn.Sigmoid))) for name, m in modules]
    try:
        subject.passes(subject.split, lambda trace: None)
    finally:
        for hook in hooks:
            hook.remove()
    counts: dict[str, tuple[int, int]] = {}
    for (name, units), batches in seen.items():
        lows, highs, flats, times = map(torch.stack, zip(*batches, strict=True))
        low, high, flat = lows.amin(0), highs.amax(0), flats.sum(0) / times.sum().item()
        still = high - low <= STILL * torch.maximum(low.abs(), high.abs())
        dead, known = counts.get(name, (0, 0))
        counts[name] = dead + int((still | (flat > SATURATED)).sum()), known + units
    return counts
