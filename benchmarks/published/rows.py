"""The rows of the table: what was published, and how it is measured here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STATIC = "static MNIST"
BINARY_NETS = {"model.hidden": [8, 8], "model.latent": 3}
LADDER = {"model.channels": [8, 8, 8], "model.latent": 2}


@dataclass(frozen=True)
class Row:
    """One published number.

    Args:
        number: In the table.
        what: Data, network and objective.
        published: What was published, in words.
        bar: What is to be reached, in the unit.
        k: Importance samples for each datum.
        file: Of the run's four tables.
        chunk: Samples decoded at once; 0 for as many as the evaluation chooses.
        unit: "nats", or "bits/dim".
        place: Where it can be run in reasonable time.
        tiny: Overrides of the tables that make it small, so that its code can be run in seconds.
        module: Of this package: its `measure(asked)` does the work.
        notes: What differs from the published protocol.
    """

    number: int
    what: str
    published: str
    bar: float | None
    k: int
    file: Path | None
    chunk: int = 0
    unit: str = "nats"
    place: str = "GPU"
    tiny: Mapping[str, Any] = field(default_factory=dict)
    module: str = "bound"
    notes: str = ""


ROWS = {
    "static_vae": Row(
        1,
        f"{STATIC}, 784-200-200-50 tanh, VAE",
        "88.71 (again 89.9)",
        88.71,
        5000,
        HERE.parent / "static_mnist.toml",
        place="CPU",
        tiny=BINARY_NETS,
    ),
    "static_iwae5": Row(
        1,
        f"{STATIC}, 784-200-200-50 tanh, IWAE-5",
        "87.63 (again 87.65)",
        87.63,
        5000,
        HERE / "static_iwae5.toml",
        place="CPU",
        tiny=BINARY_NETS,
    ),
    "static_iwae50": Row(
        1,
        f"{STATIC}, 784-200-200-50 tanh, IWAE-50",
        "87.10 (again 86.71)",
        87.10,
        5000,
        HERE / "static_iwae50.toml",
        tiny=BINARY_NETS | {"objective.k": 5},
    ),
    "static_vamp": Row(
        2,
        f"{STATIC}, gated 300-300, z of 40, VampPrior of 500",
        "85.57 (pythae 85.79)",
        85.5,
        5000,
        HERE / "static_vamp.toml",
        place="CPU",
        tiny=BINARY_NETS | {"model.prior_components": 5},
    ),
    "static_vamp2": Row(
        3,
        f"{STATIC}, gated 300-300, two levels of 40, VampPrior of 500 on the top",
        "83.19",
        83.1,
        5000,
        HERE / "static_vamp2.toml",
        place="CPU or GPU",
        tiny={"model.hidden": [8, 8], "model.latent": 3, "model.prior_components": 5},
    ),
    "static_realnvp": Row(
        4,
        f"{STATIC}, residual convolutions, one z of 40, RealNVP prior",
        "79.84",
        79.8,
        1000,
        HERE / "static_realnvp.toml",
        chunk=8192,
        tiny={"model.channels": [8, 8, 8], "model.latent": 4, "model.blocks": 1, "model.prior_steps": 2},
    ),
    "static_ladder3": Row(
        5,
        f"{STATIC}, convolutional ladder of 3 rungs",
        "79.24",
        79.2,
        1000,
        HERE / "static_ladder3.toml",
        chunk=4096,
        tiny=LADDER,
        notes="trained on training and validation images, as published, but for 100 to look at",
    ),
    "static_ladder12": Row(
        5,
        f"{STATIC}, convolutional ladder of 12 rungs",
        "78.30 (BIVA 78.59)",
        78.3,
        1000,
        HERE / "static_ladder12.toml",
        chunk=4096,
        tiny=LADDER | {"model.rungs": [1]},
        notes="trained on training and validation images, as published, but for 100 to look at",
    ),
    "dynamic_ladder12": Row(
        6,
        "dynamic MNIST, the ladder of 12 rungs",
        "78.01 (NVAE)",
        78.0,
        1000,
        HERE / "dynamic_ladder12.toml",
        chunk=4096,
        tiny=LADDER | {"model.rungs": [1]},
        notes="the test bits are drawn once, from a fixed seed",
    ),
    "fashion_normal": Row(
        7,
        "Fashion-MNIST, binarised dynamically, gated 300-300, z of 40, standard prior",
        "228.70 ± 0.15",
        228.70,
        5000,
        HERE / "fashion_normal.toml",
        place="CPU",
        tiny=BINARY_NETS,
        notes="50,000 / 10,000 / 10,000; the test bits are drawn once, from a fixed seed",
    ),
    "fashion_vamp": Row(
        7,
        "Fashion-MNIST, binarised dynamically, gated 300-300, z of 40, VampPrior of 500",
        "227.35 ± 0.05",
        227.35,
        5000,
        HERE / "fashion_vamp.toml",
        place="CPU",
        tiny=BINARY_NETS | {"model.prior_components": 5},
        notes="50,000 / 10,000 / 10,000; the test bits are drawn once, from a fixed seed",
    ),
    "cifar_ladder15": Row(
        8,
        "CIFAR-10 (the 4,000 images at hand, without loss), convolutional ladder of 15 rungs",
        "3.34 bits/dim, of all 50,000",
        None,
        100,
        HERE / "cifar_ladder15.toml",
        chunk=1024,
        unit="bits/dim",
        tiny={"model.channels": [8, 8, 8, 8], "model.latent": 2, "model.rungs": [1], "model.components": 2},
        notes="4,000 images are no CIFAR-10; give all of it by data.path=cifar10.npz (arrays x_train and x_test)",
    ),
    "samples": Row(
        9,
        "MNIST, Fréchet distance of samples from test images, on the features of a classifier",
        "RAE's ordering (FID): mixture: RAE-L2 8.7, AE 10.7, VAE 17.7; VAE 19.2; one normal: RAE-L2 22.2, AE 58.7",
        None,
        0,
        HERE / "samples.toml",
        unit="distance",
        place="CPU",
        tiny={"model.channels": [4, 4], "model.latent": 2, "train.valid_every": 0},
        module="samples",
        notes="features of a network trained on the digits' labels here, not of Inception: no FID",
    ),
}
