"""The schema of a table: of each column its kind, or why it is not modelled.

It is inferred from one pass over the table by the rules in kinds.py; what someone says of a column goes before them.
Nothing happens in silence: each column gets a line, with the reason, and what stands for its missing values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from ...columns import Aside, Column
from ..dataset import nearest
from . import kinds
from .overrides import Overrides, Said
from .profile import Profile
from .reading import Source


@dataclass(frozen=True)
class Schema:
    """The columns of a table.

    Attributes:
        columns: Those that are modelled.
        aside: Those that are not.
        rows: Of the table.
        notes: A line for each column, in the order of the table: its kind, and why.
    """

    columns: tuple[Column, ...]
    aside: tuple[Aside, ...]
    rows: int
    notes: tuple[str, ...]


def infer(source: Source, overrides: Overrides | None = None) -> Schema:
    r"""The schema of a table, from one pass over it.

    Args:
        source: The table.
        overrides: What is known better.

    Raises:
        ValueError: There are no rows; a number is infinite, or a column of numbers holds text (the cell is named);
            what was said of a column does not fit it, or nothing is left to model.

    Example:
        >>> from .reading import of_frame
        >>> print(*infer(of_frame({"x": [0.5, -1.25, None, 3.0], "by": ["a", "b", "b", "a"]})).notes, sep="\n")
        x: real (numbers from -1.25 to 3); 1 missing
        by: binary ('a' or 'b')
    """
    overrides = overrides or Overrides()
    names = source.schema.names
    if unknown := [f"{name!r}.{nearest(name, names)}" for name in overrides.columns if name not in names]:
        raise ValueError(f"{source.name} has no column {' Nor '.join(unknown)} Its columns: {_listed(names)}.")
    profiles = _look(source, overrides)
    rows = profiles[0].rows
    if rows == 0:
        raise ValueError(f"{source.name} has {len(names)} columns and no rows. Give at least 3 rows.")
    columns: list[Column] = []
    aside: list[Aside] = []
    notes: list[str] = []
    for at, profile in enumerate(profiles):
        found, reason = _describe(source.name, profile, overrides.of(profile.name))
        if isinstance(found, Column):
            columns.append(replace(found, missing=profile.own_tokens))
        else:
            aside.append(replace(found, at=at))
        notes.append(_line(profile, found, reason))
    if not columns:
        raise ValueError(
            f"{source.name} has no column to model: {'; '.join(notes)}. Say the kind of one in the schema."
        )
    return Schema(tuple(columns), tuple(aside), rows, tuple(notes))


def _look(source: Source, overrides: Overrides) -> list[Profile]:
    """What is seen of each column in one pass."""
    profiles = [
        Profile(field.name, field.type, source.typed, overrides.of(field.name).missing) for field in source.schema
    ]
    for batch in source.batches():
        for profile, array in zip(profiles, batch.columns, strict=True):
            profile.add(array)
    return profiles


def _describe(table: str, profile: Profile, said: Said) -> kinds.Found:
    """One column, or why it is none; and the reason."""
    if said.kind == "out":
        return kinds.put_aside(profile, "asked"), "as the schema says"
    if said.kind in ("category", "ordinal", "binary"):
        return _levels_as_said(table, profile, said)
    if profile.numbers and profile.infinite is not None:
        raise ValueError(
            f"{table}, row {profile.infinite + 1}, column {profile.name!r}: the number is infinite, and no likelihood "
            "of it is a number. Leave the cell empty if the value is not known, or leave out the row."
        )
    if said.kind is not None:
        return _numbers_as_said(table, profile, said)
    if profile.numbers and profile.strays:
        if _mistaken(profile):
            raise _no_number(table, profile)
        profile = replace(profile, numbers=False)
    if said.spikes and (profile.dates or not profile.numbers or pa.types.is_boolean(profile.type)):
        raise ValueError(
            f"{table}, column {profile.name!r}: spikes are of numbers, and it holds others. Leave them out."
        )
    return kinds.kind_of(profile, said.spikes)


def _mistaken(profile: Profile) -> bool:
    """Whether the cells of a column that are no numbers are mistakes, rather than all its cells levels."""
    few = profile.distinct <= kinds.FEW_LEVELS and profile.seen >= kinds.ROWS_PER_LEVEL * profile.distinct
    return 5 * profile.strays <= profile.seen and not few


def _no_number(table: str, profile: Profile) -> ValueError:
    assert profile.stray is not None
    row, text = profile.stray
    return ValueError(
        f"{table}, row {row + 1}, column {profile.name!r}: {text!r} is no number, as "
        f"{profile.seen - profile.strays:,} of {profile.seen:,} values are. Mend it; or say in the schema that it "
        f'stands for a missing value, "{profile.name}" = {{ missing = ["{text}"] }}, or that the column has levels, '
        f'"{profile.name}" = "category".'
    )


def _levels_as_said(table: str, profile: Profile, said: Said) -> kinds.Found:
    profile = replace(profile, numbers=profile.numbers and not profile.strays)
    where, found = f"{table}, column {profile.name!r}", profile.levels()
    if profile.counts is None or not found:
        raise ValueError(f"{where}: {profile.distinct:,} values or more are too many for levels. Say another kind.")
    if said.kind == "category" and not said.levels:
        column, reason = kinds.category(profile)
        return column, f"as the schema says: {reason}"
    levels = said.levels or tuple(found)
    if said.kind == "ordinal" and not said.levels and not profile.numbers and not profile.order:
        raise ValueError(f"{where}: texts have no order by themselves. Say it: levels = {list(levels)}.")
    if said.kind == "binary" and len(levels) != 2:
        raise ValueError(f"{where}: a binary column has two levels, and this has {len(levels)}: {_listed(levels)}.")
    if lacking := [level for level in found if level not in levels]:
        raise ValueError(f"{where}: levels leaves out {_listed(lacking)}, which the column holds. Add them.")
    assert said.kind is not None and said.kind != "out"
    return kinds.of_levels(profile, said.kind, levels), f"as the schema says: {len(levels)} levels"


def _numbers_as_said(table: str, profile: Profile, said: Said) -> kinds.Found:
    where, extent = f"{table}, column {profile.name!r}", profile.extent
    if profile.dates and said.kind == "real":
        return kinds.date(profile)
    if profile.strays or not profile.numbers or pa.types.is_boolean(profile.type):
        if profile.stray is None:
            raise ValueError(f"{where}: {profile.type} is no number, so the column cannot be {said.kind}.")
        raise _no_number(table, profile)
    if profile.seen == 0:
        raise ValueError(f'{where}: it holds nothing, so the column cannot be {said.kind}. Leave it out: kind = "out".')
    if said.kind == "count" and (extent.decimals != 0 or extent.low < 0):
        raise ValueError(f"{where}: a count is a whole number from 0, and values run from {extent.low:g}. Say real.")
    assert said.kind is not None and said.kind != "out"
    spikes = said.spikes
    if spikes is None:
        spikes = () if said.kind == "cyclic" else kinds.spikes_of(profile)
    if said.kind == "positive" and kinds.least_of(profile, spikes) <= 0:
        raise ValueError(f"{where}: the least value is {extent.low:g}, and positive ones are above 0. Say real.")
    column = replace(kinds.numeric(profile, said.kind, spikes), period=said.period)
    return column, f"as the schema says{kinds.said_of(spikes, profile)}"


def _line(profile: Profile, found: Column | Aside, reason: str) -> str:
    """What a column is, why, and what it lacks: one line."""
    what = found.kind if isinstance(found, Column) else _ASIDE[found.why]
    line = f"{profile.name}: {what} ({reason})"
    if not profile.missing or (isinstance(found, Aside) and found.why == "empty"):
        return line
    tokens = [repr(token) if token else "empty" for token, _ in profile.tokens.most_common(4)]
    return f"{line}; {profile.missing:,} missing{', as ' * bool(tokens)}{', '.join(tokens)}"


_ASIDE = {
    "constant": "constant, dropped and put back on output",
    "identifier": "identifier, left out",
    "text": "free text, left out",
    "empty": "empty, left out",
    "type": "left out",
    "asked": "left out",
}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + f", ... ({len(names)} in all)" * (len(names) > 20)
