# Two commands: `make quickstart` trains a small experiment, `make test` runs the test suite.
# Each makes its own environment from the lock file when it is missing or out of date.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test check lint lock

quickstart: $(VENV)/.installed
	$(BIN)/flowmbpo run quickstart

# Three processes for two cores, because tests of a real Slurm mostly wait.
test: $(VENV)/.installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=30

# What a commit should pass: lint, types, and the tests that need no training, no server and no other process.
check: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile tests/spec tests/models tests/runs tests/algorithms tests/reports/test_statistics.py tests/test_docs.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	touch $@

# New lock files: the newest versions that fit together, in a fresh environment. Torch stays where TORCH says.
TORCH ?= 2.13.0
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet torch==$(TORCH) . && .venv-lock/bin/python -m pip uninstall --quiet -y flowmbpo
	{ head -1 requirements.lock; .venv-lock/bin/python -m pip freeze | sed 's/+.*//'; } > .venv-lock/base.txt
	.venv-lock/bin/python -m pip install --quiet '.[dev]' && .venv-lock/bin/python -m pip uninstall --quiet -y flowmbpo
	{ head -1 requirements-dev.lock; .venv-lock/bin/python -m pip freeze | sed 's/+.*//' | grep -vxFf .venv-lock/base.txt; } > requirements-dev.lock.new
	mv .venv-lock/base.txt requirements.lock && mv requirements-dev.lock.new requirements-dev.lock
