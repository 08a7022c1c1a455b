"""The distance of samples in the table of published numbers, against what is known of normals."""

import pytest
import torch
from scipy.linalg import sqrtm

from benchmarks.published import samples


def test_the_distance_is_that_of_normals():
    a, b = torch.randn(400, 5).double(), torch.randn(300, 5).double() @ torch.randn(5, 5).double() + 2
    of_a, of_b = a.T.cov().numpy(), b.T.cov().numpy()
    root = sqrtm(of_a @ of_b).real  # of a product that is not symmetric: another way than the code's
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + (of_a + of_b - 2 * root).trace()
    assert samples.frechet(a, b) == pytest.approx(expected, rel=1e-8)
    assert samples.frechet(b, a) == pytest.approx(expected, rel=1e-8)
    assert samples.frechet(a, a) == pytest.approx(0, abs=1e-8)
    assert samples.frechet(a, a + 3) == pytest.approx(45)
    assert samples.frechet(a[:, :1], 3 * a[:, :1]) == pytest.approx(
        4 * (float(a[:, 0].mean()) ** 2 + float(a[:, 0].var())), rel=1e-8
    )


def test_fewer_rows_than_features_have_a_distance_too():
    a = torch.randn(4, 9).double()
    assert samples.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert samples.frechet(a, 2 * a) > 0.1


def test_the_features_tell_labels_apart_and_are_the_same_again():
    labels = torch.arange(300) % 3
    x = torch.randn(300, 1, 8, 8) + 3 * labels.reshape(-1, 1, 1, 1)
    torch.manual_seed(5)
    first = samples.features(samples.reader(x, labels), x)
    torch.manual_seed(6)
    again = samples.features(samples.reader(x, labels), x)
    assert torch.equal(first, again) and first.shape == (300, samples.FEATURES)
    one, other = first[labels == 0], first[labels == 2]
    assert samples.frechet(one, other) > 20 * samples.frechet(one[::2], one[1::2])


def test_the_best_is_named_first_and_what_is_no_contestant_apart():
    distances = {samples.REAL: 0.5, "VAE, own prior": 9.0, "AE, flow": 2.0, "VAE, reconstructions": 1.0}
    said = samples._in_words(distances, ["VQ-VAE"])
    assert said == (
        "AE, flow 2.00; VAE, own prior 9.00 (beside them: training images 0.50; VAE, reconstructions 1.00); "
        "VQ-VAE is not there"
    )
