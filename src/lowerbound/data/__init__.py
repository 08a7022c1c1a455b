"""Where x comes from: image folders, arrays, the named sets, and the sets rendered on the spot."""

from .arrays import array
from .dataset import Data, some, split
from .folders import folder
from .named import binarized_mnist, digits, fashion, mnist
from .paths import open_path
from .rendered import glyphs, shapes

__all__ = [
    "Data",
    "array",
    "binarized_mnist",
    "digits",
    "fashion",
    "folder",
    "glyphs",
    "mnist",
    "open_path",
    "shapes",
    "some",
    "split",
]
