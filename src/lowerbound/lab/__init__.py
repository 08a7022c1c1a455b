"""The KL laboratory: what the KL term does, seen on one's own data.

A laboratory trains the plain autoencoder and a VAE at each of several weights of the KL term, all else equal, and puts
side by side what each has become: what it spends on the code and what is left to say (rate and distortion), what its
prior generates, what lies between two data, what its codes are good for. `start` and `proceed` train; `finish` measures
and writes `lab.html` and `lab.json`.

    labs/digits/
      lab.toml             the plan: the tables of a run, what is varied, its values, the seeds
      progress.json        which members are trained
      autoencoder/         a run; every verb takes it
      beta-0.5/            a run for each weight
      lab.json  lab.html  figures/

What is said of the weight of the KL term holds for the principal weight of any objective: `--vary` names another.
"""

import json
import platform
import shlex
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import checkpoint, experiment
from ..choices import Choice
from ..experiment import find_device, open_data
from ..files import write
from ..page import html
from ..recipes.objectives import WITHOUT_LIKELIHOOD
from ..refusals import is_quantised
from ..run import Table
from ..views import View
from .measures import Measured, Results, measure
from .plan import VARIED, WEIGHTS, Member, Plan, check_varied, check_weights, make_plan, spell, usual_weights
from .sections import SECTIONS, Subject
from .training import PLAN, PROGRESS, TOGETHER, Lab, Progress, proceed
from .words import best_compressor, best_extractor, best_generator, facts, headline

__all__ = [
    "VARIED",
    "WEIGHTS",
    "Lab",
    "Measured",
    "Member",
    "Plan",
    "Progress",
    "Results",
    "finish",
    "headline",
    "measure",
    "proceed",
    "resume",
    "spell",
    "start",
]

RESULTS, PAGE, FIGURES = "lab.json", "lab.html", "figures"


def start(
    run: dict[str, Table],
    folder: Path,
    *,
    weights: Sequence[float] | None = None,
    vary: str = VARIED,
    seeds: int = 1,
    force: bool = False,
    device: str = "cpu",
) -> Lab:
    """Begin a laboratory: check all that can be checked, complete the tables, write the plan.

    Args:
        run: The tables "data", "model", "objective" and "train"; what they leave open is chosen from the data.
        folder: Where to keep it.
        weights: The values of what is varied; by default `WEIGHTS`, or multiples of the recipe's own value where
            that lies beyond them.
        vary: The option of the objective that is varied.
        seeds: How many models at each weight; with several, every curve has a band.
        force: Whether a laboratory that is there already may be replaced.
        device: Where to train.

    Raises:
        FileExistsError: There is something in the folder.
        ValueError: Something asked for cannot work.
    """
    check_varied(run, vary)
    weights = check_weights(usual_weights(run, vary) if weights is None else weights)
    if seeds < 1:
        raise ValueError(f"--seeds {seeds} is too small: give 1 or more.")
    find_device(device)
    _check_free(folder, force)
    data = open_data(run)
    if data.given:
        raise ValueError(
            f"a laboratory compares models of p(x), and this one is told something of each row ({data.given}). Leave "
            "model.given out, and choose another model.name or model.prior."
        )
    if run["objective"].get("name") in WITHOUT_LIKELIHOOD:
        raise ValueError(
            f"a laboratory compares rates and distortions, and objective {run['objective']['name']!r} trains no "
            "likelihood. Choose another objective."
        )
    if is_quantised(run["model"]):
        raise ValueError(
            "a laboratory compares weights of the KL term, which the encoder of quantised codes does not hear. Choose "
            "model.quantiser=gumbel, whose codes are drawn, or another model."
        )
    plan, choices = make_plan(run, data, vary, weights, seeds)
    for member in plan.groups()[0] + plan.groups()[-1]:
        experiment.make_trainer(member.run, data, device)  # refuses what does not fit
    _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / PLAN, plan.text())
    lab = Lab(folder, plan, data, choices, device)
    lab.write_progress()
    return lab


def resume(folder: Path, *, device: str = "cpu") -> Lab:
    """Take up a laboratory that was interrupted: what is finished is kept, what was training goes on.

    Raises:
        FileNotFoundError: There is none.
        ValueError: Its files are damaged, or its data have changed.
    """
    if not (folder / PLAN).is_file():
        raise FileNotFoundError(
            f"there is no laboratory in {folder}: it has no {PLAN}. Start one: lowerbound lab DATA."
        )
    find_device(device)
    plan = Plan.read(folder / PLAN)
    data = experiment.load_data(plan.run)
    try:
        known: dict[str, Any] = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        choices = [Choice(*parts) for parts in known["choices"]]
        state = {key: known[key] for key in ("finished", "failed", "notes", "seconds")}
        lab = Lab(folder, plan, data, choices, device, **state)
        unchanged = known["data"] == data.fingerprint()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / PROGRESS} cannot be read ({error}): start anew with --force.") from None
    if not unchanged:
        raise ValueError(
            f"the data {data.name!r} are not those that the laboratory in {folder} began with: something was added, "
            "removed or changed. Put it back, or start anew with --force."
        )
    return lab


def _check_free(folder: Path, force: bool) -> None:
    """Refuse a folder that holds something of the user's.

    Raises:
        FileExistsError: There is something there that must not be lost.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; a laboratory is kept in a folder. Choose another with --out.")
    if (folder / PLAN).is_file():
        if not force:
            raise FileExistsError(
                f"{folder} holds a laboratory already: go on with it (lowerbound lab {shlex.quote(str(folder))} "
                "--resume), replace it with --force, or choose another with --out."
            )
        Plan.read(folder / PLAN)  # names what may be deleted
    elif folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty, and holds no laboratory: choose another with --out.")


def _clear(folder: Path) -> None:
    """Delete the laboratory in a folder, and nothing else: what others have put beside its runs stays."""
    if not (folder / PLAN).is_file():
        return
    for member in Plan.read(folder / PLAN).members():
        experiment.clear(folder / member.name)
    for path in folder.glob(TOGETHER.format(seed="*")):
        path.unlink()
    shutil.rmtree(folder / FIGURES, ignore_errors=True)
    for name in (PROGRESS, RESULTS, PAGE, PLAN):
        (folder / name).unlink(missing_ok=True)


def finish(lab: Lab, found: Sequence[Measured]) -> Results:
    """Write `lab.json` and `lab.html`, with its pictures, from what was found of the members."""
    data = lab.data
    if not found:
        raise ValueError(f"no model of the laboratory could be trained: {'; '.join(lab.failed.values())}")
    model, _ = checkpoint.load_model(lab.folder / found[0].member.name)
    discrete = experiment.is_probability(model, data)
    results = Results(
        tuple(found), lab.plan.weights, lab.plan.vary, dims=data.event.numel(), discrete=discrete, entropy=data.entropy
    )
    subject = Subject(lab, results, View.of(model, lab.data))
    sections = [section for make in SECTIONS if (section := make(subject)) is not None]
    failures = [f"{name} could not be trained: {why}" for name, why in lab.failed.items()]
    picks = {"generator": best_generator, "compressor": best_compressor, "features": best_extractor}
    summary = {
        "data": lab.data.name,
        "vary": lab.plan.vary,
        "weights": list(lab.plan.weights),
        "seeds": lab.plan.seeds,
        "seconds": lab.seconds,
        "notes": [*lab.notes, *failures, *results.left_out],
        "advice": {name: pick(results) for name, pick in picks.items()},
        "members": results.summary(),
    }
    made = f"lowerbound {version('lowerbound')}, PyTorch {torch.__version__}, Python {platform.python_version()}"
    models = len(lab.plan.members())
    page = html(
        kind="laboratory",
        title=f"{data.name}: {'what the KL term does' if lab.plan.weighs_kl else lab.plan.axis}",
        headline=headline(results),
        facts=facts(results),
        sections=sections,
        tables=lab.plan.run,
        notes=[*lab.notes, *failures, *results.left_out, *map(str, lab.choices), *lab.data.notes],
        made=f"{made}. {models} models, trained in {lab.seconds:,.0f} seconds.",
    )
    (lab.folder / FIGURES).mkdir(exist_ok=True)
    for section in sections:
        for figure in section.figures:
            write(lab.folder / FIGURES / f"{figure.name}.png", figure.png)
    write(lab.folder / RESULTS, json.dumps(summary, indent=1) + "\n")
    write(lab.folder / PAGE, page)
    return results
