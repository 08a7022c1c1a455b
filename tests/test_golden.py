"""The first twenty losses of each recipe and its main options, as they were.

A change of these numbers is a change of what people get: explain it in the commit, and write the files anew with

    python tests/test_golden.py
"""

import json
import sys
from pathlib import Path

import pytest
import torch

from helpers import COLUMNS, mixed
from lowerbound import recipes
from lowerbound.data import Data
from lowerbound.models import VAE
from lowerbound.train import OPTIMIZERS, Options, Trainer

HERE = Path(__file__).parent / "golden"
OPTIONS = dict(steps=20, batch=32, warmup=5, valid_every=0, lr=1e-3)
SMALL = dict(latent=4, hidden=(32, 32), prior_components=10)
IMAGES = dict(latent=4, channels=(16, 32), prior_components=10)

CASES = {
    "mlp": ("bits", "mlp", {}, "elbo", {}),
    "mlp_plain": ("bits", "mlp", SMALL | dict(residual=False, activation="tanh"), "elbo", dict(beta=4.0)),
    "mlp_vamp_iwae": ("bits", "mlp", SMALL | dict(prior="vamp", dropout=0.2), "iwae", dict(k=3)),
    "mlp_iaf_flow": ("bits", "mlp", SMALL | dict(posterior="iaf", prior="flow"), "elbo", dict(warmup=10)),
    "mlp_full_mixture_dreg": ("bits", "mlp", SMALL | dict(posterior="full", prior="mixture"), "dreg", dict(k=3)),
    "mlp_point": ("bits", "mlp", SMALL | dict(posterior="point"), "reconstruction", {}),
    "mlp_continuous_bernoulli": ("unit", "mlp", SMALL | dict(family="continuous_bernoulli"), "elbo", {}),
    "mlp_categorical": ("grey", "mlp", SMALL | dict(family="categorical", levels=17), "free_bits", dict(nats=1.0)),
    "mlp_logistic": ("grey", "mlp", SMALL | dict(family="logistic", levels=17), "stl", {}),
    "mlp_normal": ("noisy", "mlp", SMALL | dict(family="normal"), "elbo", {}),
    "mlp_laplace": ("noisy", "mlp", SMALL | dict(family="laplace", scale="element"), "elbo", {}),
    "mlp_student_t": ("noisy", "mlp", SMALL | dict(family="student_t", scale=2.0), "elbo", {}),
    "mlp_free_bits_dimension": ("bits", "mlp", SMALL, "free_bits", dict(nats=0.2, by="dimension")),
    "mlp_capacity": ("bits", "mlp", SMALL, "capacity", dict(nats=5.0, beta=10.0, warmup=10)),
    "mlp_balanced": ("bits", "mlp", SMALL | dict(prior="mixture"), "balanced", dict(levels=True, warmup=10)),
    "mlp_geco": ("bits", "mlp", SMALL, "geco", dict(distortion=20.0)),
    "mlp_renyi": ("bits", "mlp", SMALL, "renyi", dict(alpha=0.3, k=3)),
    "mlp_tc": ("bits", "mlp", SMALL, "tc", dict(rows=160)),
    "mlp_factor": ("bits", "mlp", SMALL, "factor", dict(latent=4, hidden=(32, 32))),
    "mlp_dip": ("bits", "mlp", SMALL, "dip", dict(of="samples")),
    "mlp_info": ("bits", "mlp", SMALL, "info", {}),
    "mlp_mutual": ("bits", "mlp", SMALL, "mutual", dict(beta=4.0)),
    "mlp_wae": ("bits", "mlp", SMALL | dict(posterior="point"), "wae", {}),
    "mlp_vaegan": (
        "grey",
        "mlp",
        SMALL | dict(family="normal"),
        "vaegan",
        dict(event=(1, 8, 8), hidden=(4, 8), centre=(4.9,), unit=(6.0,), warmup=10),
    ),
    "mlp_muon": ("bits", "mlp", SMALL, "elbo", {}),
    "conv": ("grey", "conv", dict(levels=17), "elbo", {}),
    "conv_spatial_vamp": ("grey", "conv", IMAGES | dict(levels=17, spatial=True, prior="vamp"), "elbo", {}),
    "conv_bernoulli": ("bits", "conv", IMAGES | dict(family="bernoulli", blocks=2), "elbo", {}),
    "topdown": ("grey", "topdown", dict(channels=(16, 16), latent=2, levels=17), "elbo", dict(warmup=10)),
    "ladder": ("bits", "ladder", dict(hidden=(32, 32)), "elbo", dict(warmup=10)),
    "pixel": ("grey", "pixel", dict(latent=4, channels=(16,), width=16, levels=17), "elbo", dict(warmup=10)),
    "codes": ("grey", "codes", dict(channels=(16,), levels=17), "elbo", {}),
    "codes_gumbel": (
        "grey",
        "codes",
        dict(channels=(16,), levels=17, quantiser="gumbel", prior="independent"),
        "elbo",
        dict(warmup=10),
    ),
    "sequence": ("bits", "sequence", dict(latent=4, width=32, word_dropout=0.3), "elbo", {}),
    "cvae": ("bits", "cvae", dict(latent=4, hidden=(32, 32)) | dict(given="label", classes=10), "elbo", {}),
    "cvae_top": ("bits", "cvae", dict(latent=4, hidden=(32, 32)) | dict(given="top"), "elbo", {}),
    "m2": ("bits", "m2", dict(latent=4, hidden=(32, 32)) | dict(classes=10), "elbo", {}),
    "table": ("table", "table", {}, "iwae", dict(k=3)),
    "table_mixture_vamp": ("table", "table", SMALL | dict(real="mixture", prior="vamp"), "elbo", {}),
    "table_normal": ("table", "table", SMALL | dict(real="normal", scale="column"), "elbo", {}),
    "conv_normal_adamax": ("noisy", "conv", IMAGES | dict(family="normal", activation="gelu"), "elbo", {}),
}


def digits(kind: str) -> Data:
    """Two hundred digits: as bits, as grey levels, in the unit interval, or with noise that makes them continuous."""
    all_digits = recipes.DATA["digits"]()
    grey, labels = all_digits.x[:200], all_digits.labels[:200]
    parts = dict(zip(("train", "valid", "test"), torch.arange(200).split([160, 20, 20])))
    if kind == "bits":
        return Data(kind, (grey > 7).to(torch.uint8), parts, levels=2, labels=labels)
    if kind == "unit":
        return Data(kind, grey.float() / 16, parts)
    return Data(kind, grey, parts, levels=17, noise="dequantize" if kind == "noisy" else "none")


def rows(kind: str) -> Data:
    """Digits, or the rows of a table with holes."""
    if kind != "table":
        return digits(kind)
    torch.manual_seed(0)
    parts = dict(zip(("train", "valid", "test"), torch.arange(200).split([160, 20, 20])))
    return Data(kind, mixed(200), parts, columns=COLUMNS)


def data_of(name: str) -> Data:
    """The rows of a case, with what its model is told of them."""
    kind, model, options, _, _ = CASES[name]
    return rows(kind).conditional(recipes.given({"name": model} | options))


def model_of(name: str, data: Data) -> VAE:
    kind, model, options, _, _ = CASES[name]
    of = dict(columns=[column.table() for column in COLUMNS]) if kind == "table" else dict(event=data.event)
    return recipes.MODELS[model](data.fixed("train"), *data.context("train"), **of, **options)


def losses(name: str) -> list[float]:
    objective, arguments = CASES[name][3:]
    data = data_of(name)
    torch.manual_seed(0)
    net = model_of(name, data)
    optimizer = next((word for word in OPTIMIZERS if name.endswith(word)), "adamw")
    trainer = Trainer(net, recipes.OBJECTIVES[objective](**arguments), Options(**OPTIONS, optimizer=optimizer))
    return [step.terms.loss.item() for step in trainer.fit(data)]


@pytest.mark.parametrize("name", list(CASES))
def test_the_first_losses_are_what_they_were(name):
    expected = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    assert losses(name) == pytest.approx(expected, rel=1e-4)


def test_every_recipe_and_objective_is_held():
    assert {case[1] for case in CASES.values()} == set(recipes.MODELS)
    assert {case[3] for case in CASES.values()} == set(recipes.OBJECTIVES)
    assert {path.stem for path in HERE.glob("*.json")} == set(CASES)


if __name__ == "__main__":
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    for name in sys.argv[1:] or CASES:
        (HERE / f"{name}.json").write_text(json.dumps(losses(name), indent=1) + "\n", encoding="utf-8")
