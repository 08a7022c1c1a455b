"""Mixtures that link the colours of a pixel: they add up to one, and say what plain ones do where nothing is linked."""

import itertools

import pytest
import torch

from helpers import fives, within
from lowerbound import families
from lowerbound.distributions import LinkedLogistics
from lowerbound.models import Conditional
from lowerbound.nets import conv_up


def everything(levels: int, colours: int) -> torch.Tensor:
    """All pixels there are, as images of one."""
    return torch.tensor(list(itertools.product(range(levels), repeat=colours)), dtype=torch.float32)[..., None, None]


@pytest.mark.parametrize("colours", [1, 2, 3, 4])
@pytest.mark.parametrize("components", [1, 3])
def test_the_probabilities_of_all_colours_add_up_to_one(colours, components):
    family = families.LinkedLogisticMixture((colours, 1, 1), 4, components)
    p = family(2 * torch.randn(2, 3, *family.shape))
    log_p = p.log_prob(everything(4, colours)[:, None, None])
    assert log_p.shape == (4**colours, 2, 3)
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones(2, 3), rtol=0, atol=1e-4)


def test_draws_are_as_frequent_as_they_are_said_to_be():
    family = families.LinkedLogisticMixture((3, 1, 1), 3, 2)
    p, x, draws = family(torch.randn(family.shape)), everything(3, 3), 50_000
    drawn = p.sample((draws,))
    assert drawn.shape == (draws, 3, 1, 1) and p.support.check(drawn).all()
    found = (drawn.flatten(1) @ torch.tensor([9.0, 3.0, 1.0])).long().bincount(minlength=27) / draws
    expected = p.log_prob(x).exp()
    assert ((found - expected).abs() <= 5 * (expected / draws).sqrt() + 1 / draws).all()


def test_one_colour_is_the_plain_mixture():
    linked = families.LinkedLogisticMixture((1, 3, 4), 5, 3)
    plain = families.DiscretizedLogisticMixture((1, 3, 4), 5, 3)
    assert linked.shape == plain.shape
    params, x = torch.randn(7, *linked.shape), fives(7, (1, 3, 4))
    torch.testing.assert_close(linked(params).log_prob(x), plain(params).log_prob(x), rtol=1e-4, atol=1e-4)


def test_a_link_of_one_carries_a_colour_to_the_next():
    """Of narrow logistics about the middle and links of 1, -1 and 0, each colour follows from the first."""
    zeros, middle = torch.zeros(1, 1, 1), torch.full((1, 3, 1, 1), 4.0)
    scale = torch.tensor([3.0, 0.02, 0.02])[None, :, None, None]
    link = torch.tensor([1.0, 0.0, -1.0])[None, :, None, None]  # of 1 with 0, of 2 with 0, of 2 with 1
    p = LinkedLogistics(zeros, middle, scale, link, levels=9)
    drawn = p.sample((2000,)).flatten(1)
    assert torch.equal(drawn[:, 1], drawn[:, 0]) and torch.equal(drawn[:, 2], 8 - drawn[:, 1])
    assert drawn[:, 0].unique().numel() == 9 and within(drawn[:, 0], 4.0)


def test_shapes_and_larger_batches():
    family = families.LinkedLogisticMixture((2, 3, 4), 5, 2)
    p = family(torch.randn(6, *family.shape))
    assert p.batch_shape == (6,) and p.event_shape == (2, 3, 4) and p.sample((5, 1)).shape == (5, 1, 6, 2, 3, 4)
    x = fives(6, (2, 3, 4))
    torch.testing.assert_close(p.expand((5, 6)).log_prob(x), p.log_prob(x).expand(5, 6))


def test_the_marginal_fits_better_than_zeros():
    family = families.LinkedLogisticMixture((3, 2, 2), 5, 2)
    x = fives(300, (3, 2, 2)).clamp(max=1)
    start = family.marginal(x)
    assert start.shape == family.shape
    assert family(start).log_prob(x).mean() > family(torch.zeros(family.shape)).log_prob(x).mean() + 1
    plain = families.DiscretizedLogisticMixture((3, 2, 2), 5, 2)
    # at a start without links the plain mixture is no worse: each of its colours picks a component of its own
    assert family(start).log_prob(x).mean() < plain(plain.marginal(x)).log_prob(x).mean() + 1e-3


def test_every_parameter_takes_part():
    family = families.LinkedLogisticMixture((3, 4, 4), 5, 2)
    decoder = Conditional(conv_up((2,), family.shape, channels=(8,)), family)
    params = torch.randn(5, *family.shape, requires_grad=True)
    family(params).log_prob(fives(5, (3, 4, 4))).sum().backward()
    assert (params.grad.abs().sum(0) > 0).all()
    assert decoder(torch.randn(3, 5, 2)).log_prob(fives(5, (3, 4, 4))).shape == (3, 5)


def test_what_has_no_colours_is_refused():
    with pytest.raises(ValueError, match=r"x of shape \(6,\) has no pixels.*model.family=logistic_mixture"):
        families.LinkedLogisticMixture((6,), 5, 2)
