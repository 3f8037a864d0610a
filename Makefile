# Two commands matter: `make demo` and `make test`. Each sets up its own .venv on a fresh machine.
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
# Processes of pytest; 0 is one, without xdist (quicker for a few tests: each process loads torch).
WORKERS ?= 2
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
LINTED := src tests docs/hooks.py $(wildcard benchmarks studies recipes)
export MPLBACKEND ?= Agg

.PHONY: help demo test lint format pytest docs bench wheel clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed ## Install, then register a synthetic MR-ultrasound pair and write its report
	$(BIN)/crossalign demo

test: lint docs pytest ## Install with the developers' tools, lint, build the documentation, then run every test

pytest: .venv/.installed-dev ## Run every test, without the linters
	$(BIN)/python -m pytest -n $(WORKERS)

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

bench: .venv/.installed-dev ## Run every benchmark, benchmarks/bench_*.py
	@set -e; shopt -s nullglob; for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

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
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[dev,docs]'
	@touch .venv/.installed $@
