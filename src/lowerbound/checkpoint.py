"""What a run leaves on disk: plain files that no one has to trust.

    run.toml             the four tables, every default written out
    model.safetensors    the model: its weights, with the run as JSON metadata. This one file is the model
    state.safetensors    what training needs to go on, bit for bit
    split.safetensors    which rows were trained on and which were held out, and the fingerprint of the data
    log.jsonl            one JSON object a line; the same bytes whether or not the run was interrupted

Every file is written under a temporary name, synced and renamed, so that a kill at any moment, or a full disk, leaves
what was there before. Nothing is ever pickled.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from . import recipes
from .choices import Choice
from .files import write
from .models import Model
from .run import Table, build, find
from .train import Ensemble, Trainer, fill

FORMAT = 1
RUN, MODEL, STATE, SPLIT = "run.toml", "model.safetensors", "state.safetensors", "split.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Put tensors in a safetensors file, with JSON-able metadata."""
    own = {"format": FORMAT, "lowerbound": version("lowerbound")}
    texts = {key: json.dumps(value) for key, value in (own | dict(metadata)).items()}
    write(path, _ordered(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata=texts)))


def _ordered(content: bytes) -> bytes:
    """A safetensors file with its metadata in order: the library leaves that to chance, and equal runs equal bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at multiples of 8
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[end:]))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and metadata of a file written by `write_tensors`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is cut short or no safetensors file, not one of ours, or of a newer format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}. {_again(path) or 'Is this the folder of a run?'}")
    try:
        with safe_open(path, "pt") as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read: it is cut short or is no safetensors file ({error}). "
            f"{_again(path) or 'Copy or train it again.'}"
        ) from None
    if "format" not in texts or "lowerbound" not in texts:
        raise ValueError(f"{path} was not written by lowerbound: it does not say which run it belongs to.")
    try:
        metadata = {key: json.loads(text) for key, text in texts.items()}
        newer = metadata["format"] > FORMAT
    except (json.JSONDecodeError, TypeError):
        raise ValueError(
            f"{path} cannot be read: its metadata is damaged. {_again(path) or 'Copy or train it again.'}"
        ) from None
    if newer:
        raise ValueError(
            f"{path} has format {metadata['format']}, written by lowerbound {metadata['lowerbound']}; "
            f"this is lowerbound {version('lowerbound')}, which reads up to format {FORMAT}. "
            "Upgrade: pip install --upgrade lowerbound."
        )
    return tensors, metadata


def _again(path: Path) -> str:
    """How to have the weights of a run again; nothing for another file, or where nothing is left of its training."""
    if path.name != MODEL or not (path.parent / STATE).is_file():
        return ""
    return f"{STATE} is there, from which lowerbound resume {shlex.quote(str(path.parent))} writes it anew."


def save_model(path: Path | str, tensors: Mapping[str, Tensor], run: Mapping[str, Table], step: int) -> None:
    """Write the model file: weights, and the run that built the model."""
    write_tensors(Path(path), tensors, {"run": run, "step": step})


def load_model(
    path: Path | str, build_model: Callable[[], Model] | None = None, device: str = "cpu"
) -> tuple[Model, dict[str, Table]]:
    """The model of a file or of a run's folder, in evaluation mode, and its run.

    Args:
        path: `model.safetensors`, or the folder that holds it.
        build_model: What builds the model, if it is not one of the recipes.
        device: Where to put it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, of a newer format, or does not fit the model that its run describes.
    """
    path = Path(path)
    path = path / MODEL if path.is_dir() else path
    tensors, metadata = read_tensors(path)
    run = metadata.get("run")
    if not isinstance(run, dict):
        raise ValueError(f"{path} holds no model: its metadata has no run.")
    model = build_model() if build_model else build(find(recipes.MODELS, "model", run["model"]), "model", run["model"])
    try:
        fill(model, tensors)
    except ValueError as error:
        raise ValueError(f"{path} does not fit the model that its run describes: {error}.") from None
    return model.to(device).eval(), run


def save_state(path: Path, trainer: Trainer | Ensemble, seconds: float = 0.0) -> None:
    """Write what training needs to go on, and how long it took so far."""
    tensors, numbers = trainer.state()
    write_tensors(path, tensors, {"state": numbers, "seconds": seconds})


def load_state(path: Path, trainer: Trainer | Ensemble) -> float:
    """Let a trainer go on where the saved one was; the seconds it had trained.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or belongs to another model.
    """
    tensors, metadata = read_tensors(path)
    if "state" not in metadata:
        raise ValueError(f"{path} holds no training state.")
    try:
        trainer.load(tensors, metadata["state"])
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} does not fit the model that is being trained: {error}.") from None
    return float(metadata.get("seconds", 0.0))


def save_split(path: Path, split: Mapping[str, Tensor], fingerprint: str, choices: Sequence[Choice] = ()) -> None:
    """Write which rows are trained on and which are held out, and what else the data decided."""
    chosen = [[choice.key, choice.value, choice.reason] for choice in choices]
    write_tensors(path, split, {"fingerprint": fingerprint, "choices": chosen})


def load_split(path: Path) -> tuple[dict[str, Tensor], str]:
    """The split of a run, and the fingerprint of its data."""
    tensors, metadata = read_tensors(path)
    if "fingerprint" not in metadata:
        raise ValueError(f"{path} holds no split: it does not say of which data.")
    return tensors, metadata["fingerprint"]


def load_choices(path: Path) -> list[Choice]:
    """What the data of a run decided when it began."""
    return [Choice(*parts) for parts in read_tensors(path)[1].get("choices", [])]
