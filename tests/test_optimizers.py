"""What moves the weights, against torch's own, written by others."""

import math

import pytest
import torch
from torch import nn

from lowerbound.train.optimizers import Adam, Adamax, Muon, Optimizer, orthogonal

SHAPES = [(8, 5), (5, 8), (6, 6)]
CASES = {
    "adam": (Adam, lambda p, lr, wd: torch.optim.AdamW(p, lr=lr, weight_decay=wd)),
    "adamax": (Adamax, lambda p, lr, wd: torch.optim.Adamax(p, lr=lr)),
    "muon": (Muon, lambda p, lr, wd: torch.optim.Muon(p, lr=lr, weight_decay=wd, adjust_lr_fn="match_rms_adamw")),
}


def start(shapes=SHAPES):
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(*shape)) for shape in shapes]


@pytest.mark.parametrize("name", list(CASES))
def test_it_moves_as_torchs_does(name):
    ours, theirs = CASES[name]
    decay = 0.0 if name == "adamax" else 0.1  # torch's Adamax adds it to the gradient
    a, b = start(), start()
    one, other = ours(a, decay), theirs(b, 0.01, decay)
    for step in range(20):
        torch.manual_seed(step)
        lr = 0.01 / (1 + step)
        for p, q in zip(a, b, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        one.step(lr)
        for group in other.param_groups:
            group["lr"] = lr
        other.step()
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("layout", [lambda g: g.T.contiguous().T, lambda g: g[:1].expand_as(g)])
def test_the_layout_of_a_gradient_does_not_matter(name, layout):
    plain, other = start(), start()
    for p, q in zip(plain, other, strict=True):
        q.grad = layout(torch.randn_like(p))
        p.grad = q.grad.clone(memory_format=torch.contiguous_format)
    for parameters in (plain, other):
        CASES[name][0](parameters, 0.0).step(0.1)
    assert all(map(torch.equal, plain, other))


@pytest.mark.parametrize("name", list(CASES))
def test_weight_decay_shrinks_by_the_learning_rate_whatever_the_gradient(name):
    plain, decayed = start(), start()
    before = [p.detach().clone() for p in plain]
    for parameters, decay in ((plain, 0.0), (decayed, 0.3)):
        for p, t in zip(parameters, before, strict=True):
            p.grad = t.sin()
        CASES[name][0](parameters, decay).step(0.1)
    for p, q, t in zip(plain, decayed, before, strict=True):
        torch.testing.assert_close(p - q, 0.1 * 0.3 * t, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", list(CASES))
def test_what_has_no_gradient_is_left_alone(name):
    parameters = start()
    optimizer: Optimizer = CASES[name][0](parameters, 0.5)
    before = [p.detach().clone() for p in parameters]
    optimizer.step(0.1)
    parameters[1].grad = torch.ones_like(parameters[1])
    optimizer.step(0.1)
    moved = [not torch.equal(p, t) for p, t in zip(parameters, before, strict=True)]
    assert moved == [False, True, False]


@pytest.mark.parametrize("name", ["adam", "adamax"])
def test_what_a_parameter_remembers_fades_to_nothing_and_not_to_subnormal_numbers(name):
    ours, theirs = CASES[name]
    a, b = start(), start()
    one, other = ours(a, 0.0), theirs(b, 0.01, 0.0)
    for step in range(1000):
        for p, q in zip(a, b, strict=True):
            p.grad = torch.full_like(p, 1.0 if step == 0 else 0.0)
            q.grad = p.grad.clone()
        one.step(0.01)
        other.step()
    remembered = torch.cat([t.flatten() for t in one.slots.values()])
    assert not ((remembered != 0) & (remembered.abs() < torch.finfo(torch.float32).tiny)).any()
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (20, 20)])
def test_a_direction_is_made_as_long_as_every_other(shape):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(*shape), full_matrices=False)
    sizes = torch.linspace(0.2, 1.0, min(shape))
    found = orthogonal(u * sizes @ v).float()
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.3
    # in the same directions: its product with what it came from is nearly diagonal in them
    across = u.T @ found @ v.T
    assert (across - across.diagonal().diag()).abs().max() < 0.05


def test_a_muon_step_is_as_long_as_one_of_adam():
    torch.manual_seed(0)
    p = nn.Parameter(torch.zeros(300, 100))
    p.grad = torch.randn(300, 100)
    Muon([p], 0.0).step(1.0)
    assert math.sqrt(float(p.detach().square().mean())) == pytest.approx(0.2, rel=0.2)
