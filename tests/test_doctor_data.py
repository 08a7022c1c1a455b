"""The doctor on data: estimates against known truths, and each illness by its name."""

import lzma
import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from lowerbound import experiment, recipes
from lowerbound.columns import Column
from lowerbound.data import Data, split
from lowerbound.doctor import codecs, copies, values
from lowerbound.doctor.data import CHECKS, examine_data
from lowerbound.doctor.finding import status
from lowerbound.doctor.neighbours import distances, intrinsic_dimension
from lowerbound.doctor.sample import Sample, first_equal
from lowerbound.doctor.spectrum import Spectrum, smallest_good
from lowerbound.objectives import Elbo
from lowerbound.run import TABLES


def plane(n=600, d=12, directions=3, noise=0.1):
    """Rows near a subspace."""
    return torch.randn(n, directions) @ torch.randn(directions, d) + noise * torch.randn(n, d)


def made(x, **more):
    return Data("made", x, more.pop("parts", None) or split(len(x)), **more)


def examined(data, recipe="array", **model):
    """What is found in data, by name."""
    run = {kind: {} for kind in TABLES} | {"data": {"name": recipe}, "model": model}
    experiment.complete(run, data)
    return {finding.name: finding for finding in examine_data(run, data)}


def ill(found):
    return {name for name, finding in found.items() if finding.verdict == "finding"}


# neighbours


@pytest.mark.parametrize("own", [True, False])
def test_distances_are_those_of_all_pairs(own, monkeypatch):
    monkeypatch.setattr("lowerbound.doctor.neighbours.AT_ONCE", 500)  # in batches
    rows = 1e4 + torch.randn(70, 5)
    rows[3] = rows[40]
    queries = rows[:30] if own else 1e4 + torch.randn(30, 5)
    pairs = (queries.double()[:, None] - rows.double()).norm(dim=-1)
    if own:
        pairs[range(30), range(30)] = math.inf
    torch.testing.assert_close(
        distances(queries, rows, 4, own=own).double(), pairs.sort(1).values[:, :4], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_the_intrinsic_dimension_of_a_cube_is_found_wherever_it_lies(d):
    cube = torch.rand(4000, d, dtype=torch.float64) @ torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q[:d]
    found = intrinsic_dimension(distances(cube[:2000], cube, 2, own=True))
    # borders make it a little too small, the more the higher it is
    assert abs(found.mean - d) < 4 * found.standard_error + 0.02 * d**2


def test_the_intrinsic_dimension_bends_with_the_rows():
    t = torch.rand(2000) * 9
    roll = torch.stack([t * t.cos(), t * t.sin(), 10 * torch.rand(2000)], 1)
    found = intrinsic_dimension(distances(roll, roll, 2, own=True))
    assert abs(found.mean - 2) < 4 * found.standard_error + 0.05


def test_the_standard_error_is_the_scatter_of_estimates():
    found = []
    for _ in range(60):
        rows = torch.rand(400, 2)
        found.append(intrinsic_dimension(distances(rows, rows, 2, own=True)))
    scatter = torch.tensor([each.mean for each in found]).std().item()
    assert scatter == pytest.approx(np.mean([each.standard_error for each in found]), rel=0.35)


def test_without_different_neighbours_there_is_no_dimension():
    grid = torch.cartesian_prod(torch.arange(20.0), torch.arange(20.0))
    assert intrinsic_dimension(distances(grid, grid, 2, own=True)) is None
    assert intrinsic_dimension(distances(torch.rand(9, 2), torch.rand(9, 2), 2)) is None


# the spectrum


@pytest.mark.parametrize("n, d", [(200, 7), (20, 40)])
def test_a_spectrum_is_that_of_the_covariance(n, d):
    x = plane(n, d, 4).double() + 30
    spectrum = Spectrum.of(x)
    covariance = torch.cov(x.T, correction=0)
    values, directions = spectrum.values, spectrum.directions
    torch.testing.assert_close(directions.T * values @ directions, covariance)
    torch.testing.assert_close(directions @ directions.T, torch.eye(len(values), dtype=torch.float64))
    assert len(values) == min(n - 1, d) and bool((values.diff() <= 0).all())


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_log_densities_are_those_of_the_normals_that_they_stand_for(least):
    x, new = plane(300, 6).double(), plane(50, 6).double()
    spectrum = Spectrum.of(x)
    found = spectrum.log_density(new, 6, least)
    for size in range(6):
        noise = spectrum.noise(size, least)
        variances = torch.full((6,), noise, dtype=torch.float64)
        variances[:size] = spectrum.values[:size].clamp(min=noise)
        covariance = spectrum.directions.T * variances @ spectrum.directions
        exact = MultivariateNormal(spectrum.mean, covariance).log_prob(new)
        torch.testing.assert_close(found[:, size], exact)


def test_the_noise_that_is_learned_is_that_of_greatest_likelihood():
    x = plane(300, 6).double()
    spectrum = Spectrum.of(x)
    for size in (1, 2, 4):
        noise = spectrum.noise(size)

        def likelihood(scale, size=size, noise=noise):
            variances = torch.full((6,), noise * scale, dtype=torch.float64)
            variances[:size] = spectrum.values[:size]
            covariance = spectrum.directions.T * variances @ spectrum.directions
            return MultivariateNormal(spectrum.mean, covariance).log_prob(x).mean()

        assert likelihood(1.0) > max(likelihood(0.9), likelihood(1.1))


def test_a_size_is_as_large_as_held_out_rows_bear_and_no_larger():
    torch.manual_seed(3)
    x = plane(4000, 10, 3, noise=0.5)
    assert smallest_good(Spectrum.of(x[:3000]).log_density(x[3000:].double(), 10)) == 3
    noise = torch.randn(4000, 10)
    assert smallest_good(Spectrum.of(noise[:3000]).log_density(noise[3000:].double(), 10)) == 0


VARIANCES = torch.tensor([9.0, 4.0, 1.0, 0.25, 0.09, 0.04], dtype=torch.float64)


def rows_of(variances, n=500):
    """Rows whose covariance has exactly these eigenvalues."""
    x = torch.randn(n, len(variances), dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0)).Q * (n * variances).sqrt()
    return x @ torch.linalg.qr(torch.randn(len(variances), len(variances), dtype=torch.float64)).Q


@pytest.mark.parametrize("scale, kept", [(0.1, 4), (0.7, 3), (1.4, 2), (5.0, 0), ("shared", 4)])
def test_a_linear_vae_at_its_optimum_keeps_as_many_dimensions_as_forecast(scale, kept):
    x = rows_of(VARIANCES)
    n, d, latent = len(x), len(VARIANCES), 4
    encode, decode = (0.3 * torch.randn(shape, dtype=torch.float64) for shape in ((d, latent), (latent, d)))
    log_s = torch.zeros(latent, dtype=torch.float64)
    log_noise = torch.zeros((), dtype=torch.float64) if scale == "shared" else 2 * torch.tensor(scale).double().log()
    free = [encode, decode, log_s, *([log_noise] if scale == "shared" else [])]
    for parameter in free:
        parameter.requires_grad_()
    optimizer = torch.optim.LBFGS(
        free, max_iter=3000, line_search_fn="strong_wolfe", tolerance_grad=1e-9, tolerance_change=1e-13
    )

    def loss():
        """Minus the ELBO, exactly: all of it is known for linear maps."""
        optimizer.zero_grad()
        mean, s = x @ encode, log_s.exp()
        error = (x - mean @ decode).square().sum() / n + (s.square()[:, None] * decode.square()).sum()
        distortion = 0.5 * (d * (math.log(2 * math.pi) + log_noise) + error / log_noise.exp())
        rate = 0.5 * (mean.square().sum() / n + (s.square() - 1 - 2 * log_s).sum())
        (distortion + rate).backward()
        return distortion + rate

    optimizer.step(loss)
    spectrum = Spectrum.of(x)
    noise = spectrum.noise(latent) if scale == "shared" else scale**2
    assert spectrum.kept(latent, noise) == kept
    means = (x @ encode).detach()
    activity = torch.linalg.eigvalsh(torch.cov(means.T, correction=0)).flip(0)
    assert int((activity > 0.01).sum()) == kept
    torch.testing.assert_close(activity, (1 - noise / VARIANCES[:latent]).clamp(min=0), rtol=1e-2, atol=1e-3)
    assert log_noise.exp().item() == pytest.approx(noise, rel=1e-3)


def test_the_forecast_holds_for_a_recipe_in_training():
    x = rows_of(VARIANCES).float()
    model = recipes.mlp(event=(6,), latent=4, hidden=(), family="normal", scale=1.4)
    optimizer, objective = torch.optim.Adam(model.parameters(), lr=0.02), Elbo()
    for step in range(1000):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 1000)
        optimizer.zero_grad()
        (-objective(model(x), step=torch.tensor(step)).mean()).backward()
        optimizer.step()
    activity = torch.linalg.eigvalsh(torch.cov(model.encoder(x).mean.T))
    assert int((activity > 0.01).sum()) == Spectrum.of(x).kept(4, 1.4**2) == 2


# codecs


def test_compressors_are_measured_in_bits_for_each_element():
    noise = torch.randint(0, 256, (40, 1, 16, 16), dtype=torch.uint8)
    assert 8 < codecs.png(noise, 256) < 8.7 and 8 < codecs.xz(noise) < 8.2
    flat = torch.full((40, 3, 16, 16), 7, dtype=torch.uint8)
    assert codecs.png(flat, 256) < 0.1 and codecs.xz(flat) < 0.1
    bits = torch.randint(0, 2, (40, 1, 16, 16), dtype=torch.uint8)
    assert 1 < codecs.png(bits, 2) < 1.5
    assert codecs.xz(noise) == 8 * len(lzma.compress(noise.numpy().tobytes())) / noise.numel()


def test_numbers_are_stored_in_as_few_bytes_as_hold_them():
    small = torch.randint(0, 256, (500, 9))
    assert codecs.xz(small) == codecs.xz(small.to(torch.uint8))
    assert 16 < codecs.xz(torch.randint(0, 65_536, (500, 9))) < 16.3


# copies


def test_the_first_of_equal_rows_is_found():
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, -0.0], [2.0, 0.0], [0.0, 1.0]])
    assert first_equal(x).tolist() == [0, 1, 0, 1, 4]
    many = torch.randint(0, 3, (9000, 3), dtype=torch.uint8)
    first = first_equal(many)
    assert len(first.unique()) == 27 and bool((many[first] == many).all()) and bool((first <= torch.arange(9000)).all())


@pytest.mark.parametrize("d", [1, 2, 4])
def test_small_distances_are_as_frequent_as_expected_by_chance(d):
    near = distances(torch.rand(4000, d, dtype=torch.float64), torch.rand(4000, d, dtype=torch.float64), 10)
    share = (near[:, 0] < copies.NEAR * near[:, copies.FAR - 1]).double().mean().item()
    expected = copies.expected_share(near)
    exact = 1 - (1 - copies.NEAR**d) ** (copies.FAR - 1)
    assert expected == pytest.approx(exact, rel=0.15, abs=1e-3)
    assert share == pytest.approx(exact, abs=4 * math.sqrt(exact / 4000) + 0.1 * exact)


def test_duplicates_and_leaks_are_counted():
    x = plane(500)
    x[400:] = x[:100]
    parts = dict(zip(("train", "valid", "test"), torch.arange(500).split([400, 60, 40]), strict=True))
    found = examined(made(x, parts=parts))
    assert {"duplicates", "leakage between splits"} <= ill(found)
    assert found["duplicates"].number == 0.2 and found["leakage between splits"].number == 1.0
    assert "100 of 500" in found["duplicates"].what and "numpy.unique" in found["duplicates"].remedy[0]


def test_rows_that_must_be_equal_are_no_duplicates():
    found = examined(made(torch.randint(0, 2, (600, 4), dtype=torch.uint8), levels=2))
    assert not ill(found) and "few different rows are possible" in found["duplicates"].what


def test_altered_copies_across_splits_are_found():
    x = plane(900)
    x[500:] = x[:400] + 1e-4 * torch.randn(400, 12)
    found = examined(made(x))
    assert ill(found) == {"near duplicates across splits"}
    assert found["near duplicates across splits"].number > 0.3


# values


def test_columns_that_lie_on_a_grid_are_measured():
    assert values.levels_of(torch.arange(0, 256).float()[:, None] / 255) == (0.0, 255.0, 256)
    low, per_unit, count = values.levels_of(torch.arange(-30, 31).float()[:, None] * 0.25)
    assert (low, per_unit, count) == (-7.5, 4, 61)
    assert values.levels_of(torch.randn(500, 1)) is None and values.levels_of(torch.ones(9, 1)) is None


def test_values_that_come_back_are_counted():
    x = torch.tensor([[1.0, 1.0], [2.0, 1.0], [1.0, 1.0], [3.0, 1.0]])
    assert values.repeated(x).tolist() == [0.5, 1.0]


def test_a_robust_distance_is_that_of_a_normal_and_heeds_no_outlier():
    x = 5 + 3 * torch.randn(20_000, 1)
    spoilt = x.clone()
    spoilt[:100] = 1e9
    far = values.robust_distance(torch.tensor([[5.0], [8.0], [65.0]]), spoilt)
    torch.testing.assert_close(far[:, 0], torch.tensor([0, 1.0, 20.0], dtype=torch.float64), rtol=0.05, atol=0.05)
    assert values.robust_distance(torch.tensor([[7.0]]), torch.ones(50, 1)).item() == 0


def test_images_divided_by_255_are_known_and_the_remedy_undoes_it():
    levels = torch.randint(0, 256, (1000, 1, 8, 8))
    found = examined(made(levels.float() / 255))
    assert ill(found) == {values.GRID} and "divided by 255" in found[values.GRID].what
    (remedy,) = found[values.GRID].remedy
    assert remedy == 'numpy.save("levels.npy", numpy.rint(255 * x).astype("uint8"))'
    x = (levels.float() / 255).numpy()
    assert (np.rint(255 * x).astype("uint8") == levels.numpy()).all()


def test_standardised_levels_are_known_too():
    x = (torch.randint(0, 6, (900, 5)).float() - 2.5) * torch.tensor([1.0, 0.3, 7.1, 0.01, 2.2])
    found = examined(made(x))
    assert values.GRID in ill(found) and found[values.GRID].remedy[0].startswith("model.scale=")
    assert values.GRID not in ill(examined(made(x), scale=0.1))
    # a scale that is shared needs all columns; one that each element has needs one
    x[:, 1:] = torch.randn(900, 4)
    assert values.GRID not in ill(examined(made(x)))
    assert values.GRID in ill(examined(made(x), scale="element"))


def test_integers_under_a_density_are_an_illness_and_noise_heals_it():
    x = torch.randint(0, 17, (400, 6), dtype=torch.uint8)
    found = examined(made(x, levels=17), family="normal")
    assert ill(found) == {values.GRID} and found[values.GRID].remedy == ("model.family=logistic_mixture",)
    assert not ill(examined(made(x, levels=17, noise="dequantize")))
    assert not ill(examined(made(x, levels=17)))


def test_a_likelihood_that_refuses_is_named_with_one_that_does_not():
    x = torch.randint(0, 17, (400, 6), dtype=torch.uint8)
    found = examined(made(x, levels=17), family="bernoulli")
    refused = found["values and likelihood"]
    assert refused.verdict == "finding" and refused.remedy == ("model.family=logistic_mixture", "model.levels=17")
    assert "takes 0 and 1" in refused.what
    healthy = examined(made(torch.rand(400, 6)))["values and likelihood"]
    assert healthy.verdict == "healthy" and "continuous_bernoulli" in healthy.what.split(";")[0]


@pytest.mark.parametrize(
    "spoil, name",
    [
        (lambda x: x[:, 3].fill_(7.0), "constant columns"),
        (lambda x: x[5:, 3].fill_(7.0), "constant columns"),
        (lambda x: x[5, 2].fill_(1e6), "outliers"),
        (lambda x: x.mul_(1e30), "precision"),
        (lambda x: x.mul_(1e-30), "precision"),
        (lambda x: x.add_(1e6), "precision"),
    ],
    ids=["constant", "nearly constant", "outlier", "huge", "tiny", "far from 0"],
)
def test_each_illness_of_a_table_is_named(spoil, name):
    x = plane()
    assert not ill(examined(made(x)))
    spoil(x)
    found = examined(made(x))
    assert name in ill(found) and found[name].remedy and found[name].effect


def test_a_constant_column_costs_nothing_under_a_probability():
    x = torch.randint(0, 9, (400, 6), dtype=torch.uint8)
    x[:, 2] = 4
    found = examined(made(x, levels=9))
    assert not ill(found) and "1 of 6 columns never change" in found["constant columns"].what


# rows, classes, sizes


def test_few_rows_are_too_few():
    found = examined(made(plane(40)))
    assert "number of rows" in ill(found) and found["number of rows"].number == 32
    assert status(list(examined(made(plane(3))).values())) == 1
    assert all(v.number is None or math.isfinite(v.number) for v in examined(made(plane(3))).values())
    parts = dict(zip(("train", "valid", "test"), torch.arange(600).split([500, 90, 10]), strict=True))
    assert examined(made(plane(600), parts=parts))["number of rows"].threshold == 30


def test_classes_are_weighed():
    labels = torch.arange(600) % 4
    balanced = examined(made(plane(600), labels=labels))["class balance"]
    assert balanced.verdict == "healthy" and "2.00 bits of at most 2.00" in balanced.what
    labels[labels == 3] = 0
    labels[:3] = 3
    rare = examined(made(plane(600), labels=labels))["class balance"]
    assert rare.verdict == "finding" and rare.number <= 3
    assert "class balance" not in examined(made(plane(600), labels=torch.rand(600, 2)))


def test_labels_may_be_any_whole_numbers():
    labels = torch.arange(600) % 3 - 1  # -1 is what many sets say of rows without a class
    assert "3 classes" in examined(made(plane(600), labels=labels))["class balance"].what


def test_a_check_that_fails_costs_nothing_of_what_others_find(monkeypatch):
    def fail(labels):
        raise RuntimeError("no counts")

    monkeypatch.setitem(CHECKS, "class balance", fail)
    found = examined(made(plane(600)))
    assert found["class balance"].what == "The check broke off: RuntimeError: no counts." and len(found) > 10
    assert status(list(found.values())) == 2


def test_a_remedy_that_is_there_already_is_not_offered():
    found = examined(made(1e-3 * torch.randn(2000, 8)), latent=2, scale=1.0)["forecast of collapse"]
    assert found.verdict == "finding" and found.remedy == ("model.scale=shared",)
    x = torch.randint(0, 2, (600, 6), dtype=torch.uint8)
    found = examined(made(x, levels=2), latent=2)["forecast of collapse"]
    assert "model.latent=2" not in found.remedy


def test_a_latent_space_can_be_too_small_and_too_large():
    torch.manual_seed(1)
    x = plane(2000, 20, 8, noise=0.05)
    assert ill(examined(made(x), latent=2)) == {"latent size"}
    assert not ill(examined(made(x), latent=8))
    digits = recipes.DATA["digits"]()
    found = examined(digits, "digits", latent=512)
    assert "forecast of collapse" in ill(found) and found["forecast of collapse"].number > 448
    (remedy,) = found["forecast of collapse"].remedy
    assert "forecast of collapse" not in ill(examined(digits, "digits", latent=int(remedy.partition("=")[2])))


def test_a_scale_that_is_too_large_is_foreseen_to_collapse():
    x = plane()
    found = examined(made(x), scale=10 * float(x.std()))
    assert ill(found) == {"forecast of collapse"} and found["forecast of collapse"].remedy == ("model.scale=shared",)
    assert not ill(examined(made(x), scale=0.1))


def test_noise_has_no_size():
    found = examined(made(torch.randn(2000, 8)))
    assert found["latent size"].verdict == "unknown" and not ill(found)


def test_the_size_of_a_spatial_space_counts_its_cells():
    data = made(torch.randint(0, 256, (60, 1, 16, 16), dtype=torch.uint8), levels=256)
    run = {kind: {} for kind in TABLES} | {"model": {"name": "conv", "spatial": True, "latent": 3}}
    run["data"] = {"name": "array"}
    experiment.complete(run, data)
    assert Sample(run, data).latent == 3 * 4 * 4


def test_bits_to_beat_are_those_of_what_the_model_sees():
    grey = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8)
    found = examined(made(grey, levels=256))
    assert 8 < found["bits/dim to beat: xz"].number < 10 and "is the better" in found["bits/dim to beat: xz"].what
    bits = examined(made(grey, levels=256, noise="binarize"))
    assert bits["bits/dim to beat: PNG"].number < found["bits/dim to beat: PNG"].number
    assert "1.00" in bits["bits/dim to beat: PNG"].what
    real = examined(made(plane()))
    assert real["bits/dim to beat: xz"].number is None and "bits/dim to beat: PNG" not in real


@pytest.mark.parametrize("name", ["digits", pytest.param("glyphs", marks=pytest.mark.slow)])
def test_sets_that_come_with_the_package_are_healthy(name):
    found = examined(recipes.DATA[name](), name)
    assert not ill(found) and status(list(found.values())) == 0
    assert all(finding.what.endswith(".") and len(finding.what) < 300 for finding in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_sets_of_the_literature_are_healthy(name):
    try:
        data = recipes.DATA[name]()
    except OSError as error:
        pytest.skip(str(error))
    found = examined(data, name)
    assert not ill(found)
    # the published estimates for MNIST lie between 12 and 14: Facco et al. 2017
    assert name == "fashion" or 12 < found["intrinsic dimension"].number < 15


def test_of_a_table_it_looks_at_what_holds_for_columns_of_any_kind(tmp_path):
    """And nothing breaks off."""
    pytest.importorskip("pyarrow")
    rows = [f"{i % 7},{i * 0.37 % 5:.2f},{'abc'[i % 3]},{'' if i % 5 == 0 else i % 2}" for i in range(200)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,d", *rows]) + "\n")
    run = {kind: {} for kind in TABLES} | {"data": {"name": "table", "path": str(tmp_path / "t.csv")}}
    data = experiment.open_data(run)
    experiment.complete(run, data)
    found = {finding.name: finding for finding in examine_data(run, data)}
    assert {"precision", "number of rows", "duplicates", "leakage between splits"} <= set(found)
    assert not any("broke off" in finding.what for finding in found.values())


def test_few_rows_of_a_table_with_holes_are_told():
    x = torch.randn(60, 3)
    for i in range(3):
        x[i::3, i] = math.nan
    found = examined(made(x, columns=tuple(Column(f"c{i}", "real") for i in range(3))), "table")
    assert found["precision"].verdict == "healthy"
    assert found["number of rows"].verdict == "finding" and "learned by heart" in found["number of rows"].what
