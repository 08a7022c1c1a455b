"""Rows of a table given conditions: some columns fixed, others within limits.

Values that are fixed are known entries of a row, and the encoder answers for a row with holes: q(z|x_known). Draws z_i
from the mixture r(z) = p(z)/2 + q(z|x_known)/2, with weights

    w_i = p(x_known|z_i) p(z_i) / r(z_i) * P(limits hold|z_i)

are draws of p(z|conditions). The part of the prior keeps p / r below 2 wherever the encoder is wrong (defensive
importance sampling, Hesterberg 1995, https://doi.org/10.1080/00401706.1995.10484303); where nothing is fixed, z comes
from the prior alone. Given z, columns are independent, and the chance that limits hold is a product over columns: each
factor is estimated by the part of a few draws that are within, and since these are independent the weights stay
unbiased. Rows are resampled by weight, and each gets its own draw of what is free, from p(x|z) within the limits.

Axes: ``m`` draws of z, ``n`` rows, ``d`` columns, ``c`` columns with limits, ``r`` ranges of values.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..distributions import Joint, Missing
from ..models import Model, Site
from .bounds import DECODED
from .rows import columns_of
from .undisturbed import undisturbed

PROPOSALS = 100_000
PER_ROW = 20  # proposals for each row that is asked for, at most
FIRST = 1000
DRAWS = 8


@dataclass(frozen=True)
class Conditions:
    """What rows are to be like, in the numbers of x.

    Args:
        fixed: The value of each column, NaN where it is free.
        limits: Of other columns, by their place, the ranges that a value must be in one of: lowest and highest.
        said: The same in words, for messages.

    >>> conditions = Conditions(torch.tensor([1.0, torch.nan]), {1: torch.tensor([[0.0, 2.0], [5.0, 5.0]])})
    >>> conditions.hold(torch.tensor([[2.0], [3.0], [5.0]])).flatten().tolist()
    [True, False, True]
    """

    fixed: Float[Tensor, " d"]
    limits: Mapping[int, Float[Tensor, "r 2"]] = field(default_factory=dict)
    said: str = "the conditions"

    @property
    def places(self) -> list[int]:
        """The columns with limits."""
        return sorted(self.limits)

    def hold(self, entries: Float[Tensor, "*rows c"]) -> Bool[Tensor, "*rows c"]:
        """Whether entries of the columns with limits are within them."""
        found = torch.ones_like(entries, dtype=torch.bool)
        for i, place in enumerate(self.places):
            low, high = self.limits[place].to(entries.device).T
            value = entries[..., i, None]
            found[..., i] = ((value >= low) & (value <= high)).any(-1)
        return found


@dataclass(frozen=True)
class Given:
    """Rows of a model that meet conditions, and how well they stand for all such rows.

    Attributes:
        x: The rows, in double precision: what is fixed is exactly so.
        size: The effective sample size, (sum w)^2 / sum w^2: so many independent rows say as much.
        proposals: How many z were drawn.
        log_known: log p of what is fixed, in nats: a density, or a probability where all of it is discrete.
        share: P(limits hold | what is fixed): the part of the model's rows.
    """

    x: Float[Tensor, "n d"]
    size: float
    proposals: int
    log_known: float
    share: float


@torch.no_grad()
def draw_given(model: Model, conditions: Conditions, n: int, *, most: int | None = None, seed: int = 0) -> Given:
    """Rows from p(x|conditions), by importance resampling.

    z is proposed until the effective sample size is n, or until there are enough proposals.

    Args:
        model: A model of tables with one latent variable; it is left in the mode it was in.
        conditions: On its rows.
        n: How many rows.
        most: Proposals at most; by default 20 for each row, and 100,000 or more.
        seed: Of the draws. The caller's random state is left alone.

    Raises:
        ValueError: No proposal meets the conditions; they are not on such rows; n or most below 1; or the model is
            not of tables.
    """
    most = max(PROPOSALS, PER_ROW * n) if most is None else most
    if n < 1 or most < 1:
        raise ValueError(f"n={n}, most={most}: give 1 or more of each.")
    with undisturbed(model, seed):
        return _draw(model, conditions, n, most)


@dataclass(frozen=True)
class _Proposals:
    """Draws of z that may be kept: their log-weights, and entries within the limits for each."""

    z: Tensor
    log_weight: Tensor
    entries: Tensor


def _draw(model: Model, conditions: Conditions, n: int, most: int) -> Given:
    _check(conditions, columns_of(model))
    row = conditions.fixed.to(next(model.parameters()))[None]
    sites = model(row).sites
    if len(sites) != 1:
        raise ValueError(f"this model has {len(sites)} latent variables, and conditions are for models with one.")
    pass_size = max(1, DECODED // (DRAWS * row.shape[1]))
    kept: list[_Proposals] = []
    log_known: list[Tensor] = []
    size, drawn = 0.0, 0
    while size < n and drawn < most and (kept or drawn < PROPOSALS):
        m = min(max(FIRST, 2 * n), pass_size, most - drawn)
        found, known = _propose(model, sites[0], row, conditions, m)
        log_known.append(known.logsumexp(0))
        kept += [found] if len(found.z) else []
        drawn += m
        size = _effective([part.log_weight for part in kept]) if kept else 0.0
    if not kept:
        raise ValueError(
            f"nothing satisfies {conditions.said}: of {drawn:,} rows that the model drew none did. Ask for less."
        )
    log_weight, z, entries = (
        torch.cat([part.log_weight for part in kept]),
        torch.cat([part.z for part in kept]),
        torch.cat([part.entries for part in kept]),
    )
    chosen = _resampled(log_weight, n)
    parts = [_within(_likelihood(model, z[some]), conditions, entries[some])[0] for some in chosen.split(pass_size)]
    x = torch.cat(parts).double().cpu()
    total = torch.stack(log_known).logsumexp(0)
    return Given(
        torch.where(conditions.fixed.isnan(), x, conditions.fixed.double()),
        size,
        drawn,
        (total - math.log(drawn)).item(),
        (log_weight.logsumexp(0) - total).exp().clamp(max=1).item(),
    )


def _propose(model: Model, site: Site, row: Tensor, conditions: Conditions, m: int) -> tuple[_Proposals, Tensor]:
    """m draws of z, those that meet the limits, and the log-weights of all by what is fixed alone."""
    # a point posterior has no density to weigh by
    guided = m // 2 if not row.isnan().all() and bool(site.kl().isfinite().all()) else 0
    z = site.p.sample(torch.Size([m - guided]))
    log_known = torch.zeros(m, dtype=torch.float64, device=row.device)
    if guided:
        z = torch.cat((z, site.q.sample(torch.Size([guided]))[:, 0]))
        ratio = site.q.log_prob(z[:, None])[:, 0].double() - site.p.log_prob(z).double()
        part = math.log(guided / m)
        log_known -= torch.logaddexp(ratio + part, torch.full_like(ratio, math.log1p(-guided / m)))
    p = _likelihood(model, z)
    if not row.isnan().all():
        log_known += p.log_prob(row[0]).double()
    x, chance = _within(p, conditions)
    log_weight = log_known + chance.log()
    able = log_weight > -math.inf
    return _Proposals(z[able], log_weight[able], x[able][:, conditions.places]), log_known


def _within(p: Joint, conditions: Conditions, entries: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A row of each p(x|z), within the limits where one of a few draws is, and the estimated chance that a draw is.

    Entries within the limits, if there are some already, stay where no new draw is.
    """
    places = conditions.places
    x = p.sample(torch.Size([DRAWS if places else 1]))
    drawn = x[..., places]
    inside = conditions.hold(drawn)
    found = drawn.gather(0, inside.byte().argmax(0, keepdim=True))[0]
    row = x[0]
    row[:, places] = found if entries is None else torch.where(inside.any(0), found, entries)
    return row, inside.double().mean(0).prod(-1)


def _likelihood(model: Model, z: Tensor) -> Joint:
    """p(x|z) of whole rows."""
    p = model.generate(len(z), z=(z,))
    # that something is not asked for is no hole, of which such a model has something to say
    p = p.whole if isinstance(p, Missing) else p
    assert isinstance(p, Joint)
    return p


def _check(conditions: Conditions, columns: int) -> None:
    """Refuse conditions on other rows.

    Raises:
        ValueError: They have other columns than the model.
    """
    given, beyond = len(conditions.fixed), [place for place in conditions.places if not 0 <= place < columns]
    wrong = [f"the conditions are on rows of {given} columns"] if given != columns else []
    wrong += [f"there are limits for column {', '.join(map(str, beyond))}"] if beyond else []
    if wrong:
        raise ValueError(f"{', '.join(wrong)}, and the model is of tables of {columns}, from 0: describe its own.")


def _effective(log_weight: list[Tensor]) -> float:
    """(sum w)^2 / sum w^2, of logarithms."""
    w = torch.cat(log_weight)
    return (2 * w.logsumexp(0) - (2 * w).logsumexp(0)).exp().item()


def _resampled(log_weight: Tensor, n: int) -> Tensor:
    """Which proposals to take for n rows, in random order: each as often as its weight says, to within one."""
    total = log_weight.softmax(0).cumsum(0)
    at = (torch.arange(n, device=total.device) + torch.rand((), device=total.device)) / n * total[-1]
    chosen = torch.searchsorted(total, at.to(total)).clamp(max=len(total) - 1)
    return chosen[torch.randperm(n, device=total.device)]
