"""The README and the guide are promises: their code runs, and their commands are ones there are."""

import re
from pathlib import Path

import pytest

from lowerbound.catalogue import CATALOGUE
from lowerbound.cli import app

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/guide.md", "docs/tables.md"]


@pytest.mark.parametrize("page", PAGES)
def test_code_runs(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(
            re.sub(r"steps=\d+", "steps=20", block)
            .replace("% 200 == 0", "% 10 == 0")
            .replace("% 100 == 0", "% 10 == 0"),
            {},
        )
    assert "-" in capsys.readouterr().out  # a bound was printed


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_there(page):
    lines = re.findall(r"^    lowerbound (\S+)(.*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) > 5
    tables = {"data", "model", "objective", "train"}
    for verb, rest in lines:
        assert verb in set(app), verb
        for table, key in re.findall(r"(\w+)\.(\w+)=", rest.split("#")[0]):
            assert table in tables, key
    trained_on = [rest.split()[0] for verb, rest in lines if verb == "train"]
    assert any(name in CATALOGUE["data"] or name == "table.csv" for name in trained_on)


@pytest.mark.parametrize("page", PAGES)
def test_files_and_targets_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r"benchmarks/\S+\.toml", text):
        assert ((ROOT / page).parent / path).exists() or (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^    |`)make (\w+)", text, re.MULTILINE):
        assert f"\n{target}:" in makefile, target
    assert "@@" not in text
