# The two set-up commands of the README. Each makes .venv if it is not there, installs once, and does its job.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test fuzz lint coverage docs clean

demo: $(VENV)/.run-installed
	$(BIN)/irene-build calibrate --budget 3m
	$(BIN)/irene-build export out
	$(BIN)/python -I -S out/irene_estimator.py predict out/trees/bert-base-uncased-8x128.json

test: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

# New cases for the property tests, for so many seconds; `test` draws the same ones every time.
FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.test-installed
	$(BIN)/python tests/fuzz/new_cases.py --seconds $(FUZZ_SECONDS)

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "irene-build needs Python 3.10 or newer; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.test-installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install -q -c constraints.txt -e '.[test]'
	@touch $@ $(VENV)/.run-installed

coverage: $(VENV)/.test-installed
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --cov --cov-report=term:skip-covered

docs: $(VENV)/.test-installed
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENV) out demo build dist
