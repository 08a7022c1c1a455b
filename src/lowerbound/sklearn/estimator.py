"""A VAE of the rows of a table, as an estimator of scikit-learn.

The bound log p(x) >= log 1/k sum_i p(x, z_i) / q(z_i|x) makes one model many estimators: the mean of q(z|x) is an
embedding, p(x|z) its inverse, the bound a score for density and for outliers, p(x_missing|x_known) an imputer. What is
left open is chosen from the data by the same rules as on the command line.

A row's result does not depend on the rows beside it, or on luck: it is computed in double precision, and the noise of
a bound is the same for all rows.

Axes: n rows, f columns of the input, d columns that are modelled.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from ..checkpoint import load_model, save_model
from ..evaluation import impute
from ..evaluation.scores import score
from ..experiment import complete, find_device, make_trainer
from ..refusals import check_support
from ..run import Table
from ..train import fill, tensors
from ..views import View, without_gradients
from .rows import Frame, Frames, as_frame, container, data_of, described, filled_in, read, says_more

# Importance samples of a score.
SCORE_SAMPLES = 100
# Of the rows held out, the part that contamination="auto" calls outliers.
RARE = 0.01
MODEL, OBJECTIVE, TRAIN = (
    ("latent", "hidden", "real", "dropout"), ("k",), ("steps", "batch", "lr", "weight_decay", "hide")
)  # fmt: skip


class TabularVAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierMixin, BaseEstimator):
    """A VAE of the rows of an array or a frame: embedding, density, outliers, imputation and new rows.

    Arrays hold numbers, NaN where one is missing; each column is real, with a density. Frames (pandas, polars, pyarrow,
    whatever has the Arrow C stream interface; they need `pip install 'lowerbound[tables]'`) hold numbers, categories,
    texts, truth values and dates; their kinds are inferred as `lowerbound train` does. (One of pandas that numbers its
    columns, and holds nothing but numbers, says no more than an array, and is one.) What is missing is summed out of
    the likelihood, exactly. Columns that always have one value are no part of the model, and come back with it.

    Args:
        latent: Dimensions of z; None, here and below: the data decide, as on the command line.
        hidden: Widths of the encoder's hidden layers.
        real: Density of real columns: "student_t", "normal" or "mixture".
        hide: Part of the rows that lose entries at random when they are drawn in training, so that filling is learned.
        dropout: Part of the encoder's input that is hidden from it in training.
        k: Importance samples of the bound that is maximised; 1 for the evidence lower bound.
        steps: Updates, at most.
        batch: Rows in each.
        lr: Learning rate.
        weight_decay: Decoupled weight decay.
        valid: Fraction of rows held out to stop early by; 0 for none. Of fewer than 20 rows none is held out.
        contamination: Part of the rows that are outliers, in (0, 0.5]; "auto" calls an outlier what scores below 99 %
            of the rows held out.
        columns: What is known better of columns, by name or place: `{"age": "count", 3: {"kind": "cyclic", "period":
            360}}`. It needs pyarrow, for arrays too.
        random_state: Of weights, noise and the rows held out. None draws a number from numpy's global state.
        device: Where to compute: "cpu", "cuda".

    Attributes:
        model_: The model.
        run_: The four tables that describe it.
        choices_: What the data decided, each with its reason.
        columns_: The columns that are modelled.
        offset_: Of the scores, below which a row is an outlier.
        n_iter_: Updates made.
        n_features_in_: Columns of the input.
        feature_names_in_: Their names, if they have any.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> vae = TabularVAE(latent=2, hidden=[32], steps=300, random_state=0).fit(X)
        >>> vae.transform(X).shape, vae.sample(5, random_state=0).shape
        ((150, 2), (5, 4))
        >>> holes = X.copy()
        >>> holes[::3, 2] = np.nan
        >>> error = np.abs(vae.impute(holes) - X)[::3, 2].mean()
        >>> bool(error < 0.5 * np.abs(X[:, 2] - X[:, 2].mean()).mean())
        True
        >>> vae.predict([[5.0, 3.4, 1.5, 0.2], [5.0, 3.4, 60.0, 0.2]])
        array([ 1, -1])
    """

    # scikit-learn has any value stored as it is, and judged by fit
    def __init__(
        self,
        latent: Any = None,
        *,
        hidden: Any = None,
        real: Any = None,
        hide: Any = None,
        dropout: Any = None,
        k: Any = None,
        steps: Any = None,
        batch: Any = None,
        lr: Any = None,
        weight_decay: Any = None,
        valid: Any = 0.1,
        contamination: Any = "auto",
        columns: Any = None,
        random_state: Any = None,
        device: Any = "cpu",
    ) -> None:
        self.latent = latent
        self.hidden = hidden
        self.real = real
        self.hide = hide
        self.dropout = dropout
        self.k = k
        self.steps = steps
        self.batch = batch
        self.lr = lr
        self.weight_decay = weight_decay
        self.valid = valid
        self.contamination = contamination
        self.columns = columns
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn asks: NaN is allowed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: Any = None) -> "TabularVAE":
        """Learn from rows.

        Args:
            X: An array of numbers, or a frame; (n, f).
            y: Ignored.

        Raises:
            ValueError: X holds nothing to learn from, or an argument cannot work; it says what to do.
            TrainingError: Training could not go on.
        """
        self._check_arguments()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        X = self._checked(X, reset=True)
        self._rows, x = read(X, self._names(), self.columns)
        data, held = data_of(self._rows, x, float(self.valid), seed)
        asked = {name: plain_value(getattr(self, name)) for name in (*MODEL, *OBJECTIVE, *TRAIN)}
        run: dict[str, Table] = {"data": {"name": "X"}}
        for kind, names in (("model", MODEL), ("objective", OBJECTIVE), ("train", TRAIN)):
            run[kind] = {name: asked[name] for name in names if asked[name] is not None}
        run["train"] |= {"seed": seed} | ({} if held else {"valid_every": 0, "patience": 0})
        self.choices_ = complete(run, data)
        trainer = make_trainer(run, data, self.device)
        for _ in trainer.fit(data):
            pass
        fill(trainer.averaged, trainer.result())
        self.model_: Any = trainer.averaged.eval()
        self.run_, self.columns_, self.n_iter_ = run, self._rows.columns, trainer.step
        reference = data.valid if held and self.contamination == "auto" else x
        rare = RARE if self.contamination == "auto" else self.contamination
        self.offset_ = float(np.quantile(self._scores(reference), rare))
        return self

    @property
    def _n_features_out(self) -> int:
        return int(self.run_["model"]["latent"])

    def transform(self, X: Any) -> Float64[ndarray, "n latent"]:
        """The posterior means E_q[z] of rows."""
        model, x = self._precise(), self._encode(X)
        with without_gradients(model, 0):
            parts = [model.encoder(rows).mean.cpu() for (rows,) in View.alone(model, x.shape[1:]).batches(self._on(x))]
        return torch.cat(parts).numpy()

    def inverse_transform(self, X: Any) -> Any:
        """What to expect of rows with given latent variables, as an array or frame such as was learnt from.

        The mean of numbers, the likeliest of levels; what is not modelled is its constant, or missing.

        Args:
            X: Latent variables, (n, latent).

        Raises:
            ValueError: They have another number of dimensions.
        """
        check_is_fitted(self)
        z = torch.from_numpy(check_array(X, dtype=np.float64))
        if z.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {z.shape[1]} latent dimensions, and the model has {self._n_features_out}: give rows such as "
                "transform returns."
            )
        return self._rows.decode(self._generate(len(z), z, 0))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """New rows, as an array or frame such as was learnt from.

        Args:
            n_samples: How many.
            random_state: Of the draws. None draws a number from numpy's global state.

        Raises:
            ValueError: None are asked for.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples={n_samples} is too few: ask for 1 row or more.")
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        return self._rows.decode(self._generate(int(n_samples), None, seed))

    def score_samples(self, X: Any) -> Float64[ndarray, " n"]:
        """A lower bound on log p(x) of each row, importance-weighted, in nats: high is normal.

        What is missing is not counted, so that rows with holes compare with their like only. Numbers have densities, in
        their own units.
        """
        return self._scores(self._encode(X))

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`: what to choose a model by. y is ignored."""
        return float(self.score_samples(X).mean())

    def decision_function(self, X: Any) -> Float64[ndarray, " n"]:
        """`score_samples` less `offset_`: below 0 is an outlier."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Int64[ndarray, " n"]:
        """-1 for outliers, 1 for all else."""
        return np.where(self.decision_function(X) < 0, -1, 1).astype(np.int64)

    def impute(self, X: Any, *, draws: int = 0, k: int = 1000, random_state: Any = 0) -> Any:
        """Rows with their holes filled; what is known stays as it is.

        Args:
            X: Rows with holes: an array comes back as an array, a frame as a frame with its types, as far as they can
                hold what was missing.
            draws: How many fillings to draw from what the holes could hold, returned as a list; 0 for a single one, the
                mean of numbers and the likeliest of levels.
            k: Importance samples for each row.
            random_state: Of the samples.

        Raises:
            ValueError: draws or k is out of range.
        """
        x, rows = self._encode(X), self._checked(X)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        found = impute(self.model_, x, k=k, draws=draws, seed=seed).to(x.dtype)
        # what passed through the model has lost digits
        filled = [self._rows.fill(rows, torch.where(x.isnan(), each, x)) for each in (found if draws else found[None])]
        if isinstance(X, Frame) and isinstance(rows, ndarray):
            filled = [filled_in(X, rows, each) for each in filled]
        return filled if draws else filled[0]

    def save(self, path: Path | str) -> None:
        """Write the estimator: one .safetensors file, which `load` and the command line read. Nothing is pickled."""
        check_is_fitted(self)
        settings = {name: plain_value(value) for name, value in self.get_params().items()} | {"columns": None}
        if not isinstance(settings["random_state"], int | None):
            settings["random_state"] = self.run_["train"]["seed"]
        learnt = {
            "settings": settings,
            "features": self.n_features_in_,
            "names": list(self.feature_names_in_) if "feature_names_in_" in vars(self) else None,
            "container": container(self._rows.like) if isinstance(self._rows, Frames) else None,
            "offset": self.offset_,
            "steps": self.n_iter_,
        }
        save_model(path, tensors(self.model_), self.run_ | {"data": self.run_["data"] | learnt}, self.n_iter_)

    @classmethod
    def load(cls, path: Path | str, *, device: str = "cpu") -> "TabularVAE":
        """The estimator of a file that `save` wrote; what its argument `columns` said has become part of the model.

        Args:
            path: The file.
            device: Where to compute.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, or was not written by `save`.
        """
        model, run = load_model(path, device=str(find_device(device)))
        learnt = run["data"]
        if "settings" not in learnt:
            raise ValueError(f"{path} was not written by TabularVAE.save. Load it with lowerbound.load_model.")
        self = cls(**learnt["settings"] | {"device": device})
        self._rows = described(run["model"], learnt["container"])
        self.model_, self.run_, self.choices_ = model, run | {"data": {"name": learnt["name"]}}, []
        self.columns_, self.offset_, self.n_iter_ = self._rows.columns, learnt["offset"], learnt["steps"]
        self.n_features_in_ = learnt["features"]
        if learnt["names"]:
            self.feature_names_in_ = np.array(learnt["names"], dtype=object)
        return self

    def _check_arguments(self) -> None:
        """Refuse what no rule further down knows of.

        Raises:
            ValueError: Arguments are out of range; all that are, are listed.
        """
        wrong = [] if 0 <= self.valid < 1 else [f"valid={self.valid} must be in [0, 1): a fraction of the rows"]
        rare = self.contamination
        if rare != "auto" and (isinstance(rare, str) or not 0 < rare <= 0.5):
            wrong.append(f"contamination={rare!r} must be in (0, 0.5], or 'auto'")
        if wrong:
            raise ValueError(f"TabularVAE cannot be fitted: {'; '.join(wrong)}.")

    def _checked(self, X: Any, reset: bool = False) -> Any:
        """X as a frame, or as an array of numbers, with the columns that were learnt from.

        Args:
            X: What was given.
            reset: Whether it is to be learnt from.
        """
        if isinstance(X, Frame) and (says_more(X) if reset else isinstance(self._rows, Frames)):
            X = as_frame(X)
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        least = 2 if reset else 1
        return validate_data(
            self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=least
        )

    def _generate(self, n: int, z: Tensor | None, seed: int) -> Tensor:
        """Rows of x: what to expect at given latent variables, or draws."""
        view = View.alone(self.model_, (len(self.columns_),))
        with without_gradients(self.model_, seed):
            return view.generate(n, () if z is None else (z.float(),), draw=z is None)

    def _scores(self, x: Tensor) -> Float64[ndarray, " n"]:
        # equal rows are equally rare, in whatever order sums were taken
        return -score(self._precise(), x, k=SCORE_SAMPLES).values.numpy().round(9)

    def _precise(self) -> Any:
        """The model in double precision."""
        return copy.deepcopy(self.model_).double()

    def _on(self, x: Tensor) -> Tensor:
        return x.to(next(self.model_.parameters()).device, torch.float64)

    def _encode(self, X: Any) -> Tensor:
        """The rows of X as numbers that the model can explain."""
        check_is_fitted(self)
        x = self._rows.encode(self._checked(X))
        check_support(self.run_, self.model_.decoder.family.support, x, torch.arange(len(x)))
        return x

    def _names(self) -> list[str]:
        """Of the columns of the input."""
        known = vars(self).get("feature_names_in_")
        return [f"x{at}" for at in range(self.n_features_in_)] if known is None else list(map(str, known))


def plain_value(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Mapping):
        return {key: plain_value(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(each) for each in value]
    return value.tolist() if isinstance(value, np.generic | ndarray) else value
