"""What a report looks at: a view of a model and some rows of a split, with the latent variables inferred for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from ..data import Data
from ..evaluation import Evaluation
from ..models import Model, Site
from ..views import View

SEED = 0
SHOWN = 2000
SAMPLES = 96


@dataclass(frozen=True)
class Subject:
    """A model, its data and numbers, and rows of the split in random order.

    Attributes:
        x: Rows, in the data's units.
        labels: Theirs, if there are any.
        means: Posterior means of each latent variable, a row for each x.
        first: The latent variables of the first row.
        train: Rows that the model was trained on.
    """

    view: View
    data: Data
    evaluation: Evaluation
    log: Sequence[Mapping[str, Any]]
    split: str
    x: Tensor
    labels: Tensor | None
    means: tuple[Tensor, ...]
    first: tuple[Site, ...]
    train: Tensor

    @classmethod
    def of(
        cls, model: Model, data: Data, evaluation: Evaluation, log: Sequence[Mapping[str, Any]], split: str
    ) -> "Subject":
        """The subject, its rows drawn at random."""
        x, labels = data.fixed(split, SHOWN).cpu(), data.labels_of(split, SHOWN)
        view = View.of(model, data)
        return cls(
            view=view,
            data=data,
            evaluation=evaluation,
            log=log,
            split=split,
            x=x,
            labels=None if labels is None else labels.cpu(),
            means=view.means(x),
            first=view.infer(x[:1])[1],
            train=data.fixed("train").cpu(),
        )

    @property
    def kind(self) -> str:
        """What rows are called."""
        return "images" if self.view.is_image else "rows"

    @cached_property
    def samples(self) -> Tensor:
        """Expectations of p(x|z) for z drawn from the prior. They are drawn once."""
        return self.view.generate(SAMPLES)
