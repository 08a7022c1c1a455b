"""How good synthetic rows are: on rows whose answer is known."""

import math

import numpy as np
import pytest
import torch

from lowerbound import recipes
from lowerbound.columns import Column
from lowerbound.synthesis import (
    as_written,
    assess,
    associations,
    difference,
    fidelity,
    marginal_distance,
    privacy,
    utility,
    with_holes,
)
from lowerbound.synthesis.curves import area_under_curve
from lowerbound.synthesis.privacy import is_copy
from lowerbound.synthesis.utility import f1_macro

NUMBER, LEVEL = Column("size", "real"), Column("kind", "category", ("a", "b", "c"))
COLUMNS = (NUMBER, Column("weight", "real"), LEVEL, Column("sold", "binary", ("no", "yes")))


def rows(n, seed, holes=0.0):
    """Two numbers that correlate, a level that follows one of them, and a coin that follows the level."""
    generator = np.random.default_rng(seed)
    a = generator.normal(size=n)
    b = 0.8 * a + 0.6 * generator.normal(size=n)
    level = np.digitize(a + 0.5 * generator.normal(size=n), [-0.5, 0.8])
    sold = generator.random(n) < np.array([0.1, 0.5, 0.9])[level]
    x = np.stack([a, b, level, sold], 1)
    x[generator.random(x.shape) < holes] = np.nan
    return x


def shuffled(x, seed=0):
    """Each column by itself in another order."""
    generator = np.random.default_rng(seed)
    return np.stack([generator.permutation(column) for column in x.T], 1)


def test_marginal_distances_have_their_closed_forms():
    steps = np.arange(10.0)
    assert marginal_distance(NUMBER, steps, steps + 3) == pytest.approx((0.3, 3 / steps.std()))
    assert marginal_distance(NUMBER, steps, steps + 100)[0] == 1
    # 0, 0, 1 against 0, 1, 1, 2: F and G are 2/3 and 1/4, 1 and 3/4, 1 and 1
    assert marginal_distance(NUMBER, np.array([0.0, 0, 1]), np.array([0.0, 1, 1, 2]))[0] == pytest.approx(5 / 12)
    assert marginal_distance(LEVEL, np.array([0.0, 0, 1, 2]), np.array([0.0, 1, 1, 1]))[0] == pytest.approx(0.5)
    holes = np.array([0.0, np.nan, 0, 1, 2, np.nan])
    assert marginal_distance(LEVEL, holes, holes[holes == holes])[0] == 0
    assert math.isnan(marginal_distance(NUMBER, holes * np.nan, holes)[0])


def test_marginal_distances_are_those_of_scipy():
    from scipy.stats import ks_2samp, wasserstein_distance

    a, b = np.random.default_rng(0).normal(size=70), np.random.default_rng(1).exponential(size=55).round(1)
    distance, shift = marginal_distance(NUMBER, a, b)
    assert distance == pytest.approx(ks_2samp(a, b).statistic)
    assert shift == pytest.approx(wasserstein_distance(a, b) / a.std())


def test_associations_are_what_they_are_called():
    from scipy.stats import spearmanr
    from scipy.stats.contingency import association

    x = rows(400, 0, holes=0.2)
    found = associations(x, COLUMNS)
    assert np.allclose(found, found.T) and (np.diag(found) == 1).all()
    both = ~np.isnan(x[:, 2]) & ~np.isnan(x[:, 3])
    counts = np.histogram2d(x[both, 2], x[both, 3], bins=(3, 2))[0].astype(int)
    assert found[2, 3] == pytest.approx(association(counts, "cramer"))
    whole = rows(300, 1)
    found = associations(whole, COLUMNS)
    assert found[0, 1] == pytest.approx(spearmanr(whole[:, 0], whole[:, 1]).statistic)
    # of two levels the correlation ratio is the absolute correlation
    ranks = whole[:, 0].argsort().argsort()
    assert found[0, 3] == pytest.approx(abs(np.corrcoef(ranks, whole[:, 3])[0, 1]))
    one = whole.copy()
    one[:, 2] = 1
    assert np.isnan(associations(one, COLUMNS)[2, [0, 1, 3]]).all()
    assert difference(found, associations(one, COLUMNS)) == 0


def test_a_level_that_is_a_number_has_association_one():
    level = np.random.default_rng(0).integers(3, size=200).astype(float)
    x = np.stack([level * 7 - 2, level, 2 - level], 1)
    found = associations(x, (NUMBER, LEVEL, Column("again", "category", ("x", "y", "z"))))
    assert found == pytest.approx(np.ones((3, 3)))


def test_the_area_under_the_curve_counts_pairs():
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    high, low = generator.normal(0.5, 1, 90).round(1), generator.normal(0, 1, 60).round(1)
    found = area_under_curve(high, low)
    truth = np.arange(150) < 90
    assert found.mean == pytest.approx(roc_auc_score(truth, np.concatenate([high, low])))
    again = [area_under_curve(generator.normal(0.5, 1, 90), generator.normal(0, 1, 60)).mean for _ in range(400)]
    assert found.standard_error == pytest.approx(np.std(again), rel=0.15)
    sure = area_under_curve(np.ones(20), np.zeros(20))
    assert sure.mean == 1 and sure.standard_error > 0


def test_rows_of_the_same_distribution_cannot_be_told_apart():
    found = fidelity(rows(3000, 0, 0.1), rows(600, 1, 0.1), rows(3000, 2), COLUMNS)
    assert found.rows == 600 and found.sets == 5
    for told in (found.told_apart.synthetic, found.told_apart.real):
        assert abs(told.mean - 0.5) < 4 * told.standard_error < 0.1
    for marginal in found.marginals:
        distance = marginal.distance
        assert distance.synthetic.mean == pytest.approx(distance.real.mean, abs=0.03)
        assert (marginal.shift is None) == marginal.column.is_level
    assert found.pairs.synthetic.mean == pytest.approx(found.pairs.real.mean, abs=0.02)


def test_shuffled_columns_keep_their_marginals_and_lose_their_correlations():
    held_out = rows(1000, 1)
    # the same rows, so that the distance of samples is nothing
    found = fidelity(rows(1000, 0), held_out, shuffled(held_out), COLUMNS)
    for marginal in found.marginals:
        assert marginal.distance.synthetic.mean == 0 < marginal.distance.real.mean
    truth = associations(held_out, COLUMNS)
    lost = np.abs(truth[np.tril_indices(4, -1)]).mean()
    assert found.pairs.synthetic.mean == pytest.approx(lost, abs=0.05)
    assert found.pairs.real.mean < 0.05
    assert found.told_apart.synthetic.mean > 0.8 > 0.6 > found.told_apart.real.mean


def test_holes_alone_do_not_tell_rows_apart():
    held_out = rows(600, 1, holes=0.5)
    found = fidelity(rows(600, 0, holes=0.5), held_out, rows(600, 2), COLUMNS)
    assert abs(found.told_apart.synthetic.mean - 0.5) < 4 * found.told_apart.synthetic.standard_error
    given = with_holes(rows(1500, 2), held_out)
    assert (np.isnan(given) == np.isnan(np.tile(held_out, (3, 1))[:1500])).all()


def test_what_is_far_off_is_far_off():
    held_out = rows(300, 1)
    found = fidelity(rows(300, 0), held_out, held_out + np.array([9, 0, 0, 0]), COLUMNS)
    first = found.marginals[0]
    assert first.distance.synthetic.mean > 0.99
    assert first.shift.synthetic.mean == pytest.approx(9 / held_out[:, 0].std())
    assert found.told_apart.synthetic.mean > 0.99


@pytest.mark.parametrize("target", ["sold", "kind", "size"])
def test_utility_of_the_real_rows_is_that_of_real_rows(target):
    train = rows(800, 0, holes=0.1)
    found = utility(train, rows(300, 1, holes=0.1), train, COLUMNS, target, seed=3)
    # the same rows in another order, with the holes of others on top
    names = {"sold": ["f1_macro", "accuracy", "auc"], "kind": ["f1_macro", "accuracy"], "size": ["r2"]}[target]
    assert list(found.scores) == names and 700 < found.rows < 760 and 250 < found.tested < 290
    for score in found.scores.values():
        assert 0 < score.real.standard_error < 0.06
        assert abs(score.synthetic.mean - score.real.mean) < 3 * score.real.standard_error
    assert found.scores[names[0]].real.mean > 0.5


def test_utility_of_shuffled_rows_is_nothing():
    train, test = rows(800, 0), rows(400, 1)
    found = utility(train, test, shuffled(train), COLUMNS, "sold")
    assert abs(found.scores["auc"].synthetic.mean - 0.5) < 0.1 < 0.2 < found.scores["auc"].real.mean - 0.5
    assert utility(train, test, shuffled(train), COLUMNS, "size").scores["r2"].synthetic.mean < 0.1
    one = train.copy()
    one[:, 3] = 1
    scores = utility(train, test, one, COLUMNS, "sold").scores
    assert scores["auc"].synthetic.mean == 0.5
    assert scores["accuracy"].synthetic.mean == pytest.approx(test[:, 3].mean())


def test_a_level_that_occurs_once_is_no_mistake():
    train = rows(10_500, 0)
    train[:, 2] = np.minimum(train[:, 2], 1)
    train[17, 2] = 2
    found = utility(train, rows(100, 1), train, COLUMNS, "kind")
    assert found.scores["accuracy"].synthetic.mean == pytest.approx(found.scores["accuracy"].real.mean, abs=0.05)


def test_f1_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score

    generator = np.random.default_rng(0)
    truth, said = generator.integers(4, size=(2, 50)).astype(float)
    assert f1_macro(truth, said, 6) == pytest.approx(f1_score(truth, said, average="macro"))


def test_rows_that_are_new_give_nothing_away():
    found = privacy(rows(1000, 0, 0.1), rows(1000, 1, 0.1), rows(1000, 2), COLUMNS)
    assert abs(found.nearer.mean - 0.5) < 4 * found.nearer.standard_error < 0.12
    assert abs(found.by_rows.mean - 0.5) < 4 * found.by_rows.standard_error < 0.08
    for part in (found.median, found.nearest):
        assert part.synthetic.mean == pytest.approx(part.real.mean, rel=0.25)
    assert found.by_bound is None and found.rows == found.bank == 1000


def test_copied_training_rows_are_found():
    train = rows(500, 0)
    found = privacy(train, rows(500, 1), np.random.default_rng(0).permutation(train), COLUMNS)
    assert found.nearer.mean == 1 and found.copies.synthetic.mean == 1 and found.copies.real.mean == 0
    assert found.median.synthetic.mean == 0 < found.median.real.mean
    assert found.by_rows.mean == 1
    half = np.concatenate([train[:250], rows(250, 2)])
    found = privacy(train, rows(500, 1), half, COLUMNS)
    assert found.copies.synthetic.mean == pytest.approx(0.5)
    assert found.nearer.mean > 0.7 and 0.6 < found.by_rows.mean < 0.95


def test_a_table_of_few_different_rows_is_no_leak():
    levels = (Column("a", "binary", ("x", "y")), LEVEL)
    draw = lambda seed: np.random.default_rng(seed).integers([2, 3], size=(400, 2)).astype(float)
    found = privacy(draw(0), draw(1), draw(2), levels)
    assert found.copies.synthetic.mean == found.copies.real.mean == 1
    assert abs(found.nearer.mean - 0.5) < 4 * found.nearer.standard_error
    assert found.by_rows.mean == 0.5


def test_a_copy_equals_a_row_in_all_that_is_known_of_both():
    bank = np.array([[1.0, 2, 3, 4], [5, np.nan, np.nan, 8], [np.nan, np.nan, np.nan, 7]])
    asked = np.array([[1.0, 2, 3, 4], [1, 2, 3, 5], [np.nan, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 7], [5, 6, 7, np.nan]])
    assert is_copy(asked, bank).tolist() == [True, False, True, True, False, False]


def test_the_bound_of_an_overfitted_model_tells_who_was_trained_on():
    x = rows(100, 0), rows(100, 1), rows(100, 2)
    assert privacy(*x, COLUMNS, bounds=(np.arange(50.0) + 100, np.arange(50.0))).by_bound.mean == 1
    same = np.arange(50.0)
    assert privacy(*x, COLUMNS, bounds=(same, same)).by_bound.mean == pytest.approx(0.5)


def test_many_columns_are_looked_at_on_few_rows():
    many = [Column(f"c{i}", "real") for i in range(500)]
    draw = lambda seed: np.random.default_rng(seed).normal(size=(900, 500))
    found = privacy(draw(0), draw(1), draw(2), many)
    assert found.rows == 400 and found.nearer.mean == pytest.approx(0.5, abs=0.3)


def test_mistakes_are_refused():
    x = rows(50, 0)
    with pytest.raises(ValueError, match=r"held_out has 9 rows, and 10 are needed; synthetic has 3 columns, and 4 are"):
        fidelity(x, x[:9], x[:, :3], COLUMNS)
    with pytest.raises(ValueError, match="there is no column 'colour' to predict from others: the columns are size"):
        utility(x, x, x, COLUMNS, "colour")
    lacking = x.copy()
    lacking[5:, 3] = np.nan
    with pytest.raises(ValueError, match="5 rows to train on and 50 to test on know 'sold'"):
        utility(lacking, x, x, COLUMNS, "sold")


def table_of(n=400):
    pytest.importorskip("pyarrow")
    from lowerbound.data import frame

    x = rows(n, 5, holes=0.05)
    cells = {c.name: [None if v != v else v.item() for v in x[:, i].round(2)] for i, c in enumerate(COLUMNS[:2])}
    for i in (2, 3):
        levels = COLUMNS[i].levels
        cells[COLUMNS[i].name] = [None if v != v else levels[int(v)] for v in x[:, i]]
    return frame(cells)


def test_rows_as_written_are_those_of_the_table():
    data = table_of()
    known = data.x.float()
    assert np.array_equal(as_written(known, data), known.numpy(), equal_nan=True)
    wild = known.nan_to_num() + torch.tensor([0.0012, 1e6, 0.0, 0.0])
    written = as_written(wild, data)
    assert np.allclose(written[:, 0], known[:, 0].nan_to_num(), atol=1e-6)
    assert written[:, 1] == pytest.approx(np.full(len(data.x), data.columns[1].high))


def test_an_assessment_says_it_all_and_leaves_no_trace():
    data = table_of()
    described = [column.table() for column in data.columns]
    torch.manual_seed(1)
    model = recipes.table(columns=described, latent=2, hidden=(8,))
    before = torch.get_rng_state()
    found = assess(model, data, target="sold", k=5)
    assert torch.equal(torch.get_rng_state(), before) and model.training
    said = found.summary()
    assert said == assess(model, data, target="sold", k=5).summary()
    assert [column["name"] for column in said["columns"]] == ["size", "weight", "kind", "sold"]
    assert said["columns"][2]["wasserstein"] is None and said["columns"][0]["wasserstein"]["real"]["mean"] > 0
    assert said["rows"] == 40 and said["fidelity"]["rows"] == 40 and said["fidelity"]["sets"] == 8
    assert set(said["utility"]["scores"]) == {"f1_macro", "accuracy", "auc"} and said["privacy"]["by_bound"]["mean"]
    assert assess(model, data, k=5).utility is None
    with pytest.raises(ValueError, match="only rows that were not trained on"):
        assess(model, data, split="train")
