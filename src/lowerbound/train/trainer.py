"""The trainer, in the order things happen."""

import contextlib
import copy
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..evaluation import Evaluation, evaluate
from ..models import Model
from ..objectives import Objective
from .batches import Batches, Rows, seed_of
from .diagnosis import first_bad_tensor
from .optimizers import optimizers
from .options import Options
from .replay import Gradient, fastest, unchanged_buffers
from .weights import fill, tensors


class Terms(NamedTuple):
    """What one batch says, in nats for each datum: scalars on the device."""

    loss: Tensor
    distortion: Tensor
    rate: Tensor


class Loss(nn.Module):
    """The scalar that is minimised: what is compiled, and what a distributed wrapper would wrap."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, x: Tensor, step: Tensor, *context: Tensor) -> Terms:
        """Minus the objective's mean, with the two terms of the bound beside it."""
        trace = self.model(x, *context, k=self.objective.k)
        loss = -self.objective(trace, step).mean()
        with torch.no_grad():
            return Terms(loss, -trace.log_likelihood().mean(), trace.kl().mean())


@dataclass(frozen=True)
class Validation:
    """Bounds with as many samples as the objective takes, on held-out data and on as many rows of the training data."""

    valid: Evaluation
    train: Evaluation


@dataclass(frozen=True)
class Step:
    """One update that was made or skipped. Tensors are scalars on the device: reading one waits for it.

    Attributes:
        number: Counted from 1.
        terms: Loss, distortion and rate of the batch, nats.
        grad_norm: Length of the gradient before it was clipped; not on the device.
        lr: Learning rate.
        skipped: Updates skipped so far.
        validation: What was found, if this step validated.
        done: Whether it is the last.
    """

    number: int
    terms: Terms
    grad_norm: float
    lr: float
    skipped: int
    validation: Validation | None
    done: bool

    @property
    def bound(self) -> Tensor:
        """The batch's evidence lower bound, nats for each datum, whatever the objective was."""
        return -(self.terms.distortion + self.terms.rate)


class TrainingError(RuntimeError):
    """Training cannot go on."""


class Trainer:
    """Trains a model by an objective.

    Args:
        model: The model. Its weights are updated in place.
        objective: What to maximise.
        options: How.

    Attributes:
        averaged: The model with its averaged weights: the one to evaluate and save.
        step: Updates made or skipped so far.

    Raises:
        ValueError: The objective's schedule ends after the last step, or it takes no samples.
    """

    def __init__(self, model: Model, objective: Objective, options: Options | None = None) -> None:
        self.options = options or Options()
        if objective.horizon > self.options.steps:
            raise ValueError(
                f"the objective's schedule ends at step {objective.horizon}, training at step {self.options.steps}: "
                "its weight would never be what was asked for. Shorten the warm-up or the cycles, or train longer."
            )
        if objective.k < 1:
            raise ValueError(f"k={objective.k}: an objective takes 1 sample of z or more for each x.")
        self.model = model
        self.objective = objective
        self.device = next(model.parameters()).device
        self.loss = Loss(model, objective).to(self.device)
        self.parameters = [p for p in self.loss.parameters() if p.requires_grad]
        self.optimizers = optimizers(self.loss, self.options)
        self.averaged = copy.deepcopy(model).eval().requires_grad_(False) if self.options.ema else model
        self.average, self.followed = (
            [t.detach() for t in tensors(of).values() if t.is_floating_point()] for of in (self.averaged, model)
        )
        self.best: dict[str, Tensor] = {}
        self.best_bound = -math.inf
        self.since_best = 0
        self.step = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.usual_log_norm = math.nan
        self.generator = torch.Generator(self.device).manual_seed(seed_of(self.options.seed, "data"))
        self.noise = self._noise()
        with self.own_noise():
            torch.manual_seed(self.options.seed)

    def fit(self, data: Rows) -> Iterator[Step]:
        """Train, one step at a time. Leaving the loop and calling again goes on where it stopped.

        Args:
            data: What to train on.

        Yields:
            Each step.

        Raises:
            ValueError: Fewer rows than a batch.
            TrainingError: `Options.give_up` updates in a row could not be made.
        """
        batches, held_out = Batches(data, self.options, self.device), self.held_out(data)
        compute = self._fastest(batches)
        while not self.done:
            batch = batches.draw(self.step, self.generator)
            x, *context = batch
            if not self.model.training:
                self.model.train()
            with self.own_noise():
                terms, norm, gradients = compute(x, self.step_tensor(), *context)
            yield self.take(terms, float(norm), gradients, batch, held_out)

    @property
    def done(self) -> bool:
        """Whether the last step was the last."""
        return self.step == self.options.steps or (
            bool(self.options.patience) and self.since_best >= self.options.patience
        )

    @property
    def given_up(self) -> bool:
        """Whether so many updates in a row could not be made that training has stopped."""
        return self.skipped_in_a_row >= self.options.give_up

    @property
    def ended(self) -> bool:
        """Whether there is no step to come."""
        return self.done or self.given_up

    def held_out(self, data: Rows) -> list[tuple[Tensor, ...]]:
        """What validations look at: rows of the held-out data, and of the training data, each with what is told."""
        rows = self.options.valid_rows
        parts = ("valid", "train") if self.options.valid_every else ()
        return [(data.fixed(part, rows), *data.context(part, rows)) for part in parts]

    def take(
        self,
        terms: Terms,
        norm: float,
        gradients: Sequence[Tensor | None],
        batch: Sequence[Tensor],
        held_out: Sequence[Sequence[Tensor]],
    ) -> Step:
        """One step: an update, if the gradients of this batch allow it, and a validation, if one is due.

        Args:
            terms: What the batch says.
            norm: Length of the gradient.
            gradients: Of each parameter.
            batch: x, and what the model is told of it.
            held_out: As `held_out` returns it.
        """
        lr = self.options.rate(self.step)
        for p, g in zip(self.parameters, gradients, strict=True):
            p.grad = g
        self._update(terms, norm, batch, lr)
        for p in self.parameters:
            p.grad = None
        self.step += 1
        validation = None
        if held_out and (self.step % self.options.valid_every == 0 or self.step == self.options.steps):
            validation = Validation(*(evaluate(self.averaged, *part, k=self.objective.k) for part in held_out))
            self._keep_best(validation)
        return Step(self.step, terms, norm, lr, self.skipped, validation, self.done)

    def result(self) -> dict[str, Tensor]:
        """The tensors of the model to keep: the best by validation if there is patience, else the averaged ones."""
        return self.best if self.options.patience and self.best else tensors(self.averaged)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that is needed to go on: tensors by name, and JSON-able numbers."""
        saved = tensors(self.loss)
        if self.options.ema:
            saved |= {f"averaged.{name}": t for name, t in tensors(self.averaged).items()}
        saved |= {f"best.{name}": t for name, t in self.best.items()}
        for j, optimizer in enumerate(self.optimizers):
            saved |= {f"optimizer.{j}.{slot}": value for slot, value in optimizer.slots.items()}
        saved |= {"noise.cpu": self.noise[0], "noise.data": self.generator.get_state()}
        saved |= {"noise.cuda": self.noise[1]} if len(self.noise) > 1 else {}
        # a snapshot: it stays what it is when training goes on
        saved = {name: t.detach().clone() for name, t in saved.items()}
        numbers = {
            "step": self.step,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "usual_log_norm": None if math.isnan(self.usual_log_norm) else self.usual_log_norm,
            "best_bound": self.best_bound if math.isfinite(self.best_bound) else None,
            "since_best": self.since_best,
        }
        return saved, numbers

    def load(self, saved: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Go on from a `state`, bit for bit."""

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(name): t for key, t in saved.items() if key.startswith(name)}

        fill(self.loss, {name: t for name, t in saved.items() if name.startswith(("model.", "objective."))})
        if self.options.ema:
            fill(self.averaged, part("averaged."))
        self.best = {name: t.clone() for name, t in part("best.").items()}
        for j, optimizer in enumerate(self.optimizers):
            slots = part(f"optimizer.{j}.")
            if slots.keys() != optimizer.slots.keys():
                wrong = ", ".join(sorted(slots.keys() ^ optimizer.slots.keys())[:5])
                raise ValueError(f"the state is of another optimiser (train.optimizer): the two differ in {wrong}")
            for slot, t in slots.items():
                optimizer.slots[slot].copy_(t)
        if ("noise.cuda" in saved) != (self.device.type == "cuda"):
            there = "cuda" if "noise.cuda" in saved else "cpu"
            raise ValueError(f"it was trained on {there}, and goes on there only: --device {there}")
        self.noise = [saved["noise.cpu"], *part("noise.cuda").values()]
        self.generator.set_state(saved["noise.data"])
        self.usual_log_norm = math.nan if numbers["usual_log_norm"] is None else numbers["usual_log_norm"]
        self.step = numbers["step"]
        self.skipped = numbers["skipped"]
        self.skipped_in_a_row = numbers["skipped_in_a_row"]
        self.best_bound = -math.inf if numbers["best_bound"] is None else numbers["best_bound"]
        self.since_best = numbers["since_best"]

    def gradient(self, x: Tensor, step: Tensor, *context: Tensor) -> tuple[Terms, Tensor, tuple[Tensor | None, ...]]:
        """What a batch says, the length of the gradient, and the gradient of each parameter."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"):
            terms = self.loss(x, step, *context)
        gradients = torch.autograd.grad(terms.loss, self.parameters, allow_unused=True)
        with torch.no_grad():
            norm = torch.stack(torch._foreach_norm([g for g in gradients if g is not None])).norm()
        return Terms(*(t.detach() for t in terms)), norm, gradients

    def _fastest(self, batches: Batches) -> Gradient:
        """`gradient`, as fast as the options allow."""
        self.model.train()
        with self.own_noise(keep=False), unchanged_buffers(self.loss):
            x, *context = (t.clone() for t in batches.draw(0, None))
            step = self.step_tensor()
            # the first call of a divergence cannot be traced: one pass as it is, which also shows mistakes of shape
            with torch.no_grad():
                self.loss(x, step, *context)
            if self.options.compile == "replay":
                other, *its_context = batches.draw(-1, None)
                return fastest(self.gradient, self.loss, (x, step, *context), (other, step + 1, *its_context))
        if self.options.compile == "on" and _can_compile(self.device):
            self.loss.compile()
        return self.gradient

    def _update(self, terms: Terms, norm: float, batch: Sequence[Tensor], lr: float) -> None:
        """Clip, check, move the weights and their average."""
        options = self.options
        log_norm = math.log(max(norm, 1e-30))  # no gradient at all is no reason to divide by nothing
        usual = math.exp(log_norm if math.isnan(self.usual_log_norm) else self.usual_log_norm)
        if not (math.isfinite(terms.loss) and math.isfinite(norm) and norm <= options.insane * usual):
            self.skipped += 1
            self.skipped_in_a_row += 1
            if self.given_up:
                raise TrainingError(self._why(batch, norm / usual))
            return
        self.skipped_in_a_row = 0
        # the first norms are large and short-lived: the average starts fast
        pace = max(0.01, 1 / (self.step + 2 - self.skipped))
        self.usual_log_norm = math.log(usual) + pace * (log_norm - math.log(usual))
        if options.clip and norm > options.clip * usual:
            # not in place: two parameters may share a gradient, and a recorded step may return a constant
            moved = [p for p in self.parameters if p.grad is not None]
            shorter = torch._foreach_mul([p.grad for p in moved if p.grad is not None], options.clip * usual / norm)
            for p, g in zip(moved, shorter, strict=True):
                p.grad = g
        for optimizer in self.optimizers:
            optimizer.step(lr)
        if options.ema:
            # a young average forgets faster, so that it does not carry the random start along
            decay = min(options.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, self.followed, 1 - decay)

    def _keep_best(self, validation: Validation) -> None:
        found = validation.valid
        if self.step < self.objective.horizon or math.isnan(found.distortion.mean):
            # a bound with a weight that is still to rise, or none at all, says nothing of what is to come
            return
        # one sample says it best with its divergence in closed form; several are judged by the bound that they make
        bound = found.elbo.mean if self.objective.k == 1 else found.bound.mean
        # a plain autoencoder has no bound: the better one explains held-out data better
        bound = bound if found.is_bound else -found.distortion.mean
        if bound > self.best_bound:
            self.best_bound, self.since_best = bound, 0
            if self.options.patience:
                self.best = {name: t.detach().clone() for name, t in tensors(self.averaged).items()}
        else:
            self.since_best += 1

    def step_tensor(self) -> Tensor:
        """The number of updates so far, on the device."""
        return torch.tensor(float(self.step), device=self.device)

    @contextlib.contextmanager
    def own_noise(self, keep: bool = True) -> Iterator[None]:
        """Within it, torch's global random state is the trainer's own; afterwards it is the caller's again.

        Args:
            keep: Whether what is drawn moves the trainer's own state on.
        """
        caller = self._noise()
        self._set_noise(self.noise)
        try:
            yield
            self.noise = self._noise() if keep else self.noise
        finally:
            self._set_noise(caller)

    def _noise(self) -> list[Tensor]:
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *cuda]

    def _set_noise(self, state: list[Tensor]) -> None:
        torch.set_rng_state(state[0])
        for cuda in state[1:]:
            torch.cuda.set_rng_state(cuda, self.device)

    def _why(self, batch: Sequence[Tensor], times: float) -> str:
        first = first_bad_tensor(self.model, *batch)
        what = (
            f"the first tensor that is not finite is {first}"
            if first
            else f"all values are finite, but the gradient is {times:.0f} times its usual length"
        )
        return (
            f"training stopped at step {self.step}: {self.skipped_in_a_row} updates in a row could not be made; "
            f"{what}. "
            f"Try a smaller learning rate (train.lr={self.options.lr / 3:.0e}) or a longer warm-up (train.warmup), "
            "check the data for extreme values, or choose a likelihood that fits them (model.family)."
        )


def _can_compile(device: torch.device) -> bool:
    """Whether there is a compiler to compile with; training without one is slower, and otherwise the same."""
    if device.type != "cpu" or shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"):
        return True
    warnings.warn("compile=on needs a C++ compiler, and none was found: training runs uncompiled.", stacklevel=3)
    return False
