# Each target does all of its own set-up: a machine with Python 3.11 or later, pip and make is enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
# uv resolves and unpacks in seconds. UV_TORCH_BACKEND=cpu (where its index can be reached) saves the CUDA libraries.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt

# Packages that tests only compare with or read data from, without the many that they would bring.
ORACLES := grad-cam lightly lightning-utilities medmnist monai opencv-python-headless picai-eval simpleitk torchmetrics torchxrayvision ttach

.PHONY: help demo figures test check docs docs-pages long format clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Commands start many processes, and compiling torch's sources anew takes each of them many seconds.
unexport PYTHONDONTWRITEBYTECODE

help: ## what each target does
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: $(VENV)/.installed ## the whole pipeline on synthetic images, in minutes
	$(BIN)/twinray demo $(DEMO)

figures: $(VENV)/.installed ## README's commands run, their output and its picture (minutes)
	$(BIN)/python scripts/figures.py

test: $(VENV)/.installed-dev ## the test suite
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder $(TESTS)

check: $(VENV)/.installed-dev ## format, lint, types, layers, files
	$(BIN)/python scripts/check_files.py
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-dev ## the documentation site; runs the commands that its pages show
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

docs-pages: $(VENV)/.installed-dev ## the site's pages and links, without running their commands
	TWINRAY_DOCS_RUN=no $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/pages

long: $(VENV)/.installed-dev ## the tests that take minutes
	$(BIN)/python -m pytest -m long

format: $(VENV)/.installed-dev ## the code, as ruff has it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what the targets made
	rm -rf $(VENV) docs/_build docs/generated demo-output .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) --editable '.[dicom]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) --editable '.[dev]'
	$(INSTALL) --no-deps $(ORACLES)
	@touch $@ $(VENV)/.installed
