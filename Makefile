# Each target sets itself up in .venv: a machine needs python3.11 or later, a C compiler and make.

PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

# Tools that start tools (cython-lint runs pycodestyle, pyright asks python) find them here.
export PATH := $(abspath $(BIN)):$(PATH)

INSTALLED := $(VENV)/installed.stamp
BUILT := $(VENV)/built.stamp
# A module of Python with a .pxd beside it is compiled: changed, it must not be tested as it was.
TYPES := $(shell find src -name '*.pxd')
NATIVE := setup.py $(wildcard ext/perdure/*) $(TYPES) $(TYPES:.pxd=.py)
PYTHONS := 3.12 3.13 3.14

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long test-debug test-pythons test-all torture lint bench soak docs
.PHONY: asan wheel clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST)

setup: $(BUILT) ## .venv with perdure, editable, and all tools

demo: $(BUILT) ## a workflow that is killed and finishes in another process
	$(BIN)/python examples/demo.py $(ARGS)

test: $(BUILT) ## all tests; ARGS="-k timer" for some
	$(BIN)/python -m pytest $(ARGS)

test-long: $(BUILT) ## the tests and rounds that `make test` leaves out
	$(BIN)/python -m pytest -m long $(ARGS)

test-debug: $(BUILT) ## all tests with asyncio's debug mode
	PYTHONASYNCIODEBUG=1 $(BIN)/python -X dev -m pytest $(ARGS)

test-pythons: ## all tests on each other Python that is found here
	@VENV=$(VENV) PYTHONS="$(PYTHONS)" .ci/test-pythons $(ARGS)

test-all: test test-debug test-pythons ## plain, in debug mode, on other Pythons

torture: $(BUILT) ## kill a server under load, again and again; ARGS="--seconds 600 --seed 1"
	PYTHONPATH=tests/engine:tests/http $(BIN)/python tests/torture/torture.py $(ARGS)

lint: $(BUILT) ## style, types, stubs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/cython-lint ext src
	$(BIN)/python .ci/check_extension.py
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/stubtest --mypy-config-file pyproject.toml perdure._journal

asan: $(BUILT) ## the tests of ext/ under its sanitizers
	VENV=$(VENV) .ci/asan $(ARGS)

bench: $(BUILT) ## measure; ARGS="P1 P2 --json" for some
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(BUILT) ## a server under load for half an hour: does all stay flat?
	$(BIN)/python -m benchmarks.soak $(ARGS)

docs: $(BUILT) ## run every example in README.md and docs/
	$(BIN)/python -m pytest tests/docs $(ARGS)

wheel: $(BUILT) ## sdist and manylinux wheel in dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	if [ "$$(uname)" = Linux ]; then \
	    $(BIN)/auditwheel repair --strip --wheel-dir dist dist/*-linux_*.whl && rm dist/*-linux_*.whl; \
	fi
	@ls -l dist

clean: ## all that make has made
	rm -rf $(VENV) $(VENV)-3.* build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "perdure needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

# An editable install compiles the extensions too.
$(INSTALLED): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(BUILT)

$(BUILT): $(INSTALLED) $(NATIVE)
	@if [ ! -e $@ ] || [ -n "$$(find $(NATIVE) -newer $@)" ]; then \
	    echo "$(BIN)/python setup.py build_ext --inplace"; \
	    $(BIN)/python setup.py --quiet build_ext --inplace; \
	fi
	@touch $@
