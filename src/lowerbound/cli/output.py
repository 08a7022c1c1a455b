"""Where results go: pictures, arrays and tables, as the name of the file says."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .terminal import out

if TYPE_CHECKING:
    import pyarrow
    from torch import Tensor

    from ..data.tables.coding import Coding
    from ..figures import Picture
    from ..views import View

PICTURES = (".png", ".npz", ".parquet")
TABLES = (".csv", ".tsv", ".gz", ".parquet", ".arrow", ".feather")
ARRAYS = (".npz", *TABLES)
ROWS = (*TABLES, ".npz", ".png")
MOST_VALUES = 2**30


def target(asked: Path | None, usual: Path, kinds: tuple[str, ...]) -> Path:
    """Where to write, in a format that there is: checked before anything is computed or made."""
    file = asked or usual
    if file.suffix.lower() not in kinds:
        listed = ", ".join(kinds[:-1]) + " or " + kinds[-1]
        raise ValueError(f"cannot write {file}: give --out a name that ends in {listed}.")
    if file.is_dir():
        raise ValueError(f"cannot write {file}: it is a folder. Choose another name with --out.")
    return file


def in_memory(view: "View", rows: int) -> None:
    """Refuse more rows than memory holds."""
    values = rows * math.prod(view.event)
    if values > MOST_VALUES:
        raise ValueError(
            f"{rows:,} rows are {values:,} values, more than the {MOST_VALUES:,} that are made at once: "
            f"ask for {MOST_VALUES // math.prod(view.event):,} rows or fewer, several times with another --seed."
        )


def put(
    path: Path,
    picture: "Callable[[], Picture] | None",
    arrays: "dict[str, Tensor]",
    coding: "Coding | None" = None,
    rows: str = "x",
) -> int:
    """Write a picture, arrays, or a table.

    Args:
        path: Where; its ending says what.
        picture: Makes the picture.
        arrays: The arrays. As a table they are a column for each number.
        coding: Of rows of a table: as a table, they are that.
        rows: Which array these rows are.
    """
    import io

    import numpy as np

    from .. import checkpoint

    kind = path.suffix.lower()
    if kind not in (".png", ".npz"):
        table = coding.decode(arrays[rows]) if coding else _table(arrays)
        from ..data.tables.writing import write_table

        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, table)
        out.print(f"wrote {path}", markup=False, soft_wrap=True)
        return 0
    if kind == ".png":
        assert picture is not None
        from ..figures import png

        content = png(picture())
    else:
        buffer = io.BytesIO()
        plain: dict[str, Any] = {name: array.cpu().numpy() for name, array in arrays.items()}
        np.savez_compressed(buffer, **plain)
        content = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(path, content)
    out.print(f"wrote {path}", markup=False, soft_wrap=True)
    return 0


def _table(arrays: "dict[str, Tensor]") -> "pyarrow.Table":
    """A table with a column for each element of each array."""
    try:
        import pyarrow
    except ImportError:
        raise ImportError("writing a table needs pyarrow: pip install 'lowerbound[tables]', or write .npz.") from None
    rows = len(next(iter(arrays.values())))
    columns: dict[str, Any] = {}
    for name, array in arrays.items():
        flat = array.cpu().reshape(rows, -1)
        names = [name] if flat.shape[1] == 1 else [f"{name}_{i}" for i in range(flat.shape[1])]
        columns |= dict(zip(names, flat.T.numpy(), strict=True))
    return pyarrow.table(columns)
