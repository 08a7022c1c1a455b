"""The kind of each column: inferred, said, or refused."""

import datetime
import decimal
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lowerbound.columns import Aside, Column
from lowerbound.data import table
from lowerbound.data.tables import overrides
from lowerbound.data.tables.reading import of_frame, open_table
from lowerbound.data.tables.schema import infer

N = 300
RNG = np.random.default_rng(0)
WORDS = ["red", "green", "blue", "grey"]


def moments(step: datetime.timedelta) -> list[datetime.datetime]:
    return [datetime.datetime(2020, 2, 27, 1, 2, 3) + i * step for i in RNG.permutation(N).tolist()]


# Values, the kind or the reason for none, a piece of the line that says so.
INFERRED = {
    "reals": (RNG.normal(size=N), "real", "numbers from -"),
    "narrow": (RNG.normal(100, 1, N), "real", "numbers from 9"),
    "positive": (RNG.lognormal(size=N), "positive", "numbers above 0"),
    "zeros": (RNG.lognormal(size=N) * (RNG.random(N) < 0.5), "positive", "held apart: 0 in "),
    "zeros either way": (RNG.normal(size=N) * (RNG.random(N) < 0.5), "real", "held apart: 0 in "),
    "register full": (
        np.r_[RNG.normal(50, 9, N - 40), np.full(40, 999.0)],
        "positive",
        "held apart: 999 in 13.3% of the",
    ),
    "heaped counts": (np.r_[RNG.poisson(60, N - 90), np.full(90, 40)], "count", "held apart: 40 in 30"),
    "counts": (RNG.poisson(200, N), "count", "whole numbers from 1"),
    "counts as floats": (RNG.poisson(200, N).astype(float), "count", "whole numbers from"),
    "large whole": (RNG.integers(10_000, 2_000_000, N), "positive", "whole numbers above 0"),
    "negative whole": (RNG.integers(-10_000, 2_000, N), "real", "whole numbers from -"),
    "few whole": (RNG.integers(1, 6, N), "ordinal", "5 whole numbers from 1 to 5"),
    "two": (RNG.integers(0, 2, N) * 9, "binary", "'0' or '9'"),
    "truth": (RNG.random(N) < 0.3, "binary", "'false' or 'true'"),
    "sexes": (RNG.choice(["F", "M"], N), "binary", "'F' or 'M'"),
    "words": (RNG.choice(WORDS, N), "category", "4 levels"),
    "rare": ([*["a", "b", "c"] * 99, "x", "y", "z"], "category", "3 levels; 3 rare ones, 3 rows, pooled as 'other'"),
    "rare, one": ([*["a", "b", "c"] * 99, "c", "b", "z"], "category", "4 levels)"),
    "rare, other": ([*["a", "other", "c"] * 99, "x", "y", "z"], "category", "pooled as 'other (rare)'"),
    "codes": ([f"{i % 7:03d}" for i in range(N)], "category", "7 levels"),
    "postcodes": ([f"{i % 7:05d}" if i % 2 else str(10_000 + i % 7) for i in range(N)], "category", "levels"),
    "days": ([m.date() for m in moments(datetime.timedelta(3))], "real", "dates from 2020-02-27 to 20"),
    "moments": (moments(datetime.timedelta(0, 1000)), "real", "dates from 2020-02-27 to 20"),
    "days in text": ([f"{m:%Y-%m-%d}" for m in moments(datetime.timedelta(3))], "real", "dates from 2020-02-27"),
    "days in German": ([f"{m:%d.%m.%Y}" for m in moments(datetime.timedelta(3))], "real", "dates from 2020-02-27"),
    "days in American": ([f"{m:%m/%d/%Y}" for m in moments(datetime.timedelta(3))], "real", "dates from 2020-02-27"),
    "moments with zone": ([f"{m:%Y-%m-%dT%H:%M:%S}+02:00" for m in moments(datetime.timedelta(1))], "real", "in UTC"),
    "moments in Zulu": (
        [f"{m:%Y-%m-%dT%H:%M:%S}Z" for m in moments(datetime.timedelta(1))],
        "real",
        "the day and week",
    ),
    "days unclear": ([f"{d:02d}/{1 + d % 3:02d}/2021" for d in range(1, 13)] * 25, "real", "other way round would fit"),
    "money": ([decimal.Decimal(int(v)) / 100 for v in RNG.integers(-9999, 9999, N)], "real", "numbers from -"),
    "single": (RNG.normal(size=N).round(2).astype("float32"), "real", "numbers from -"),
    "grades": (pa.array(["low", "mid", "high"] * 100).dictionary_encode(), "category", "3 levels"),
    "running": (np.arange(N) + 17, "identifier", "left out (it numbers the rows, from 17 to 316)"),
    "user_id": (RNG.permutation(N) * 7, "identifier", "the name says that it is one"),
    "hashes": ([f"{i * 2654435761 % 2**32:08x}z" for i in range(N)], "identifier", "each row has its own"),
    "prose": ([f"{WORDS[i % 4]} and then {i}" for i in range(N)], "text", "free text, left out (300 different texts"),
    "constant": (np.full(N, 2.5), "constant", "dropped and put back on output (always '2.5')"),
    "constant with holes": (["x", None] * (N // 2), "constant", "always 'x' where it is known); 150 missing"),
    "nothing": (pa.nulls(N), "empty", "it holds nothing"),
    "lists": ([[1, 2]] * N, "type", "there is no model of list"),
}


def described(values: object, name: str = "v", **said: object) -> tuple[Column | Aside, str]:
    """The column of these values, in a table with one that can be modelled."""
    source = of_frame({name: values, "beside": RNG.normal(size=len(values))})
    found = infer(source, overrides.parse({"columns": {name: said}} if said else {}))
    return next(c for c in (*found.columns, *found.aside) if c.name == name), found.notes[0]


@pytest.mark.parametrize("case", INFERRED)
def test_the_kind_and_the_reason(case):
    values, kind, line = INFERRED[case]
    column, note = described(values, case)
    assert (column.kind if isinstance(column, Column) else column.why) == kind
    assert note.startswith(f"{case}: ")
    assert line in note


def test_few_whole_numbers_are_levels_only_where_each_is_seen_often():
    assert described([3, 1, 2, 5, 4] * 2)[0].kind == "count"
    assert described([3, 1, 2, 5, 4] * 5)[0].kind == "ordinal"


def test_the_order_of_an_arrow_type_is_kept():
    grades = pa.array(["mid", "low", "high", None] * 20).cast(pa.dictionary(pa.int8(), pa.string()))
    indices = pa.array([{"low": 0, "mid": 1, "high": 2}.get(v) for v in grades.to_pylist()], pa.int8())
    ordered = pa.DictionaryArray.from_arrays(indices, pa.array(["low", "mid", "high", "top"]), ordered=True)
    column, note = described(ordered)
    assert column.kind == "ordinal"
    assert column.levels == ("low", "mid", "high")  # what was never seen cannot be learnt
    assert "put in order by the type" in note


@pytest.mark.parametrize("decimals", range(7))
def test_decimals_are_those_of_the_values(decimals):
    values = RNG.normal(0, 100, N).round(decimals)
    assert described(values)[0].decimals == decimals
    assert described(values / 3)[0].decimals is None


def test_large_numbers_close_together_get_an_origin():
    seconds = 1_700_000_000 + RNG.integers(0, 100_000, N)
    column, _ = described(seconds)
    assert column.origin == seconds.min()
    assert (column.low, column.high) == (0.0, seconds.max() - seconds.min())
    assert described(RNG.integers(0, 100_000, N) - 50_000)[0].origin is None
    assert described([m.date() for m in moments(datetime.timedelta(1))])[0].origin is None
    assert described(moments(datetime.timedelta(0, 60)))[0].origin == (datetime.date(2020, 2, 27).toordinal() - 719_163)


def test_what_is_said_of_a_column_goes_first():
    values = RNG.integers(1, 6, N)
    assert described(values, kind="count")[0].kind == "count"
    assert described(values, kind="real")[0].low == 1.0
    assert described(values, kind="category")[0].levels == ("1", "2", "3", "4", "5")
    assert described(values, kind="ordinal", levels=["5", "4", "3", "2", "1"])[0].levels == ("5", "4", "3", "2", "1")
    assert described(values, kind="out")[0].why == "asked"
    column, note = described(values * 50.0, kind="cyclic", period=360)
    assert (column.kind, column.period) == ("cyclic", 360.0)
    assert "cyclic (as the schema says)" in note
    column, note = described(["-9", "1.5", "?", "2.5", "-3"], missing=["-9", "?"])
    assert column.kind == "real"
    assert column.missing == ("-9", "?")
    assert "2 missing, as '-9', '?'" in note
    column, _ = described(["None", "some", "all"] * 40, missing=[])
    assert column.levels == ("None", "all", "some")


def test_spikes_are_what_recurs_among_many():
    amounts = np.r_[np.zeros(800), np.full(30, 99_999), 10_000 + RNG.permutation(40_000)[:170]]
    column, note = described(amounts.astype(int))
    # the second is a twentieth of the rows without the first
    assert (column.kind, column.spikes) == ("positive", (0.0, 99_999.0))
    assert "held apart: 0 in 80.0%, 99999 in 3.0% of the rows" in note
    # nothing sticks out of what is heaped everywhere, or is few
    assert described(RNG.integers(10, 30, 1000) / 2)[0].spikes == ()
    assert described(np.r_[np.zeros(900), RNG.integers(1, 4, 100) / 2])[0].spikes == ()
    # a distribution of counts knows zeros already
    assert described(np.r_[np.zeros(800, int), RNG.poisson(200, 200)])[0].spikes == ()


def test_spikes_are_found_among_more_values_than_are_counted():
    values = np.r_[RNG.normal(size=30_000), np.full(5000, -1.5)][RNG.permutation(35_000)]
    whole, parts = of_frame({"v": values}), of_frame({"v": values})
    small = replace(parts, batches=lambda: iter(pa.table({"v": values}).to_batches(max_chunksize=900)))
    for source in (whole, small):
        found = infer(source)
        assert found.columns[0].spikes == (-1.5,)
        assert "held apart: -1.5 in 14.3% of the rows" in found.notes[0]


def test_spikes_are_said_or_denied():
    values = np.r_[RNG.normal(5, 1, 200), np.zeros(100)]
    assert described(values)[0].spikes == (0.0,)
    assert described(values, spikes=[])[0].spikes == ()
    assert described(values, spikes=[5, 0])[0].spikes == (0.0, 5.0)
    assert described(np.abs(values), kind="positive")[0].spikes == (0.0,)
    assert described(RNG.integers(1, 6, N), spikes=[3])[0].kind == "count"
    column, _ = described(1_700_000_000 + np.r_[RNG.integers(0, 90_000, 200), np.full(90, 500)])
    assert column.origin is not None and column.origin + column.spikes[0] == 1_700_000_500


def test_dates_know_their_cycles():
    of = lambda step: described(moments(step))[0].cycles
    assert of(datetime.timedelta(3)) == (1.0, 7.0, 365.2425)
    assert of(datetime.timedelta(0, 60)) == (1.0, 7.0)
    assert described([m.date() for m in moments(datetime.timedelta(1))])[0].cycles == (7.0,)


SAID = {
    "spikes of levels": ([1.0, 2.0, 5.0], dict(kind="ordinal", spikes=[1]), r"spikes are of numbers .* to be ordinal"),
    "spikes of text": (["a", "b", "c"] * 9, dict(spikes=[1]), r"spikes are of numbers, and it holds others"),
    "no spikes": ([1.0, 2.0, 5.0], dict(spikes=["1"]), r"spikes = \['1'\] should be a list of numbers"),
    "spikes and negative": ([-1.0, 0, 2, 3], dict(kind="positive", spikes=[0]), r"the least value is -1, and positive"),
    "no number": (["a", "b", "c"] * 9, dict(kind="count"), r"row 1, column 'v': 'a' is no number"),
    "negative": ([-1.0, 2.0, 3.0], dict(kind="count"), r"a count is a whole number from 0, and values run from -1"),
    "zero": ([0.0, 2.0, 3.0], dict(kind="positive"), r"the least value is 0, and positive ones are above 0"),
    "three": (["a", "b", "c"] * 9, dict(kind="binary"), r"a binary column has two levels, and this has 3: a, b, c"),
    "no order": (["a", "b", "c"] * 9, dict(kind="ordinal"), r"texts have no order by themselves. Say it: levels = \["),
    "lacking": (["a", "b", "c"] * 9, dict(kind="category", levels=["a"]), r"levels leaves out b, c, which the column"),
    "no period": ([1.0, 2.0, 5.0], dict(kind="cyclic"), r"column 'v': a cyclic column has a period above 0"),
    "period": ([1.0, 2.0, 5.0], dict(kind="real", period=3.0), r"has a period above 0, and no other has"),
    "kind": ([1.0, 2.0, 5.0], dict(kind="reel"), r"kind='reel' is not known. Did you mean 'real'"),
    "key": ([1.0, 2.0, 5.0], dict(level=["a"]), r"'level' is not known. Did you mean 'levels'"),
    "levels": ([1.0, 2.0, 5.0], dict(kind="real", levels=["a"]), r"levels go with a kind that has them"),
    "texts": ([1.0, 2.0, 5.0], dict(missing=[9]), r"missing = \[9\] should be a list of texts"),
    "nothing": ([None] * 4, dict(kind="real"), r"it holds nothing, so .* cannot be real"),
    "truth": ([True, False] * 4, dict(kind="real"), r"bool is no number, so the column cannot be real"),
}


@pytest.mark.parametrize("case", SAID)
def test_what_cannot_be_said(case):
    values, said, match = SAID[case]
    with pytest.raises(ValueError, match=match):
        described(values, **said)


def test_a_schema_file(tmp_path):
    (tmp_path / "a.csv").write_text("n;z\n" + "1;0\n2;7\n3;-999\n" * 5)
    (tmp_path / "t.toml").write_text('missing = ["-999"]\n[columns]\nn = "count"\nz = { kind = "real" }\n')
    data = table(path=str(tmp_path / "a.csv"), schema=str(tmp_path / "t.toml"))
    assert [c.kind for c in data.columns] == ["count", "real"]
    assert int(data.x.isnan().sum()) == 5
    for text, match in {
        "columns = 3": r"columns = 3 should be a table",
        "colums = {}": r"t.toml cannot be used: 'colums' is not known. Did you mean 'columns'",
        'delimiter = ";;"': r"delimiter = ';;' should be one character",
        'header = "no"': r"header = 'no' should be true or false",
        "missing = 3": r"missing = 3 should be a list of texts",
        'columns = { n = "cuont" }\nmissin = []': r"'missin' is not known. Did you mean 'missing'\? column 'n': kind=",
        "columns = { n = 3 }": r"column 'n': 3 should be a kind",
        "columns = { m = 'count' }": r"a.csv has no column 'm'.* Its columns: n, z",
        "a = ": r"t.toml is not valid TOML",
    }.items():
        (tmp_path / "t.toml").write_text(text)
        with pytest.raises(ValueError, match=match):
            table(path=str(tmp_path / "a.csv"), schema=str(tmp_path / "t.toml"))
    with pytest.raises(ValueError, match=r"there is no such file. Write one, or leave schema out"):
        table(path=str(tmp_path / "a.csv"), schema=str(tmp_path / "u.toml"))


def test_numbers_in_a_file_of_text_are_the_same_however_written(tmp_path):
    (tmp_path / "a.csv").write_text("v,w\n" + "1.0,a\n1,b\n+2,a\n2e0,b\n" * 9)
    found = infer(open_table(tmp_path / "a.csv"))
    assert found.columns[0] == Column("v", "binary", ("1", "2"), "int64")
