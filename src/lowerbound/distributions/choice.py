"""One of several classes, as a vector: 1 in the place of the class and 0 in all others.

A class that is known is a distribution too, with all of its probability in one place.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from .operations import stop_gradient


class OneOf(Distribution):
    """A categorical distribution of one-hot vectors. Classes of probability 0 are exactly that, in gradients too.

    Args:
        logits: Of each class, up to a constant; -inf for what cannot be.

    >>> q = OneOf(torch.tensor([0.0, 0.0, -torch.inf]))
    >>> q.mean
    tensor([0.5000, 0.5000, 0.0000])
    >>> q.log_prob(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    tensor([-0.6931,    -inf])
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = False

    def __init__(self, logits: Float[Tensor, "*batch classes"]) -> None:
        self.logits = logits.log_softmax(-1)
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Vectors with a single 1."""
        return constraints.one_hot

    @property
    def mean(self) -> Float[Tensor, "*batch classes"]:
        """The probability of each class."""
        return self.logits.exp()

    @property
    def mode(self) -> Float[Tensor, "*batch classes"]:
        """The likeliest class."""
        return self._one_hot(self.logits)

    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_batch_classes"]:
        """A draw: the largest logit, with Gumbel noise added."""
        with torch.no_grad():
            u = torch.rand((*sample_shape, *self.logits.shape), dtype=self.logits.dtype, device=self.logits.device)
            return self._one_hot(self.logits - (-u.log()).log())

    def log_prob(self, value: Float[Tensor, "*value classes"]) -> Float[Tensor, "*batch"]:
        """Log-probability in nats."""
        return torch.where(value > 0, self.logits, 0.0).sum(-1)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "OneOf":
        """The same distribution over a larger batch."""
        return OneOf(self.logits.expand(*batch_shape, *self.event_shape))

    def _one_hot(self, scores: Tensor) -> Tensor:
        places = torch.arange(scores.shape[-1], device=scores.device)
        return (scores.argmax(-1, keepdim=True) == places).to(scores.dtype)


@register_kl(OneOf, OneOf)
def _kl_one_of(q: OneOf, p: OneOf) -> Tensor:
    # 0 log 0 is 0: what `where` leaves out must be finite before it is multiplied, for its gradient's sake
    return (q.mean * torch.where(q.logits.isfinite(), q.logits - p.logits, 0.0)).sum(-1)


@stop_gradient.register
def _(q: OneOf) -> Distribution:
    raise TypeError(
        "a class that is summed out cannot be held constant, which the objectives 'stl', 'dreg' and 'balanced' need: "
        "no draw of it could be differentiated. Use objective 'elbo' or 'iwae'."
    )
