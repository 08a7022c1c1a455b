"""`refit`: a trained model with a prior that is fitted to its codes, as a new run."""

import json as jsonlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .terminal import Device, Json, Run, Seed, app, at_least, err, out

if TYPE_CHECKING:
    from ..refit import Refit


@app.command
def refit(
    run: Run,
    /,
    *,
    prior: Annotated[str, Parameter(help="gmm (normals with full covariances), or flow (neural spline).")] = "gmm",
    components: Annotated[int, Parameter(help="Of a gmm.")] = 10,
    out_folder: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="The new run's folder; default RUN-gmm or RUN-flow.")
    ] = None,
    force: Annotated[bool, Parameter(negative="", help="Replace a run that is there already.")] = False,
    k: Annotated[int, Parameter(help="Importance samples of the evaluations.")] = 100,
    seed: Seed = 0,
    device: Device = "cpu",
    json: Json = False,
) -> int:
    """Fit a prior to the codes of a trained model's training data, and put it in place of its own, in a new run.

    The bound rises as far as the old prior missed the codes, and samples come from where the codes are. A plain
    autoencoder (model.posterior=point) has no bound before or after, but can be sampled from then.
    """
    from ..refit import refit as refit_run

    at_least(1, components=components, k=k)
    at_least(0, seed=seed)
    with err.status("fitting"):
        found = refit_run(
            run, out_folder, prior=prior, components=components, k=k, seed=seed, force=force, device=device
        )
    if json:
        print(jsonlib.dumps(found.summary()))  # noqa: T201
        return 0
    of = f" of {components} component{'s' * (components > 1)}" if prior == "gmm" else ""
    out.print(f"prior: {prior}{of}, fitted to the codes of {found.rows:,} training rows")
    for line in _in_words(found, run):
        out.print(line, markup=False)
    out.print(f"wrote {found.folder}", markup=False, soft_wrap=True)
    return 0


def _in_words(found: "Refit", run: Path) -> list[str]:
    """What the new prior changes on held-out rows, a line each."""
    before, after, gain = found.before, found.after, found.gain
    n = len(after.values)
    lines = [
        f"on {n:,} row{'s' * (n != 1)} of the test split, with {after.k:,} sample{'s' * (after.k > 1)} each:",
        f"log p(z) of codes: {found.codes_before} nats before, {found.codes_after} after",
    ]
    if gain is None:
        new = shlex.quote(str(found.folder))
        return [
            *lines,
            f"no bound, before or after: {after.no_bound}. Samples now come from where codes are: "
            f"lowerbound sample {new}",
        ]
    for name, each in (("before", before), ("after ", after)):
        lines.append(f"{name}  log p(x) >= {each.bound} nats; ELBO {each.elbo}, rate {each.rate}")
    if gain.mean < 0:
        sure = gain.mean < -2 * gain.standard_error
        lines.append(
            f"the bound FALLS by {gain * -1.0} nats{'' if sure else ', which may be chance'}: the fitted prior is no "
            f"better than the one that {run} was trained with. Keep that, or try the other prior, or fewer "
            "--components."
        )
    else:
        sure = gain.mean > 2 * gain.standard_error
        lines.append(f"the bound rises by {gain} nats{'' if sure else ', which may be chance'}")
    return lines
