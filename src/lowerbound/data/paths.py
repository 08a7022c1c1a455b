"""What a path is: the first argument of the command line, as a data table of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .arrays import check_path
from .folders import IMAGES
from .tables import ENDINGS

KINDS = {"folder": "a folder of images", "table": "a table", "array": "an array"}


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
    if file.is_file() and file.name.lower().endswith(ENDINGS):
        return {"name": "table", "path": str(path)}
    check_path(file)
    return {"name": "array", "path": str(path)}


def open_like(table: Mapping[str, Any], path: str, event: Sequence[int]) -> dict[str, Any]:
    """The data table of a path that is read as other data were: by the same loader, with the same options.

    Args:
        table: The data table of those data.
        path: A folder of images, or an array.
        event: The shape of their rows.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: It is of another kind than those data, or they are a named set.

    Example:
        >>> open_like({"name": "folder", "path": "photos", "size": 64, "color": "auto"}, ".", (3, 64, 64))
        {'name': 'folder', 'path': '.', 'size': 64, 'color': 'rgb'}
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist: give the path of data like those of the run.")
    kind = table["name"]
    if kind not in KINDS:
        raise ValueError(
            f"the model was trained on the set {kind!r}, which is read in a way of its own, so that {path} cannot be "
            "read in the same way. Leave it out, for rows of the set itself, or train on a folder or an array."
        )
    found = open_path(path)
    if found["name"] != kind:
        raise ValueError(
            f"{path} is {KINDS[found['name']]}, and the model was trained on {KINDS[kind]}. Give {KINDS[kind]}."
        )
    options = {**table, "path": path}
    # an array's labels lie beside it, under a name that says nothing of others
    options.pop("labels", None)
    if options.get("color") == "auto" and event[0] == 3:
        # grey images among others were read as coloured ones
        options["color"] = "rgb"
    return options
