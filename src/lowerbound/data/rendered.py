"""Sets rendered on the spot, whose factors of variation are known: what a latent space should find.

Each image is a function of a few integer factors, drawn uniformly without replacement from all their combinations:
no image is in two parts of the split, and `labels` (n, f) holds the factors themselves.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from .dataset import Data, split

SHAPE_FACTORS = {"shape": 4, "scale": 6, "orientation": 24, "x": 16, "y": 16, "intensity": 5}

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmb10", "cmss10", "cmtt10"),
)
GLYPH_FACTORS = {"character": len(CHARACTERS), "font": len(FONTS), "scale": 3, "tilt": 5}


def shapes(*, n: int = 10_000, size: int = 32, seed: int = 0) -> Data:
    """Hearts, moons, drops and arrows on black: one sprite an image, with six known factors.

    No shape looks the same after a turn, so each factor can be read off each image. The factors: shape (4),
    scale (6: the radius is 0.14 to 0.26 of the size), orientation (24 steps of 15 degrees), x and y (16 each; the
    sprite stays inside), intensity (5: 0.4 to 1). In the spirit of dSprites, without its symmetries.

    Args:
        n: Images, of the 737,280 that there are.
        size: Height and width in pixels, at least 16.
        seed: Of the choice of images and of the split.

    Source: *Matthey et al. 2017, https://github.com/google-deepmind/dsprites-dataset*.
    """
    factors = _factors("shapes", n, size, SHAPE_FACTORS, seed)
    shape, scale, orientation, across, down, intensity = factors.T[:, :, None, None]
    radius = size * (0.14 + 0.12 * scale / 5)
    margin = 0.26 * size + 1
    angle = 2 * np.pi * orientation / 24
    x = np.empty((n, 1, size, size), "uint8")
    pixel = np.arange(size) + 0.5
    for rows in np.array_split(np.arange(n), -(-n // 512)):  # pieces that fit the processor's cache
        dx = (pixel[None, :] - (margin + (size - 2 * margin) * across[rows] / 15)) / radius[rows]
        dy = ((margin + (size - 2 * margin) * down[rows] / 15) - pixel[:, None]) / radius[rows]
        u = np.cos(angle[rows]) * dx + np.sin(angle[rows]) * dy
        v = np.cos(angle[rows]) * dy - np.sin(angle[rows]) * dx
        distance = np.empty_like(u)
        for i, signed_distance in enumerate(SIGNED_DISTANCES):
            of = shape[rows, 0, 0] == i
            distance[of] = signed_distance(u[of], v[of])
        # Half a pixel to each side of the edge: the part of the pixel that the shape covers.
        covered = np.clip(0.5 - distance * radius[rows], 0, 1)
        x[rows, 0] = np.rint(255 * covered * (0.4 + 0.15 * intensity[rows]))
    # every combination gives another image, so that an image is as hard to guess as its factors
    entropy = math.log(math.prod(SHAPE_FACTORS.values()))
    return _data("shapes", x, factors, SHAPE_FACTORS, seed, entropy)


def glyphs(*, n: int = 10_000, size: int = 28, seed: int = 0) -> Data:
    """Digits and Latin letters in the 20 text fonts that come with matplotlib, white on black.

    The factors: character (62: 0-9, A-Z, a-z), font (20: DejaVu Sans, Mono and Serif, STIX, Computer Modern, with
    their bold and slanted cuts), scale (3: 0.85 to 1), tilt (5: -10 to 10 degrees). All share one baseline.

    Args:
        n: Images, of the 18,600 that there are.
        size: Height and width in pixels, at least 16.
        seed: Of the choice of images and of the split.

    Source: *the fonts in matplotlib, https://matplotlib.org/stable/users/explain/text/fonts.html*.
    """
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    factors = _factors("glyphs", n, size, GLYPH_FACTORS, seed)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fine = 4 * size  # drawn four times as large, then averaged: even tilted edges are smooth
    fonts = [
        [
            ImageFont.truetype(folder / f"{font}.ttf", round(fine * em), layout_engine=ImageFont.Layout.BASIC)
            for em in (0.62, 0.68, 0.74)
        ]
        for font in FONTS
    ]
    x = np.empty((n, 1, size, size), "uint8")
    for row, (character, font, scale, tilt) in zip(x, factors.tolist(), strict=True):
        image = Image.new("L", (fine, fine))
        draw = ImageDraw.Draw(image)
        draw.text((fine / 2, 0.74 * fine), CHARACTERS[character], 255, fonts[font][scale], anchor="ms")
        image = image.rotate(5 * (2 - tilt), Image.Resampling.BICUBIC)
        row[0] = np.asarray(image.reduce(4))
    return _data("glyphs", x, factors, GLYPH_FACTORS, seed)


def _factors(name: str, n: int, size: int, counts: dict[str, int], seed: int) -> ndarray:
    """Different combinations of factors (n, f), each factor uniform."""
    total = int(np.prod(list(counts.values())))
    if not 3 <= n <= total:
        raise ValueError(f"{name}: n={n:,}, and there are {total:,} different images. Give n from 3 to {total:,}.")
    if size < 16:
        raise ValueError(f"{name}: size={size}, and below 16 pixels they look alike. Give size=16 or more.")
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:n]
    return np.stack(np.unravel_index(chosen.numpy(), tuple(counts.values())), 1)


def _data(
    name: str, x: ndarray, factors: ndarray, counts: dict[str, int], seed: int, entropy: float | None = None
) -> Data:
    return Data(
        name,
        torch.from_numpy(x),
        split(len(x), seed=seed),
        torch.from_numpy(factors.astype("int64")),
        tuple(counts),
        levels=256,
        entropy=entropy,
    )


# Signed distances of shapes that just fit the unit disc, upright, x to the right and y up: negative inside.
# After Quilez, https://iquilezles.org/articles/distfunctions2d/.


def _heart(x: ndarray, y: ndarray) -> ndarray:
    unit = 0.68
    x, y = np.abs(x) * unit, y * unit + 0.55
    lobe = np.hypot(x - 0.25, y - 0.75) - np.sqrt(2) / 4
    along = np.maximum(x + y, 0) / 2
    below = np.minimum(np.hypot(x, y - 1), np.hypot(x - along, y - along)) * np.sign(x - y)
    return np.where(x + y > 1, lobe, below) / unit


def _moon(x: ndarray, y: ndarray) -> ndarray:
    shift, inner = 0.5, 0.8
    y = np.abs(y)
    a = (1 - inner**2 + shift**2) / (2 * shift)
    b = np.sqrt(1 - a**2)
    crescent = np.maximum(np.hypot(x, y) - 1, inner - np.hypot(x - shift, y))
    at_horn = x * b - y * a > shift * np.maximum(b - y, 0)
    return np.where(at_horn, np.hypot(x - a, y - b), crescent)


def _drop(x: ndarray, y: ndarray) -> ndarray:
    large, small, height = 0.58, 0.04, 1.38
    x, y = np.abs(x), y + 1 - large
    b = (large - small) / height
    a = np.sqrt(1 - b**2)
    k = a * y - b * x
    side = a * x + b * y - large
    return np.where(k < 0, np.hypot(x, y) - large, np.where(k > a * height, np.hypot(x, y - height) - small, side))


def _arrow(x: ndarray, y: ndarray) -> ndarray:
    # Right half of the outline, from the tip down; the left half is its mirror image.
    outline = np.array([(0, 1), (0.78, 0.1), (0.3, 0.1), (0.3, -0.95), (0, -0.95)])
    x = np.abs(x)
    square = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in pairwise(outline):
        ex, ey = x1 - x0, y1 - y0
        t = np.clip(((x - x0) * ex + (y - y0) * ey) / (ex**2 + ey**2), 0, 1)
        square = np.minimum(square, (x - x0 - t * ex) ** 2 + (y - y0 - t * ey) ** 2)
        if ey:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + ex * (y - y0) / ey)
    return np.where(inside, -1, 1) * np.sqrt(square)


SIGNED_DISTANCES: tuple[Callable[[ndarray, ndarray], ndarray], ...] = (_heart, _moon, _drop, _arrow)
