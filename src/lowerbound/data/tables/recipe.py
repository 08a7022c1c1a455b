"""Tables as data sets: columns of every kind, with holes, as one array of numbers.

A table is read twice: once to see what its columns hold, once to pack the modelled ones as numbers. It may be larger
than memory: both passes go batch by batch, and memory holds the packed array and one batch. The array takes four bytes
a number (10 million rows of 20 columns: 800 MB), or eight where some column needs them.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...columns import Column
from ..dataset import Data, nearest, split
from . import overrides

if TYPE_CHECKING:
    from .reading import Source

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq", ".arrow", ".feather", ".ipc", ".data", ".data.gz")


def table(
    learnt: Mapping[str, Any] | None = None,
    /,
    *,
    path: str,
    target: str | None = None,
    schema: str | None = None,
    valid: float = 0.1,
    test: float = 0.1,
    split_seed: int = 0,
) -> Data:
    """Rows of a table in a file: CSV, TSV (.gz too), Parquet, Arrow, Feather. What is missing stays missing.

    Args:
        learnt: The columns and those aside, as they were learnt from this table; None to infer them.
        path: The file.
        target: A column of levels that labels the rows in figures; it is modelled all the same.
        schema: A TOML file that says of columns what is known better, see lowerbound.data.tables.overrides.
        valid: The fraction of rows to choose by.
        test: The fraction of rows to report on.
        split_seed: Of the split.

    Raises:
        ValueError: There is no table in the file, or nothing could be learnt from it; it says what to do.
        ImportError: pyarrow is not installed.
    """
    _need_pyarrow()
    from .reading import open_table

    said = overrides.read(schema)
    parts = {"valid": valid, "test": test, "seed": split_seed}
    return _data(open_table(path, said.reading), said, target, parts, learnt)


def frame(
    rows: Any,
    *,
    name: str = "table",
    target: str | None = None,
    columns: Mapping[str, Any] | None = None,
    valid: float = 0.1,
    test: float = 0.1,
    split_seed: int = 0,
) -> Data:
    """Rows of a table in memory: a pandas, polars or Arrow table, a dict of columns.

    Args:
        rows: The table: whatever gives its columns by the Arrow C stream interface, or `pyarrow.table` understands.
        name: What it is called in reports.
        target: As of `table`.
        columns: What is known better of columns: `{"age": "count", "wind": {"kind": "cyclic", "period": 360}}`.
        valid: As of `table`.
        test: As of `table`.
        split_seed: As of `table`.

    Raises:
        ValueError: It is no table, or nothing could be learnt from it; it says what to do.
        ImportError: pyarrow is not installed.

    Example:
        >>> data = frame({"age": [30, None, 41, 57, 23], "sex": ["F", "M", None, "F", "M"]}, target="sex")
        >>> [column.kind for column in data.columns], data.label_names
        (['count', 'binary'], ('F', 'M', 'missing'))
    """
    _need_pyarrow()
    from .reading import of_frame

    said = overrides.parse({"columns": columns or {}}, "columns")
    parts = {"valid": valid, "test": test, "seed": split_seed}
    return _data(of_frame(rows, name), said, target, parts)


def _data(
    source: "Source",
    said: overrides.Overrides,
    target: str | None,
    parts: Mapping[str, Any],
    learnt: Mapping[str, Any] | None = None,
) -> Data:
    from .coding import Coding
    from .schema import infer

    if learnt is None:
        found = infer(source, said)
        coding, rows, notes = Coding(found.columns, found.aside), found.rows, found.notes
    else:
        coding, rows, notes = Coding.of(learnt), source.count(), ()
    division = split(rows, **parts)
    encoded = coding.encode(replace(source, rows=rows))
    labels, names = _labels(source.name, coding.columns, encoded.x, target)
    return Data(
        source.name.partition(".")[0] or source.name,
        encoded.x,
        division,
        labels,
        names,
        notes=(*source.notes, *notes),
        columns=coding.columns,
        aside=coding.aside,
    )


def _labels(
    table: str, columns: tuple[Column, ...], x: Tensor, target: str | None
) -> tuple[Tensor | None, tuple[str, ...]]:
    """The classes of a column of levels, with one more for what is missing."""
    if target is None:
        return None, ()
    names = [column.name for column in columns]
    if target not in names:
        raise ValueError(
            f"{table} has no column {target!r} that is modelled.{nearest(target, names)} The columns of levels: "
            f"{', '.join(column.name for column in columns if column.is_level) or 'none'}."
        )
    column = columns[names.index(target)]
    if not column.is_level:
        raise ValueError(
            f"{table}: the target {target!r} is {column.kind}, and a label is one of some levels. Leave target out, "
            'the column is modelled as it is; or say in the schema that it has levels: kind = "category".'
        )
    codes = x[:, names.index(target)]
    if not codes.isnan().any():
        return codes.long(), column.levels
    return codes.nan_to_num(len(column.levels)).long(), (*column.levels, "missing")


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "tables are read by pyarrow, which is not installed: pip install 'lowerbound[tables]'."
        ) from error
