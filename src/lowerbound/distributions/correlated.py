"""Normals whose elements are correlated, with fewer parameters than a full covariance has.

A full covariance of n elements is n (n + 1) / 2 numbers for each datum. Between it and a diagonal one lie

* a diagonal one plus a few directions, diag(scale^2) + W W', W of r columns: n (r + 2) numbers with the mean. Its
  inverse and determinant need a matrix of r by r alone (Woodbury; Rezende et al. 2014, https://arxiv.org/abs/1401.4082);
* a diagonal one in axes of its own: reflected at t planes, one after another, n (t + 2) numbers. Reflections keep
  volume, and n of them make any rotation (Tomczak & Welling 2016, https://arxiv.org/abs/1611.09630).

Divergences from a diagonal normal are exact: they need no more than mean, variances and determinant.

Axes: ``*batch``, then ``n`` elements; ``r`` directions, ``t`` reflections.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from .normal import DiagonalNormal
from .operations import stop_gradient


def reflect(z: Float[Tensor, "*z"], normals: Float[Tensor, "*batch t n"]) -> Float[Tensor, "*batch_n"]:
    """z reflected at the planes through 0 with these unit normals, the first one first."""
    for normal in normals.unbind(-2):
        z = z - 2 * normal * (normal * z).sum(-1, keepdim=True)
    return z


class LowRankNormal(Distribution):
    """Normal with covariance diag(scale^2) + W W'.

    torch's `LowRankMultivariateNormal` cannot be sampled under `torch.vmap`, and loses its digits in float32 where
    `scale` is much smaller than W: here what cancels is computed in double precision.

    Args:
        loc: Mean.
        scale: Standard deviation of what is independent, positive.
        factor: W, the directions, each as long as its standard deviation.

    >>> q = LowRankNormal(torch.zeros(2), torch.ones(2), torch.tensor([[1.0], [1.0]]))
    >>> q.log_prob(torch.zeros(2)).round(decimals=4)  # the determinant is 3
    tensor(-2.3872)
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(
        self, loc: Float[Tensor, "*batch n"], scale: Float[Tensor, "*batch n"], factor: Float[Tensor, "*batch n r"]
    ) -> None:
        self.loc = loc
        self.scale = scale
        self.factor = factor
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors."""
        return constraints.independent(constraints.real, 1)

    @property
    def mean(self) -> Float[Tensor, "*batch n"]:
        """E[z]."""
        return self.loc

    @property
    def variance(self) -> Float[Tensor, "*batch n"]:
        """Var[z], element by element."""
        return self.scale.square() + self.factor.square().sum(-1)

    @property
    def covariance_matrix(self) -> Float[Tensor, "*batch n n"]:
        """Cov[z]."""
        return torch.diag_embed(self.scale.square()) + self.factor @ self.factor.mT

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch n"]:
        """A draw that is differentiable in all parameters."""
        shape = (*sample_shape, *self.loc.shape)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        along = torch.randn((*shape[:-1], self.factor.shape[-1]), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.scale * noise + (self.factor * along[..., None, :]).sum(-1)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats."""
        root, log_determinant = self._inner()
        whitened = (value - self.loc).double() / self.scale.double()
        projected = torch.einsum("...nr,...n->...r", self._whitened_factor(), whitened)
        along = torch.linalg.solve_triangular(root, projected[..., None], upper=False)[..., 0]
        square = whitened.square().sum(-1) - along.square().sum(-1)
        constant = self.event_shape[0] * math.log(2 * math.pi)
        return (-0.5 * (square + log_determinant + constant)).to(self.loc.dtype)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Differential entropy in nats."""
        constant = self.event_shape[0] * (math.log(2 * math.pi) + 1)
        return (0.5 * (self._inner()[1] + constant)).to(self.loc.dtype)

    def _whitened_factor(self) -> Tensor:
        return self.factor.double() / self.scale.double()[..., None]

    def _inner(self) -> tuple[Tensor, Tensor]:
        """The Cholesky root of I + V'V, V = W / scale, and the log-determinant of the covariance."""
        v = self._whitened_factor()
        root = torch.linalg.cholesky(torch.eye(v.shape[-1], dtype=v.dtype, device=v.device) + v.mT @ v)
        inner = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return root, inner + 2 * self.scale.double().log().sum(-1)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "LowRankNormal":
        """The same distribution over a larger batch."""
        loc, scale = (t.expand(*batch_shape, -1) for t in (self.loc, self.scale))
        return LowRankNormal(loc, scale, self.factor.expand(*batch_shape, -1, -1))


class ReflectedNormal(Distribution):
    """A diagonal normal in axes of its own: loc + H z, z ~ N(0, diag(scale^2)), H a product of Householder reflections.

    The paper reflects the mean too. With a mean for each datum that is the same family; but here the mean does not move
    with the axes, and is learned sooner.

    Args:
        loc: Mean.
        scale: Standard deviation along each axis, positive.
        normals: Unit normals of the planes, the first of them reflects first.

    >>> q = ReflectedNormal(torch.zeros(2), torch.tensor([1.0, 3.0]), torch.tensor([[0.6, 0.8]]))
    >>> q.covariance_matrix.diagonal()
    tensor([8.3728, 1.6272])
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(
        self, loc: Float[Tensor, "*batch n"], scale: Float[Tensor, "*batch n"], normals: Float[Tensor, "*batch t n"]
    ) -> None:
        self.loc = loc
        self.spread = DiagonalNormal(torch.zeros_like(loc), scale, 1)
        self.normals = normals
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors."""
        return self.spread.support

    @property
    def mean(self) -> Float[Tensor, "*batch n"]:
        """E[z]."""
        return self.loc

    @property
    def variance(self) -> Float[Tensor, "*batch n"]:
        """Var[z], element by element."""
        return self._axes().square().sum(-2)

    @property
    def covariance_matrix(self) -> Float[Tensor, "*batch n n"]:
        """Cov[z]."""
        return self._axes().mT @ self._axes()

    def _axes(self) -> Tensor:
        """The axes, one a row and each as long as its standard deviation, (*batch, n, n)."""
        return reflect(torch.diag_embed(self.spread.scale), self.normals[..., None, :, :])

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch n"]:
        """A draw that is differentiable in all parameters."""
        return self.loc + reflect(self.spread.rsample(sample_shape), self.normals)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats."""
        return self.spread.log_prob(reflect(value - self.loc, self.normals.flip(-2)))

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Differential entropy in nats."""
        return self.spread.entropy()

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "ReflectedNormal":
        """The same distribution over a larger batch."""
        loc, scale = (t.expand(*batch_shape, -1) for t in (self.loc, self.spread.scale))
        return ReflectedNormal(loc, scale, self.normals.expand(*batch_shape, -1, -1))


@register_kl(LowRankNormal, DiagonalNormal)
@register_kl(ReflectedNormal, DiagonalNormal)
def _kl_correlated_diagonal(q: LowRankNormal | ReflectedNormal, p: DiagonalNormal) -> Tensor:
    # E_q[log p] sees the mean and the variances of q alone
    squares = (q.variance + (q.mean - p.loc).square()) / p.variance
    return 0.5 * (squares + 2 * p.scale.log() + math.log(2 * math.pi)).sum(-1) - q.entropy()


@stop_gradient.register
def _(q: LowRankNormal) -> Distribution:
    return LowRankNormal(q.loc.detach(), q.scale.detach(), q.factor.detach())


@stop_gradient.register
def _(q: ReflectedNormal) -> Distribution:
    return ReflectedNormal(q.loc.detach(), q.spread.scale.detach(), q.normals.detach())
