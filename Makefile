# Every target sets up what it needs: a machine with Python 3.11 or later is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
FUZZ_MINUTES ?= 60
PARITY_PACKAGES := torch==2.13.0 torchvision==0.28.0 numpy pillow
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-slow fuzz parity check format clean

## demo: train on shapes, evaluate, export, reload, draw, into runs/demo
demo: $(VENV)/.installed
	$(BIN)/python train/shapes.py --output runs/demo

## test: lint, format and type check, and the quick tests, in WORKERS processes (each uses one core and several GB)
test: check
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

## test-slow: tests that take minutes, such as whole trainings, in WORKERS processes
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m slow -rP -n $(WORKERS) --dist load

## parity: comparison with torchvision itself, and with YOLACT in torch (KMR_DATA=folder with photos/; PARITY_PYTHON=python with torchvision)
parity: $(VENV)/.installed-dev $(if $(PARITY_PYTHON),,.venv-parity/.installed)
	$(or $(PARITY_PYTHON),.venv-parity/bin/python) tests/parity/torch_side.py runs/parity
	$(BIN)/python tests/parity/compare.py runs/parity

## fuzz: every reader on changed files and requests for FUZZ_MINUTES minutes, in WORKERS processes; figures into runs/fuzz.json
fuzz: $(VENV)/.installed-dev
	mkdir -p runs
	$(BIN)/python tests/fuzz/run.py --minutes $(FUZZ_MINUTES) --jobs $(WORKERS) --output runs/fuzz.json

## check: ruff, rules and format; mypy, types of the public API
check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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

# uv, because plain pip may find a torch without the compiled operators that torchvision needs.
.venv-parity/.installed: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv venv --quiet --clear --python $(BIN)/python .venv-parity
	$(BIN)/python -m uv pip install --quiet --python .venv-parity/bin/python $(PARITY_PACKAGES)
	touch $@

clean:
	rm -rf $(VENV) .venv-parity build *.egg-info
