"""What the doctor looks at in a run: the model, its tables, its log and, where there are any, its data.

Axes: ``n`` rows, ``*event`` one latent variable.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..data import Data
from ..evaluation import DECODED, Evaluation, evaluate, undisturbed
from ..metrics import code_counts
from ..models import Model, Trace
from ..recipes import MODELS, OBJECTIVES
from ..recipes.objectives import WEIGH_KL, WITHOUT_LIKELIHOOD
from ..refusals import is_quantised
from ..run import Table, accepts, build, find, options

ROWS, FEWEST = 1000, 20
# Rows for what costs a search or a chain for each of them; of large ones fewer, of about so many numbers together.
COSTLY_ROWS, LEAST_COSTLY, COSTLY_NUMBERS = 64, 8, 2**18
# Samples for each row where the rate is exact and the distortion is a mean.
SAMPLES = 10
# Families of p(x|z) that have a scale.
SCALED = ("normal", "laplace", "student_t")

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """A run that is looked at.

    Attributes:
        model: The model, with the weights that were kept.
        run: The four tables, complete.
        log: The lines of its log, in order.
        data: Its data; None where they are gone.
        split: Which rows of the data are looked at.
    """

    model: Model
    run: Mapping[str, Table]
    log: Sequence[Mapping[str, Any]]
    data: Data | None
    split: str = "test"

    @cached_property
    def x(self) -> Tensor:
        """Held-out rows, where the model is."""
        return self._rows(self.split)

    @cached_property
    def train(self) -> Tensor:
        """As many rows that it was trained on."""
        return self._rows("train")

    @cached_property
    def context(self) -> tuple[Tensor, ...]:
        """What the model is told of the held-out rows; nothing if it is unconditional."""
        return self._context(self.split)

    def told(self, n: int) -> tuple[Tensor, ...]:
        """What the model is told of the first n of the held-out rows."""
        return tuple(c[:n] for c in self.context)

    @cached_property
    def held_out(self) -> Evaluation:
        """Bound, rate and distortion of held-out rows."""
        return evaluate(self.model, self.x, *self.context, k=SAMPLES)

    @cached_property
    def trained_on(self) -> Evaluation:
        """Bound, rate and distortion of rows that it was trained on."""
        return evaluate(self.model, self.train, *self._context("train"), k=SAMPLES)

    @cached_property
    def codes(self) -> tuple[Tensor, ...]:
        """One sample of each latent variable for each held-out row."""
        parts = self.passes(self.split, lambda trace: [site.z[0] for site in trace.sites])
        return tuple(torch.cat(rows) for rows in zip(*parts, strict=True))

    @cached_property
    def is_coded(self) -> bool:
        """Whether latent variables are codes: a choice, which is known exactly and has no density to improve."""
        sites = self.passes(self.split, lambda trace: trace.sites, most=1)[0]
        return any(code_counts(site) is not None for site in sites)

    @property
    def is_quantised(self) -> bool:
        """Whether they are quantised codes, whose encoder does not hear what they cost."""
        return is_quantised(self.run["model"])

    @property
    def costly(self) -> int:
        """How many rows are looked at where each costs a search or a chain."""
        event = self.run["model"].get("event", ())
        return max(LEAST_COSTLY, min(COSTLY_ROWS, COSTLY_NUMBERS // max(1, math.prod(event))))

    @property
    def weight(self) -> float | None:
        """The weight of the KL term at the end of its schedule; None where there is none, or no encoder hears it."""
        objective = self.run["objective"]
        return float(objective["beta"]) if objective["name"] in WEIGH_KL and not self.is_quantised else None

    @property
    def horizon(self) -> int:
        """The step at which the schedule of the objective reaches its end."""
        table = self.run["objective"]
        return int(build(find(OBJECTIVES, "objective", table), "objective", table).horizon)

    @property
    def fixed_scale(self) -> float | None:
        """The scale of the likelihood, in the data's units, where it was given as a number and is used."""
        table = self.run["model"]
        fixed = table.get("family") in SCALED and not isinstance(table.get("scale", "shared"), str)
        return float(table["scale"]) if fixed else None

    @property
    def is_point(self) -> bool:
        """Whether it is a plain autoencoder, whose posterior is a point: it has no KL term and no bound."""
        return self.run["model"].get("posterior") == "point"

    @property
    def has_bound(self) -> bool:
        """Whether what it says of log p(x) means something: its posterior is no point, and a likelihood was trained."""
        return not self.is_point and self.run["objective"]["name"] not in WITHOUT_LIKELIHOOD

    @property
    def steps(self) -> int:
        """How many steps it was trained."""
        return int(self.log[-1]["step"]) if self.log else 0

    @property
    def keeps_best(self) -> bool:
        """Whether the weights that were kept are those of the best validation, not of the last step."""
        return int(self.run["train"]["patience"]) > 0

    @property
    def validations(self) -> list[Mapping[str, Any]]:
        """The lines of the log with a bound on held-out and on training rows."""
        keys = ("valid_bound", "train_bound", "valid_rate")
        return [entry for entry in self.log if all(entry.get(key) is not None for key in keys)]

    def accepted(self, option: str, value: str) -> tuple[str, ...]:
        """The override that gives an option of the model such a value; none where the model takes no such."""
        known = options(find(MODELS, "model", self.run["model"])).get(option)
        return (f"model.{option}={value}",) if known and accepts(known.annotation, value) else ()

    @property
    def more_dropout(self) -> tuple[str, ...]:
        """The override that hides more of x from the encoder, which then learns less by heart."""
        dropout = float(self.run["model"].get("dropout", 0.0))
        more = 0.2 if dropout < 0.2 else max(dropout, min(0.5, dropout + 0.1))
        return (f"model.dropout={more:g}",)

    @property
    def sizes(self) -> str:
        """What makes a model of this kind smaller, in brackets."""
        known = [f"model.{option}" for option in ("hidden", "channels", "width") if option in self.run["model"]]
        return f" ({', '.join(known)})" if known else ""

    @property
    def at_once(self) -> int:
        """How many rows are decoded at once: fewer of large ones, so that memory holds them."""
        return max(1, DECODED // self.x[0].numel())

    def passes(self, part: str, see: Callable[[Trace], T], most: int = ROWS) -> list[T]:
        """What is to be seen of the passes of rows of a part, a batch at a time, with one sample each."""
        rows = (self.x if part == self.split else self.train, *self._context(part))
        batches = zip(*(t[:most].split(self.at_once) for t in rows), strict=True)
        with undisturbed(self.model, seed=0), torch.no_grad():
            return [see(self.model(*batch)) for batch in batches]

    def _rows(self, part: str) -> Tensor:
        assert self.data is not None
        return self.data.fixed(part, ROWS).to(next(self.model.parameters()))

    def _context(self, part: str) -> tuple[Tensor, ...]:
        assert self.data is not None
        return tuple(c.to(next(self.model.parameters())) for c in self.data.context(part, ROWS))


# What a check may need, and why it cannot be had; in the order in which they are asked for.
NEEDS: dict[str, tuple[Callable[[Subject], bool], str]] = {
    "log": (
        lambda s: len(s.log) >= 10,
        "The log has fewer than 10 lines, which is too short to tell.",
    ),
    "weights": (
        lambda s: all(bool(t.isfinite().all()) for t in s.model.state_dict().values()),
        "The model holds weights that are not finite: there is nothing to look at.",
    ),
    "data": (
        lambda s: s.data is not None,
        "The data of this run are not there, and this can only be told from data.",
    ),
    "rows": (
        lambda s: len(s.x) >= FEWEST,
        f"There are fewer than {FEWEST} held-out rows, which is too few to tell.",
    ),
    "likelihood": (
        lambda s: s.run["objective"]["name"] not in WITHOUT_LIKELIHOOD,
        "The objective of this run trains no likelihood, so there is none to look at.",
    ),
    "numbers": (
        lambda s: math.isfinite(s.held_out.distortion.mean),
        "Log p(x|z) of held-out rows is not a number.",
    ),
}
