"""Tables as data sets: what files are read, how they are recognised, and what is refused."""

import builtins
import datetime
import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lowerbound.columns import Column
from lowerbound.data import Data, frame, open_path, split, table
from lowerbound.data.tables.coding import Coding
from lowerbound.data.tables.reading import of_frame, open_table
from lowerbound.data.tables.schema import infer
from lowerbound.data.tables.writing import write_table

RNG = np.random.default_rng(0)
UCI = Path(os.environ.get("LOWERBOUND_DATA", "nowhere")) / "uci"


def people(n: int = 60) -> pa.Table:
    """A table with a column of most kinds, and holes."""
    rng = np.random.default_rng(1)
    holes = rng.random(n) < 0.2
    first = datetime.date(2019, 12, 20)
    return pa.table(
        {
            "height": pa.array(np.round(rng.normal(170, 9, n), 1), mask=holes),
            "wage": np.round(rng.lognormal(7, 1, n), 2),
            "visits": pa.array(rng.poisson(40, n), mask=holes[::-1].copy()),
            "stars": rng.integers(1, 4, n),
            "town": rng.choice(["Ulm, Donau", "Köln", 'Bad "B"'], n),
            "member": rng.choice(["no", "yes"], n),
            "since": pa.array([first + datetime.timedelta(int(d)) for d in rng.integers(0, 900, n)]),
        }
    )


def saved(folder: Path, text: str | bytes, name: str = "a.csv") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def kinds(data: Data) -> list[str]:
    return [column.kind for column in data.columns]


def test_the_index_of_a_frame_is_no_column():
    pandas = pytest.importorskip("pandas")
    found = pandas.DataFrame({"a": [1.5, 2.5, 0.5, 4.0], "b": list("uvvu")}, index=list("wxyz"))
    for rows in (found, found.rename_axis("key"), found.set_axis([3, 1, 2, 0])):
        data = frame(rows)
        assert kinds(data) == ["positive", "binary"] and data.aside == ()
    # of a table that was a frame, it is one
    assert [aside.name for aside in frame(pa.table(found.rename_axis("key"))).aside] == ["key"]


@pytest.mark.parametrize("ending", ["", ".arrow"])
def test_texts_in_the_layout_of_polars_are_texts(tmp_path, ending):
    words = pa.array(["u", "v", None, "u"], pa.string_view())
    levels = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None, 1], pa.uint8()), pa.array(["S", "L"], pa.string_view()), ordered=True
    )
    rows = pa.table({"word": words, "size": levels})
    if ending:
        with pa.ipc.new_file(tmp_path / "a.arrow", rows.schema) as file:
            file.write_table(rows)
    data = table(path=str(tmp_path / f"a{ending}")) if ending else frame(rows)
    assert [column.levels for column in data.columns] == [("u", "v"), ("S", "L")]
    np.testing.assert_array_equal(data.x, [[0, 0], [1, 1], [np.nan, np.nan], [0, 1]])


ENDINGS = [".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".pq", ".arrow", ".feather"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, ending):
    rows = people()
    path = str(tmp_path / f"people{ending}")
    write_table(path, rows)
    assert open_path(path) == {"name": "table", "path": path}
    data = table(path=path)
    expected = frame(rows, name="people")
    assert data.name == "people"
    assert kinds(data) == ["real", "positive", "count", "ordinal", "category", "binary", "real"]
    assert data.x.dtype == torch.float32
    assert torch.equal(data.x.nan_to_num(-1), expected.x.nan_to_num(-1))
    assert data.columns == expected.columns
    assert Coding(data.columns, data.aside).decode(data.x).equals(rows.cast(Coding(data.columns).decode(data.x).schema))


def test_a_stream_of_arrow_batches_is_read(tmp_path):
    rows, path = people(), tmp_path / "a.arrow"
    with pa.ipc.new_stream(path, rows.schema) as stream:
        stream.write_table(rows, max_chunksize=7)
    assert torch.equal(table(path=str(path)).x.nan_to_num(-1), frame(rows).x.nan_to_num(-1))


class Streams:
    """What polars and other libraries give: nothing but the stream of Arrow's C interface."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.rows.__arrow_c_stream__(requested_schema)


def test_tables_in_memory():
    rows = people()
    streamed = Streams(rows.set_column(4, "town", rows["town"].cast(pa.string_view())))
    for given in (rows, rows.to_pydict(), streamed):
        data = frame(given, target="town", columns={"stars": "count"})
        assert kinds(data)[3] == "count"
        assert [data.label_names[i] for i in data.labels] == rows["town"].to_pylist()
    with pytest.raises(ValueError, match=r"table is a int, and no table can be made of it .* Give a pandas, polars or"):
        frame(3)


def test_nothing_but_a_batch_is_held(tmp_path):
    rows = people(5000)
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=100)
    source = open_table(tmp_path / "a.parquet")
    sizes = [batch.num_rows for batch in source.batches()]
    assert sum(sizes) == source.rows == 5000
    # batches of a few rows give what one batch gives
    small = lambda: iter(rows.to_batches(max_chunksize=13))
    parts, whole = infer(type(source)("a", rows.schema, small)), infer(of_frame(rows))
    assert parts.columns == whole.columns
    assert parts.notes == whole.notes


FORMS = {
    "semicolons and decimal commas": ("a;b\n1,5;x\n2,5;y\n-,5;x\n3;x\n", [[1.5, 0], [2.5, 1], [-0.5, 0], [3, 0]]),
    "tabs": ("a\tb\n1.5\tx\n2.5\ty\n2.0\ty\n", [[1.5, 0], [2.5, 1], [2, 1]]),
    "bars": ("a|b\n1.5|x, z\n2.5|y\n2.0|y\n", [[1.5, 0], [2.5, 1], [2, 1]]),
    "spaces after commas": ("a, b\n1.5, x\n2.5, y\n2.0, y\n\n", [[1.5, 0], [2.5, 1], [2, 1]]),
    "no header": ("1.5,x\n2.5,y\n2.0,y\n", [[1.5, 0], [2.5, 1], [2, 1]]),
    "single quotes": ("'1.5','x'\n'2.5','y'\n'2.0','y'\n", [[1.5, 0], [2.5, 1], [2, 1]]),
    "quoted lines": ('a,b\n1.5,"x\nz"\n2.5,"y, ""q"""\n2.0,"y, ""q"""\n', [[1.5, 0], [2.5, 1], [2, 1]]),
    "Windows": ("\ufeffa,b\r\n1.5,x\r\n2.5,y\r\n2.0,y", [[1.5, 0], [2.5, 1], [2, 1]]),
    "empty lines before": ("\n\na,b\n1.5,x\n2.5,y\n2.0,y\n", [[1.5, 0], [2.5, 1], [2, 1]]),
    "one column": ("a\n1.5\n\n2.5\n2\n", [[1.5], [None], [2.5], [2]]),
}


@pytest.mark.parametrize("case", FORMS)
def test_forms_of_text_are_recognised(tmp_path, case):
    text, rows = FORMS[case]
    data = table(path=saved(tmp_path, text))
    expected = torch.tensor([[torch.nan if v is None else v for v in row] for row in rows])
    assert torch.equal(data.x.nan_to_num(-9), expected.nan_to_num(-9))
    names = ["column 1", "column 2"] if case in ("no header", "single quotes") else ["a", "b"]
    assert [column.name for column in data.columns] == names[: len(rows[0])]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_are_recognised_and_said(tmp_path, encoding):
    rows = ["größe,ort\n"] + [f"{i / 4 - 2},{'Köln' if i % 3 else 'Århus'}\n" for i in range(20)]
    data = table(path=saved(tmp_path, "".join(rows).encode(encoding)))
    assert [c.name for c in data.columns] == ["größe", "ort"]
    assert data.columns[1].levels == ("Köln", "Århus")
    assert any(f"read as {encoding}" in note for note in data.notes) == (not encoding.startswith("utf-8"))


def test_what_is_recognised_can_be_said(tmp_path):
    path = saved(tmp_path, "2019:größe\n1,5:ä\n2,5:b\n1,5:b\n".encode("cp437"))
    toml = saved(tmp_path, 'delimiter = ":"\nencoding = "cp437"\nheader = true\ndecimal = ","', "t.toml")
    data = table(path=path, schema=toml)
    assert [c.name for c in data.columns] == ["2019", "größe"]
    assert [c.levels for c in data.columns] == [("1.5", "2.5"), ("b", "ä")]
    assert not any("t.toml" in note or "read as" in note for note in data.notes)


def test_missing_tokens_are_recognised_counted_and_said(tmp_path):
    tokens = ["?", "NA", "N/A", "", "null", "None", "nan", "-"]
    lines = [f"{token},{'ab'[i % 2]}" for i, token in enumerate([*tokens, "?", "1.5", "2.5", "-3.5"])]
    data = table(path=saved(tmp_path, "x,y\n" + "\n".join(lines)))
    assert data.x[:, 0].isnan().sum() == 9
    assert any("x: real" in note and "9 missing, as '?', " in note for note in data.notes)


BAD = {
    "a header only": ("a,b\n", r"a.csv has a header of 2 columns \(a, b\) and no rows. Give rows below it"),
    "nothing": ("", r"a.csv is empty"),
    "a ragged row": ("a,b\n1,2\n3,4\n\n5\n6,7\n", r"a.csv, line 5: 1 cells, and 2 columns. Mend that line"),
    "duplicate names": ("a,b,a\n1,2,3\n", r"the header names 'a' more than once, .*Rename them"),
    "infinite": ("a,b\n1,2\n-inf,4\n3,5\n", r"a.csv, row 2, column 'a': the number is infinite"),
    "two rows": ("a,b\n1,2\n3,5\n", r"2 rows cannot be divided"),
    "constants": ("a,b\n1,x\n1,x\n1,x\n", r"a.csv has no column to model: a: constant.*; b: constant"),
    "an open quote": ('a,b,c\n1,2,3\n4,"5,6\n7,8,9\n', r"a.csv, lines 3 to 4, by a quote that is open: "),
    "an open quote at the end of a row": (
        'a,b,c\n1,2,3\n\n4,5,"6\n7,8,9\n3,4,5\n',
        r"a.csv, line 4: a quote that is open there joins 3 lines, each of which would be a row of 3",
    ),
    "one that closes at the next": ('a,b\n1,"x\n2,y"\n3,z\n4,z\n', r"a.csv, line 2: a quote .* joins 2 lines"),
    "one in the middle": ('a,b,c\n1,2,3\n1,"x,3\n2,y",4\n3,z,5\n4,z,6\n', r"a.csv, line 3: a quote .* joins 2 lines"),
    "one that is open for long": ('a,b\n1,"2\n' + "3,4\n" * 99_999, r"a.csv, line 2: a quote .* joins 100,000 lines"),
    "one in a row that is cut short": (
        'a,b,c\n1,"2\n' + "3,4,5\n" * 99_999,
        r"a.csv, line 2 or below cannot be divided into cells .*: a quote may be open",
    ),
    "noise": (bytes(range(1, 256)) * 9, r"a.csv is no text: it holds control characters"),
    "no text": (b"a,b\n1,\0\n", r"a.csv is no text: it holds zero bytes"),
    "text among numbers": (
        "a,b\n" + "".join(f"{i * i},{i}\n" for i in range(50)) + "many,3\n",
        r"row 51, column 'a': 'many' is no number, as 50 of 51 values are.* \"a\" = \{ missing = \[\"many\"\] \}",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_are_refused(tmp_path, case):
    text, match = BAD[case]
    with pytest.raises(ValueError, match=match):
        table(path=saved(tmp_path, text))


@pytest.mark.parametrize("cell", ["one\ntwo", "one\n", "1,2\n3,4,5\n6", "\n"])
def test_line_breaks_that_are_meant_are_kept(tmp_path, cell):
    source = open_table(saved(tmp_path, f'a,b,c\n1,2,3\n4,5,"{cell}"\n7,8,9\n'))
    assert source.whole()["c"].to_pylist() == ["3", cell, "9"]


def test_a_byte_far_down_that_is_not_utf8_is_named(tmp_path):
    lines = b"a,b\n" + b"1.5,some text\n2.5,more text\n" * 60_000
    with pytest.raises(ValueError, match=r"a.csv is not utf-8 throughout .* encoding = \"latin-1\""):
        table(path=saved(tmp_path, lines + b"1,\xe9\n"))


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".csv.gz"])
@pytest.mark.parametrize("share", [0.02, 0.9])
def test_files_cut_short_are_named(tmp_path, ending, share):
    path = tmp_path / f"a{ending}"
    write_table(path, people(5000))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"a{ending} cannot be (read|unpacked) .* cut short"):
        table(path=str(path))


def test_frames_that_are_refused():
    with pytest.raises(ValueError, match=r"names 'a' more than once"):
        frame(pa.table([[1], [2]], names=["a", "a"]))
    with pytest.raises(ValueError, match=r"table has no columns"):
        frame(pa.table({}))
    with pytest.raises(ValueError, match=r"table has 1 columns and no rows"):
        frame({"a": []})
    with pytest.raises(ValueError, match=r"row 3, column 'a': the number is infinite"):
        frame({"a": [1.0, 2.0, np.inf, 3.0]})


def test_three_rows_are_a_table(tmp_path):
    data = table(path=saved(tmp_path, "a,b\n1.5,x\n2.5,y\n-3.5,x\n"))
    assert [len(rows) for rows in data.split.values()] == [1, 1, 1]


def test_two_thousand_columns_are_a_table(tmp_path):
    x = RNG.normal(size=(30, 2000)).round(3)
    lines = [",".join(f"v{i}" for i in range(2000)), *(",".join(map(str, row)) for row in x)]
    data = table(path=saved(tmp_path, "\n".join(lines)))
    assert data.x.shape == (30, 2000)
    np.testing.assert_allclose(data.x, x, rtol=1e-6)


def test_a_column_that_holds_nothing_is_left_out_and_comes_back(tmp_path):
    data = table(path=saved(tmp_path, "a,b,c\n1.5,,x\n2.5,NA,y\n-3.5,,x\n"))
    assert [(aside.name, aside.why, aside.at) for aside in data.aside] == [("b", "empty", 1)]
    assert "b: empty, left out (it holds nothing)" in data.notes
    assert Coding(data.columns, data.aside).decode(data.x)["b"].to_pylist() == [None] * 3


def test_lists_are_left_out_and_put_back(tmp_path):
    rows = people(30).append_column("l", pa.array([[i, 2] for i in range(30)]))
    pq.write_table(rows, tmp_path / "a.parquet")
    source = open_table(tmp_path / "a.parquet")
    data = table(path=str(tmp_path / "a.parquet"))
    coding = Coding(data.columns, data.aside)
    assert "l: left out (there is no model of list<element: int64>)" in data.notes
    decoded = coding.decode(data.x)
    assert decoded["l"].null_count == 30
    filled = coding.fill(source.whole(), data.x)
    assert filled["l"].to_pylist() == rows["l"].to_pylist()
    write_table(tmp_path / "b.csv", decoded)
    with pytest.raises(ValueError, match=r"b.csv: text cannot hold the lists of l. Write a .parquet file"):
        write_table(tmp_path / "b.csv", filled)


def test_only_cells_that_need_quotes_have_them(tmp_path):
    rows = pa.table({"a,b": ["x", "y, z", 'q"', "", None, "two\nlines"], "v": [1.5, None, 3, 4, 5, 6]})
    write_table(tmp_path / "a.csv", rows)
    text = '"a,b",v\nx,1.5\n"y, z",\n"q""",3\n"",4\n,5\n"two\nlines",6\n'
    assert (tmp_path / "a.csv").read_text() == text


def test_what_is_packed_by_its_name_only_is_read_and_a_broken_packing_named(tmp_path):
    assert table(path=saved(tmp_path, "a,b\n1.5,x\n2.5,y\n-3.5,x\n", "a.csv.gz")).x.shape == (3, 2)
    with pytest.raises(ValueError, match=r"b.csv.gz cannot be unpacked .* cut short or damaged"):
        table(path=saved(tmp_path, b"\x1f\x8b" + bytes(range(200)), "b.csv.gz"))


def test_a_column_unknown_in_training_is_refused():
    x = torch.randn(10, 2)
    parts = split(10)
    x[parts["train"], 1] = torch.nan
    columns = (Column("a", "real"), Column("b", "real"))
    with pytest.raises(ValueError, match=r"of 'b', no value is known in the 8 rows to train on"):
        Data("d", x, parts, columns=columns)
    with pytest.raises(ValueError, match=r"x has shape \(10, 2\), and 1 columns are described"):
        Data("d", x, parts, columns=columns[:1])
    x[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"1 of 20 values are infinite, the first in row 0 at \(0,\)"):
        Data("d", x, parts, columns=columns)


def test_the_fingerprint_covers_the_columns():
    x, parts = torch.randn(10, 1), split(10)
    prints = {
        Data("d", x, parts, columns=columns).fingerprint()
        for columns in ((), (Column("a", "real"),), (Column("a", "positive"),), (Column("b", "real"),))
    }
    assert len(prints) == 4


def test_labels_are_a_column_of_levels(tmp_path):
    path = saved(tmp_path, "a,b,n\n" + "".join(f"{i / 7 - 2},{'xy?'[i % 3]},{i * i}\n" for i in range(60)))
    data = table(path=path, target="b")
    assert data.label_names == ("x", "y", "missing")
    assert data.labels.tolist() == [i % 3 for i in range(60)]
    with pytest.raises(ValueError, match=r"no column 'bb' that is modelled. Did you mean 'b'\? The columns of l"):
        table(path=path, target="bb")
    with pytest.raises(ValueError, match=r"the target 'n' is count, and a label is one of some levels"):
        table(path=path, target="n")


def test_the_split_follows_its_arguments():
    rows = {"a": RNG.normal(size=100)}
    sizes = [len(part) for part in frame(rows, valid=0.2, test=0.3).split.values()]
    assert sizes == [50, 20, 30]
    assert not torch.equal(frame(rows).split["test"], frame(rows, split_seed=1).split["test"])


def test_paths(tmp_path):
    (tmp_path / "rows.parquets").touch()
    with pytest.raises(ValueError, match=r"rows.parquet does not exist. Did you mean 'rows.parquets'"):
        open_path(str(tmp_path / "rows.parquet"))
    with pytest.raises(ValueError, match=r"is a folder, and a table is a file"):
        table(path=str(tmp_path))
    with pytest.raises(ValueError, match=r"rows.xls is not a kind of table that is written. Choose one of .csv, .tsv"):
        write_table(tmp_path / "rows.xls", people())


def test_without_pyarrow_it_says_what_to_install(monkeypatch, tmp_path):
    load = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for read in (lambda: table(path="a.csv"), lambda: frame({"a": [1]})):
        with pytest.raises(ImportError, match=r"pip install 'lowerbound\[tables\]'"):
            read()


@pytest.mark.skipif(not UCI.is_dir(), reason="the UCI tables are not there")
def test_adult_as_it_comes():
    data = table(path=str(UCI / "adult" / "adult.data.gz"), target="column 15")
    assert data.x.shape == (32_561, 15)
    assert data.label_names == ("<=50K", ">50K")
    assert kinds(data) == [
        *("count", "category", "positive", "category", "ordinal", "category", "category", "category", "category"),
        *("binary", "positive", "count", "count", "category", "binary"),
    ]
    assert data.columns[10].spikes[0] == 0.0 and data.columns[10].spikes[-1] == 99_999.0
    assert {40.0, 45.0} <= set(data.columns[12].spikes)
    assert data.columns[1].levels[:2] == ("Federal-gov", "Local-gov")
    assert any("1,836 missing, as '?'" in note for note in data.notes)
    held = Coding(data.columns).encode(open_table(UCI / "adult" / "adult.test.gz"))
    # its labels end in a full stop
    assert held.missing["column 15"] == 0
    assert held.x[:, 14].mean() == pytest.approx(0.2362, abs=1e-4)
    assert not held.unseen
    with gzip.open(UCI / "adult" / "adult.test.gz", "rt") as lines:
        first = [cell.strip() for cell in next(lines).split(",")]
    decoded = Coding(data.columns).decode(held.x[:1]).to_pylist()[0]
    assert [str(cell) for cell in decoded.values()] == [*first[:-1], first[-1].removesuffix(".")]


@pytest.mark.skipif(not UCI.is_dir(), reason="the UCI tables are not there")
@pytest.mark.parametrize("path", sorted(UCI.glob("*.csv.gz")), ids=lambda path: path.name)
def test_real_tables_come_back_as_they_were(path):
    source = open_table(path)
    found = infer(source)
    coding = Coding(found.columns, found.aside)
    encoded = coding.encode(source)
    back, rows = coding.decode(encoded.x), pa.Table.from_batches(source.batches())
    assert back.column_names == rows.column_names
    pooled = {column.name for column in found.columns if column.pooled}
    for name in {column.name for column in found.columns} - pooled:
        cells = [cell.strip() for cell in rows[name].to_pylist()]
        was = [None if cell in ("", "?", "NA", "nan", "NaN") else cell for cell in cells]
        now = back[name].to_pylist()
        if pa.types.is_string(back[name].type):
            assert was == now
        else:
            before, after = (
                np.array([np.nan if cell is None else float(cell) for cell in side]) for side in (was, now)
            )
            np.testing.assert_allclose(after, before, rtol=1e-6)
