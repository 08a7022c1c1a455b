"""What classifiers read off codes: on codes that know all, some and nothing."""

import math

import pytest
import torch

from lowerbound.metrics import linear_probe, neighbours_accuracy

BOTH = pytest.mark.parametrize("measure", [linear_probe, neighbours_accuracy])


def clusters(n: int, classes: int = 4, apart: float = 20.0) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(n) % classes
    return torch.randn(n, 3) + apart * labels[:, None] * torch.tensor([1.0, -1.0, 0.5]), labels


@BOTH
def test_separate_clusters_are_told_apart(measure):
    assert measure(*clusters(200)).mean == 1


@BOTH
def test_noise_is_told_apart_by_chance(measure):
    labels = torch.randint(0, 4, (1000,))
    found = measure(torch.randn(1000, 5), labels)
    assert abs(found.mean - 0.25) < 4 * found.standard_error
    assert found.standard_error == pytest.approx(math.sqrt(found.mean * (1 - found.mean) / 999), rel=1e-6)


@BOTH
def test_codes_that_are_all_the_same_say_nothing(measure):
    labels = (torch.arange(400) % 4).sort().values
    assert measure(torch.zeros(400, 3), labels).mean < 0.32


@BOTH
def test_the_order_of_rows_and_the_names_of_classes_do_not_matter_much(measure):
    codes, labels = clusters(500, apart=0.7)
    order = torch.randperm(500)
    first, second = measure(codes, labels), measure(codes[order], 10.5 - labels[order])
    assert abs(first.mean - second.mean) < 2 * first.standard_error
    assert measure(codes, labels) == first  # and the same rows give the same


def test_two_normals_are_told_apart_as_well_as_can_be():
    labels = torch.arange(3000) % 2
    codes = torch.randn(3000, 4)
    codes[:, 0] += 2 * labels
    best = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    linear, near = linear_probe(codes, labels), neighbours_accuracy(codes, labels, k=30)
    assert abs(linear.mean - best) < 4 * linear.standard_error
    assert best - 0.05 < near.mean < best + 3 * near.standard_error


def test_a_linear_classifier_cannot_read_what_is_not_linear_and_neighbours_can():
    codes = torch.randn(800, 2)
    labels = (codes.prod(1) > 0).long()
    assert linear_probe(codes, labels).mean < 0.6
    assert neighbours_accuracy(codes, labels).mean > 0.9


def test_a_probe_does_not_see_the_unit_of_a_dimension():
    codes, labels = clusters(300, apart=0.7)
    moved = codes * torch.tensor([1e6, 1.0, 1e-6]) + 5
    assert linear_probe(moved.double(), labels).mean == pytest.approx(linear_probe(codes, labels).mean, abs=0.01)


def test_neighbours_are_those_that_a_loop_finds():
    codes, labels = torch.randn(60, 2), torch.randint(0, 3, (60,))
    hits = 0
    for i in range(60):
        near = sorted((j for j in range(60) if j != i), key=lambda j: float((codes[i] - codes[j]).norm()))[:5]
        of = [int(labels[j]) for j in near]
        commonest = max(of, key=lambda label: (of.count(label), -of.index(label)))
        hits += commonest == labels[i]
    assert neighbours_accuracy(codes, labels, k=5).mean == pytest.approx(hits / 60)


def test_the_chunks_make_no_difference(monkeypatch):
    codes, labels = clusters(100, apart=0.7)
    whole = neighbours_accuracy(codes, labels)
    monkeypatch.setattr("lowerbound.metrics.representation.CHUNK", 700)
    assert neighbours_accuracy(codes, labels) == whole


@BOTH
def test_of_several_factors_it_is_the_mean(measure):
    codes = torch.randn(600, 3, 1)  # of any shape
    seen = (codes[:, 0, 0] > 0).long()
    unseen = torch.randint(0, 2, (600,))
    both = measure(codes, torch.stack((seen, unseen), 1))
    assert both.mean == pytest.approx((measure(codes, seen).mean + measure(codes, unseen).mean) / 2)
    assert both.standard_error < measure(codes, unseen).standard_error


@BOTH
def test_many_rows_are_thinned_out(measure):
    codes, labels = clusters(2000, apart=0.7)
    few, all_of_them = measure(codes, labels, limit=500), measure(codes, labels)
    assert few.standard_error == pytest.approx(2 * all_of_them.standard_error, rel=0.1)
    assert abs(few.mean - all_of_them.mean) < 4 * few.standard_error


@BOTH
def test_a_class_of_one_row_is_a_miss_and_no_error(measure):
    codes, labels = clusters(200)
    labels[7] = 99
    assert measure(codes, labels).mean == pytest.approx(199 / 200)


@BOTH
@pytest.mark.parametrize(
    "codes, labels, match",
    [
        (torch.randn(30, 2), torch.zeros(30).long(), "column 0 of the labels has 1 classes in 30 rows"),
        (torch.randn(30, 2), torch.arange(60).reshape(30, 2) % 2, "column 0 .* nothing to predict"),
        (torch.randn(30, 2), torch.randn(30), "30 classes in 30 rows, .* classes rather than numbers"),
        (torch.randn(30, 2), torch.arange(29) % 2, "30 codes and 29 labels"),
        (torch.full((30, 2), math.nan), torch.arange(30) % 2, "codes: 30 of 30 rows hold NaN"),
    ],
    ids=["constant", "a constant factor", "numbers", "too few labels", "nan"],
)
def test_labels_that_cannot_be_predicted_are_refused(measure, codes, labels, match):
    with pytest.raises(ValueError, match=match):
        measure(codes, labels)


def test_no_folds_and_no_neighbours_are_refused():
    with pytest.raises(ValueError, match="folds=1"):
        linear_probe(*clusters(20), folds=1)
    for k in (0, 20):
        with pytest.raises(ValueError, match="a row has 1 to 19 others"):
            neighbours_accuracy(*clusters(20), k=k)
