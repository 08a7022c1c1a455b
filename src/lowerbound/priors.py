"""Priors: modules () -> p(z). Any zuko flow is one too, as it comes.

The better the prior matches the aggregated posterior 1/n sum_i q(z|x_i), the smaller the KL term that buys the same
reconstruction (Hoffman & Johnson 2016): a learned prior tightens the bound, and samples from it look like data.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from .distributions import DiagonalNormal, mixture
from .families import positive


class StandardNormal(nn.Module):
    """N(0, I).

    Args:
        event: Shape of one z.
    """

    def __init__(self, event: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(*event))
        self.loc: Tensor

    def forward(self, *context: Tensor) -> Distribution:
        """p(z), the same for every context."""
        return DiagonalNormal(self.loc, torch.ones_like(self.loc), self.loc.ndim)


class Mixture(nn.Module):
    """Mixture of diagonal normals with learned weights, centres and scales.

    Dilokthanakul et al. 2016, https://arxiv.org/abs/1611.02648

    Args:
        event: Shape of one z.
        components: How many normals.
    """

    def __init__(self, event: Sequence[int], components: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, *event))
        self.raw_scale = nn.Parameter(torch.zeros(components, *event))

    def forward(self, *context: Tensor) -> Distribution:
        """p(z), the same for every context."""
        normals = DiagonalNormal(self.loc, positive(self.raw_scale), self.loc.ndim - 1)
        return mixture(normals, self.logits)


class Vamp(nn.Module):
    """VampPrior: the mixture of the posteriors of learned pseudo-inputs, p(z) = sum_i w_i q(z|u_i).

    Tomczak & Welling 2018, https://arxiv.org/abs/1705.07120

    Args:
        encoder: The model's own encoder, shared.
        inputs: Where the pseudo-inputs start, in the data's units; rows of the training data do well.
    """

    def __init__(self, encoder: nn.Module, inputs: Float[Tensor, "components *x"]) -> None:
        super().__init__()
        self.encoder = encoder
        self.inputs = nn.Parameter(inputs.clone())
        self.logits = nn.Parameter(torch.zeros(len(inputs)))

    def forward(self, *context: Tensor) -> Distribution:
        """p(z)."""
        return mixture(self.encoder(self.inputs, *context), self.logits)
