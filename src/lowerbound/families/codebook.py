"""A codebook, and how its vectors are learned.

Each vector is where those that choose it are on average: k-means, on a stream of batches. It follows their mean, as an
average that forgets (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, appendix A), or is a parameter that an
optimiser moves. Either way it starts from k-means of what is to be quantised, and a vector that nobody chooses any more
is put where something is (Łańcucki et al. 2020, https://arxiv.org/abs/2005.08520; Dhariwal et al. 2020,
https://arxiv.org/abs/2005.00341): one that is far from everything would stay unused for ever.

Axes: ``n`` vectors that are to be quantised, ``size`` vectors of the codebook, ``c`` channels.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

# How much of the averages the next batch leaves.
DECAY = 0.99
# A vector chosen less often than this part of its share is dead.
DEAD = 0.03
# Rounds of k-means.
ROUNDS = 10
# Distances that are in memory at once.
CHUNK = 2**24


class Codebook(nn.Module):
    """Vectors to choose from.

    Args:
        size: How many.
        width: Their channels.
        learned: Whether they have gradients; else they follow the mean of what chooses them.

    Attributes:
        origin: The vectors, or where those that have gradients are counted from: what is put elsewhere, an optimiser
            does not see.
        shares: How often each was chosen of late: 1 is as often as all are on average.
    """

    def __init__(self, size: int, width: int, learned: bool = False) -> None:
        super().__init__()
        self.register_buffer("origin", torch.randn(size, width))
        self.register_buffer("shares", torch.ones(size))
        self.origin: Tensor
        self.shares: Tensor
        self.offset = nn.Parameter(torch.zeros(size, width)) if learned else None

    @property
    def vectors(self) -> Float[Tensor, "size c"]:
        """The vectors."""
        return self.origin if self.offset is None else self.origin + self.offset

    @torch.no_grad()
    def nearest(self, rows: Float[Tensor, "n c"], exact: bool = False) -> Int64[Tensor, " n"]:
        """Which vector is nearest to each row.

        Args:
            rows: What to look for.
            exact: Whether rows are vectors of the codebook, to be told from others that are very near.
        """
        with torch.autocast(rows.device.type, enabled=False):
            return _nearest(*(t.double() if exact else t for t in (rows, self.vectors)))

    @torch.no_grad()
    def learn(self, rows: Float[Tensor, "n c"], codes: Int64[Tensor, " n"]) -> None:
        """Take in a batch: follow what chose each vector, and put dead ones where something is.

        Args:
            rows: What was quantised.
            codes: What each chose.
        """
        rows = rows.nan_to_num(0.0, 0.0, 0.0)  # an update that cannot be made is skipped; what is kept here would last
        share = len(self.shares) / len(rows)
        chosen = share * _sums(torch.ones_like(rows[:, :1]), codes, len(self.shares))[:, 0]
        self.shares.lerp_(chosen, 1 - DECAY)
        if self.offset is None:
            sums = share * _sums(rows, codes, len(self.shares))
            self.origin.add_((1 - DECAY) * (sums - chosen[:, None] * self.origin) / self.shares[:, None])
        # what this batch chose is not moved: its vectors are already said
        dead = (self.shares < DEAD) & (chosen == 0)
        elsewhere = rows[torch.randint(len(rows), self.shares.shape, device=rows.device)]
        if self.offset is not None:
            elsewhere = elsewhere - self.offset
        self.origin.copy_(torch.where(dead[:, None], elsewhere, self.origin))
        self.shares.copy_(torch.where(dead, 1.0, self.shares))

    def begin(self, rows: Float[Tensor, "n c"]) -> None:
        """Start from the centres of clusters of rows, of which there are at least as many as vectors."""
        self.origin.copy_(k_means(rows, len(self.origin)))


def k_means(rows: Float[Tensor, "n c"], count: int) -> Float[Tensor, "count c"]:
    """The centres of clusters, by Lloyd's algorithm from random rows; a centre without rows stays where it is.

    Args:
        rows: What to cluster.
        count: How many clusters, at most as many as there are rows.
    """
    centres = rows[torch.randperm(len(rows), device=rows.device)[:count]]
    for _ in range(ROUNDS):
        codes = _nearest(rows, centres)
        counts = _sums(torch.ones_like(rows[:, :1]), codes, count)
        centres = torch.where(counts > 0, _sums(rows, codes, count) / counts.clamp(min=1), centres)
    return centres


def _nearest(rows: Float[Tensor, "n c"], vectors: Float[Tensor, "size c"]) -> Int64[Tensor, " n"]:
    # |row - v|^2, but for what is the same for all v
    squares, parts = vectors.square().sum(-1), rows.split(max(1, CHUNK // len(vectors)))
    return torch.cat([torch.addmm(squares, part, vectors.T, alpha=-2).argmin(-1) for part in parts])


def _sums(rows: Float[Tensor, "n c"], codes: Int64[Tensor, " n"], size: int) -> Float[Tensor, "size c"]:
    """The sum of the rows that chose each vector."""
    return torch.index_add(rows.new_zeros(size, rows.shape[1]), 0, codes, rows)
