"""What the doctor says: one finding for each thing that was looked at."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..recipes import annotation
from ..run import TABLES, Table, parse

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
        blind: Whether it could not be told for want of data, weights or means: nobody knows then that all is well.
    """

    name: str
    verdict: Verdict
    what: str
    number: float | None = None
    threshold: float | None = None
    remedy: tuple[str, ...] = ()
    effect: str = ""
    blind: bool = False

    def summary(self) -> dict[str, Any]:
        """JSON-able; null where a number is not finite."""
        numbers = {"number": self.number, "threshold": self.threshold}
        finite = {key: v if v is not None and math.isfinite(v) else None for key, v in numbers.items()}
        words = {"name": self.name, "verdict": self.verdict, "what": self.what}
        return words | finite | {"remedy": list(self.remedy), "effect": self.effect}


def status(findings: Sequence[Finding]) -> int:
    """The exit status: 1 if anything is wrong; 2 if nobody can know, as data or weights were not there; else 0."""
    verdicts = {finding.verdict for finding in findings}
    if "finding" in verdicts:
        return STATUS["finding"]
    told = "healthy" in verdicts and not any(finding.blind for finding in findings)
    return STATUS["healthy"] if told else STATUS["unknown"]


def find_out(name: str, look: Callable[[], Finding | None], run: Mapping[str, Table]) -> Finding | None:
    """What a check finds; "unknown", with the reason, where it fails, so that it costs nothing of what others find.

    Args:
        name: What is looked for.
        look: The check.
        run: The four tables, complete: a remedy that they hold already is none.
    """
    try:
        found = look()
    except ValueError as error:  # a kind of model or data that this check is not made for: it says why
        reason = str(error)
        return Finding(name, "unknown", reason[:1].upper() + reason[1:])
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "").rstrip(".")
        return Finding(name, "unknown", f"The check broke off: {type(error).__name__}: {reason}.", blind=True)
    if found and found.number is not None and math.isnan(found.number):
        return Finding(name, "unknown", "The number that decides is not a number (NaN).", blind=True)
    return found and _without_known(found, run)


def _without_known(finding: Finding, run: Mapping[str, Table]) -> Finding:
    """A finding without the overrides that would change nothing."""
    known = [each for each in finding.remedy if _is_so(each, run)]
    if not known:
        return finding
    remedy = tuple(each for each in finding.remedy if each not in known)
    instead = f"{', '.join(known)} is there already: what is left is more data, or another model."
    return replace(finding, remedy=remedy, effect=finding.effect if remedy else instead)


def _is_so(remedy: str, run: Mapping[str, Table]) -> bool:
    """Whether a remedy is an override to what a run has already."""
    target, _, text = remedy.partition("=")
    kind, _, key = target.partition(".")
    if kind not in TABLES or key not in run[kind]:
        return False
    return bool(run[kind][key] == parse(text, annotation(kind, run[kind].get("name", ""), key)))
