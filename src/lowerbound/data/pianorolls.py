"""Bach's chorales as sequences: piano rolls, in windows of one length.

A piece has four voices, and says for every sixteenth note which key each voice holds. The roll has a bit for every key
and step: whether the key is down. Axes of one x: channel, key (the highest first, so that a picture has the low keys at
its bottom), step.
"""

import io
import tarfile
from pathlib import PurePosixPath

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from .dataset import PARTS, Data
from .files import content, find

CHORALES_URL = "https://github.com/ageron/handson-ml2/raw/master/datasets/jsb_chorales/jsb_chorales.tgz"
# SHA-256 of the archive inside the .tgz.
CHORALES_SHA256 = "8b55f5c4e5176035679649036824bd42fd7abae7b232f60772d3b79f6fbd45d1"
# The lowest and the highest key that is ever down, by their MIDI numbers; a piano goes from 21 to 108.
LOWEST, HIGHEST = 36, 81
SHORTEST = 100


def chorales(*, length: int = 16, every: int = 4) -> Data:
    """JSB chorales: 382 four-part chorales by Bach as piano rolls of 46 keys, cut into windows.

    The split of the pieces into 229 / 76 / 77 is that of the literature, and no window holds parts of two pieces. What
    is left at the end of a piece and fills no window is dropped. Published figures are nats for each quarter note
    (`every=4`) of whole pieces; the first steps of a window know less of what came before.

    Args:
        length: Steps of a window.
        every: Sixteenth notes from one step to the next: 4 for quarter notes, 2 for eighths, 1 for all there is.

    Raises:
        ValueError: A length or a grid that leaves some piece without a window.

    Source: *Boulanger-Lewandowski et al. 2012, https://arxiv.org/abs/1206.6392*; transcribed by *Huang et al. 2017,
    https://github.com/czhuang/JSB-Chorales-dataset*, and kept as text by *Géron 2019,
    https://github.com/ageron/handson-ml2*.
    """
    most = -(-SHORTEST // max(1, every))
    if every < 1 or not 2 <= length <= most:
        raise ValueError(
            f"chorales: length={length} with every={every} cannot be had: a step is 1 sixteenth note or more, a window "
            f"2 steps or more, and the shortest piece has {SHORTEST} sixteenths"
            + (f". Give a length from 2 to {most}." if most >= 2 and every > 0 else ". Give every=4, 2 or 1.")
        )
    archive = content(find("jsb_chorales", "jsb_chorales.tgz", CHORALES_URL, CHORALES_SHA256), CHORALES_SHA256)
    pieces = _pieces(archive)
    rolls = {part: [_roll(voices[::every]) for voices in pieces[part]] for part in PARTS}
    cut = {part: torch.cat([_windows(roll, length) for roll in rolls[part]]) for part in PARTS}
    sizes = [len(cut[part]) for part in PARTS]
    steps = sum(roll.shape[-1] for part in PARTS for roll in rolls[part])
    lost = steps - length * sum(sizes)
    return Data(
        "chorales",
        torch.cat([cut[part] for part in PARTS]),
        dict(zip(PARTS, torch.arange(sum(sizes)).split(sizes), strict=True)),
        levels=2,
        notes=(f"{lost:,} of {steps:,} steps are left out: ends of pieces that do not fill a window of {length}",),
    )


def _pieces(archive: bytes) -> dict[str, list[np.ndarray]]:
    """The pieces of each part in the order of their numbers: for each step, the key of each voice, 0 for none."""
    pieces: dict[str, list[np.ndarray]] = {part: [] for part in PARTS}
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in sorted(files.getmembers(), key=lambda member: member.name):
            if file := files.extractfile(member):
                piece = np.loadtxt(file, delimiter=",", skiprows=1, dtype=np.int64)
                pieces[PurePosixPath(member.name).parts[-2]].append(piece)
    return pieces


def _roll(voices: np.ndarray) -> UInt8[Tensor, "1 keys steps"]:
    """Which keys are down at each step, the highest first."""
    down = (voices[None] == np.arange(HIGHEST, LOWEST - 1, -1)[:, None, None]).any(-1)
    return torch.from_numpy(down.astype("uint8"))[None]


def _windows(roll: UInt8[Tensor, "1 keys steps"], length: int) -> UInt8[Tensor, "n 1 keys length"]:
    """The windows of a piece, one behind the other."""
    whole = roll.shape[-1] // length
    return roll[..., : whole * length].unflatten(-1, (whole, length)).movedim(-2, 0)
