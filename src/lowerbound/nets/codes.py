"""Networks of codes: what stands between code vectors and networks that read codes, or read vectors.

Axes: ``*lead`` such as (k, b), then ``c`` channels or ``stages`` of codes, ``h`` rows, ``w`` columns.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..distributions import Book
from ..distributions.autoregressive import Causal


class CausalCodes(nn.Module):
    """A causal network of codes, as one of the vectors that they stand for: what `Autoregressive` asks for.

    Args:
        net: The network, of the codes.
        book: Which vectors the codes stand for; it is the posterior's own.
    """

    def __init__(self, net: Causal, book: Book) -> None:
        super().__init__()
        self.net = net
        self.book = book
        self.event = (book.channels, *net.event[1:])

    def forward(
        self, z: Float[Tensor, "*some c h w"], features: Float[Tensor, "*others f h w"] | None = None
    ) -> Float[Tensor, "*lead p h w"]:
        """The parameters of the codes of z, each from those before it."""
        return self.net(self.book.codes(z).to(z.dtype), features)

    def draw(
        self,
        pick: Callable[[Tensor], Tensor],
        lead: Sequence[int] = (),
        features: Float[Tensor, "*others f h w"] | None = None,
    ) -> Float[Tensor, "*lead c h w"]:
        """Draw z, place by place; `pick` makes vectors of parameters."""
        codes = self.net.draw(lambda params: self.book.codes(pick(params)), lead, features)
        return self.book.vectors(codes.long())


class Summed(nn.Module):
    """Vectors that stand one after the other, added up: what the stages of a code say together.

    Args:
        stages: How many there are.
    """

    def __init__(self, stages: int) -> None:
        super().__init__()
        self.stages = stages

    def forward(self, z: Float[Tensor, "*lead c h w"]) -> Float[Tensor, "*lead each h w"]:
        """Their sum."""
        return z.unflatten(-3, (self.stages, -1)).sum(-4)


class Constant(nn.Module):
    """Parameters that are learned, whatever the context: of a prior that knows nothing.

    Args:
        shape: Of the parameters.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.params = nn.Parameter(torch.zeros(*shape))

    def forward(self, *context: Tensor) -> Float[Tensor, "*shape"]:
        """The parameters."""
        return self.params
