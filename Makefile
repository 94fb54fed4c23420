# Every target sets up what it needs: a machine with Python 3.11 or later is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-slow check format clean

## demo: train on shapes, evaluate, export, reload, draw, into runs/demo
demo: $(VENV)/.installed
	$(BIN)/python train/shapes.py --output runs/demo

## test: lint, format check and the quick tests
test: check
	$(BIN)/python -m pytest -q

## test-slow: the tests that train for minutes
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -s -m slow

## check: ruff, rules and format
check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'keras-maskrcnn needs Python 3.11 or later; set PYTHON=…')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
