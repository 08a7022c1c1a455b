"""Descriptions of columns: through JSON and back, and what describes none."""

import json

import pytest

from lowerbound.columns import Aside, Column

COLUMNS = [
    Column("x", "real"),
    Column("n", "count", (), "int64", 0, 0.0, 12.0),
    Column("c", "category", ("a", "b", "other"), "string", pooled=7),
    Column("t", "real", (), "timestamp[us]", None, 0.0, 3.5, origin=18000.0),
    Column("d", "real", (), "string", format="%d/%m/%Y", low=1.0, high=2.0),
    Column("a", "cyclic", period=360.0, missing=("-999",)),
    Column("g", "positive", low=0.0, high=99_999.0, spikes=(0.0, 99_999.0)),
    Column("m", "binary", ("F", "M"), missing=()),
]
ASIDES = [
    Aside("id", 0, "identifier", "int64"),
    Aside("k", 3, "constant", "string", ""),
    Aside("e", 1, "empty"),
]


@pytest.mark.parametrize("column", [*COLUMNS, *ASIDES], ids=lambda column: column.name)
def test_a_description_goes_through_json_and_back(column):
    assert type(column).of(json.loads(json.dumps(column.table()))) == column


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_what_is_not_known_is_not_said(column):
    assert None not in column.table().values()
    assert ("levels" in column.table()) == column.is_level


def test_dates_are_known_by_their_type_or_their_form():
    assert [column.is_date for column in COLUMNS] == [False, False, False, True, True, False, False, False]
    assert Column("d", "real", format="").is_date
    assert not Column("d", "category", ("2020-01-01", "2020-01-02"), "date32[day]").is_date


def test_what_describes_no_column():
    with pytest.raises(ValueError, match=r"describes no column: 'knd' is not known; 'kind' is missing"):
        Column.of({"name": "x", "knd": "real"})
    with pytest.raises(ValueError, match=r"describes no column: 'at' is missing; 'why' is missing"):
        Aside.of({"name": "x"})
