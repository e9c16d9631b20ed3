# Everything below creates the virtualenv it needs; only Python >= 3.11 and make are assumed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo test test-thorough test-s3 test-s3-localstack test-all lint format coverage build bench bench-scale mutants vectors docs clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(STAMP): pyproject.toml requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## snapshot, tamper check and proven restore on real files
	PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/demo.sh

test: $(STAMP) ## every test that needs no server
	$(BIN)/python -m pytest -n $(WORKERS) -q

test-thorough: $(STAMP) ## what `make test` tries in fewer cases: every case
	$(BIN)/python -m pytest -m thorough -n $(WORKERS) -q

test-s3: $(STAMP) ## tests against VAULT_TEST_S3_URL, or a Ceph of its own
	tests/s3/run.sh ceph $(BIN)/python -m pytest -m s3 -n $(WORKERS) -q

test-s3-localstack: $(STAMP) ## the contract and the checks of a bucket against a LocalStack of its own
	tests/s3/run.sh localstack $(BIN)/python -m pytest -m s3 -n $(WORKERS) -q \
		tests/contract tests/s3/test_check.py tests/s3/test_locks.py \
		tests/s3/test_repository.py::test_snapshots_are_locked_verified_and_restored

test-all: $(STAMP) ## the same under every other Python >= 3.11 here (PYTHONS="..." names them)
	sh tests/platforms.sh -n $(WORKERS)

lint: $(STAMP) ## format check, ruff, mypy strict, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## format and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: $(STAMP) ## branch coverage of the tests
	$(BIN)/python -m pytest -n $(WORKERS) -q --cov --cov-report=term-missing:skip-covered

build: $(STAMP) ## wheel into a clean virtualenv, run from /
	rm -rf dist && mkdir dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(PYTHON) -m venv dist/venv
	dist/venv/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd / && $(CURDIR)/dist/venv/bin/vault --version

bench: $(STAMP) ## time the vault beside its peers (BENCH="--data linux --runs 1"; --help lists)
	$(BIN)/python -m tests.bench.run $(BENCH)

bench-scale: $(STAMP) ## how cost grows with files, bytes, snapshots, statements, chunks
	$(BIN)/python tests/bench/scale.py

mutants: $(STAMP) ## break the vault in small ways: does a test notice? (MUTANTS="--seed 7"; --help)
	$(BIN)/python -m tests.mutants.run $(MUTANTS)

vectors: $(STAMP) ## write the golden vectors again; git diff must stay empty
	rm -rf tests/vectors/ledger && $(BIN)/python -m tests.vectors.ledger_vectors
	$(BIN)/python tests/vectors/checkpoint_vectors.py
	$(BIN)/python -m tests.vectors.request_vectors
	$(BIN)/python tests/vectors/sealed_vectors.py
	rm -r tests/vectors/tree && $(BIN)/python tests/vectors/tree_vectors.py tests/vectors/tree

docs: $(STAMP) ## write again what is made from the program: docs/cli.md, docs/vault.1, docs/api.md, docs/policy.schema.json, the map of rooms
	$(BIN)/python -m docs.reference docs
	$(BIN)/python -m docs.api docs
	$(BIN)/python -m docs.policy_schema docs
	$(BIN)/python -m docs.rooms CONTRIBUTING.md

clean: ## remove what make created
	rm -rf $(VENV) .venv-localstack dist demo
