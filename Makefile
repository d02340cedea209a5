# Two commands: `make figure4` makes the figure, `make test` runs the tests. Each sets itself up in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Three processes on two cores, each with test files of its own: most tests wait for processes, and those have threads.
# The files come in the order that tests/conftest.py says, not those with the most tests first.
TESTS := $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: figure4 test quick check types loads bench clean

figure4: $(VENV)/.run
	$(BIN)/spillover run figure4

test: check
	$(TESTS)

# As `test`, without what takes minutes and is marked `long`.
quick: check
	$(TESTS) -m "not long"

check: $(VENV)/.dev
	$(BIN)/ruff check --no-cache src tests bench
	$(BIN)/ruff format --check src tests bench
	@$(MAKE) --no-print-directory --jobs 2 --output-sync types loads

types: $(VENV)/.dev
	$(BIN)/mypy

# Collecting tells in seconds what a run of the tests would tell at its end: a test file that does not load.
loads: $(VENV)/.dev
	@told=$$($(BIN)/python -m pytest --collect-only 2>&1) || { echo "$$told"; exit 1; }

bench: $(VENV)/.dev
	$(BIN)/python bench/speed.py

# torch is asked for by name and version: a range, or another package's wish, may bring gigabytes of CUDA.
$(VENV)/.run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) --editable '.[dev,bench]'
	touch $@

clean:
	rm -rf $(VENV) lab .mypy_cache .pytest_cache .ruff_cache
