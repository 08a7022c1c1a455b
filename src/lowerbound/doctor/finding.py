"""What the doctor says: one finding for each thing that was looked at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["healthy", "finding", "unknown"]
STATUS: dict[Verdict, int] = {"healthy": 0, "finding": 1, "unknown": 2}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, in words and numbers.

    Attributes:
        name: What was looked for, as it is called in the field: "posterior collapse".
        verdict: Whether it is as it should be, is not, or could not be told.
        what: What was seen, in a sentence or two; for "unknown", why it could not be told.
        number: The number that decides, where one does.
        threshold: What the number is held against.
        remedy: What to change, each as it is typed: "objective.beta=1".
        effect: What that should do.
    """

    name: str
    verdict: Verdict
    what: str
    number: float | None = None
    threshold: float | None = None
    remedy: tuple[str, ...] = ()
    effect: str = ""

    def summary(self) -> dict[str, Any]:
        """JSON-able; null where a number is not finite."""
        numbers = {"number": self.number, "threshold": self.threshold}
        finite = {key: v if v is not None and math.isfinite(v) else None for key, v in numbers.items()}
        words = {"name": self.name, "verdict": self.verdict, "what": self.what}
        return words | finite | {"remedy": list(self.remedy), "effect": self.effect}


def status(findings: Sequence[Finding]) -> int:
    """The exit status: 1 if anything is wrong, else 2 if nothing could be told, else 0."""
    verdicts = {finding.verdict for finding in findings}
    if "finding" in verdicts:
        return STATUS["finding"]
    return STATUS["healthy"] if "healthy" in verdicts else STATUS["unknown"]
