"""Flows whose every step is a simple map with parameters of its own for each datum.

A draw of a simple distribution goes through T invertible maps z_t = f_t(z_{t-1}), and

    log q(z_T) = log q(z_0) - sum_t log |det df_t/dz|

(Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770). Each map here has a determinant in closed form, and its
parameters come from the encoder: the shape of q(z|x) differs from datum to datum, not only its place and width.

These maps were made to be drawn from. Yet each has an inverse: that of a radial step is the root of a quadratic; the
others come down to equations of one number, x + c tanh(g x + s) = y, whose left side rises, and which bisection solves.
Densities are therefore exact for all values, not for draws alone, as VampPrior and the aggregated posterior need.

Whatever the parameters, no factor of a determinant is less than a hundredth: `LIMIT` keeps densities finite.

Axes: ``*batch``, then ``n`` elements, or ``params`` numbers for one step.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from .correlated import reflect
from .normal import DiagonalNormal
from .operations import stop_gradient

LIMIT = 0.99
HALVINGS = 24
NEWTON_STEPS = 3


class Step(abc.ABC):
    """An invertible map of vectors, with parameters for each vector: the identity where they are zeros."""

    @abc.abstractmethod
    def size(self, n: int) -> int:
        """How many parameters it needs for vectors of n elements."""

    @abc.abstractmethod
    def forward(self, z: Float[Tensor, "*z"], params: Float[Tensor, "*params"]) -> tuple[Tensor, Tensor]:
        """The image of z, (*batch, n), and the log of the determinant there, (*batch,)."""

    @abc.abstractmethod
    def inverse(self, z: Float[Tensor, "*z"], params: Float[Tensor, "*params"]) -> Tensor:
        """What is mapped to z, (*batch, n)."""


def above(raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """A number above -LIMIT from any: itself where it is not negative, with slope 1 at 0."""
    negative = raw.clamp(max=0)
    return torch.where(raw < 0, negative / (1 - negative / LIMIT), raw)


def root(y: Tensor, c: Tensor, g: Tensor, s: Tensor) -> Tensor:
    """The x with x + c tanh(g x + s) = y, where c g > -1; with its first derivatives in all four.

    It lies within |c| of y. Halving comes close enough for Newton's method to double the digits with each step; the
    last of these steps carries the derivatives.
    """
    with torch.no_grad():
        low, high = torch.broadcast_tensors(y - c.abs(), y + c.abs())
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = middle + c * torch.tanh(g * middle + s) < y
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        x = (low + high) / 2
        for _ in range(NEWTON_STEPS - 1):
            tanh = torch.tanh(g * x + s)
            x = x - (x + c * tanh - y) / (1 + c * g * (1 - tanh.square()))
        slope = 1 + c * g * (1 - torch.tanh(g * x + s).square())
    return x - (x + c * torch.tanh(g * x + s) - y) / slope


@dataclass(frozen=True)
class Planar(Step):
    """z + u tanh(w'z + b): it pushes away from a plane, or towards it; Rezende & Mohamed 2015.

    It is invertible where w'u > -1. As in the paper u is changed along w where it must be, by a smoother rule: not at
    all where w'u >= 0.
    """

    def size(self, n: int) -> int:
        """u, w and b."""
        return 2 * n + 1

    def forward(self, z: Float[Tensor, "*z"], params: Float[Tensor, "*params"]) -> tuple[Tensor, Tensor]:
        """One hyperbolic tangent."""
        u, w, b, product = self._parts(z, params)
        tanh = torch.tanh((w * z).sum(-1) + b)
        return z + u * tanh[..., None], torch.log1p(product * (1 - tanh.square()))

    def inverse(self, z: Float[Tensor, "*z"], params: Float[Tensor, "*params"]) -> Tensor:
        """One equation, for w'z."""
        u, w, b, product = self._parts(z, params)
        along = root((w * z).sum(-1), product, torch.ones_like(product), b)
        return z - u * torch.tanh(along + b)[..., None]

    def _parts(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u, w, b and w'u > -LIMIT."""
        n = z.shape[-1]
        u, w, b = params.split((n, n, 1), -1)
        raw = (w * u).sum(-1)
        product = above(raw)
        square = w.square().sum(-1).clamp(min=torch.finfo(z.dtype).tiny)
        return u + ((product - raw) / square)[..., None] * w, w, b[..., 0], product


@dataclass(frozen=True)
class Radial(Step):
    """z + beta (z - centre) / (alpha + |z - centre|): away from a point, or towards it; Rezende & Mohamed 2015."""

    def size(self, n: int) -> int:
        """The centre, alpha and beta."""
        return n + 2

    def forward(self, z: Float[Tensor, "*z"], params: Float[Tensor, "*params"]) -> tuple[Tensor, Tensor]:
        """One division."""
        centre, alpha, beta = self._parts(z, params)
        offset = z - centre
        push = beta / (alpha + _length(offset))
        log_across = torch.log1p(push)
        log_along = torch.log1p(push * alpha / (alpha + _length(offset)))
        return z + push[..., None] * offset, (z.shape[-1] - 1) * log_across + log_along

    def inverse(self, z: Float[Tensor, "*z"], params: Float[Tensor, "*params"]) -> Tensor:
        """The root of a quadratic, for the distance from the centre."""
        centre, alpha, beta = self._parts(z, params)
        offset = z - centre
        image = _length(offset)
        # r (1 + beta / (alpha + r)) = image; both forms of its root, each where it does not cancel
        half = (image - alpha - beta) / 2
        whole = (half.square() + alpha * image).sqrt() + half.abs()
        r = torch.where(half > 0, whole, alpha * image / whole)
        return centre + offset * ((alpha + r) / (alpha + r + beta))[..., None]

    def _parts(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The centre, alpha > 0 and beta > -LIMIT alpha."""
        centre, raw, push = params.split((z.shape[-1], 1, 1), -1)
        # between e^-7 and e^7, as all scales are
        alpha = torch.exp(raw / (1 + raw.abs() / 7))[..., 0]
        return centre, alpha, alpha * above(push[..., 0])


def _length(offset: Tensor) -> Tensor:
    """The length, with a gradient at 0."""
    return offset.square().sum(-1).clamp(min=torch.finfo(offset.dtype).tiny).sqrt()


@dataclass(frozen=True)
class Sylvester(Step):
    """z + Q R tanh(S Q'z + b): a planar step in several directions at once, orthogonal by Householder reflections.

    Q has orthogonal columns, R and S are upper triangular. With as many columns as z has elements it is the paper's
    H-SNF; with fewer, its O-SNF, made orthogonal by reflections as well.
    Van den Berg et al. 2018, https://arxiv.org/abs/1803.05649

    Args:
        columns: How many directions, at most; no more than z has elements are used.
        reflections: How many reflections make Q.
    """

    columns: int = 8
    reflections: int = 4

    def size(self, n: int) -> int:
        """The planes of the reflections, R and S, and b."""
        m = min(self.columns, n)
        return self.reflections * n + m * (m + 1) + m

    def forward(self, z: Float[Tensor, "*z"], params: Float[Tensor, "*params"]) -> tuple[Tensor, Tensor]:
        """A few reflections and two products with small matrices."""
        planes, r, s, b = self._parts(z, params)
        inner = self._along(z, planes, b.shape[-1])
        tanh = torch.tanh(_times(s, inner) + b)
        diagonal = r.diagonal(dim1=-2, dim2=-1) * s.diagonal(dim1=-2, dim2=-1)
        return z + self._across(_times(r, tanh), planes), torch.log1p(diagonal * (1 - tanh.square())).sum(-1)

    def inverse(self, z: Float[Tensor, "*z"], params: Float[Tensor, "*params"]) -> Tensor:
        """One equation for each direction, from the last to the first."""
        planes, r, s, b = self._parts(z, params)
        m = b.shape[-1]
        image = self._along(z, planes, m)
        solved: list[Tensor] = []  # Q'z and its tanh, from element i on
        pushed: list[Tensor] = []
        for i in reversed(range(m)):
            y, shift = image[..., i], b[..., i]
            for j, (known, tanh) in enumerate(zip(solved, pushed, strict=True), start=i + 1):
                y, shift = y - r[..., i, j] * tanh, shift + s[..., i, j] * known
            x = root(y, r[..., i, i], s[..., i, i], shift)
            solved.insert(0, x)
            pushed.insert(0, torch.tanh(s[..., i, i] * x + shift))
        return z - self._across(_times(r, torch.stack(pushed, -1)), planes)

    def _along(self, z: Tensor, planes: Tensor, m: int) -> Tensor:
        """Q'z: Q is the first m columns of the product of the reflections."""
        return reflect(z, planes.flip(-2))[..., :m]

    def _across(self, inner: Tensor, planes: Tensor) -> Tensor:
        """Q inner."""
        rest = planes.shape[-1] - inner.shape[-1]
        return reflect(torch.nn.functional.pad(inner, (0, rest)), planes)

    def _parts(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Unit normals (*batch, reflections, n), R and S (*batch, m, m), and b (*batch, m)."""
        n = z.shape[-1]
        m = min(self.columns, n)
        planes, triangles, b = params.split((self.reflections * n, m * (m + 1), m), -1)
        # the diagonals of both matrices and their two upper triangles make one matrix of m + 1 columns
        square = triangles.unflatten(-1, (m, m + 1))
        r, s = (_triangle(part) for part in (square[..., 1:], square[..., :-1].mT))
        return unit(planes.unflatten(-1, (self.reflections, n))), r, s, b


def unit(raw: Float[Tensor, "*batch t n"]) -> Float[Tensor, "*batch t n"]:
    """Unit normals of planes from any numbers; from zeros, those of the axes."""
    t, n = raw.shape[-2:]
    axes = torch.eye(n, dtype=raw.dtype, device=raw.device)[torch.arange(t, device=raw.device) % n]
    return torch.nn.functional.normalize(raw + axes, dim=-1)


def _triangle(raw: Tensor) -> Tensor:
    """The upper triangle, its diagonal bounded, that products of two stay above -1."""
    return raw.triu(1) + torch.diag_embed(LIMIT * torch.tanh(raw.diagonal(dim1=-2, dim2=-1)))


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix * vector[..., None, :]).sum(-1)


class Pushed(Distribution):
    """A diagonal normal of vectors, pushed through steps. Where there is no step it is the normal.

    Args:
        base: What is pushed.
        step: The kind of all steps.
        params: The parameters of each of them, the first one's first.
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, base: DiagonalNormal, step: Step, params: Float[Tensor, "*batch steps params"]) -> None:
        self.base = base
        self.step = step
        self.params = params
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors."""
        return self.base.support

    def rsample_and_log_prob(self, sample_shape: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """A draw, differentiable in all parameters, and its log-density in nats."""
        z = self.base.rsample(sample_shape)
        log_q = self.base.log_prob(z)
        for params in self.params.unbind(-2):
            z, log_determinant = self.step.forward(z, params)
            log_q = log_q - log_determinant
        return z, log_q

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch n"]:
        """A draw that is differentiable in all parameters."""
        return self.rsample_and_log_prob(sample_shape)[0]

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats, by inversion: in double precision, because a step may magnify what was rounded."""
        base = DiagonalNormal(self.base.loc.double(), self.base.scale.double(), 1)
        z, log_determinants = value.double(), torch.zeros((), dtype=torch.float64, device=value.device)
        for params in self.params.double().flip(-2).unbind(-2):
            z = self.step.inverse(z, params)
            log_determinants = log_determinants + self.step.forward(z, params)[1]
        return (base.log_prob(z) - log_determinants).to(self.base.loc.dtype)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "Pushed":
        """The same distribution over a larger batch."""
        batch = Size(batch_shape)
        return Pushed(self.base.expand(batch), self.step, self.params.expand(*batch, -1, -1))


@stop_gradient.register
def _(q: Pushed) -> Distribution:
    base = DiagonalNormal(q.base.loc.detach(), q.base.scale.detach(), 1)
    return Pushed(base, q.step, q.params.detach())
