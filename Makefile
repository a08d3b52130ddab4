# Needs Python 3.11 or newer, make and a C compiler; `make help` lists the targets.

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.graphsys-setup
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DEMO ?= demo
TESTS ?= tests
WORKERS ?= 2
BENCH ?=

.PHONY: help setup demo test bench check format docs gpu-check wheel wheelcheck clean

help:  ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(STAMP)  ## Make .venv with every dependency at its pinned version.

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "graphsys needs Python 3.11 or newer; install it, or run make PYTHON=/path/to/python" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned dependencies into $(VENV); this takes some minutes the first time."
	@# torch goes first and alone, by its pin: any other way to ask for it may take a CUDA build of several gigabytes.
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -c constraints.txt -e '.[dgl,dev,uring]'
	@touch $@

demo: setup  ## Run the main job on a built-in real graph; the results lie in ./demo.
	$(BIN)/graphsys demo --out $(DEMO)

test: setup  ## Run the whole test suite (make test TESTS=tests/unit for a part).
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

bench: setup  ## Take every figure on a small graph: ours, the machine's limit, and the peers that are installed.
	set -e; for name in sampler loader pack epoch step import embed plan; do $(BIN)/graphsys bench $$name --quiet $(BENCH); done

check: setup  ## Check format, lint, types, import contract, and that the docs are in step.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/docs.py --check

format: setup  ## Format the code and mend what lint can mend.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup  ## Write the generated pages: docs/config.md, docs/run.schema.json, the command list of docs/api.md.
	$(BIN)/python tools/docs.py

gpu-check:  ## Check training on a GPU with PYTHON's own torch; writes docs/benchmarks/gpu-check.md.
	$(PYTHON) benchmarks/gpu_check.py --out docs/benchmarks

wheel: setup  ## Build dist/graphsys-*.whl.
	rm -rf build dist
	$(BIN)/python -m build --wheel

wheelcheck: wheel  ## Install the wheel into an empty environment and run the demo there, outside the checkout.
	set -e; place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; \
	$(PYTHON) -m venv $$place/env; \
	$$place/env/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"; \
	$$place/env/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/graphsys-*.whl; \
	cd $$place; env/bin/graphsys demo

clean:  ## Remove what make, builds and tools left; keeps .venv.
	rm -rf build dist demo graphsys.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
