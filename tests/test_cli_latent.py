"""Rows on condition, and new data through a trained model: every row in is a row out, or there is one clear message."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lowerbound import checkpoint, cli
from lowerbound.data.paths import open_like
from lowerbound.evaluation import conditions

pytest.importorskip("pyarrow")

SMALL = ["train.steps=12", "train.batch=16", "train.valid_every=4", "model.hidden=8", "model.latent=2"]

LONGER = ["train.steps=400", "train.valid_every=100", "train.batch=64", "train.lr=0.01", "model.hidden=32"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(folder, data, *more):
    arguments = ["train", str(data), *SMALL, *more, "--out", str(folder), "--k", "2"]
    assert cli.app(arguments, result_action="return_value") == 0
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A run on a table whose columns hang together: size follows from sex, and what is owned from age."""
    home = tmp_path_factory.mktemp("people")
    random = np.random.default_rng(0)
    lines = ["id,age,sex,size,owns"]
    for i in range(400):
        age, sex = int(random.integers(18, 80)), "FM"[int(random.integers(2))]
        size = 160 + 15 * (sex == "M") + 3 * random.standard_normal()
        lines.append(f"p-{7 * i:05},{age},{sex},{size:.1f},{'yes' if random.random() < age / 90 else 'no'}")
    (home / "people.csv").write_text("\n".join(lines) + "\n")
    return trained(home / "run", home / "people.csv", *LONGER)


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """A run on an array of images, binarised anew at each use."""
    home = tmp_path_factory.mktemp("grey")
    x = torch.randint(0, 256, (120, 6, 6), generator=torch.Generator().manual_seed(0)).numpy().astype("uint8")
    np.save(home / "x.npy", x)
    return trained(home / "run", home / "x.npy", "data.noise=binarize", "model.name=mlp")


def rows_of(name):
    with Path(name).open() as file:
        return list(csv.DictReader(file))


def text(name, content):
    Path(name).write_text(content)
    return name


def failed(status, said, wrong):
    """The one message of a command that did nothing."""
    assert status == 1 and said == "" and wrong.startswith("error: "), (status, said, wrong)
    return wrong


# rows on condition


def test_rows_are_as_asked_for_and_the_rest_follows(lowerbound, people):
    status, said, wrong = lowerbound("sample", people, "-n", 300, "--where", "sex=F, age>=50", "--out", "f.csv")
    assert (status, wrong) == (0, "")
    line = (
        r"effective sample size (\d+) for 300 rows, of ([\d,]+) proposals; ([\d.]+)% of the model's rows are like that"
    )
    size, _, share = re.match(line, said).groups()
    assert int(size) >= 300 and 10 < float(share) < 45 and said.endswith("wrote f.csv\n")
    rows = rows_of("f.csv")
    assert len(rows) == 300 and list(rows[0]) == ["id", "age", "sex", "size", "owns"]
    assert {row["sex"] for row in rows} == {"F"} and min(int(row["age"]) for row in rows) >= 50
    lowerbound("sample", people, "-n", 300, "--where", "sex=M and size=180.5", "--out", "m.csv")
    assert {(row["sex"], row["size"]) for row in rows_of("m.csv")} == {("M", "180.5")}
    # what holds in the table holds in the rows
    lowerbound("sample", people, "-n", 300, "--where", "sex=M", "--out", "m.csv")
    sizes = [np.mean([float(row["size"]) for row in rows_of(name)]) for name in ("f.csv", "m.csv")]
    assert sizes[1] - sizes[0] > 5


def test_rows_on_condition_repeat_with_their_seed(lowerbound, people):
    def drawn(*more):
        assert lowerbound("sample", people, "-n", 20, "--where", "age<30|", *more)[0] == 1
        assert lowerbound("sample", people, "-n", 20, "--where", "age<30", "--out", "s.csv", *more)[0] == 0
        return rows_of("s.csv")

    assert drawn() == drawn() != drawn("--seed", 1)


def test_few_effective_rows_are_said_to_be_few(lowerbound, people, monkeypatch):
    monkeypatch.setattr(conditions, "PROPOSALS", 300)
    monkeypatch.setattr(conditions, "PER_ROW", 0)
    status, said, _ = lowerbound("sample", people, "-n", 500, "--where", "age>=80", "--out", "s.csv")
    assert status == 0 and "age>=80 is beyond what was seen: in training, age went from 18 to 79" in said
    size = int(re.search(r"effective sample size (\d+) for 500 rows, of 300 proposals", said)[1])
    assert size < 250 and f"differ less than they should: take them for {size}, or ask for less" in said
    rows = rows_of("s.csv")
    assert len(rows) == 500 and min(int(row["age"]) for row in rows) >= 80


@pytest.mark.parametrize(
    "where, match",
    [
        ("sx=F", "there is no column 'sx' .* Did you mean 'sex'"),
        ("sex=G", "'G' is no level of 'sex'"),
        ("id=3", "column 'id' was not modelled"),
        ("age>=60,age<20", "nothing satisfies age>=60 and age<20"),
        ("age>=100000", r"nothing satisfies age>=100000 \(in training, age went from 18 to 79\): of 100,000 rows"),
        ("", "is no comparison"),
    ],
)
def test_conditions_that_cannot_be_are_refused(where, match, lowerbound, people):
    status, _, wrong = lowerbound("sample", people, "--where", where, "--out", "s.csv")
    assert status == 1 and re.search(match, wrong) and not Path("s.csv").exists()


def test_conditions_are_for_tables(lowerbound, grey):
    assert "--where is about the columns of a table" in failed(*lowerbound("sample", grey, "--where", "a=1"))


# new data


def test_a_new_table_is_encoded_row_by_row(lowerbound, people):
    text("new.csv", "owns,sex,age,size,more\nyes,F,30,161.5,1\n,X,40,,2\nno,M,,175.0,3\n")
    status, said, wrong = lowerbound("encode", people, "new.csv", "--out", "z.csv")
    assert (status, wrong) == (0, "")
    assert "new.csv: ignored, as not learnt: more" in said
    assert "sex: 1 value that is none of its levels, taken as missing: 'X'" in said
    model, _ = checkpoint.load_model(people)
    nan = float("nan")
    names = [column["name"] for column in checkpoint.load_model(people)[1]["model"]["columns"]]
    rows = [
        {"age": 30, "sex": 0, "size": 161.5, "owns": 1},
        {"age": 40, "sex": nan, "size": nan, "owns": nan},
        {"age": nan, "sex": 1, "size": 175.0, "owns": 0},
    ]
    x = torch.tensor([[float(row[name]) for name in names] for row in rows])
    with torch.inference_mode():
        expected = model.encoder(x).mean.numpy()
    found = rows_of("z.csv")
    assert [list(row) for row in found] == [["z0_0", "z0_1"]] * 3
    np.testing.assert_allclose([[float(v) for v in row.values()] for row in found], expected, rtol=1e-5, atol=1e-6)
    for name in ("z.npz", "z.parquet", "z.tsv"):
        assert lowerbound("encode", people, "new.csv", "--out", name)[0] == 0
    np.testing.assert_allclose(np.load("z.npz")["z0"], expected, rtol=1e-5, atol=1e-6)


def test_latent_variables_decode_from_any_file(lowerbound, people):
    text("new.csv", "age,sex,size,owns\n30,F,161.5,yes\n50,M,178,no\n")
    decoded = []
    for name in ("z.npz", "z.csv", "z.parquet", "z.csv.gz"):
        assert lowerbound("encode", people, "new.csv", "--out", name)[0] == 0
        assert lowerbound("decode", people, name, "--out", "d.csv")[0] == 0
        decoded.append(rows_of("d.csv"))
    assert decoded == decoded[:1] * 4 and len(decoded[0]) == 2
    text("bad.csv", "a,b\n1,2\n")
    assert "bad.csv holds no latent variables" in failed(*lowerbound("decode", people, "bad.csv"))
    text("bad.csv", "z0_0,z0_1,z0_2\n1,2,3\n")
    assert "does not fit the model: its rows have shape (3,)" in failed(*lowerbound("decode", people, "bad.csv"))
    text("bad.csv", "z0_0,z0_1,z1\n1,2,3\n")
    assert "does not fit the model" in failed(*lowerbound("decode", people, "bad.csv"))
    text("bad.csv", "z0_0,z0_1\n1,\n")
    assert "it must hold rows of finite numbers" in failed(*lowerbound("decode", people, "bad.csv"))


def test_a_new_table_is_reconstructed_as_a_table(lowerbound, people):
    text("new.csv", "id,age,sex,size,owns\n1,30,F,161.5,yes\n2,40,X,,\n3,,M,175.0,no\n" + "4,50,F,160.0,no\n" * 40)
    status, said, _ = lowerbound("reconstruct", people, "new.csv", "--out", "rows.csv")
    assert status == 0 and "'X'" in said
    rows = rows_of("rows.csv")
    assert len(rows) == 43 and list(rows[0]) == ["id", "age", "sex", "size", "owns"]
    assert all(row["size"] and row["sex"] in "FM" for row in rows)
    assert lowerbound("reconstruct", people, "new.csv", "-n", 2, "--out", "two.csv")[0] == 0
    assert len(rows_of("two.csv")) == 2
    assert lowerbound("reconstruct", people, "new.csv")[1].endswith(f"wrote {people}/reconstructions.csv\n")
    # of its own data too, and as arrays and pictures
    assert lowerbound("reconstruct", people, "-n", 5, "--out", "own.csv")[0] == 0
    assert len(rows_of("own.csv")) == 5
    assert lowerbound("reconstruct", people, "new.csv", "--out", "r.npz")[0] == 0
    assert np.load("r.npz")["reconstruction"].shape == (43, 4)
    assert lowerbound("reconstruct", people, "new.csv", "--out", "r.png")[0] == 0
    assert Path("r.png").stat().st_size > 0


def test_a_table_that_is_not_like_the_learnt_one_is_refused(lowerbound, people):
    text("new.csv", "age,sex,size\n30,F,161.5\n")
    assert "new.csv lacks 1 of the 4 columns that were learnt: 'owns'" in failed(
        *lowerbound("encode", people, "new.csv")
    )
    text("new.csv", "age,sex,size,owns\n30,F,tall,yes\n")
    assert "'tall' is no finite number" in failed(*lowerbound("encode", people, "new.csv"))
    text("new.csv", "age,sex,size,owns\n-30,F,160,yes\n")
    assert "'age' is count, but row 1 has -30" in failed(*lowerbound("encode", people, "new.csv"))
    assert "nothing.csv is not there" in failed(*lowerbound("encode", people, "nothing.csv"))


def test_the_model_file_is_enough_for_new_data(lowerbound, people):
    text("new.csv", "age,sex,size,owns\n30,F,161.5,yes\n")
    Path("alone.safetensors").write_bytes((people / "model.safetensors").read_bytes())
    assert lowerbound("encode", "alone.safetensors", "new.csv")[1] == "wrote latents.npz\n"
    assert np.load("latents.npz")["z0"].shape == (1, 2)


def test_a_new_array_is_seen_as_the_likelihood_saw_the_old_one(lowerbound, grey):
    # dark images: by themselves they would be taken for 41 levels, and drawn as bits six times too often
    x = np.full((500, 6, 6), 40, "uint8")
    x[0, 0, 0] = 0
    np.save("new.npy", x)
    assert lowerbound("reconstruct", grey, "new.npy", "--out", "r.npz")[0] == 0
    seen = np.load("r.npz")["x"]
    assert seen.shape == (500, 1, 6, 6) and set(np.unique(seen)) == {0, 1}
    assert seen.mean() == pytest.approx(40 / 255, abs=0.02)
    assert lowerbound("encode", grey, "new.npy", "--out", "z.csv")[0] == 0
    assert len(rows_of("z.csv")) == 500
    np.save("other.npy", np.zeros((5, 8, 8), "uint8") + np.arange(5, dtype="uint8")[:, None, None])
    wrong = failed(*lowerbound("encode", grey, "other.npy"))
    assert "other.npy has rows of 1x8x8" in wrong and "for rows of 1x6x6" in wrong
    Path("folder").mkdir()
    wrong = failed(*lowerbound("encode", grey, "folder"))
    assert "folder is a folder of images, and the model was trained on an array. Give an array." in wrong


def test_a_new_folder_keeps_the_order_of_its_paths(lowerbound, tmp_path):
    from PIL import Image

    def picture(name, level):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (level, level, 255 - level)).save(path)

    for i in range(30):
        picture(f"old/{i:02}.png", 8 * i)
    run = trained(tmp_path / "run", tmp_path / "old", "data.size=4", "model.name=mlp")
    for name, level in (("b/1.png", 200), ("a/2.png", 100), ("a/1.png", 50)):
        (tmp_path / "new").mkdir(exist_ok=True)
        picture(f"new/{name}", level)
    status, _, wrong = lowerbound("reconstruct", run, "new", "--out", "r.npz")
    assert (status, wrong) == (0, "")
    assert np.load("r.npz")["x"][:, 0, 0, 0].tolist() == [50, 100, 200]
    assert lowerbound("encode", run, "new", "--out", "z.npz")[0] == 0
    found = np.load("z.npz")
    assert found["z0"].shape == (3, 2) and found["labels"].tolist() == [0, 0, 1]
    # grey pictures among coloured ones are coloured ones
    (tmp_path / "dull").mkdir()
    for i in range(3):
        Image.new("L", (8, 8), 60 * i).save(tmp_path / "dull" / f"{i}.png")
    assert lowerbound("encode", run, "dull", "--out", "z.npz")[0] == 0
    assert np.load("z.npz")["z0"].shape == (3, 2)


def test_named_sets_are_not_read_from_elsewhere(tmp_path):
    np.save(tmp_path / "new.npy", np.zeros((3, 8, 8)))
    with pytest.raises(ValueError, match=r"the model was trained on the set 'digits', .* Leave it out, for rows of"):
        open_like({"name": "digits", "split_seed": 0}, str(tmp_path / "new.npy"), (1, 8, 8))
    with pytest.raises(FileNotFoundError, match=r"lost does not exist: give the path of data like those"):
        open_like({"name": "folder", "path": "photos"}, str(tmp_path / "lost"), (1, 8, 8))
