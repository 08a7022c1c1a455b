"""Row 9: how far samples are from images that no model has seen, on the features of a network that reads digits.

The Fréchet distance of two sets of features is that of normals with their means and covariances,

    |m - m'|^2 + tr(C + C' - 2 (C C')^1/2)

(Heusel et al. 2017, https://arxiv.org/abs/1706.08500). The features are those of the last hidden layer of a small
convolutional network that was trained here to tell the ten digits apart, not those of Inception: the distances are no
FID, and compare with each other alone. Beside them stands the distance of training images from test images.

The ordering to reproduce is that of Ghosh et al. 2020, https://arxiv.org/abs/1903.12436, table 1, for MNIST: with a
mixture of ten fitted to its codes, a regularised autoencoder (RAE-L2, FID 8.7) is better than a plain one (10.7), and
that is better than a VAE (17.7), which is better with the mixture than with its own prior (19.2); with one normal the
regularised one is next (22.2), and the plain one is the worst of all (58.7). What is compared are means of p(x|z), as
there. The VAE's likelihood has a scale that is set by hand, as there: a learned one is small, and spends more nats on
codes than a prior can follow.

Axes: ``n`` images, ``f`` features.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

import lowerbound as lb
from lowerbound import recipes
from lowerbound.data import Data
from lowerbound.run import Table, override
from lowerbound.train import fill
from lowerbound.views import View

from .asked import Asked, Found
from .bound import lines, train

COUNT = 10_000
FEATURES = 64
PASSES, BATCH, RATE = 3, 128, 1e-3
STEPS, TINY_STEPS = 3000, 5
REAL, RECONSTRUCTIONS = "training images", "reconstructions"


@dataclass(frozen=True)
class Contestant:
    """A model, and the priors that it is sampled from.

    Args:
        changes: Of the row's file.
        priors: Each by its name, with how it is fitted to the codes of the training images; with nothing, it is the
            model's own.
        tiny: What makes the model small, beside what makes all of them small.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    priors: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"own prior": {}})
    tiny: Mapping[str, Any] = field(default_factory=dict)


MIXTURE = {"mixture of 10": {"prior": "gmm", "components": 10}}
FLOW = {"flow": {"prior": "flow"}}
FITTED = {"one normal": {"prior": "gmm", "components": 1}, **MIXTURE, **FLOW}
CONTESTANTS = {
    "VAE": Contestant({"model.scale": 64.0}, {"own prior": {}, **MIXTURE, **FLOW}),
    "AE": Contestant({"model.posterior": "point", "objective.name": "reconstruction"}, FITTED),
    "RAE-L2": Contestant(
        {
            "model.posterior": "point",
            "objective.name": "reconstruction",
            "objective.penalty": 1.0,
            "train.weight_decay": 0.01,
        },
        FITTED,
    ),
    "VQ-VAE": Contestant(
        {"model.name": "codes", "model.codes": 64, "model.prior_width": 32},
        {"prior over codes": {}},
        {"model.codes": 4, "model.prior_width": 8, "model.prior_layers": 1},
    ),
    "VAE-GAN": Contestant(
        {"objective.name": "vaegan", "train.lr": 0.003},
        {"own prior": {}, **MIXTURE},
        {"objective.hidden": [4, 4], "objective.warmup": 2},
    ),
}


def measure(asked: Asked) -> Found | None:
    """The distance of every contestant from the test images; None if there is more to do."""
    file = asked.folder / "distances.jsonl"
    known = {line["name"]: line for line in lines(file)}
    compare: Comparison | None = None
    training, absent = 0.0, []
    for name, contestant in CONTESTANTS.items():
        if contestant.changes.get("model.name", "conv") not in recipes.MODELS:
            absent.append(name)
            continue
        trained = train(_tables(asked, contestant), asked.folder / name, asked.device, asked.clock)
        if trained is None:
            return None
        training += trained.seconds
        model = trained.trainer.averaged.eval()
        fill(model, trained.trainer.result())
        for of in (REAL, RECONSTRUCTIONS, *contestant.priors):
            label = of if of == REAL else f"{name}, {of}"
            if label in known:
                continue
            if asked.clock.over:
                return None
            compare = compare or Comparison(trained.data, steps=TINY_STEPS if asked.smoke else STEPS)
            began = time.perf_counter()
            pictures = compare.pictures(model, of, contestant.priors.get(of, {}), asked.seed)
            found = {"name": label, "distance": compare(pictures), "seconds": time.perf_counter() - began}
            known[label] = found
            with file.open("a") as out:
                out.write(json.dumps(found) + "\n")
    distances = {label: line["distance"] for label, line in known.items()}
    return {
        "said": _in_words(distances, absent),
        "distances": distances,
        "training_seconds": training,
        "evaluation_seconds": sum(line["seconds"] for line in known.values()),
    }


class Comparison:
    """What compares images with those of the test set.

    Args:
        data: What the models were trained on a part of.
        steps: Of a flow's fit to codes, at most.
    """

    def __init__(self, data: Data, steps: int = STEPS) -> None:
        self.data, self.steps = data, steps
        self.train, self.test = data.fixed("train"), data.fixed("test", COUNT)
        labels = data.labels_of("train")
        # images without labels are told apart by their brightness, so that the code runs on any
        brightness = self.train.flatten(1).mean(1)
        self.network = reader(self.train, (brightness > brightness.median()).long() if labels is None else labels)
        self.expected = features(self.network, self.test)

    def __call__(self, pictures: Float[Tensor, "n *event"]) -> float:
        """The distance of images from those of the test set."""
        inside = pictures.clamp(float(self.train.min()), float(self.train.max()))
        return frechet(features(self.network, inside), self.expected)

    def pictures(self, model: lb.Model, of: str, prior: Mapping[str, Any], seed: int) -> Float[Tensor, "n *event"]:
        """As many images as there are test images: training images, reconstructions, or samples from a prior."""
        if of == REAL:
            return self.train[torch.randperm(len(self.train), generator=_noise(0))[: len(self.test)]]
        if prior:
            assert isinstance(model, lb.VAE)
            model = lb.fit_prior(model, self.train, self.data.fixed("valid"), **prior, steps=self.steps, seed=seed)
        view = View.of(model, self.data)
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return view.reconstruct(self.test) if of == RECONSTRUCTIONS else view.generate(len(self.test))


def reader(x: Float[Tensor, "n *event"], labels: Shaped[Tensor, " n"]) -> nn.Sequential:
    """A convolutional network that tells the labels of images apart, the same whenever it is asked for."""
    channels, height, width = x.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            lb.nets.Standardize(torch.zeros(()), x.max()),
            nn.Conv2d(channels, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * -(-height // 4) * -(-width // 4), FEATURES),
            nn.ReLU(),
            nn.Linear(FEATURES, int(labels.max()) + 1),
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
        for _ in range(PASSES):
            for rows in torch.randperm(len(x)).split(BATCH):
                loss = F.cross_entropy(net(x[rows]), labels[rows].long())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return net[:-1]


@torch.no_grad()
def features(network: nn.Module, x: Float[Tensor, "n *event"]) -> Float[Tensor, "n f"]:
    """What the network makes of images, in double precision."""
    return torch.cat([network(part) for part in x.split(1000)]).double()


def frechet(a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> float:
    """The Fréchet distance of two sets of features.

    >>> a = torch.tensor([[0.0], [2.0], [4.0]]).double()
    >>> round(frechet(a, 3 * a + 1), 6)  # means 2 and 7, deviations 2 and 6
    41.0
    """
    apart = (a.mean(0) - b.mean(0)).square().sum()
    of_a, of_b = torch.atleast_2d(a.T.cov()), torch.atleast_2d(b.T.cov())
    values, vectors = torch.linalg.eigh(of_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # C C' has the eigenvalues of C^1/2 C' C^1/2, which is symmetric
    both = torch.linalg.eigvalsh(root @ of_b @ root).clamp(min=0).sqrt().sum()
    return float(apart + of_a.trace() + of_b.trace() - 2 * both)


def _tables(asked: Asked, contestant: Contestant) -> dict[str, Table]:
    """The run of a contestant."""
    run = asked.tables()
    changes = {**contestant.changes, **(contestant.tiny if asked.smoke else {})}
    for key, value in changes.items():
        kind, _, option = key.partition(".")
        if key == "objective.name":
            run["objective"] = {}
        run[kind][option] = value
    for assignment in asked.overrides:
        override(run, assignment, recipes.annotation)
    return run


def _noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _in_words(distances: Mapping[str, float], absent: list[str]) -> str:
    """The contestants in order, the best first; then what else was compared."""

    def listed(names: Iterator[str]) -> str:
        return "; ".join(f"{name} {distances[name]:.2f}" for name in sorted(names, key=lambda name: distances[name]))

    aside = {name for name in distances if name == REAL or name.endswith(RECONSTRUCTIONS)}
    said = f"{listed(name for name in distances if name not in aside)} (beside them: {listed(iter(aside))})"
    return said + "".join(f"; {name} is not there" for name in absent)
