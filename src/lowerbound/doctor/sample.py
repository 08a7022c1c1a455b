"""What the doctor looks at in data: rows to train on, as the likelihood sees them, and what several checks ask of them.

Axes: ``n`` rows, ``d`` elements of a row.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor

from ..data import Data, some
from ..metrics import Estimate
from ..nets import pyramid
from ..recipes import FAMILIES, START_ROWS, standardisation
from ..run import Table
from .neighbours import distances, intrinsic_dimension
from .spectrum import Spectrum, smallest_good
from .subject import SCALED

ROWS = 20_000
# Rows whose neighbours are looked for.
QUERIES = 2000
NEIGHBOURS = 10
# Values that are held at once, in double precision.
VALUES = 2**24
# Beyond so many elements a spectrum takes long, and as many rows stand in for them.
WIDE = 2000
# The variance of a whole number that is known only to be rounded.
ROUNDING = 1 / 12
DENSITIES = (*SCALED, "continuous_bernoulli")


@dataclass(frozen=True)
class Sample:
    """Data that are looked at, and the run that would be trained on them.

    Attributes:
        run: The four tables, complete.
        data: The data.
    """

    run: Mapping[str, Table]
    data: Data

    @cached_property
    def x(self) -> Float[Tensor, "n d"]:
        """Rows to train on, a part of them where they are many, as the likelihood sees them."""
        return self.rows("train")

    @cached_property
    def of(self) -> str:
        """Which rows those are, in words."""
        whole = len(self.data.split["train"])
        return f"{whole:,} rows" if len(self.x) == whole else f"{len(self.x):,} of the {whole:,} rows"

    @property
    def is_image(self) -> bool:
        """Whether rows are images."""
        return len(self.data.event) == 3

    @property
    def is_density(self) -> bool:
        """Whether the likelihood is a density."""
        return self.run["model"]["family"] in DENSITIES

    @property
    def scale(self) -> float | None:
        """The scale of the likelihood where it is given; None where it is learned, or there is none."""
        model = self.run["model"]
        return model["scale"] if model["family"] in SCALED and isinstance(model["scale"], float) else None

    @property
    def latent(self) -> int:
        """How many latent dimensions the model would have."""
        model = self.run["model"]
        if not model.get("spatial"):
            return int(model["latent"])
        _, height, width = self.data.event
        return int(model["latent"]) * math.prod(pyramid((height, width), len(model["channels"]))[-1])

    @cached_property
    def standard(self) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """Centre and spread of each element, as the model takes them."""
        event = self.data.event
        rows = self.x[: min(START_ROWS, self._fitting)].double().unflatten(1, event)
        shift, unit = standardisation(rows, event)
        return shift.flatten(), unit.expand(event).flatten()

    @cached_property
    def first(self) -> Int64[Tensor, "rows"]:
        """For each row of the data, the first one that equals it."""
        return first_equal(self.data.x)

    @cached_property
    def distinct(self) -> Float[Tensor, "n d"]:
        """The rows looked at, each once, in standard units."""
        once = first_equal(self.x) == torch.arange(len(self.x))
        return self.standardise(self.x[once])

    @cached_property
    def dimension(self) -> Estimate | None:
        """The intrinsic dimension; None where it cannot be told."""
        if len(self.distinct) < 3:
            return None
        return intrinsic_dimension(distances(self.distinct[:QUERIES], self.distinct, 2, own=True))

    @cached_property
    def near(self) -> Float[Tensor, "q k"]:
        """Distances of held-out rows to their nearest rows of training, in order, in standard units."""
        return distances(self.standardise(self.rows("test", QUERIES // 2)), self.distinct, NEIGHBOURS)

    @cached_property
    def spectrum(self) -> Spectrum:
        """The covariance that a linear model would see."""
        rows = self.x[: min(START_ROWS if self.x.shape[1] <= WIDE else WIDE, self._fitting)]
        return Spectrum.of(rows.double() / self.units)

    @cached_property
    def best_size(self) -> int:
        """How many latent dimensions explain held-out rows best in a linear model: see `smallest_good`."""
        sizes = min(len(self.spectrum.values), len(self.spectrum.mean) - 1) + 1
        held_out = self.rows("valid", QUERIES).double() / self.units
        return smallest_good(self.spectrum.log_density(held_out, sizes, self.least_noise))

    @property
    def units(self) -> Float[Tensor, " d"]:
        """The units in which all elements have the same noise, in a linear model."""
        located = self.run["model"]["family"] in SCALED and self.scale is None
        return self.standard[1] if located else torch.ones_like(self.standard[1])

    @property
    def least_noise(self) -> float:
        """What the variance of the noise cannot fall below, in these units."""
        # what is certain would have none, and an infinite density
        tiny = torch.finfo(torch.float32).eps * self.spectrum.total / len(self.units)
        return tiny if self.is_density else ROUNDING

    def rows(self, part: str, most: int = ROWS) -> Float[Tensor, "n d"]:
        """Rows of a part, as the likelihood sees them: all, or at most so many."""
        most = min(most, self._fitting)
        return self.data.fixed(part, most if len(self.data.split[part]) > most else 0).flatten(1)

    def whole(self, part: str) -> tuple[Float[Tensor, "n *event"], Int64[Tensor, " n"]]:
        """The rows of a part, all of them if memory holds them, with their numbers in the data."""
        indices, most = self.data.split[part], 4 * self._fitting
        few = most if len(indices) > most else 0
        return self.data.fixed(part, few), indices[some(len(indices), few)] if few else indices

    def standardise(self, rows: Num[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Rows in the units in which distances mean something."""
        shift, unit = self.standard
        return ((rows - shift) / unit).float()

    def fits(self, family: str) -> bool:
        """Whether a family gives the rows that are looked at any probability."""
        levels = self.data.observed_levels or self.run["model"]["levels"]
        support = FAMILIES[family]((1,), levels, 1, "shared", None, None).support
        return bool(support.check(self.x).all())

    @property
    def _fitting(self) -> int:
        return max(2, VALUES // max(1, math.prod(self.data.event)))


def first_equal(x: Num[Tensor, "n *event"]) -> Int64[Tensor, " n"]:
    """For each row, the number of the first row that equals it: its own if none before does."""
    seen: dict[bytes, int] = {}
    first: list[int] = []
    for part in x.flatten(1).split(4096):
        # -0 and 0 are equal, and their bytes are not
        for row in (part + 0).numpy():
            first.append(seen.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), len(first)))
    return torch.tensor(first)
