# make demo        install what scoring needs, then score made-up images with the shipped model: seconds, no PyTorch
# make demo-train  install everything, then train, export and score on made-up images: minutes
# make test        install what development needs, then run all tests but those that take many seconds each: sixteen minutes
# make fast        the tests that take less than a second each: two minutes
# make coverage    all tests but the slow ones, and which lines they run: in the terminal, and htmlcov/index.html
# make docs        the documentation as a site with search, commands and API: site/index.html
# make gpu-kit     pack what a GPU host without a package registry needs, and what is run there first: ./gpu-kit
# make dist        build a release: the source distribution, and from it the wheel, which is installed and tried: dist/
# make check       formatting, lint, order of imports, types and all tests: what CI runs

PYTHON ?= python3
# The demo has an environment of its own, so that neither waits for the other's packages.
DEMO_VENV := .venv-demo
VENV := .venv
DIST_VENV := .venv-dist
BIN := $(VENV)/bin
PIP_OPTIONS := --disable-pip-version-check --quiet --constraint constraints.txt
# A process per core; each takes whole files, whose tests share what is costly to make, those with slow tests first.
PYTEST_OPTIONS := -n auto --dist loadfile --no-loadscope-reorder
PYTEST := $(BIN)/python -m pytest $(PYTEST_OPTIONS)
PIP := $(BIN)/python -m pip install $(PIP_OPTIONS)

.PHONY: demo demo-train test fast coverage check bench docs gpu-kit dist clean

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/pscr-engine demo

demo-train: $(VENV)/.installed
	$(BIN)/pscr-engine demo --train --out demo-train

test: $(VENV)/.installed-dev
	$(PYTEST) -m 'not slow'

# Less than a second each, for the loop of editing and testing.
fast: $(VENV)/.installed-dev
	$(PYTEST) -m 'not slow and not medium'

# Commands' processes are measured, too.
coverage: $(VENV)/.installed-dev
	rm -rf .coverage htmlcov
	mkdir .coverage
	$(BIN)/python -m coverage run -m pytest $(PYTEST_OPTIONS) -m 'not slow'
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet
	$(BIN)/python -m coverage report

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(PYTEST) --durations=40

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.batch_size
	$(BIN)/python -m benchmarks.exemplars
	$(BIN)/python -m benchmarks.pipeline

# A broken link, or an option without help, fails: by warnings, which --quiet would take from --strict, too.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site/index.html"

gpu-kit: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.gpu_kit gpu-kit

# An environment that is new each time: what is tried is the wheel, with what it asks for and nothing else.
dist:
	rm -rf dist $(DIST_VENV)
	$(MAKE) $(DIST_VENV)/bin/python
	$(DIST_VENV)/bin/python -m pip install $(PIP_OPTIONS) hatchling
	$(DIST_VENV)/bin/python -m hatchling build --target sdist
	$(DIST_VENV)/bin/python -m pip wheel --disable-pip-version-check --quiet --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz
	$(DIST_VENV)/bin/python -m pip install $(PIP_OPTIONS) "$$(echo dist/*.whl)[cpu,report]"
	cd $(DIST_VENV) && bin/pscr-engine demo

clean:
	rm -rf $(VENV) $(DEMO_VENV) $(DIST_VENV) dist site htmlcov .coverage demo demo-train

$(VENV)/bin/python $(DEMO_VENV)/bin/python $(DIST_VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11: name a newer one with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(@:/bin/python=)

$(DEMO_VENV)/.installed: pyproject.toml constraints.txt | $(DEMO_VENV)/bin/python
	@echo "installing into $(DEMO_VENV)"
	$(DEMO_VENV)/bin/python -m pip install $(PIP_OPTIONS) --editable '.[cpu,report]'
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): PyTorch and what it needs are a few gigabytes, this takes some minutes"
	$(PIP) --editable '.[cpu,export,train,report]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[cpu,export,train,dev]'
	@touch $@
