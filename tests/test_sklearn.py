"""The estimator: scikit-learn's own checks, exact densities and conditionals, and frames that come back."""

import datetime
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from lowerbound import load_model, save_model
from lowerbound.run import as_typed
from lowerbound.sklearn import TabularVAE
from lowerbound.train import tensors


def small(**given):
    return TabularVAE(**{"latent": 2, "hidden": [8], "steps": 10, "random_state": 0} | given)


@parametrize_with_checks([small(random_state=None, steps=5)])
def test_scikit_learn_finds_no_fault(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([small(random_state=None, steps=5, contamination=0.1, valid=0, k=1)])
def test_scikit_learn_finds_no_fault_in_other_settings(estimator, check):
    check(estimator)


class Truth:
    """A normal with a low-rank part, of which every marginal and conditional is known."""

    loadings = np.array([[3.0, 0.0], [2.0, 1.0], [-1.0, 2.0], [0.5, -1.0]])
    mean = np.array([100.0, -20.0, 0.0, 1e5])
    units = np.array([1.0, 10.0, 0.01, 5.0])

    def __init__(self):
        self.covariance = (self.loadings @ self.loadings.T + 0.49 * np.eye(4)) * np.outer(self.units, self.units)

    def sample(self, n, seed):
        return np.random.default_rng(seed).multivariate_normal(self.mean, self.covariance, n)

    def log_prob(self, x, places=(0, 1, 2, 3)):
        at = list(places)
        normal = torch.distributions.MultivariateNormal(
            torch.from_numpy(self.mean[at]), torch.from_numpy(self.covariance[np.ix_(at, at)])
        )
        return normal.log_prob(torch.from_numpy(x[:, at])).numpy()

    def conditional(self, x, place):
        """Mean of one column given the others, and its standard deviation."""
        rest = [i for i in range(4) if i != place]
        gain = np.linalg.solve(self.covariance[np.ix_(rest, rest)], self.covariance[rest, place])
        left = self.covariance[place, place] - gain @ self.covariance[rest, place]
        return self.mean[place] + (x[:, rest] - self.mean[rest]) @ gain, left**0.5


@pytest.fixture(scope="module")
def truth():
    return Truth()


@pytest.fixture(scope="module")
def learnt(truth):
    """An estimator that has learnt that normal."""
    estimator = TabularVAE(latent=2, hidden=[32], real="normal", steps=1500, batch=128, lr=4e-3, random_state=0)
    return estimator.fit(truth.sample(3000, 0))


def test_scores_come_near_the_exact_density_in_the_data_s_units(truth, learnt):
    x = truth.sample(1000, 1)
    found, exact = learnt.score_samples(x), truth.log_prob(x)
    assert -0.02 < (exact - found).mean() < 0.15, "the mean gap is a divergence: never below 0 but by chance"
    assert np.corrcoef(exact, found)[0, 1] > 0.97
    assert learnt.score(x) == pytest.approx(found.mean())
    holes = x.copy()
    holes[:, [1, 3]] = np.nan
    gap = truth.log_prob(x, (0, 2)) - learnt.score_samples(holes)
    assert -0.02 < gap.mean() < 0.15, "what is missing is summed out"
    # one row's score has nothing to do with the rows beside it
    assert np.allclose(learnt.score_samples(x[7:8]), found[7], rtol=1e-9)


def test_holes_are_filled_by_the_exact_conditional_mean(truth, learnt):
    x = truth.sample(1000, 2)
    for place in (0, 2, 3):
        holes = x.copy()
        holes[:, place] = np.nan
        best, left = truth.conditional(x, place)
        filled = learnt.impute(holes, k=200)
        known = [i for i in range(4) if i != place]
        assert np.array_equal(filled[:, known], x[:, known]), "to the last bit"
        assert np.sqrt(np.mean((filled[:, place] - best) ** 2)) < 0.35 * left
        error, plain = np.mean((filled[:, place] - x[:, place]) ** 2), truth.covariance[place, place]
        assert error / plain == pytest.approx(left**2 / plain, rel=0.15), "as far below the mean's as can be"
    draws = learnt.impute(holes, k=200, draws=20, random_state=1)
    assert len(draws) == 20
    spread = np.sqrt(np.mean([(rows[:, 3] - best) ** 2 for rows in draws]))
    assert spread == pytest.approx(left, rel=0.15)


def test_new_rows_have_the_moments_of_the_old(truth, learnt):
    rows = learnt.sample(5000, random_state=3)
    assert np.all(np.abs(rows.mean(0) - truth.mean) < 0.15 * np.sqrt(np.diag(truth.covariance)))
    sizes = np.sqrt(np.outer(np.diag(truth.covariance), np.diag(truth.covariance)))
    assert np.all(np.abs(np.cov(rows.T) - truth.covariance) < 0.2 * sizes)
    assert np.array_equal(learnt.sample(4, random_state=3), learnt.sample(4, random_state=3))
    assert not np.array_equal(learnt.sample(4, random_state=3), learnt.sample(4, random_state=4))
    x = truth.sample(200, 4)
    again = learnt.inverse_transform(learnt.transform(x))
    explained = 1 - (x - again).var(0) / x.var(0)
    share = 1 - 0.49 * truth.units**2 / np.diag(truth.covariance)
    assert np.all(explained > share - 0.12), "what two dimensions can say of each column"


def test_what_lies_far_away_is_an_outlier(truth, learnt):
    x = truth.sample(500, 5)
    assert np.mean(learnt.predict(x) == -1) == pytest.approx(0.01, abs=0.015), "a part of 1 in 100 is rare"
    strange = x[:100].copy()
    usual, left = truth.conditional(strange, 0)
    strange[:, 0] = usual - 6 * left * np.sign(usual - truth.mean[0])
    inside = np.abs(strange[:, 0] - truth.mean[0]) < 2.5 * truth.covariance[0, 0] ** 0.5
    assert inside.sum() > 20 and np.mean(learnt.predict(strange)[inside] == -1) > 0.95, "each column alone is usual"
    assert np.array_equal(learnt.decision_function(x), learnt.score_samples(x) - learnt.offset_)
    planted = np.concatenate([x[:190], x[:10] + 30 * truth.units])
    found = TabularVAE(contamination=0.05, real="normal", hidden=[16], steps=300, random_state=0).fit_predict(planted)
    assert np.flatnonzero(found == -1).tolist() == list(range(190, 200))


def test_the_same_seed_gives_the_same_and_the_caller_s_noise_is_left_alone(truth):
    x = truth.sample(60, 6)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    a, b, c = (small(random_state=seed).fit(x) for seed in (0, 0, 1))
    z = a.transform(x)
    for use in (a.score_samples, a.impute, a.predict, a.transform):
        use(x)
    a.sample(3, random_state=0), a.inverse_transform(z)
    assert torch.equal(torch.get_rng_state(), states[0]) and np.array_equal(np.random.get_state()[1], states[1])
    assert np.array_equal(z, b.transform(x)) and not np.allclose(z, c.transform(x))
    assert a.offset_ == b.offset_ and a.n_iter_ == 10
    np.random.seed(1)
    first = small(random_state=None).fit(x).offset_
    np.random.seed(1)
    assert small(random_state=None).fit(x).offset_ == first


def test_it_goes_where_estimators_go(truth):
    x = truth.sample(120, 7)
    y = (x[:, 0] > 100).astype(int)
    line = make_pipeline(StandardScaler(), small(steps=150), KNeighborsClassifier()).fit(x, y)
    # four standard deviations above chance, on rows that the neighbours do not hold
    others = truth.sample(400, 8)
    assert line.score(others, others[:, 0] > 100) > 0.6
    assert list(line[:-1].get_feature_names_out()) == ["tabularvae0", "tabularvae1"]
    scores = cross_val_score(small(steps=5), x, cv=2)
    assert scores.shape == (2,) and np.isfinite(scores).all()
    search = GridSearchCV(small(steps=5), {"latent": np.array([1, 3]), "lr": [1e-3]}, cv=2).fit(x)
    assert search.best_params_["latent"] in (1, 3) and search.transform(x).shape[1] == search.best_params_["latent"]
    estimator = small(columns={0: "positive"}, hidden=(8, 8))
    assert clone(estimator).get_params() == estimator.get_params()
    fitted = small().fit(x)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).transform(x), fitted.transform(x))


def test_the_data_decide_what_nobody_else_has(truth):
    x = truth.sample(300, 8)
    made = {choice.key: as_typed(choice.value) for choice in TabularVAE(steps=5, random_state=0).fit(x).choices_}
    assert {"model.latent", "model.hidden", "objective.k", "train.batch"} <= made.keys()
    assert "train.steps" not in made
    run = small(k=3, hide=0.5, real="normal", dropout=0.1, batch=16, weight_decay=0.01, lr=0.1).fit(x).run_
    assert (run["objective"]["k"], run["train"]["hide"], run["model"]["real"]) == (3, 0.5, "normal")
    assert (run["train"]["batch"], run["train"]["lr"], run["train"]["weight_decay"]) == (16, 0.1, 0.01)


def test_columns_that_say_nothing_are_put_back(truth):
    x = np.column_stack([np.full(50, 7.5), truth.sample(50, 9)[:, 0], np.full(50, np.nan), np.arange(50) % 2 * 1.0])
    x[3, 0] = np.nan
    estimator = small().fit(x)
    assert [column.name for column in estimator.columns_] == ["x1", "x3"]
    assert (estimator.sample(4, random_state=0)[:, 0] == 7.5).all()
    filled = estimator.impute(x)
    assert filled[3, 0] == 7.5 and np.isnan(filled[:, 2]).all() and np.array_equal(filled[:, 1], x[:, 1])
    assert estimator.inverse_transform(np.zeros((2, 2))).shape == (2, 4)


def test_large_numbers_close_together_keep_their_digits():
    x = np.random.default_rng(0).normal(size=(400, 2))
    x[:, 1] += 2 * x[:, 0]
    there = TabularVAE(latent=1, hidden=[16], real="normal", steps=200, random_state=0).fit(x)
    far = clone(there).fit(x + 2.0**40)
    assert far.score(x + 2.0**40) == pytest.approx(there.score(x), abs=0.1)
    assert np.abs(far.inverse_transform(far.transform(x + 2.0**40)) - 2.0**40).max() < 10


def test_few_rows_are_all_trained_on(truth):
    few = truth.sample(2, 10)
    assert small().fit(few).transform(few).shape == (2, 2)
    assert small().fit(few).run_["train"]["patience"] == 0
    lonely = truth.sample(40, 11)
    lonely[1:, 3] = np.nan
    lonely[0, 3], lonely[1, 3] = 1.0, 2.0
    for seed in range(3):
        assert np.isfinite(small(random_state=seed).fit(lonely).score(lonely))


@pytest.mark.parametrize("contamination", ["auto", 0.2])
def test_what_is_saved_is_loaded(truth, tmp_path, contamination):
    x = truth.sample(60, 12)
    estimator = small(contamination=contamination).fit(x)
    estimator.save(tmp_path / "vae.safetensors")
    again = TabularVAE.load(tmp_path / "vae.safetensors")
    for use in ("transform", "score_samples", "impute", "predict"):
        assert np.array_equal(getattr(estimator, use)(x), getattr(again, use)(x))
    assert np.array_equal(estimator.sample(3, random_state=0), again.sample(3, random_state=0))
    assert again.get_params() == estimator.get_params() and again.n_features_in_ == 4
    model, run = load_model(tmp_path / "vae.safetensors")
    assert len(run["model"]["columns"]) == 4
    save_model(tmp_path / "other.safetensors", tensors(model), estimator.run_, 1)
    with pytest.raises(ValueError, match=r"was not written by TabularVAE.save"):
        TabularVAE.load(tmp_path / "other.safetensors")


def test_mistakes_are_named(truth):
    x = truth.sample(30, 13)
    for wrong, said in [
        ({"contamination": 0.7}, r"contamination=0.7 must be in \(0, 0.5\]"),
        ({"contamination": "much", "valid": 1.0}, r"valid=1.0 must be in \[0, 1\).*; contamination='much' must be"),
        ({"latent": 0}, "latent=0 must be 1 or more"),
        ({"latent": 1.5}, "latent=1.5 should be a whole number"),
        ({"real": "cauchy"}, "real='cauchy' should be one of"),
        ({"batch": 500}, "batch=500 is more than the 27 rows"),
        ({"device": "abacus"}, "there is no device 'abacus'"),
        ({"columns": {9: "count"}}, "columns says something of 9, and X has 4 columns"),
    ]:
        with pytest.raises(ValueError, match=said):
            small(**wrong).fit(x)
    with pytest.raises(ValueError, match=r"none of the 4 columns of X has two different values"):
        small().fit(np.ones((30, 4)))
    with pytest.raises(ValueError, match=r"1 columns of X vary by more or less .*: x1 from -1e\+200 to 1e\+200"):
        small().fit(np.column_stack([x, np.resize([1e200, -1e200], 30)])[:, [0, 4]])
    with pytest.raises(ValueError, match="infinity"):
        small().fit(np.where(x == x[0, 0], np.inf, x))
    fitted = small().fit(x)
    with pytest.raises(ValueError, match="X has 3 latent dimensions, and the model has 2"):
        fitted.inverse_transform(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="n_samples=0 is too few"):
        fitted.sample(0)
    with pytest.raises(ValueError, match="k=0"):
        fitted.impute(x, k=0)


def people(n=120):
    """Columns of most kinds, with holes."""
    rng = np.random.default_rng(0)
    town = rng.choice(["Ulm", "Bonn", "Kiel"], n)
    height = np.where(town == "Ulm", 150.0, 180.0) + rng.normal(0, 3, n).round(1)
    begin = datetime.datetime(2020, 1, 1)
    return {
        "id": list(range(1000, 1000 + n)),
        "height": [None if i % 7 == 0 else float(v) for i, v in enumerate(height)],
        "visits": [int(v) for v in rng.poisson(60, n)],
        "town": [None if i % 5 == 0 else str(v) for i, v in enumerate(town)],
        "member": [None if i % 9 == 1 else bool(v) for i, v in enumerate(rng.random(n) < 0.5)],
        "since": [begin + datetime.timedelta(int(v)) for v in rng.integers(0, 900, n)],
        "land": ["D"] * n,
    }


def pandas_people():
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(people())
    frame["town"] = pandas.Categorical(frame["town"], ["Kiel", "Bonn", "Ulm", "Trier"])
    frame["visits"] = frame["visits"].astype("int32")
    return frame.set_index(np.arange(len(frame))[::-1] * 3)  # which is no column


def polars_people():
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    return polars.DataFrame(people()).with_columns(polars.col("town").cast(polars.Enum(["Kiel", "Bonn", "Ulm"])))


def arrow_people():
    return pytest.importorskip("pyarrow").table(people())


def cells(frame, name):
    """A column as a list, None where it is missing."""
    column = frame[name]
    found = column.to_pylist() if "pyarrow" in type(column).__module__ else column.to_list()
    return [None if value is None or value != value else value for value in found]


@pytest.mark.parametrize("make", [pandas_people, polars_people, arrow_people])
def test_a_frame_comes_back_as_it_was_but_for_its_holes(make, tmp_path):
    frame, names = make(), list(people())
    estimator = small(steps=1000, hidden=[32]).fit(frame)
    kinds = {column.name: column.kind for column in estimator.columns_}
    assert kinds == {
        "height": "real",
        "visits": "count",
        "town": "ordinal" if make is polars_people else "category",  # which puts the levels in order
        "member": "binary",
        "since": "real",
    }
    assert list(estimator.feature_names_in_) == names
    filled = estimator.impute(frame, k=50)
    assert type(filled) is type(frame)
    for name in names:
        before, after = cells(frame, name), cells(filled, name)
        assert all(a == b for a, b in zip(after, before, strict=True) if b is not None), name
        assert all(value is not None for value in after), name
    town, height = (cells(filled, name) for name in ("town", "height"))
    missing = [i for i, value in enumerate(cells(frame, "town")) if value is None and i % 7]
    right = np.mean([(town[i] == "Ulm") == (height[i] < 165) for i in missing])
    assert right > 0.9, "the height tells it"
    rows = estimator.sample(7, random_state=0)
    assert type(rows) is type(frame) and set(cells(rows, "town")) <= {"Ulm", "Bonn", "Kiel"}
    assert cells(rows, "land") == ["D"] * 7 and cells(rows, "id") == [None] * 7
    expected = estimator.inverse_transform(estimator.transform(frame))
    assert type(expected) is type(frame) and cells(expected, "land") == ["D"] * 120
    assert set(cells(expected, "town")) <= {"Ulm", "Bonn", "Kiel"} and 140 < min(cells(expected, "height")) < 190
    assert np.isfinite(estimator.score_samples(frame)).all() and len(estimator.impute(frame, draws=2, k=5)) == 2
    estimator.save(tmp_path / "people.safetensors")
    again = TabularVAE.load(tmp_path / "people.safetensors")
    assert np.array_equal(again.score_samples(frame), estimator.score_samples(frame))
    assert cells(again.sample(7, random_state=0), "town") == cells(rows, "town")
    assert type(again.sample(7)) is type(frame) and list(again.feature_names_in_) == names


def test_types_and_index_of_pandas_are_kept():
    pandas = pytest.importorskip("pandas")
    frame = pandas_people()
    estimator = small().fit(frame)
    filled = estimator.impute(frame, k=5)
    assert filled.index.equals(frame.index) and list(filled.columns) == list(frame.columns)
    assert (filled.dtypes == frame.dtypes).all()
    assert list(filled["town"].cat.categories) == ["Kiel", "Bonn", "Ulm", "Trier"]
    rows = estimator.sample(5, random_state=0)
    same = [name for name in frame if name != "id"]
    assert (rows[same].dtypes == frame[same].dtypes).all()
    assert estimator.set_output(transform="pandas").transform(frame).index.equals(frame.index)
    scores = cross_val_score(small(steps=5), frame, cv=2)
    assert np.isfinite(scores).all()
    numbered = frame[["height", "visits"]].set_axis([3, 4], axis=1)
    plain = small().fit(numbered)
    assert [column.kind for column in plain.columns_] == ["real", "real"], "such a frame says no more than an array"
    whole = plain.impute(numbered, k=5)
    assert whole.index.equals(frame.index) and (whole.dtypes == numbered.dtypes).all() and whole.notna().all(axis=None)
    assert np.array_equal(whole[3], plain.impute(numbered.to_numpy(), k=5)[:, 0])
    strange = frame.assign(town="Rom")
    with pytest.warns(UserWarning, match="none of its levels, taken as missing: 'Rom'"):
        assert (estimator.impute(strange, k=5)["town"] == "Rom").all(), "what is known stays"
    with pytest.raises(ValueError, match="feature names"):
        estimator.transform(frame.rename(columns={"height": "size"}))
    pandas.testing.assert_frame_equal(frame, pandas_people())


def test_polars_are_an_output_too():
    polars = pytest.importorskip("polars")
    frame = polars_people()
    estimator = small().fit(frame).set_output(transform="polars")
    found = estimator.transform(frame)
    assert isinstance(found, polars.DataFrame) and found.columns == ["tabularvae0", "tabularvae1"]
    assert estimator.impute(frame, k=5).schema == frame.schema
    numbers = frame.select("height", "visits")
    array = numbers.to_numpy().astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn sees names where there were none
        filled = small().fit(array).impute(numbers, k=5)
    assert filled.schema == numbers.schema and not filled["height"].is_nan().any() and not filled["height"].null_count()


def test_more_can_be_said_of_the_columns_of_an_array():
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.poisson(50, 80), rng.normal(size=80), rng.integers(0, 3, 80), np.full(80, 2.0)]).astype(
        float
    )
    x[::6, 2] = np.nan
    estimator = small(columns={0: "count", "x2": "category"}).fit(x)
    assert [column.kind for column in estimator.columns_] == ["count", "real", "category"]
    filled = estimator.impute(x, k=5)
    assert filled.dtype == np.float64 and np.isin(filled[:, 2], [0, 1, 2]).all()
    assert np.array_equal(filled[~np.isnan(x)], x[~np.isnan(x)])
    rows = estimator.sample(9, random_state=0)
    assert (rows[:, 0] == rows[:, 0].round()).all() and (rows[:, 3] == 2).all()
    with pytest.raises(ValueError, match="X has no column 'x9'"):
        small(columns={"x9": "count"}).fit(x)


def test_a_frame_and_an_array_of_its_values_are_the_same_rows():
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    x = Truth().sample(50, 14)
    estimator = small().fit(pandas.DataFrame(x, columns=list("abcd")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn misses the names
        assert np.allclose(estimator.transform(x), estimator.transform(pandas.DataFrame(x, columns=list("abcd"))))
