"""Priors: modules () -> p(z). Any zuko flow is one too, as it comes.

The better the prior matches the aggregated posterior 1/n sum_i q(z|x_i), the smaller the KL term that buys the same
reconstruction (Hoffman & Johnson 2016): a learned prior tightens the bound, and samples from it look like data.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import AffineTransform, Distribution, MultivariateNormal, TransformedDistribution

from . import nets
from .distributions import DiagonalNormal, Warped, mixture
from .distributions import UniformSphere as Uniform
from .families import positive

# Of a coupling: the most that it may stretch or shrink by, as a logarithm, and the gain of its network at the start.
LOG_SCALE, NEARLY_NONE = 2.0, 0.01


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


class Exemplars(nn.Module):
    """The mixture of normals around the codes of rows that are kept, p(z) = 1/n sum_i N(E_q(z|x_i) [z], scale^2 I).

    To a row that it was made of, the others answer: what a row is to be told by is not the row itself ("leave one
    out"). Without that every code would be drawn to be its own exemplar, and the bound on training rows would promise
    what no other row keeps. Norouzi et al. 2020, https://arxiv.org/abs/2004.04795

    Args:
        encoder: The model's own encoder, shared.
        rows: The exemplars, in the data's units; they are part of the model, and stay as they are.
        numbers: Of these rows, by which the model is told which row it looks at.
        event: Shape of one z.

    Raises:
        ValueError: There are no two different rows: none would be left to answer to one.
    """

    def __init__(
        self,
        encoder: nn.Module,
        rows: Float[Tensor, "components *x"],
        numbers: Shaped[Tensor, " components"],
        event: Sequence[int],
    ) -> None:
        super().__init__()
        if len(numbers.unique()) < 2:
            raise ValueError(
                f"an exemplar prior of {len(numbers.unique())} row: without the row itself none is left to tell it by. "
                "Give model.prior_components=2 or more, of as many rows to train on."
            )
        self.encoder = encoder
        self.register_buffer("rows", rows.clone())
        self.register_buffer("numbers", numbers.long())
        self.rows: Tensor
        self.numbers: Tensor
        self.raw_scale = nn.Parameter(torch.zeros(()))
        self.event = tuple(event)

    def forward(self, *context: Tensor) -> Distribution:
        """p(z) for rows of these numbers, NaN where there is none to know; for any row if nothing is told."""
        normals = DiagonalNormal(self.encoder(self.rows).mean, positive(self.raw_scale), len(self.event))
        logits = normals.loc.new_zeros(len(self.numbers))
        if context:
            (own,) = context
            logits = logits.masked_fill(own[:, None] == self.numbers, -torch.inf)
        return mixture(normals, logits)


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


class Flow(nn.Module):
    """A zuko flow that pays no heed to the context of a conditional model; its parameters have the flow's own names.

    Args:
        flow: Of z, without a context of its own: `zuko.flows.NSF(n)`, or `zuko.flows.MAF(n)`, which is autoregressive
            over the dimensions of z (Papamakarios et al. 2017, https://arxiv.org/abs/1705.07057).
    """

    def __init__(self, flow: Any) -> None:
        super().__init__()
        self.transform = flow.transform
        self.base = flow.base

    def forward(self, *context: Tensor) -> Distribution:
        """p(z), the same for every context."""
        from zuko.distributions import NormalizingFlow

        return NormalizingFlow(self.transform(None), self.base(None))


class RealNVP(nn.Module):
    """Blocks of an invertible matrix and an affine coupling, for vectors; each draw and each density is one pass.

    On the way from z to noise a block turns its values, y = W z + b, keeps the first half of y and moves the second by
    what a network says of the first: y_2 exp(s(y_1)) + t(y_1). W = P L U, a permutation and two triangles, has the
    determinant of its diagonal. That diagonal and b are also the scales and shifts that each block has of its own
    ("actnorm"); and no permutation between blocks is needed. At the start W is a rotation and couplings do next to
    nothing, so that the prior is nearly standard normal and learns from there.

    Dinh et al. 2017, https://arxiv.org/abs/1605.08803; the matrices are Kingma & Dhariwal's (2018,
    https://arxiv.org/abs/1807.03039). With 20 such blocks one latent variable does as well as a ladder of many: Xu et
    al. 2019, https://arxiv.org/abs/1905.13452

    Args:
        event: Shape of one z, of length one; two elements or more.
        blocks: How many.
        hidden: Widths of the networks of the couplings.

    Raises:
        ValueError: z is no vector of two or more elements.

    >>> RealNVP((4,))().log_prob(torch.zeros(5, 4)).shape
    torch.Size([5])
    """

    def __init__(self, event: Sequence[int], blocks: int = 3, hidden: Sequence[int] = (128, 128)) -> None:
        if len(event) != 1 or event[0] < 2:
            raise ValueError(
                f"z of shape {tuple(event)}: this prior moves one half of a vector by the other. Give a latent size of "
                "2 or more without spatial axes, or choose another prior (model.prior=mixture)."
            )
        super().__init__()
        (n,) = event
        self.kept = kept = n // 2
        permutation, lower, upper = torch.linalg.lu(torch.linalg.qr(torch.randn(blocks, n, n)).Q)
        diagonal = upper.diagonal(dim1=-2, dim2=-1)
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.permutation: Tensor
        self.sign: Tensor
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())
        self.shift = nn.Parameter(torch.zeros(blocks, n))
        self.couplings = nn.ModuleList(
            nets.mlp((kept,), (2, n - kept), hidden=hidden, activation="relu", residual=False, gain=NEARLY_NONE)
            for _ in range(blocks)
        )

    def forward(self, *context: Tensor) -> Distribution:
        """p(z), the same for every context."""
        noise = DiagonalNormal(torch.zeros_like(self.shift[0]), torch.ones_like(self.shift[0]), 1)
        return Warped(noise, self._whiten, self._colour)

    def _triangles(self) -> tuple[Tensor, Tensor]:
        """L, with ones on its diagonal, and U of each block."""
        ones = torch.ones_like(self.log_diagonal).diag_embed()
        upper = self.upper.triu(1) + (self.sign * self.log_diagonal.exp()).diag_embed()
        return self.lower.tril(-1) + ones, upper

    def _coupling(self, i: int, first: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scale and shift of the second half, given the first."""
        raw, shift = self.couplings[i](first).unbind(-2)
        return LOG_SCALE * torch.tanh(raw / LOG_SCALE), shift

    def _whiten(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z -> noise, and the log-determinant of that map."""
        lower, upper = self._triangles()
        matrices = self.permutation @ lower @ upper
        total = self.log_diagonal.sum().expand(z.shape[:-1])
        for i, (matrix, shift) in enumerate(zip(matrices, self.shift, strict=True)):
            first, second = (z @ matrix.mT + shift).split((self.kept, z.shape[-1] - self.kept), -1)
            log_scale, moved = self._coupling(i, first)
            z = torch.cat((first, second * log_scale.exp() + moved), -1)
            total = total + log_scale.sum(-1)
        return z, total

    def _colour(self, noise: Tensor) -> Tensor:
        """Noise -> z."""
        lower, upper = self._triangles()
        half = torch.linalg.solve_triangular(lower, self.permutation.mT, upper=False, unitriangular=True)
        inverses = torch.linalg.solve_triangular(upper, half, upper=True)
        z = noise
        for i in reversed(range(len(inverses))):
            first, second = z.split((self.kept, z.shape[-1] - self.kept), -1)
            log_scale, moved = self._coupling(i, first)
            turned = torch.cat((first, (second - moved) * (-log_scale).exp()), -1)
            z = (turned - self.shift[i]) @ inverses[i].mT
        return z
