"""The ways to run a step, on the MLP and on the convolutional VAE."""

from collections.abc import Iterator

from ..contestants import ours
from ..problem import Problem, bits
from ..race import race
from ..report import Table
from ..settings import Settings
from . import conv


def run(settings: Settings) -> Iterator[Table]:
    """A table for each network and batch size."""
    for batch in (64, 128, 1024):
        problem = Problem(bits(4096 if settings.quick else 20_480), batch, device=settings.device)
        contestants = [ours.trainer(problem, f"compile={mode}", compile=mode) for mode in ours.MODES]
        title = f"MLP VAE 784-512-512-20, batch {batch}"
        yield race(title, contestants, len(problem.x), settings.rounds)
    problem = Problem(bits(2048), 128, latent=conv.LATENT, device=settings.device)
    contestants = [
        ours.trainer(problem, f"compile={mode}", conv.model("28x28x1", problem.x).to(settings.device), compile=mode)
        for mode in ours.MODES
    ]
    yield race("conv VAE 28x28x1, batch 128", contestants, len(problem.x), settings.rounds)
