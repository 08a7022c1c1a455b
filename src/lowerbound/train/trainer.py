"""The trainer, in the order things happen."""

import contextlib
import copy
import math
import os
import random
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..evaluation import Evaluation, evaluate
from ..models import Model
from ..objectives import Objective
from .diagnosis import first_bad_tensor
from .optimizers import optimizers
from .options import Options
from .weights import fill, tensors


@runtime_checkable
class Rows(Protocol):
    """What can be trained on: rows of data, and how a batch of them is drawn."""

    @property
    def train(self) -> Tensor:
        """Rows to train on, in their own dtype."""

    def fixed(self, part: str, rows: int = 0) -> Tensor:
        """So many rows of the part "train" or "valid" at most, drawn once, as the likelihood sees them; 0 for all."""

    def draw(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """A batch of rows as the likelihood sees them: cast, and binarised or dequantised if the data are."""


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

    def forward(self, x: Tensor, step: Tensor) -> Terms:
        """Minus the objective's mean, with the two terms of the bound beside it."""
        trace = self.model(x, k=self.objective.k)
        loss = -self.objective(trace, step).mean()
        with torch.no_grad():
            return Terms(loss, -trace.log_likelihood().mean(), trace.kl().mean())


@dataclass(frozen=True)
class Validation:
    """Bounds with one sample, on held-out data and on as many rows of the training data."""

    valid: Evaluation
    train: Evaluation


@dataclass(frozen=True)
class Step:
    """One update that was made or skipped. Tensors are scalars on the device: reading one waits for it.

    Attributes:
        number: Counted from 1.
        terms: Loss, distortion and rate of the batch, nats.
        grad_norm: Length of the gradient before it was clipped.
        lr: Learning rate.
        skipped: Updates skipped so far.
        validation: What was found, if this step validated.
        done: Whether it is the last.
    """

    number: int
    terms: Terms
    grad_norm: Tensor
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
        self.loss = Loss(model, objective)
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
        self.usual_log_norm = torch.full((), math.nan, dtype=torch.float64, device=self.device)
        self.generator = torch.Generator(self.device).manual_seed(_seed(self.options.seed, "data"))
        with self._own_noise(None):
            torch.manual_seed(self.options.seed)
            self.noise = self._noise()

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
        options = self.options
        rows = data.train.to(self.device)
        if len(rows) < options.batch:
            raise ValueError(
                f"batch={options.batch} is more than the {len(rows)} rows there are to train on: "
                f"set train.batch={len(rows)} or less, or give more data."
            )
        held_out = [data.fixed(part, options.valid_rows) for part in ("valid", "train")] if options.valid_every else []
        in_a_pass = len(rows) // options.batch
        # the first call of a divergence cannot be traced: one eager pass, which also shows mistakes of shape clearly
        with self._own_noise(self._noise()), torch.no_grad():
            self.loss(data.draw(rows[: options.batch], None), self._step_tensor())
        compute = torch.compile(self.loss) if options.compile and _can_compile(self.device) else self.loss

        order, order_of = torch.empty(0), -1
        while self.step < options.steps and not self._out_of_patience():
            number_of_pass, at = divmod(self.step, in_a_pass)
            if number_of_pass != order_of:
                order, order_of = self._order(len(rows), number_of_pass), number_of_pass
            batch = rows.index_select(0, order[at * options.batch : (at + 1) * options.batch])
            x = data.draw(batch, self.generator)

            lr = options.rate(self.step)
            if not self.model.training:
                self.model.train()
            with self._own_noise(self.noise):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
                    terms = compute(x, self._step_tensor())
                for optimizer in self.optimizers:
                    optimizer.zero_grad()
                terms.loss.backward()
                self.noise = self._noise()
            grad_norm = self._update(Terms(terms.loss.detach(), terms.distortion, terms.rate), x, lr)
            self.step += 1

            validation = None
            if held_out and (self.step % options.valid_every == 0 or self.step == options.steps):
                validation = Validation(*(evaluate(self.averaged, part, k=1) for part in held_out))
                self._keep_best(validation)
            done = self.step == options.steps or self._out_of_patience()
            yield Step(self.step, Terms(*(t.detach() for t in terms)), grad_norm, lr, self.skipped, validation, done)

    def result(self) -> dict[str, Tensor]:
        """The tensors of the model to keep: the best by validation if there is patience, else the averaged ones."""
        return self.best if self.options.patience and self.best else tensors(self.averaged)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that is needed to go on: tensors by name, and JSON-able numbers."""
        saved = {f"model.{name}": t for name, t in tensors(self.model).items()}
        if self.options.ema:
            saved |= {f"averaged.{name}": t for name, t in tensors(self.averaged).items()}
        saved |= {f"best.{name}": t for name, t in self.best.items()}
        for j, optimizer in enumerate(self.optimizers):
            for i, slots in optimizer.state_dict()["state"].items():
                saved |= {f"optimizer.{j}.{i}.{slot}": value for slot, value in slots.items()}
        saved |= {"noise.cpu": self.noise[0], "noise.data": self.generator.get_state()}
        saved |= {"noise.cuda": self.noise[1]} if len(self.noise) > 1 else {}
        saved |= {"usual_log_norm": self.usual_log_norm}
        # a snapshot: it stays what it is when training goes on
        saved = {name: t.detach().clone() for name, t in saved.items()}
        numbers = {
            "step": self.step,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "best_bound": self.best_bound if math.isfinite(self.best_bound) else None,
            "since_best": self.since_best,
        }
        return saved, numbers

    def load(self, saved: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Go on from a `state`, bit for bit."""

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(name): t for key, t in saved.items() if key.startswith(name)}

        fill(self.model, part("model."))
        if self.options.ema:
            fill(self.averaged, part("averaged."))
        self.best = {name: t.clone() for name, t in part("best.").items()}
        for j, optimizer in enumerate(self.optimizers):
            slots: dict[int, dict[str, Tensor]] = {}
            for key, t in part(f"optimizer.{j}.").items():
                i, slot = key.split(".", 1)
                slots.setdefault(int(i), {})[slot] = t.clone()  # the optimiser keeps what it is given, and writes to it
            optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})
        if ("noise.cuda" in saved) != (self.device.type == "cuda"):
            there = "cuda" if "noise.cuda" in saved else "cpu"
            raise ValueError(f"it was trained on {there}, and goes on there only: --device {there}")
        self.noise = [saved["noise.cpu"], *part("noise.cuda").values()]
        self.generator.set_state(saved["noise.data"])
        self.usual_log_norm = saved["usual_log_norm"].to(self.device)
        self.step = numbers["step"]
        self.skipped = numbers["skipped"]
        self.skipped_in_a_row = numbers["skipped_in_a_row"]
        self.best_bound = -math.inf if numbers["best_bound"] is None else numbers["best_bound"]
        self.since_best = numbers["since_best"]

    def _update(self, terms: Terms, x: Tensor, lr: float) -> Tensor:
        """Clip, check, move the weights and their average; the gradient's norm before clipping."""
        options = self.options
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        size = norm.double().clamp(min=1e-30)  # no gradient at all is no reason to divide by nothing
        usual = torch.where(self.usual_log_norm.isnan(), size.log(), self.usual_log_norm).exp()
        if not bool(terms.loss.isfinite() & norm.isfinite() & (norm <= options.insane * usual)):
            self.skipped += 1
            self.skipped_in_a_row += 1
            if self.skipped_in_a_row >= options.give_up:
                raise TrainingError(self._why(x, norm, usual))
            return norm
        self.skipped_in_a_row = 0
        # the first norms are large and short-lived: the average starts fast
        pace = max(0.01, 1 / (self.step + 2 - self.skipped))
        self.usual_log_norm = usual.log().lerp(size.log(), pace)
        if options.clip:
            torch._foreach_mul_(gradients, (options.clip * usual / size).clamp(max=1.0).to(norm))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        if options.ema:
            # a young average forgets faster, so that it does not carry the random start along
            decay = min(options.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, self.followed, 1 - decay)
        return norm

    def _keep_best(self, validation: Validation) -> None:
        found = validation.valid
        if self.step < self.objective.horizon or math.isnan(found.distortion.mean):
            # a bound with a weight that is still to rise, or none at all, says nothing of what is to come
            return
        # a plain autoencoder has no bound: the better one explains held-out data better
        bound = found.elbo.mean if found.is_bound else -found.distortion.mean
        if bound > self.best_bound:
            self.best_bound, self.since_best = bound, 0
            if self.options.patience:
                self.best = {name: t.detach().clone() for name, t in tensors(self.averaged).items()}
        else:
            self.since_best += 1

    def _out_of_patience(self) -> bool:
        return bool(self.options.patience) and self.since_best >= self.options.patience

    def _order(self, n: int, number_of_pass: int) -> Tensor:
        """The order of the rows in one pass over them, a function of seed and pass: it needs no saving."""
        generator = torch.Generator().manual_seed(_seed(self.options.seed, f"pass {number_of_pass}"))
        return torch.randperm(n, generator=generator).to(self.device)

    def _step_tensor(self) -> Tensor:
        return torch.tensor(float(self.step), device=self.device)

    def _noise(self) -> list[Tensor]:
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *cuda]

    @contextlib.contextmanager
    def _own_noise(self, state: list[Tensor] | None) -> Iterator[None]:
        """Within it, torch's global random state is the given one; afterwards it is the caller's again."""
        caller = self._noise()
        if state is not None:
            self._set_noise(state)
        try:
            yield
        finally:
            self._set_noise(caller)

    def _set_noise(self, state: list[Tensor]) -> None:
        torch.set_rng_state(state[0])
        for cuda in state[1:]:
            torch.cuda.set_rng_state(cuda, self.device)

    def _why(self, x: Tensor, norm: Tensor, usual: Tensor) -> str:
        first = first_bad_tensor(self.model, x)
        what = (
            f"the first tensor that is not finite is {first}"
            if first
            else f"all values are finite, but the gradient is {float(norm / usual):.0f} times its usual length"
        )
        return (
            f"training stopped at step {self.step}: {self.skipped_in_a_row} updates in a row could not be made; "
            f"{what}. "
            f"Try a smaller learning rate (train.lr={self.options.lr / 3:.0e}) or a longer warm-up (train.warmup), "
            "check the data for extreme values, or choose a likelihood that fits them (model.family)."
        )


def _seed(seed: int, of: str) -> int:
    """A seed of its own for each use, in 32 bits: torch's generator on a CPU forgets all others."""
    return random.Random(f"{seed} {of}").getrandbits(32)


def _can_compile(device: torch.device) -> bool:
    """Whether there is a compiler to compile with; training without one is slower, and otherwise the same."""
    if device.type != "cpu" or shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"):
        return True
    warnings.warn("compile=true needs a C++ compiler, and none was found: training runs uncompiled.", stacklevel=3)
    return False
