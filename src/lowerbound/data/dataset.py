"""A data set: rows x of shape (n, *event) in their own units, a split, and labels where there are any.

Likelihoods are densities or probabilities in the units of x (pixels 0..255, dollars, counts), so x is kept as it
came: uint8 stays uint8, nothing is divided by 255. Two things may happen to a row before a likelihood sees it:

* binarize:   b ~ Bernoulli(x / (levels - 1)), new bits at every draw (Salakhutdinov & Murray 2008,
              https://www.cs.toronto.edu/~rsalakhu/papers/dbn_ais.pdf);
* dequantize: y = x + u, u ~ U[0, 1). A density of y bounds the probability of x from below, since
              log P(x) = log E_u p(x + u) >= E_u log p(x + u) (Theis et al. 2016, https://arxiv.org/abs/1511.01844).

Both are drawn anew while training (`draw`) and once and for all for the numbers reported (`fixed`).

A conditional model p(x|c) is told something of each row (`conditional`, `tell`): its label, or a part of the image, of
which it explains the rest. One whose prior is made of rows is told the number of each.

Axes: n rows, b rows of a batch, f factors; the event of an image is (channels, height, width).
"""

import difflib
import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor

from ..columns import Aside, Column
from .conditions import FROM_TRAINING, REGIONS, hidden_pixels, of_each_class

PARTS = ("train", "valid", "test")
NOISES = ("none", "binarize", "dequantize")
BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in its own units: rows of x, a split, labels where there are any.

    Args:
        name: What it is called in reports.
        x: The rows, in their own dtype. NaN where a value is missing, if there are columns.
        split: Row indices of "train", "valid" and "test": disjoint, none empty.
        labels: Classes (n,), or factors (n, f).
        label_names: Names of the classes, or of the factors.
        noise: What `draw` does to rows: "none", "binarize" or "dequantize".
        levels: x takes the integers 0..levels-1. None: not known to be integers.
        notes: What was skipped, converted or left out, one line each, to be printed.
        entropy: Of the distribution that rows are drawn from, in nats, where it is known: no code is shorter
            on average.
        given: What a model is told of each row: "label"; of the rows to train on alone, "train label" or "row", the
            number of the row; or the part of an image that is known, "top", "left" or "border". Nothing if empty.
        labelled: Of the rows to train on, how many have a class that is told, as many of each class as can be ("train
            label"); 0 for all that have one.

    Raises:
        ValueError: Where nothing could be learnt from x (no rows, one value only, NaN or infinity), or where
            the parts do not fit together.

    Example:
        >>> x = torch.arange(40, dtype=torch.uint8).reshape(10, 4)
        >>> data = Data("ramp", x, split(10), levels=40, noise="dequantize")
        >>> data.event, data.train.shape
        (torch.Size([4]), torch.Size([8, 4]))
        >>> bool((data.fixed("test").floor() == data.test).all())
        True
    """

    name: str
    x: Num[Tensor, "n *event"]
    split: Mapping[str, Tensor]
    labels: Num[Tensor, "rows"] | Num[Tensor, "rows f"] | None = None
    label_names: tuple[str, ...] = ()
    noise: str = "none"
    levels: int | None = None
    notes: tuple[str, ...] = ()
    entropy: float | None = None
    columns: tuple[Column, ...] = ()
    aside: tuple[Aside, ...] = ()
    given: str = ""
    labelled: int = 0

    def __post_init__(self) -> None:
        one_of("noise", self.noise, NOISES)
        _check_rows(self.name, self.x, self.levels, missing=bool(self.columns))
        _check_split(self.name, self.split, len(self.x))
        if self.columns:
            _check_columns(self.name, self.x, self.columns, self.split["train"])
        if self.noise != "none" and self.levels is None:
            raise ValueError(
                f"{self.name}: noise='{self.noise}' is for integers 0..levels-1, and these values are not known to be "
                "integers. Save them as whole numbers (uint8), or leave out noise."
            )
        if self.labels is not None and len(self.labels) != len(self.x):
            raise ValueError(
                f"{self.name}: {len(self.labels):,} labels for {len(self.x):,} rows. Give one label a row, or none."
            )
        if self.given:
            _check_given(self)

    @property
    def event(self) -> torch.Size:
        """The shape of one row; (channels, height, width) for images."""
        return self.x.shape[1:]

    @property
    def train(self) -> Num[Tensor, "b *event"]:
        """The rows to learn from, as they came."""
        return self.x[self.split["train"]]

    @property
    def valid(self) -> Num[Tensor, "b *event"]:
        """The rows to choose by, as they came."""
        return self.x[self.split["valid"]]

    @property
    def test(self) -> Num[Tensor, "b *event"]:
        """The rows to report on, as they came."""
        return self.x[self.split["test"]]

    @property
    def discrete(self) -> bool:
        """Whether x has probabilities rather than densities, so that bits per dimension make sense."""
        return self.levels is not None

    @property
    def observed_levels(self) -> int | None:
        """The number of values that `draw` can return; None where they are continuous."""
        return {"none": self.levels, "binarize": 2, "dequantize": None}[self.noise]

    def draw(self, rows: Num[Tensor, "*shape"], generator: torch.Generator | None = None) -> Float[Tensor, "*shape"]:
        """Rows as the likelihood sees them: float32, with the noise drawn on their device.

        Args:
            rows: Rows of x in their own dtype, on any device.
            generator: Where the noise comes from, on the same device; None is torch's global one.
        """
        x = rows.float()
        if self.noise == "none":
            return x
        u = torch.rand(x.shape, generator=generator, device=x.device)
        if self.noise == "binarize":
            assert self.levels is not None
            return (u * (self.levels - 1) < x).float()
        # 255 + 0.99999994 rounds to 256 in float32, which is outside the cell of 255.
        return torch.minimum(x + u, torch.nextafter(x + 1, x))

    def fixed(self, part: str, rows: int = 0) -> Float[Tensor, "b *event"]:
        """The rows of "train", "valid" or "test" as drawn once, from a fixed seed: what bounds are reported on.

        Args:
            part: Which.
            rows: At most so many of them, chosen at random, the same each time; 0 for all, in their order.
        """
        chosen = self._chosen(part, rows)
        if self.noise == "none":
            return self.x[chosen].float()
        # On the CPU whatever the device of x: a published number must not depend on the machine.
        generator = torch.Generator().manual_seed(PARTS.index(part))
        drawn = self.draw(self.x[self.split[part]].cpu(), generator).to(self.x.device)
        return drawn[some(len(drawn), rows)] if rows else drawn

    def labels_of(self, part: str, rows: int = 0) -> Num[Tensor, "b"] | Num[Tensor, "b f"] | None:
        """The labels of the rows that `fixed` returns; None where there are none."""
        chosen = self._chosen(part, rows)
        return None if self.labels is None else self.labels[chosen]

    def conditional(self, given: str, labelled: int = 0) -> "Data":
        """The same data for a model that is told something of each row.

        Args:
            given: What, as in `Data`; nothing if empty.
            labelled: How many rows to train on have a class that is told; 0 for all that have one.

        Raises:
            ValueError: There are no labels, or these are no images, so that it cannot be told.
        """
        return replace(self, given=given, labelled=labelled)

    @cached_property
    def classes(self) -> int:
        """How many classes the labels name; 0 where there are none, or where they are factors."""
        if self.labels is None or self.labels.ndim != 1:
            return 0
        return max(int(self.labels.max()) + 1, len(self.label_names))

    @property
    def explained(self) -> str:
        """What bounds are on the probability of: "x", or "x|label", "rest|top" of a conditional model."""
        if self.given in REGIONS:
            return f"rest|{self.given}"
        return "x|label" if self.given == "label" else "x"

    @property
    def dims(self) -> int:
        """How many elements of a row a model explains: all, but for those that it is told."""
        if self.given in REGIONS:
            return self.event[0] * int(hidden_pixels(self.given, (self.event[1], self.event[2])).sum())
        return self.event.numel()

    @cached_property
    def told(self) -> Float[Tensor, " n"] | Float[Tensor, "n f"] | None:
        """What is told of each row: a class or factors, or its number; NaN where it is not known. None if none is."""
        if self.given == "row":
            numbers = torch.full((len(self.x),), math.nan)
            numbers[self.split["train"]] = self.split["train"].float()
            return numbers
        if self.given not in ("label", "train label") or self.labels is None:
            return None
        labels = self.labels.float()
        labels = labels.masked_fill(labels < 0, math.nan) if self.classes else labels
        if self.given == "label":
            return labels
        known = self.split["train"]
        if self.labelled:
            known = known[of_each_class(self.labels[known], self.labelled)]
        few = torch.full_like(labels, math.nan)
        few[known] = labels[known]
        return few

    def tell(
        self, x: Float[Tensor, "b *event"], told: Float[Tensor, " b"] | Float[Tensor, "b f"] | None
    ) -> tuple[Tensor, ...]:
        """What a model is told of rows: nothing, their labels or numbers, or images with NaN where they are hidden.

        Args:
            x: Rows as `draw` returns them.
            told: Of each, as in `Data.told`.
        """
        if self.given in REGIONS:
            return (x.masked_fill(hidden_pixels(self.given, (self.event[1], self.event[2])).to(x.device), math.nan),)
        return () if told is None else (told,)

    def context(self, part: str, rows: int = 0) -> tuple[Tensor, ...]:
        """What a model is told of the rows that `fixed` returns, to be judged by them.

        Labels that are told of rows to train on alone are not: bounds of all parts are on log p(x), and compare.
        """
        chosen = self._chosen(part, rows)
        if self.given in REGIONS:
            return self.tell(self.fixed(part, rows), None)
        if self.told is None:
            return ()
        told = self.told[chosen]
        return (torch.full_like(told, math.nan) if self.given == "train label" else told,)

    def _chosen(self, part: str, rows: int) -> Tensor:
        one_of("part", part, PARTS)
        indices = self.split[part]
        return indices[some(len(indices), rows)] if rows else indices

    def fingerprint(self) -> str:
        """The SHA-256, in hex, of all that a result depends on: x, its levels, labels, split, noise and columns."""
        digest = hashlib.sha256(repr((self.noise, self.levels)).encode())
        for described in [column.table() for column in self.columns] + [column.table() for column in self.aside]:
            digest.update(repr(described).encode())
        tensors = [self.x, self.labels, *(self.split[part] for part in PARTS)]
        for tensor in tensors:
            if tensor is None:
                digest.update(b"none")
            else:
                array = tensor.detach().cpu().contiguous().numpy()
                digest.update(repr((array.shape, array.dtype.str)).encode())
                digest.update(array.reshape(-1).view("uint8").data)
        return digest.hexdigest()


def split(n: int, *, valid: float = 0.1, test: float = 0.1, seed: int = 0) -> dict[str, Int64[Tensor, "..."]]:
    """A random split of n rows into "train", "valid" and "test", the same for the same seed.

    Args:
        n: The number of rows.
        valid: The fraction to choose by; at least one row.
        test: The fraction to report on; at least one row.
        seed: Of the permutation.

    Raises:
        ValueError: Where a part would be empty.
    """
    if n < len(PARTS):
        raise ValueError(
            f"{n} {'row' if n == 1 else 'rows'} cannot be divided into rows to train on, choose by and test on: "
            "each part needs at least one. Give at least 3 rows."
        )
    n_valid, n_test = (max(1, round(n * fraction)) for fraction in (valid, test))
    n_train = n - n_valid - n_test
    if n_train < 1 or not (0 < valid < 1 and 0 < test < 1):
        raise ValueError(
            f"split: {n} rows with valid={valid} and test={test} make {n_train} for training, {n_valid} to choose by "
            f"and {n_test} to test on, and each part needs at least one. Give at least 3 rows, and fractions above 0 "
            "that sum to less than 1."
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return dict(zip(PARTS, order.split([n_train, n_valid, n_test]), strict=True))


def _check_given(data: Data) -> None:
    if data.given and data.given not in FROM_TRAINING:
        one_of("given", data.given, ("label", *REGIONS))
    if data.given.endswith("label") and data.columns:
        raise ValueError(
            f"{data.name} is a table, of which a model has all columns together and is told none. Leave model.name and "
            "model.given out: lowerbound sample RUN --where column=value asks for rows of one kind."
        )
    labels, few = data.labels, data.given == "train label"
    if data.given.endswith("label") and labels is None:
        raise ValueError(
            f"{data.name} has no labels, and this model is told them of rows{' to train on' * few}. Put images of "
            "each class into a folder of its own, or save labels with the array; or choose a model that is told none."
        )
    if few and not data.classes:
        raise ValueError(
            f"{data.name} has labels that are numbers, and a model that is told some of them tells classes apart. "
            "Choose another model."
        )
    if few and labels is not None and not bool((labels[data.split["train"]] >= 0).any()):
        raise ValueError(f"{data.name}: of no row to train on is the class known, so none can be learned. Label some.")
    if data.given in REGIONS and len(data.event) != 3:
        raise ValueError(
            f"given={data.given} tells a model a part of an image, (channels, height, width), and a row of {data.name} "
            f"has shape {tuple(data.event)}. Leave model.given out."
        )
    if data.given in REGIONS and min(data.event[1:]) < 3:
        raise ValueError(f"given={data.given}: images of {data.event[1]}x{data.event[2]} are too small to have parts.")
    most = len(data.split["train"])
    if data.labelled and not 0 < data.labelled <= most:
        raise ValueError(
            f"labelled={data.labelled} is how many of the {most:,} rows to train on have a class that is told. Give a "
            f"number from 1 to {most:,}, or leave it out."
        )


def some(n: int, count: int, seed: int = 0) -> Int64[Tensor, "..."]:
    """At most `count` of n row numbers, chosen at random: some sets are sorted by class."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:count]


def complete(parts: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A whole split of a partial one: a tenth of the training rows stands in for each part that is missing."""
    whole = dict(parts)
    for part in ("valid", "test"):
        if part not in whole:
            carved = split(len(whole["train"]), valid=0.1, test=0.1, seed=seed)
            rows = whole["train"]
            whole[part] = rows[carved[part]]
            whole["train"] = rows[torch.cat([carved[other] for other in PARTS if other != part])]
    return {part: whole[part] for part in PARTS}


def one_of(argument: str, value: str, choices: Collection[str]) -> str:
    """The value, if it is one of the choices; else an error that names them and the nearest."""
    if value in choices:
        return value
    raise ValueError(f"{argument}={value!r} is not known.{nearest(value, choices)} Choose one of {', '.join(choices)}.")


def nearest(value: object, choices: Iterable[str]) -> str:
    """A hint for a typo: " Did you mean ...?", or nothing where no choice is near."""
    close = difflib.get_close_matches(str(value), list(choices), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _check_rows(name: str, x: Tensor, levels: int | None, missing: bool) -> None:
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(
            f"{name}: x has shape {tuple(x.shape)}, and there must be at least one row with at least one value. "
            "Give rows first: (n, d), or (n, channels, height, width) for images."
        )
    if x.is_complex() or x.dtype == torch.bool:
        raise ValueError(
            f"{name}: x is {x.dtype}, and rows must be real numbers. Convert it: True and False to 0 and 1 "
            "(uint8), complex numbers to two columns."
        )
    # Block by block: what is made of all of x on the way takes as much memory as x.
    if x.is_floating_point() and any(_unusable(block, missing).any() for block in x.split(BLOCK)):
        bad = _unusable(x, missing).nonzero()
        row, *position = bad[0].tolist()
        raise ValueError(
            f"{name}: {len(bad):,} of {x.numel():,} values are {'' if missing else 'NaN or '}infinite, the first in "
            f"row {row} at {tuple(position)}. A likelihood of them is not a number: drop those rows or fill the holes."
        )
    if missing:
        return
    low, high = x.aminmax()
    if low == high:
        raise ValueError(
            f"{name}: all {x.numel():,} values are {low.item():g}, so there is nothing to learn. "
            "Look at how the file was made."
        )
    if levels is not None and (low < 0 or high > levels - 1):
        raise ValueError(
            f"{name}: values run from {low.item():g} to {high.item():g}, and levels={levels} allows 0 to {levels - 1}. "
            f"Give levels={int(high) + 1} if they are integers from 0, else levels=None."
        )


def _unusable(x: Tensor, missing: bool) -> Tensor:
    """Which values have no likelihood; those that are missing have one."""
    return x.isinf() if missing else ~x.isfinite()


def _check_columns(name: str, x: Tensor, columns: tuple[Column, ...], train: Tensor) -> None:
    if x.ndim != 2 or x.shape[1] != len(columns):
        raise ValueError(
            f"{name}: x has shape {tuple(x.shape)}, and {len(columns)} columns are described. Describe each column of "
            "rows (n, d), in their order."
        )
    empty = [repr(column.name) for i, column in enumerate(columns) if x[:, i].isnan()[train].all()]
    if empty:
        raise ValueError(
            f"{name}: of {', '.join(empty)}, no value is known in the {len(train):,} rows to train on, so nothing can "
            'be learnt of it. Leave it out ("out" in the schema), or give more rows.'
        )


def _check_split(name: str, split: Mapping[str, Tensor], n: int) -> None:
    sizes = {part: len(rows) for part, rows in split.items()}
    if set(split) != set(PARTS) or not all(sizes.values()):
        raise ValueError(
            f"{name}: the split is {sizes}, and it needs rows for each of {', '.join(PARTS)}. "
            f"Take one from lowerbound.data.split({n})."
        )
    rows = torch.cat([split[part] for part in PARTS])
    if rows.min() < 0 or rows.max() >= n or len(rows.unique()) != len(rows):
        raise ValueError(
            f"{name}: the split {sizes} names a row twice or a row that is not among the {n:,}, so a result on the "
            f"test part would mean nothing. Take one from lowerbound.data.split({n})."
        )
