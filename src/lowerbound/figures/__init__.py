"""Figures from tensors: sheets of images as PIL images, everything else as matplotlib figures.

Nothing here knows a model or a file: tensors come in, pictures come out, and `png` makes bytes of either. Figures are
made through `matplotlib.figure.Figure`, never pyplot, so that no state is shared between threads and no window opens.
"""

from .canvas import Picture, is_chart, page_size, png
from .charts import curves, kl_bars, latent_map, vectors
from .levels import level_bars, rows_of_images
from .sheets import grid, unit_interval
from .tables import associations, marginals
from .weights import COLLAPSED, Line, Panel, dimensions, over_weights, rate_distortion, strips, terms

__all__ = [
    "COLLAPSED",
    "Line",
    "Panel",
    "Picture",
    "associations",
    "curves",
    "dimensions",
    "grid",
    "is_chart",
    "kl_bars",
    "latent_map",
    "level_bars",
    "marginals",
    "over_weights",
    "page_size",
    "png",
    "rate_distortion",
    "rows_of_images",
    "strips",
    "terms",
    "unit_interval",
    "vectors",
]
