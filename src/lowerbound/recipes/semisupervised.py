"""The recipe of a semi-supervised model: rows of which few have a label y, and the rest teach it all the same.

    p(x) = sum_y p(y) E_p(z) [p(x|y, z)],    q(y, z|x) = q(y|x) q(z|x, y),

with y one of a few classes and z what a row is besides its class, its style. Where y is known it is observed, and the
bound is one on log p(x, y). Where it is not it is summed out, with a z of its own for every class: the bound

    log p(x) >= sum_y q(y|x) {E_q(z|x,y) [log p(x|y, z)] - KL(q(z|x, y) || p(z))} - KL(q(y|x) || p(y))

has no noise of a drawn class in it, and its gradient reaches the classifier q(y|x) as it is. Rows whose y is known
teach the classifier by their own term, alpha log q(y|x), and by nothing else: their bound does not contain it. An
importance-weighted bound (the objective iwae) contains q(y|x) nowhere, for its sum is exact: by that, the classifier
learns from labels alone.
Kingma, Rezende, Mohamed & Welling 2014 (their M2), https://arxiv.org/abs/1406.5298

Axes: ``k`` samples, ``b`` rows, ``c`` classes, ``d`` elements of z.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution

from .. import families, nets, priors
from ..distributions import DiagonalNormal, OneOf, kl_per_element
from ..models import Conditional, Model, Site, Summed, Trace
from ..nets import ROW_LENGTH, START_ROWS, standardisation
from .parts import FAMILIES, ActivationName, FamilyName, check_numbers

NetworkName = Literal["mlp", "conv"]
# Of the last layers of classifier and decoder at the start, against their usual size.
QUIET = 0.01


def m2(
    x: Tensor | None = None,
    context: Tensor | None = None,
    *,
    event: Sequence[int] = (1, 28, 28),
    classes: int = 10,
    names: Sequence[str] = (),
    alpha: float = 1.0,
    network: NetworkName = "mlp",
    latent: int = 50,
    hidden: Sequence[int] = (500, 500),
    channels: Sequence[int] = (32, 64, 64),
    blocks: int = 1,
    activation: ActivationName = "silu",
    dropout: float = 0.0,
    family: FamilyName = "bernoulli",
    levels: int = 256,
    components: int = 5,
    scale: str | float = "shared",
) -> "SemiSupervised":
    """A classifier and a generative model of classes in one, from rows of which few are labelled.

    It is called with a label for each row, NaN where it is not known: model(x, labels).
    Kingma et al. 2014 (M2), https://arxiv.org/abs/1406.5298

    Args:
        x: Training data to take starting values from.
        context: Their labels, from which nothing is taken.
        event: Shape of one x.
        classes: How many a label is one of.
        names: Of the classes.
        alpha: The weight of log q(y|x), of every row whose label is known. It changes what is learned, and no number
            that is reported. 1 to 10 does well where about a fifth of the rows of a batch have a label.
        network: "mlp", or "conv" for images.
        latent: Dimensions of z.
        hidden: Widths of the hidden layers of classifier and encoder; the decoder's are the same in reverse (mlp).
        channels: Width of each level; each halves the image (conv).
        blocks: Residual blocks on each level (conv).
        activation: Between layers.
        dropout: Part of what classifier and encoder read that is hidden from them in training.
        family: Of p(x|y, z).
        levels: x takes the integers 0..levels-1 (categorical, logistic, logistic_mixture).
        components: Of each element's mixture (logistic_mixture).
        scale: Of normal, laplace and student_t: "element" (predicted), "shared" (one learned), or a number.

    Raises:
        ValueError: A number that no network can have; fewer than two classes; a negative alpha; convolutions of what is
            no image.
    """
    lists = {"event": event, "hidden": hidden, "channels": channels}
    check_numbers(lists, {"latent": latent, "components": components}, levels, dropout, scale)
    if classes < 2:
        raise ValueError(f"classes={classes}: to tell classes apart there must be 2 or more. The data say how many.")
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha={alpha} is the weight of log q(y|x): it must be 0 or more, and finite.")
    if network == "conv" and len(event) != 3:
        raise ValueError(
            f"network=conv is for images, (channels, height, width); one x here has shape {tuple(event)}. "
            "Use model.network=mlp."
        )
    shift, unit = standardisation(x, event)
    family_of_x = FAMILIES[family](event, levels, components, scale, shift, unit)
    family_of_z = families.Normal((latent,))
    start = torch.zeros(family_of_x.shape) if x is None else family_of_x.marginal(x[:START_ROWS])
    both = (latent + classes,)
    if network == "conv":
        down = partial(nets.conv_down, event, channels=channels, blocks=blocks, activation=activation)
        width = 4 * channels[-1]
        below: Sequence[int] = (width,)
        classify, read = down((classes,)), down((width,))
        up = nets.conv_up(both, family_of_x.shape, channels=channels, blocks=blocks, activation=activation)
    else:
        width, below = hidden[0], tuple(hidden[1:] or hidden)
        classify = nets.mlp(event, (classes,), hidden=hidden, activation=activation)
        read = nets.mlp(event, (width,), hidden=(), activation=activation, residual=False)
        up = nets.mlp(both, family_of_x.shape, hidden=hidden[::-1], activation=activation)
        # a row of many elements is long, and a first layer that sees long rows takes larger steps than those behind it
        unit = unit * max(1.0, math.sqrt(math.prod(event)) / ROW_LENGTH)
    # what they say of classes at random would settle which is which before the labels do
    quieten(classify)
    quieten(up)
    # x is read once for all classes, and what is made of it goes on with each of them
    encode = nn.Sequential(
        nets.ACTIVATIONS[activation](),
        nets.mlp((width + classes,), family_of_z.shape, hidden=below, activation=activation),
    )
    encoder = Inference(
        nn.Sequential(nets.Standardize(shift, unit), nn.Dropout(dropout)),
        nn.Sequential(classify, nets.Bias(torch.zeros(classes))),
        nn.Sequential(read, nets.Bias(torch.zeros(width))),
        Conditional(Joined(encode), family_of_z),
        nets.OneHot(classes),
    )
    decoder = Conditional(Joined(nn.Sequential(up, nets.Bias(start))), family_of_x)
    return SemiSupervised(encoder, priors.StandardNormal((latent,)), decoder, classes, alpha)


@torch.no_grad()
def quieten(net: nn.Module) -> None:
    """Make the last layer of a network so small that it says next to nothing at the start."""
    [p for p in net.parameters() if p.ndim > 1][-1].mul_(QUIET)


class Joined(nn.Module):
    """(v, y) -> net(v and y), one behind the other; leading axes are repeated as they need to be.

    Args:
        net: Of both.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, v: Float[Tensor, "*lead d"], y: Float[Tensor, "*classes c"]) -> Float[Tensor, "*outputs"]:
        """The outputs."""
        lead = torch.broadcast_shapes(v.shape[:-1], y.shape[:-1])
        return self.net(torch.cat((v.expand(*lead, -1), y.expand(*lead, -1)), -1))


class Inferred(NamedTuple):
    """What is known of rows.

    Attributes:
        label: Each row's label as a one-hot vector, all zeros where it is not known.
        said: log q(y|x) in nats, as the classifier says, whether a label is known or not.
        q: q(z|x, y) for each y.
    """

    label: Float[Tensor, "b c"]
    said: Float[Tensor, "b c"]
    q: DiagonalNormal

    @property
    def possible(self) -> Bool[Tensor, "b c"]:
        """Which classes a row can be of: one if it is known, else all."""
        return (self.label > 0) | (self.label.sum(-1, keepdim=True) == 0)


class Inference(nn.Module):
    """(x, labels) -> q(y|x), and q(z|x, y) for every y.

    Args:
        before: x -> how networks read it.
        classify: That -> the logits of q(y|x).
        read: That -> features.
        encode: (features, y) -> q(z|x, y).
        one_hot: A label -> y; zeros if it is not known.
    """

    def __init__(
        self, before: nn.Module, classify: nn.Module, read: nn.Module, encode: nn.Module, one_hot: nn.Module
    ) -> None:
        super().__init__()
        self.before = before
        self.classify = classify
        self.read = read
        self.encode = encode
        self.one_hot = one_hot

    def forward(self, x: Float[Tensor, "b *x"], labels: Float[Tensor, " b"] | None = None) -> Inferred:
        """What is known of the rows; with no labels given, none is known."""
        seen = self.before(x)
        said = families.precise(self.classify(seen)).log_softmax(-1)
        label = torch.zeros_like(said) if labels is None else self.one_hot(labels).to(said.dtype)
        every = torch.eye(said.shape[-1], dtype=x.dtype, device=x.device)
        return Inferred(label, said, self.encode(self.read(seen)[:, None], every))


class SemiSupervised(Model):
    """Two latent variables: a class y, which is observed where it is known and summed out where it is not, and z.

    The sites of a trace show one draw, y ~ q(y|x) and its z; likelihood, divergence and weight are of all classes.

    Args:
        encoder: (x, labels) -> `Inferred`.
        prior: () -> p(z).
        decoder: (z, y) -> p(x|y, z), with y one-hot.
        classes: How many.
        alpha: The weight of log q(y|x) of each row whose label is known.

    >>> model = m2(event=(6,), classes=3, latent=2, hidden=(8,))
    >>> trace = model(torch.ones(5, 6), torch.tensor([0.0, 1.0, 2.0, torch.nan, torch.nan]), k=4)
    >>> [tuple(site.z.shape) for site in trace.sites]
    [(4, 5, 3), (4, 5, 2)]
    >>> model.generate(2, torch.tensor([0.0, 2.0])).sample().shape
    torch.Size([2, 6])
    """

    def __init__(self, encoder: nn.Module, prior: nn.Module, decoder: nn.Module, classes: int, alpha: float) -> None:
        super().__init__(encoder)
        self.prior = prior
        self.decoder = decoder
        self.one_hot = nets.OneHot(classes)
        self.logits = nn.Parameter(torch.zeros(classes))
        self.alpha = alpha

    def trace(self, x: Shaped[Tensor, "b *x"], code: Inferred, *context: Tensor, k: int = 1) -> Trace:
        """Draw k samples z ~ q(z|x, y) for every y."""
        possible = code.possible
        known = code.label.sum(-1, keepdim=True) > 0
        q_y = OneOf(torch.where(known, code.label.log(), code.said))
        p_y, p = OneOf(self.logits), self.prior()
        share = q_y.mean

        # the same noise for every y: what differs between classes is then what they say of x, not luck
        loc, scale = code.q.loc, code.q.scale
        noise = torch.randn((k, len(x), 1, loc.shape[-1]), dtype=loc.dtype, device=loc.device)
        z = loc + scale * noise
        every = torch.eye(share.shape[-1], dtype=z.dtype, device=z.device)
        rows = x[:, None].expand(-1, share.shape[-1], *x.shape[1:])
        log_likelihood = self.decoder(z, every).log_prob(rows)
        log_joint = p_y.logits + log_likelihood + p.log_prob(z) - code.q.log_prob(z)
        # of no value, whatever the classifier says; but with its gradient, in whatever is made of this trace
        said = self.alpha * (code.label * code.said).sum(-1)
        lesson = said - said.detach()
        summed = Summed(
            (share * log_likelihood).sum(-1) + lesson,
            log_joint.masked_fill(~possible, -math.inf).logsumexp(-1) + lesson,
        )

        y = q_y.sample((k,))
        drawn_z, loc, scale = ((y[..., None] * t).sum(-2) for t in (z, loc, scale))
        rate = (share[..., None] * kl_per_element(code.q, p)).sum(1)
        sites = Site(y, q_y, p_y), Site(drawn_z, DiagonalNormal(loc, scale, 1), p, rate)
        return Trace(x, sites, self.decoder(drawn_z, y), summed)

    def generate(self, n: int, *context: Tensor, z: Sequence[Tensor] = ()) -> Distribution:
        """p(x|y, z) with what is given of y and z held, and the rest drawn; labels are those of y, NaN if not known."""
        y = z[0] if z else OneOf(self.logits).sample((n,))
        if context and not z:
            label = self.one_hot(*context)
            y = torch.where(label.sum(-1, keepdim=True) > 0, label, y)
        return self.decoder(z[1] if len(z) > 1 else self.prior().sample((n,)), y)
