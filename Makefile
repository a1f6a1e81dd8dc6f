# Everything runs in .venv, which the first target that needs it builds.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# A test on each core; those marked `alone` wait until nothing else runs.
TESTS := $(BIN)/python -m pytest -n auto --dist worksteal --durations 12 --durations-min 3

.DEFAULT_GOAL := help
.PHONY: help demo test test-more test-slow dist check format docs notebook bench accuracy clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/train.stamp: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[train,serve]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) 'pip>=25.1'
	$(PIP) --no-compile --editable '.[train,serve,litert,parquet,ray,remote]' --group dev
	@touch $(VENV)/train.stamp $@

demo: $(VENV)/train.stamp  ## draw a small photo set, train on it offline, say where the report is
	@rm -rf demo
	@run=$$($(BIN)/pronk demo --out demo) && echo "report: $$run/report.html"

test: $(VENV)/test.stamp  ## the tests of every change
	$(TESTS) -m "not slow and not more"

test-more: $(VENV)/test.stamp  ## tests that belong in every check and take longer
	$(TESTS) -m "more and not slow" tests

test-slow: $(VENV)/test.stamp  ## tests of minutes to hours, by hand
	$(BIN)/python -m pytest -m slow --timeout 14400 tests

dist: $(VENV)/test.stamp  ## build wheel and sdist, and try both in clean environments
	.ci/dist

check: $(VENV)/test.stamp  ## lint, format, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/test.stamp  ## put the code into the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/train.stamp  ## write docs/reference from the help texts and docstrings
	$(BIN)/python docs/generate.py

notebook: $(VENV)/test.stamp  ## run notebooks/*.py on drawn photos, save it with its pictures as .ipynb
	$(BIN)/python notebooks/regenerate.py

bench: $(VENV)/test.stamp  ## time pronk against the tutorial flow, write docs/benchmarks.md (BENCH_OPTIONS="--repeats 1")
	$(BIN)/python benchmarks/bench.py $(BENCH_OPTIONS)

accuracy: $(VENV)/test.stamp  ## train on all sets in $$PRONK_SETS, write docs/accuracy.md (ACCURACY_OPTIONS="--seeds 1")
	$(BIN)/python benchmarks/sets.py --docs docs --out runs/accuracy $(ACCURACY_OPTIONS)

clean:  ## remove what the other targets made
	rm -rf $(VENV) demo build dist
