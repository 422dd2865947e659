# Every target sets up what it needs: a fresh machine has python3 and make, the rest lands in ./.venv and ./.cache.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup lock fmt check test test-fast test-e2e simulate replicate faults bench demo docs clean

help: ## Show the targets
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*## "} {printf "  \033[36m%-10s\033[0m %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with everything that development needs
	@$(BIN)/python -m compileall -q src/penstock

$(STAMP): pyproject.toml requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install "uv>=0.5"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

lock: ## Resolve the dependencies anew into requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 --all-extras --group dev --no-annotate pyproject.toml -o requirements.lock

fmt: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet .

check: setup ## Lint, types, import contracts, freshness of generated pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/penstock docs --check

test: test-fast test-e2e ## All tests: the fast suite, then the real servers

test-fast: setup ## Unit, contract and conformance tests
	$(BIN)/pytest -n auto --ignore=tests/e2e $(ARGS)

test-e2e: setup ## Tests against real OpenSearch and DynamoDB Local, started by the suite
	$(BIN)/pytest --timeout 300 tests/e2e $(ARGS)

simulate: setup ## Whole pipelines in virtual time with faults, from fresh seeds (SEEDS=200 START=n SHOW=1)
	$(BIN)/python -m penstock.testing.simulation --seeds $(or $(SEEDS),200) $(if $(START),--start $(START)) $(if $(SHOW),--show)

replicate: setup ## A table that changes at random, kills, refusals, rollovers; the index must equal it (SEEDS=20 CHANGES=10000 START=n RATE=500)
	$(BIN)/python tests/e2e/replication.py --seeds $(or $(SEEDS),20) --changes $(or $(CHANGES),10000) --rate $(or $(RATE),500) $(if $(START),--start $(START))

faults: setup ## Count every event while the server behind the sink fails (EVENTS=1000000 ARGS="--seed 2 --only cuts")
	$(BIN)/python -m bench.faults --events $(or $(EVENTS),1000000) $(ARGS)

bench: setup ## Measure every path against its floor; writes bench/results/
	$(BIN)/python -m bench $(ARGS)

demo: setup ## DynamoDB to OpenSearch on embedded stand-ins, live in the terminal (ARGS=--once for a check)
	$(BIN)/penstock demo $(ARGS)

docs: setup ## Write docs/reference from the plugins
	$(BIN)/penstock docs

clean: ## Remove what the targets made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
