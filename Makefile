# Two commands matter: `make demo` and `make test`. Each sets up its own .venv on a fresh machine.
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
# Processes of pytest; 0 is one, without xdist (quicker for a few tests: each process loads torch).
WORKERS ?= 2
# What check-wheel installs first: PyTorch for CPUs.
TORCH ?= torch --index-url https://download.pytorch.org/whl/cpu
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# What pip would do on one core: compile what was installed. Files that are templates or tests of errors do not compile.
COMPILE := $(BIN)/python -W ignore -m compileall -qq -j 0 -x '/tests?/' .venv/lib || true
LINTED := src tests docs/hooks.py docs/notebook_runs.py $(wildcard benchmarks studies recipes)
export MPLBACKEND ?= Agg

.PHONY: help demo test checks lint format pytest docs bench check-wheel wheel clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed ## Install, then register a synthetic MR-ultrasound pair and write its report
	$(BIN)/crossalign demo

test: ## Install with the developers' tools, lint, build the documentation, then run every test
	@$(MAKE) checks
	@$(MAKE) pytest

checks: ## Lint and build the documentation, at the same time
	@$(MAKE) --jobs=2 --output-sync=target lint docs

# Tests stay with their neighbours (worksteal): what the tests of a file share is then made once, not in each process.
pytest: .venv/.installed-dev ## Run every test, without the linters
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: .venv/.installed-dev ## Run ruff, mypy and import-linter
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/mypy $(LINTED)
	$(BIN)/lint-imports

format: .venv/.installed-dev ## Mend what ruff can mend
	$(BIN)/ruff check --fix $(LINTED)
	$(BIN)/ruff format $(LINTED)

docs: .venv/.installed-dev ## Build the documentation into site/, with every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "wrote site/index.html"

bench: .venv/.installed-dev ## Run the benchmarks and write their table into docs/performance.md (an hour)
	$(BIN)/python -m benchmarks.run

check-wheel: .venv/.installed-dev ## Install the wheel without constraints in a new environment and run the demo (minutes)
	CROSSALIGN_CHECK_WHEEL=1 CROSSALIGN_TORCH='$(TORCH)' $(BIN)/python -m pytest -n 0 tests/test_wheel.py

wheel: .venv/.installed-dev ## Build the wheel into dist/
	$(BIN)/python -m build --no-isolation --wheel

clean: ## Remove caches and builds (not .venv)
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# A stamp is older than what it was made from exactly when the installation must be repeated.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "crossalign needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1);" \
		"name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { \
		echo "python3 could not make a virtual environment; on Debian: apt-get install python3-venv" >&2; \
		rm -rf .venv; exit 1; }

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e .
	@$(COMPILE)
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[dev,docs]'
	@$(COMPILE)
	@touch .venv/.installed $@
