# Two commands: `make figure4` makes the figure, `make test` runs the tests. Each sets itself up in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: figure4 test check bench clean

figure4: $(VENV)/.run
	$(BIN)/spillover run figure4

test: check
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python bench/figure4.py

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
