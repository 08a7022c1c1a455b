"""The family of images that are drawn one place after the other: its parameters are features of every place.

What a decoder makes of z is a map of features as large as the image; a causal network of limited reach adds what the
places before say. PixelVAE: Gulrajani et al. 2017, https://arxiv.org/abs/1611.05013

Axes: ``*batch``, then ``c`` elements of a place, ``h`` rows, ``w`` columns; ``f`` channels of features.
"""

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints

from .. import distributions
from ..distributions.autoregressive import Causal
from .family import Family


class Autoregressive(Family):
    """Features -> `distributions.Autoregressive`, with any family of discrete elements for one element given others.

    Args:
        element: The family of the elements: `Bernoulli`, `Categorical`, `DiscretizedLogisticMixture`.
        net: A causal network of the same event, with features, such as `nets.CausalNet`.
        features: Channels of the features.

    >>> import torch
    >>> from lowerbound import families, nets
    >>> net = nets.CausalNet((1, 4, 4), 1, nets.Scaled(2), features=6)
    >>> family = families.Autoregressive(families.Bernoulli((1, 4, 4)), net, features=6)
    >>> p = family(torch.zeros(3, *family.shape))
    >>> p.sample().shape
    torch.Size([3, 1, 4, 4])
    """

    def __init__(self, element: Family, net: Causal, features: int) -> None:
        super().__init__(element.event, params=1)
        self.element = element
        self.net = net
        self.shape = (features, *element.event[1:])

    @property
    def support(self) -> constraints.Constraint:
        """That of an element."""
        return self.element.support

    def forward(self, params: Float[Tensor, "*params"]) -> Distribution:
        """Each element given those before it and the features of its place."""
        return distributions.Autoregressive(self.net, self.element, params)

    def marginal(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "*params"]:
        """Zeros: the network starts from the elements' own marginals."""
        return x.new_zeros(self.shape)
