"""Functions of latent tensors: paths, directions and neighbourhoods in the space a model has learned.

In d dimensions nearly all of a standard normal lies close to the sphere of radius sqrt(d). The straight line between
two of its samples cuts through the inside, where the decoder has hardly been; the great circle between them stays
where the samples are (White 2016, https://arxiv.org/abs/1609.04468). For the same reason a walk shrinks z a little
before it adds noise, and a traversal runs over the prior's own quantiles rather than from -3 to 3.

Nothing here knows a model: what comes out goes into `Model.generate(n, z=...)`.

Axes: ``n`` rows, ``*event`` one latent variable of any shape; a *dimension* is an index into its flattened elements.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

CHUNK = 2**24


def interpolate(
    a: Float[Tensor, "n *event"], b: Float[Tensor, "..."], steps: int, spherical: bool = False
) -> Float[Tensor, "steps n *event"]:
    """Paths from each row of a to the same row of b, both ends included, in equal steps.

    Linear: (1 - t) a + t b. Spherical: the direction turns at a constant rate through the angle w between a and b,
    (sin((1 - t) w) a/|a| + sin(t w) b/|b|) / sin(w), and the norm goes linearly from |a| to |b|. Where the two are
    parallel, opposite or zero there is no angle to turn through, and the path is linear.

    Args:
        a: Where the paths start.
        b: Where they end, of the same shape.
        steps: Points on each path.
        spherical: Whether to turn rather than to go straight.

    Raises:
        ValueError: Fewer than two steps, or a and b differ in shape.

    >>> interpolate(torch.tensor([[0.0, 2.0]]), torch.tensor([[4.0, 2.0]]), 3)[:, 0]
    tensor([[0., 2.],
            [2., 2.],
            [4., 2.]])
    """
    if steps < 2:
        raise ValueError(f"steps={steps}: a path has two ends, so it has at least 2 points. Give steps=2 or more.")
    if a.shape != b.shape:
        raise ValueError(
            f"a has shape {tuple(a.shape)} and b {tuple(b.shape)}: each path joins a row of a to a row of b. "
            "Give as many rows of the same event to both."
        )
    t = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device).reshape(-1, *[1] * a.ndim)
    straight = torch.lerp(a, b, t)
    if not spherical:
        return straight
    axes = tuple(range(1, a.ndim))
    norm_a, norm_b = (torch.linalg.vector_norm(v, dim=axes, keepdim=True) for v in (a, b))
    unit_a, unit_b = a / norm_a, b / norm_b
    # the arc cosine loses half its digits at small angles; this form loses none
    angle = 2 * torch.atan2(
        torch.linalg.vector_norm(unit_a - unit_b, dim=axes, keepdim=True),
        torch.linalg.vector_norm(unit_a + unit_b, dim=axes, keepdim=True),
    )
    turning = (torch.sin((1 - t) * angle) * unit_a + torch.sin(t * angle) * unit_b) / torch.sin(angle)
    turning = turning * torch.lerp(norm_a, norm_b, t)
    no_angle = ~(torch.sin(angle) > 1e-3)  # true of NaN as well, which is what a zero vector gives
    return torch.where(no_angle | (t == 0) | (t == 1), straight, turning)


def traverse(
    z: Float[Tensor, "n *event"],
    dim: int,
    values: Float[Tensor, " v"] | Sequence[float],
    spherical: bool = False,
) -> Float[Tensor, "v n *event"]:
    """Copies of z, one for each value, with one dimension set to it and the others as they were.

    Spherical: the others together shrink or grow, so that the length stays that of z. A z on a sphere moves along the
    great circle through itself and the axis of that dimension.

    Args:
        z: Where to start.
        dim: Which dimension of the flattened event.
        values: What to set it to; `quantile_values` gives values that the prior finds likely.
        spherical: Whether to keep the length; a value beyond it is taken for the length itself.

    Raises:
        ValueError: There is no such dimension.

    >>> traverse(torch.zeros(1, 3), 1, [-1.0, 1.0])[:, 0]
    tensor([[ 0., -1.,  0.],
            [ 0.,  1.,  0.]])
    """
    _check_dimension(z, dim)
    values = torch.as_tensor(values, dtype=z.dtype, device=z.device)
    copies = z.flatten(1).repeat(len(values), 1, 1)
    old, values = copies[..., dim].clone(), values[:, None].expand(copies.shape[:2])
    copies[..., dim] = 0
    if spherical:
        others = copies.square().sum(-1)
        length = (others + old.square()).sqrt()
        values = values.clamp(-length, length)
        copies = copies * ((length.square() - values.square()).clamp(min=0) / others.clamp(min=1e-30)).sqrt()[..., None]
    copies[..., dim] = values
    return copies.reshape(len(values), *z.shape)


def quantile_values(
    prior_samples: Float[Tensor, "m *event"], dim: int, probabilities: Float[Tensor, " v"] | Sequence[float]
) -> Float[Tensor, " v"]:
    """The values of one dimension below which the given fractions of the prior lie, estimated from its samples.

    Args:
        prior_samples: Draws from p(z), some thousands.
        dim: Which dimension of the flattened event.
        probabilities: Fractions between 0 and 1.

    Raises:
        ValueError: There is no such dimension.

    >>> quantile_values(torch.arange(5.0)[:, None], 0, [0.0, 0.5, 1.0])
    tensor([0., 2., 4.])
    """
    _check_dimension(prior_samples, dim)
    column = prior_samples.flatten(1)[:, dim]
    return torch.quantile(column, torch.as_tensor(probabilities, dtype=column.dtype, device=column.device))


def direction(z: Float[Tensor, "n *event"], has: Bool[Tensor, " n"]) -> Float[Tensor, "*event"]:
    """The direction of an attribute: the mean of the rows that have it minus the mean of those that do not.

    Add it to a z to give it the attribute, subtract it to take the attribute away.
    Larsen et al. 2016, https://arxiv.org/abs/1512.09300

    Args:
        z: Latent variables, such as the posterior means of labelled data.
        has: Which rows have the attribute.

    Raises:
        ValueError: All rows have the attribute, or none does.

    >>> direction(torch.tensor([[1.0, 5.0], [3.0, 5.0], [0.0, 5.0]]), torch.tensor([True, True, False]))
    tensor([2., 0.])
    """
    count = int(has.sum())
    if count in (0, len(has)):
        raise ValueError(
            f"{count} of {len(has)} rows have the attribute: a direction needs rows with it and rows without. "
            "Give more data, or another attribute."
        )
    return z[has].mean(0) - z[~has].mean(0)


def neighbours(
    z: Shaped[Tensor, "n *event"], bank: Shaped[Tensor, "m ..."], count: int
) -> tuple[Int64[Tensor, "n count"], Float[Tensor, "n count"]]:
    """The rows of a bank that are nearest to each z in Euclidean distance, nearest first.

    Args:
        z: What to look for.
        bank: Where to look, rows like those of z; the distances to all of it are never in memory at once.
        count: How many for each z.

    Returns:
        Their indices in the bank, and their distances.

    Raises:
        ValueError: The bank has fewer rows than asked for, or rows of another shape.

    >>> neighbours(torch.tensor([[0.9]]), torch.tensor([[0.0], [1.0], [3.0]]), 2)[0]
    tensor([[1, 0]])
    """
    if not 1 <= count <= len(bank):
        raise ValueError(f"count={count}, and the bank has {len(bank)} rows: ask for 1 to {len(bank)} neighbours.")
    if z.shape[1:] != bank.shape[1:]:
        raise ValueError(
            f"z has rows of shape {tuple(z.shape[1:])} and the bank {tuple(bank.shape[1:])}: "
            "there is no distance between them. Give both in the same space."
        )
    rows, bank = z.flatten(1).float(), bank.flatten(1).float()
    indices, distances = [], []
    for part in rows.split(max(1, CHUNK // len(bank))):
        near = torch.cdist(part, bank).topk(count, largest=False).indices
        # cdist rounds: small distances, such as the 0 of a copy, are taken again exactly and put in order
        exact, order = torch.linalg.vector_norm(part[:, None] - bank[near], dim=-1).sort(stable=True)
        indices.append(near.gather(1, order))
        distances.append(exact)
    return torch.cat(indices), torch.cat(distances)


def walk(
    start: Float[Tensor, "n *event"], steps: int, size: float, generator: torch.Generator | None = None
) -> Float[Tensor, "steps n *event"]:
    """A random walk that never leaves the standard normal: z' = sqrt(1 - size^2) z + size * noise.

    If z is standard normal, so is z', and any start is forgotten at the rate (1 - size^2)^(t / 2).

    Args:
        start: The first point of each walk.
        steps: Points of each walk, the start among them.
        size: Between 0 (stay) and 1 (a new sample at every step); 0.1 is smooth.
        generator: Of the noise; torch's own if not given.

    Raises:
        ValueError: No steps, or a size outside [0, 1].
    """
    if steps < 1 or not 0 <= size <= 1:
        raise ValueError(
            f"steps={steps}, size={size}: steps must be 1 or more, and size between 0 and 1, "
            "or the walk would leave the standard normal."
        )
    points = [start]
    for _ in range(steps - 1):
        noise = torch.randn(start.shape, generator=generator, dtype=start.dtype, device=start.device)
        points.append(math.sqrt(1 - size**2) * points[-1] + size * noise)
    return torch.stack(points)


def principal_axes(
    z: Float[Tensor, "n *event"], count: int
) -> tuple[Float[Tensor, "count d"], Float[Tensor, " count"]]:
    """The orthonormal directions along which z varies most, and the fraction of its variance along each.

    ``z.flatten(1) @ axes.T`` is the map. It is not centred, so that a standard normal stays one on it.

    Args:
        z: Latent variables, such as the posterior means of data.
        count: How many directions.

    Raises:
        ValueError: There are fewer rows or dimensions than directions asked for.
    """
    rows = z.flatten(1).double()
    n, d = rows.shape
    if not 1 <= count <= min(n, d):
        raise ValueError(f"count={count}: {n} rows of {d} dimensions have 1 to {min(n, d)} principal axes.")
    rows = rows - rows.mean(0)
    # the smaller of the two products of rows with themselves has the same eigenvalues
    if d <= n:
        variances, vectors = torch.linalg.eigh(rows.T @ rows)
        axes = vectors.T
    else:
        variances, vectors = torch.linalg.eigh(rows @ rows.T)
        axes = torch.nn.functional.normalize(vectors.T @ rows, dim=1)
    axes, variances = axes.flip(0)[:count], variances.flip(0).clamp(min=0)
    # an axis and its opposite are equally good: the one whose largest entry is positive is taken
    signs = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return (axes * signs).to(z.dtype), (variances[:count] / variances.sum().clamp(min=1e-300)).to(z.dtype)


def _check_dimension(z: Tensor, dim: int) -> None:
    dimensions = math.prod(z.shape[1:])
    if not 0 <= dim < dimensions:
        raise ValueError(
            f"dim={dim}: a latent variable of shape {tuple(z.shape[1:])} has dimensions 0 to {dimensions - 1}."
        )
