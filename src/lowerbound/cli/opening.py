"""How a run is opened: its model alone, with its own data, or with other data like them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .terminal import at_least, load, out, part

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Data
    from ..data.tables.coding import Coding
    from ..data.tables.reading import Source
    from ..models import Model
    from ..views import View


@dataclass(frozen=True)
class Opened:
    """A model, and rows as its likelihood sees them.

    Attributes:
        view: The model, and how rows are shown.
        x: The rows.
        context: What the model is told of them; nothing if it is unconditional.
        labels: Of the rows, where there are any.
        coding: How rows are cells, if of a table.
    """

    view: "View"
    x: "Tensor"
    context: "tuple[Tensor, ...]"
    labels: "Tensor | None"
    coding: "Coding | None"


@dataclass(frozen=True)
class Rows:
    """Rows of a table like the one that a model learnt.

    Attributes:
        source: Where they come from.
        x: They as numbers, (n, d), NaN where a value is missing.
        notes: What was noticed, a line each.
    """

    source: "Source"
    x: "Tensor"
    notes: tuple[str, ...]


def beside(run: Path) -> Path:
    """The folder of a run, or of its model file."""
    return run.parent if run.is_file() else run


@dataclass(frozen=True)
class Alone:
    """A model without its data.

    Attributes:
        view: The model, and how rows are shown.
        table: The table of a run that describes it.
        coding: How rows are cells, if of a table.
        has_likelihood: Whether p(x|z) was trained to be a distribution of data.
    """

    view: "View"
    table: Mapping[str, Any]
    coding: "Coding | None"
    has_likelihood: bool


def alone(run: Path, device: str, seed: int) -> Alone:
    """A run's model, without its data; `run` may be the model file."""
    from ..experiment import has_likelihood

    view, tables = _model(run, device, seed)
    return Alone(view, tables["model"], _coding(tables), has_likelihood(tables))


def check_draw(opened: Alone, draw: bool) -> None:
    """Refuse draws from a p(x|z) that was not trained to be a distribution of data.

    Raises:
        ValueError: They are asked for.
    """
    if draw and not opened.has_likelihood:
        raise ValueError(
            "--draw: the objective of this model trains the mean of p(x|z), and no likelihood to draw from. Leave "
            "--draw out."
        )


def told(opened: Alone, label: str | None, count: int, labels: "Tensor | None" = None) -> "tuple[Tensor, ...]":
    """What a model is told of rows that are to be made: the label that is asked for, their own, or each class in turn.

    Args:
        opened: The model.
        label: What is asked for.
        count: How many rows.
        labels: Their own, if they are known.

    Raises:
        ValueError: It is told no labels and one is asked for, or is told some and there is no such one.
    """
    import torch

    from ..data import REGIONS
    from ..recipes import given as given_of

    table, given = opened.table, given_of(opened.table)
    if given in REGIONS:
        raise ValueError(
            f"this model completes images of which the {given} is known, and z alone does not say which image: "
            "lowerbound sample completes images of the run or of others."
        )
    if not given.endswith("label"):
        if label is not None:
            raise ValueError(
                "--label is for a model that is told labels, and this one is not. Train one: lowerbound train DATA "
                "model.given=label."
            )
        return ()
    if label is None and labels is not None:
        return (labels.float().masked_fill(labels < 0, torch.nan) if table.get("classes") else labels.float(),)
    if table.get("attributes"):
        return (_numbers(label, int(table["attributes"])).expand(count, -1),)
    if label is None:
        return ((torch.arange(count) % int(table["classes"])).float(),)
    return (torch.full((count,), float(_class(label, table))),)


def _class(label: str, table: Mapping[str, Any]) -> int:
    """The number of a class.

    Raises:
        ValueError: There is no such class.
    """
    from ..run import hint

    classes, names = int(table["classes"]), [str(name) for name in table["names"]]
    if label in names:
        return names.index(label)
    # of classes that are called by numbers, a number is a name
    if label.isdecimal() and int(label) < classes and not any(name.isdecimal() for name in names):
        return int(label)
    known = ", ".join(names) if names else f"0 to {classes - 1}"
    raise ValueError(f"--label {label} is no label that the model knows{hint(label, names)}: {known}.")


def _numbers(label: str | None, count: int) -> "Tensor":
    """Numbers that are told of a row; nothing is known where none is given.

    Raises:
        ValueError: They are not so many, or no numbers.
    """
    import torch

    if label is None:
        return torch.full((count,), float("nan"))
    try:
        numbers = [float(part) for part in label.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise ValueError(
            f"--label {label} must be {count} numbers with commas between them: that many were told of rows."
        )
    return torch.tensor(numbers)


@dataclass(frozen=True)
class Tabular:
    """A model of tables.

    Attributes:
        model: The model.
        coding: How the cells of a table are numbers.
        reading: What was said of how its file is read.
    """

    model: "Model"
    coding: "Coding"
    reading: Mapping[str, Any]


def of_tables(run: Path, device: str, seed: int) -> Tabular:
    """A run's model of a table, without its data; `run` may be the model file.

    Raises:
        ValueError: It is no model of a table.
    """
    view, tables = _model(run, device, seed)
    coding = _coding(tables)
    if coding is None:
        raise ValueError(
            f"{run} is no model of a table, and only such a model knows what a missing value is. Train one: lowerbound "
            "train table.csv."
        )
    return Tabular(view.model, coding, _reading(tables))


def read_rows(learnt: Tabular, table: Path) -> Rows:
    """The rows of a table like the one that was learnt.

    Raises:
        ValueError: It has no rows or lacks columns, or a cell holds what the model gives no probability.
    """
    from ..data.tables.reading import open_table

    source = open_table(table, learnt.reading)
    found = learnt.coding.encode(source)
    if len(found.x) == 0:
        raise ValueError(f"{table} has no rows, so there is nothing to do. Give a table with some.")
    tables = {"model": dict(learnt.coding.table()), "data": {"name": "table", "path": str(table)}}
    _check(learnt.model, tables, found.x.float())
    return Rows(source, found.x, (*source.notes, *found.notes))


def own(run: Path, device: str, split: str, seed: int = 0) -> Opened:
    """A run's model, and a split of the data it was trained on."""
    from .. import experiment
    from ..views import View

    at_least(0, seed=seed)
    model, data = load(run, device)
    x = part(data, split)
    coding = _coding(experiment.read_run(run))
    return Opened(View.of(model, data), x, data.context(split), data.labels_of(split), coding)


def given(run: Path, what: Path, device: str, seed: int = 0) -> Opened:
    """A run's model, without its data, and all rows of other data like them, in order; `run` may be the model file.

    What there is to say of the data is printed.

    Raises:
        ValueError: They are not like those that the model was trained on.
    """
    view, tables = _model(run, device, seed)
    coding = _coding(tables)
    context: tuple[Tensor, ...] = ()
    labels: Tensor | None = None
    if coding:
        rows = read_rows(Tabular(view.model, coding, _reading(tables)), what)
        x, notes = rows.x.float(), rows.notes
    else:
        x, context, labels, notes = _read(tables, what)
        if x.shape[1:] != view.event:
            shapes = ["x".join(map(str, shape)) for shape in (x.shape[1:], view.event)]
            raise ValueError(
                f"{what} has rows of {shapes[0]}, and the model of {run} is for rows of {shapes[1]}. Bring them to "
                "that shape, or train a model of them."
            )
        _check(view.model, tables | {"data": tables["data"] | {"path": str(what)}}, x)
    for note in notes:
        out.print(note, markup=False)
    return Opened(view, x, context, labels, coding)


def _check(model: Any, tables: dict[str, Any], x: "Tensor") -> None:
    """Refuse rows that the model gives no probability; they are counted from 1."""
    import torch

    from ..refusals import check_support

    check_support(tables, model.decoder.family.support, x, torch.arange(1, len(x) + 1))


def _model(run: Path, device: str, seed: int) -> "tuple[View, dict[str, Any]]":
    """A run's model and its tables, from the model file alone."""
    from .. import checkpoint, experiment
    from ..views import View

    at_least(0, seed=seed)
    if not run.is_file() and not (run / checkpoint.MODEL).is_file():
        experiment.read_run(run)  # says what is missing, and what it may have been
    model, tables = checkpoint.load_model(run, device=str(experiment.find_device(device)))
    columns = tables["model"].get("columns")
    return View.alone(model, tables["model"]["event"] if columns is None else [len(columns)]), tables


def _coding(tables: dict[str, Any]) -> "Coding | None":
    """How the rows of a run are cells, if of a table."""
    if "columns" not in tables["model"]:
        return None
    from ..data.tables.coding import Coding

    return Coding.of(tables["model"])


def _reading(tables: dict[str, Any]) -> Mapping[str, Any]:
    """How the schema of a run has files read; nothing where it has none, or it is gone."""
    from ..data.tables.overrides import read

    schema = tables["data"].get("schema")
    return read(schema).reading if schema and Path(schema).is_file() else {}


def _read(tables: dict[str, Any], what: Path) -> "tuple[Tensor, tuple[Tensor, ...], Tensor | None, tuple[str, ...]]":
    """The rows of images or arrays, what the model is told of them, their labels, and notes: read as in the run."""
    import torch

    from ..data import FROM_TRAINING
    from ..data.paths import open_like
    from ..experiment import load_data
    from ..recipes import given as given_of

    like = {"data": open_like(tables["data"], str(what), tables["model"]["event"])}
    # these are no rows that the model was trained on
    told = {} if given_of(tables["model"]) in FROM_TRAINING else {"model": tables["model"]}
    data = load_data(like | told)
    if data.noise == "binarize":
        # what a grey level is the chance of depends on how many there are, and only all of the data show that
        data = replace(data, levels=load_data(tables).levels)
    data = _as_named(data, tables["model"], what) if data.given == "label" else data
    x = data.draw(data.x, torch.Generator().manual_seed(0))
    return x, data.tell(x, data.told), data.labels, data.notes


def _as_named(data: "Data", model: Mapping[str, Any], what: Path) -> "Data":
    """Other data with their labels as the model counts them.

    Raises:
        ValueError: They are of another kind, or classes that the model does not know.
    """
    import torch

    assert data.labels is not None
    kind = f"{data.labels.shape[1]} numbers" if data.labels.ndim == 2 else "classes"
    expected = f"{model['attributes']} numbers" if model.get("attributes") else "classes"
    if kind != expected:
        raise ValueError(f"{what}: labels are {kind}, and the model was told {expected}. Give labels of the same kind.")
    if kind != "classes":
        return data
    names = [str(name) for name in model["names"]] or [str(i) for i in range(int(model["classes"]))]
    found = data.label_names or tuple(str(i) for i in range(data.classes))
    if unknown := [name for name in found if name not in names]:
        raise ValueError(
            f"{what}: the model knows no class {', '.join(unknown[:5])}; it was told {', '.join(names)}. Leave rows "
            "of others out."
        )
    places = torch.tensor([names.index(name) for name in found])
    labels = torch.where(data.labels >= 0, places[data.labels.long().clamp(min=0)], -1)
    return replace(data, labels=labels, label_names=tuple(names))
