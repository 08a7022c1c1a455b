"""What a model is told of a row: its label, its number, or a part of an image, whose rest it then explains."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

REGIONS = ("top", "left", "border")
# Told nothing, or nothing but where a row stands, a model can make rows by itself.
ALONE = ("", "row")
# Of the rows to train on alone.
FROM_TRAINING = ("train label", "row")


def hidden_pixels(given: str, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """Which pixels a model is not told, where the top half, the left half or the border of an image is given.

    >>> hidden_pixels("top", (2, 3)).int().tolist()
    [[0, 0, 0], [1, 1, 1]]
    """
    h, w = size
    mask = torch.zeros(h, w, dtype=torch.bool)
    match given:
        case "top":
            mask[h // 2 :] = True
        case "left":
            mask[:, w // 2 :] = True
        case "border":
            across, down = max(1, w // 4), max(1, h // 4)
            mask[down : h - down, across : w - across] = True
    return mask


def of_each_class(labels: Int64[Tensor, " n"], count: int) -> Int64[Tensor, "..."]:
    """So many places of labels, as many of each class as can be, the same ones each time."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    by_class = [order[labels[order] == c] for c in labels[labels >= 0].unique()]
    # turns: the first of each class, then the second of each, ...
    turns = [own[i : i + 1] for i in range(max(map(len, by_class))) for own in by_class]
    return torch.cat(turns)[:count]
