"""Ex-post density: a prior that is fitted to the codes of a trained model, and put in place of its own.

Averaged over the data, the KL term is I(x; z) + KL(q(z) || p(z)) (Hoffman & Johnson 2016,
http://approximateinference.org/accepted/HoffmanJohnson2016.pdf), and only the second part knows the prior. With
encoder and decoder as they are, the bound is best where p(z) is nearest to the aggregated posterior
q(z) = 1/n sum_i q(z|x_i): a density that is fitted to samples of q(z) by maximum likelihood closes that gap, for the
bound and for samples alike (Dai & Wipf 2019, the two-stage VAE, https://arxiv.org/abs/1903.05789).

Of a plain autoencoder, whose posterior is a point, q(z) is the codes themselves. There is no bound before or after, but
draws from the fitted density decode to what looks like data: Ghosh et al. 2020 (RAE), https://arxiv.org/abs/1903.12436

How far a fit follows its codes is decided by codes of rows that it has not seen.

Axes: ``n`` rows, ``m`` codes, ``d`` dimensions of z.
"""

import json
import math
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from . import checkpoint, recipes
from .choices import Choice
from .data import Data, some
from .evaluation import Evaluation, evaluate, is_unbounded, undisturbed
from .experiment import (
    EVALUATION,
    FINAL_ROWS,
    REPORT,
    check_free,
    check_unchanged,
    clear,
    find_device,
    has_likelihood,
    is_probability,
    load_data,
    read_run,
)
from .families import unconstrained
from .metrics import Estimate
from .models import VAE, Model
from .priors import FullMixture, ScaledFlow
from .report import write as write_report
from .run import Table, accepts, build, find, full, hint, options, write
from .train import fill, log, tensors

# What a prior is called on the command line, and in the table of a model.
PRIORS = {"gmm": "gmm", "flow": "scaled_flow"}
# Codes to fit to: several of each row where there are few rows, and at most so many; and codes to judge a fit by.
CODES, MOST_CODES, JUDGES, BATCH = 20_000, 50_000, 5_000, 256
# Variances that are added to those of a mixture, in units of the codes' own; held-out codes decide which.
SMOOTHINGS = (1e-5, 1e-3, 1e-2, 1e-1)
# Shortest unit of a dimension, as a part of the longest: one that says nothing has a spread of about zero.
SHORTEST = 1e-6
CHECK_EVERY, PATIENCE, LEARNING_RATE = 50, 10, 2e-3


@dataclass(frozen=True)
class Refit:
    """A run whose prior was refitted, beside what it was.

    Attributes:
        folder: Of the new run.
        run: Its four tables.
        rows: How many rows the prior was fitted to the codes of.
        before: The old run on held-out rows.
        after: The new run on the same rows.
        codes_before: log p(z) of a code of each of these rows, in nats, under the old prior.
        codes_after: The same under the new one.
    """

    folder: Path
    run: Mapping[str, Table]
    rows: int
    before: Evaluation
    after: Evaluation
    codes_before: Estimate
    codes_after: Estimate

    @property
    def gain(self) -> Estimate | None:
        """By how much the bound rises, in nats, row by row; None where there is no bound."""
        return Estimate.of(self.after.values - self.before.values) if self.after.is_bound else None

    def summary(self) -> dict[str, Any]:
        """The numbers, JSON-able."""
        codes = {"before": self.codes_before.summary(), "after": self.codes_after.summary()}
        return {
            "run": str(self.folder),
            "rows": self.rows,
            "before": self.before.summary(),
            "after": self.after.summary(),
            "codes": codes,
            "gain": None if self.gain is None else self.gain.summary(),
        }


def fit_prior(
    model: VAE,
    x: Shaped[Tensor, "n *x"],
    held_out: Shaped[Tensor, "h *x"],
    *,
    prior: str = "gmm",
    components: int = 10,
    steps: int = 3000,
    seed: int = 0,
) -> VAE:
    """The same model with a prior that is fitted to its codes.

    Args:
        model: The trained model, whose z is a vector; it is left as it was, and shares its encoder and decoder.
        x: Rows it was trained on.
        held_out: Rows it was not trained on, which decide how far the fit goes; not those that bounds are reported on.
        prior: "gmm" (normals with full covariances), or "flow" (a neural spline flow).
        components: Of the mixture.
        steps: Of the flow's training, at most.
        seed: Of the codes and of the fit. The caller's random state is left alone.

    Raises:
        ValueError: A prior of no such name, too few rows, or a model whose z is no single vector.
    """
    if prior not in PRIORS:
        raise ValueError(f"there is no prior {prior!r} to fit{hint(prior, PRIORS)}: {', '.join(PRIORS)}.")
    if components < 1 or steps < 1:
        raise ValueError(f"components={components}, steps={steps}: each must be 1 or more.")
    if min(len(x), len(held_out)) < 2:
        raise ValueError(
            f"{len(x):,} rows to fit to and {len(held_out):,} to judge the fit by are too few: give 2 or more of each."
        )
    if prior == "gmm" and components > len(x):
        raise ValueError(f"{components:,} components for {len(x):,} rows: give {len(x):,} or fewer.")
    _check_latent(model, x[:2])
    draws = math.ceil(CODES / len(x))
    z, judges = _some(codes(model, x, draws, seed), MOST_CODES), _some(codes(model, held_out, draws, seed + 1), JUDGES)
    unit = z.std(0)
    if not (z.isfinite().all() and unit.max() > 0):
        raise ValueError(
            "the codes of these rows are all the same, or not finite: there is no density to fit. The encoder says "
            "nothing about x; train the model anew."
        )
    unit = unit.clamp(min=SHORTEST * unit.max())
    with torch.random.fork_rng(devices=[z.device] if z.device.type == "cuda" else []):
        torch.manual_seed(seed)
        fitted = _mixture(z, judges, unit, components, seed) if prior == "gmm" else _flow(z, judges, unit, steps)
    refitted = VAE(model.encoder, fitted, model.decoder)
    return refitted.train(model.training)


@torch.no_grad()
def codes(model: VAE, x: Shaped[Tensor, "n *x"], draws: int = 1, seed: int = 0) -> Float[Tensor, "m d"]:
    """Samples of q(z|x), so many of each row: of the aggregated posterior.

    Args:
        model: The model; it is left in the mode it was in.
        x: Rows in their own units.
        draws: Samples of each row, together.
        seed: Of the samples. The caller's random state is left alone.
    """
    weights = next(model.parameters())
    with undisturbed(model, seed):
        parts = [model.encoder(rows.to(weights)).rsample((draws,)).transpose(0, 1) for rows in x.split(BATCH)]
    return torch.cat(parts).flatten(0, 1)


def _check_latent(model: Model, x: Tensor) -> None:
    """Refuse a model whose z is no single vector.

    Raises:
        ValueError: It has several latent variables, one that is an image, a direction or a code, or a prior that
            depends on something.
    """
    with undisturbed(model, 0), torch.no_grad():
        sites = model(x.to(next(model.parameters()))).sites
    if len(sites) > 1 or sites[0].p.batch_shape:
        raise ValueError(
            f"this model has {len(sites)} latent variable{'s' * (len(sites) > 1)} whose priors depend on what is above "
            "them, and a density is fitted to codes of one alone. Refit a model with one latent vector (mlp, conv, "
            "table)."
        )
    if not is_unbounded(sites[0].q):
        raise ValueError(
            "z of this model is a direction or a code, one of so many, and a density is fitted to vectors of any "
            "numbers. Keep the prior that it was trained with, or train one with model.posterior=normal."
        )
    if sites[0].z.ndim != 3:
        shape = "x".join(map(str, sites[0].z.shape[2:]))
        raise ValueError(
            f"z of this model is of shape {shape}, and a density is fitted to vectors. Train one with "
            "model.spatial=false."
        )


def _some(z: Tensor, most: int) -> Tensor:
    """All codes, or so many at random."""
    return z[some(len(z), most).to(z.device)]


@torch.no_grad()
def _mixture(z: Tensor, held_out: Tensor, unit: Tensor, components: int, seed: int) -> nn.Module:
    """A mixture by expectation-maximisation, with the smoothing under which held-out codes are likeliest."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    shift = z.mean(0)
    own, judges = (((rows - shift) / unit).double().cpu().numpy() for rows in (z, held_out))
    found = []
    for smoothing in SMOOTHINGS:
        fit = GaussianMixture(components, reg_covar=smoothing, max_iter=200, random_state=seed)
        with warnings.catch_warnings():
            # a fit that has not quite converged, or that has fewer places than components, is judged like any other
            warnings.simplefilter("ignore", ConvergenceWarning)
            found.append(fit.fit(own))
    best = max(found, key=lambda fit: fit.score(judges))

    prior = FullMixture(z.shape[1:], components).to(z)
    tril = torch.linalg.cholesky(torch.from_numpy(best.covariances_))
    rows, columns = torch.tril_indices(tril.shape[-1], tril.shape[-1], -1)
    prior.shift.copy_(shift)
    prior.unit.copy_(unit)
    prior.logits.copy_(torch.from_numpy(best.weights_).log())
    prior.loc.copy_(torch.from_numpy(best.means_))
    prior.raw_diagonal.copy_(unconstrained(tril.diagonal(dim1=-2, dim2=-1)))
    prior.below.copy_(tril[:, rows, columns])
    return prior


def _flow(z: Tensor, held_out: Tensor, unit: Tensor, steps: int) -> nn.Module:
    """A flow by maximum likelihood, as it was when held-out codes were likeliest."""
    prior = ScaledFlow(z.shape[1:]).to(z)
    prior.shift.copy_(z.mean(0))
    prior.unit.copy_(unit)
    optimizer = torch.optim.Adam(prior.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, kept, since = -math.inf, tensors(prior), 0
    for step in range(steps + 1):
        if step % CHECK_EVERY == 0 or step == steps:
            with torch.no_grad():
                likelihood = prior().log_prob(held_out).mean().item()
            since += 1
            if likelihood > best:
                best, kept, since = likelihood, {name: t.detach().clone() for name, t in tensors(prior).items()}, 0
            if since == PATIENCE or step == steps:
                break
        rows = z[torch.randint(len(z), (BATCH,)).to(z.device)]
        loss = -prior().log_prob(rows).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(prior.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    fill(prior, kept)
    return prior


def refit(
    folder: Path,
    out: Path | None = None,
    *,
    prior: str = "gmm",
    components: int = 10,
    k: int = 100,
    seed: int = 0,
    force: bool = False,
    device: str = "cpu",
) -> Refit:
    """Write a new run beside an old one: the same model with a prior that is fitted to its training rows' codes.

    Both are evaluated on the same held-out rows, with the same noise. The old run is left alone.

    Args:
        folder: Of the old run.
        out: Of the new one; by default the old one's name with that of the prior behind it.
        prior: As in `fit_prior`.
        components: Of a mixture.
        k: Importance samples of the evaluations.
        seed: Of the fit.
        force: Whether a run that is there already may be replaced.
        device: Where to compute.

    Raises:
        FileExistsError: There is a run already.
        ValueError: The data are not there, or the model has no prior that can be fitted.
    """
    if prior not in PRIORS:
        raise ValueError(f"there is no prior {prior!r} to fit{hint(prior, PRIORS)}: {', '.join(PRIORS)}.")
    # "." and ".." say no name
    named = folder if folder.name.strip(".") else folder.resolve()
    out = named.with_name(f"{named.name}-{prior}") if out is None else out
    if out.resolve() == folder.resolve():
        raise ValueError(f"{out} is the run that is to be refitted, which is left as it is: choose another with --out.")
    run = read_run(folder)
    recipe = find(recipes.MODELS, "model", run["model"])
    run["model"] = _with_prior(run["model"], recipe, prior, components)
    check_free(out, force)
    place = str(find_device(device))
    model = cast(VAE, checkpoint.load_model(folder, device=place)[0])
    data = _data(folder, run)

    x = data.fixed("train")
    fitted = fit_prior(model, x, data.fixed("valid"), prior=prior, components=components, seed=seed)
    new = build(recipe, "model", run["model"])
    fill(new, tensors(fitted))
    new.to(place).eval()

    rows = data.fixed("test", FINAL_ROWS)
    likelihood = has_likelihood(run)
    before, after = (
        evaluate(m, rows, k=k, discrete=is_probability(model, data), likelihood=likelihood) for m in (model, new)
    )
    z = codes(model, rows)
    with torch.no_grad():
        likelihoods = [Estimate.of(m.prior().log_prob(z)) for m in (model, new)]
    reason = f"fitted to the codes of the {len(x):,} training rows of {folder.name}, after its training"
    _write(out, folder, run, new, data, after, Choice("model.prior", PRIORS[prior], reason))
    return Refit(out, run, len(x), before, after, *likelihoods)


def _with_prior(table: Table, recipe: Any, prior: str, components: int) -> Table:
    """The table of a model, complete, with another prior.

    Raises:
        ValueError: Such a model has no prior that can be fitted.
    """
    known = options(recipe)
    if "prior" not in known or not accepts(known["prior"].annotation, PRIORS[prior]):
        raise ValueError(
            f"a model {table['name']!r} has no prior of one latent vector that could be fitted. Refit one of mlp, "
            "conv, pixel, sequence or table."
        )
    if table.get("spatial"):
        raise ValueError(
            f"z of this model keeps the shape of an image (spatial=true), and prior {prior!r} is for vectors. Train "
            "one with model.spatial=false, or with model.prior=vamp, which fits itself."
        )
    counted = {"prior_components": components} if prior == "gmm" else {}
    return full(recipe, "model", table) | {"prior": PRIORS[prior]} | counted


def _data(folder: Path, run: Mapping[str, Table]) -> Data:
    """The data that a run was trained on.

    Raises:
        ValueError: They are not there, or have changed.
    """
    try:
        data = load_data(run)
        check_unchanged(folder, data)
    except (ValueError, OSError) as error:
        where = f", or write in {folder / checkpoint.RUN} where they are now (data.path)" * ("path" in run["data"])
        raise ValueError(
            f"a prior is fitted to the codes of the training rows, and those of {folder} cannot be had: {error} Put "
            f"the data back as they were{where}."
        ) from None
    return data


def _write(
    out: Path, old: Path, run: dict[str, Table], model: VAE, data: Data, found: Evaluation, choice: Choice
) -> None:
    """Write the folder of a refitted run: elsewhere first, so that it is there wholly or not at all."""
    choices = [c for c in checkpoint.load_choices(old / checkpoint.SPLIT) if c.key != choice.key] + [choice]
    step = checkpoint.read_tensors(old / checkpoint.MODEL)[1].get("step", 0)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
        place = Path(made)
        checkpoint.save_split(place / checkpoint.SPLIT, data.split, data.fingerprint(), choices)
        checkpoint.save_model(place / checkpoint.MODEL, tensors(model), run, step)
        if (old / log.LOG).is_file():
            shutil.copyfile(old / log.LOG, place / log.LOG)
        checkpoint.write(place / EVALUATION, json.dumps({"split": "test"} | found.summary(), indent=1) + "\n")
        write_report(
            place / REPORT,
            run=run,
            model=model,
            data=data,
            evaluation=found,
            log=log.read(old),
            notes=[str(each) for each in choices],
        )
        clear(out)
        out.mkdir(parents=True, exist_ok=True)
        for path in list(place.iterdir()):
            path.replace(out / path.name)
        # what makes a folder a run comes last
        checkpoint.write(out / checkpoint.RUN, write(run))
