"""What a laboratory trains: a run, one option of its objective to vary, the values it takes, and how many seeds.

Every member is a run like any other, with a folder of its own, so that every verb takes it. With the members comes the
plain autoencoder, where the model can be one: the same networks, with a point for a posterior and nothing but the
likelihood to maximise.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import recipes
from ..choices import Choice, usual_batch
from ..data import Data
from ..experiment import complete
from ..recipes.objectives import WEIGH_KL
from ..run import TABLES, Table, accepts, full, hint, options, write

WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
VARIED = "beta"
AUTOENCODER = "autoencoder"
LARGEST_STACKED = 32 * 32 * 3
PASSES, LEAST, MOST = 30, 2000, 12_000


@dataclass(frozen=True)
class Member:
    """One model of a laboratory.

    Attributes:
        name: Of its folder.
        weight: The value of what is varied; None for the plain autoencoder.
        seed: Of its first weights, and of all noise.
        run: Its tables, complete.
    """

    name: str
    weight: float | None
    seed: int
    run: dict[str, Table]

    @property
    def label(self) -> str:
        """What it is called beside a picture."""
        return AUTOENCODER if self.weight is None else spell(self.weight)


@dataclass(frozen=True)
class Plan:
    """What a laboratory trains.

    Attributes:
        run: The tables that all members share, complete.
        vary: The option of the objective that is varied.
        weights: The values it takes, rising.
        seeds: How many times each.
    """

    run: Mapping[str, Table]
    vary: str
    weights: tuple[float, ...]
    seeds: int

    @property
    def with_autoencoder(self) -> bool:
        """Whether there is a plain autoencoder beside the others, or they are such already."""
        return self.run["model"].get("posterior", "point") != "point"

    @property
    def weighs_kl(self) -> bool:
        """Whether what is varied is the weight of the whole KL term."""
        return self.vary == VARIED and self.run["objective"]["name"] in WEIGH_KL

    @property
    def axis(self) -> str:
        """What is varied, in words."""
        return "weight of the KL term" if self.weighs_kl else f"{self.run['objective']['name']}: {self.vary}"

    def groups(self) -> list[list[Member]]:
        """The members, those together that can be trained as one: same networks, same seed."""
        found = []
        for i in range(self.seeds):
            seed = self.run["train"]["seed"] + i
            if self.with_autoencoder:
                found.append([self._autoencoder(seed)])
            found.append([self._member(weight, seed) for weight in self.weights])
        return found

    def members(self) -> list[Member]:
        """All members."""
        return [member for group in self.groups() for member in group]

    def _name(self, what: str, seed: int) -> str:
        return what if self.seeds == 1 else f"{what}-seed{seed}"

    def _member(self, weight: float, seed: int) -> Member:
        run = self._tables(seed)
        run["objective"][self.vary] = weight
        return Member(self._name(f"{self.vary}-{spell(weight)}", seed), weight, seed, run)

    def _autoencoder(self, seed: int) -> Member:
        run = self._tables(seed)
        # a learned prior has nothing to learn from: the codes of an autoencoder answer to none
        run["model"] |= {"posterior": "point", "prior": "normal"}
        run["objective"] = full(recipes.OBJECTIVES["reconstruction"], "objective", {"name": "reconstruction"})
        return Member(self._name(AUTOENCODER, seed), None, seed, run)

    def _tables(self, seed: int) -> dict[str, Table]:
        tables = {kind: dict(self.run[kind]) for kind in TABLES}
        tables["train"]["seed"] = seed
        return tables

    def text(self) -> str:
        """The plan as TOML."""
        import tomli_w

        return tomli_w.dumps({"lab": {"vary": self.vary, "weights": list(self.weights), "seeds": self.seeds}}) + write(
            self.run
        )

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """The plan of a TOML file that `text` made.

        Raises:
            ValueError: It is damaged.
        """
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
            lab = tables.pop("lab")
            return cls({kind: tables[kind] for kind in TABLES}, lab["vary"], tuple(lab["weights"]), lab["seeds"])
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no plan of a laboratory: {type(error).__name__} {error}. It was cut short or edited: "
                "start the laboratory anew with --force."
            ) from None


def spell(weight: float) -> str:
    """A weight as one would write it, and no other weight.

    >>> spell(0.25), spell(1_000_001.0)
    ('0.25', '1000001.0')
    """
    short = f"{weight:g}"
    return short if float(short) == weight else repr(weight)


def usual_weights(run: Mapping[str, Table], vary: str) -> tuple[float, ...]:
    """The weights if none are given; multiples of the recipe's own value, where it lies beyond them."""
    known = options(recipes.recipe("objective", run["objective"]["name"]))
    own = known[vary].default
    beyond = isinstance(own, int | float) and own > max(WEIGHTS)
    return tuple(weight * own for weight in WEIGHTS) if beyond else WEIGHTS


def check_weights(weights: Sequence[float]) -> tuple[float, ...]:
    """The weights, in order.

    Raises:
        ValueError: Fewer than two, or some that are none; all offences are listed.
    """
    wrong = [spell(w) for w in weights if not 0 <= w < math.inf]
    if wrong:
        raise ValueError(
            f"--weights {', '.join(wrong)}: a weight is a finite number of 0 or more. Without --weights they are "
            f"{','.join(map(spell, WEIGHTS))}."
        )
    ordered = tuple(sorted(set(map(float, weights))))
    if len(ordered) < len(weights):
        raise ValueError(f"--weights {','.join(map(spell, weights))}: each weight is to be given once.")
    if len(ordered) < 2:
        raise ValueError(
            f"--weights {','.join(map(spell, ordered))}: a laboratory compares, so it takes two weights or more. "
            f"One model is trained by: lowerbound train DATA objective.{VARIED}={ordered[0] if ordered else 1:g}."
        )
    return ordered


def check_varied(run: Mapping[str, Table], vary: str) -> None:
    """Refuse to vary what the objective does not have.

    Raises:
        ValueError: The objective has no such option that is a number.
    """
    name = run["objective"].setdefault("name", "elbo")
    known = options(recipes.recipe("objective", name))
    numbers = [key for key, parameter in known.items() if accepts(parameter.annotation, 0.5)]
    if vary not in numbers:
        there = f"It could vary {' or '.join(numbers)} (--vary {numbers[0]})" if numbers else "It has nothing to vary"
        raise ValueError(f"objective {name!r} has no weight {vary!r}{hint(vary, numbers)}. {there}.")
    if vary in run["objective"]:
        raise ValueError(
            f"objective.{vary}={run['objective'][vary]:g} is what the laboratory varies: leave it out, or give the "
            "values as --weights."
        )


def make_plan(
    run: dict[str, Table], data: Data, vary: str, weights: tuple[float, ...], seeds: int
) -> tuple[Plan, list[Choice]]:
    """Complete the tables of a run, in place, for a laboratory of it.

    Returns:
        The plan, and what the data decided.

    Raises:
        ValueError: Something in the tables cannot work.
    """
    choices = [*_lighten(run, data), *complete(run, data)]
    return Plan(run, vary, weights, seeds), choices


def _lighten(run: dict[str, Table], data: Data) -> list[Choice]:
    """What a laboratory leaves out, because it trains many models and they must be comparable."""
    made: list[Choice] = []

    def settle(kind: str, key: str, value: Any, reason: str) -> None:
        if key not in run[kind]:
            run[kind][key] = value
            made.append(Choice(f"{kind}.{key}", value, reason))

    if data.event.numel() <= LARGEST_STACKED and not data.columns:
        settle("model", "name", "mlp", "perceptrons of one shape are trained together as one")
    if (data.observed_levels or 0) > 2 and run["model"].get("name") == "mlp":
        settle("model", "family", "logistic", "one component for each value, where a single model would have several")
    if run["model"].get("name") == "mlp":
        settle("model", "hidden", [256, 256], "half as wide as a single model would be")
        settle("train", "lr", 4e-3, "narrow perceptrons bear long steps, and learn faster by them")
    rows = len(data.split["train"])
    batch = run["train"].get("batch", usual_batch(rows, run["objective"]["name"]))
    steps = min(MOST, max(LEAST, PASSES * rows // max(1, batch)))
    settle("train", "steps", steps, f"{steps * batch / rows:.0f} passes over the data, for each model")
    settle("train", "valid_every", max(1, run["train"]["steps"] // 10), "10 looks at held-out data")
    settle("train", "patience", 0, "all weights are trained equally long")
    return made
