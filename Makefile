PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?=
PARALLEL ?= --numprocesses 2 --dist worksteal

.PHONY: demo test test-all lint docs bench clean

# One environment for every command; made anew when the dependencies change.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/skmars demo $(DATA) --output demo

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest $(PARALLEL)

test-all: lint
	$(BIN)/pytest $(PARALLEL) -m ''

docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python docs/make_contract.py
	$(BIN)/sphinx-build --fail-on-warning --keep-going -b html docs docs/_build/html

bench: $(VENV)/installed
	$(BIN)/python benchmarks/speed/compare.py
	$(BIN)/python benchmarks/speed/memory.py
	$(BIN)/python benchmarks/speed/busy_machine.py

clean:
	rm -rf $(VENV) demo docs/_build
