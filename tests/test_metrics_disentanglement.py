"""Disentanglement: codes whose scores are known, and what must not matter to any of them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lowerbound.data import rendered
from lowerbound.metrics import SCORES, dci, every_score
from lowerbound.metrics.disentanglement import beta_vae_score, factor_vae_score, irs, mig, modularity, sap

SIZES = (3, 4, 5, 4)
BEST = dict.fromkeys([*SCORES, "DCI disentanglement", "DCI completeness", "DCI informativeness"], 1.0)
BEST |= {"SAP": sum(1 - 1 / m for m in SIZES) / len(SIZES)}


def grid(repeats: int = 6) -> Tensor:
    """Every combination of the factors, several times: exactly independent."""
    axes = torch.meshgrid(*[torch.arange(m) for m in SIZES], indexing="ij")
    return torch.stack([axis.flatten() for axis in axes], 1).repeat(repeats, 1)


def standardized(factors: Tensor) -> Tensor:
    return (factors - factors.double().mean(0)) / factors.double().std(0)


def mixed(factors: Tensor) -> Tensor:
    """Codes of which each dimension holds all four factors to the same part."""
    h = torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double()
    return standardized(factors) @ torch.kron(h, h) / 2


@pytest.mark.parametrize(
    "codes",
    [
        lambda f: f.float(),
        lambda f: standardized(f)[:, [2, 0, 3, 1]],
        lambda f: -1e4 * standardized(f).float() + 7e4,
        lambda f: torch.log(1 + f.double())[:, [1, 0, 2, 3]],
    ],
    ids=["as they are", "permuted", "scaled", "bent"],
)
def test_perfect_codes_have_the_best_score(codes):
    factors = grid()
    for name, found in every_score(codes(factors), factors).items():
        # SAP's second best dimension guesses a little better or worse by the accident of the half it learns from
        assert found == pytest.approx(BEST[name], abs=0.03 if name == "SAP" else 1e-6), name


def test_mixed_codes_have_a_clearly_lower_score():
    factors = grid()
    found = every_score(mixed(factors), factors)
    # all is in them still, and a forest finds it
    assert found.pop("DCI informativeness") > 0.9
    assert all(value < BEST[name] - 0.15 for name, value in found.items()), found


@pytest.mark.parametrize("measure", [factor_vae_score, beta_vae_score])
def test_codes_that_a_held_factor_moves_alike_are_told_by_chance(measure):
    """Each factor is a quarter of the variance of each dimension: holding it shows no more in one than in another."""
    factors = torch.randint(0, 4, (3000, 4))
    assert measure(mixed(factors), factors) < 0.45


CHANCE = dict.fromkeys(BEST, (0.0, 0.05)) | {
    "FactorVAE score": (1 / 4, 0.06),
    "beta-VAE score": (1 / 4, 0.08),
    "IRS": (0.0, 0.12),  # of the best of four factors
    "DCI informativeness": (sum(1 / m for m in SIZES) / 4, 0.06),
    # of a dimension that knows nothing the information of a factor is proportional to (levels - 1)
    "modularity": (1 - (2**2 + 3**2 + 3**2) / (3 * 4**2), 0.15),
}


def test_noise_scores_by_chance():
    factors = grid()
    for name, found in every_score(torch.randn(len(factors), 6), factors).items():
        chance, tolerance = CHANCE[name]
        assert found == pytest.approx(chance, abs=tolerance), name


def between(factors: Tensor) -> Tensor:
    """Codes between perfect and mixed, with noise."""
    return 0.7 * standardized(factors) + 0.3 * mixed(factors) + 0.2 * torch.randn(factors.shape).double()


def test_the_order_sign_and_unit_of_dimensions_do_not_matter():
    factors = grid(4)
    codes = between(factors)
    moved = every_score(codes[:, [3, 1, 0, 2]] * torch.tensor([1e3, -1.0, 1e-6, 20.0]).double(), factors)
    for name, found in every_score(codes, factors).items():
        # forests break ties another way
        assert found == pytest.approx(moved[name], abs=0.03 if name.startswith("DCI") else 0.01), name


def test_a_dead_dimension_does_not_matter():
    factors = grid(3)
    codes = between(factors).float()
    dead = torch.tensor([0.0, 0.1, -1e6]).expand(len(codes), 3)
    assert every_score(torch.cat((dead, codes[:, :2], dead, codes[:, 2:]), 1), factors) == every_score(codes, factors)


def test_a_dimension_of_noise_does_not_matter_to_most():
    factors = grid(10)
    found = every_score(torch.cat((standardized(factors), torch.randn(len(factors), 2)), 1), factors)
    for name in found.keys() - {"modularity", "IRS"}:  # the mean over all dimensions, whatever they know
        assert found[name] == pytest.approx(BEST[name], abs=0.04), name


def test_the_labels_of_levels_do_not_matter():
    factors = grid(3)
    codes = between(factors)
    assert every_score(codes, 10 + 0.5 * factors) == every_score(codes, factors)


def test_the_same_seed_gives_the_same_score_and_touches_no_other_chance():
    factors = grid(3)
    codes = between(factors)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    found = every_score(codes, factors, 3)
    assert found == every_score(codes.reshape(len(codes), 2, 2), factors, 3)  # nor does the shape of a code
    assert found["SAP"] != sap(codes, factors, 4)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()


def test_one_dimension_for_two_factors_is_not_modular():
    factors = grid()
    codes = torch.stack((factors[:, 0] * 10.0 + factors[:, 1], factors[:, 2].double(), factors[:, 3].double()), 1)
    # log 4 nats of one factor and log 3 of another in one dimension; the other dimensions are pure
    log3, log4 = math.log(3), math.log(4)
    exact = (2 + 1 - log3**2 / (3 * log4**2)) / 3
    assert modularity(codes, factors, bins=200) == pytest.approx(exact)
    # a factor's row is known to one dimension only
    assert mig(codes, factors, bins=200) == pytest.approx(1)
    assert dci(codes, factors).completeness > 0.99
    assert dci(codes, factors).disentanglement < 0.9


def test_two_dimensions_for_one_factor_are_modular_and_leave_no_gap():
    factors = grid()
    codes = torch.cat((factors, factors), 1).float()
    assert modularity(codes, factors) == pytest.approx(1)
    assert irs(codes, factors) == pytest.approx(1)
    assert mig(codes, factors) == pytest.approx(0, abs=1e-9)
    assert sap(codes, factors) == pytest.approx(0, abs=1e-9)
    assert dci(codes, factors).disentanglement == pytest.approx(1)
    assert dci(codes, factors).completeness < 0.8


def test_the_information_is_scikit_learns():
    """An implementation that drifts with a library's would show here, and so would codes read along the wrong axis."""
    from sklearn.metrics import mutual_info_score

    factors = grid(2)
    codes = torch.cat((between(factors), torch.randn(len(factors), 3)), 1).numpy()
    binned = [np.digitize(column, np.histogram(column, 20)[1][1:-1]) for column in codes.T]
    gaps = []
    for factor in factors.T.numpy():
        information = sorted(mutual_info_score(column, factor) for column in binned)
        gaps.append((information[-1] - information[-2]) / mutual_info_score(factor, factor))
    assert mig(torch.from_numpy(codes), factors) == pytest.approx(np.mean(gaps), rel=1e-6)


def test_fewer_bins_than_levels_cost_mig_what_they_merge():
    factors = torch.cartesian_prod(torch.arange(24), torch.arange(5)).repeat(3, 1)
    assert mig(factors.double(), factors, bins=24) == pytest.approx(1)
    counts = np.bincount((np.arange(24) / 23 * 20).astype(int).clip(max=19))
    kept = -sum(c / 24 * math.log(c / 24) for c in counts) / math.log(24)
    assert kept < 0.95
    assert mig(factors.double(), factors, bins=20) == pytest.approx((kept + 1) / 2)


def test_the_noise_of_a_code_takes_from_irs_what_it_moves():
    """Noise between -a and a around levels 0 and 1: a of the 1/2 + a that the code gets from its mean at most."""
    factors = torch.randint(0, 2, (20_000, 1))
    a = 0.2
    codes = factors + a * (2 * torch.rand(20_000, 1) - 1)
    assert irs(codes, factors, quantile=1.0) == pytest.approx(1 - a / (0.5 + a), abs=0.01)


def test_informativeness_is_of_other_rows():
    """Every row has a code of its own: a forest knows the rows that it has seen."""
    factors = torch.randint(0, 2, (400, 2))
    assert dci(torch.randn(400, 5), factors).informativeness < 0.6


@pytest.mark.parametrize("measure", [mig, sap, irs])
def test_one_factor_is_enough_for_some(measure):
    factors = grid(2)
    one = measure(standardized(factors), factors[:, 1])
    assert one == measure(standardized(factors), factors[:, 1:2]) > 0.2
    assert measure(standardized(factors)[:, 1:2], factors[:, 1]) > 0.7  # and one dimension


@pytest.mark.parametrize("measure", [modularity, factor_vae_score, beta_vae_score, dci])
def test_one_factor_is_not_enough_for_others(measure):
    factors = grid(1)
    with pytest.raises(ValueError, match="factors has 1 columns: the score is about telling factors apart"):
        measure(factors.float(), factors[:, 1])


BAD = {
    "a constant factor": (lambda z, f: (z, f * torch.tensor([1, 0, 1, 1])), "factor 1 has 1 levels in 240 rows"),
    "levels without rows": (
        lambda z, f: (z, torch.cat((f, torch.arange(len(f))[:, None]), 1)),
        "factor 4 has 240 levels in 240 rows",
    ),
    "few rows": (lambda z, f: (z[:19], f[:19]), "20 rows or more"),
    "other rows": (lambda z, f: (z[:100], f[:99]), "100 codes and 99 rows of factors"),
    "nan codes": (lambda z, f: (z.masked_fill(f[:, :1] == 0, math.nan), f), "codes: 80 of 240 rows hold NaN"),
    "nan factors": (lambda z, f: (z, f.float().masked_fill(f == 1, math.inf)), "factors: .* rows hold NaN"),
    "dead codes": (lambda z, f: (0 * z + 0.1, f), "every dimension of the codes is constant"),
}


@pytest.mark.parametrize("measure", [*SCORES.values(), dci, every_score])
@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_scored_is_refused(measure, bad):
    factors = grid(1)
    make, match = BAD[bad]
    with pytest.raises(ValueError, match=match):
        measure(*make(factors.double(), factors))


@pytest.mark.parametrize("measure", [mig, modularity])
def test_one_bin_is_refused(measure):
    with pytest.raises(ValueError, match="bins=1"):
        measure(grid(1).float(), grid(1), bins=1)


def test_the_factors_of_shapes_score_high_and_a_stranger_low():
    data = rendered.shapes(n=1200, size=16)
    factors = data.labels
    found = every_score(factors.float(), factors)
    assert found.keys() == BEST.keys()
    assert all(isinstance(value, float) for value in found.values())
    assert all(value > 0.8 for value in found.values())
    stranger = every_score(torch.randn(1200, 6), factors)
    assert all(stranger[name] < found[name] - 0.1 for name in found), stranger


def test_two_rows_a_value_are_enough():
    twins = torch.arange(40) // 2
    factors = torch.stack((twins, torch.arange(40) % 2), 1)
    assert beta_vae_score(factors.double(), factors) == 1
    assert factor_vae_score(factors.double(), factors) == 1
