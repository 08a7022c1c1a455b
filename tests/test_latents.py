"""Latent tensors: each function against what defines it."""

import math

import pytest
import torch

from lowerbound import latents
from lowerbound.latents import direction, interpolate, neighbours, principal_axes, quantile_values, traverse, walk

EVENTS = [(1,), (7,), (2, 3, 4)]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("spherical", [False, True])
def test_a_path_starts_and_ends_exactly_at_its_ends(event, spherical):
    a, b = draw(5, *event), draw(5, *event, seed=1)
    path = interpolate(a, b, 6, spherical)
    assert path.shape == (6, 5, *event)
    assert torch.equal(path[0], a) and torch.equal(path[-1], b)


@pytest.mark.parametrize("event", EVENTS[1:])
def test_a_spherical_path_keeps_the_norm_and_turns_evenly(event):
    a, b = draw(5, *event).flatten(1), draw(5, *event, seed=1).flatten(1)
    a, b = (3 * torch.nn.functional.normalize(v).reshape(5, *event) for v in (a, b))
    path = interpolate(a, b, 9, spherical=True).flatten(2)
    torch.testing.assert_close(path.norm(dim=-1), torch.full((9, 5), 3.0))
    turns = torch.nn.functional.cosine_similarity(path[1:], path[:-1], dim=-1).acos()
    torch.testing.assert_close(turns, turns[:1].expand_as(turns), rtol=1e-2, atol=1e-3)


def test_a_spherical_path_interpolates_the_norm():
    path = interpolate(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]), 3, spherical=True)
    torch.testing.assert_close(path[1, 0], torch.full((2,), math.sqrt(2)))


@pytest.mark.parametrize("b", [[2.0, 2.0], [-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
def test_without_an_angle_a_spherical_path_is_straight(b):
    a = torch.ones(1, 2)
    torch.testing.assert_close(interpolate(a, torch.tensor([b]), 5, True), interpolate(a, torch.tensor([b]), 5))


def test_a_path_refuses_what_has_no_ends():
    with pytest.raises(ValueError, match="at least 2 points"):
        interpolate(draw(1, 2), draw(1, 2), 1)
    with pytest.raises(ValueError, match="Give as many rows"):
        latents.interpolate(draw(2, 2), draw(1, 2), 3)


@pytest.mark.parametrize("event", EVENTS)
def test_a_traversal_changes_one_dimension_only(event):
    z, dim = draw(4, *event), math.prod(event) - 1
    out = traverse(z, dim, [-1.0, 0.5, 2.0])
    assert out.shape == (3, 4, *event)
    assert torch.equal(out.flatten(2)[..., dim], torch.tensor([-1.0, 0.5, 2.0])[:, None].expand(3, 4))
    assert torch.equal(out.flatten(2)[..., :dim], z.flatten(1)[None, :, :dim].expand(3, 4, -1))
    with pytest.raises(ValueError, match="has dimensions 0 to"):
        traverse(z, dim + 1, [0.0])
    with pytest.raises(ValueError, match="has dimensions 0 to"):
        quantile_values(z, -1, [0.5])


def test_quantiles_of_normal_samples_are_those_of_the_normal():
    values = quantile_values(3 * draw(20_000, 2) + 1, 1, [0.1, 0.5, 0.9])
    expected = 3 * torch.special.ndtri(torch.tensor([0.1, 0.5, 0.9])) + 1
    torch.testing.assert_close(values, expected, atol=0.1, rtol=0)


@pytest.mark.parametrize("event", EVENTS)
def test_the_direction_of_a_shift_is_the_shift(event):
    z, shift = draw(10, *event), draw(*event, seed=1)
    has = torch.arange(20) >= 10
    torch.testing.assert_close(direction(torch.cat([z, z + shift]), has), shift)
    for empty in (has & False, has | True):
        with pytest.raises(ValueError, match="rows with it and rows without"):
            direction(torch.cat([z, z]), empty)


@pytest.mark.parametrize("event", EVENTS)
def test_neighbours_are_those_of_brute_force(event, monkeypatch):
    monkeypatch.setattr(latents, "CHUNK", 100)  # several chunks
    z, bank = draw(13, *event), draw(40, *event, seed=1)
    index, distance = neighbours(z, bank, 5)
    brute = (z[:, None] - bank[None]).flatten(2).norm(dim=-1).sort(dim=1)
    assert torch.equal(index, brute.indices[:, :5])
    torch.testing.assert_close(distance, brute.values[:, :5])


def test_a_copy_is_its_own_neighbour_at_distance_zero():
    bank = 1000 + draw(200, 50)
    index, distance = neighbours(bank[:60], bank, 3)
    assert torch.equal(index[:, 0], torch.arange(60))
    assert torch.equal(distance[:, 0], torch.zeros(60))


def test_neighbours_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="ask for 1 to 2"):
        neighbours(draw(1, 2), draw(2, 2), 3)
    with pytest.raises(ValueError, match="no distance between them"):
        neighbours(draw(1, 3), draw(2, 2), 1)


@pytest.mark.parametrize("size", [0.1, 0.5, 1.0])
def test_a_walk_stays_standard_normal_and_is_smooth(size):
    generator = torch.Generator().manual_seed(1)
    start = draw(4000, 3)
    path = walk(start, 20, size, generator)
    assert path.shape == (20, 4000, 3) and torch.equal(path[0], start)
    assert abs(path[-1].var().item() - 1) < 0.05 and abs(path[-1].mean().item()) < 0.05
    correlation = (path[10] * path[11]).mean().item()
    assert abs(correlation - math.sqrt(1 - size**2)) < 0.05


def test_a_walk_forgets_its_start_and_refuses_to_leave():
    path = walk(torch.full((4000, 1), 8.0), 60, 0.5, torch.Generator().manual_seed(0))
    assert abs(path[-1].mean().item()) < 0.1 and abs(path[-1].var().item() - 1) < 0.1
    with pytest.raises(ValueError, match="leave the standard normal"):
        walk(draw(1, 2), 3, 1.5)


@pytest.mark.parametrize(("n", "d"), [(200, 6), (6, 200)])
def test_principal_axes_are_those_of_the_singular_value_decomposition(n, d):
    z = draw(n, d) * torch.linspace(3, 0.1, d) + 5
    axes, fractions = principal_axes(z, 3)
    _, s, v = torch.linalg.svd((z - z.mean(0)).double(), full_matrices=False)
    torch.testing.assert_close(axes @ axes.T, torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close((axes.double() @ v[:3].T).abs(), torch.eye(3).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(fractions.double(), s[:3] ** 2 / (s**2).sum(), atol=1e-5, rtol=0)


def test_principal_axes_of_constant_rows_explain_nothing():
    axes, fractions = principal_axes(torch.ones(5, 4), 2)
    assert axes.isfinite().all() and torch.equal(fractions, torch.zeros(2))
    with pytest.raises(ValueError, match="principal axes"):
        principal_axes(draw(5, 1), 2)


def test_a_spherical_traversal_keeps_the_length_and_the_way():
    z = 2 * torch.nn.functional.normalize(draw(4, 5), dim=-1)
    out = traverse(z, 2, [-3.0, -1.0, 0.5, 2.0], spherical=True)
    torch.testing.assert_close(out.norm(dim=-1), torch.full((4, 4), 2.0))
    torch.testing.assert_close(out[:, :, 2], torch.tensor([-2.0, -1.0, 0.5, 2.0])[:, None].expand(4, 4))
    # one great circle: what is no part of the dimension keeps its direction
    others = torch.cat((out[1:3, :, :2], out[1:3, :, 3:]), -1)
    start = torch.cat((z[:, :2], z[:, 3:]), -1).expand_as(others)
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(others, start, dim=-1), torch.ones(2, 4))
    torch.testing.assert_close(traverse(z, 0, z[:1, 0], spherical=True)[0, 0], z[0])
