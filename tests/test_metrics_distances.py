"""Two-sample distances: against closed forms, their own spread, and the best that any classifier can do."""

import math

import pytest
import torch

from lowerbound.metrics import Estimate, class_features, classifier_test, squared_mmd


def kernel_mean(shift: float, variance: float, h: float, d: int) -> float:
    """E exp(-|u|^2 / 2 h^2) of u ~ N(shift in the first dimension, variance I)."""
    total = h * h + variance
    return (h * h / total) ** (d / 2) * math.exp(-(shift**2) / (2 * total))


@pytest.mark.parametrize("n, m, shift, scale", [(80, 80, 0.0, 1.0), (60, 150, 1.0, 1.0), (100, 50, 0.0, 1.5)])
def test_the_squared_mmd_of_normals_is_unbiased_and_knows_its_error(n, m, shift, scale):
    d, bandwidths = 5, [1.5, 3.0]
    moved = torch.zeros(d)
    moved[0] = shift
    found = [
        squared_mmd(torch.randn(n, d), moved + scale * torch.randn(m, d), bandwidths=bandwidths) for _ in range(300)
    ]
    parts = [
        kernel_mean(0, 2, h, d) + kernel_mean(0, 2 * scale**2, h, d) - 2 * kernel_mean(shift, 1 + scale**2, h, d)
        for h in bandwidths
    ]
    means = Estimate.of(torch.tensor([f.mean for f in found]))
    assert abs(means.mean - sum(parts) / 2) < 4 * means.standard_error
    spread = means.standard_error * math.sqrt(300)
    said = sum(f.standard_error for f in found) / 300
    assert 0.85 * spread < said < 1.3 * spread


def test_the_squared_mmd_is_the_sum_over_pairs():
    x, y, h = torch.randn(6, 2, 3, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64), 1.3
    k = lambda a, b: math.exp(-float((a - b).square().sum()) / (2 * h * h))
    xx = sum(k(x[i], x[j]) for i in range(6) for j in range(6) if i != j) / 30
    yy = sum(k(y[i], y[j]) for i in range(5) for j in range(5) if i != j) / 20
    xy = sum(k(a, b) for a in x for b in y) / 30
    assert squared_mmd(x, y, bandwidths=[h]).mean == pytest.approx(xx + yy - 2 * xy, abs=1e-6)


def test_two_points_are_at_squared_distance_two():
    x, y = torch.zeros(10, 3), torch.full((10, 3), 1e3)
    found = squared_mmd(x, y, bandwidths=[1.0])
    assert found.mean == pytest.approx(2) and found.standard_error == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("value", [0.1, 255.0])
def test_rows_that_are_all_the_same_are_at_no_distance(value):
    assert squared_mmd(torch.full((20, 7), value), torch.full((9, 7), value)).mean == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e5])
def test_the_median_bandwidth_takes_any_unit(unit):
    x, y = torch.randn(200, 4), torch.randn(200, 4) + 1
    found = squared_mmd(unit * x + 3 * unit, unit * y + 3 * unit)
    assert found.mean == pytest.approx(squared_mmd(x, y).mean, rel=1e-3)
    assert found.mean > 8 * found.standard_error


def test_whole_numbers_far_from_zero_are_compared_as_they_are():
    x, y = (torch.randint(200, 256, (100, 3), dtype=torch.uint8) for _ in range(2))
    assert squared_mmd(x, y) == squared_mmd(x.double(), y.double())


@pytest.mark.parametrize("measure", [squared_mmd, classifier_test])
def test_many_rows_are_thinned_out_the_same_way_every_time(measure):
    x, y = torch.randn(300, 2), torch.randn(400, 2)
    before = torch.get_rng_state()
    found = measure(x, y, limit=100)
    assert found == measure(x, y, limit=100) != measure(x, y, limit=100, seed=1)
    assert torch.equal(torch.get_rng_state(), before)  # its chance is its own


def test_rows_of_one_distribution_cannot_be_told_apart():
    scores = []
    for seed in range(20):
        found = classifier_test(torch.randn(200, 4), torch.randn(230, 4), seed=seed)
        scores.append((found.mean - 0.5) / found.standard_error)
    scores = torch.tensor(scores)
    assert abs(scores.mean()) < 0.8 and 0.6 < scores.std() < 1.5


def test_rows_far_apart_are_told_apart():
    found = classifier_test(torch.randn(200, 4), torch.randn(200, 4) + 10)
    assert found.mean == 1 and 0 < found.standard_error < 0.02


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_shifted_normals_are_told_apart_nearly_as_well_as_can_be(shift):
    moved = torch.zeros(5)
    moved[2] = shift
    found = classifier_test(torch.randn(1000, 5), torch.randn(1000, 5) + moved)
    best = 0.5 * (1 + math.erf(shift / 2 / math.sqrt(2)))
    assert best - 0.04 < found.mean < best + 3 * found.standard_error


def test_a_difference_that_no_line_shows_is_found():
    found = classifier_test(torch.randn(600, 3), 2.5 * torch.randn(600, 3))
    assert found.mean > 0.7


def test_the_unit_of_a_column_does_not_hide_it():
    x, y = torch.randn(400, 3), torch.randn(400, 3)
    y[:, 1] += 2
    unit = torch.tensor([1e5, 1e-5, 0.0]).double()  # and a column that is constant
    found = classifier_test(x * unit, y * unit)
    assert found.mean > 0.78


def test_copies_fool_the_classifier():
    x = torch.randn(200, 50)
    found = classifier_test(x, x.clone()[torch.randperm(200)])
    assert found.mean < 0.5 + 2 * found.standard_error


def test_features_of_classes_tell_them_apart_and_forget_the_rest():
    labels = torch.arange(600) % 3
    x = torch.randn(600, 1, 4, 5)
    x[:, 0, 0, 0] += 4 * labels
    x[:, 0, 1, 1] *= 100  # says nothing of the class
    with torch.inference_mode():  # as an evaluation would be
        features = class_features(x[:400], labels[:400])
    of_new = features(x[400:])
    assert of_new.shape == (200, 64) and not of_new.requires_grad
    centres = torch.stack([features(x[:400])[labels[:400] == c].mean(0) for c in range(3)])
    assert (torch.cdist(of_new, centres).argmin(1) == labels[400:]).float().mean() > 0.9
    torch.testing.assert_close(class_features(x[:400], labels[:400])(x[400:]), of_new, rtol=0, atol=0)


def test_features_of_factors_know_all_of_them():
    factors = torch.stack((torch.arange(600) % 2, torch.arange(600) // 2 % 3), 1)
    x = torch.randn(600, 6)
    x[:, :2] += 4 * factors
    found = class_features(x, factors)(x)
    for k in range(2):
        of = [found[factors[:, k] == level].mean(0) for level in range(2)]
        assert (of[0] - of[1]).norm() > 0.5


@pytest.mark.parametrize("measure", [squared_mmd, classifier_test])
def test_rows_that_cannot_be_compared_are_refused(measure):
    with pytest.raises(ValueError, match="all of the same shape"):
        measure(torch.zeros(50, 2), torch.zeros(50, 3))
    with pytest.raises(ValueError, match=r"at least .* of each"):
        measure(torch.zeros(3, 2), torch.zeros(50, 2))
    broken = torch.zeros(50, 2)
    broken[3, 1] = math.nan
    with pytest.raises(ValueError, match="y: 1 of 50 rows hold NaN"):
        measure(torch.zeros(50, 2), broken)


def test_settings_that_mean_nothing_are_refused():
    x = torch.randn(50, 2)
    for bandwidths in ([], [1.0, 0.0]):
        with pytest.raises(ValueError, match="one or more positive lengths"):
            squared_mmd(x, x, bandwidths=bandwidths)
    with pytest.raises(ValueError, match="folds=1"):
        classifier_test(x, x, folds=1)


def test_features_that_cannot_be_learned_are_refused():
    with pytest.raises(ValueError, match="30 rows and 29 labels"):
        class_features(torch.randn(30, 2), torch.zeros(29))
    with pytest.raises(ValueError, match="column 1 of the labels has one class only"):
        class_features(torch.randn(30, 2), torch.stack((torch.arange(30) % 2, torch.zeros(30).long()), 1))
    features = class_features(torch.randn(30, 2), torch.arange(30) % 2)
    with pytest.raises(ValueError, match=r"rows of shape \(3,\): the features are of rows \(2,\)"):
        features(torch.zeros(4, 3))
