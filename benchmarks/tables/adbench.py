"""Anomalies in 37 tables of ADBench (Han et al. 2022, https://arxiv.org/abs/2206.09426): the mean area under the ROC.

Two settings, as in DTE (Livernoche et al. 2024, https://arxiv.org/abs/2305.18593):

    unsupervised       train on all rows, anomalies included, and score them
    semi-supervised    train on half of the normal rows, score the other half and all anomalies

Larger tables are cut to 10,000 rows, drawn once. Our score is minus the importance-weighted bound, in nats. The peers
see columns standardised by the rows they are trained on, and have PyOD's defaults.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from numpy import ndarray
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from lowerbound.columns import Column
from lowerbound.evaluation.scores import score

from ..report import Row, Table
from ..timing import Spread
from .asked import OURS, Asked, Found, Overrides, folder
from .ours import described, rows, train

# Long training learns anomalies too, where they are among the rows; clean rows it learns better, and what one scale for
# each column makes of those that are unlike them tells more.
SETTINGS: dict[str, Overrides] = {
    "unsupervised": {"model": {"real": "normal"}, "train": {"steps": 500}},
    "semi-supervised": {"model": {"real": "normal", "scale": "column"}, "train": {"steps": 2500, "hide": 0.0}},
}
# The sets, of 2,000 rows at most, that these were chosen on.
CHOSEN_ON = "fault, Ionosphere, mammography, optdigits, Pima, satellite, Stamps, vowels, wine, Cardiotocography"
VALID = 0.1
K = 50
SEEDS = 1

CAP = 10_000
MODES = ("unsupervised", "semi-supervised")
QUICK_SETS, QUICK_ROWS = 2, 200
# Of the variance: a direction that holds less holds rounding.
LEAST_VARIANCE = 1e-9

Detector = Callable[[ndarray, ndarray, int], ndarray]


def run(asked: Asked) -> Iterator[Table]:
    """A table of each setting, and one of each set."""
    place = folder("adbench")
    files = sorted(place.glob("*.npz"), key=lambda file: int(file.name.split("_")[0]))
    detectors = {method: detector for method, detector in PEERS.items() if detector is not vae or _has_pyod()}
    found: list[Found] = []
    for file in files[:QUICK_SETS] if asked.quick else files:
        x, y = read(file, QUICK_ROWS if asked.quick else CAP)
        for mode in MODES:
            settings = asked.overrides(SETTINGS[mode])
            for seed in range(asked.seeds):
                fitted, tested, labels = parts(x, y, mode, seed)
                attempts = {OURS: ours(file.stem, settings)} | detectors
                for method, detector in attempts.items():
                    attempt = partial(score_with, detector, fitted, tested, labels, seed)
                    known = {"set": file.stem, "mode": mode, "method": method, "seed": seed}
                    record = asked.records.measured(
                        attempt, **known, **({"settings": settings} if method == OURS else {})
                    )
                    found.extend([record] if record else [])
    methods = [OURS, *detectors]
    for mode in MODES:
        yield of_mode(asked, mode, methods, [record for record in found if record["key"]["mode"] == mode])
    yield each_set(methods, found)


def read(file: Path, most: int) -> tuple[ndarray, ndarray]:
    """Rows and labels of a set, at most so many."""
    with np.load(file) as packed:
        x, y = packed["X"].astype(float), packed["y"].astype(int).ravel()
    chosen = np.random.default_rng(0).permutation(len(x))[:most]
    return x[chosen], y[chosen]


def parts(x: ndarray, y: ndarray, mode: str, seed: int) -> tuple[ndarray, ndarray, ndarray]:
    """The rows to train on, those to score, and the labels of these."""
    if mode == "unsupervised":
        return x, x, y
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
    half = len(normal) // 2
    tested = np.concatenate([normal[half:], np.flatnonzero(y == 1)])
    return x[normal[:half]], x[tested], y[tested]


def auroc(labels: ndarray, scores: ndarray) -> float:
    """The chance that an anomaly has a higher score than a normal row."""
    return float(roc_auc_score(labels, np.nan_to_num(scores)))


def score_with(detector: Detector, fitted: ndarray, tested: ndarray, labels: ndarray, seed: int) -> Found:
    """The area that a detector reaches."""
    return {"auroc": auroc(labels, detector(fitted, tested, seed))}


def ours(name: str, overrides: Overrides) -> Detector:
    """How strange our model of some rows finds others; columns of one value are left out."""

    def detect(fitted: ndarray, tested: ndarray, seed: int) -> ndarray:
        varied = np.flatnonzero(fitted.min(0) < fitted.max(0))
        columns = [Column(f"column {i + 1}", "real") for i in varied]
        trained = train(rows(name, fitted[:, varied], columns, VALID), overrides, seed)
        return score(trained.model, torch.from_numpy(tested[:, varied]).float(), k=K).values.numpy()

    return detect


def components(fitted: ndarray, tested: ndarray, seed: int) -> ndarray:
    """Distances to the principal directions, those of little variance weighing most: PyOD's PCA."""
    fitted, tested = standardised(fitted, tested)
    found = PCA(random_state=seed).fit(fitted)
    kept = found.explained_variance_ratio_ > LEAST_VARIANCE
    return (cdist(tested, found.components_[kept]) / found.explained_variance_ratio_[kept]).sum(1)


def isolation(fitted: ndarray, tested: ndarray, seed: int) -> ndarray:
    """How soon random cuts leave a row alone."""
    fitted, tested = standardised(fitted, tested)
    return -IsolationForest(random_state=seed).fit(fitted).score_samples(tested)


def neighbours(fitted: ndarray, tested: ndarray, seed: int) -> ndarray:
    """The distance to the fifth nearest row, a row itself not counted."""
    alike = fitted is tested
    fitted, tested = standardised(fitted, tested)
    near = NearestNeighbors(n_neighbors=5).fit(fitted)
    return near.kneighbors(None if alike else tested)[0][:, -1]


def vae(fitted: ndarray, tested: ndarray, seed: int) -> ndarray:
    """PyOD's VAE, which standardises by itself."""
    from pyod.models.vae import VAE

    return VAE(random_state=seed, device="cpu", verbose=0).fit(fitted).decision_function(tested)


PEERS: dict[str, Detector] = {
    "PCA": components,
    "isolation forest": isolation,
    "5th nearest neighbour": neighbours,
    "PyOD's VAE": vae,
}
# What the bar is: to be above these; the aim is to be above all.
TO_BEAT = ("PCA", "PyOD's VAE")


def standardised(fitted: ndarray, tested: ndarray) -> tuple[ndarray, ndarray]:
    """Both, with columns of mean 0 and deviation 1 in the first."""
    deviation = fitted.std(0)
    shift, unit = fitted.mean(0), np.where(deviation > 0, deviation, 1.0)
    return (fitted - shift) / unit, (tested - shift) / unit


def of_mode(asked: Asked, mode: str, methods: Sequence[str], found: Sequence[Found]) -> Table:
    """The mean over the sets that all methods have finished, of each seed."""
    by = {(r["key"]["set"], r["key"]["seed"], r["key"]["method"]): r for r in found}
    sets = sorted({r["key"]["set"] for r in found})
    whole = [name for name in sets if all((name, s, m) in by for s in range(asked.seeds) for m in methods)]
    if not whole:
        return Table(mode, "", "", notes=["no set was finished by all methods"])
    means = {m: [mean(by[name, s, m]["auroc"] for name in whole) for s in range(asked.seeds)] for m in methods}
    bar = max(median(means[m]) for m in TO_BEAT if m in means)
    aim = max(median(means[m]) for m in methods if m != OURS)
    lines, notes = [], []
    for method in methods:
        took = [by[name, s, method]["seconds"] for name in whole for s in range(asked.seeds)]
        bars = (bar, aim) if method == OURS else (None, None)
        lines.append(Row(method, mean(took), Spread.of(means[method]), *bars, seconds=took))
        notes.append(f"{method}: mean AUROC {mean(means[method]):.4f}")
    notes += [f"larger tables are cut to {CAP:,} rows", "bar: the better of PCA and PyOD's VAE; aim: the best of all"]
    notes += [described(asked.overrides(SETTINGS[mode])), f"these were chosen on {CHOSEN_ON}; all columns are real"]
    notes += [] if _has_pyod() else ["left out: PyOD's VAE, since pyod is not installed"]
    lacking = [name for name in sets if name not in whole]
    notes += [f"not counted, since a method broke off: {', '.join(lacking)}"] if lacking else []
    return Table(f"{mode}: mean over {len(whole)} sets; seeds: {asked.seeds}", "s a set", "AUROC", lines, notes)


def each_set(methods: Sequence[str], found: Sequence[Found]) -> Table:
    """The area of each method on each set, the mean over the seeds; unsupervised / semi-supervised."""
    notes = [f"{'':19}" + "".join(f"{method.split()[-1]:>15}" for method in methods)]
    for name in dict.fromkeys(record["key"]["set"] for record in found):
        line = f"{name:19}"
        for method in methods:
            cells = []
            for mode in MODES:
                wanted = {"set": name, "mode": mode, "method": method}
                own = [r["auroc"] for r in found if wanted.items() <= r["key"].items()]
                cells.append(f"{mean(own):.3f}" if own else "-")
            line += f"{' / '.join(cells):>15}"
        notes.append(line)
    return Table("AUROC on each set, unsupervised / semi-supervised", "", "", notes=notes)


def _has_pyod() -> bool:
    try:
        import pyod.models.vae  # noqa: F401
    except ImportError:
        return False
    return True
