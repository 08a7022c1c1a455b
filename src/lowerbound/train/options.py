"""How to train: the options, and the learning rate of each step."""

import math
from dataclasses import dataclass

OPTIMIZERS = ("adamw", "adamax", "muon")
DECAYS = ("cosine", "constant")
PRECISIONS = ("float32", "bfloat16")
COMPILES = ("off", "replay", "on")


@dataclass(frozen=True)
class Options:
    """How to train.

    Args:
        steps: Updates.
        batch: Rows in each.
        lr: Learning rate at its peak.
        warmup: Steps over which the learning rate rises to its peak.
        decay: "cosine" (to zero at the last step) or "constant".
        optimizer: "adamw"; "adamax"; or "muon": steps that are equally long in all directions of a linear map, for the
            weights of linear layers, and AdamW for the rest. It needs fewer passes where layers are linear. Jordan et
            al. 2024, https://kellerjordan.github.io/posts/muon/
        weight_decay: Decoupled weight decay, of matrices only.
        clip: Gradients longer than this many times their usual norm are shortened to it; 0 for never.
        insane: Updates whose gradient is longer than this many times its usual norm are skipped.
        give_up: Skipped updates in a row after which training stops with an error.
        ema: Decay of the moving average of the weights, which is what is evaluated and saved; 0 for none.
        valid_every: Steps between validations; 0 for none.
        valid_rows: Rows used for a validation at most.
        patience: Validations without improvement after which training stops; 0 for never. The best weights are kept.
        hide: Part of the rows of which a random part of the entries is hidden, from encoder and likelihood alike, each
            time they are drawn: so a model of tables learns to fill holes, even from tables that have none.
        labelled: Of a model that learns classes from few labels (m2), how many of the rows to train on have one that it
            is told, as many of each class as can be; 0 for all that have one.
        precision: "float32" or "bfloat16" (networks under autocast; log-densities stay in float32).
        compile: "off" runs PyTorch's operations as they come; "replay" records those of one step and runs them alone,
            with the same results to the bit; "on" compiles them with `torch.compile`, which needs a C++ compiler and a
            minute, and rounds differently.
        seed: Of the order of the data and of all noise.

    Raises:
        ValueError: Any of these is out of its range; all that are, are listed.
    """

    steps: int = 10_000
    batch: int = 128
    lr: float = 2e-3
    warmup: int = 200
    decay: str = "cosine"
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    clip: float = 5.0
    insane: float = 1000.0
    give_up: int = 100
    ema: float = 0.999
    valid_every: int = 500
    valid_rows: int = 2000
    patience: int = 0
    hide: float = 0.0
    labelled: int = 0
    precision: str = "float32"
    compile: str = "replay"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every number, and say all that is wrong at once."""
        counts = ("steps", "batch", "give_up", "valid_rows")
        sizes = ("warmup", "weight_decay", "clip", "valid_every", "patience", "labelled", "seed")
        wrong = [f"{name}={getattr(self, name)} must be 1 or more" for name in counts if not getattr(self, name) >= 1]
        wrong += [
            f"{name}={getattr(self, name)} must be 0 or more"
            for name in sizes
            if not 0 <= getattr(self, name) < math.inf
        ]
        wrong += [] if 0 < self.lr < math.inf else [f"lr={self.lr} must be positive"]
        wrong += [] if self.insane > max(1.0, self.clip) else [f"insane={self.insane} must be above 1 and above clip"]
        wrong += [] if 0 <= self.ema < 1 else [f"ema={self.ema} must be in [0, 1)"]
        wrong += [] if 0 <= self.hide <= 1 else [f"hide={self.hide} must be in [0, 1]: it is a part of the rows"]
        words = (("decay", DECAYS), ("optimizer", OPTIMIZERS), ("precision", PRECISIONS), ("compile", COMPILES))
        for name, allowed in words:
            if getattr(self, name) not in allowed:
                wrong.append(f"{name}={getattr(self, name)!r} must be one of {', '.join(allowed)}")
        if self.seed >= 2**63:
            wrong.append(f"seed={self.seed} must be below 2^63")
        if self.patience and not self.valid_every:
            wrong.append(f"patience={self.patience} needs validations: set valid_every")
        if wrong:
            raise ValueError("these training options cannot work: " + "; ".join(wrong) + ".")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.decay == "cosine" else 1.0
        return self.lr * rise * fall
