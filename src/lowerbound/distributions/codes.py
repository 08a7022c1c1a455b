"""Distributions of codes: latent variables that are, at each place, one of finitely many vectors.

A datum is described by codes c in {0 .. size-1}, one at each place of a map, or several in stages. What a decoder reads
is z, the vectors that the codes stand for. Probabilities are under the counting measure of codes, so that a posterior
which chooses one code has log q(z|x) = 0 there, the KL term is -log P(c), the nats that it takes to name the code, and
log p(x) >= log p(x|z) + log P(c) is a bound like any other (van den Oord et al. 2017,
https://arxiv.org/abs/1711.00937).

To choose has no gradient. That of the likelihood goes straight through, from the vector chosen to the number that it
was chosen for (Bengio et al. 2013, https://arxiv.org/abs/1308.3432). What else has to be learned, that both draw near
each other, is a number whose value is always zero, with the gradient wanted: no bound is moved by it.

Axes: ``*batch``, then ``c`` channels of a vector or ``stages`` of its codes, ``h`` rows and ``w`` columns.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from .operations import has_one_value, stop_gradient

Codes = Int64[Tensor, "*batch stages h w"]


class _Vectors(constraints.Constraint):
    """Vectors that codes stand for: single values, as far as anyone can ask beforehand."""

    is_discrete = True
    event_dim = 3

    def check(self, value: Tensor) -> Tensor:
        """Whether each is finite."""
        return value.isfinite().flatten(-3).all(-1)


class Quantized(Distribution):
    """Point mass on code vectors: of probability one there, of none elsewhere.

    Args:
        z: The vectors; their gradient is that of what was quantised.
        codes: Which they are.
        size: How many there are to choose from, in each stage.
        pull: Zero for each datum, in nats, with a gradient that draws vectors and what was quantised together.

    >>> q = Quantized(torch.ones(5, 2, 3, 3), torch.zeros(5, 1, 3, 3, dtype=torch.int64), 8, torch.zeros(5))
    >>> q.log_prob(q.rsample((4,))).shape
    torch.Size([4, 5])
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(
        self, z: Float[Tensor, "*batch c h w"], codes: Codes, size: int, pull: Float[Tensor, "*batch"]
    ) -> None:
        self.z = z
        self.codes = codes
        self.size = size
        self.pull = pull
        super().__init__(z.shape[:-3], z.shape[-3:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The vectors that codes stand for."""
        return _Vectors()

    @property
    def mean(self) -> Float[Tensor, "*batch c h w"]:
        """The vectors."""
        return self.z

    @property
    def variance(self) -> Float[Tensor, "*batch c h w"]:
        """Zero."""
        return torch.zeros_like(self.z)

    def uses(self) -> Float[Tensor, "stages size"]:
        """How often each code is chosen, in the whole batch."""
        return self.places().sum((-2, -1)).to(self.z.dtype)

    def places(self) -> Int64[Tensor, "stages size h w"]:
        """How often each code is chosen at each place, in the whole batch."""
        codes = self.codes.flatten(0, -4) if self.codes.ndim > 3 else self.codes[None]
        stages, h, w = codes.shape[1:]
        counts = codes.new_zeros(stages, self.size, h, w)
        return counts.scatter_add_(1, codes.movedim(0, 1), torch.ones_like(codes).movedim(0, 1))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch c h w"]:
        """The vectors, as often as asked."""
        return self.z.expand((*sample_shape, *self.z.shape))

    def log_prob(self, value: Float[Tensor, "*value c h w"]) -> Float[Tensor, "*batch"]:
        """Log-probability in nats: zero at the vectors, -inf elsewhere."""
        here = (value == self.z).flatten(-3).all(-1)
        return torch.where(here, self.pull, -torch.inf)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "Quantized":
        """The same distribution over a larger batch."""
        z, codes = (t.expand(*batch_shape, *t.shape[-3:]) for t in (self.z, self.codes))
        return Quantized(z, codes, self.size, self.pull.expand(*batch_shape))


@runtime_checkable
class Book(Protocol):
    """What says which vectors codes stand for, such as `families.VectorQuantized`.

    Attributes:
        size: How many codes there are, in each stage.
        stages: How many codes name the vector of one place.
        channels: Of a vector.
    """

    size: int
    stages: int
    channels: int

    def codes(self, z: Tensor) -> Tensor:
        """Vectors, (*batch, channels, h, w) -> the codes that they stand for, (*batch, stages, h, w)."""

    def vectors(self, codes: Tensor) -> Tensor:
        """The inverse of `codes`."""


class Coded(Distribution):
    """Independent categoricals over codes, as a distribution of the vectors that they stand for.

    Args:
        logits: Of each code at each place and stage.
        book: Which vectors the codes stand for.
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = False

    def __init__(self, logits: Float[Tensor, "*batch stages size h w"], book: Book) -> None:
        self.logits = logits
        self.book = book
        super().__init__(logits.shape[:-4], torch.Size((book.channels, *logits.shape[-2:])), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The vectors that codes stand for."""
        return _Vectors()

    def log_prob(self, value: Float[Tensor, "*value c h w"]) -> Float[Tensor, "*batch"]:
        """Log-probability in nats of the codes of z; its gradient is that of the logits alone."""
        codes = self.book.codes(value)
        of_each = self.logits.log_softmax(-3).movedim(-3, -1)
        # where the logits of each place begin, for all batch axes at once, which may be fewer than those of the codes
        begin = torch.arange(0, of_each.numel(), of_each.shape[-1], device=codes.device).reshape(of_each.shape[:-1])
        return of_each.reshape(-1)[begin + codes].sum((-3, -2, -1))

    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch c h w"]:
        """A draw."""
        with torch.no_grad():
            logits = self.logits.expand(*sample_shape, *self.logits.shape)
            return self.book.vectors((logits + gumbel(logits)).argmax(-3))

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "Coded":
        """The same distribution over a larger batch."""
        return Coded(self.logits.expand(*batch_shape, *self.logits.shape[-4:]), self.book)


class OneHot(Distribution):
    """Independent categoricals, whose draws are one-hot and have the gradient of relaxed ones.

    A draw is the largest of the logits with Gumbel noise added, exactly; its gradient is that of a softmax of the same,
    at a temperature: Jang et al. 2017, https://arxiv.org/abs/1611.01144 (their straight-through estimator); Maddison et
    al. 2017, https://arxiv.org/abs/1611.00712. So bounds are those of true categoricals, in training too.

    Args:
        logits: Of each code at each place.
        temperature: Of the softmax: low is nearer to the truth, and noisier.

    >>> q = OneHot(torch.zeros(5, 8, 3, 3), 1.0)
    >>> q.rsample((4,)).sum(-3).unique()
    tensor([1.])
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, logits: Float[Tensor, "*batch size h w"], temperature: float) -> None:
        self.logits = logits.log_softmax(-3)
        self.temperature = temperature
        super().__init__(self.logits.shape[:-3], self.logits.shape[-3:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """One-hot vectors."""
        return constraints.independent(constraints.boolean, 3)

    @property
    def mean(self) -> Float[Tensor, "*batch size h w"]:
        """The probabilities."""
        return self.logits.exp()

    @property
    def variance(self) -> Float[Tensor, "*batch size h w"]:
        """Of each element."""
        return self.mean * (1 - self.mean)

    @property
    def size(self) -> int:
        """How many codes there are."""
        return self.event_shape[0]

    @property
    def codes(self) -> Codes:
        """The likeliest."""
        return self.logits.argmax(-3, keepdim=True)

    def uses(self) -> Float[Tensor, "stages size"]:
        """How often each code is chosen, in expectation, in the whole batch."""
        return self.mean.movedim(-3, -1).reshape(1, -1, self.size).sum(1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch size h w"]:
        """A one-hot draw."""
        noisy = self.logits.expand(*sample_shape, *self.logits.shape)
        noisy = noisy + gumbel(noisy)
        relaxed = (noisy / self.temperature).softmax(-3)
        return one_hot(noisy.argmax(-3), self.size).to(relaxed.dtype) + (relaxed - relaxed.detach())

    def log_prob(self, value: Float[Tensor, "*value size h w"]) -> Float[Tensor, "*batch"]:
        """Log-probability in nats of a one-hot value, differentiable in it."""
        return (value * self.logits).sum((-3, -2, -1))

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "OneHot":
        """The same distribution over a larger batch."""
        logits = self.logits.expand(*batch_shape, *self.event_shape)
        return OneHot(logits, self.temperature)


@register_kl(Quantized, Distribution)
def _kl_quantized_any(q: Quantized, p: Distribution) -> Tensor:
    return q.pull - p.log_prob(q.z.detach())


@register_kl(OneHot, OneHot)
def _kl_one_hot(q: OneHot, p: OneHot) -> Tensor:
    return (q.mean * (q.logits - p.logits)).sum((-3, -2, -1))


@has_one_value.register
def _(q: Quantized) -> bool:
    return True


@stop_gradient.register
def _(q: Quantized) -> Distribution:
    raise TypeError(
        "a quantised posterior cannot be held constant, which the objectives 'stl', 'dreg' and 'balanced' need: it is "
        "a point, and has no density. Use objective 'elbo' or 'free_bits', or model.quantiser=gumbel."
    )


def one_hot(codes: Int64[Tensor, "*batch h w"], size: int) -> Tensor:
    """Whether each place has each code, (*batch, size, h, w)."""
    return codes[..., None, :, :] == torch.arange(size, device=codes.device)[:, None, None]


def gumbel(like: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Noise of the standard Gumbel distribution: what is added to logits for the largest to be a draw."""
    return -(-torch.rand(like.shape, dtype=like.dtype, device=like.device).log()).log()
