# Two commands: `make demo` and `make test`. Both set up a virtual environment of their own first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench

.PHONY: demo test lint types doctest check bench bench-quick clean

demo: $(VENV)/ready
	$(BIN)/lowerbound train digits --out runs/digits --force

test: $(VENV)/ready
	$(BIN)/python -m pytest -q -n auto

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

# The suite has an environment of its own, for the peers it measures (benchmarks/README.md).
ifneq ($(wildcard ../shared/data),)
bench bench-quick: export LOWERBOUND_DATA ?= $(abspath ../shared/data)
endif

bench: $(BENCH)/ready
	$(BENCH)/bin/python -m benchmarks

bench-quick: $(BENCH)/ready
	$(BENCH)/bin/python -m benchmarks --quick

$(BENCH)/ready: pyproject.toml constraints.txt benchmarks/constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--constraint benchmarks/constraints.txt --editable ".[tables]" pythae lightning jax optax ctgan pyod
	touch $@

clean:
	rm -rf $(VENV) $(BENCH)
