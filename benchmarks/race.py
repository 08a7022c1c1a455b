"""A race: contestants that train on the same rows take turns, a pass each, and the first is compared with the rest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .report import Row, Table
from .timing import Spread, interleave

# How far apart two programs may be and still count as the same: in parameters (a bias that one posterior has and
# another has not), in loss before the first update (noise, and pythae's own start), and in loss after as many updates
# (in the first few hundred it falls so fast that the order of the rows alone makes a difference).
PARAMETERS_APART = 1e-3
LOSSES_APART_BEFORE = 0.01
LOSSES_APART_AFTER = 0.20


@dataclass(frozen=True)
class Contestant:
    """A program that trains.

    Args:
        name: What it is.
        run: Make one pass over the rows; the seconds it took. Each keeps its own time, so that one which has to be
            started anew for every pass does not pay for its start.
        parameters: Numbers it learns; 0 if it is no model.
        loss: Its own loss on the rows that are checked, nats for each; None if it is no model.
    """

    name: str
    run: Callable[[], float]
    parameters: int = 0
    loss: Callable[[], float] | None = None


@dataclass(frozen=True)
class Bar:
    """Where a ratio must be, and where it should be."""

    bar: float
    aim: float


def race(
    title: str,
    contestants: Sequence[Contestant],
    samples: int,
    rounds: int,
    bars: Mapping[str, Bar] | None = None,
    same_network: bool = True,
) -> Table:
    """Samples/s of each contestant, and how many times as fast the first is.

    Args:
        title: Of the table.
        contestants: The first is ours.
        samples: Rows in a pass.
        rounds: Passes of each that are counted.
        bars: By the contestants' names.
        same_network: Whether all have the same parameters.
    """
    before = losses(contestants)
    seconds = interleave({contestant.name: contestant.run for contestant in contestants}, rounds)
    ours = seconds[contestants[0].name]
    rows = []
    for contestant in contestants:
        took = seconds[contestant.name]
        bar = (bars or {}).get(contestant.name)
        rows.append(
            Row(
                contestant.name,
                samples / Spread.of(took).median,
                Spread.of_ratios(took, ours) if took is not ours else None,
                bar=bar.bar if bar else None,
                aim=bar.aim if bar else None,
                seconds=took,
            )
        )
    return Table(title, "samples/s", "ours is times as fast", rows, fairness(contestants, before, same_network))


def losses(contestants: Sequence[Contestant]) -> dict[str, float]:
    """The losses of the contestants as they are now."""
    return {contestant.name: contestant.loss() for contestant in contestants if contestant.loss}


def fairness(contestants: Sequence[Contestant], before: Mapping[str, float], same_network: bool = True) -> list[str]:
    """Whether all trained the same thing, a line each, which says so where they did not.

    Args:
        contestants: After their last update.
        before: Their losses before the first.
        same_network: Whether all have the same parameters.
    """
    parameters = {c.name: float(c.parameters) for c in contestants if c.parameters}
    notes = []
    for what, values, tolerance in (
        ("parameters", parameters, PARAMETERS_APART),
        ("loss before the first update, nats", before, LOSSES_APART_BEFORE),
        ("loss after as many updates, nats", losses(contestants), LOSSES_APART_AFTER),
    ):
        low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
        apart = values[high] / values[low] - 1
        said = f"{what}: {values[low]:,.6g} ({low})"
        said += f" to {values[high]:,.6g} ({high}), {apart:.2%} apart" if apart else ", the same for all"
        strict = same_network or what.startswith("loss after")
        notes.append(f"NOT THE SAME {said}" if strict and apart > tolerance else said)
    return notes
