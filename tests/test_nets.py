"""Networks: any shape to any shape, with any leading axes, and gradients that reach the bottom."""

import math

import pytest
import torch
from torch import nn

from lowerbound import nets
from lowerbound.columns import Column

SIZES = [(1, 28, 28), (1, 28, 20), (3, 37, 53), (1, 5, 9), (2, 8, 8), (1, 1, 1), (1, 16, 3)]

NETS = {
    "mlp": lambda: nets.mlp((3, 2), (4,), hidden=(8, 8, 5)),
    "mlp_plain": lambda: nets.mlp((3, 2), (4, 1), hidden=(8, 8), residual=False, activation="tanh"),
    "mlp_gated": lambda: nets.mlp((3, 2), (4,), hidden=(8, 8, 5), activation="gated"),
    "conv_down": lambda: nets.conv_down((3, 2, 5), (4,), channels=(8,)),
    "conv_up": lambda: nets.conv_up((3, 2), (2, 3, 5), channels=(8, 8), blocks=2, activation="gelu"),
}
INPUTS = {"mlp": (3, 2), "mlp_plain": (3, 2), "mlp_gated": (3, 2), "conv_down": (3, 2, 5), "conv_up": (3, 2)}


@pytest.mark.parametrize("name", list(NETS))
@pytest.mark.parametrize("lead", [(), (4,), (3, 4), (2, 3, 4)])
def test_leading_axes_are_only_a_way_of_writing(name, lead):
    net = NETS[name]()
    x = torch.randn(*lead, *INPUTS[name])
    rows = torch.stack([net(row) for row in x.reshape(-1, *INPUTS[name])])
    torch.testing.assert_close(net(x), rows.reshape(*lead, *rows.shape[1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(NETS))
def test_every_weight_learns_and_no_output_is_constant(name):
    net = NETS[name]()
    y = net(torch.randn(20, *INPUTS[name]))
    assert (y.std(0) > 1e-4).all()
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("levels", [1, 3])
def test_convolutions_go_down_and_up_at_any_size(size, spatial, levels):
    channels = (8,) * levels
    bottom = nets.pyramid(size[1:], levels)[-1]
    z = (3, *bottom) if spatial else (3,)
    x = torch.randn(8, *size)
    code = nets.conv_down(size, z, channels=channels)(x)
    assert code.shape == (8, *z)
    out = nets.conv_up(z, size, channels=channels)(code)
    assert out.shape == x.shape
    # something of x arrives, and at every pixel, the ones at a cropped edge too: normalisation must leave something
    # to tell two images apart by, also where an image has shrunk to one pixel
    assert code.std(0).min() > 1e-4
    assert out.std(0).min() > 1e-4


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 8, 12, 16, 24, 32, 100, 128])
def test_a_group_of_a_norm_is_no_single_number(channels):
    norm = nets.norm(channels)
    assert channels % norm.num_groups == 0
    assert channels // norm.num_groups >= min(4, channels)
    assert norm.num_groups == 8 or channels < 64 or channels % 8


@pytest.mark.parametrize("size", [(1, 5, 9), (2, 4, 6)])
def test_every_pixel_of_the_input_is_seen(size):
    x = torch.randn(1, *size, requires_grad=True)
    nets.conv_down(size, (3,), channels=(8, 8))(x).square().sum().backward()
    assert (x.grad != 0).all()


def test_down_and_up_agree_on_the_sizes():
    assert nets.pyramid((37, 53), 3) == [(37, 53), (19, 27), (10, 14), (5, 7)]
    assert nets.pyramid((1, 2), 2) == [(1, 2), (1, 1), (1, 1)]
    x = torch.randn(1, 2, 5, 7)
    down = nets.Down(2, 2)
    assert down(x).shape[-2:] == (3, 4)
    # an odd side is repeated, not filled with zeros
    padded = torch.cat((x, x[..., -1:]), -1)
    padded = torch.cat((padded, padded[..., -1:, :]), -2)
    torch.testing.assert_close(down(x), down(padded))


@pytest.mark.parametrize("step", [2, 3, 5])
def test_every_pixel_of_the_output_is_reached_by_as_many_weights(step):
    """Else flat features would come out as a checkerboard."""
    up = nets.Up(3, 1, (2 * step, 2 * step), bias=False)
    with torch.no_grad():
        up.conv.weight.fill_(1.0)
        inside = up(torch.ones(1, 3, step, step))[..., 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.full_like(inside, 3 * 4.0))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_thirty_blocks_train_from_first_to_last(kind):
    if kind == "mlp":
        net, x = nets.mlp((16,), (16,), hidden=(32,) * 31), torch.randn(64, 16)
        blocks = [m for m in net.modules() if isinstance(m, nets.Residual)]
    else:
        net, x = nets.conv_down((1, 8, 8), (16,), channels=(8,), blocks=30), torch.randn(16, 1, 8, 8)
        blocks = [m for m in net.modules() if isinstance(m, nets.Residual)]
    assert len(blocks) == 30
    target = torch.randn(len(x), 16)

    def loss():
        return (net(x) - target).square().mean()

    before = loss()
    before.backward()
    norms = [math.sqrt(sum(float(p.grad.square().sum()) for p in block.parameters())) for block in blocks]
    assert max(norms) < 5 * min(norms)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(20):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss() < 0.8 * before


def test_a_residual_block_starts_close_to_the_identity():
    block = nets.Residual(nn.Linear(4, 4), 4, 1)
    x = torch.randn(7, 4)
    torch.testing.assert_close(block(x), x + 0.1 * block.f(x))
    with torch.no_grad():
        block.gain.zero_()
    assert torch.equal(block(x), x)


def test_the_textbook_stack_is_linear_maps_and_activations():
    net = nets.mlp((6,), (2,), hidden=(5, 5), residual=False, activation="relu")
    kinds = [type(m).__name__ for m in net.net]
    assert kinds == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear", "Unflatten"]
    x = torch.randn(3, 6)
    h = x
    for layer in (net.net[1], net.net[3]):
        h = (h @ layer.weight.mT + layer.bias).relu()
    torch.testing.assert_close(net(x), h @ net.net[5].weight.mT)


def test_a_gated_stack_lets_through_what_its_gates_say():
    net = nets.mlp((6,), (2,), hidden=(5, 4), residual=False, activation="gated")
    x = torch.randn(3, 6)
    h = x
    for layer in (net.net[1], net.net[2]):
        value, gate = layer.value, layer.gate
        h = (h @ value.weight.mT + value.bias) / (1 + (-(h @ gate.weight.mT + gate.bias)).exp())
    torch.testing.assert_close(net(x), h @ net.net[3].weight.mT)
    with torch.no_grad():
        net.net[2].gate.bias.fill_(-100)
    assert (net(x) == 0).all()


def test_standardised_data_have_mean_zero_and_spread_one():
    x = 5 + 3 * torch.randn(5000, 4)
    y = nets.Standardize(x.mean(0), x.std(0))(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(0), torch.ones(4))


def test_a_bias_starts_where_it_is_told_and_keeps_its_own_copy():
    start = torch.randn(3)
    bias = nets.Bias(start)
    before = start.clone()
    start += 1
    torch.testing.assert_close(bias(torch.zeros(2, 3)), before.expand(2, 3))


def test_an_encoder_reads_spikes_and_the_cycles_of_dates():
    columns = (
        Column("gain", "positive", spikes=(0.0, 99_999.0)),
        Column("day", "real", source="date32[day]", origin=18_000.0, cycles=(7.0, 365.2425)),
    )
    x = torch.tensor([[0.0, 10.0], [99_999.0, 17.0], [20.0, 10 + 365.2425], [math.nan, math.nan]])
    shift, unit = nets.standardisation(nets.TableNumbers(columns)(x), (2,))
    # what is held apart is no number to standardise by
    torch.testing.assert_close(shift[0], torch.tensor(20.0).log())
    read = nets.TableInput(columns, shift, unit).eval()
    values, known = read(x)[:, :-2], read(x)[:, -2:]
    assert read.width == 2 + 4 + 2 + 2 and len(read.owner) == 8
    assert known.tolist() == [[1, 1], [1, 1], [1, 1], [0, 0]]
    assert values[:, -2:].tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]
    assert values[:, 0].abs().max() < 3 and (values[3] == 0).all()
    week, year = values[:, [2, 4]], values[:, [3, 5]]
    # the same weekday, and the same season, wherever the numbers begin
    torch.testing.assert_close(week[0], week[1])
    torch.testing.assert_close(year[0], year[2], atol=1e-3, rtol=0)
    angle = torch.tensor((18_010 % 7) * 2 * math.pi / 7)
    torch.testing.assert_close(week[0], torch.stack((angle.cos(), angle.sin())), atol=1e-3, rtol=0)
