# Everything a user or a developer starts. `make` alone lists the targets.

PYTHON_FILES = git ls-files '*.py' ':!tests'
MAX_LINES = 400
VENUE ?= binance-spot
SYMBOLS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo live test check lock bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: .venv/.installed ## install everything into .venv (and Java and Maven, where this may be done)
	@tools/setup.sh java

.venv/.installed: requirements.lock pyproject.toml
	@tools/setup.sh python
	@touch $@

demo: setup ## the whole system on this machine, with a proof; DURATION=30 ends it, CAPTURES=folder plays captures too
	.venv/bin/venue-mirror demo

live: setup ## the same against a real venue's public data; VENUE=binance-spot SYMBOLS=BTC/USDT,ETH/USDT
	.venv/bin/venue-mirror live $(VENUE) $(if $(SYMBOLS),--symbols "$(SYMBOLS)")

test: setup ## every test, with a real Kafka
	.venv/bin/python -m pytest $(PYTEST_ARGS)

check: .venv/.installed ## style, types, rooms, dependencies, schemas: under a minute
	.venv/bin/ruff check .
	.venv/bin/lint-imports
	.venv/bin/deptry .
	.venv/bin/python -m schemas.compatibility
	@$(PYTHON_FILES) | xargs wc -l | awk '$$2 != "total" && $$1 > $(MAX_LINES) \
		{ print $$2 " has " $$1 " lines: above $(MAX_LINES) it is two ideas"; bad = 1 } END { exit bad }'
	.venv/bin/pyright

lock: ## choose the versions of all dependencies anew (needs uv)
	uv pip compile --upgrade --no-emit-index-url --generate-hashes --universal --no-annotate --no-header \
		--python-version 3.11 --all-extras --output-file requirements.lock pyproject.toml

bench: setup ## the numbers of the README's table
	.venv/bin/python -m benchmarks.collector
	.venv/bin/python -m benchmarks.processor

clean: ## stop the embedded broker; remove .venv, its data and every cache of the project
	@if [ -x .venv/bin/venue-mirror ]; then .venv/bin/venue-mirror broker stop || true; fi
	rm -rf .venv .venue-mirror .pytest_cache .hypothesis .ruff_cache .import_linter_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
