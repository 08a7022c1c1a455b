"""Refinement: what an encoder says of a datum is where a search begins, and a better posterior where it ends.

An encoder answers for all data at once, and for none as well as could be. The numbers that it gives to its family, or
the features that it gives to the levels of a ladder, are moved for each datum by some steps up the gradient of that
datum's evidence lower bound (semi-amortised inference: Kim et al. 2018, https://arxiv.org/abs/1802.02550). The bound
remains one: q(z|x) may depend on x in any way, as long as the samples that the bound is taken with are drawn after q is
chosen. No weight of the model is changed.

A search of few steps may end lower than it began. So each datum keeps the better of both answers, and which that is is
judged by samples of their own.

Axes: ``k`` samples, ``n`` data.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from ..metrics import Estimate
from ..models import VAE, Conditional, Model, TopDownVAE
from .bounds import DECODED
from .tightness import log_weights
from .undisturbed import undisturbed

Numbers = list[Tensor]
"""What is moved: tensors with a row for each datum."""
Code = Callable[[Numbers], Any]
"""Numbers -> what `Model.trace` takes for the encoder's answer."""

RATE = 0.05
# Samples of z in each step of a search, and samples by which its end is held against its beginning.
DRAWS, JUDGES = 4, 100


@dataclass(frozen=True)
class Refinement:
    """Bounds on log p(x) by the encoder's posteriors and by refined ones, nats for each datum.

    Attributes:
        amortised: The importance-weighted bound with `k` samples of the encoder's q(z|x).
        refined: The same with samples of the refined one, from the same noise.
        amortised_elbo: The evidence lower bound, from the same samples.
        refined_elbo: The same of the refined posterior.
        better: Which data have kept the refined posterior; the others have the encoder's.
        steps: Of each search.
        k: Samples of each bound.
    """

    amortised: Float[Tensor, " n"]
    refined: Float[Tensor, " n"]
    amortised_elbo: Float[Tensor, " n"]
    refined_elbo: Float[Tensor, " n"]
    better: Bool[Tensor, " n"]
    steps: int
    k: int

    @property
    def gain(self) -> Estimate:
        """By how much the importance-weighted bound rises, datum by datum."""
        return Estimate.of(self.refined - self.amortised)

    @property
    def elbo_gain(self) -> Estimate:
        """By how much the evidence lower bound rises, datum by datum: the amortisation gap, as far as it was closed."""
        return Estimate.of(self.refined_elbo - self.amortised_elbo)

    def summary(self) -> dict[str, object]:
        """The numbers, JSON-able."""
        estimates = {
            "amortised": Estimate.of(self.amortised),
            "refined": Estimate.of(self.refined),
            "gain": self.gain,
            "amortised_elbo": Estimate.of(self.amortised_elbo),
            "refined_elbo": Estimate.of(self.refined_elbo),
            "elbo_gain": self.elbo_gain,
        }
        found: dict[str, object] = {name: estimate.summary() for name, estimate in estimates.items()}
        return found | {"kept": self.better.float().mean().item(), "steps": self.steps, "k": self.k}


def refined_bound(
    model: Model,
    x: Shaped[Tensor, "n *x"],
    *context: Tensor,
    steps: int = 20,
    k: int = 100,
    lr: float = RATE,
    seed: int = 0,
) -> Refinement:
    """Bounds with posteriors that are refined for each datum, beside those with the encoder's own.

    Args:
        model: A model whose encoder is a `Conditional` and gives a density, or a ladder; it is left as it was.
        x: Data in their own units.
        context: What the model is conditional on, a row for each x.
        steps: Of each search.
        k: Samples of each bound, drawn when the search is over.
        lr: Of Adam, at the start; it falls to 0.
        seed: Of all samples. The caller's random state is left alone.

    Raises:
        ValueError: There is nothing that could be moved, or a posterior that is a point; a number out of range.
    """
    if k < 1:
        raise ValueError(f"k={k}: give 1 sample or more.")
    found = []
    with undisturbed(model, seed):
        for search in _searches(model, x, context, steps, lr):
            noise = _noise()
            pair = [search.bounds(model, numbers, k, noise) for numbers in (search.start, search.end)]
            found.append([*pair[0], *pair[1], search.better.cpu()])
    elbo, bound, refined_elbo, refined, better = map(torch.cat, zip(*found, strict=True))
    return Refinement(bound, refined, elbo, refined_elbo, better, steps, k)


def refine(
    model: Model,
    x: Shaped[Tensor, "n *x"],
    *context: Tensor,
    steps: int = 20,
    lr: float = RATE,
    seed: int = 0,
) -> Any:
    """The refined answer of the encoder: q(z|x), or the features of a ladder; `Model.trace` takes it as `code`.

    Args:
        model: As for `refined_bound`.
        x: Data in their own units.
        context: What the model is conditional on, a row for each x.
        steps: Of each search.
        lr: Of Adam, at the start; it falls to 0.
        seed: Of all samples. The caller's random state is left alone.

    Raises:
        ValueError: As `refined_bound`.

    >>> from lowerbound import recipes
    >>> x = torch.rand(5, 6).round()
    >>> model = recipes.mlp(x, event=(6,), latent=2, hidden=(8,))
    >>> q = refine(model, x, steps=10)
    >>> model.trace(x, q, k=3).log_weight().shape
    torch.Size([3, 5])
    """
    with undisturbed(model, seed):
        searches = list(_searches(model, x, context, steps, lr))
    return searches[0].code([torch.cat(parts) for parts in zip(*(search.end for search in searches), strict=True)])


def movable(model: Model, rows: Tensor, given: Sequence[Tensor]) -> tuple[Numbers, Code]:
    """The encoder's answer for some rows as numbers that can be moved, and what they are the numbers of.

    Raises:
        ValueError: The encoder has none, or the posterior is a point.
    """
    with torch.no_grad():
        match model:
            case VAE(encoder=Conditional() as encoder):
                numbers, code = [encoder.params(rows, *given)], lambda moved: encoder.family(moved[0])
            case TopDownVAE():
                numbers, code = list(model.encoder(rows, *given)), list
            case _:
                raise ValueError(
                    f"the posterior of this {type(model).__name__} is not one Conditional (a network and a family), "
                    "nor that of a ladder, so there are no parameters of q to move."
                )
        if model.trace(rows[:1], code([t[:1] for t in numbers]), *(c[:1] for c in given)).kl().isposinf().any():
            raise ValueError(
                "this posterior is a point, as in a plain autoencoder: its bound is minus infinity, and so is every "
                "gap. Train with a posterior that has a density (model.posterior=normal)."
            )
    return numbers, code


def optimise(
    model: Model,
    rows: Tensor,
    given: Sequence[Tensor],
    code: Code,
    start: Numbers,
    steps: int,
    k: int,
    rate: float,
) -> Numbers:
    """The numbers that maximise each datum's evidence lower bound, by Adam from `start`."""
    moved: Numbers = [nn.Parameter(numbers.clone()) for numbers in start]
    adam = torch.optim.Adam(moved, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        trace = model.trace(rows, code(moved), *given, k=k)
        loss = -(trace.log_likelihood() - trace.kl()).mean(0).sum()
        for numbers, gradient in zip(moved, torch.autograd.grad(loss, moved), strict=True):
            numbers.grad = gradient
        adam.step()
        schedule.step()
    return [numbers.detach() for numbers in moved]


@torch.no_grad()
def bounds(model: Model, rows: Tensor, given: Sequence[Tensor], code: Any, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """The bound with one sample, as a mean of k, and with k: nats for each datum, always with the same noise."""
    torch.manual_seed(seed)
    log_w = log_weights(model, rows, code, *given, k=k)
    return log_w.mean(0).cpu(), (log_w.logsumexp(0) - math.log(k)).cpu()


@dataclass(frozen=True)
class _Search:
    """What a search has found for some rows."""

    rows: Tensor
    given: list[Tensor]
    code: Code
    start: Numbers
    end: Numbers
    better: Tensor

    def bounds(self, model: Model, numbers: Numbers, k: int, seed: int) -> tuple[Tensor, Tensor]:
        return bounds(model, self.rows, self.given, self.code(numbers), k, seed)


def _searches(model: Model, x: Tensor, context: Sequence[Tensor], steps: int, lr: float) -> Iterator[_Search]:
    """Searches for all rows, as many at a time as are decoded at once."""
    if steps < 1 or not 0 < lr < math.inf or len(x) == 0:
        raise ValueError(f"steps={steps}, lr={lr}, {len(x)} rows: give 1 or more of steps and rows, and a positive lr.")
    weights = next(model.parameters())
    batch = max(1, DECODED // (DRAWS * math.prod(x.shape[1:])))
    for begun in range(0, len(x), batch):
        rows = x[begun : begun + batch].to(weights)
        given = [c[begun : begun + batch].to(weights) for c in context]
        start, code = movable(model, rows, given)
        end = optimise(model, rows, given, code, start, steps, DRAWS, lr)
        noise = _noise()
        before, after = (bounds(model, rows, given, code(numbers), JUDGES, noise)[0] for numbers in (start, end))
        better = (after > before).to(rows.device)  # what is not a number is not
        pairs = zip(end, start, strict=True)
        end = [torch.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old) for new, old in pairs]
        yield _Search(rows, given, code, start, end, better)


def _noise() -> int:
    """A seed from what is seeded."""
    return int(torch.randint(2**62, ()))
