"""What the log says of a training: whether it diverged, skipped updates, finished, and was long enough."""

import math
from collections.abc import Mapping
from typing import Any

from ..recipes.objectives import WITHOUT_LIKELIHOOD
from ..train import Options
from .finding import Finding
from .subject import Subject

# The part of what was gained that may be lost again, and the part of the log that is one look.
LOST, WINDOW = 0.2, 0.05
SKIPPED = 0.01
# What the last quarter of the training may still gain, of all that was gained since the first look.
GAINED = 0.05


def learning_rate(subject: Subject) -> Finding:
    """Whether the training diverged: what it had gained, it lost again.

    Raises:
        ValueError: Its loss is one side of a game, which goes up and down as the other side learns.
    """
    if subject.run["objective"]["name"] in WITHOUT_LIKELIHOOD:
        raise ValueError("the loss goes up and down with what the critic learns, and there is no bound to look at.")
    # the loss of a rising KL weight grows, and the bound falls where that weight is small: divergence is when both do
    measures = [[entry.get(key) for entry in subject.log] for key in ("loss", "bound")]
    falls = [_lost([-v if i == 0 and v is not None else v for v in values]) for i, values in enumerate(measures)]
    known = [fall for fall in falls if fall is not None]
    broken = sum(value is None for value in measures[0])
    lost = min(known, default=math.inf)
    lr = float(subject.run["train"]["lr"])
    if broken:
        lost = math.inf
        what = f"The loss of {broken:,} of {len(subject.log):,} logged batches is not a number."
    elif lost > LOST:
        what = f"The training diverged: of what the bound had gained since its start, it lost {_times(lost)} again."
    else:
        where = "ended at its best" if lost < 0.005 else f"kept all but {lost:.0%} of what it had gained"
        what = f"The training did not diverge: it {where}."
        return Finding("learning rate", "healthy", what, lost, LOST)
    return Finding(
        "learning rate",
        "finding",
        f"{what} The learning rate, {lr:g} at its peak, is too high.",
        lost,
        LOST,
        (f"train.lr={_gentler(lr):.2g}",),
        "Shorter steps stay where the gradient still tells the way down, and the bound rises to the end.",
    )


def skipped_updates(subject: Subject) -> Finding:
    """How many updates were not made, because a loss or gradient was not finite or insanely large."""
    skipped = int(subject.log[-1].get("skipped") or 0)
    share = skipped / max(1, subject.steps)
    what = f"{skipped:,} of {subject.steps:,} updates were skipped"
    if share <= SKIPPED:
        return Finding("skipped updates", "healthy", what + ".", share, SKIPPED)
    lr, warmup = float(subject.run["train"]["lr"]), int(subject.run["train"]["warmup"])
    return Finding(
        "skipped updates",
        "finding",
        f"{what}, because the loss or the gradient was not finite or insanely large.",
        share,
        SKIPPED,
        (f"train.lr={_gentler(lr):.2g}", f"train.warmup={max(500, 2 * warmup)}"),
        "Shorter steps, and a slower start, keep the gradients of a length that can be followed.",
    )


def schedule(subject: Subject) -> Finding:
    """Whether the training, and the schedule of its objective, came to their end."""
    options, steps = subject.run["train"], subject.steps
    horizon = subject.horizon
    if steps < horizon:
        what = (
            f"Training stopped at step {steps:,}, before the weight of the KL term had risen to its end at step "
            f"{horizon:,}: the model was never trained by the objective that was asked for."
        )
        effect = "The schedule comes to its end within the training. `lowerbound resume` goes on with one that was cut."
        remedy: tuple[str, ...] = (f"objective.warmup={max(1, steps // 2)}",)
        # a rise does not fit in a cycle that is shorter
        remedy = ("objective.cycle=0", *remedy) if subject.run["objective"].get("cycle") else remedy
        return Finding("unfinished training", "finding", what, float(steps), float(horizon), remedy, effect)
    total = int(options["steps"])
    if steps >= total:
        return Finding("unfinished training", "healthy", f"All {total:,} steps were made.", float(steps), float(total))
    waited = _since_best(subject.log, horizon)
    if 0 < int(options["patience"]) <= waited:
        what = f"Training ended at step {steps:,} of {total:,}, as asked: {waited} validations brought nothing better."
        return Finding("unfinished training", "healthy", what)
    what = f"Training stopped at step {steps:,} of {total:,}, with the learning rate still high."
    if int(subject.log[-1].get("skipped") or 0) > int(options["give_up"]) // 2:
        remedy, effect = (f"train.lr={_gentler(float(options['lr'])):.2g}",), "It would stop again with longer steps."
    else:
        remedy = ("lowerbound resume RUN",)
        effect = (
            "It goes on exactly where it stopped. To keep it short, train anew with fewer steps (train.steps), so that "
            "the learning rate falls to zero at the end."
        )
    return Finding("unfinished training", "finding", what, float(steps), float(total), remedy, effect)


def still_improving(subject: Subject) -> Finding | None:
    """Whether held-out data were still explained better and better when the training ended."""
    looks = [value for entry in subject.log if (value := _held_out(entry)) is not None]
    if len(looks) < 8:
        return None
    last = len(looks) * 3 // 4
    gained, late = max(looks) - looks[0], max(looks[last:]) - max(looks[:last])
    share = late / gained if gained > 0 else 0.0
    what = f"The last quarter of the training brought held-out data {late:.1f} of {gained:.1f} nats"
    if share <= GAINED:
        return Finding("length of training", "healthy", what + ": it was long enough.", share, GAINED)
    return Finding(
        "length of training",
        "finding",
        f"{what}: the bound was still rising.",
        share,
        GAINED,
        (f"train.steps={2 * int(subject.run['train']['steps'])}",),
        "A longer training goes on to where the bound no longer rises.",
    )


def _lost(values: list[float | None]) -> float | None:
    """What was lost of what was gained, smoothed; None where there are no values."""
    known = [value for value in values if value is not None]
    size = max(3, int(WINDOW * len(known)))
    if len(known) < 3 * size:
        return None
    medians = [sorted(known[i : i + size])[size // 2] for i in range(0, len(known) - size + 1, size)]
    last, best = sorted(known[-size:]), max(medians)
    # batches differ: where a quarter of the last ones are as good as ever, nothing is lost
    if last[3 * size // 4] >= best:
        return 0.0
    return (best - last[size // 2]) / max(best - min(known[0], medians[0]), 1e-9)


def _times(lost: float) -> str:
    return f"{lost:.0%}" if lost < 2 else f"{lost:,.0f} times as much"


def _gentler(lr: float) -> float:
    """A third, and no more than the usual."""
    return min(lr / 3, Options().lr)


def _held_out(entry: Mapping[str, Any]) -> float | None:
    """What a validation found: the bound, or what a plain autoencoder has instead."""
    bound, distortion = entry.get("valid_bound"), entry.get("valid_distortion")
    return bound if bound is not None else None if distortion is None else -distortion


def _since_best(log: Any, horizon: int) -> int:
    """Validations since the best one, once the objective's schedule had ended."""
    looks = [_held_out(entry) for entry in log if entry["step"] >= horizon and "valid_distortion" in entry]
    known = [value if value is not None else -math.inf for value in looks]
    return len(known) - 1 - known.index(max(known)) if known else 0
