"""Annealed importance sampling: log p(x) from below, and on data of the model's own also from above.

Chains begin at a distribution that can be drawn from, and are led to the posterior p(z|x) through densities between
the two, f_t = start^(1 - b_t) p(x, z)^(b_t) with b_t rising from 0 to 1. Between the temperatures each chain moves by
Hamiltonian Monte Carlo, which leaves f_t as it is. The product of the ratios f_t / f_(t-1) along the way is an unbiased
estimate of p(x), so its logarithm is in expectation a lower bound on log p(x), which tightens with the number of
temperatures (Neal 2001, https://arxiv.org/abs/physics/9803008; Wu et al. 2017, https://arxiv.org/abs/1611.04273).

The same way back begins at a sample of the posterior, and bounds log p(x) from above. Such a sample is known exactly
where x was simulated: it is the z that x was made of (Grosse et al. 2015, https://arxiv.org/abs/1511.02543). On such
data the true value lies between the two, in expectation.

The lengths of the moves come from a pilot with chains of its own, so that the moves of a chain do not depend on where
it has been, and nothing above is an approximation.

Axes: ``k`` chains, ``n`` data, ``t`` temperatures, ``*event`` one latent variable.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution

from ..distributions.sphere import sphere
from ..models import VAE, Model
from .bounds import DECODED
from .hamiltonian import hamiltonian
from .undisturbed import undisturbed

Start = Literal["posterior", "prior"]

# The acceptance to aim at, the best in many dimensions: Beskos et al. 2013, https://arxiv.org/abs/1001.4460
ACCEPTED = 0.65
# How fast the pilot changes the length of its moves, and how many it has to find the first.
PACE, SETTLING, FIRST = 0.3, 20, 0.3
JITTER = 0.2
# Temperatures lie close where the densities begin and end: on the steps of a sigmoid over this range.
RANGE = 4.0


@dataclass(frozen=True)
class Bracket:
    """Where log p(x) lies, for data simulated from the model: nats for each datum.

    Attributes:
        x: The simulated data.
        lower: In expectation at most log p(x).
        upper: In expectation at least log p(x).
    """

    x: Shaped[Tensor, "n *x"]
    lower: Float[Tensor, " n"]
    upper: Float[Tensor, " n"]


def annealed_bound(
    model: Model,
    x: Shaped[Tensor, "n *x"],
    *context: Tensor,
    temperatures: int = 100,
    chains: int = 4,
    leapfrog: int = 3,
    start: Start = "posterior",
    seed: int = 0,
) -> Float[Tensor, " n"]:
    """Log p(x) by annealed importance sampling: in expectation a lower bound, in nats for each datum.

    Args:
        model: A model with one latent variable, and a likelihood that is differentiable in it.
        x: Data in their own units.
        context: What the model is conditional on, a row for each x.
        temperatures: Ratios that the way is divided into.
        chains: For each datum; their estimates of p(x) are averaged.
        leapfrog: Steps in a move.
        start: Where the chains begin: at q(z|x), which is near, or at the prior, which owes nothing to the encoder.
        seed: Of the chains. The caller's random state is left alone.

    Raises:
        ValueError: The model has several latent variables, or densities that cannot be had; a count below 1.
    """
    flat = _check(model, temperatures=temperatures, chains=chains, leapfrog=leapfrog)
    found = []
    with undisturbed(model, seed):
        for path in _paths(flat, x, context, temperatures, chains, leapfrog, start):
            log_weights = path.there(path.draw(chains), path.pilot(chains))
            found.append(log_weights.logsumexp(0) - math.log(chains))
    return torch.cat(found).cpu()


def bracket(
    model: Model,
    n: int,
    *context: Tensor,
    temperatures: int = 100,
    chains: int = 4,
    leapfrog: int = 3,
    start: Start = "posterior",
    seed: int = 0,
) -> Bracket:
    """Log p(x) between two bounds, for n data simulated from the model: bidirectional Monte Carlo.

    Args:
        model: A model with one latent variable, and a likelihood that is differentiable in it.
        n: How many data to simulate.
        context: What the model is conditional on, a row for each of them.
        temperatures: Ratios that the way is divided into.
        chains: For each datum, each way.
        leapfrog: Steps in a move.
        start: As for `annealed_bound`.
        seed: Of data and chains. The caller's random state is left alone.

    Raises:
        ValueError: As `annealed_bound`.
    """
    flat = _check(model, temperatures=temperatures, chains=chains, leapfrog=leapfrog, n=n)
    lower, upper = [], []
    with undisturbed(model, seed):
        with torch.no_grad():
            p = flat.prior(*context)
            z = p.sample((n,)[len(p.batch_shape) :])
            x = flat.decoder(z, *context).sample()
        begun = 0
        for path in _paths(flat, x, context, temperatures, chains, leapfrog, start):
            steps = path.pilot(chains)
            # the z that a datum was made of is a sample of its posterior
            exact = z[begun : begun + len(path.x)].expand(chains, *path.x.shape[:1], *z.shape[1:])
            lower.append(path.there(path.draw(chains), steps).logsumexp(0) - math.log(chains))
            upper.append(math.log(chains) - path.back(exact, steps).neg().logsumexp(0))
            begun += len(path.x)
    return Bracket(x.cpu(), torch.cat(lower).cpu(), torch.cat(upper).cpu())


@dataclass(frozen=True)
class _Path:
    """The densities between a distribution and the posterior of some rows.

    Attributes:
        heat: b_t, from 0 to 1, (t + 1,).
        unit: How far a latent variable spreads at the start, (n, *event).
    """

    model: VAE
    x: Tensor
    given: list[Tensor]
    start: Distribution
    prior: Distribution
    heat: Tensor
    unit: Tensor
    leapfrog: int

    def draw(self, chains: int) -> Tensor:
        """Where chains begin, (k, n, *event)."""
        return _draw(self.start, chains, len(self.x))

    def densities(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log-densities of the start, and of x and z together, (k, n)."""
        prior = self.prior.log_prob(z)
        start = prior if self.start is self.prior else self.start.log_prob(z)
        return start, prior + self.model.decoder(z, *self.given).log_prob(self.x)

    def move(self, z: Tensor, t: int, step: Tensor) -> tuple[Tensor, Tensor]:
        """Move chains in a way that leaves f_t as it is. `step` (n,) is in units of the spread at the start."""

        def log_density(z: Tensor) -> Tensor:
            start, joint = self.densities(z)
            return start + self.heat[t] * (joint - start)

        # moves of one length may bring all chains back to where they were
        step = step * (1 + JITTER * (2 * torch.rand_like(step) - 1))
        length = step.reshape(-1, *[1] * (z.ndim - 2)) * self.unit
        return hamiltonian(log_density, z, length, self.leapfrog)

    def pilot(self, chains: int) -> Tensor:
        """Lengths of moves that are accepted as often as is best, (t, n)."""
        z = self.draw(chains)
        log_step = z.new_full((len(self.x),), math.log(FIRST))
        lengths = []
        for t in [0] * SETTLING + list(range(len(self.heat))):
            z, accepted = self.move(z, t, log_step.exp())
            log_step = log_step + PACE * (accepted.mean(0) - ACCEPTED)
            lengths.append(log_step.exp())
        return torch.stack(lengths[SETTLING:])

    def there(self, z: Tensor, steps: Tensor) -> Tensor:
        """From the start to the posterior: log-weights (k, n), whose exponentials are unbiased for p(x)."""
        total = z.new_zeros(z.shape[:2], dtype=torch.float64)
        for t in range(1, len(self.heat)):
            total += self.ratio(z, t)
            if t < len(self.heat) - 1:
                z, _ = self.move(z, t, steps[t])
        return total

    def back(self, z: Tensor, steps: Tensor) -> Tensor:
        """From samples of the posterior to the start: log-weights (k, n), whose inverses are unbiased for 1 / p(x)."""
        total = z.new_zeros(z.shape[:2], dtype=torch.float64)
        for t in range(len(self.heat) - 1, 0, -1):
            if t < len(self.heat) - 1:
                z, _ = self.move(z, t, steps[t])
            total += self.ratio(z, t)
        return total

    def ratio(self, z: Tensor, t: int) -> Tensor:
        """log f_t(z) - log f_(t-1)(z), (k, n)."""
        with torch.no_grad():
            start, joint = self.densities(z)
        return (self.heat[t] - self.heat[t - 1]) * (joint - start).double()


def _paths(
    model: VAE, x: Tensor, context: tuple[Tensor, ...], temperatures: int, chains: int, leapfrog: int, start: Start
) -> Iterator[_Path]:
    """The paths of all rows, as many at a time as are decoded at once."""
    weights = next(model.parameters())
    batch = max(1, DECODED // (chains * math.prod(x.shape[1:])))
    level = torch.linspace(-RANGE, RANGE, temperatures + 1, dtype=weights.dtype, device=weights.device).sigmoid()
    heat = (level - level[0]) / (level[-1] - level[0])
    for begun in range(0, len(x), batch):
        rows = x[begun : begun + batch].to(weights)
        given = [c[begun : begun + batch].to(weights) for c in context]
        with torch.no_grad():
            prior = model.prior(*given)
            posterior = model.encoder(rows, *given)
            if not is_unbounded(posterior):
                raise ValueError(
                    "z of this model is a direction, a point of a sphere, or takes single values, and the moves of "
                    "annealing lead everywhere else: bound log p(x) by importance sampling (evaluate with a larger k)."
                )
            begin = posterior if start == "posterior" else prior
            unit = _draw(begin, 64, len(rows)).std(0)
        _check_densities(model, rows, given, begin, prior, unit)
        yield _Path(model, rows, given, begin, prior, heat, unit, leapfrog)


def is_unbounded(q: Distribution) -> bool:
    """Whether the latent variable of a posterior may be any numbers, as the moves of annealing take it to be."""
    return q.support is not None and q.support is not sphere and not q.support.is_discrete


def _draw(p: Distribution, k: int, n: int) -> Tensor:
    """(k, n, *event) of a distribution for each row, or of one for all of them."""
    with torch.no_grad():
        return p.sample((k,) if p.batch_shape else (k, n))


def _check(model: Model, **counts: int) -> VAE:
    """Refuse what cannot be annealed.

    Raises:
        ValueError: It has several latent variables, or a count is below 1.
    """
    if min(counts.values()) < 1:
        given = ", ".join(f"{name}={count}" for name, count in counts.items())
        raise ValueError(f"{given}: each must be 1 or more.")
    match model:
        case VAE():
            return model
    raise ValueError(
        f"{type(model).__name__} draws several latent variables one after another, and annealing moves one: "
        "bound its log p(x) by importance sampling (evaluate with a larger k)."
    )


def _check_densities(
    model: VAE, rows: Tensor, given: list[Tensor], start: Distribution, prior: Distribution, unit: Tensor
) -> None:
    """Refuse densities that are not finite, or not differentiable, at a draw.

    Raises:
        ValueError: One is.
    """
    if not (unit > 0).all():
        raise ValueError("the chains cannot begin at a posterior that is a point: begin at the prior (start='prior').")
    z = _draw(start, 1, len(rows)).requires_grad_()
    likelihood = model.decoder(z, *given).log_prob(rows)
    if not likelihood.requires_grad:
        raise ValueError("log p(x|z) of this decoder does not depend on z by a way that can be differentiated.")
    if not (likelihood.isfinite().all() and prior.log_prob(z).isfinite().all()):
        raise ValueError("log p(x, z) is not finite at a draw of z: there is nothing to anneal to.")
