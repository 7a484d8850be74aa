PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An npz file for the demonstration. Within quotes, a shell leaves ~ as it is.
DATA ?=
PARALLEL ?= --numprocesses 2 --dist worksteal

.PHONY: demo test test-all lint docs bench clean

# One environment for every command; filled anew when the dependencies change, and made anew if its
# Python is too old or has no pip.
$(VENV)/installed: pyproject.toml constraints.txt
	$(BIN)/python -c "import pip, sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null \
	    || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/skmars demo $(if $(DATA),"$(DATA:~/%=$(HOME)/%)") --output demo

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
