# Two commands: `make demo` and `make test`. Both set up a virtual environment of their own first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types doctest check clean

demo: $(VENV)/ready
	$(BIN)/lowerbound train digits --out runs/digits --force

test: $(VENV)/ready
	$(BIN)/python -m pytest -q

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

doctest: $(VENV)/ready
	$(BIN)/python -m pytest -q --doctest-modules src/lowerbound

check: lint types doctest test

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV)
