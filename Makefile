.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# For two cores: most tests wait for processes, browsers and servers, and two workers would leave a core idle.
WORKERS ?= 4
SCENARIO ?= minimal
# Else each worker, and each process that a test starts, compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed: requirements-dev.txt
	@python=$$(.ci/find-python) && "$$python" -m venv --clear .venv
	@echo "Installing the pinned packages ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

.PHONY: demo
demo: .venv/installed ## Run portal and sandbox with example data; Ctrl-C stops everything; HTTPS=1 for Safari
	@$(BIN)/python -m tests.sandbox.demo $(if $(HTTPS),--https)

.PHONY: pictures
pictures: .venv/installed ## Make the pictures of README anew, from a demo and Chromium
	@$(BIN)/python -m tests.browser.pictures

.PHONY: sandbox
sandbox: .venv/installed ## Run the local Microsoft alone, where TEST_ENDPOINTS and TEST_CA_FILE say; SCENARIO=demo
	@$(BIN)/python -m tests.sandbox --scenario $(SCENARIO)

.PHONY: run
run: .venv/installed ## Run the portal with the settings of .env
	@$(BIN)/python manage.py migrate --no-input
	@$(BIN)/python manage.py collectstatic --no-input --verbosity 0
	@$(BIN)/python -m gunicorn --no-control-socket --worker-class gthread --threads 8 --bind 127.0.0.1:8000 portal.wsgi

.PHONY: worker
worker: .venv/installed ## Work runs and the schedule in the background; start as many as you like
	@$(BIN)/python manage.py worker

.PHONY: test
test: .venv/installed ## Run the tests on SQLite and, with TEST_POSTGRES_URL, on PostgreSQL; RUN_SLOW=1 for all of them
	@$(PYTEST) -p tests.requirements -n $(WORKERS) --dist worksteal
	@if [ -n "$$TEST_POSTGRES_URL" ]; then \
		echo "Once more on PostgreSQL, what tests/support/postgres.py chooses:"; \
		TEST_DATABASE_URL="$$TEST_POSTGRES_URL" $(PYTEST) -n $(WORKERS) --dist worksteal -m postgres; \
	elif [ -n "$$CI" ]; then \
		echo "TEST_POSTGRES_URL is not set: in CI the tests must run on PostgreSQL as well." >&2; exit 1; \
	else \
		echo "Skipped on PostgreSQL: set TEST_POSTGRES_URL=postgres://user:password@host/database to run there as well."; \
	fi

.PHONY: quick
quick: .venv/installed ## Check what was changed since the last commit, with the tests of its rooms
	@$(BIN)/python -m tests.quick

.PHONY: requirements
requirements: .venv/installed ## Run all tests that show requirements; print each id with test file and result
	@CI=1 $(PYTEST) -p tests.requirements -m req -q -n $(WORKERS) --dist worksteal

.PHONY: bench
bench: .venv/installed ## Measure what must be fast, each figure beside its goal; under five minutes
	@$(BIN)/python -m tests.bench

.PHONY: lint
lint: .venv/installed ## Check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: imports
imports: .venv/installed ## Check the order of floors and rooms, circles, and imports inside functions
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m tests.import_graph

.PHONY: types
types: .venv/installed ## Check types (mypy --strict, code and tests)
	@$(BIN)/mypy .

.PHONY: check
check: .venv/installed ## Check whether the settings of .env and the database are fit for production
	@$(BIN)/python manage.py check --deploy --database default

.PHONY: lock
lock: .venv/installed ## Resolve the dependencies anew and pin them with hashes
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.12 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header pyproject.toml --extra postgres -o requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header pyproject.toml --extra postgres --extra celery --group dev -c requirements.txt -o requirements-dev.txt
