"""`evaluate`: bounds, in words or as JSON."""

import json as jsonlib
from typing import TYPE_CHECKING

from .terminal import Device, Json, Run, Seed, Split, app, at_least, load, out, part

if TYPE_CHECKING:
    from ..evaluation import Evaluation


@app.command
def evaluate(
    run: Run, /, *, split: Split = "test", k: int = 1000, seed: Seed = 0, rows: int = 0, device: Device = "cpu",
    json: Json = False,
) -> int:  # fmt: skip
    """Bounds on log p(x) of held-out data, with their standard errors.

    Args:
        run: The folder of the run.
        split: Which rows: train, valid or test.
        k: Importance samples for each datum.
        seed: Of the samples.
        rows: How many rows, chosen at random; 0 for all.
        device: Where to compute: cpu, cuda.
        json: Print JSON only.
    """
    from ..data import some
    from ..evaluation import evaluate as evaluate_model
    from ..experiment import is_probability

    at_least(1, k=k)
    at_least(0, rows=rows, seed=seed)
    model, data = load(run, device)
    x = part(data, split)
    x = x[some(len(x), rows)] if rows else x
    found = evaluate_model(model, x, k=k, seed=seed, discrete=is_probability(model, data))
    if json:
        print(jsonlib.dumps({"split": split} | found.summary()))  # noqa: T201
    else:
        for line in in_words(found, split, len(part(data, split))):
            out.print(line)
    return 0


def in_words(found: "Evaluation", split: str, rows: int) -> list[str]:
    """An evaluation in words, for a terminal."""
    n = len(found.values)
    of = f"{n:,} row" if n == rows == 1 else f"the {n:,} rows" if n == rows else f"{n:,} of the {rows:,} rows"
    used = (
        f"{found.active_units} of {sum(latent.activity.numel() for latent in found.latents)} latent dimensions active"
    )
    if not found.is_bound:
        return [
            f"on {of} of the {split} split: [bold]no bound[/bold]. The posterior is a point, as in a plain "
            "autoencoder: it spends infinitely many nats on z, and nothing bounds log p(x).",
            f"distortion {found.distortion} nats (-log p(x|z)); {used}",
        ]
    bits = f" = {found.bits_per_dim} bits/dim" if found.bits_per_dim else ""
    samples = "1 sample" if found.k == 1 else f"{found.k:,} samples"
    return [
        f"on {of} of the {split} split, importance-weighted with {samples} each:",
        f"[bold]log p(x) >= {found.bound} nats[/bold]{bits}",
        f"ELBO {found.elbo} = -(distortion {found.distortion} + rate {found.rate}); {used}",
    ]
