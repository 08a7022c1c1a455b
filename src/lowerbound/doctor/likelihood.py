"""Whether p(x|z) is as wide as the residuals are.

The residual of x from the mean of p(x|z), z ~ q(z|x), should spread as far as draws of p(x|z) do. With one learned
scale that is where the likelihood is highest. One that was fixed too wide drowns what z could say; one too narrow pays
for a code of the noise (Rybkin et al. 2021, https://arxiv.org/abs/2006.13202).

It is asked of draws, so of any family: pooled over elements, in units of their own spread in the data.

Axes: ``s`` draws, ``n`` rows.
"""

import torch
from torch import Tensor

from ..evaluation import undisturbed
from .finding import Finding
from .subject import SCALED, Subject

DRAWS = 19
# How many times too wide or too narrow.
FACTOR = 1.5
# Numbers drawn at most.
DRAWN = 2**23


def scale_of_likelihood(subject: Subject) -> Finding:
    """The spread of the residuals over the spread that p(x|z) gives them, and how many fall into its middle 80 %."""
    if "columns" in subject.run["model"]:
        raise ValueError("a table has a scale for each of its columns, and this looks at one that is common to all.")
    ratio, coverage = _calibration(subject)
    what = (
        f"Held-out residuals spread {ratio:.2f} times as far as p(x|z) says, and {coverage:.0%} of the values lie in "
        "its middle 80%"
    )
    threshold = FACTOR if ratio > 1 else 1 / FACTOR
    if 1 / FACTOR <= ratio <= FACTOR:
        return Finding("scale of the likelihood", "healthy", what + ".", ratio, threshold)
    if ratio < 1:
        why, effect = "p(x|z) is too wide", "Residuals cost what they are worth, and z is worth its nats again."
    else:
        why, effect = "p(x|z) is too narrow", "The likelihood of held-out data rises, and the code is not overpaid."
    table, fixed = subject.run["model"], subject.fixed_scale
    if fixed is not None:
        why += f", fixed at {fixed:g} where about {fixed * ratio:.2g} fits"
    if fixed is not None or (table.get("family") in SCALED and table["scale"] == "element"):
        remedy: tuple[str, ...] = ("model.scale=shared",)
    else:
        remedy = subject.more_dropout if ratio > 1 else (f"train.steps={2 * int(subject.run['train']['steps'])}",)
    return Finding("scale of the likelihood", "finding", f"{what}: {why}.", ratio, threshold, remedy, effect)


def _calibration(subject: Subject) -> tuple[float, float]:
    """Spread of the residuals over that of draws, and the share of values that lie in the middle 80 % of the draws."""
    rows = subject.x[: max(1, DRAWN // (DRAWS * subject.x[0].numel()))]
    with undisturbed(subject.model, seed=0), torch.no_grad():
        trace = subject.model(rows, *subject.told(len(rows)))
        draws = torch.stack([trace.likelihood.sample()[0] for _ in range(DRAWS)]).double()
        rows = rows.double()
        # ties are broken at random: the rank of a value among draws of its own distribution is then uniform
        below, equal = (draws < rows).sum(0), (draws == rows).sum(0)
        rank = below + (torch.rand_like(rows) * (equal + 1)).floor()
        edge = round(0.1 * (DRAWS + 1))
        coverage = ((rank >= edge) & (rank <= DRAWS - edge)).double().mean().item()
        unit = _unit(subject)
        spread = draws.div(unit).var(0).mean()
        # the mean of the draws is not quite the mean of the distribution
        residual = ((rows - draws.mean(0)) / unit).square().mean() - spread / DRAWS
    return (residual.clamp(min=0) / spread).sqrt().item(), coverage


def _unit(subject: Subject) -> Tensor:
    """What each element is measured in: the spread of its column, or of an image as a whole."""
    x = subject.train
    if x.ndim > 2:
        return x.var(0, correction=0).mean().sqrt().double()
    each = x.double().std(0)
    return torch.where(each > 0, each, torch.ones_like(each))
