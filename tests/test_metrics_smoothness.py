"""Smoothness: distances by brute force, and geodesics of surfaces where they are known."""

import math

import pytest
import torch

from lowerbound.latents import interpolate
from lowerbound.metrics import Geodesic, excess_distance, geodesic, stretch


def pairs(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def length(decode, paths: torch.Tensor) -> torch.Tensor:
    points = decode(paths.flatten(0, 1)).reshape(*paths.shape[:2], -1)
    return (points[:, 1:] - points[:, :-1]).norm(dim=-1).sum(1)


def sphere(z: torch.Tensor) -> torch.Tensor:
    """(polar angle, azimuth) on the unit sphere."""
    polar, azimuth = z.unbind(-1)
    return torch.stack((polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()), -1)


def cylinder(z: torch.Tensor) -> torch.Tensor:
    return torch.stack((z[:, 0].cos(), z[:, 0].sin(), z[:, 1]), -1)


@pytest.mark.parametrize("steps", [5, 16, 40])
def test_geodesics_of_the_sphere_are_great_circles(steps):
    polar, turn = pairs(math.pi / 4, 0.9, 0.3), pairs(math.pi / 2, 1.0, 2.5)
    a, b = torch.stack((polar, 0 * turn), 1), torch.stack((polar, turn), 1)
    found = geodesic(sphere, a, b, steps)
    angle = torch.acos(polar.cos().square() + polar.sin().square() * turn.cos())
    chords = lambda radius, arc: 2 * (steps - 1) * radius * torch.sin(arc / (2 * (steps - 1)))
    torch.testing.assert_close(found.length, chords(1, angle), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.straight, chords(polar.sin(), turn), rtol=1e-12, atol=0)  # along the parallel
    torch.testing.assert_close(found.ratio, found.straight / found.length)
    # each point is on the plane of the great circle
    normal = torch.linalg.cross(sphere(a), sphere(b))
    off = torch.einsum("ntd,nd->nt", sphere(found.paths.flatten(0, 1)).reshape(3, steps, 3), normal)
    assert off.abs().max() < 1e-4


def test_the_ends_stay():
    a, b = torch.randn(4, 2), torch.randn(4, 2)
    found = geodesic(sphere, a, b, 9)
    assert torch.equal(found.paths[:, 0], a) and torch.equal(found.paths[:, -1], b)


@pytest.mark.parametrize(
    "decode",
    [
        lambda z: z @ torch.tensor([[100.0, 0.0, 1.0], [0.0, 0.01, 1.0]]).double(),
        cylinder,
        lambda z: z.pow(3) @ torch.ones(2, 5).double(),  # onto a line, at a speed that varies
    ],
    ids=["linear", "cylinder", "line"],
)
def test_where_straight_is_shortest_the_ratio_is_one(decode):
    a, b = pairs([0.1, -1.0], [0.3, 0.5]), pairs([2.0, 1.0], [-0.5, 0.9])
    torch.testing.assert_close(geodesic(decode, a, b, 12).ratio, torch.ones(2).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_path_is_longer_than_the_straight_one(dtype):
    net = torch.nn.Sequential(torch.nn.Linear(3, 30), torch.nn.Tanh(), torch.nn.Linear(30, 20)).to(dtype)
    with torch.no_grad():
        net[0].weight.mul_(6)
    a, b = torch.randn(12, 3, dtype=dtype), torch.randn(12, 3, dtype=dtype)
    with torch.inference_mode():  # as an evaluation would be
        found = geodesic(net, a, b, 12)
    assert (found.ratio >= 1).all() and found.ratio.max() > 1.05
    torch.testing.assert_close(found.length, length(net, found.paths).detach())
    assert all(p.grad is None for p in net.parameters())


def test_a_stopped_search_is_still_no_longer():
    a, b = pairs([0.7, 0.0]), pairs([0.7, 2.0])
    few = [geodesic(sphere, a, b, 20, iterations=i).ratio.item() for i in (1, 3, 50)]
    assert 1 <= few[0] <= few[1] + 1e-9 <= few[2] + 2e-9


def test_what_is_decoded_to_one_row_has_the_ratio_one():
    a, b = torch.randn(3, 2), torch.randn(3, 2)
    found = geodesic(lambda z: 0 * z, a, b, 6)
    assert isinstance(found, Geodesic)
    assert torch.equal(found.ratio, torch.ones(3)) and torch.equal(found.length, torch.zeros(3))
    assert torch.equal(geodesic(sphere, a, a, 6).ratio, torch.ones(3))  # nowhere to go


def test_codes_of_any_shape_are_bent():
    a, b = pairs([0.7, 0.0]), pairs([0.7, 2.0])
    found = geodesic(lambda z: sphere(z[:, 0, :]), a[:, None], b[:, None], 10)
    torch.testing.assert_close(found.paths[:, :, 0], geodesic(sphere, a, b, 10).paths)


def test_the_stretch_of_a_path_of_any_form():
    polar = torch.full((2,), 0.8, dtype=torch.float64)
    a, b = torch.stack((polar, 0 * polar), 1), torch.stack((polar, 0 * polar + 2), 1)
    straight = interpolate(a, b, 15).transpose(0, 1)
    assert stretch(sphere, straight).mean == pytest.approx(geodesic(sphere, a, b, 15).ratio[0].item())
    best = geodesic(sphere, a, b, 15).paths
    assert stretch(sphere, best).mean == pytest.approx(1, abs=1e-9)
    detour = torch.cat((straight[:, :7], straight[:, 7:8] + torch.tensor([0.5, 0.0]), straight[:, 8:]), 1)
    assert stretch(sphere, detour).mean > stretch(sphere, straight).mean


def test_the_excess_distance_is_that_of_brute_force():
    paths, bank, held_out = torch.randn(5, 7, 2, 3), torch.randn(40, 2, 3), torch.randn(30, 2, 3)
    nearest = lambda row: min(float((row - other).norm()) for other in bank)
    inner = [[nearest(point) for point in path[1:-1]] for path in paths]
    between = [nearest(row) for row in held_out]
    found = excess_distance(paths, bank, held_out)
    assert found.mean == pytest.approx((sum(map(sum, inner)) / 25) / (sum(between) / 30))
    # the data's own error comes on top of that of the paths
    assert found.standard_error > torch.tensor(inner).mean(1).std().item() / math.sqrt(5) / (sum(between) / 30)


def test_paths_over_data_are_as_near_as_data():
    bank, held_out = torch.randn(500, 3), torch.randn(500, 3)
    found = excess_distance(torch.randn(100, 9, 3), bank, held_out)
    assert abs(found.mean - 1) < 4 * found.standard_error


def test_the_ends_of_a_path_do_not_count():
    bank, held_out = torch.randn(50, 3), torch.randn(50, 3)
    paths = bank[:30].reshape(10, 3, 3).clone()
    paths[:, 0] += 1e3
    assert excess_distance(paths, bank, held_out).mean == 0


def test_a_straight_line_through_a_hole_is_far_from_the_ring_around_it():
    angle = 2 * math.pi * torch.rand(600)
    ring = torch.stack((angle.cos(), angle.sin()), 1)
    across = interpolate(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.01]]), 11).transpose(0, 1)
    around = interpolate(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.01]]), 11, spherical=True).transpose(0, 1)
    assert excess_distance(across, ring[:300], ring[300:]).mean > 20
    assert excess_distance(around, ring[:300], ring[300:]).mean < 5


def test_paths_that_cannot_be_measured_are_refused():
    rows = torch.randn(20, 2)
    with pytest.raises(ValueError, match="a path has three points or more"):
        excess_distance(torch.randn(4, 2, 2), rows, rows)
    with pytest.raises(ValueError, match="rows of the same shape"):
        excess_distance(torch.randn(4, 5, 3), rows, rows)
    with pytest.raises(ValueError, match="every held-out row is a copy"):
        excess_distance(torch.randn(4, 5, 2), rows, rows[:5])
    with pytest.raises(ValueError, match="paths: 12 of 12 rows hold NaN"):
        excess_distance(torch.full((4, 5, 2), math.nan), rows, torch.randn(5, 2))
    for a, b, steps in ((rows, rows, 2), (rows, rows[:3], 5)):
        with pytest.raises(ValueError, match="three points or more, and joins a row of a to the same row of b"):
            geodesic(sphere, a, b, steps)
    with pytest.raises(ValueError, match="steps=2"):
        stretch(sphere, torch.randn(4, 2, 2))
