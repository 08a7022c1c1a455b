"""What does not go together, said before anything is built: models, objectives and data.

Each refusal names what was asked for, why it cannot work, and what would.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .columns import Column
from .data import REGIONS, Data
from .run import Table

# Objectives for which a posterior may be a point.
WITHOUT_KL = ("reconstruction", "wae")
# Objectives of what latent dimensions have to do with each other, or with those of the prior.
OF_DIMENSIONS = ("tc", "factor", "dip", "mutual")
# Quantisers of which the encoder is drawn to the vectors that it chose.
COMMITTED = ("vq", "residual")
# Objectives that need a posterior to draw from.
DRAW = ("iwae", "renyi", "dreg", "stl", "balanced")


def is_quantised(model: Table) -> bool:
    """Whether the posterior of a model is one code for each row, whose encoder does not hear what it costs."""
    return model.get("name") == "codes" and model.get("quantiser", "vq") != "gumbel"


def check_codes(run: Mapping[str, Table], objective: str) -> None:
    """Refuse what codes cannot learn by.

    Raises:
        ValueError: Latent dimensions are asked for, or no KL term, or one that is no cost; or several samples of
            quantised codes.
    """
    if run["model"]["name"] != "codes":
        return
    if objective in OF_DIMENSIONS:
        raise ValueError(
            f"objective {objective!r} is about latent dimensions, and codes are choices, which have none. Leave "
            "objective.name out, or choose another model (model.name=conv)."
        )
    quantised = is_quantised(run["model"])
    option, weightless = ("alpha", 1) if objective == "info" else ("beta", 0)
    dropped = run["objective"].get(option) == weightless
    if dropped or objective in WITHOUT_KL or (quantised and objective == "capacity"):
        how = f" with objective.{option}={weightless}" if dropped else ""
        raise ValueError(
            f"objective {objective!r}{how} does not make the KL term as small as it can be, and from this term alone "
            "the prior over codes learns which are likely. Leave the options of the objective out."
        )
    if quantised and (objective in DRAW or run["objective"].get("k", 1) > 1):
        raise ValueError(
            f"objective {objective!r} takes samples of z or the density of q, and a quantised posterior is one code "
            "for each row: every sample is the same. Set objective.name=elbo with objective.k=1, or "
            "model.quantiser=gumbel, whose codes are drawn."
        )


def check_critic(run: Mapping[str, Table], data: Data) -> None:
    """Refuse what a critic cannot be shown.

    Raises:
        ValueError: There is no mean of a whole row.
    """
    name = run["model"].get("name")
    if data.columns:
        why = f"the columns of {data.name} are of many kinds"
    elif name in ("pixel", "sequence"):
        why = f"model.name={name} draws a row one element after the other"
    elif data.given in REGIONS:
        why = f"model.given={data.given} explains a part of it"
    else:
        return
    raise ValueError(
        f"objective 'vaegan' shows its critic one mean of a whole row, and {why}. Leave objective.name out."
    )


def check_support(
    run: Mapping[str, Table], support: torch.distributions.constraints.Constraint, x: Tensor, indices: Tensor
) -> None:
    """Refuse data that the likelihood gives no probability.

    Args:
        run: The four tables.
        support: What values the likelihood takes.
        x: Rows.
        indices: Where in the data set each of them is.

    Raises:
        ValueError: Values outside the family's support; it says which, and what fits them.
    """
    inside = support.check(x)
    if bool(inside.all()):
        return
    row, *position = (~inside).nonzero()[0].tolist()
    value = x[row][tuple(position)].item()
    data = Path(run["data"].get("path") or run["data"]["name"]).name
    if "columns" in run["model"]:
        column = Column.of(run["model"]["columns"][position[0]])
        raise ValueError(
            f"{data} does not fit its columns: {column.name!r} is {column.kind}, but row {int(indices[row])} has "
            f"{value:g} there. Describe the column otherwise, or mend the row."
        )
    family = run["model"]["family"]
    low, high = x.min().item(), x.max().item()
    raise ValueError(
        f"family {family!r} cannot explain {data}: it takes {describe_support(support)}, but row {int(indices[row])} "
        f"has {value:g} at position {position} (values go from {low:g} to {high:g}, "
        f"{(~inside).float().mean().item():.1%} outside). "
        "Leave model.family out and the data choose it"
        + (", or binarise them (data.binarize=dynamic)." if "binarize" in run["data"] else ".")
    )


def describe_support(support: torch.distributions.constraints.Constraint) -> str:
    """What values a likelihood takes, in words."""
    upper = getattr(support, "upper_bound", None)
    if str(support) == "Boolean()":
        return "0 and 1"
    if support.is_discrete:
        return f"the integers 0 to {upper}"
    return "numbers from 0 to 1" if upper is not None else "all numbers"
