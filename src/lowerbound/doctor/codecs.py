"""Bits per dimension of everyday compressors: what a model of whole numbers has to beat to have learned anything.

A model that bounds log p(x) from below is a compressor: with bits back and arithmetic coding it stores x in as many
bits as its bound says (Townsend et al. 2019, https://arxiv.org/abs/1901.04866). PNG predicts each pixel from those
beside it; xz looks for bytes that repeat. Both are sizes of real files, headers included, divided by the elements of x.

Axes: ``n`` rows; the event of an image is ``c h w``.
"""

import io
import lzma

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor


def png(rows: Num[Tensor, "n c h w"], levels: int) -> float:
    """Bits per dimension of images, all of them below each other as one optimised PNG file.

    As files of their own, small images would cost more for headers than for pixels.

    Args:
        rows: Whole numbers below 256, in one channel or three.
        levels: How many values they may take; two are stored as bits.
    """
    from PIL import Image

    pixels = rows.to(torch.uint8).movedim(1, -1).flatten(0, 1).numpy()
    if levels == 2:
        image = Image.fromarray(pixels[..., 0] * 255).convert("1", dither=Image.Dither.NONE)
    else:
        image = Image.fromarray(np.ascontiguousarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return 8 * len(file.getvalue()) / rows.numel()


def xz(rows: Num[Tensor, "n *event"]) -> float:
    """Bits per dimension of rows of whole numbers, all of them as one xz stream of their bytes."""
    values = rows.numpy()
    packed = values.astype(np.min_scalar_type(int(values.max())))
    return 8 * len(lzma.compress(packed.tobytes())) / rows.numel()
