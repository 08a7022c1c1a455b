"""How the suite was asked to run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How the suite was asked to run.

    Args:
        quick: Whether to be done in minutes.
        device: "cpu" or "cuda".
        threads: Threads of each contestant.
    """

    quick: bool = False
    device: str = "cpu"
    threads: int = 2

    @property
    def rounds(self) -> int:
        """Turns of each contestant that are counted."""
        return 3 if self.quick else 5
