# `make quickstart` and `make test` need Python 3.11 and nothing else: each makes its own .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOCK := $(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)
READY := $(VENV)/.installed-$(LOCK)
export OMP_NUM_THREADS ?= 1

.PHONY: quickstart test test-slow test-all lint setup clean

quickstart: setup  ## train a ladder of micro models on this machine and open questions to a report
	$(BIN)/olmo-mixlaw study run configs/studies/micro.yaml

test: setup  ## lint, the flow of imports, types and the fast tests
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/mypy
	$(BIN)/pytest -n 2 -m "not slow and not gpu"

test-slow: setup
	$(BIN)/pytest -n 2 --dist loadfile -m "slow and not gpu"

test-all: test test-slow

setup: $(READY)

$(READY):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt \
		-e '.[olmo,hf,lightgbm,dev]'
	touch $@

clean:
	rm -rf $(VENV) results .pytest_cache .mypy_cache .ruff_cache
