"""Right by default: what the data decide when nobody else has.

The likelihood follows from what values x takes, the network from its shape, the size of the latent space from how many
directions the data vary in, the length of training from how many rows there are. Each choice is one line with its
reason and the override that changes it; what a run already says is never touched.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .catalogue import TOLD
from .columns import Column
from .data import Data
from .nets import TableInput, TableNumbers, pyramid, standardisation
from .refusals import COMMITTED, WITHOUT_KL, check_codes, check_critic
from .run import Table, as_typed

# Objectives that get better as the bound does, if the weight of their KL term is 1.
JUDGED_BY_BOUND = ("elbo", "free_bits", "balanced", "iwae", "renyi", "stl", "dreg", "reconstruction")
# Objectives with a term that is estimated within a batch, and the rows that should show it.
OF_A_BATCH = ("tc", "factor", "dip", "info", "mutual", "wae")
LEAST_SHOWN = 16
CONVOLVE = ("conv", "topdown", "pixel", "codes")
# Networks that learn to do without z if the KL term weighs in full at once: over what share of the steps it rises.
WARMED = {
    "ladder": (0.5, "the upper variables of a ladder stay unused if the KL term weighs in full soon"),
    "topdown": (0.9, "the lower levels of a ladder stay unused if the KL term weighs in full soon"),
    "pixel": (0.5, "a decoder that sees pixels around learns to do without z if the KL term weighs in full at once"),
}
# How many a prior has, where there are so many rows.
EXEMPLARS = 100
# Rows without a label for each with one, above which labels weigh more.
MANY_UNLABELLED = 100
VARIANCE_KEPT = 0.9
# The part of a table's rows that lose entries while they are trained on, so that filling is learned: more costs samples
# some of their quality.
HIDDEN = 0.25
PCA_ROWS = 2000
PCA_VALUES = 2**26


@dataclass(frozen=True)
class Choice:
    """One default, and why.

    Attributes:
        key: The option, as it is overridden.
        value: What was chosen.
        reason: Why, in words.
    """

    key: str
    value: Any
    reason: str

    def __str__(self) -> str:
        """One line: ``key=value``, and the reason."""
        return f"{self.key}={as_typed(self.value)}  ({self.reason})"


def choose(run: Mapping[str, Table], data: Data) -> list[Choice]:
    """Fill in what a run leaves open, in place.

    Args:
        run: The four tables.
        data: The data set that the run names.

    Returns:
        What was chosen, in the order of the decisions.
    """
    made: list[Choice] = []

    def settle(kind: str, key: str, value: Any, reason: str) -> Any:
        """The value of an option: what the run says, else this one."""
        if key not in run[kind]:
            run[kind][key] = value
            made.append(Choice(f"{kind}.{key}", value, reason))
        return run[kind][key]

    rows = len(data.split["train"])
    if run["train"].get("hide") and not data.columns:
        raise ValueError(
            f"train.hide={run['train']['hide']} makes holes in rows, and only a model of a table knows what a missing "
            f"value is; {data.name} is none. Leave train.hide out."
        )
    if run["objective"].get("name") == "vaegan":
        check_critic(run, data)
    network = _choose_table(settle, run, data) if data.columns else _choose_network(settle, run, data)
    if run["model"].get("posterior") == "point":
        settle("objective", "name", "reconstruction", "a point posterior has an infinite KL term")
    if run["model"].get("prior") == "exemplar" and rows < EXEMPLARS:
        settle("model", "prior_components", rows, "an exemplar is a row to train on")
    if run["model"].get("posterior") == "sphere" and run["model"]["name"] not in TOLD:
        settle("model", "prior", "sphere", "the posterior is one of directions, and so is its prior")
    if data.columns and "name" not in run["objective"]:
        settle("objective", "name", "iwae", "a tighter bound, which fills holes better (MIWAE)")
        settle("objective", "k", 5, "samples of z for each row")
    objective = settle("objective", "name", "elbo", "the bound itself, with weight 1 on the KL term")
    if run["model"].get("posterior") == "point" and objective not in WITHOUT_KL:
        raise ValueError(
            f"objective {objective!r} has a KL term, which is infinite for model.posterior=point: leave objective.name "
            "out (a plain autoencoder maximises the likelihood alone), set objective.name=wae (codes that match the "
            "prior all together), or choose another posterior."
        )
    check_codes(run, objective)

    batch = settle("train", "batch", usual_batch(rows, objective), f"{rows:,} rows to train on")
    _choose_for_objective(settle, run, rows)
    if objective == "vaegan":
        _choose_critic(settle, run, data)
    convolves = network in CONVOLVE
    passes, least, most = (15, 1000, 6000) if convolves else (150, 2000, 20_000)
    steps = min(most, max(least, passes * rows // max(1, batch)))
    if convolves:
        settle("train", "lr", 8e-3, "residual convolutions bear long steps, and learn faster by them")
    steps = settle("train", "steps", steps, f"{steps * batch / rows:.0f} passes over the data")
    if network in WARMED and objective in ("elbo", "free_bits", "balanced"):
        share, reason = WARMED[network]
        settle("objective", "warmup", round(share * steps), reason)
        settle("train", "warmup", min(200, steps // 10), "the learning rate has to be up before the KL term is")
    if run["model"].get("hierarchy") and run["model"].get("quantiser", "vq") in COMMITTED:
        settle("model", "commitment", 0.1, "of two maps the finer begins far from its codes, and at 1 says nothing")
    if run["model"].get("quantiser") == "gumbel" and objective in ("elbo", "free_bits"):
        settle("objective", "warmup", steps // 3, "codes that are drawn say little at first")
    if objective == "vaegan":
        settle("objective", "warmup", steps // 10, "steps in which pictures take shape before a critic has its say")
    if settle("train", "valid_every", max(1, steps // 40), "40 looks at held-out data"):
        if objective in JUDGED_BY_BOUND and run["objective"].get("beta", 1) == 1:
            settle("train", "patience", 8, "stop after 8 looks without a better bound, and keep the best weights")
        else:
            settle("train", "patience", 0, "held-out data are judged by the bound, and this objective is another")
    return made


def _choose_network(settle: Any, run: Mapping[str, Table], data: Data) -> str:
    """Network, likelihood and latent size for images and vectors; the name of the network."""
    event = tuple(data.event)
    image = len(event) == 3
    if list(run["model"].setdefault("event", list(event))) != list(event):
        raise ValueError(
            f"model.event={list(run['model']['event'])}, but a row of {data.name} has shape {list(event)}: "
            "leave model.event out, the data say it."
        )
    shape = "x".join(map(str, event[1:] if image else event))
    rows = len(data.split["train"])
    if "given" in run["model"]:
        settle("model", "name", "cvae", f"a model that is told something of each row: {run['model']['given']}")
    told = run["model"].get("name") in TOLD
    if told:
        _choose_told(settle, data)
    # a conditional model is made of either network, and says of which
    where = ("model", "network") if told else ("model", "name")
    if run["model"].get("name") == "m2":
        network = _choose_semisupervised(settle, data)
    elif image and min(event[1:]) >= 16:
        network = settle(*where, "conv", f"images of {shape}")
    else:
        network = settle(*where, "mlp", f"{'images' if image else 'rows'} of {shape}: too small to convolve")
    _choose_likelihood(settle, run, data)
    looked_at = data.fixed("train", min(PCA_ROWS, max(2, PCA_VALUES // math.prod(event))))
    # elements of an image share a unit; those of a vector have one each
    looked_at = looked_at if image else looked_at / standardisation(looked_at, event)[1]
    if network == "topdown":
        settle("model", "latent", 4, "channels of each latent variable, which has a height and a width")
    elif network == "codes":
        settle("model", "latent", 16, "channels of the vector that a code stands for")
    elif network == "sequence":
        settle("model", "latent", 16, "steps tell most of each other, and leave little to z")
    else:
        _choose_latent(settle, looked_at)
    if network in CONVOLVE and image:
        # a ladder has a latent variable of few places to decide what all others are given; codes have many places
        smallest = {"topdown": 2, "codes": 8}.get(network, 4)
        halvings = max(1, math.ceil(math.log2(min(event[1:]) / smallest)))
        channels = [min(64, 32 * 2**i) for i in range(halvings)]
        left = min(pyramid((event[1], event[2]), halvings)[-1])
        settle("model", "channels", channels, f"halve {shape} until {left} pixels are left")
    if rows < 20_000:
        settle("model", "dropout", 0.2, f"{rows:,} rows: few enough for an encoder to learn by heart")
    return str(network)


def _choose_told(settle: Any, data: Data) -> None:
    """What the labels are that a model is told.

    Raises:
        ValueError: A model that is told the class of every row is given rows without one.
    """
    if not data.given.endswith("label") or data.labels is None:
        return
    if data.classes and data.given == "label" and (lost := int((data.labels < 0).sum())):
        raise ValueError(
            f"a model that is told labels must know the class of each row, and {lost:,} of {len(data.labels):,} rows "
            f"of {data.name} {'has' if lost == 1 else 'have'} none. Leave such rows out; or choose model.name=m2, "
            "which learns from rows without one."
        )
    if data.classes:
        settle("model", "classes", data.classes, f"a label is one of {data.classes} classes")
    else:
        settle("model", "attributes", data.labels.shape[1], f"a label is {data.labels.shape[1]} numbers")
    if data.label_names:
        settle("model", "names", list(data.label_names), "that is what they are called")


def _choose_semisupervised(settle: Any, data: Data) -> str:
    """How much a model of few labels leans on them; the name of its network."""
    assert data.told is not None
    known = int(data.told.isfinite().sum())
    rows = len(data.split["train"])
    many = rows / max(1, known) > MANY_UNLABELLED
    reason = f"{known:,} of {rows:,} rows have a label: what is learned of classes must weigh against the others"
    settle("model", "alpha", 20.0 if many else 3.0, reason)
    settle("model", "dropout", 0.5 if many else 0.3, "few labels are soon known by heart")
    return str(settle("model", "network", "mlp", "each row is seen once for every class"))


def _choose_table(settle: Any, run: Mapping[str, Table], data: Data) -> str:
    """Network and latent size for a table; the name of the network."""
    model, columns = run["model"], data.columns
    if settle("model", "name", "table", f"{len(columns)} columns: {_kinds(columns)}") != "table":
        raise ValueError(
            f"model.name={model['name']} knows no columns of mixed kinds, and {data.name} is a table. Leave model.name "
            "out; or save its numbers as an array (.npy) and train on that."
        )
    described = [column.table() for column in columns]
    if model.setdefault("columns", described) != described:
        raise ValueError(f"model.columns are not those of {data.name}: leave model.columns out, the data say them.")
    model.setdefault("aside", [column.table() for column in data.aside])
    rows = len(data.split["train"])
    x = data.fixed("train", max(2, min(PCA_ROWS, PCA_VALUES // len(columns))))
    read = TableInput(columns, *standardisation(TableNumbers(columns)(x), (len(columns),)))
    _choose_latent(settle, read.values(x))
    width = 128 if rows < 20_000 else 256
    settle("model", "hidden", [width] * 3, f"{rows:,} rows to learn from")
    if model.get("missing", "random") == "random":
        settle("train", "hide", HIDDEN, "rows that lose entries at random when they are drawn: so filling is learned")
    elif run["train"].get("hide"):
        raise ValueError(
            f"train.hide={run['train']['hide']} hides entries at random, and model.missing={model['missing']} would "
            "learn that from what values it does. Leave train.hide out."
        )
    return "table"


def _kinds(columns: Sequence[Column]) -> str:
    """How many columns of each kind there are, in words."""
    counts = Counter(column.kind for column in columns)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def _choose_latent(settle: Any, x: Tensor) -> None:
    kept, of = principal_directions(x, VARIANCE_KEPT)
    latent = min(64, max(2, kept))
    reason = f"{kept} of {of} directions hold {VARIANCE_KEPT:.0%} of the variance"
    settle("model", "latent", latent, reason if latent == kept else f"{reason}, kept between 2 and 64")


def usual_batch(rows: int, objective: str) -> int:
    """Rows in a batch: a sixteenth of few rows, 128 of many, and enough for what is estimated within a batch."""
    least = min(LEAST_SHOWN, rows) if objective in OF_A_BATCH else 1
    return min(128, max(least, 2 ** max(0, int(math.log2(rows / 16)))))


def _choose_likelihood(settle: Any, run: Mapping[str, Table], data: Data) -> None:
    levels = data.observed_levels
    if levels == 2:
        settle("model", "family", "bernoulli", "x is 0 or 1")
    elif run["objective"].get("name") == "vaegan":
        settle("model", "family", "normal", "a critic sees the mean of p(x|z), and a normal's is at hand")
    elif levels is not None:
        settle("model", "family", "logistic_mixture", f"x is one of the {levels} integers 0..{levels - 1}")
    else:
        what = "integers made continuous by noise" if data.discrete else "x is continuous"
        settle("model", "family", "normal", f"{what}; one scale, learned")
    if run["model"].get("name") == "pixel" and levels is None:
        noise = "made continuous by data.noise=dequantize. Leave one of the two out" if data.discrete else ""
        raise ValueError(
            f"model.name=pixel draws images of integers, pixel by pixel, and the rows of {data.name} are "
            f"{noise or 'continuous. Leave model.name out'}."
        )
    if run["model"]["family"] in ("logistic", "logistic_mixture", "categorical") and levels is not None:
        settle("model", "levels", levels, "that is how many values there are")


def _choose_for_objective(settle: Any, run: Mapping[str, Table], rows: int) -> None:
    """What an objective has to know of data, model and batch."""
    model, objective, batch = run["model"], run["objective"], run["train"]["batch"]
    match objective["name"]:
        case "tc":
            settle("objective", "rows", rows, "as many are trained on, and share the aggregated posterior")
        case "factor" if model.get("spatial"):
            height, width = pyramid(tuple(model["event"][1:]), len(model["channels"]))[-1]
            reason = f"{model['latent']} channels of {height}x{width}"
            settle("objective", "latent", model["latent"] * height * width, reason)
        case "factor":
            settle("objective", "latent", model["latent"], "that is what the discriminator reads")
        case "mutual":
            most = math.log(max(1, batch))
            floor = settle("objective", "nats", round(most / 2, 1), f"half of what a batch of {batch} can show")
            if floor > most:
                raise ValueError(
                    f"objective.nats={floor:g} is a floor that cannot be seen to be reached: a batch of {batch} shows "
                    f"log {batch} = {most:.1f} nats at most. Lower it, or raise train.batch."
                )


def _choose_critic(settle: Any, run: Mapping[str, Table], data: Data) -> None:
    """What the critic of a VAE-GAN has to know of the data, which no line is spent on, and how fast it learns.

    Raises:
        ValueError: The data have another shape than was said.
    """
    event, objective = list(data.event), run["objective"]
    if list(objective.setdefault("event", event)) != event:
        raise ValueError(
            f"objective.event={list(objective['event'])}, but a row of {data.name} has shape {event}: leave "
            "objective.event out, the data say it."
        )
    x = data.fixed("train", PCA_ROWS)
    # elements of an image share the spread of their channel
    x = x.transpose(0, 1).flatten(1) if len(event) == 3 else x.flatten(1).T
    spread = x.std(1, correction=0)
    objective.setdefault("centre", x.mean(1).tolist())
    objective.setdefault("unit", torch.where(spread > 0, spread, 1.0).tolist())
    if run["train"].get("patience"):
        raise ValueError(
            f"train.patience={run['train']['patience']} keeps the weights with the best bound, and objective 'vaegan' "
            "trains none. Leave train.patience out."
        )
    if run["train"].get("compile") == "on":
        raise ValueError(
            "train.compile=on compiles what is differentiated once, and objective 'vaegan' differentiates its critic "
            "twice. Leave train.compile out: it is replayed, as it is with other objectives."
        )
    settle("train", "lr", 3e-3, "a critic that learns in long steps runs away from what it is to teach")


def principal_directions(x: Tensor, part: float) -> tuple[int, int]:
    """How many principal directions hold a part of the variance of the rows, and how many there are.

    NaN is taken for the mean of its column.
    """
    flat = x.flatten(1).double()
    flat = (flat - flat.nanmean(0)).nan_to_num()
    # the smaller of covariance and Gram matrix: they share their non-zero eigenvalues
    gram = flat @ flat.T if len(flat) < flat.shape[1] else flat.T @ flat
    values = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0)
    held = values.cumsum(0) / values.sum()
    return int((held < part).sum()) + 1, min(flat.shape)
