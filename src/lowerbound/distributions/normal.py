"""Normals with independent elements, and mixtures of them."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints


class DiagonalNormal(Distribution):
    """Normal with independent elements, N(loc, diag(scale^2)).

    torch's `Independent(Normal)` fills an unbatched tensor in place when it samples, which `torch.vmap` refuses;
    this one draws `loc + scale * noise`.

    Args:
        loc: Mean.
        scale: Standard deviation, positive, of the shape of `loc` or broadcastable to it.
        event_ndim: How many trailing axes make one event.

    >>> DiagonalNormal(torch.zeros(3), torch.ones(3), 1).log_prob(torch.zeros(3)).round(decimals=4)
    tensor(-2.7568)
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, event_ndim: int) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        batch_ndim = self.loc.ndim - event_ndim
        super().__init__(self.loc.shape[:batch_ndim], self.loc.shape[batch_ndim:], validate_args=False)

    def total(self, terms: Float[Tensor, "*terms"]) -> Float[Tensor, "*batch"]:
        """The sum over one event of what each element contributes."""
        axes = tuple(range(-len(self.event_shape), 0))
        return terms.sum(axes) if axes else terms  # torch takes no axes to mean all of them

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """E[z]."""
        return self.loc

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """Var[z], element by element."""
        return self.scale.square()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_event"]:
        """A draw that is differentiable in loc and scale."""
        noise = torch.randn((*sample_shape, *self.loc.shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.scale * noise

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats, summed over the event."""
        terms = ((value - self.loc) / self.scale).square() + 2 * self.scale.log() + math.log(2 * math.pi)
        return -0.5 * self.total(terms)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Differential entropy in nats."""
        return self.total(self.scale.log() + 0.5 * math.log(2 * math.pi * math.e))

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "DiagonalNormal":
        """The same distribution over a larger batch."""
        shape = (*batch_shape, *self.event_shape)
        return DiagonalNormal(self.loc.expand(shape), self.scale.expand(shape), len(self.event_shape))


class NormalMixture(Distribution):
    """Mixture of diagonal normals, sum_i w_i N(loc_i, diag(scale_i^2)).

    The squared distances of all values to all centres are three matrix products, in double precision because they
    cancel: many times faster than torch's `MixtureSameFamily`, which makes a tensor of values times components times
    elements.

    Args:
        logits: Log-weights, up to a constant: of one mixture, or of a batch of mixtures of the same components.
        normals: The components, a batch of as many.

    >>> two = DiagonalNormal(torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1), 1)
    >>> NormalMixture(torch.tensor([[0.0, 0.0], [0.0, -torch.inf]]), two).mean
    tensor([[ 0.],
            [-1.]])
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, logits: Float[Tensor, "*batch components"], normals: DiagonalNormal) -> None:
        self.logits = logits
        self.normals = normals
        super().__init__(logits.shape[:-1], normals.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors."""
        return self.normals.support

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """E[z]."""
        return self._expected(self.normals.mean)

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """Var[z], element by element."""
        return self._expected(self.normals.variance + self.normals.mean.square()) - self.mean.square()

    def _expected(self, each: Float[Tensor, "components *event"]) -> Float[Tensor, "*batch_event"]:
        """The mean of what each component has."""
        return torch.tensordot(self.logits.softmax(-1), each, 1)

    def log_prob(self, value: Float[Tensor, "*value"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats."""
        ndim = len(self.event_shape)
        loc, scale = (t.flatten(1).double() for t in (self.normals.loc, self.normals.scale))
        z = value.flatten(value.ndim - ndim).double()
        precision = scale.square().reciprocal()
        distance = z.square() @ precision.T - 2 * z @ (loc * precision).T + (loc.square() * precision).sum(1)
        constant = scale.log().sum(1) + 0.5 * math.log(2 * math.pi) * loc.shape[1]
        each = self.logits.double().log_softmax(-1) - constant - 0.5 * distance
        return each.logsumexp(-1).to(value.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_event"]:
        """A draw: a component, then a value of it."""
        count = math.prod(sample_shape)
        weights = self.logits.softmax(-1).flatten(0, -2) if self.batch_shape else self.logits.softmax(-1)[None]
        chosen = torch.multinomial(weights, max(1, count), replacement=True)[:, :count].T.reshape(-1)
        picked = DiagonalNormal(self.normals.loc[chosen], self.normals.scale[chosen], len(self.event_shape))
        return picked.rsample().reshape(*sample_shape, *self.batch_shape, *self.event_shape)
