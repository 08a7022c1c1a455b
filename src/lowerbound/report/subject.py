"""What a report looks at: a view of a model and some rows of a split, with the latent variables inferred for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..data import Data
from ..evaluation import Evaluation
from ..metrics import code_counts, strays
from ..models import Model, Site
from ..views import TypicalName, View, typical_name

SEED = 0
SHOWN = 2000
SAMPLES = 96
INFERRED = 16


@dataclass(frozen=True)
class Subject:
    """A model, its data and numbers, and rows of the split in random order.

    Attributes:
        x: Rows, in the data's units.
        context: What the model is told of them; nothing if it is unconditional.
        labels: Theirs, if there are any.
        means: Posterior means of each latent variable, a row for each x.
        first: The latent variables of the first row.
        shows: What pictures show of p(x|z).
        train: Rows that the model was trained on.
    """

    view: View
    data: Data
    evaluation: Evaluation
    log: Sequence[Mapping[str, Any]]
    split: str
    x: Tensor
    context: tuple[Tensor, ...]
    labels: Tensor | None
    means: tuple[Tensor, ...]
    first: tuple[Site, ...]
    shows: TypicalName
    train: Tensor

    @classmethod
    def of(
        cls, model: Model, data: Data, evaluation: Evaluation, log: Sequence[Mapping[str, Any]], split: str
    ) -> "Subject":
        """The subject, its rows drawn at random."""
        x, labels = data.fixed(split, SHOWN).cpu(), data.labels_of(split, SHOWN)
        context = tuple(c.cpu() for c in data.context(split, SHOWN))
        view = View.of(model, data)
        likelihood, first = view.infer(x[:1], *(c[:1] for c in context))
        return cls(
            view=view,
            data=data,
            evaluation=evaluation,
            log=log,
            split=split,
            x=x,
            context=context,
            labels=None if labels is None else labels.cpu(),
            means=view.means(x, *context),
            first=first,
            shows=typical_name(likelihood),
            train=data.fixed("train").cpu(),
        )

    @property
    def kind(self) -> str:
        """What rows are called."""
        return "images" if self.view.is_image else "rows"

    @cached_property
    def samples(self) -> Tensor:
        """What is typical of p(x|z) for z drawn from the prior. Drawn once, in the contexts of the first rows."""
        return self.view.generate(SAMPLES, context=self.told(SAMPLES))

    @cached_property
    def inferred(self) -> tuple[Tensor, ...]:
        """One draw of all latent variables together for each of the first rows: of several, each given those above."""
        n = min(INFERRED, len(self.x))
        return tuple(site.z[0].float().cpu() for site in self.view.infer(self.x[:n], *self.told(n))[1])

    @property
    def is_coded(self) -> bool:
        """Whether latent variables are codes, between which there is nothing."""
        return any(code_counts(site) is not None for site in self.first)

    @cached_property
    def strays(self) -> float | None:
        """Of a model without a bound, the share of the codes that lie elsewhere than the prior, if that can be said."""
        p = self.first[0].p
        if self.evaluation.is_bound or len(self.first) > 1 or p.batch_shape:
            return None
        batches = self.view.batches(self.x, *self.context)
        codes = torch.cat([self.view.infer(*rows)[1][0].z[0] for rows in batches])
        return strays(p, codes, p.sample((SHOWN,))).mean

    def told(self, n: int) -> tuple[Tensor, ...]:
        """What the model is told of the first n rows; of more rows than there are, from the first one on again."""
        return tuple(c[torch.arange(n) % len(c)] for c in self.context)
