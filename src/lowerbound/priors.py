"""Priors: modules () -> p(z). Any zuko flow is one too, as it comes.

The better the prior matches the aggregated posterior 1/n sum_i q(z|x_i), the smaller the KL term that buys the same
reconstruction (Hoffman & Johnson 2016): a learned prior tightens the bound, and samples from it look like data.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import AffineTransform, Distribution, MultivariateNormal, TransformedDistribution

from .distributions import DiagonalNormal, mixture
from .distributions import UniformSphere as Uniform
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


class UniformSphere(nn.Module):
    """The uniform distribution over directions, the prior of a von Mises-Fisher posterior.

    Davidson et al. 2018, https://arxiv.org/abs/1804.00891

    Args:
        event: Shape of one z, of length one.
    """

    def __init__(self, event: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("like", torch.zeros(*event))
        self.like: Tensor

    def forward(self, *context: Tensor) -> Distribution:
        """p(z), the same for every context."""
        return Uniform(self.like)


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


class FullMixture(nn.Module):
    """Mixture of normals with full covariances, for vectors: sum_i w_i N(shift + unit loc_i, (unit L_i) (unit L_i)').

    It can be learned with a model, and is what `refit` fits to the codes of one that is trained: Ghosh et al. 2020,
    https://arxiv.org/abs/1903.12436

    Args:
        event: Shape of one z, of length one.
        components: How many normals.

    Attributes:
        shift: Where the zero of its own units is in those of z.
        unit: How long they are in those of z, positive.

    >>> FullMixture((2,), 3)().log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    def __init__(self, event: Sequence[int], components: int) -> None:
        super().__init__()
        (n,) = event
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, n))
        self.raw_diagonal = nn.Parameter(torch.zeros(components, n))
        self.below = nn.Parameter(torch.zeros(components, n * (n - 1) // 2))
        self.register_buffer("shift", torch.zeros(n))
        self.register_buffer("unit", torch.ones(n))
        self.shift: Tensor
        self.unit: Tensor

    def forward(self, *context: Tensor) -> Distribution:
        """p(z), the same for every context."""
        rows, columns = torch.tril_indices(self.loc.shape[1], self.loc.shape[1], -1, device=self.loc.device)
        tril = torch.diag_embed(positive(self.raw_diagonal))
        tril[:, rows, columns] = self.below
        loc, tril = self.shift + self.unit * self.loc, self.unit[:, None] * tril
        return mixture(MultivariateNormal(loc, scale_tril=tril, validate_args=False), self.logits)


class ScaledFlow(nn.Module):
    """A neural spline flow of z in units of its own, for vectors: z = shift + unit y.

    Splines bend what lies between -5 and 5 and leave the rest as it is: a flow of codes of any scale has to know the
    scale. Durkan et al. 2019, https://arxiv.org/abs/1906.04032

    Args:
        event: Shape of one z, of length one.
        transforms: How many flow steps.
        hidden: Widths of the masked networks.

    Attributes:
        shift: Where the zero of its own units is in those of z.
        unit: How long they are in those of z, positive.

    >>> ScaledFlow((2,))().log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    def __init__(self, event: Sequence[int], transforms: int = 3, hidden: Sequence[int] = (64, 64)) -> None:
        import zuko

        super().__init__()
        (n,) = event
        self.flow = zuko.flows.NSF(n, transforms=transforms, hidden_features=tuple(hidden))
        self.register_buffer("shift", torch.zeros(n))
        self.register_buffer("unit", torch.ones(n))
        self.shift: Tensor
        self.unit: Tensor

    def forward(self, *context: Tensor) -> Distribution:
        """p(z), the same for every context."""
        own_units = AffineTransform(self.shift, self.unit, event_dim=1)
        return TransformedDistribution(self.flow(), own_units, validate_args=False)
