"""Cells to numbers and back: nothing is lost but what the schema says."""

import datetime
import decimal
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lowerbound.columns import Aside, Column
from lowerbound.data.tables.cells import MISSING, arrow_type
from lowerbound.data.tables.coding import Coding
from lowerbound.data.tables.reading import of_frame, open_table
from lowerbound.data.tables.schema import infer
from lowerbound.data.tables.writing import write_table

DAY = st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1))
# In days, a double tells microseconds apart for 44 years on either side of its origin.
MOMENT = st.datetimes(datetime.datetime(1930, 1, 1), datetime.datetime(2010, 1, 1))
WORD = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=5)
SOME = st.sampled_from(["ab", "a b", "é", "x,y", 'q"q', "7a"])
VALUES = {
    "int8": st.integers(-128, 127),
    "int64": st.integers(-(2**53), 2**53),
    "uint16": st.integers(0, 65_535),
    "double": st.integers(-(10**9), 10**9).map(lambda v: v / 100),
    "float": st.integers(-9999, 9999).map(lambda v: float(np.float32(v / 100))),
    "decimal128(12, 3)": st.integers(-(10**9), 10**9).map(lambda v: decimal.Decimal(v) / 1000),
    "bool": st.booleans(),
    "string": SOME | WORD,
    "large_string": SOME,
    "dictionary<values=string, indices=int8, ordered=0>": SOME,
    "dictionary<values=int64, indices=int32, ordered=1>": st.integers(-3, 3),
    "date32[day]": DAY,
    "date64[ms]": DAY,
    "timestamp[s]": MOMENT.map(lambda t: t.replace(microsecond=0)),
    "timestamp[ms]": MOMENT.map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)),
    "timestamp[us]": MOMENT,
    "timestamp[ns]": MOMENT,
    "timestamp[us, tz=Europe/Berlin]": MOMENT.map(lambda t: t.replace(tzinfo=datetime.UTC)),
}


@st.composite
def tables(draw: st.DrawFn, kinds: tuple[str, ...] = tuple(VALUES)) -> pa.Table:
    """Tables of up to 5 columns of any type, with holes."""
    rows = draw(st.integers(3, 40))
    arrays = {"beside": pa.array(np.arange(rows) / 8 - 1)}
    for i, kind in enumerate(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=5))):
        pool = draw(st.lists(VALUES[kind], min_size=1, max_size=8))
        cells = draw(st.lists(st.none() | st.sampled_from(pool) | VALUES[kind], min_size=rows, max_size=rows))
        arrays[f"{kind} {i}"] = pa.array(cells, arrow_type(kind))
    return pa.table(arrays)


def coded(table: pa.Table) -> Coding:
    try:
        found = infer(of_frame(table))
    except ValueError as refused:
        assume("is no number, as" not in str(refused))  # a word among numbers is taken for a mistake
        raise
    return Coding(found.columns, found.aside)


def plain(cells: list) -> list:
    """Text as it is read: without spaces around it, missing where it says so."""
    stripped = [cell.strip() if isinstance(cell, str) else cell for cell in cells]
    return [None if isinstance(cell, str) and cell in MISSING else cell for cell in stripped]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables())
def test_a_table_comes_back_but_for_what_the_schema_says(table):
    coding = coded(table)
    back = coding.decode(coding.encode(of_frame(table)).x)
    assert back.schema.remove_metadata() == table.schema
    for column in coding.columns:
        was, now = plain(table[column.name].to_pylist()), back[column.name].to_pylist()
        if column.pooled:
            known = {cell for cell in was if str(cell) in column.levels[:-1]}
            other = column.levels[-1] if "string" in column.source else None
            was = [cell if cell is None or cell in known else other for cell in was]
        assert now == was, column
    for aside in coding.aside:
        cells = set(plain(table[aside.name].to_pylist())) - {None}
        assert set(back[aside.name].to_pylist()) == (cells if aside.why == "constant" else {None})


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables(("int64", "double", "bool", "string", "date32[day]", "timestamp[s]")))
def test_a_table_written_as_text_is_read_and_written_the_same(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("text")
    write_table(folder / "a.csv", table)
    source = open_table(folder / "a.csv")
    found = infer(source)
    coding = Coding(found.columns, found.aside)
    once = coding.decode(coding.encode(source).x)
    write_table(folder / "b.csv", once)
    # a column that comes back as nothing need not be there: the others are what they were
    kept = [column.name for column in coding.columns if not column.pooled]
    again = pa.Table.from_batches(open_table(folder / "b.csv").batches()).select(kept)
    before = pa.Table.from_batches(source.batches()).select(kept)
    for name in kept:
        for was, now in zip(plain(before[name].to_pylist()), plain(again[name].to_pylist()), strict=True):
            assert was == now or float(was) == float(now)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables(), st.integers(0, 2**32 - 1))
def test_whatever_is_decoded_could_have_been_read(table, seed):
    """Any numbers at all become cells of the types, levels and ranges of the table."""
    coding = coded(table)
    x = torch.randn(50, len(coding.columns), generator=torch.Generator().manual_seed(seed)) * 1e4
    back = coding.decode(x)
    assert back.schema.remove_metadata() == table.schema
    encoded = coding.encode(of_frame(back))
    for i, column in enumerate(coding.columns):
        values = encoded.x[:, i][~encoded.x[:, i].isnan()].double()
        if column.is_level:
            assert ((values >= 0) & (values < len(column.levels))).all()
            assert set(encoded.unseen.get(column.name, ())) <= {column.levels[-1]}
        else:
            assert len(values) == 50
            slack = 1e-6 * max(abs(column.low), abs(column.high), 1e-9)
            assert ((values >= column.low - slack) & (values <= column.high + slack)).all()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables())
def test_a_coding_goes_through_json_and_back(table):
    coding = coded(table)
    assert Coding.of(json.loads(json.dumps(coding.table()))) == coding
    assert coding.names == tuple(table.column_names)


@pytest.mark.parametrize("kind", VALUES)
def test_types_go_through_text_and_back(kind):
    assert str(arrow_type(kind)) == kind


def test_real_numbers_keep_seven_digits():
    values = np.random.default_rng(0).normal(size=500) * 1e5
    coding = coded(pa.table({"v": values}))
    assert coding.dtype == torch.float32
    back = coding.decode(coding.encode(of_frame({"v": values})).x)["v"].to_numpy()
    np.testing.assert_allclose(back, values, rtol=6e-8)


def test_double_precision_is_for_known_digits():
    whole = np.random.default_rng(0).integers(-(2**40), 2**40, 500)
    assert coded(pa.table({"v": whole})).dtype == torch.float64
    assert coded(pa.table({"v": whole // 2**20})).dtype == torch.float32
    assert coded(pa.table({"v": whole // 2**20 + 2**40})).dtype == torch.float32  # counted from an origin
    assert coded(pa.table({"v": (whole // 2**20) / 100})).dtype == torch.float32


CODING = Coding(
    (
        Column("age", "count", (), "int64", 0, 0.0, 90.0),
        Column("sex", "binary", ("F", "M"), "string"),
        Column("town", "category", ("Bonn", "Ulm", "other"), "string", pooled=9),
        Column("stars", "ordinal", ("1", "2", "5"), "int64"),
        Column("since", "real", (), "date32[day]", None, 0.0, 20_000.0),
    )
)
ROW = {"age": [30], "sex": ["F"], "town": ["Ulm"], "stars": [2], "since": [datetime.date(1970, 1, 3)]}


def test_levels_that_were_not_there_are_counted_and_not_fatal():
    rows = {
        "since": [datetime.date(1970, 1, 3)] * 4,
        "stars": [2, 3, 9, None],
        "town": ["Ulm", "Rome", "Rome", None],
        "sex": ["F", "X", None, "M"],
        "age": [1, 2, 3, 4],
    }
    encoded = CODING.encode(of_frame(rows))
    expected = [[1, 0, 1, 1, 2], [2, torch.nan, 2, 1, 2], [3, torch.nan, 2, 2, 2], [4, 1, torch.nan, torch.nan, 2]]
    assert torch.equal(encoded.x.nan_to_num(-1), torch.tensor(expected).nan_to_num(-1))
    assert encoded.unseen == {"sex": Counter(X=1), "town": Counter(Rome=2), "stars": Counter({"3": 1, "9": 1})}
    assert encoded.missing == {"age": 0, "sex": 2, "town": 1, "stars": 1, "since": 0}
    assert "town: 2 values that are none of its levels, taken as 'other': 'Rome'" in encoded.notes
    assert any(note.startswith("stars: 2 values") and "the nearest level" in note for note in encoded.notes)


CHANGED = {
    "text among numbers": (dict(age=["old"]), r"table, row 1, column 'age': 'old' is no finite number"),
    "infinite": (dict(age=[np.inf]), r"column 'age': 'inf' is no finite number"),
    "no date": (dict(since=["soon"]), r"column 'since': 'soon' is no date"),
    "number for a date": (dict(since=[3]), r"column 'since': '3' is no date"),
    "date for a number": (dict(age=[datetime.date(1970, 1, 3)]), r"column 'age': '1970-01-03' is no finite number"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_cells_that_are_not_what_was_learnt_are_named(case):
    changed, match = CHANGED[case]
    with pytest.raises(ValueError, match=match):
        CODING.encode(of_frame({**ROW, **changed}))


def test_the_same_values_in_other_types():
    same = dict(age=["30"], sex=pa.array(["F"]).dictionary_encode(), stars=[2.0], since=["1970-01-03"])
    assert CODING.encode(of_frame({**ROW, **same})).x.tolist() == CODING.encode(of_frame(ROW)).x.tolist()


def test_columns_that_are_not_there():
    rows = {key: ROW[key] for key in ("age", "sex", "town", "stars")} | {"Since": ROW["since"]}
    with pytest.raises(ValueError, match=r"lacks 1 of the 5 columns that were learnt: 'since'. Did you mean 'Since'\?"):
        CODING.encode(of_frame(rows))
    encoded = CODING.encode(of_frame(rows), absent=True)
    assert encoded.missing["since"] == 1
    assert encoded.notes == ("table: no column 'since': missing throughout", "table: ignored, as not learnt: Since")
    with pytest.raises(ValueError, match=r"lacks 5 of the 5 columns"):
        CODING.encode(of_frame({"a": [1]}), absent=True)


def test_an_angle_comes_round():
    coding = Coding((Column("a", "cyclic", (), "double", 0, 0.0, 350.0, period=360.0),))
    assert coding.decode(torch.tensor([[370.0], [-10.0], [torch.nan]]))["a"].to_pylist() == [10.0, 350.0, None]


def test_a_spike_comes_back_as_it_was():
    values = np.r_[np.full(60, 0.123456789), np.random.default_rng(0).normal(size=100)]
    coding = coded(pa.table({"v": values}))
    assert coding.columns[0].spikes == (0.123456789,)
    back = coding.decode(coding.encode(of_frame({"v": values})).x)["v"].to_pylist()
    assert back[:60] == [0.123456789] * 60
    assert Coding.of(json.loads(json.dumps(coding.table()))) == coding


@pytest.mark.parametrize("suffix", ["Z", "+02:00", "-0530"])
@pytest.mark.parametrize("typed", [False, True])
def test_moments_with_a_zone_are_moments_in_utc(tmp_path, suffix, typed):
    first = datetime.datetime(2024, 5, 1, 10, 0, 7)
    texts = [f"{first + i * datetime.timedelta(0, 4567):%Y-%m-%dT%H:%M:%S}{suffix}" for i in range(50)]
    if typed:
        source = of_frame({"t": texts})
    else:
        (tmp_path / "a.csv").write_text("t,v\n" + "".join(f"{text},{i / 7}\n" for i, text in enumerate(texts)))
        source = open_table(tmp_path / "a.csv")
    found = infer(source)
    coding = Coding(found.columns, found.aside)
    decoded = coding.decode(coding.encode(source).x)
    write_table(tmp_path / "b.csv", decoded)
    again = open_table(tmp_path / "b.csv")
    written = [cell for batch in again.batches() for cell in batch.column("t").to_pylist()]
    assert [datetime.datetime.fromisoformat(t) for t in written] == [datetime.datetime.fromisoformat(t) for t in texts]
    assert all(text.endswith("Z") for text in written)
    torch.testing.assert_close(coding.encode(again).x, coding.encode(source).x)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables(), st.integers(0, 2**32 - 1))
def test_what_is_known_stays_as_it_is_whatever_holes_are_filled_with(table, seed):
    coding = coded(table)
    x = torch.randn(len(table), len(coding.columns), generator=torch.Generator().manual_seed(seed)) * 1e4
    filled = coding.fill(table, x)
    assert filled.schema.remove_metadata() == table.schema
    found = coding.decode(x, within=False)
    for name in table.column_names:
        cells = [plain(of[name].to_pylist()) for of in (table, filled, found)]
        for was, now, new in zip(*cells, strict=True):
            missing = was is None or (isinstance(was, str) and was.strip() in MISSING)
            assert now == (was if not missing or new is None else new)


def test_cells_of_a_file_of_text_stay_to_the_letter(tmp_path):
    (tmp_path / "a.csv").write_text(
        "id,v,n,on,by\nr1,1.5,3,2020-01-05,a\nr2,2.5,40,2020-02-05,b\nr3,-3.5,50,2021-02-05,a\n"
    )
    coding = Coding(
        (
            Column("v", "real", decimals=1, low=-3.5, high=2.5),
            Column("n", "count", source="int64", decimals=0, low=3.0, high=50.0),
            Column("on", "real", source="date32[day]", low=18_000.0, high=18_500.0),
            Column("by", "category", ("a", "b"), source="string"),
        ),
        (Aside("id", 0, "identifier"), Aside("one", 3, "constant", "string", "x")),
    )
    text = "on,more,v,one,n,by,id\n2020-01-09,?,1.25000,x,3.0, lukewarm ,?\n?,7,1e3,?,NA,?,r2\n1890-01-01,,?,y,-0,b,\n"
    (tmp_path / "a.csv").write_text(text)
    table = open_table(tmp_path / "a.csv").whole()
    filled = coding.fill(table, torch.tensor([[0.0, 4.4, 18_262.0, 1.0]] * 3))
    write_table(tmp_path / "b.csv", filled)
    expected = text.replace("?,7,1e3,?,NA,?,r2", "2020-01-01,7,1e3,x,4,b,r2").replace(",?,y", ",0,y")
    assert (tmp_path / "b.csv").read_text() == expected
    # where there are types, they are those that were learnt, if they can hold all cells
    kinds = {field.name: str(field.type) for field in coding.typed(filled).schema}
    assert kinds == {
        "on": "date32[day]",
        "more": "string",
        "v": "double",
        "one": "string",
        "n": "string",
        "by": "string",
        "id": "string",
    }
    assert coding.typed(filled)["v"].to_pylist() == [1.25, 1000, 0]


def test_types_give_way_only_to_what_they_cannot_hold():
    coding = Coding(
        (Column("v", "real", decimals=1, low=0.0, high=9.0), Column("by", "category", ("a", "b"), source="string"))
    )
    levels = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), ["z", "a"], ordered=True)
    table = pa.table({"v": pa.array([1, None, 2]), "by": levels, "w": [1, None, 3]})
    filled = coding.fill(table, torch.tensor([[2.5, 1.0]] * 3))
    assert filled["v"].to_pylist() == [1, 2.5, 2] and filled["v"].type == pa.float64()
    assert filled["by"].type == levels.type and filled["by"].to_pylist() == ["a", "b", "z"]
    assert filled["by"].chunk(0).dictionary.to_pylist() == ["z", "a", "b"]
    assert filled["w"].to_pylist() == [1, None, 3]
    whole = coding.fill(table, torch.tensor([[7.0, 1.0]] * 3))
    assert whole["v"].to_pylist() == [1, 7, 2] and whole["v"].type == pa.int64()
    nothing = coding.fill(pa.table({"v": pa.nulls(2), "by": pa.nulls(2)}), torch.tensor([[7.0, 1.0]] * 2))
    assert nothing.to_pylist() == [{"v": 7.0, "by": "b"}] * 2


def test_the_order_of_levels_is_kept():
    kind = pa.dictionary(pa.int8(), pa.string(), ordered=True)
    coding = Coding((Column("size", "ordinal", ("S", "M", "L"), source=str(kind)),))
    found = coding.decode(torch.tensor([[2.0], [0.0], [torch.nan]]))["size"]
    assert found.type == kind and found.to_pylist() == ["L", "S", None]
    assert found.chunk(0).dictionary.to_pylist() == ["S", "M", "L"]
