"""Numbers of codes: how many of those there are have a use, and how evenly they are used.

* **Usage** is the part of a codebook that data choose at all.
* **Perplexity** is exp of the entropy of how often each code is chosen: as many codes, chosen equally often, would say
  as much. It is `size` where all are, and 1 where one is chosen for everything (van den Oord et al. 2017,
  https://arxiv.org/abs/1711.00937).

Axes: ``stages`` codes of one place, each with a codebook of ``size`` codes.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ..distributions import OneHot, Quantized
from ..models import Site


def code_counts(site: Site) -> Float[Tensor, "stages size"] | None:
    """How often a batch chooses each code, at all places together; None where the latent variable is no code.

    Where codes are drawn, it is in expectation. The counts of several batches may be added.
    """
    match site.q:
        case Quantized() | OneHot() as q:
            return q.uses()
    return None


def usage(counts: Float[Tensor, "stages size"]) -> Float[Tensor, " stages"]:
    """The part of the codes that is chosen at least once.

    >>> usage(torch.tensor([[3.0, 0.0, 1.0, 0.0]]))
    tensor([0.5000])
    """
    return (counts > 0.5).double().mean(-1).to(counts.dtype)


def perplexity(counts: Float[Tensor, "stages size"]) -> Float[Tensor, " stages"]:
    """exp of the entropy of the choice of a code.

    >>> perplexity(torch.tensor([[1.0, 1.0, 0.0], [5.0, 0.0, 0.0]]))
    tensor([2., 1.])
    """
    share = counts.double() / counts.double().sum(-1, keepdim=True)
    return torch.special.entr(share).sum(-1).exp().to(counts.dtype)
