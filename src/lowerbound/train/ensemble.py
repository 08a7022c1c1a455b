"""Several models at once: what a laboratory of KL weights, or an error bar over seeds, is made of.

Models of one shape are one model with one more axis. Their parameters are stacked, and one pass forward and backward of
the stack (`torch.func.vmap`) gives the gradients of all: the operations of one model, each on more data, instead of as
many times the operations. What is the same in all and stays so, such as the centre and spread of the data, is taken
from the first: the first layer then reads one batch, and is one product for all models. Everything else of a model (its
updates, its average, its validations, its patience) is a `Trainer` of its own, so that each is trained as it would be
alone, on batches that all share.

Axes: ``m`` models.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from ..models import Model
from ..objectives import Objective
from .batches import Batches, Rows
from .options import Options
from .replay import Gradient, fastest, unchanged_buffers
from .trainer import Loss, Step, Terms, Trainer, TrainingError


class NotStackable(ValueError):
    """These models cannot be trained as one: each needs a `Trainer` of its own."""


class Ensemble:
    """Trains models of one shape together, each by its own objective.

    The memory of their parameters is shared from here on: move none of them to another device or type.

    Args:
        models: Models that differ in the values of their parameters and buffers alone: one recipe, several seeds.
        objectives: One for each model, of one kind; fractions among their numbers may differ.
        options: How, for all.

    Attributes:
        trainers: What each model's trainer knows: `averaged`, `result()`, `state()`.
        failed: Of each model that has given up, its place and why.

    Raises:
        ValueError: Not as many objectives as models.
        NotStackable: Models or objectives that differ in more than numbers.
    """

    def __init__(
        self, models: Sequence[Model], objectives: Sequence[Objective], options: Options | None = None
    ) -> None:
        if not models or len(models) != len(objectives):
            raise ValueError(
                f"{len(models)} models and {len(objectives)} objectives: give one objective for each model."
            )
        _check_alike(models)
        self.options = options or Options()
        self.numbers = {name: t.to(next(models[0].parameters())) for name, t in _differing(objectives).items()}
        self.member = _Member(models[0], objectives[0])
        self.tensors = {
            name: torch.stack([t.detach() for t in group])
            for name, group in _together([_Member(model, objectives[0]) for model in models]).items()
        }
        for i, model in enumerate(models):
            for name, t in _named(_Member(model, objectives[0])).items():
                t.data = self.tensors[name][i]
        self.trainers = [Trainer(*pair, self.options) for pair in zip(models, objectives, strict=True)]
        self.learned = [name for name, p in self.member.named_parameters() if p.requires_grad]
        self.idle: set[str] = set()  # parameters that the objective does not reach
        self.common: set[str] = set()  # buffers that are the same in all, and stay so
        self.nothing = [None] * len(models)
        self.failed: dict[int, str] = {}

    def fit(self, data: Rows) -> Iterator[tuple[Step | None, ...]]:
        """Train, one step of all at a time.

        Args:
            data: What to train on.

        Yields:
            The step of each model; None for one that has stopped, or has given up.

        Raises:
            ValueError: Fewer rows than a batch.
            NotStackable: Operations that cannot be stacked, such as those of a full covariance.
            TrainingError: The last model that was left has given up too.
        """
        first = self.trainers[0]
        batches, held_out = Batches(data, self.options, first.device), first.held_out(data)
        gradient = self._fastest(batches)
        step = max(trainer.step for trainer in self.trainers)
        if late := [i for i, trainer in enumerate(self.trainers) if not trainer.ended and trainer.step != step]:
            raise ValueError(f"models {late} are behind the others, which are at step {step}: load states of one step.")
        while not all(trainer.ended for trainer in self.trainers):
            batch = batches.draw(step, first.generator)
            x, *context = batch
            if not self.member.model.training:
                self.member.train()
            with first.own_noise():
                terms, norms, gradients = gradient(x, torch.tensor(float(step), device=first.device), *context)
            step += 1
            own = zip(*(self.nothing if g is None else g for g in gradients), strict=True)
            each = zip(zip(*terms, strict=True), norms.tolist(), own, strict=True)
            yield tuple(
                None if trainer.ended else self._take(i, trainer, Terms(*said), norm, gradient_of, batch, held_out)
                for i, (trainer, (said, norm, gradient_of)) in enumerate(zip(self.trainers, each, strict=True))
            )

    def _take(self, i: int, trainer: Trainer, *step: Any) -> Step | None:
        """The step of one model; None if it gives up, which is the others' end only if there are none."""
        try:
            return trainer.take(*step)
        except TrainingError as error:
            self.failed[i] = str(error)
            if all(other.given_up for other in self.trainers):
                raise
            return None

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that is needed to go on: tensors by name, and JSON-able numbers."""
        states = [trainer.state() for trainer in self.trainers]
        saved = {f"{i}.{name}": t for i, (own, _) in enumerate(states) for name, t in own.items()}
        return saved, {"models": [numbers for _, numbers in states]}

    def load(self, saved: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Go on from a `state`, bit for bit.

        Raises:
            ValueError: It is the state of another ensemble.
        """
        if len(numbers["models"]) != len(self.trainers):
            raise ValueError(f"it is the state of {len(numbers['models'])} models, and these are {len(self.trainers)}")
        for i, (trainer, own) in enumerate(zip(self.trainers, numbers["models"], strict=True)):
            of = f"{i}."
            trainer.load({name.removeprefix(of): t for name, t in saved.items() if name.startswith(of)}, own)

    def _gradient(self, x: Tensor, step: Tensor, *context: Tensor) -> tuple[Terms, Tensor, list[Tensor | None]]:
        """What a batch says to each model, the length of its gradient, (m,) each, and the stacked gradients."""
        learned = {name: self.tensors[name] for name in self.learned}
        common = {name: self.tensors[name][0] for name in self.common}
        rest = {name: t for name, t in self.tensors.items() if name not in learned and name not in common}

        def one(learned: dict[str, Tensor], rest: dict[str, Tensor], numbers: dict[str, Tensor]) -> Any:
            terms = functional_call(
                self.member, learned | rest | common, (numbers, x, step, *context), tie_weights=False
            )
            return terms.loss, terms

        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"):
            found, (_, terms) = vmap(grad_and_value(one, has_aux=True), randomness="different")(
                learned, rest, self.numbers
            )
        gradients = [None if name in self.idle else found[name] for name in self.learned]
        lengths = [torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in gradients if g is not None]
        return Terms(*terms), torch.stack(lengths).norm(dim=0), gradients

    def _fastest(self, batches: Batches) -> Gradient:
        first = self.trainers[0]
        self.member.train()
        with first.own_noise(keep=False), unchanged_buffers(first.loss):
            x, *context = (t.clone() for t in batches.draw(0, None))
            step = first.step_tensor()
            versions = {name: t._version for name, t in self.member.named_buffers()}
            unreached = zip(self.learned, first.gradient(x, step, *context)[-1], strict=True)
            self.idle = {name for name, g in unreached if g is None}
            unwritten = [name for name, t in self.member.named_buffers() if t._version == versions[name]]
            self.common = {name for name in unwritten if bool((self.tensors[name] == self.tensors[name][0]).all())}
            try:
                self._gradient(x, step, *context)
            except RuntimeError as error:
                raise NotStackable(f"their operations cannot be stacked ({str(error).splitlines()[0]}).") from error
            if self.options.compile != "replay":
                return self._gradient
            members = nn.ModuleList([trainer.loss for trainer in self.trainers])
            other, *its_context = batches.draw(-1, None)
            return fastest(self._gradient, members, (x, step, *context), (other, step + 1, *its_context))


class _Member(nn.Module):
    """The loss of one model, with the numbers of the objective given from outside."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, numbers: Mapping[str, Tensor], x: Tensor, step: Tensor, *context: Tensor) -> Terms:
        objective = self.objective
        for path, value in numbers.items():
            objective = _with(objective, path.split("."), value)
        return Loss(self.model, objective)(x, step, *context)


def _named(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _together(modules: Sequence[nn.Module]) -> dict[str, list[Tensor]]:
    """The tensors of several modules, by name."""
    named = [_named(module) for module in modules]
    return {name: [tensors[name] for tensors in named] for name in named[0]}


def _check_alike(models: Sequence[Model]) -> None:
    if len(set(map(id, models))) < len(models):
        raise NotStackable(
            "one model is given twice: its parameters can hold one model only. Build one for each place."
        )
    made = [_structure(model) for model in models]
    for i, other in enumerate(made):
        if other != made[0]:
            wrong = sorted(name for name in other.keys() | made[0].keys() if other.get(name) != made[0].get(name))
            raise NotStackable(
                f"model {i} differs from model 0 in more than numbers: {', '.join(wrong[:5])}. "
                "Models that are trained together are made by one recipe with the same options."
            )


def _structure(model: nn.Module) -> dict[str, Any]:
    """What a model is but for the values of its tensors: their forms, and its modules with their settings."""
    settings = (str, int, float, tuple, type(None))
    found: dict[str, Any] = {name: (t.shape, t.dtype, t.device) for name, t in _named(model).items()}
    for name, module in model.named_modules():
        own = {key: v for key, v in vars(module).items() if isinstance(v, settings) and key != "training"}
        found[f"{name or 'the model'} ({type(module).__name__})"] = own
    return found


def _differing(objectives: Sequence[Objective]) -> dict[str, Tensor]:
    """The numbers in which the objectives differ, by their path: (m,) each."""
    if any(isinstance(objective, nn.Module) for objective in objectives):
        raise NotStackable("an objective with parameters of its own belongs to one model.")
    tables = [_leaves(objective) for objective in objectives]
    found: dict[str, Tensor] = {}
    for path, value in tables[0].items():
        values = [table.get(path) for table in tables]
        if all(other == value for other in values):
            continue
        if not all(isinstance(other, float) for other in values):
            raise NotStackable(
                f"the objectives differ in {path}: {values}. Of objectives that are trained together only fractions "
                "may differ: a weight, its start, a floor in nats."
            )
        found[path] = torch.tensor(values)
    return found


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """What an objective is made of: its kind, and every number in it."""
    if not is_dataclass(value):
        return {path: value}
    found: dict[str, Any] = {f"{path}.kind".lstrip("."): type(value)}
    for field in fields(value):
        found |= _leaves(getattr(value, field.name), f"{path}.{field.name}".lstrip("."))
    return found


def _with(value: Any, path: Sequence[str], number: Tensor) -> Any:
    """A copy of a dataclass with a tensor in the place of one number, past the checks that are for numbers."""
    changed = copy.copy(value)
    inner = number if len(path) == 1 else _with(getattr(value, path[0]), path[1:], number)
    object.__setattr__(changed, path[0], inner)
    return changed
