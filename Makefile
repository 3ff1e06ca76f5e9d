# make demo      train a 4-bit MobileNet on handwritten digits and write a page about it: a few minutes on 2 cores, below runs/
# make test      everything CI checks: lint, types, architecture, spelling, tests
# make test-all  the slow tests too: campaigns of kills and damaged files, compiled kernels, every stock network's export
# make lint      the same as `make test` without the tests
# make clean     remove the virtual environment and caches; runs/ stays
#
# A bare machine needs git, pip and Python 3.11 or newer. On Linux PyPI's torch brings 5 GB of CUDA; PIP_ARGS goes to
# `pip install`, for instance PIP_ARGS="--extra-index-url URL" with the URL of PyTorch's index of CPU builds.

PYTHON   ?= python3
PIP_ARGS ?=
VENV     := .venv
BIN      := $(VENV)/bin
comma    := ,

.PHONY: demo test test-all lint clean

demo: $(VENV)/train-installed
	run=runs/digits-$$(date +%Y%m%d-%H%M%S) && $(BIN)/subfour train digits --out $$run && $(BIN)/subfour report $$run
	@echo "Before the commands above: source $(VENV)/bin/activate"

# One thread per test process: the processes share the cores; a file is one process's, so that its runs are trained once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

test: lint
	$(PYTEST) -m "not slow"

test-all: lint
	$(PYTEST)

lint: $(VENV)/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "subfour needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1); try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) --editable '.[$(1)]'
endef

$(VENV)/train-installed: pyproject.toml
	$(call install,train$(comma)openvino)
	@touch $@

# The dev extra includes the train extra.
$(VENV)/dev-installed: pyproject.toml
	$(call install,dev)
	@touch $@ $(VENV)/train-installed
