"""The doctor on data, before anything is trained: what will go wrong, and the numbers to beat.

Each check looks at one thing and returns a `Finding`. Facts that call for nothing (the intrinsic dimension, the bits of
PNG) are healthy findings with their number. What is slow on all rows is done on some, and says so.

Axes: ``n`` rows, ``d`` elements of a row.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from ..data import Data, some
from ..run import Table
from . import codecs
from .copies import duplicates, leaks, near_leaks
from .finding import Finding, find_out
from .sample import Sample
from .values import GRID, constants, grid, likelihood, outliers, precision

FEWEST_ROWS = 100
ROWS_FOR_EACH_LATENT = 10
FEWEST_HELD_OUT = 30
FEWEST_OF_A_CLASS = 10
MUCH_DROPOUT = 0.4
# A part of the latent dimensions that may collapse: a few spare ones cost nothing.
COLLAPSED = 0.5
LEAST_LATENT, MOST_LATENT = 2, 64
COMPRESSED_VALUES = 2**22
ALIKE = "Too few different rows to tell in which directions they vary."


def examine_data(run: Mapping[str, Table], data: Data) -> list[Finding]:
    """What is wrong with data, and what is worth knowing before a model is trained on them.

    Args:
        run: The four tables, complete: the run that would be trained.
        data: The data set that it names.
    """
    sample = Sample(run, data)
    checks = {name: CHECKS[name] for name in OF_A_TABLE} if data.columns else CHECKS
    found = [find_out(name, partial(check, sample), run) for name, check in checks.items()]
    return [finding for finding in found if finding is not None]


def rows(sample: Sample) -> Finding:
    """Whether there are enough rows for the model that would be trained, and to tell how good it is."""
    name, split, model = "number of rows", sample.data.split, sample.run["model"]
    train, test = len(split["train"]), len(split["test"])
    needed = max(FEWEST_ROWS, ROWS_FOR_EACH_LATENT * sample.latent)
    what = f"{train:,} to train a model with {sample.latent} latent dimensions, {test:,} to test it"
    if train < needed:
        smaller = max(LEAST_LATENT, min(train // ROWS_FOR_EACH_LATENT, _useful(sample)))
        changes = {"latent": min(smaller, model["latent"]), "dropout": max(MUCH_DROPOUT, model["dropout"])}
        remedy = tuple(f"model.{key}={value:g}" for key, value in changes.items() if value != model[key])
        effect = "A smaller model learns less by heart. More rows would do more."
        what += ": few enough to be learned by heart"
        return Finding(name, "finding", f"{what}.", float(train), float(needed), remedy, effect)
    if test < FEWEST_HELD_OUT:
        effect = "Give more rows: from so few, not even the error of a bound is known."
        return Finding(name, "finding", f"{what}.", float(test), float(FEWEST_HELD_OUT), (), effect)
    return Finding(name, "healthy", f"{what}.", float(train), float(needed))


def classes(sample: Sample) -> Finding | None:
    """Whether every class has rows to learn from; nothing where there are no classes."""
    data = sample.data
    if data.labels is None or data.labels.ndim != 1 or data.labels.is_floating_point():
        return None
    known, labels = data.labels.cpu().unique(return_inverse=True)
    counts = torch.bincount(labels[data.split["train"].cpu()], minlength=len(known))
    least, most = int(counts.min()), int(counts.max())
    p = counts[counts > 0].double() / counts.sum()
    entropy = float(-(p * p.log2()).sum())
    what = (
        f"{len(counts)} classes of {least:,} to {most:,} rows, {entropy:.2f} bits of at most "
        f"{math.log2(len(counts)):.2f}"
    )
    if least >= FEWEST_OF_A_CLASS:
        return Finding("class balance", "healthy", f"{what}.", float(least), float(FEWEST_OF_A_CLASS))
    few = int((counts < FEWEST_OF_A_CLASS).sum())
    what += (
        f"; {few} of them {'is' if few == 1 else 'are'} too small for any number about {'it' if few == 1 else 'them'}"
    )
    effect = "Gather more rows of it, or join it to another class. Training itself takes no labels."
    return Finding("class balance", "finding", f"{what}.", float(least), float(FEWEST_OF_A_CLASS), (), effect)


def dimension(sample: Sample) -> Finding:
    """In how many directions rows vary at the scale of neighbours."""
    found, d = sample.dimension, sample.x.shape[1]
    if found is None:
        what = "Too few rows that differ from their neighbours to tell in how many directions they do."
        return Finding("intrinsic dimension", "unknown", what)
    what = f"{found}, of {d:,} elements, by two nearest neighbours."
    return Finding("intrinsic dimension", "healthy", what, found.mean)


def latent_size(sample: Sample) -> Finding:
    """Whether the latent space is large enough, between what neighbours need and what a linear model would use."""
    name, latent = "latent size", sample.latent
    if len(sample.x) < FEWEST_HELD_OUT or len(sample.spectrum.values) == 0:
        return Finding(name, "unknown", ALIKE)
    enough, found = sample.best_size, sample.dimension
    if enough == 0:
        what = (
            "A linear model explains held-out rows best without any latent dimension: the elements of a row vary by "
            "themselves, or depend on each other in curved ways only."
        )
        return Finding(name, "unknown", what, float(latent))
    # noise counts in the intrinsic dimension, and may well be half of it
    least = min(enough, math.ceil(found.mean / 2)) if found else 1
    suggested = max(least, _useful(sample))
    what = f"The model has {latent}; a linear one explains held-out rows best with {enough:,}"
    what += f", their intrinsic dimension is {found.mean:.1f}" if found else ""
    if latent < least:
        effect = "All directions in which rows vary have a place in z: less distortion, and a higher bound."
        return Finding(name, "finding", f"{what}.", float(latent), float(least), (f"model.latent={suggested}",), effect)
    what += f": {least} to {suggested} are of use" if least < suggested else ""
    return Finding(name, "healthy", f"{what}.", float(latent), float(least))


def collapse(sample: Sample) -> Finding:
    """How many latent dimensions a linear Gaussian VAE would not use: see `spectrum`."""
    name, latent = "forecast of collapse", sample.latent
    if len(sample.x) < 3 or len(sample.spectrum.values) == 0:
        return Finding(name, "unknown", ALIKE)
    spectrum, given = sample.spectrum, sample.scale
    noise = given**2 if given is not None else spectrum.noise(latent, sample.least_noise)
    kept = spectrum.kept(latent, noise)
    source = "given" if given is not None else "learned"
    unit = " of each element's spread" if sample.is_density and given is None else ""
    what = f"A linear VAE with {source} noise of {math.sqrt(noise):.3g}{unit} keeps {kept:,} of {latent:,} dimensions"
    collapsed, threshold = float(latent - kept), COLLAPSED * latent
    if collapsed <= threshold and kept > 0:
        return Finding(name, "healthy", f"{what}.", collapsed, threshold)
    what += ": the others vary less than the noise"
    if given is not None:
        effect = "The scale falls until z is of use."
        return Finding(name, "finding", f"{what}.", collapsed, threshold, ("model.scale=shared",), effect)
    size = min(_useful(sample), max(LEAST_LATENT, kept))
    effect = "As good a bound from a smaller model."
    return Finding(name, "finding", f"{what}.", collapsed, threshold, (f"model.latent={size}",), effect)


def _useful(sample: Sample) -> int:
    """As many latent dimensions as a linear model makes use of on rows it has not seen, within reason."""
    # columns of mixed kinds have no linear model
    enough = sample.best_size if len(sample.x) >= FEWEST_HELD_OUT and not sample.data.columns else 0
    return max(LEAST_LATENT, min(MOST_LATENT, enough or MOST_LATENT))


def png_bits(sample: Sample) -> Finding | None:
    """Bits per dimension of PNG on held-out rows; nothing where they are no images of 8 bits."""
    data = sample.data
    if data.levels is None or not sample.is_image or data.event[0] not in (1, 3) or data.levels > 256:
        return None
    held_out, levels, which = _held_out(data)
    bits = codecs.png(held_out, levels)
    what = f"{bits:.3f} for {which} below each other; {_guess(bits, levels)}."
    return Finding("bits/dim to beat: PNG", "healthy", what, bits)


def xz_bits(sample: Sample) -> Finding:
    """Bits per dimension of xz on held-out rows."""
    name, data = "bits/dim to beat: xz", sample.data
    if data.levels is None:
        what = "None: x is real, and a file of it is as long as its digits."
        return Finding(name, "healthy", what)
    held_out, levels, which = _held_out(data)
    bits = codecs.xz(held_out)
    what = f"{bits:.3f} for {which} as one stream; {_guess(bits, levels)}."
    return Finding(name, "healthy", what, bits)


def _guess(bits: float, levels: int) -> str:
    guess = math.log2(levels)
    return f"a guess costs {guess:.2f}" + (", and is the better" if guess < bits else "")


def _held_out(data: Data) -> tuple[Tensor, int, str]:
    """Test rows as whole numbers, as bounds are reported on them; their levels; and which rows, in words."""
    indices = data.split["test"].cpu()
    most = max(1, COMPRESSED_VALUES // math.prod(data.event))
    whole = len(indices) <= most
    which = "the test rows" if whole else f"{most:,} of the {len(indices):,} test rows"
    if data.noise == "binarize":
        return data.fixed("test", 0 if whole else most).to(torch.uint8), 2, which
    assert data.levels is not None
    return data.x[indices if whole else indices[some(len(indices), most)]], data.levels, which


CHECKS: dict[str, Callable[[Sample], Finding | None]] = {
    "values and likelihood": likelihood,
    "precision": precision,
    GRID: grid,
    "outliers": outliers,
    "constants": constants,
    "number of rows": rows,
    "duplicates": duplicates,
    "leakage between splits": leaks,
    "near duplicates across splits": near_leaks,
    "class balance": classes,
    "intrinsic dimension": dimension,
    "latent size": latent_size,
    "forecast of collapse": collapse,
    "bits/dim to beat: PNG": png_bits,
    "bits/dim to beat: xz": xz_bits,
}
# The others look at rows of one kind of number without holes. What the schema of a table says, it says when it is read.
OF_A_TABLE = ("precision", "number of rows", "duplicates", "leakage between splits", "class balance")
