# Works with a POSIX shell, make and Python 3.11 or newer; everything else is installed into .venv.
PYTHON ?=
VENV = .venv
BIN = $(VENV)/bin
STACK = $(BIN)/python -m devstack
# Slow, since they start and stop many processes.
WORKERS = tests/brokers tests/core/test_pools.py tests/core/keys/test_in_workers.py tests/devstack/test_rabbitmq.py tests/deploy/test_systemd.py \
	tests/audit/test_with_workers.py tests/notifications/test_worker.py tests/quotas/test_worker.py \
	$(addprefix tests/queues/test_,dead_letters.py draining.py watching.py)
# Slow, since they load the models of speech or start processes that do.
SPEECH = tests/recordings/diarization $(addprefix tests/recordings/test_,commands.py formats.py local.py pipeline.py tasks.py) \
	tests/recordings/uploads/test_process.py
# Those with a target of their own; each process of `make test` would read them to leave them out.
OTHERS = $(addprefix tests/,acceptance chaos schema slow)
.DEFAULT_GOAL := help
.PHONY: help venv packages demo up down reset status test check lint format workers speech acceptance schema chaos long containers bench migration clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## Make .venv with the pinned requirements (done once, and again when they change)
	@PYTHON='$(PYTHON)' VENV='$(VENV)' sh devstack/venv.sh

demo: venv ## Call forty sample customers over a simulated telephone network (KEEP=1: leave it running, JSON=1: result as JSON)
	@exec $(STACK) demo $(if $(filter-out 0,$(KEEP)),--keep) $(if $(filter-out 0,$(JSON)),--json)

up: venv ## Start servers, simulator, API, workers and Beat in the background
	@exec $(STACK) up

down: venv ## Stop what `make up` or `make demo KEEP=1` left running
	@exec $(STACK) down

status: venv ## Show which processes run, and their logs
	@exec $(STACK) status

reset: venv ## Stop everything and remove its data (.beatline)
	@exec $(STACK) reset

packages:
	@sh devstack/packages.sh

test: venv packages ## Run the tests with coverage
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 3 --dist loadfile -p no:schemathesis $(addprefix --ignore=,$(WORKERS) $(SPEECH) $(OTHERS)) -m "not acceptance and not chaos and not schema and not slow" --durations=15 --cov=backend --cov-branch --cov-fail-under=90

lint: venv ## Check format, style, types and import direction
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

check: lint test ## All of lint and test

format: venv ## Put the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

workers: venv packages ## Real workers on Redis and RabbitMQ: delivery, pools, TLS, signatures, strangers' messages
	$(BIN)/pytest -n 2 --dist loadfile $(WORKERS)

speech: venv ## Real speech by the real models: words, voices, formats, the command line
	$(BIN)/pytest -n 2 --dist loadfile $(SPEECH)

acceptance: venv ## Run the whole stack as a user does, and look at the result
	$(BIN)/pytest tests/acceptance tests/commands

schema: venv ## Try the HTTP API with thousands of made-up requests against its own description
	$(BIN)/pytest tests/schema

long: venv ## Transcribe two hours with the real models, with a kill in the middle
	$(BIN)/pytest -s tests/slow

chaos: venv packages ## Take servers and processes away while calls are made
	$(BIN)/pytest tests/chaos

containers: venv ## Build the images and run the stack in containers
	tests/containers/run

bench: venv ## Run the benchmarks
	@for file in benchmarks/*.py; do echo "$$file"; PYTHONPATH=. $(BIN)/python "$$file" || exit 1; done

migration: venv ## Write a migration from the tables' definitions: make migration m="what changes"
	@test -n "$(m)" || { echo 'Say what changes: make migration m="add a column"' >&2; exit 2; }
	@exec $(BIN)/python -m devstack.migration "$(m)"

clean: ## Remove caches and coverage files; .venv and .beatline stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis htmlcov .coverage .coverage.*
	find backend devstack tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
