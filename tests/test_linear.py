"""Linear maps: the values and gradients of torch's own, whichever product is used."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lowerbound import linear as module
from lowerbound.linear import WORTHWHILE, Linear, linear

SHAPES = [(3, 5, 2), (64, 784, 512), (1024, 20, 512), (256, 512, 40), (4096, 1, 300), (1, 1024, 1024)]


@pytest.mark.parametrize("n, i, o", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_torch(n, i, o, bias):
    torch.manual_seed(0)
    x, weight = torch.randn(n, i, requires_grad=True), torch.randn(o, i, requires_grad=True)
    b = torch.randn(o, requires_grad=True) if bias else None
    given = [t for t in (x, weight, b) if t is not None]
    g = torch.randn(n, o)
    # in double precision: both are rounded, and neither is the truth
    doubles = [t.detach().double().requires_grad_() for t in given]
    expected = F.linear(*doubles)
    y = linear(x, weight, b)
    torch.testing.assert_close(y, expected.float(), rtol=1e-4, atol=1e-4 * i**0.5)
    found, truth = torch.autograd.grad(y, given, g), torch.autograd.grad(expected, doubles, g.double())
    for t, of, true in zip(found, given, truth, strict=True):
        assert t.shape == of.shape and t.is_contiguous()
        torch.testing.assert_close(t, true.float(), rtol=1e-4, atol=1e-4 * max(n, o) ** 0.5)


def test_only_the_gradients_that_are_asked_for_are_made():
    x, weight = torch.randn(64, 200), torch.randn(200, 200, requires_grad=True)
    linear(x, weight).sum().backward()
    assert weight.grad is not None and x.grad is None


@pytest.mark.parametrize("lead", [(), (7,), (2, 3), (5, 0)])
def test_any_leading_axes(lead):
    layer = Linear(11, 4)
    x = torch.randn(*lead, 11)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("of_bias", [None, 0])
@pytest.mark.parametrize("of_weight", [None, 0, 1])
@pytest.mark.parametrize("of_x", [None, 0, 1])
@pytest.mark.parametrize("n, i, o", [(3, 5, 2), (64, 200, 100)])
def test_several_at_once_are_each_by_itself(n, i, o, of_x, of_weight, of_bias):
    in_dims = (of_x, of_weight, of_bias)
    if in_dims == (None, None, None):
        return
    torch.manual_seed(0)
    m = 3
    shapes = [[n, i], [o, i], [o]]
    for shape, at in zip(shapes, in_dims, strict=True):
        if at is not None:
            shape.insert(at, m)
    given = [torch.randn(shape) for shape in shapes]
    each = [[t if at is None else t.select(at, j) for t, at in zip(given, in_dims, strict=True)] for j in range(m)]
    expected = torch.stack([F.linear(*one) for one in each])
    torch.testing.assert_close(torch.vmap(linear, in_dims)(*given), expected, rtol=1e-4, atol=1e-3)

    def total(*one):
        return linear(*one).square().sum()

    found = torch.vmap(torch.func.grad(total, argnums=(0, 1, 2)), in_dims)(*given)
    truth = [torch.func.grad(lambda *one: F.linear(*one).square().sum(), argnums=(0, 1, 2))(*one) for one in each]
    for t, *true in zip(found, *truth, strict=True):
        torch.testing.assert_close(t, torch.stack(true), rtol=1e-3, atol=1e-2 * n**0.5)


def test_it_is_torchs_layer_in_all_but_the_product():
    torch.manual_seed(0)
    ours = Linear(6, 3)
    torch.manual_seed(0)
    theirs = nn.Linear(6, 3)
    assert isinstance(ours, nn.Linear)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_other_types_and_autocast_are_left_to_torch():
    layer, x = Linear(512, 512), torch.randn(64, 512)
    assert torch.equal(layer.double()(x.double()), F.linear(x.double(), layer.weight, layer.bias))
    layer = layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.skipif(not module.ONEDNN, reason="needs a processor with AVX-512")
def test_large_products_go_to_onednn_and_small_ones_do_not(monkeypatch):
    calls = []
    real = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *a: calls.append(a[0].shape) or real(*a))
    layer = Linear(128, 128)
    layer(torch.randn(WORTHWHILE // 128**2 - 1, 128))
    assert not calls
    layer(torch.randn(WORTHWHILE // 128**2, 128))
    assert len(calls) == 1


@pytest.mark.skipif(not module.ONEDNN, reason="needs a processor with AVX-512")
def test_rows_with_gaps_are_closed_up_before_they_reach_onednn_as_a_weight(monkeypatch):
    weights = []
    real = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *a: weights.append(a[1]) or real(*a))
    x, weight = torch.randn(64, 1024)[:, 500:628], torch.randn(256, 512, requires_grad=True)[:, ::4]
    (found,) = torch.autograd.grad(linear(x, weight).square().sum(), weight)
    (expected,) = torch.autograd.grad(F.linear(x, weight).square().sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)
    assert len(weights) == 2 and all(w.is_contiguous() or w.T.is_contiguous() for w in weights)
