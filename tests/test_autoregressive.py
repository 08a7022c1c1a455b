"""Images drawn place by place: what sees what, that it adds up to one, and that the fast way is the plain one."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from helpers import fives, within
from lowerbound import families, recipes
from lowerbound.data import Data
from lowerbound.distributions import Autoregressive
from lowerbound.evaluation import evaluate
from lowerbound.models import Conditional
from lowerbound.nets import CausalNet, Embedded, Scaled
from lowerbound.objectives import Elbo
from lowerbound.recipes.pixel import pixel
from lowerbound.train import Options, Trainer
from lowerbound.views import View, typical, typical_name

EVENTS = [(1, 5, 6), (2, 4, 5), (3, 1, 4), (1, 6, 1), (2, 1, 1)]
SMALL = dict(latent=2, channels=(8,), width=8, levels=5, components=2)


def loud(net: CausalNet) -> CausalNet:
    """The network, with weights that leave nothing near where it starts."""
    for p in net.parameters():
        nn.init.normal_(p, std=0.5)
    return net


def family_of(name: str, event: tuple[int, ...]) -> tuple[families.Family, Scaled | Embedded]:
    """A family, and how its values are read."""
    return {
        "bernoulli": lambda: (families.Bernoulli(event), Scaled(2)),
        "categorical": lambda: (families.Categorical(event, 3), Embedded(event[0], 3, 2)),
        "logistic": lambda: (families.DiscretizedLogisticMixture(event, 3, 1), Scaled(3)),
        "logistic_mixture": lambda: (families.DiscretizedLogisticMixture(event, 3, 2), Scaled(3)),
    }[name]()


def of(name: str, event: tuple[int, ...], features: Tensor | None = None, reach: int = 2) -> Autoregressive:
    family, read = family_of(name, event)
    channels = 0 if features is None else features.shape[-3]
    net = CausalNet(event, family.params, read, reach=reach, width=8, layers=1, features=channels)
    return Autoregressive(loud(net), family, features)


def everything(levels: int, event: tuple[int, ...]) -> Tensor:
    """All values there are."""
    values = itertools.product(range(levels), repeat=math.prod(event))
    return torch.tensor(list(values), dtype=torch.float32).reshape(-1, *event)


def drawn_plainly(p: Autoregressive) -> Tensor:
    """A draw by a whole pass for every element."""
    x = torch.zeros(*p.batch_shape, *p.event_shape)
    c, h, w = p.event_shape
    for i, j, d in itertools.product(range(h), range(w), range(c)):
        params = p.net(x, p.features).unflatten(-3, (-1, c))[..., d, i, j]
        params = params.reshape(-1, params.shape[-1], 1).expand(-1, -1, c)
        x[..., d, i, j] = p.family(params.reshape(len(params), -1, 1, 1)).sample()[:, d, 0, 0].reshape(p.batch_shape)
    return x


@pytest.mark.parametrize(
    ("event", "reach"), [(EVENTS[0], 1), (EVENTS[0], 2), *((event, 2) for event in EVENTS[1:]), (EVENTS[1], 9)]
)
def test_an_element_sees_what_is_before_it_within_reach_and_nothing_else(event, reach):
    net = loud(CausalNet(event, 2, Scaled(5), reach=reach, width=16, layers=1)).double()
    x = torch.rand(event, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(net, x).unflatten(0, (2, event[0])).abs().sum(0)
    c, h, w = event
    for d, i, j in itertools.product(range(c), range(h), range(w)):
        seen = torch.zeros(event, dtype=torch.bool)
        for row, column in itertools.product(range(h), range(w)):
            before = (row, column) < (i, j)
            seen[:, row, column] = before and i - row <= reach and abs(j - column) <= reach
        seen[:d, i, j] = True
        assert torch.equal(jacobian[d, i, j] > 0, seen), (d, i, j)


@pytest.mark.parametrize("event", EVENTS)
def test_an_element_sees_the_features_of_its_own_place_alone(event):
    net = loud(CausalNet(event, 1, Scaled(5), width=8, layers=1, features=3)).double()
    x, features = torch.rand(event, dtype=torch.float64), torch.randn(3, *event[1:], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda f: net(x, f), features).abs().sum((0, 3))
    assert torch.equal(jacobian.flatten(2).flatten(0, 1) > 0, torch.eye(math.prod(event[1:])).bool())


@pytest.mark.parametrize("name", ["bernoulli", "categorical", "logistic", "logistic_mixture"])
@pytest.mark.parametrize("event", [(1, 2, 3), (2, 1, 3), (3, 2, 1)])
def test_the_probabilities_of_everything_add_up_to_one(name, event):
    features = torch.randn(2, 1, 3, *event[1:])
    x = everything(2 if name == "bernoulli" else 3, event)
    log_p = of(name, event, features).log_prob(x[:, None, None])
    assert log_p.shape == (len(x), 2, 1)
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones(2, 1), rtol=0, atol=1e-4)
    assert log_p.exp().std(0).min() > 1e-5


@pytest.mark.parametrize("name", ["bernoulli", "categorical", "logistic_mixture"])
@pytest.mark.parametrize("reach", [1, 9])
@pytest.mark.parametrize("features", [False, True])
def test_what_is_drawn_with_little_work_is_what_is_drawn_plainly(name, reach, features):
    event = (2, 3, 4)
    p = of(name, event, torch.randn(2, 3, 5, 3, 4) if features else None, reach)
    p = p if features else p.expand((2, 3))
    torch.manual_seed(1)
    drawn = p.sample()
    torch.manual_seed(1)
    assert torch.equal(drawn, drawn_plainly(p))
    assert drawn.std(0).max() > 0 and p.support.check(drawn).all()


def test_a_draw_takes_the_work_of_one_pass():
    p = of("bernoulli", (1, 5, 6), torch.randn(4, 3, 5, 6))
    places = []
    p.net.trunk.register_forward_hook(lambda module, given, made: places.append(made[..., 0].numel()))
    p.log_prob(torch.zeros(1, 5, 6))
    p.sample()
    assert places == [4 * 30] + [4] * 30


@pytest.mark.parametrize("name", ["bernoulli", "categorical"])
def test_draws_are_as_frequent_as_they_are_said_to_be(name):
    event = (2, 1, 2)
    p = of(name, event)
    levels = 2 if name == "bernoulli" else 3
    x = everything(levels, event)
    index = lambda value: (value.flatten(1) @ levels ** torch.arange(3.0, -1, -1)).long()
    assert torch.equal(index(x), torch.arange(len(x)))
    expected, draws = p.log_prob(x).exp(), 20_000
    found = index(p.sample((draws,))).bincount(minlength=len(x)) / draws
    assert ((found - expected).abs() <= 5 * (expected / draws).sqrt() + 1 / draws).all()


def test_features_of_several_samples_share_the_data():
    p = of("logistic_mixture", (2, 3, 4), torch.randn(3, 5, 6, 3, 4))
    x = fives(5, (2, 3, 4)).clamp(max=2)
    pairs = itertools.product(range(3), range(5))
    apart = [Autoregressive(p.net, p.family, p.features[k, b]).log_prob(x[b]) for k, b in pairs]
    torch.testing.assert_close(p.log_prob(x), torch.stack(apart).reshape(3, 5))
    with torch.no_grad():
        torch.testing.assert_close(p.log_prob(x), torch.stack(apart).reshape(3, 5))
        torch.testing.assert_close(p.log_prob(x[0]), p.log_prob(x[:1].expand(5, -1, -1, -1)))
    torch.testing.assert_close(p.expand((2, 3, 5)).log_prob(x), p.log_prob(x).expand(2, 3, 5))


def test_leading_axes():
    p = of("bernoulli", (2, 3, 4), torch.randn(5, 6, 3, 4))
    assert p.sample().shape == (5, 2, 3, 4) and p.sample((7, 1)).shape == (7, 1, 5, 2, 3, 4)
    alone = of("bernoulli", (2, 3, 4))
    assert alone.batch_shape == () and alone.sample((3,)).shape == (3, 2, 3, 4)
    assert alone.log_prob(torch.zeros(2, 3, 4)).shape == ()
    assert alone.expand((3, 2)).log_prob(torch.zeros(2, 2, 3, 4)).shape == (3, 2)


def test_it_is_shown_by_its_draws():
    p = of("bernoulli", (1, 3, 4), torch.randn(5, 6, 3, 4))
    for read in (lambda: p.mean, lambda: p.mode, lambda: p.variance):
        with pytest.raises(NotImplementedError):
            read()
    torch.manual_seed(1)
    shown = typical(p)
    torch.manual_seed(1)
    assert torch.equal(shown, p.sample()) and typical_name(p) == "draw"


def test_features_are_given_where_they_are_expected_and_only_there():
    told, alone = (CausalNet((1, 3, 4), 1, Scaled(2), features=f) for f in (6, 0))
    x, features = torch.zeros(1, 3, 4), torch.zeros(6, 3, 4)
    with pytest.raises(ValueError, match="made for features of 6 channels, and none were given"):
        told(x)
    with pytest.raises(ValueError, match=r"made for no features, and some of shape \(6, 3, 4\) were given"):
        Autoregressive(alone, families.Bernoulli((1, 3, 4)), features).sample()


@pytest.mark.parametrize("family", ["bernoulli", "categorical", "logistic", "logistic_mixture"])
def test_every_parameter_takes_part(family):
    x = fives(20, (2, 5, 6)).clamp(max=1 if family == "bernoulli" else 4)
    model = pixel(x, event=(2, 5, 6), family=family, **SMALL)
    Elbo()(model(x, k=2)).mean().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


@pytest.mark.parametrize("family", ["bernoulli", "categorical", "logistic_mixture"])
def test_it_starts_from_the_marginals(family):
    x = fives(200, (1, 5, 6)).clamp(max=1 if family == "bernoulli" else 4)
    model = pixel(x, event=(1, 5, 6), family=family, **SMALL)
    plain = recipes.conv(x, event=(1, 5, 6), latent=2, channels=(8,), family=family, levels=5, components=2)
    marginal = plain.decoder.family(plain.decoder.family.marginal(x)).log_prob(x).mean()
    assert (model(x).log_likelihood().mean() - marginal).abs() < 0.05 * marginal.abs()


def test_what_is_beyond_reach_is_said_by_z_and_what_is_within_is_not():
    """Two ends of a line are equal, and all between is 0: without z, an end that cannot see the other costs log 2."""
    bits = torch.randint(0, 2, (600, 1, 1, 1)).float()
    x = torch.cat((bits, torch.zeros(600, 1, 1, 3), bits), -1)
    split = dict(zip(("train", "valid", "test"), torch.arange(600).split([400, 100, 100])))
    data = Data("ends", x.to(torch.uint8), split, levels=2)
    found = []
    for reach in (1, 4):
        torch.manual_seed(0)
        model = pixel(x, event=(1, 1, 5), family="bernoulli", reach=reach, **SMALL)
        options = Options(steps=120, batch=50, lr=2e-2, warmup=10, valid_every=0, ema=0.9)
        for _ in Trainer(model, Elbo(), options).fit(data):
            pass
        found.append(evaluate(model, x[500:], k=50, discrete=True))
    beyond, inside = found
    assert beyond.rate.mean > 0.5 and inside.rate.mean < 0.05
    assert beyond.bound.mean > -1.1 and inside.bound.mean > -0.75  # without z, the first would be -2 log 2


def test_a_colour_knows_those_before_it():
    """Three colours of a pixel are equal: said once, they cost no more."""
    x = torch.arange(5.0).repeat(20)[:, None, None, None].expand(-1, 3, -1, -1).contiguous()
    family = families.Categorical((3, 1, 1), 5)
    net = CausalNet((3, 1, 1), family.params, Embedded(3, 5, 8), reach=1, width=32, start=family.marginal(x))
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(60):
        loss = -Autoregressive(net, family).log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert math.log(5) - 1e-3 < loss.item() < math.log(5) + 0.1
    drawn = Autoregressive(net, family).sample((500,))
    assert (drawn == drawn[:, :1]).float().mean() > 0.95
    assert within(drawn[:, 0, 0, 0], 2.0)


def test_pictures_of_it():
    x = fives(20, (1, 5, 6))
    model = pixel(x, event=(1, 5, 6), **SMALL).eval()
    view = View.alone(model, (1, 5, 6))
    assert view.low == 0 and view.high == 4
    for shown in (view.reconstruct(x), view.generate(20), view.generate(20, draw=True)):
        assert shown.shape == x.shape and model.decoder.family.support.check(shown).all()
    z = view.means(x)
    assert view.interpolate([z[0][:2]], [z[0][2:4]], 3).shape == (2, 3, 1, 5, 6)


def test_any_network_can_speak_for_the_features():
    """A family like any other: here of a linear map of two numbers."""
    element, read = family_of("bernoulli", (1, 3, 4))
    net = CausalNet((1, 3, 4), element.params, read, features=2)
    family = families.Autoregressive(element, net, features=2)
    assert family.shape == (2, 3, 4) and family.event == (1, 3, 4)
    decoder = Conditional(nn.Sequential(nn.Linear(2, 24), nn.Unflatten(-1, family.shape)), family)
    assert decoder(torch.randn(7, 5, 2)).log_prob(torch.zeros(5, 1, 3, 4)).shape == (7, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(event=(6,)), r"recipe 'pixel' is for images.*shape \(6,\).*model.name=mlp"),
        (dict(family="normal"), "family='normal' cannot be drawn pixel by pixel.*bernoulli, categorical.*conv"),
        (dict(reach=0, width=0), "reach=0 must be 1 or more; width=0 must be 1 or more"),
        (dict(layers=0), "layers=0 must be 1 or more"),
        (dict(levels=1), "levels=1 must be 2 or more"),
        (dict(channels=(8,) * 5), "would halve images of 5x6 5 times: give 1 to 3 widths"),
        (dict(blocks=-1), "blocks=-1 must be 0 or more"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    call = getattr(pixel, "__wrapped__", pixel)
    with pytest.raises(ValueError, match=message):
        call(**{"event": (1, 5, 6), **SMALL, **changes})
