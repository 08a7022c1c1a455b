"""What a path is: the first argument of the command line, as a data table of a run."""

from pathlib import Path

from .arrays import check_path
from .folders import IMAGES

TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq", ".arrow", ".feather", ".ipc", ".data", ".data.gz")


def open_path(path: str) -> dict[str, str]:
    """The data table of a path: the name of the loader that reads it, and the path.

    Raises:
        ValueError: Where there is nothing there, or nothing that is read.

    Example:
        >>> open_path(".")
        {'name': 'folder', 'path': '.'}
    """
    file = Path(path)
    if file.is_dir():
        return {"name": "folder", "path": str(path)}
    if file.is_file() and file.suffix.lower() in IMAGES:
        raise ValueError(f"{path} is one image, and learning takes many. Give the folder: {file.parent}.")
    if file.is_file() and file.name.lower().endswith(TABLES):
        return {"name": "table", "path": str(path)}
    check_path(file)
    return {"name": "array", "path": str(path)}
