"""Breast cancer, half of the entries missing completely at random: the standardised mean square error of filling them.

The protocol is that of MIWAE's notebook (Mattei & Frellsen 2019, https://github.com/pamattei/miwae): columns are
standardised, half of all entries are removed, all rows are trained on. The first seed removes the same ones.
"""

from collections.abc import Iterator

import numpy as np
from numpy import ndarray
from sklearn.datasets import load_breast_cancer

from ..report import Table
from .asked import OURS, Asked, Overrides
from .filling import Figure, compare, standardised

SETTINGS: Overrides = {
    "model": {"latent": 10},
    "train": {"steps": 4000, "batch": 64, "lr": 1e-3, "valid_every": 0},
}
SEEDS = 5
FIRST_SEED = 1234

FIGURE = Figure(
    "breast cancer (569 x 30), 50 % missing at random",
    "breast cancer",
    "standardised MSE",
    root=False,
    published={"MIWAE": 0.287},
    bar=0.285,
    aim=0.27,
    k=5000,
    notes=("all rows are trained on; a seed is a mask and a training",),
)


def run(asked: Asked) -> Iterator[Table]:
    """One table."""
    truth = standardised(load_breast_cancer().data)[: 100 if asked.quick else None]
    problems = [(truth, holes(truth, FIRST_SEED + seed)) for seed in range(asked.seeds)]
    yield compare(asked, FIGURE, problems, {OURS: SETTINGS})


def holes(x: ndarray, seed: int) -> ndarray:
    """The rows without half of their entries."""
    # the generator of the notebook, for its mask
    gone = np.random.RandomState(seed).choice(x.size, x.size // 2, replace=False)
    holed = x.copy()
    holed.flat[gone] = np.nan
    return holed
