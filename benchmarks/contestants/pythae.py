"""pythae's own trainer, through its public interface."""

import contextlib
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from math import prod

import torch
from pythae.data.datasets import BaseDataset, DatasetOutput
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig, training_callbacks
from torch import Tensor, nn

import lowerbound as lb

from ..problem import LR, Problem
from ..race import Contestant
from ..timing import timed

# Its progress bar and its log are not what is measured: they are off, which is in its favour.
training_callbacks.tqdm = partial(training_callbacks.tqdm, disable=True)
logging.disable(logging.INFO)


def default_vae(problem: Problem) -> VAE:
    """Its default VAE: one hidden layer of 512 on either side, whatever is asked."""
    assert tuple(problem.hidden) == (512,), "pythae's default network has one hidden layer of 512"
    torch.manual_seed(0)
    return VAE(VAEConfig(input_dim=tuple(problem.event), latent_dim=problem.latent, reconstruction_loss="bce"))


@torch.no_grad()
def with_weights_of(model: nn.Module, problem: Problem) -> VAE:
    """Its default VAE with the weights of ours; the posterior, which has no bias in ours, gets about the same scale."""
    theirs = default_vae(problem)
    weight, bias, posterior, *decoder = model.parameters()
    theirs.encoder.layers[0][0].weight.copy_(weight)
    theirs.encoder.layers[0][0].bias.copy_(bias)
    theirs.encoder.embedding.weight.copy_(posterior[: problem.latent])
    theirs.encoder.log_var.weight.copy_(2 * posterior[problem.latent :])
    theirs.encoder.embedding.bias.zero_()
    theirs.encoder.log_var.bias.zero_()
    for to, of in zip(theirs.decoder.parameters(), decoder, strict=True):
        to.copy_(of.reshape(to.shape))
    return theirs.eval()


def trainer(problem: Problem) -> Contestant:
    """Its trainer on its default VAE, an epoch at a time."""
    model = default_vae(problem)
    x = problem.x.float()
    config = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=problem.batch,
        learning_rate=LR,
        no_cuda=problem.device == "cpu",
    )
    engine = BaseTrainer(model, BaseDataset(x, torch.ones(len(x))), training_config=config)
    engine.prepare_training()

    @torch.no_grad()
    def loss() -> float:
        return float(model(DatasetOutput(data=problem.checked)).loss)

    parameters = sum(p.numel() for p in model.parameters())
    return Contestant("pythae", timed(lambda: engine.train_step(1), problem.device), parameters, loss)


class PublishedEncoder(BaseEncoder):
    """The encoder of its script for static MNIST."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        dims, (width,) = prod(problem.event), problem.hidden
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(dims, width), nn.ReLU())
        self.embedding = nn.Linear(width, problem.latent)
        self.log_var = nn.Linear(width, problem.latent)

    def forward(self, x: Tensor) -> ModelOutput:
        h = self.layers(x)
        return ModelOutput(embedding=self.embedding(h), log_covariance=self.log_var(h))


class PublishedDecoder(BaseDecoder):
    """The decoder of its script for static MNIST."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        dims, (width,) = prod(problem.event), problem.hidden
        self.event = problem.event
        self.layers = nn.Sequential(nn.Linear(problem.latent, width), nn.ReLU(), nn.Linear(width, dims), nn.Sigmoid())

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z).reshape(len(z), *self.event))


class _Enough(Exception):
    """Ends its training, which has no other way to be ended."""


class AfterEpoch(training_callbacks.TrainingCallback):
    """Calls a function after each epoch, and ends the training when that says so."""

    def __init__(self, function: Callable[[int, VAE], bool]) -> None:
        self.function = function
        self.epoch = 0

    def on_epoch_end(self, training_config: BaseTrainerConfig, **kwargs: VAE) -> None:
        self.epoch += 1
        if self.function(self.epoch, kwargs["model"]):
            raise _Enough


def published(problem: Problem, start: Callable[[], None], after_epoch: Callable[[int, VAE], bool]) -> None:
    """Its script for static MNIST, without its validation: the settings that it publishes a bound of -89.78 for.

    examples/scripts/reproducibility/vae.py of https://github.com/clementchadebec/benchmark_VAE
    """
    torch.manual_seed(123)
    config = VAEConfig(input_dim=tuple(problem.event), latent_dim=problem.latent, reconstruction_loss="bce")
    model = VAE(config, encoder=PublishedEncoder(problem), decoder=PublishedDecoder(problem))
    x = problem.x.float()
    training = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=problem.batch,
        num_epochs=500,
        learning_rate=1e-4,
        scheduler_cls="MultiStepLR",
        scheduler_params={"milestones": [200, 350, 500, 750, 1000], "gamma": 10 ** (-1 / 5)},
        no_cuda=problem.device == "cpu",
    )
    dataset = BaseDataset(x, torch.ones(len(x)))
    engine = BaseTrainer(model, dataset, training_config=training, callbacks=[AfterEpoch(after_epoch)])
    start()
    with contextlib.suppress(_Enough):
        engine.train()


def as_model(theirs: VAE, problem: Problem) -> lb.Model:
    """One of its models as one of ours, the weights shared: what our bound is taken of."""
    posterior, likelihood = Posterior(theirs.encoder), lb.families.Bernoulli(problem.event)
    # the same layers, without the sigmoid at their end
    layers = [layer for layer in theirs.decoder.modules() if isinstance(layer, nn.Linear | nn.ReLU)]
    decoder = nn.Sequential(*layers, nn.Unflatten(-1, tuple(problem.event)))
    return lb.VAE(posterior, lb.priors.StandardNormal((problem.latent,)), lb.Conditional(decoder, likelihood))


class Posterior(nn.Module):
    """q(z|x) of its encoder."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> lb.DiagonalNormal:
        found = self.encoder(x)
        return lb.DiagonalNormal(found.embedding, (0.5 * found.log_covariance).exp(), 1)
