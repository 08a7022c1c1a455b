"""Smoothness: whether a path between two codes stays near the data, and how far round it goes.

A decoder g gives latent space a length: that of the decoded path. The shortest path under it between two codes is the
**geodesic**, of least energy E = sum_t |g(z_t+1) - g(z_t)|^2 among the paths of as many points (Shao et al. 2018,
https://arxiv.org/abs/1711.08014; Chen et al. 2018, https://arxiv.org/abs/1711.01204; Arvanitidis et al. 2018,
https://arxiv.org/abs/1710.11379). A path that is hardly longer than the geodesic changes what has to change, and
nothing back and forth.

Neither number is enough alone. A blur between two images is short, and far from data; a path over data may be long.

Axes: ``n`` paths, ``steps`` points of one, ends included, ``*latent`` one code, ``*event`` what is decoded from it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from .estimate import Estimate
from .rows import finite_rows

CHUNK = 2**22

Decode = Callable[[Tensor], Tensor]


def excess_distance(
    paths: Shaped[Tensor, "n steps *event"], bank: Shaped[Tensor, "m ..."], held_out: Shaped[Tensor, "h ..."]
) -> Estimate:
    """How far decoded paths are from the data, in units of how far data are from one another.

    It is the mean distance of the inner points of the paths to the nearest row of the bank, over that of rows that the
    bank does not hold: 1 if the points are as near to data as data are. Means of a likelihood lie nearer than its
    samples do, as there is no noise in them: below 1 is no praise. The standard error takes each path, and each row, as
    one independent value.

    Args:
        paths: Decoded paths, both ends included.
        bank: Data.
        held_out: Other data, from where the bank is from.

    Raises:
        ValueError: Paths without inner points, rows of different shapes, numbers that are not finite, or held-out rows
            that are all copies of rows of the bank.
    """
    if paths.shape[1] < 3 or not paths.shape[2:] == bank.shape[1:] == held_out.shape[1:]:
        raise ValueError(
            f"paths of shape {tuple(paths.shape)}, a bank {tuple(bank.shape)}, held-out rows {tuple(held_out.shape)}: "
            "a path has three points or more, and all hold rows of the same shape."
        )
    rows = finite_rows("bank", bank)
    inner = finite_rows("paths", paths[:, 1:-1].flatten(0, 1))
    of_paths = Estimate.of(_to_nearest(inner, rows).reshape(len(paths), -1).mean(1))
    of_data = Estimate.of(_to_nearest(finite_rows("held_out", held_out), rows))
    if of_data.mean == 0:
        raise ValueError(
            "every held-out row is a copy of a row of the bank: data are at no distance from one another by which to "
            "measure. Give rows that the bank does not hold."
        )
    ratio = of_paths.mean / of_data.mean
    # the error of a ratio to first order
    error = math.hypot(of_paths.standard_error, ratio * of_data.standard_error) / of_data.mean
    return Estimate(ratio, error)


def _to_nearest(rows: Tensor, bank: Tensor) -> Tensor:
    """The distance of each row to the nearest of the bank."""
    near = torch.cat([torch.cdist(part, bank).argmin(1) for part in rows.split(max(1, CHUNK // len(bank)))])
    # taken again, as the distances of all pairs are rounded
    return torch.linalg.vector_norm(rows - bank[near], dim=1)


@dataclass(frozen=True)
class Geodesic:
    """Paths of least decoded energy that were found between pairs of codes.

    Attributes:
        paths: Codes, both ends included.
        length: How long each is when decoded.
        straight: How long the straight line between the same ends is when decoded, in as many points.
    """

    paths: Float[Tensor, "n steps *latent"]
    length: Float[Tensor, " n"]
    straight: Float[Tensor, " n"]

    @property
    def ratio(self) -> Float[Tensor, " n"]:
        """How much longer the straight line is, 1 or more; 1 too where all of it is decoded to the same row."""
        return torch.where(self.straight > self.length, self.straight / self.length, torch.ones_like(self.length))


@torch.inference_mode(False)
def geodesic(
    decode: Decode, a: Float[Tensor, "n *latent"], b: Float[Tensor, "..."], steps: int, *, iterations: int = 100
) -> Geodesic:
    """Paths of least decoded energy from each row of a to the same row of b, found from the straight lines on.

    The path is the straight line and a series of sines, each divided by its frequency. The energy of a linear decoder
    is then as round in the coefficients as the decoder lets it be, so that few steps of L-BFGS do, however many points.

    What is found is the best path near the straight one. There may be shorter ones elsewhere, so that a ratio of
    lengths is too low rather than too high.

    Args:
        decode: Codes (m, *latent) to rows (m, *event), differentiable and without chance: the mean of the likelihood.
            No gradient is left in its parameters.
        a: Where the paths start.
        b: Where they end, of the same shape.
        steps: Points on each path, the ends included.
        iterations: Steps of L-BFGS, for all paths together.

    Returns:
        The paths, none of them longer when decoded than the straight line is.

    Raises:
        ValueError: Fewer than three steps, or a and b differ in shape.
    """
    if steps < 3 or a.shape != b.shape:
        raise ValueError(
            f"steps={steps} from a of shape {tuple(a.shape)} to b of shape {tuple(b.shape)}: a path that can bend has "
            "three points or more, and joins a row of a to the same row of b."
        )
    a, b = a.detach(), b.detach()
    time = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device).reshape(-1, *[1] * (a.ndim - 1))
    line = torch.lerp(a[:, None], b[:, None], time)
    sines = _sines(steps).to(a)
    with torch.no_grad():
        hops = _hops(decode, line)
        unit = hops.square().sum(1)
        unit = torch.where(unit > 0, unit, torch.ones_like(unit))

    def bent(coefficients: Tensor) -> Tensor:
        return line + torch.einsum("tf,nf...->nt...", sines, coefficients)

    with torch.enable_grad():
        coefficients = torch.zeros(len(a), steps - 2, *a.shape[1:], dtype=a.dtype, device=a.device, requires_grad=True)
        search = torch.optim.LBFGS([coefficients], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe")

        if not decode(bent(coefficients)[:, 0]).requires_grad:
            raise ValueError(
                "what is decoded does not follow the codes smoothly: it has no gradient, as the mode of levels has "
                "none. Give a decoder whose rows are numbers, such as the mean of the likelihood."
            )

        def energy() -> Tensor:
            total = (_hops(decode, bent(coefficients)).square().sum(1) / unit).sum()
            coefficients.grad = torch.autograd.grad(total, [coefficients])[0].contiguous()
            return total

        search.step(energy)
    with torch.no_grad():
        found = bent(coefficients)
        length, straight = _hops(decode, found).sum(1), hops.sum(1)
    shorter = length < straight
    paths = torch.where(shorter.reshape(-1, *[1] * a.ndim), found, line)
    return Geodesic(paths, torch.where(shorter, length, straight), straight)


def stretch(decode: Decode, paths: Float[Tensor, "n steps *latent"], *, iterations: int = 100) -> Estimate:
    """The length of decoded paths of any form over that of the geodesics between their ends; 1 is as short as can be.

    Args:
        decode: See `geodesic`.
        paths: Codes, both ends included, as `latents.interpolate` gives them, but for the order of the axes.
        iterations: See `geodesic`.

    Raises:
        ValueError: Paths of fewer than three points.
    """
    shortest = geodesic(decode, paths[:, 0], paths[:, -1], paths.shape[1], iterations=iterations).length
    with torch.no_grad():
        own = _hops(decode, paths).sum(1)
    return Estimate.of(torch.where(own > shortest, own / shortest, torch.ones_like(own)))


def _sines(steps: int) -> Float[Tensor, "steps frequencies"]:
    """Sines that are 0 at both ends, divided by the square root of their energy."""
    frequency = torch.arange(1, steps - 1, dtype=torch.float64) * math.pi / (steps - 1)
    waves = torch.sin(frequency * torch.arange(steps)[:, None]) * math.sqrt(2 / (steps - 1))
    waves[-1] = 0
    return waves / (2 * torch.sin(frequency / 2))


def _hops(decode: Decode, paths: Tensor) -> Float[Tensor, "n intervals"]:
    """How long each step of each path is when decoded."""
    decoded = decode(paths.flatten(0, 1))
    points = decoded.reshape(*paths.shape[:2], -1)
    return torch.linalg.vector_norm(points.diff(dim=1), dim=-1)
