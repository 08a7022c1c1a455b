"""Whether the values of x are such as the likelihood can explain, element by element.

A density has no upper limit: where x takes the same value again and again, a model with an ever narrower peak there has
an ever higher bound, and has learned nothing (Uria et al. 2013, https://arxiv.org/abs/1306.0186; Theis et al. 2016,
https://arxiv.org/abs/1511.01844). So whole numbers, however they are stored, want probabilities, or noise that fills
the gaps between them; and elements that never change want to be left out.

Axes: ``n`` rows, ``m`` other rows, ``d`` elements of a row.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ..recipes import FAMILIES
from ..refusals import check_support
from .finding import Finding
from .sample import Sample

FEW_ROWS = 2000
FEW_VALUES = 2**18
# From fewer rows a value that comes back says nothing.
FEWEST_ROWS = 30
# Values of which so many occur again are on a grid.
REPEATED = 0.95
# An element of which so many values are one value is nearly constant.
ONE_VALUE = 0.99
# The part of an image's pixels that may be constant under a density: a corner does no harm.
CONSTANT_PIXELS = 0.05
OUTLYING = 20.0
# Numbers that float32 should tell apart within one standard deviation.
STEPS = 256.0
# Beyond these the square of a number is infinite, or 0, in float32.
SMALLEST, LARGEST = 1e-18, 1e18
GRID = "discrete data under a density"
# What a given scale should be of the spread of the data, if nothing is known of their precision.
FINE = 0.1


def likelihood(sample: Sample) -> Finding:
    """Whether the likelihood can explain every value, and which others could."""
    name, data, model = "values and likelihood", sample.data, sample.run["model"]
    fitting = [family for family in FAMILIES if sample.fits(family)]
    support = FAMILIES[model["family"]]((1,), model["levels"], 1, "shared", None, None).support
    try:
        for part in data.split:
            check_support(sample.run, support, *sample.whole(part))
    except ValueError as refused:
        usual = next(family for family in ("bernoulli", "logistic_mixture", "normal") if family in fitting)
        levels = data.observed_levels
        more = usual == "logistic_mixture" and levels not in (None, model["levels"])
        remedy = (f"model.family={usual}", *([f"model.levels={levels}"] if more else []))
        what = str(refused)
        return Finding(name, "finding", what[0].upper() + what[1:], None, None, remedy, "Every row has a bound.")
    kind = "Integers" if bool((sample.x == sample.x.round()).all()) else "Real numbers"
    refusing = [family for family in FAMILIES if family not in fitting]
    others = [family for family in fitting if family != model["family"]]
    what = f"{kind} from {sample.x.min().item():g} to {sample.x.max().item():g}: {model['family']} fits them"
    what += f", as would {_listed(others, 'and')}" if others else ""
    what += f"; {_listed(refusing, 'and')} would refuse" if refusing else ""
    return Finding(name, "healthy", f"{what}.")


def precision(sample: Sample) -> Finding:
    """Whether float32, in which models compute, holds the values and tells them apart."""
    name, x = "precision", sample.x[:FEW_ROWS].double()
    # what is missing has no value to lose
    spread, size = (x - x.nanmean(0)).square().nanmean(0).sqrt(), x.abs().nan_to_num().amax(0)
    varying = spread > 0
    if not bool(varying.any()):
        return Finding(name, "unknown", f"The {_rows(len(x))} looked at are all the same.")
    least, most = float(spread[varying].min()), float(size.max())
    if least < SMALLEST or most > LARGEST:
        what = (
            f"Values reach {most:.3g} and standard deviations go down to {least:.3g}: between {SMALLEST:g} and "
            f"{LARGEST:g} float32 can square them."
        )
        remedy = 'numpy.save("scaled.npy", (x - x.mean(0)) / x.std(0))'
        effect = "Training is possible; a density in other units differs by a constant."
        bad = (most, LARGEST) if most > LARGEST else (least, SMALLEST)
        return Finding(name, "finding", what, *bad, (remedy,), effect)
    steps = spread[varying] / (size[varying] * torch.finfo(torch.float32).eps)
    number, column = float(steps.min()), int(varying.nonzero()[steps.argmin()])
    if number >= STEPS:
        what = f"float32 divides each standard deviation into {number:,.2g} steps or more."
        return Finding(name, "healthy", what, number, STEPS)
    what = (
        f"Element {column} reaches {size[column]:.3g} with a standard deviation of {spread[column]:.3g}, within which "
        f"float32 tells {number:.2g} values apart."
    )
    effect = "Values near 0 are kept to seven digits, and a density does not change by a shift."
    return Finding(name, "finding", what, number, STEPS, ('numpy.save("centred.npy", x - x.mean(0))',), effect)


def grid(sample: Sample) -> Finding:
    """Whether x is discrete and the likelihood a density."""
    data, model, x = sample.data, sample.run["model"], sample.x[:FEW_ROWS]
    if not sample.is_density:
        return Finding(GRID, "healthy", f"The likelihood is a probability, {model['family']}.")
    if data.noise == "dequantize":
        return Finding(GRID, "healthy", "Noise fills the gaps between the integers.")
    if sample.scale is not None:
        return Finding(GRID, "healthy", f"The scale is given, {sample.scale:g}, and limits the density.")
    if precision(sample).verdict == "finding":
        return Finding(GRID, "unknown", "To be asked once float32 tells the values apart.")
    if len(x) < FEWEST_ROWS and not sample.is_image:
        return Finding(GRID, "unknown", "Too few rows to see whether values come back.")
    pooled = float(repeated(x.flatten()[:FEW_VALUES, None])[0]) if sample.is_image else 0.0
    # one element with a scale of its own is enough; a scale that all share needs nearly all of them
    varying = x[:, x.amin(0) < x.amax(0)]
    own = model["scale"] == "element" or model["family"] == "continuous_bernoulli"
    columns = repeated(varying).quantile(1.0 if own else 1 - REPEATED) if varying.numel() else torch.zeros(())
    number = max(pooled, float(columns))
    if number < REPEATED:
        what = f"The likelihood is a density, and {number:.1%} of the values come back."
        return Finding(GRID, "healthy", what, number, REPEATED)
    of = " of one element" if own and number > pooled else ""
    what = f"{number:.1%} of the values{of} come back, and the likelihood is a density: its bound has no upper limit."
    effect = "A bound on a probability: at most 0 nats, in bits/dim, and comparable."
    if data.levels is not None:
        usual = "bernoulli" if data.observed_levels == 2 else "logistic_mixture"
        return Finding(GRID, "finding", what, number, REPEATED, (f"model.family={usual}",), effect)
    found = levels_of(x)
    if found is None:
        effect = "The density has a limit. Give as scale what differences in the data mean nothing."
        remedy = f"model.scale={FINE * float(varying.std(0).median()):.2g}"
        return Finding(GRID, "finding", what, number, REPEATED, (remedy,), effect)
    low, per_unit, count = found
    what += f" There are {count:,} levels, {1 / per_unit:.3g} apart"
    what += ", as in images of 8 bits divided by 255." if (low, per_unit) == (0, 255) else "."
    shifted = f"(x - {low:.7g})" if low > 0 else f"(x + {-low:.7g})" if low < 0 else "x"
    kind = "uint8" if count <= 256 else "uint16"
    scaled = shifted if per_unit == 1 else f"{per_unit:.9g} * {shifted}"
    remedy = f'numpy.save("levels.npy", numpy.rint({scaled}).astype("{kind}"))'
    return Finding(GRID, "finding", what, number, REPEATED, (remedy,), effect)


def constants(sample: Sample) -> Finding:
    """How many pixels or columns never change, or hardly ever."""
    thing = "pixels" if sample.is_image else "columns"
    name, x, few = f"constant {thing}", sample.x, sample.x[:FEW_ROWS]
    if len(x) < FEWEST_ROWS:
        return Finding(name, "unknown", f"Too few rows to see which {thing} change.")
    count = x.shape[1]
    constant = x.amin(0) == x.amax(0)
    alike = (few == few.mode(0).values).double().mean(0) >= ONE_VALUE
    nearly = int((alike & ~constant).sum())
    number = (int(constant.sum()) + nearly) / count
    what = f"{int(constant.sum()):,} of {count:,} {thing} never change, and {nearly:,} hardly ever, in {sample.of}"
    threshold = CONSTANT_PIXELS if sample.is_image else 0.0
    limited = not sample.is_density or sample.scale is not None or sample.data.noise == "dequantize"
    if limited or number <= threshold:
        why = ", which costs nothing" if limited and number else ""
        return Finding(name, "healthy", f"{what}{why}.", number, None if limited else threshold)
    if sample.is_image and grid(sample).verdict == "finding":
        return Finding(name, "unknown", f"{what}. To be asked once x is not discrete.", number)
    what += ". The likelihood is a density, whose bound has no upper limit where x is certain."
    if sample.is_image:
        remedy = f"model.scale={FINE * float(sample.standard[1].max()):.2g}"
        return Finding(name, "finding", what, number, threshold, (remedy,), "The density has a limit.")
    remedy = f'numpy.save("varying.npy", x[:, (x == numpy.median(x, 0)).mean(0) < {ONE_VALUE:g}])'
    return Finding(name, "finding", what, number, threshold, (remedy,), "The bound is about what varies.")


def outliers(sample: Sample) -> Finding:
    """Whether single values are so far from all others that the normal likelihood is about them alone."""
    name, family = "outliers", sample.run["model"]["family"]
    if family != "normal":
        return Finding(name, "healthy", f"Under {family} there are none, or they cost little.")
    if len(sample.x) < FEWEST_ROWS:
        return Finding(name, "unknown", "Too few rows to see which values are far from the others.")
    rows = torch.cat([sample.rows(part) for part in sample.data.split])
    usual = sample.x
    if sample.is_image:
        # the pixels of a channel are one column: a pixel by itself may be black in nearly all images
        channels = sample.data.event[0]
        usual, rows = (t[:FEW_ROWS].unflatten(1, (channels, -1)).transpose(1, 2).flatten(0, 1) for t in (usual, rows))
    far = robust_distance(rows, usual)
    number, count = float(far.max()), int((far > OUTLYING).sum())
    if count == 0:
        what = f"No value is over {number:.1f} robust standard deviations from the median."
        return Finding(name, "healthy", what, number, OUTLYING)
    row, column = divmod(int(far.argmax()), rows.shape[1])
    where = "" if sample.is_image else f" in column {column}"
    of = "1 value is" if count == 1 else f"{count:,} values are"
    what = (
        f"{of} over {OUTLYING:g} robust standard deviations from the median; the farthest, {rows[row, column]:g}{where}"
        f", is at {number:,.0f}. A normal pays {number**2 / 2:,.3g} nats for it, or takes too large a scale."
    )
    effect = "An outlier costs a logarithm. If it is a mistake, mend the data instead."
    return Finding(name, "finding", what, number, OUTLYING, ("model.family=student_t",), effect)


def repeated(x: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """The part of the values of each column that occur in it more than once."""
    ordered = x.sort(0).values
    same = ordered[1:] == ordered[:-1]
    none = same.new_zeros(1, x.shape[1])
    return (torch.cat((same, none)) | torch.cat((none, same))).float().mean(0)


def robust_distance(rows: Float[Tensor, "m d"], usual: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """How many robust standard deviations each value is from the median of its column; 0 where that has no spread.

    The deviation is that of a normal with the same median distance to the median; where half of a column is one value,
    with the same range of the middle 99 %.

    Args:
        rows: The values.
        usual: Where median and deviation are taken from.
    """
    usual = usual.double()
    centre = usual.median(0).values
    spread = (usual - centre).abs().median(0).values * 1.4826
    ordered = usual.sort(0).values
    cut = len(usual) // 200
    middle = (ordered[len(usual) - 1 - cut] - ordered[cut]) / 5.15
    spread = torch.where(spread > 0, spread, middle if cut else torch.zeros_like(middle))
    away = (rows.double() - centre).abs()
    return torch.where(spread > 0, away / torch.where(spread > 0, spread, 1.0), 0.0)


def levels_of(x: Float[Tensor, "n d"]) -> tuple[float, float, int] | None:
    """Lowest value, steps in a unit and number of levels, where all values lie on a grid; None where they do not."""
    values = x.flatten()[:FEW_VALUES].unique().double()
    gap = float(values.diff().min()) if len(values) > 1 else 0.0
    if gap == 0 or (values[-1] - values[0]) / gap >= 65_535.5:
        return None
    places = ((values - values[0]) / gap).round()
    # the whole range holds the step to more digits than one gap does
    per_unit = float(places[-1] / (values[-1] - values[0]))
    if not torch.allclose(values, values[0] + places / per_unit, rtol=1e-6, atol=1e-3 * gap):
        return None
    # a step such as 1/255 is not a number of float32, and its inverse is meant to be whole
    whole = round(per_unit)
    per_unit = float(whole) if abs(per_unit - whole) < 1e-4 * per_unit else per_unit
    return float(values[0]), per_unit, int(places[-1]) + 1


def _listed(names: list[str], last: str) -> str:
    return ", ".join(names[:-1]) + (f" {last} " if len(names) > 1 else "") + names[-1]


def _rows(n: int) -> str:
    return f"{n:,} row" + ("" if n == 1 else "s")
