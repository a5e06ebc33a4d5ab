# make demo    install, then run the main job on made-up images
# make test    install what development needs, then run all tests
# make check   formatting, lint, types and all tests: what CI runs

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test check bench clean

demo: $(VENV)/.installed
	$(BIN)/pscr-engine demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.batch_size
	$(BIN)/python -m benchmarks.exemplars
	$(BIN)/python -m benchmarks.pipeline

clean:
	rm -rf $(VENV) demo

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11: name a newer one with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): PyTorch and what it needs are a few gigabytes, this takes some minutes"
	$(PIP) --editable '.[cpu,export,train]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[cpu,export,train,dev]'
	@touch $@
