"""Lightning's Trainer over the plain module."""

import logging
import time
import warnings

import lightning
import torch
from torch import Tensor

from ..problem import LR, Problem
from ..race import Contestant
from .plain import PlainVAE, tensors

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


class Module(lightning.LightningModule):
    """The plain VAE, as Lightning wants it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.vae = PlainVAE(problem)
        # made once: Lightning asks again at each start, and a new one would have forgotten its moments
        self.adam = torch.optim.Adam(self.vae.parameters(), lr=LR)

    def training_step(self, batch: tuple[Tensor], _: int) -> Tensor:
        return self.vae(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.adam


class Clock(lightning.Callback):
    """The seconds of an epoch alone, without the Trainer's start."""

    seconds = 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        self.seconds = -time.perf_counter()

    def on_train_epoch_end(self, *_: object) -> None:
        self.seconds += time.perf_counter()


def trainer(problem: Problem) -> Contestant:
    """The Trainer with everything off that can be: no logger, no checkpoints, no bar, no summary."""
    module, batches, clock = Module(problem), tensors(problem), Clock()
    engine = lightning.Trainer(
        accelerator=problem.device,
        devices=1,
        max_epochs=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock],
    )

    def one_pass() -> float:
        engine.fit_loop.max_epochs += 1
        engine.fit(module, batches)
        return clock.seconds

    @torch.no_grad()
    def loss() -> float:
        return float(module.vae(problem.checked))

    return Contestant("Lightning", one_pass, sum(p.numel() for p in module.parameters()), loss)
