"""Directions: the von Mises-Fisher distribution on the unit sphere, and the uniform one.

A normal prior pulls all codes to one place; a sphere has no middle, so that a uniform prior on it pulls nowhere
(Davidson et al. 2018, https://arxiv.org/abs/1804.00891). Of a vector z of m numbers and length 1,

    p(z) = exp(kappa mu.z - L(kappa)) / area,    L(kappa) = log E[exp(kappa t)],

with t one coordinate of a uniform direction. L is the log of a modified Bessel function, rid of what makes that
hard to handle: log [Gamma(m/2) (2/kappa)^(m/2 - 1) I_{m/2 - 1}(kappa)]. It is 0 at kappa = 0, and its derivative is the
length of the mean, A(kappa). Hence log-densities and divergences from the uniform distribution do not cancel.

Densities are with respect to area on the sphere, not to volume around it: a prior for such a posterior is one on the
sphere, the uniform one or a mixture of von Mises-Fisher distributions. With any other the bound would be none.

Axes: ``*batch``, then ``m`` numbers, a direction.
"""

import collections
import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints, register_kl

from .operations import stop_gradient

# Below it the series of L, above it the expansion: where both are exact to the last digits of a double.
EDGE = 50.0
SERIES_TERMS = 80
EXPANSION_TERMS = 11
# A proposal is accepted with probability 0.65 or more for any m and kappa (measured: least for m = 2, kappa large), so
# that none of so many is with probability 1e-15: less than the resolution of the uniform numbers they are made from.
PROPOSALS = 32
NODES = 64


class _Sphere(constraints.Constraint):
    event_dim = 1

    def check(self, value: Float[Tensor, "*batch m"]) -> Bool[Tensor, "*batch"]:
        """Whether the length is 1, but for rounding."""
        return (value.square().sum(-1) - 1).abs() < 1e-4


sphere = _Sphere()


def log_area(m: int) -> float:
    """The log of the area of the unit sphere in m dimensions: 2 pi^(m/2) / Gamma(m/2)."""
    return math.log(2) + m / 2 * math.log(math.pi) - math.lgamma(m / 2)


# what is kept may be asked for where there are no gradients, and again where there are
@functools.cache
@torch.inference_mode(False)
def _debye() -> Float[Tensor, "terms terms"]:
    """c[k, i], with u_k(p) = sum_i c[k, i] p^(k + 2 i): Debye's polynomials, https://dlmf.nist.gov/10.41.E9"""
    found = torch.zeros(EXPANSION_TERMS, EXPANSION_TERMS, dtype=torch.float64)
    polynomial = {0: Fraction(1)}
    for k in range(EXPANSION_TERMS):
        following: dict[int, Fraction] = collections.defaultdict(Fraction)
        for power, c in polynomial.items():
            found[k, (power - k) // 2] = float(c)
            following[power + 1] += c * power / 2 + c / 8 / (power + 1)
            following[power + 3] -= c * power / 2 + c * 5 / 8 / (power + 3)
        polynomial = following
    return found


def cumulant(kappa: Float[Tensor, "*batch"], m: int) -> Float[Tensor, "*batch"]:
    """L(kappa) = log E[exp(kappa t)], t one coordinate of a uniform direction in m dimensions; in double precision.

    For kappa up to 50 it is the power series of the Bessel function, beyond it the expansion for large order, which
    with sqrt(nu^2 + kappa^2) for its scale holds for small orders as well (https://dlmf.nist.gov/10.41.E3).

    >>> round(cumulant(torch.tensor(2.0), 3).item(), 6) == round(math.log(math.sinh(2.0) / 2.0), 6)
    True
    """
    kappa, order = kappa.double(), m / 2 - 1
    j = torch.arange(1.0, SERIES_TERMS, dtype=torch.float64, device=kappa.device)
    constant = torch.lgamma(j + 1) + torch.lgamma(j + order + 1) - math.lgamma(order + 1)
    log_square = 2 * (kappa.clamp(1e-30, EDGE) / 2).log()
    series = (j * log_square[..., None] - constant).exp().sum(-1).log1p()

    large = kappa.clamp(min=EDGE)
    r = (large.square() + order**2).sqrt()
    q = order**2 / r.square()
    powers = torch.arange(EXPANSION_TERMS, dtype=torch.float64, device=kappa.device)
    polynomials = q[..., None] ** powers @ _debye().to(kappa.device).mT
    total = (r[..., None] ** -powers * polynomials).sum(-1)
    constant_of_order = math.lgamma(order + 1) + order * math.log(2) - 0.5 * math.log(2 * math.pi)
    expansion = r - order * (order + r).log() - 0.5 * r.log() + total.log() + constant_of_order
    return torch.where(kappa < EDGE, series, expansion)


def mean_length(kappa: Float[Tensor, "*batch"], m: int) -> Float[Tensor, "*batch"]:
    """A(kappa) = L'(kappa), the ratio of two Bessel functions: the length of the mean, in double precision."""
    return kappa.double() / m * _ratio(kappa, m)


def _ratio(kappa: Tensor, m: int) -> Tensor:
    """m A(kappa) / kappa: 1 at 0."""
    return (cumulant(kappa, m + 2) - cumulant(kappa, m)).exp()


@functools.cache
@torch.inference_mode(False)
def _legendre() -> tuple[Tensor, Tensor]:
    """Nodes and weights on (0, 1), (NODES,)."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


class VonMisesFisher(Distribution):
    """Von Mises-Fisher: directions around loc, with density proportional to exp(concentration loc.z).

    A draw is an angle from loc, and a uniform direction around it. The angle is drawn by rejection (Wood 1994,
    https://doi.org/10.1080/03610919408813161), from a fixed number of proposals; see `PROPOSALS`. Its gradient is the
    implicit one, by quadrature (Figurnov et al. 2018, https://arxiv.org/abs/1805.08498): unbiased, without the
    correction that a gradient through the proposals needs.

    Args:
        loc: The mean direction, of length 1.
        concentration: kappa, positive: 0 is uniform.

    >>> q = VonMisesFisher(torch.tensor([1.0, 0.0, 0.0]), torch.tensor(2.0))
    >>> q.mean.round(decimals=4)
    tensor([0.5373, 0.0000, 0.0000])
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, loc: Float[Tensor, "*batch m"], concentration: Float[Tensor, "*batch"]) -> None:
        self.loc = loc
        self.concentration = concentration
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Vectors of length 1."""
        return sphere

    @property
    def mean(self) -> Float[Tensor, "*batch m"]:
        """E[z], inside the sphere."""
        return mean_length(self.concentration, self.event_shape[0]).to(self.loc.dtype)[..., None] * self.loc

    @property
    def variance(self) -> Float[Tensor, "*batch m"]:
        """Var[z], element by element."""
        m = self.event_shape[0]
        kappa = self.concentration.double()
        across = _ratio(kappa, m) / m  # A / kappa: the variance in every direction orthogonal to loc
        along = 1 - (m - 1) * across - mean_length(kappa, m).square()
        squares = self.loc.double().square()
        return (across[..., None] * (1 - squares) + along[..., None] * squares).to(self.loc.dtype)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch m"]:
        """A draw that is differentiable, once, in loc and concentration."""
        shape, m = (*sample_shape, *self.batch_shape), self.event_shape[0]
        angle = self._angle(shape)
        around = torch.randn((*shape, m - 1), dtype=torch.float64, device=self.loc.device)
        around = around / around.norm(dim=-1, keepdim=True)
        loc = self.loc.double()
        # from the farther end of the first axis a reflection to loc is smooth in loc
        end = torch.where(loc[..., :1] < 0, 1.0, -1.0).double()
        pole = torch.cat((end, torch.zeros_like(loc[..., 1:])), -1)
        z = torch.cat((angle.cos()[..., None] * end, angle.sin()[..., None] * around), -1)
        normal = pole - loc
        z = z - 2 * normal * (normal * z).sum(-1, keepdim=True) / normal.square().sum(-1, keepdim=True)
        return z.to(self.loc.dtype)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats, with respect to area on the sphere."""
        m, kappa = self.event_shape[0], self.concentration.double()
        cosine = (self.loc.double() * value.double()).sum(-1)
        return (kappa * cosine - cumulant(kappa, m) - log_area(m)).to(self.loc.dtype)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Differential entropy in nats, with respect to area."""
        return (log_area(self.event_shape[0]) - self._from_uniform()).to(self.loc.dtype)

    def _from_uniform(self) -> Tensor:
        """The divergence from the uniform distribution, kappa A(kappa) - L(kappa), in double precision."""
        m, kappa = self.event_shape[0], self.concentration.double()
        total = cumulant(kappa, m)
        return kappa.square() / m * (cumulant(kappa, m + 2) - total).exp() - total

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "VonMisesFisher":
        """The same distribution over a larger batch."""
        return VonMisesFisher(self.loc.expand(*batch_shape, -1), self.concentration.expand(batch_shape))

    def _angle(self, shape: tuple[int, ...]) -> Tensor:
        """Angles from loc, in double precision, with their derivative."""
        m, kappa = self.event_shape[0], self.concentration.double()
        with torch.no_grad():
            b = (m - 1) / (2 * kappa + (4 * kappa.square() + (m - 1) ** 2).sqrt())
            edge = (1 - b) / (1 + b)
            size = (PROPOSALS, *shape)
            radius, turn, level = (torch.rand(size, dtype=torch.float64, device=kappa.device) for _ in range(3))
            # one coordinate of a uniform direction in m + 1 dimensions; two dimensions have nothing but the turn
            t = (1 - radius ** (2 / (m - 2) if m > 2 else math.inf)).sqrt() * (2 * math.pi * turn).cos()
            proposed = 2 * torch.atan2((b * (1 + t)).sqrt(), (1 - t).sqrt())
            cosine = proposed.cos()
            ratio = kappa * (cosine - edge) + (m - 1) * ((1 - edge * cosine) / (1 - edge.square())).log()
            first = (ratio >= level.log()).to(torch.uint8).argmax(0)
            angle = proposed.gather(0, first[None])[0]
        if not torch.is_grad_enabled():
            return angle
        held = kappa.detach()
        return angle + (kappa - held) * _slope(angle, held, m)


@torch.no_grad()
def _slope(angle: Float[Tensor, "*sample"], kappa: Float[Tensor, "*batch"], m: int) -> Float[Tensor, "*sample"]:
    """d angle / d kappa at a constant cumulative probability F: -(dF/dkappa) / (dF/dangle).

    dF/dkappa is an integral over all smaller angles, or, with the other sign, all larger: the nearer end is taken.
    """
    end = math.pi * (angle > math.pi / 2).to(angle)
    nodes, weights = (t.to(angle.device) for t in _legendre())
    at = angle[..., None] + (end - angle)[..., None] * nodes
    inner, outer, kappa = at.cos(), angle.cos()[..., None], kappa[..., None]
    # an end itself may be drawn, where the sine is 0 or by rounding below
    sines, own = (sine.clamp(min=1e-300) for sine in (at.sin(), angle.sin()[..., None]))
    log_ratio = kappa * (inner - outer) + (m - 2) * (sines / own).log()
    return (end - angle) * ((inner - mean_length(kappa, m)) * log_ratio.exp() * weights).sum(-1)


class UniformSphere(Distribution):
    """The uniform distribution over directions.

    Args:
        like: Of the length, type and device of one z; what it holds does not matter.

    >>> UniformSphere(torch.zeros(3)).log_prob(torch.tensor([0.0, 1.0, 0.0])).round(decimals=4)  # -log(4 pi)
    tensor(-2.5310)
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, like: Float[Tensor, " m"]) -> None:
        self.like = like
        super().__init__(Size(), like.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Vectors of length 1."""
        return sphere

    @property
    def mean(self) -> Float[Tensor, " m"]:
        """Zero."""
        return torch.zeros_like(self.like)

    @property
    def variance(self) -> Float[Tensor, " m"]:
        """1 / m."""
        return torch.full_like(self.like, 1 / len(self.like))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample m"]:
        """A direction."""
        noise = torch.randn((*sample_shape, *self.like.shape), dtype=self.like.dtype, device=self.like.device)
        return noise / noise.norm(dim=-1, keepdim=True)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats, with respect to area: the same everywhere on the sphere, -inf elsewhere."""
        return torch.where(sphere.check(value), -log_area(len(self.like)), -math.inf).to(value.dtype)

    def entropy(self) -> Float[Tensor, ""]:
        """Differential entropy in nats: the log of the area."""
        return self.like.new_full((), log_area(len(self.like)))


@register_kl(VonMisesFisher, UniformSphere)
def _kl_fisher_uniform(q: VonMisesFisher, p: UniformSphere) -> Tensor:
    return q._from_uniform().to(q.loc.dtype)


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_fisher_fisher(q: VonMisesFisher, p: VonMisesFisher) -> Tensor:
    m, own, other = q.event_shape[0], q.concentration.double(), p.concentration.double()
    cosine = (q.loc.double() * p.loc.double()).sum(-1)
    kl = mean_length(own, m) * (own - other * cosine) - cumulant(own, m) + cumulant(other, m)
    return kl.to(q.loc.dtype)


@stop_gradient.register
def _(q: VonMisesFisher) -> Distribution:
    return VonMisesFisher(q.loc.detach(), q.concentration.detach())
