"""Where x comes from: image folders, arrays, tables, the named sets, and the sets rendered on the spot."""

from .arrays import array
from .conditions import ALONE, FROM_TRAINING, REGIONS, hidden_pixels
from .dataset import Data, some, split
from .folders import folder
from .named import binarized_mnist, digits, fashion, mnist
from .paths import open_path
from .pianorolls import chorales
from .rendered import glyphs, shapes
from .tables import frame, table

__all__ = [
    "ALONE",
    "FROM_TRAINING",
    "REGIONS",
    "Data",
    "array",
    "binarized_mnist",
    "chorales",
    "digits",
    "fashion",
    "folder",
    "frame",
    "glyphs",
    "hidden_pixels",
    "mnist",
    "open_path",
    "shapes",
    "some",
    "split",
    "table",
]
