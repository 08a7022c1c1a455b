"""Sharp images without a likelihood: a critic learns what tells data from reconstructions, and they learn to pass.

A likelihood whose pixels are independent given z blurs what z leaves open. Here p(x|z) is used through its mean alone,
the picture m(z) that the model shows. How far it is from its datum is taken twice, on their elements and on what the
hidden layers of a critic D make of them (Larsen et al. 2016, https://arxiv.org/abs/1512.09300), and the model maximises

    - pixels d(x, m(z)) - features d(D(x), D(m(z))) - beta KL(q(z|x) || p(z)) - w softplus(-D(m(z))),

while the critic, in the same step, minimises softplus(-D(x)) + softplus(D(m(z))) + penalty/2 |grad D(x)|^2. The last
term keeps it from running ahead (Mescheder et al. 2018, https://arxiv.org/abs/1801.04406). The distance d of n elements
is n/2 log of their mean square, as of a normal whose scale is the best for the batch (Rybkin et al. 2021,
https://arxiv.org/abs/2006.13202): no weight has to be found anew for other data, and the critic cannot shrink it by
making its features small.

The weight w is `adversarial` times what makes both pulls at the pictures, that of the distances and that of the critic,
equally long (Esser et al. 2021, https://arxiv.org/abs/2012.09841, who measure them at the decoder's last layer). Both
are known before the decoder is differentiated, which therefore happens once.

No likelihood is trained by this: what such a model says of log p(x) means nothing, and is not reported.

Axes: ``k`` samples of z, ``b`` batch, ``n`` pictures, ``*event`` one datum.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, StudentT
from torch.func import functional_call
from torch.nn import functional as F

from ..distributions import (
    Bernoulli,
    ContinuousBernoulli,
    DiagonalLaplace,
    DiagonalNormal,
    DiscretizedLogistic,
    LogisticMixture,
)
from ..linear import Linear
from ..models import Trace
from ..nets import Down, Standardize, pyramid
from .objective import Weight, check

# The adversarial weight where nothing else is said.
ADVERSARIAL = Weight(0.8)
# A pull of the critic that is hardly there is not made longer without end.
MOST, TINY = 1e4, 1e-12
# Mean squares below this are of rounding errors.
LEAST_SQUARE = 1e-6
# Of the critic's units, below zero.
SLOPE = 0.2


class Critic(nn.Module):
    """x -> the log-odds that x is a datum rather than a picture, and what the hidden layers make of x.

    Args:
        event: Shape of one x, which is standardised. Of images, (channels, height, width), each hidden layer is a
            convolution that halves them; of anything else, a linear map.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, event: Sequence[int], hidden: Sequence[int]) -> None:
        super().__init__()
        image = len(event) == 3
        widths = (event[0] if image else math.prod(event), *hidden)
        kind = Down if image else Linear
        self.layers = nn.ModuleList(kind(before, after) for before, after in pairwise(widths))
        bottom = pyramid((event[1], event[2]), len(hidden))[-1] if image else ()
        self.last = Linear(widths[-1] * math.prod(bottom), 1)
        self.image = image

    def forward(self, x: Float[Tensor, "n *event"]) -> tuple[Float[Tensor, " n"], tuple[Tensor, ...]]:
        """The log-odds, and the features of each hidden layer, a row for each x."""
        h = x if self.image else x.flatten(1)
        features = []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), SLOPE)
            features.append(h.flatten(1))
        return self.last(h.flatten(1)).squeeze(1), tuple(features)


class Adversarial(nn.Module):
    """Likeness in elements and in a critic's features, minus the KL term, minus what gives pictures away: the VAE-GAN.

    Pictures are judged at z ~ q(z|x), none at z ~ p(z): samples from the prior are as good as codes match it. In the
    value there is nothing of the critic's own loss. Larsen et al. 2016, https://arxiv.org/abs/1512.09300; with a
    quantised posterior, Esser et al. 2021, https://arxiv.org/abs/2012.09841

    Args:
        event: Shape of one x.
        beta: The weight of the KL term.
        pixels: The weight of the distance of elements.
        features: The weight of the distance of the critic's features, the mean of those of its hidden layers.
        adversarial: How long the critic's pull at a picture is, in lengths of that of the distances, and its schedule.
        penalty: The weight of the critic's squared gradient at the data, in their units.
        hidden: Widths of the critic's hidden layers.
        centre: Of the data, as the critic takes it.
        unit: Spread of the data, likewise.
        k: Samples of z for each x, averaged.

    Raises:
        ValueError: A number out of its range; data of another shape.
        TypeError: A likelihood without a mean to be shown that its parameters could be learned through.
    """

    def __init__(
        self,
        event: Sequence[int],
        beta: float = 4.0,
        pixels: float = 1.0,
        features: float = 1.0,
        adversarial: Weight = ADVERSARIAL,
        penalty: float = 0.1,
        hidden: Sequence[int] = (16, 32, 64),
        centre: Sequence[float] = (0.0,),
        unit: Sequence[float] = (1.0,),
        k: int = 1,
    ) -> None:
        super().__init__()
        weights = {"beta": beta, "pixels": pixels, "features": features, "penalty": penalty}
        check("vaegan", weights, _wrong(event, pixels + features, hidden, centre, unit))
        self.event = tuple(event)
        self.beta = beta
        self.pixels = pixels
        self.features = features
        self.adversarial = adversarial
        self.penalty = penalty
        self.k = k
        self.standardize = Standardize(*(_broadcast(numbers, event) for numbers in (centre, unit)))
        self.critic = Critic(event, hidden)

    @property
    def horizon(self) -> int:
        """When the adversarial weight reaches its end."""
        return self.adversarial.horizon

    def forward(self, trace: Trace, step: Tensor | None = None) -> Float[Tensor, " b"]:
        """In nats, as of normals of the best scale, but for the critic's term, which has no unit."""
        if trace.summed is not None:
            raise TypeError(
                "objective 'vaegan' looks at pictures of one draw of the latent variables, and this model sums one out "
                "and learns by those sums alone. Use objective.name=elbo."
            )
        pictures = expected(trace.likelihood)
        if pictures.shape[2:] != self.event:
            raise ValueError(
                f"objective 'vaegan' has a critic of rows of shape {self.event}, and those of this model have shape "
                f"{tuple(pictures.shape[2:])}: set objective.event={list(pictures.shape[2:])}."
            )
        x, flat = self.standardize(trace.x), self.standardize(pictures.flatten(0, 1))
        with torch.enable_grad():  # a look without gradients has the same value as one with them
            lesson, known = self.lesson(x, flat.detach())
            shown = flat.detach().requires_grad_()
            likeness, suspicion = self.terms(shown, x, known)
            pull = torch.autograd.grad(likeness.sum(), shown, retain_graph=True)[0]
            push = torch.autograd.grad(suspicion.sum(), shown)[0]
        weight = self.adversarial(step) * balance(pull, push)
        # the critic was differentiated: what is left of it is a constant gradient, on a product that is zero
        rest = ((pull - weight * push) * (flat - flat.detach())).flatten(1).sum(1)
        value = (likeness - weight * suspicion).detach() + rest
        return (value.unflatten(0, pictures.shape[:2]) - self.beta * trace.kl()).mean(0) - (lesson - lesson.detach())

    def terms(
        self, pictures: Float[Tensor, "n *event"], x: Float[Tensor, "b *event"], known: Sequence[Tensor]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Of each picture, how like its datum it is, in nats; and what the critic has against it, in nats of its own.

        Args:
            pictures: What to judge, k for each datum; standardised, like these.
            x: The data.
            known: What the critic's hidden layers make of these.
        """
        constant = {name: p.detach() for name, p in self.critic.named_parameters()}
        logits, features = functional_call(self.critic, constant, (pictures,))
        elements = _distance(pictures - _repeat(x, len(pictures)))
        layers = [_distance(f - _repeat(h, len(f))) for f, h in zip(features, known, strict=True)]
        nats = 0.5 * math.prod(self.event)
        likeness = -nats * (self.pixels * elements + self.features * torch.stack(layers).mean(0))
        return likeness, F.softplus(-logits)

    def lesson(
        self, x: Float[Tensor, "b *event"], pictures: Float[Tensor, "n *event"]
    ) -> tuple[Float[Tensor, ""], tuple[Tensor, ...]]:
        """What the critic minimises, in nats; and what its hidden layers make of the data, held constant."""
        real = x.detach().requires_grad_()
        logits, features = self.critic(real)
        slope = torch.autograd.grad(logits.sum(), real, create_graph=True)[0]
        told = F.softplus(-logits).mean() + F.softplus(self.critic(pictures)[0]).mean()
        lesson = told + 0.5 * self.penalty * slope.square().flatten(1).sum(1).mean()
        return lesson, tuple(h.detach() for h in features)


def expected(p: Distribution) -> Float[Tensor, "k b *event"]:
    """E[x], differentiable in the parameters of p.

    Raises:
        TypeError: It is not.
    """
    each = p.base_dist if isinstance(p, Independent) else p
    match each:
        case Bernoulli() | ContinuousBernoulli() | DiscretizedLogistic() | LogisticMixture():
            return each.mean
        case DiagonalNormal() | DiagonalLaplace():
            return each.mean
        case StudentT():
            return each.loc
    raise TypeError(
        f"objective 'vaegan' shows a critic the mean of p(x|z), and learns through it; a {type(each).__name__} has "
        "none that could be learned through. Use model.family=normal (or laplace, student_t; bernoulli for bits)."
    )


def balance(pull: Float[Tensor, "*shape"], push: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """How many times longer the one is than the other."""
    return (pull.norm() / (push.norm() + TINY)).clamp(max=MOST)


def _distance(difference: Float[Tensor, "n *shape"]) -> Float[Tensor, " n"]:
    """The log of the mean square, shared out: its mean and its gradient are those of the whole batch."""
    square = difference.square().flatten(1).mean(1)
    whole = square.detach().mean().clamp(min=LEAST_SQUARE)
    return square / whole - 1 + whole.log()


def _repeat(x: Float[Tensor, "b *shape"], n: int) -> Float[Tensor, "n *shape"]:
    """x again and again, for n pictures of which there are k for each."""
    return x.repeat(n // len(x), *[1] * (x.ndim - 1)) if n > len(x) else x


def _broadcast(numbers: Sequence[float], event: Sequence[int]) -> Float[Tensor, "*shape"]:
    """One number for all elements, or one for each channel of images, or for each element, beside any x."""
    image = len(event) == 3
    return torch.tensor(numbers, dtype=torch.float32).reshape((-1, 1, 1) if image else event if numbers[1:] else ())


def _wrong(
    event: Sequence[int], likeness: float, hidden: Sequence[int], centre: Sequence[float], unit: Sequence[float]
) -> list[str]:
    """What a critic cannot be."""
    wrong = [] if min(event, default=0) >= 1 else [f"event={list(event)} must hold numbers of 1 or more"]
    if likeness == 0:
        wrong.append("pixels and features are both 0, and nothing ties a picture to its datum")
    if not hidden or min(hidden) < 1:
        wrong.append(f"hidden={list(hidden)} must hold numbers of 1 or more")
    counts = {1, event[0] if len(event) == 3 else math.prod(event)} if event else {1}
    for name, numbers in (("centre", centre), ("unit", unit)):
        if len(numbers) not in counts:
            many = " or ".join(map(str, sorted(counts)))
            wrong.append(f"{name} holds {len(numbers)} numbers and must hold {many} for rows of shape {list(event)}")
    if not all(math.isfinite(c) for c in centre) or not all(0 < u < math.inf for u in unit):
        wrong.append("centre must be finite, and unit finite and above 0")
    return wrong
