"""What a model makes of data, and how it is shown: the verbs of the command line and the sections of the report.

Two model operations carry all of them. Inference gives the latent variables of data; `Model.generate` gives p(x|z)
for latent variables that are drawn, inferred, interpolated or moved. Pictures show the mean of p(x|z). A conditional
model is told something of each row, besides: its context, a row of it for each row of the data or of z.

Axes: ``n`` rows, ``*event`` one row or one latent variable; latent variables come in the order the model draws them.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import normalize

from . import figures
from .columns import Column
from .data import Data
from .distributions.sphere import sphere
from .evaluation import undisturbed
from .families import Columns, Missing
from .latents import interpolate, traverse
from .metrics import knows_its_mean, posterior_mean
from .models import VAE, Conditional, Model, Site

TypicalName = Literal["mean", "mode", "draw"]
BATCH = 128
RANGE_ROWS = 2000
# Where E_q[z] is not known in closed form it is a mean of so many samples.
SAMPLES_OF_MEANS = 64


def typical(p: Distribution) -> Shaped[Tensor, "*shape"]:
    """What to show of p(x|z): its mean; where there is none, as for categories, its mode; where neither is, a draw.

    >>> typical(torch.distributions.Categorical(logits=torch.tensor([0.0, 1.0, 0.5])))
    tensor(1)
    """
    value, _ = _known(p)
    return p.sample() if value is None else value


def typical_name(p: Distribution) -> TypicalName:
    """Which of these `typical` is.

    >>> typical_name(torch.distributions.Categorical(logits=torch.tensor([0.0, 1.0, 0.5])))
    'mode'
    """
    return _known(p)[1]


def _known(p: Distribution) -> tuple[Shaped[Tensor, "*shape"] | None, TypicalName]:
    """What is typical of p, unless that is a draw."""
    names: tuple[TypicalName, ...] = ("mean", "mode")
    for name in names:
        try:
            value = getattr(p, name)
        except NotImplementedError:
            continue
        if not value.isnan().any():
            return value, name
    return None, "draw"


@contextlib.contextmanager
def without_gradients(model: Model, seed: int) -> Iterator[None]:
    """Within it a model evaluates, without gradients, and draws from a seed; afterwards all is as before."""
    with undisturbed(model, seed), torch.inference_mode():
        yield


@dataclass(frozen=True)
class View:
    """A model of data, and the way its rows are shown.

    Attributes:
        model: The model.
        event: Shape of a row.
        low: What is shown as black, broadcastable to a row.
        high: What is shown as white.
        names: Of the columns of a table.
    """

    model: Model
    event: tuple[int, ...]
    low: Tensor
    high: Tensor
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model, data: Data) -> "View":
        """The view of a model's own data: all levels from black to white, or all but 1 % of continuous values."""
        return cls(model, tuple(data.event), *_range(data), tuple(column.name for column in data.columns))

    @classmethod
    def alone(cls, model: Any, event: Sequence[int]) -> "View":
        """The view of a model without its data: from the lowest to the highest value that its likelihood expects."""
        low, high = _extent(model.decoder.family, tuple(event))
        return cls(model, tuple(event), low, high)

    @property
    def is_image(self) -> bool:
        """Whether rows are shown as images."""
        return len(self.event) == 3 and min(self.event[1:]) > 1

    @property
    def on_sphere(self) -> bool:
        """Whether z is a direction, and ways from one to another are arcs of the unit sphere."""
        match self.model:
            case VAE(encoder=Conditional(family=family)):
                return family.support is sphere
        return False

    def infer(
        self, x: Float[Tensor, "n *event"], *context: Tensor, k: int = 1
    ) -> tuple[Distribution, tuple[Site, ...]]:
        """p(x|z) and the latent variables of one pass with k samples, where the model is."""
        trace = self.model(*(t.to(next(self.model.parameters())) for t in (x, *context)), k=k)
        return trace.likelihood, trace.sites

    def means(self, x: Float[Tensor, "n *event"], *context: Tensor) -> tuple[Tensor, ...]:
        """E_q[z] of each latent variable, a row for each x; on a sphere its direction."""
        parts = []
        for rows in self.batches(x, *context):
            sites = self.infer(*rows)[1]
            if not all(knows_its_mean(site) for site in sites):
                sites = self.infer(*rows, k=SAMPLES_OF_MEANS)[1]
            found = [posterior_mean(site).float().cpu() for site in sites]
            parts.append([normalize(mean, dim=-1) for mean in found] if self.on_sphere else found)
        return tuple(torch.cat(rows) for rows in zip(*parts, strict=True))

    def reconstruct(self, x: Float[Tensor, "n *event"], *context: Tensor) -> Float[Tensor, "n *event"]:
        """What is typical of p(x|z) for one z ~ q(z|x) of each row."""
        batches = self.batches(x, *context)
        return torch.cat([typical(self.infer(*rows)[0])[0].float().cpu() for rows in batches])

    def generate(
        self, n: int, z: Sequence[Tensor] = (), *, context: Sequence[Tensor] = (), draw: bool = False
    ) -> Float[Tensor, "n *event"]:
        """For n rows, with the given latent variables held: what is typical of p(x|z), or a draw from it."""
        device = next(self.model.parameters()).device
        size = self.batch_size
        parts = []
        for start in range(0, n, size):
            held, given = ([rows[start : start + size].to(device) for rows in of] for of in (z, context))
            p = self.model.generate(min(size, n - start), *given, z=held)
            parts.append((p.sample() if draw else typical(p)).float().cpu())
        return torch.cat(parts)

    def interpolate(
        self,
        a: Sequence[Tensor],
        b: Sequence[Tensor],
        steps: int,
        *,
        context: Sequence[Tensor] = (),
        spherical: bool = True,
    ) -> Float[Tensor, "n steps *event"]:
        """Decoded paths between rows of latent variables; each in the context of its row."""
        n = len(a[0])
        spherical = spherical or self.on_sphere
        paths = [interpolate(start, end, steps, spherical=spherical) for start, end in zip(a, b, strict=True)]
        z = [path.transpose(0, 1).flatten(0, 1) for path in paths]
        x = self.generate(n * steps, z, context=[c.repeat_interleave(steps, 0) for c in context])
        return x.reshape(n, steps, *self.event)

    def traverse(
        self,
        start: Sequence[Tensor],
        dims: Sequence[tuple[int, int]],
        values: Sequence[Float[Tensor, " steps"]],
        *,
        context: Sequence[Tensor] = (),
    ) -> Float[Tensor, "dims steps *event"]:
        """One row's latent variables with one dimension at a time moved through values, decoded.

        Args:
            start: The latent variables of one row, each with a leading axis of one.
            dims: (latent variable, flat dimension) of each traversal.
            values: Where to move each.
            context: Of that row, with a leading axis of one.
        """
        steps = len(values[0])
        z = [row.repeat(len(dims) * steps, *[1] * (row.ndim - 1)) for row in start]
        for at, ((site, dim), to) in enumerate(zip(dims, values, strict=True)):
            z[site][at * steps :][:steps] = traverse(start[site], dim, to, spherical=self.on_sphere)[:, 0]
        told = [c.repeat_interleave(len(dims) * steps, 0) for c in context]
        return self.generate(len(dims) * steps, z, context=told).reshape(len(dims), steps, *self.event)

    def reach(self, site: Site, is_bound: bool, means: Tensor) -> Float[Tensor, "n *z"]:
        """Values to draw quantiles from: samples of the prior, or the codes where no prior answers for them."""
        if not is_bound:
            return means
        draws = max(500, min(4000, 2**24 // means[0].numel()))
        return site.p.sample((draws,)).reshape(-1, *means.shape[1:]).float().cpu()

    @property
    def batch_size(self) -> int:
        """Rows to decode at once: fewer of large ones, so that memory holds them."""
        return max(1, min(BATCH, 2**21 // max(1, torch.Size(self.event).numel())))

    def batches(self, *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The rows, and what belongs to each, as many at a time as memory holds."""
        return zip(*(t.split(self.batch_size) for t in rows), strict=True)

    def sheet(self, x: Float[Tensor, "n *event"], columns: int | None = None) -> figures.Picture:
        """Rows without order."""
        x = figures.unit_interval(x, self.low, self.high)
        return (
            figures.grid(x, columns or self.columns(len(x)))
            if self.is_image
            else figures.vectors(x.flatten(1), names=self.names)
        )

    def stacks(self, x: Float[Tensor, "r n *event"], apart: bool = False) -> figures.Picture:
        """n items of r rows each: the rows of one below each other, the first apart from the others if asked."""
        x = figures.unit_interval(x, self.low, self.high)
        r, n = x.shape[:2]
        if not self.is_image:
            return figures.vectors(x.transpose(0, 1).flatten(0, 1).flatten(1), names=self.names, group=r)
        columns = self.columns(n)
        lines = n // columns
        blocks = torch.cat([block.flatten(0, 1) for block in x[:, : lines * columns].split(columns, 1)])
        return figures.grid(blocks, columns, breaks=[*range(r, r * lines, r), *([1] if apart else [])])

    def strips(self, x: Float[Tensor, "n c *event"]) -> figures.Picture:
        """n items of c rows each: the rows of one beside each other."""
        x = figures.unit_interval(x, self.low, self.high)
        c = x.shape[1]
        x = x.flatten(0, 1)
        return figures.grid(x, c) if self.is_image else figures.vectors(x.flatten(1), names=self.names, group=c)

    def columns(self, n: int) -> int:
        """Images side by side, so that each is large enough to see."""
        width = self.event[-1]
        return min(n, 16 if width <= 40 else 12 if width <= 80 else 8 if width <= 160 else 4)


@functools.singledispatch
def _extent(family: Any, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value that a likelihood expects, broadcastable to the event."""
    if family.support.is_discrete or family.support is constraints.unit_interval:
        top = getattr(family.support, "upper_bound", 1)  # torch's own name for {0, 1} has none
        return torch.zeros(()), torch.tensor(float(top))
    # 99 % of a normal lie within 2.6 standard deviations
    shift, reach = family.affine.shift.cpu(), 2.6 * family.affine.unit.cpu()
    low, high = shift - reach, shift + reach
    return (low.expand(event), high.expand(event)) if len(event) == 1 else (low.min(), high.max())


@_extent.register
def _(family: Columns, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    low, high = torch.tensor([_ends(column) for column in family.columns]).T
    return low, high


@_extent.register
def _(family: Missing, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return _extent(family.whole, event)


def _ends(column: Column) -> tuple[float, float]:
    """The lowest and the highest value of a column, as far as its description says."""
    if column.is_level:
        return 0.0, len(column.levels) - 1.0
    if column.kind == "cyclic":
        return 0.0, column.period or 1.0
    return (0.0 if column.low is None else column.low), (1.0 if column.high is None else column.high)


def _range(data: Data) -> tuple[Tensor, Tensor]:
    """What is black and what is white: all levels; else all but 1 % of the values, of each column if not of images."""
    if data.levels is not None and len(data.event) == 3:
        top = data.levels if data.observed_levels is None else data.observed_levels - 1
        return torch.zeros(()), torch.tensor(float(top))
    sample = data.fixed("train", max(2, min(RANGE_ROWS, 2**23 // data.event.numel()))).cpu().double()
    if len(data.event) == 3:
        sample = sample.flatten()[:: max(1, sample.numel() // 2**20)]
    low, high = torch.nanquantile(sample, torch.tensor([0.005, 0.995], dtype=torch.float64), dim=0).float()
    return low.nan_to_num(), high.nan_to_num(1)
