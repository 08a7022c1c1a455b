"""The linear Gaussian VAE, which is solved: how many latent dimensions rows of this covariance would use.

A VAE with linear maps and noise of one variance s^2 has its optimum in closed form, that of probabilistic PCA (Tipping
& Bishop 1999, https://doi.org/10.1111/1467-9868.00196; Lucas et al. 2019, https://arxiv.org/abs/1911.02469). With the
eigenvalues l_1 >= l_2 >= ... of the covariance of the rows,

* a latent dimension is kept for each of the first directions with l_i > s^2, and the others collapse onto the prior;
* one that is kept spends log(l_i / s^2) / 2 nats on each datum, and its posterior mean has the variance 1 - s^2 / l_i;
* where the variance is learned too, it is the mean of the eigenvalues that the latent dimensions leave over.

So a variance that is learned lets nearly all dimensions live, and a variance that is given may kill them. How many are
worth having is seen on held-out rows, whose log-density under each size is known as well.

Axes: ``n`` rows, ``d`` elements of a row, ``r`` eigenvalues, ``q`` sizes of the latent space.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Spectrum:
    """The covariance of rows by its eigenvalues.

    Attributes:
        mean: Of the rows.
        values: The eigenvalues that are not zero, largest first.
        directions: Their eigenvectors.
    """

    mean: Float[Tensor, " d"]
    values: Float[Tensor, " r"]
    directions: Float[Tensor, "r d"]

    @classmethod
    def of(cls, x: Float[Tensor, "n d"]) -> "Spectrum":
        """The spectrum of rows, two or more, whose covariance is their mean square: that of maximum likelihood."""
        x = x.double()
        mean = x.mean(0)
        x = x - mean
        n, d = x.shape
        # the smaller of covariance and Gram matrix: they share their eigenvalues
        values, vectors = torch.linalg.eigh((x @ x.T if n < d else x.T @ x) / n)
        values, vectors = values.flip(0), vectors.flip(1)
        some = values > max(n, d) * torch.finfo(x.dtype).eps * values[0].clamp(min=torch.finfo(x.dtype).tiny)
        values, vectors = values[some], vectors[:, some]
        directions = (vectors.T @ x) / (n * values).sqrt()[:, None] if n < d else vectors.T
        return cls(mean, values, directions)

    @property
    def total(self) -> float:
        """The variance of all elements together."""
        return float(self.values.sum())

    def noise(self, latent: int, least: float = 0.0) -> float:
        """The variance of the noise that a linear VAE with so many latent dimensions learns.

        Args:
            latent: How many.
            least: What it cannot fall below.
        """
        d = len(self.mean)
        left = float(self.values[latent:].sum()) / (d - latent) if latent < d else 0.0
        return max(left, least)

    def kept(self, latent: int, noise: float) -> int:
        """How many of so many latent dimensions a linear VAE keeps when the variance of its noise is given."""
        return min(latent, int((self.values > noise).sum()))

    def log_density(self, x: Float[Tensor, "n d"], sizes: int, least: float = 0.0) -> Float[Tensor, "n q"]:
        """Log-densities of rows, in nats, under the linear VAEs with 0, 1, ... sizes - 1 latent dimensions.

        Args:
            x: The rows.
            sizes: How many sizes; no more than one for each eigenvalue.
            least: What the variance of the noise cannot fall below.
        """
        x = x.double() - self.mean
        d = x.shape[1]
        latents = torch.arange(sizes, dtype=torch.float64)
        codes = (x @ self.directions[: sizes - 1].T).square()
        held = torch.nn.functional.pad(self.values[: sizes - 1].cumsum(0), (1, 0))
        noise = ((self.values.sum() - held) / (d - latents)).clamp(min=least)
        # direction i in a model of j dimensions: its own variance where i < j and it is above the noise
        variance = torch.maximum(self.values[: sizes - 1, None], noise)
        inside = torch.arange(sizes - 1)[:, None] < torch.arange(sizes)
        scores = codes @ torch.where(inside, 1 / variance - 1 / noise, 0.0)
        volume = torch.where(inside, variance.log() - noise.log(), 0.0).sum(0) + d * noise.log()
        outside = x.square().sum(1, keepdim=True) / noise
        log_two_pi = torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))
        return -0.5 * (d * log_two_pi + volume + scores + outside)


def smallest_good(log_density: Float[Tensor, "n q"]) -> int:
    """The smallest size that explains rows as well as the best one but for chance.

    As well is within one standard error of the mean difference between the two, row by row.
    """
    means = log_density.mean(0)
    best = int(means.argmax())
    behind = log_density[:, best : best + 1] - log_density
    error = behind.std(0) / len(behind) ** 0.5 if len(behind) > 1 else torch.zeros_like(means)
    return int((behind.mean(0) <= error).nonzero()[0])
