"""Conditions as people write them: what they mean is checked on the cells that come out."""

import datetime
import math
import operator

import pytest
import torch

from lowerbound.columns import Aside, Column

pa = pytest.importorskip("pyarrow")

from lowerbound.data.tables.coding import Coding  # noqa: E402
from lowerbound.data.tables.where import read_where  # noqa: E402

COLUMNS = (
    Column("age", "count", source="int64", decimals=0, low=17.0, high=78.0),
    Column("sex", "binary", ("F", "M"), source="string"),
    Column("state", "category", ("Maine", "New York", "Texas", "a,b", "other"), source="string", pooled=3),
    Column("height", "real", source="double", decimals=1, low=139.7, high=203.0),
    Column("kids", "ordinal", ("0", "1", "2", "5"), source="int64"),
    Column("size", "ordinal", ("small", "middle", "large"), source="string"),
    Column("joined", "real", source="date32[day]", low=14610.0, high=19352.0),
    Column("left", "real", source="string", format="%d.%m.%Y", low=10000.0, high=19352.0),
    Column("year", "real", source="int64", decimals=0, low=0.0, high=60.0, origin=1950.0),
    Column("income", "positive", source="double", low=100.5, high=9000.25),
    Column("hour", "cyclic", source="double", period=24.0, decimals=2),
    Column("and", "real", source="double"),
    Column("gain", "positive", source="double", low=0.0, high=99999.0, spikes=(0.0, 99999.0)),
)
CODING = Coding(COLUMNS, (Aside("id", 0, "identifier", "int64"), Aside("unit", 3, "constant", "string", "cm")))
NAMES = [column.name for column in COLUMNS]
SIGNS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def fixed(text):
    """What a text fixes, by name."""
    found = read_where(text, CODING).conditions
    assert not found.limits
    return {name: value for name, value in zip(NAMES, found.fixed.tolist(), strict=True) if not math.isnan(value)}


def met(text, name, x):
    """Which numbers of one column meet the limits on it."""
    found = read_where(text, CODING).conditions
    assert found.places == [NAMES.index(name)] and found.fixed.isnan().all()
    return found.hold(x[:, None])[:, 0].tolist()


def cells(name, x, coding=CODING):
    """The cells that come out for numbers of one column."""
    rows = torch.full((len(x), len(COLUMNS)), math.nan, dtype=torch.float64)
    rows[:, NAMES.index(name)] = x
    return coding.decode(rows)[name].to_pylist()


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize(
    "name, asked, value",
    [
        ("age", "30", 30),
        ("age", "30.5", 30.5),
        ("height", "170.3", 170.3),
        ("height", "170", 170.0),
        ("height", "170.25", 170.25),
        ("year", "1984", 1984),
        ("joined", "2015-03-01", datetime.date(2015, 3, 1)),
        ("hour", "6.05", 6.05),
        ("income", "5000.5", 5000.5),
    ],
)
def test_numbers_and_dates_compare_as_the_cells_that_come_out(name, asked, value, sign):
    column = COLUMNS[NAMES.index(name)]
    if sign == "=" or (sign == "!=" and name == "income"):
        return  # one value is fixed, and of any numbers none is left out
    low, high = (0.0, 24.0) if column.period else (column.low, column.high)
    x = low + (high - low) * torch.rand(4000, dtype=torch.float64)
    x = x.round() if column.kind == "count" else x
    expected = [SIGNS[sign](cell, value) for cell in cells(name, x)]
    if (name, sign, asked) in (("age", "!=", "30.5"), ("height", "!=", "170.25")):
        assert (
            all(expected)
            and not read_where(f"{name}{sign}{asked}", CODING).conditions.limits.get(0, torch.ones(0)).isnan().any()
        )
        return
    assert met(f"{name}{sign}{asked}", name, x) == expected
    assert 0 < sum(expected) <= len(x)


def test_what_is_fixed_comes_out_exactly():
    text = "age=30, sex=F, state='a,b', height=170.3, kids=5, size=large, joined=2015-03-01, left=01.03.2015, year=1984"
    found = read_where(text + ", income=123.4567891, hour=6.05", CODING)
    row = found.coding.decode(found.conditions.fixed[None]).to_pylist()[0]
    assert row == {
        "id": None, "age": 30, "sex": "F", "state": "a,b", "unit": "cm", "height": 170.3, "kids": 5, "size": "large",
        "joined": datetime.date(2015, 3, 1), "left": "01.03.2015", "year": 1984, "income": 123.4567891, "hour": 6.05,
        "and": None, "gain": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "sex=F,age=30", "sex = F , age == 30", "sex=F and age=30", "sex='F' AND age=30", '"sex"="F", "age"=30.0',
        " age=3e1,sex=f ", "age>=20,age=30,sex!=M", "sex=F|M,sex=F,age=30|40,age=30",
    ],
)  # fmt: skip
def test_there_are_many_ways_to_write_the_same(text):
    assert fixed(text) == {"sex": 0, "age": 30}


def test_names_and_values_may_hold_what_has_a_meaning_elsewhere():
    assert fixed("state=New York and age=20") == {"state": 1, "age": 20}
    assert fixed("state=\"a,b\",'and'=1.5") == {"state": 3, "and": 1.5}
    assert fixed("left='2015-03-01'") == fixed("left=01.03.2015") == {"left": 16495}
    assert fixed("state=other,kids=5.0") == {"state": 4, "kids": 3}


def test_levels_compare_by_their_order():
    x = torch.arange(5.0)
    assert met("kids>1", "kids", x[:4]) == [False, False, True, True]
    assert met("kids<=3", "kids", x[:4]) == [True, True, True, False]
    assert met("size<large", "size", x[:3]) == [True, True, False]
    assert fixed("size>=large") == {"size": 2} and fixed("size!=small|large") == {"size": 1}
    assert met("state=Texas|Maine", "state", x) == [True, False, True, False, False]
    assert met("state!=Texas|Maine", "state", x) == [False, True, False, True, True]


def test_numbers_that_recur_have_a_probability():
    x = torch.tensor([0.0, 1e-30, 5.5, 99999.0], dtype=torch.float64)
    assert fixed("gain=0") == {"gain": 0}
    assert met("gain!=0", "gain", x) == [False, True, True, True]
    assert met("gain!=0|99999", "gain", x) == [False, True, True, False]
    assert met("gain=0|99999", "gain", x) == [True, False, False, True]
    assert met("gain>0", "gain", x) == [False, True, True, True]
    assert met("gain<=5.5", "gain", x) == [True, True, True, False]
    with pytest.raises(ValueError, match=r"gain=0\|3 asks for one of 2"):
        read_where("gain=0|3", CODING)
    with pytest.raises(ValueError, match="nothing satisfies gain<0: it is above 0"):
        read_where("gain<0", CODING)


def test_several_conditions_on_a_column_all_hold():
    x = torch.arange(100.0)
    assert met("age>=30,age<40,age!=33|35", "age", x) == [30 <= v < 40 and v not in (33, 35) for v in range(100)]
    assert met("age=10|20|30 and age>10", "age", x) == [v in (20, 30) for v in range(100)]


def test_what_is_beyond_training_is_said_and_not_cut_off():
    found = read_where("age>=90,height<100,year=2050", CODING)
    assert found.notes[0] == "age>=90 is beyond what was seen: in training, age went from 17 to 78"
    assert "height went from 139.7 to 203" in found.notes[1] and "year went from 1950 to 2010" in found.notes[2]
    assert "in training, age went from 17 to 78" in found.conditions.said
    x = torch.tensor([95.0, 10.0], dtype=torch.float64)
    assert cells("age", x, found.coding) == [95, 17], "only the end that is asked beyond gives way"
    assert cells("height", x, found.coding) == [95.0, 10.0]
    assert cells("year", torch.tensor([100.0]).double(), found.coding) == [2050]
    within = read_where("age>=30,age!=40", CODING)
    assert within.notes == () and within.coding == CODING
    # 78 is where larger numbers would be put
    cut = read_where("age!=78", CODING)
    assert cut.notes == () and cells("age", x, cut.coding) == [95, 17]


@pytest.mark.parametrize(
    "text, match",
    [
        ("", "'' is no comparison. Write COLUMN=VALUE"),
        ("age", "'age' in 'age' is no comparison"),
        ("age>=30,", "'age>=30,' is no comparison"),
        ("30<age<40", "is no comparison"),
        ("sex='F", "a quote is not closed"),
        ("age>30|40", "> compares with one value, and in 'age>30|40' with 30, 40"),
        ("aeg>30", r"there is no column 'aeg' \(aeg>30\). Did you mean 'age'\? There are age, sex"),
        ("id=3", r"column 'id' was not modelled, so nothing can be asked of it \(id=3\). Those that were: age"),
        ("state=Texs", r"'Texs' is no level of 'state' \(state=Texs\). Did you mean 'Texas'\? There are Maine, New"),
        ("state=Ohio", "Rare ones were pooled into 'other'"),
        ("sex<M", "the levels of 'sex' have no order, so sex<M says nothing. Name them: sex=F|M"),
        ("age=old", r"'old' is no number, and 'age' holds numbers \(age=old\). Write it as in age=78"),
        ("age>inf", "'inf' is no number"),
        ("joined>soon", "'soon' is no date, and 'joined' holds dates .* as in joined>2022-12-26"),
        ("left=2015-13-01", "is no date, .* as in left=26.12.2022"),
        ("age=30.5", "'age' holds whole numbers, and age=30.5 is none. Give one, or a range"),
        ("height=170.25", "'height' holds numbers of 1 decimals, and height=170.25 is none"),
        ("income=1|2", "'income' has any numbers, so that the chance of each is 0"),
        ("age>=30,age<20", "nothing satisfies age>=30 and age<20. Leave out a condition on 'age'"),
        ("sex=F,sex=M", "nothing satisfies sex=F and sex=M"),
        ("sex!=F|M", r"nothing satisfies sex!=F\|M"),
        ("age<0", "nothing satisfies age<0: it is 0 or more"),
        ("income<=0", "nothing satisfies income<=0: it is above 0"),
        ("hour>=24.5", "nothing satisfies hour>=24.5: it is from 0 to 24"),
        ("hour=24", r"hour=24: no cell of 'hour' can hold that, it would come out as 0.0"),
        ("kids>5", "nothing satisfies kids>5"),
    ],
)
def test_mistakes_are_named(text, match):
    with pytest.raises(ValueError, match=match):
        read_where(text, CODING)


def test_a_number_that_the_type_cannot_hold_is_refused():
    coding = Coding((Column("n", "count", source="int8", decimals=0, low=0.0, high=100.0),))
    with pytest.raises(ValueError, match="n=300: no cell of 'n' can hold that"):
        read_where("n=300", coding)


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("origin", [None, 1000.0])
def test_what_recurs_is_compared_as_it_is_drawn(sign, origin):
    """Models draw 0.1 in single precision, which is a little more; 0.7 a little less."""
    spikes = (0.1, 0.7, 3.0)
    coding = Coding((Column("x", "real", spikes=spikes, origin=origin),))
    drawn = torch.tensor(spikes)[:, None]
    for value in spikes:
        where = read_where(f"x{sign}{value + (origin or 0.0)}", coding).conditions
        if where.limits:
            expected = [SIGNS[sign](spike, value) for spike in spikes]
            assert where.hold(drawn)[:, 0].tolist() == expected
        else:
            assert sign == "=" and where.fixed.item() == pytest.approx(value)
    both = read_where(f"x={0.7 + (origin or 0)}|{0.1 + (origin or 0)}", coding).conditions
    assert both.hold(drawn)[:, 0].tolist() == [True, True, False]
