"""Hamiltonian Monte Carlo: moves that leave a density as it is.

A position z with log-density f(z) is given a momentum p ~ N(0, I) and follows Hamilton's equations for a while, in
leapfrog steps; a Metropolis test makes good what the steps get wrong, so that the density is left exactly invariant
whatever their length (Duane et al. 1987; Neal 2011, https://arxiv.org/abs/1206.1901).

Axes: ``k`` chains, ``n`` data, ``*event`` one latent variable.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Density = Callable[[Tensor], Tensor]


def hamiltonian(
    log_density: Density, z: Float[Tensor, "k n *event"], step: Float[Tensor, "*step"], leapfrog: int
) -> tuple[Float[Tensor, "k n *event"], Float[Tensor, "k n"]]:
    """One move of each chain.

    Args:
        log_density: (k, n, *event) -> (k, n) in nats, up to a constant, differentiable.
        z: Where the chains are.
        step: Length of a leapfrog step, broadcastable to z. One that differs between dimensions is a mass for each.
        leapfrog: How many steps a move has.

    Returns:
        Where they are now, and the probability with which each was let go there.
    """
    momentum = torch.randn_like(z)
    before, gradient = _value_and_gradient(log_density, z)
    start = before - _kinetic(momentum)
    to = z
    for _ in range(leapfrog):
        momentum = momentum + 0.5 * step * gradient
        to = to + step * momentum
        after, gradient = _value_and_gradient(log_density, to)
        momentum = momentum + 0.5 * step * gradient
    # where the path has left all numbers there is nothing to go to
    gain = (after - _kinetic(momentum) - start).nan_to_num(nan=-torch.inf, posinf=-torch.inf)
    accept = gain.clamp(max=0).exp()
    moved = torch.rand_like(accept) < accept
    return torch.where(moved.reshape(*moved.shape, *[1] * (z.ndim - 2)), to, z), accept


def _kinetic(momentum: Tensor) -> Tensor:
    return 0.5 * momentum.flatten(2).square().sum(-1)


def _value_and_gradient(log_density: Density, z: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = log_density(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient
