"""How a figure was asked for, and what has been measured for it so far."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OURS = "lowerbound"
Found = dict[str, Any]
Overrides = Mapping[str, Mapping[str, Any]]


@dataclass
class Records:
    """Measurements in a file, a JSON object a line, so that a run that was stopped goes on where it was.

    Args:
        path: The file.
        found: What was measured: a key, and numbers.
        failed: The keys of what broke off with an error.
    """

    path: Path
    found: list[Found] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, keep: Callable[[Found], bool]) -> "Records":
        """Those in a file which are to be kept; the others are dropped from it."""
        lines = path.read_text().splitlines() if path.is_file() else []
        records = cls(path, [record for record in map(json.loads, lines) if keep(record)])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records.found))
        return records

    def measured(self, measure: Callable[[], Found], **key: Any) -> Found | None:
        """What a measurement found, and the seconds it took; as recorded, if it was done before. None if it failed."""
        key = json.loads(json.dumps(key))
        named = " ".join(str(value) for value in key.values() if isinstance(value, str | int))
        for record in self.found:
            if record["key"] == key:
                return record
        start = time.perf_counter()
        try:
            values = measure()
        except Exception:
            self.failed.append(named)
            print(f"{named}: broken off by an error\n{traceback.format_exc()}", file=sys.stderr)
            return None
        record = {"key": key, "seconds": time.perf_counter() - start} | values
        self.found.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        said = ", ".join(f"{name} {value:.4g}" for name, value in record.items() if isinstance(value, int | float))
        print(f"{named}: {said}", file=sys.stderr, flush=True)
        return record


@dataclass(frozen=True)
class Asked:
    """How a figure was asked for.

    Args:
        records: What has been measured.
        seeds: How often to repeat everything that depends on chance.
        quick: Whether to be done in a minute, with numbers that mean nothing.
    """

    records: Records
    seeds: int = 1
    quick: bool = False

    def overrides(self, own: Overrides) -> dict[str, dict[str, Any]]:
        """The settings of our model; if to be quick, with few steps."""
        few = {"steps": 40, "valid_every": 20} if self.quick else {}
        return {kind: dict(table) for kind, table in own.items()} | {"train": {**own.get("train", {}), **few}}


def folder(name: str) -> Path:
    """A folder of data.

    Raises:
        FileNotFoundError: It is not there.
    """
    place = Path(os.environ.get("LOWERBOUND_DATA", "")) / name
    if "LOWERBOUND_DATA" not in os.environ or not place.exists():
        raise FileNotFoundError(
            f"the data {name!r} are not there: set LOWERBOUND_DATA to a folder that holds {name}, which "
            "benchmarks/README.md describes."
        )
    return place
