# Two commands do all the set-up: `make demo` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MAX_LINES := 400

.PHONY: help setup demo live test drill drill-venues drill-processor drill-history drill-rolling drill-execution drill-kill drill-chain soak fuzz check types rules check-deploy docs sbom bench lock clean

help: ## Show these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

setup: $(STAMP) ## Create .venv with everything that is needed (Java and Maven too, where apt-get may install them)
	@deploy/install-java.sh

$(STAMP): requirements.lock pyproject.toml
	@deploy/install-python.sh $(VENV)
	@touch $(STAMP)

demo: setup ## Simulated venues and a chain mirrored, traded on, proven (DURATION=30: ends, CAPTURES=folder; ARGS=--no-trading)
	@$(BIN)/venue-mirror demo $(ARGS)

live: setup ## Mirror a real venue: make live VENUE=binance-spot SYMBOLS=BTC/USDT,ETH/USDT
	@$(BIN)/venue-mirror live $(or $(VENUE),binance-spot) --symbols "$(SYMBOLS)"

test: setup ## Run all tests, on a real Kafka
	@deploy/install-test-tools.sh
	@echo "running the tests: a real Kafka broker, simulated venues, separate processes; about a quarter of an hour on two cores"
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

drill-venues: setup ## Ten minutes of five failing venues, LIVE books held against their own (ARGS="--seconds 60 --seed 7")
	@$(BIN)/python -m tests.chaos.fault_run $(ARGS)

check: setup ## Format, types, imports, dependencies, licences, known weaknesses, schemas, lengths; under a minute
	@$(MAKE) --no-print-directory -j2 --output-sync=target types rules

types:
	$(BIN)/pyright

rules:
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/python -m schemas.compatibility
	$(BIN)/python -m deploy.supply licences --quiet --lock deploy/requirements.lock
	$(BIN)/python -m deploy.supply audit --lock deploy/requirements.lock
	@find . -name '*.py' -not -path './$(VENV)/*' -not -path './.venv-bench/*' -not -path './tests/*' -not -path './build/*' -print0 \
	  | xargs -0 wc -l | awk '$$2 != "total" && $$1 > $(MAX_LINES) {print "longer than $(MAX_LINES) lines: " $$2; bad = 1} END {exit bad}'

docs: setup ## Build the documentation as a site in build/site; a link to nothing is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

sbom: setup ## What ships, with licences, as CycloneDX in build/sbom.json
	@mkdir -p build && $(BIN)/python -m deploy.supply sbom --lock deploy/requirements.lock > build/sbom.json && echo build/sbom.json

check-deploy: setup ## Image built and run, chart rendered and validated, alert rules tested, rights and dashboards compared
	@deploy/install-test-tools.sh
	@$(BIN)/python -m pytest -q tests/unit/test_deploy.py tests/unit/test_chart.py tests/unit/test_supply.py
	@deploy/check-image.sh

bench: setup ## All benchmarks in half an hour, and BENCHMARKS.md with tables and plots (ARGS="--only collector workers")
	@deploy/install-test-tools.sh
	@$(BIN)/python benchmarks/all.py $(ARGS)

drill-processor: setup ## Twenty kills, restarts, pauses and broker restarts under load; every book held against the venue's (ARGS=…)
	@$(BIN)/python -m tests.chaos.processor_drill $(ARGS)

drill-rolling: setup ## Every process restarted under load, one after the other: books, events, readiness (ARGS="--rounds 5")
	@$(BIN)/python -m tests.chaos.rolling_restart $(ARGS)

drill-history: setup ## Two hundred past books against what the venue itself had at those moments (ARGS=…)
	@$(BIN)/python -m tests.chaos.asof_drill $(ARGS)

drill-execution: setup ## Thousands of runs of orders under faults and kill -9 (RUNS=5000), and what held
	@$(BIN)/python -m tests.chaos.execution_drill --runs $(or $(RUNS),5000)

drill: setup ## All on three brokers under a cluster's faults, every promise checked (SEED=1 MINUTES=10 ARGS=…)
	@$(BIN)/python -m tests.chaos.cluster_drill --seed $(or $(SEED),1) --minutes $(or $(MINUTES),10) $(ARGS)

soak: setup ## Memory, lag and mismatches at a steady rate, judged and drawn (MINUTES=60; ARGS=--page: into BENCHMARKS.md)
	@$(BIN)/python -m tests.chaos.soak --minutes $(or $(MINUTES),60) $(ARGS)

fuzz: setup ## Fuzz the parsers, the codec and the nodes' answers (SECONDS=600; ARGS="--save": keep what is found)
	@$(BIN)/python -m tests.fuzz.run --seconds $(if $(filter command line,$(origin SECONDS)),$(SECONDS),60) $(ARGS)

drill-kill: setup ## Kill switch from the command to the venue's 'no open orders', fills racing, calls failing (ARGS="--orders 100")
	@$(BIN)/python -m tests.chaos.kill_drill $(ARGS)

drill-chain: setup ## A chain's collector killed twenty times under reorganisations (ARGS="--seeds 4 --actions 1000 --kills 20")
	@$(BIN)/python -m tests.chaos.chain_drill $(ARGS)

lock: ## Lock the dependencies again (needs uv)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header -o requirements.lock
	uv pip compile pyproject.toml --extra tracing --universal --python-version 3.11 --generate-hashes -c requirements.lock \
	  --no-emit-index-url --no-annotate --no-header -o deploy/requirements.lock

clean: ## Stop the embedded broker and remove what setup, demo and tests made (the cache of Kafka's jars stays)
	@[ ! -x $(BIN)/venue-mirror ] || $(BIN)/venue-mirror broker stop || true
	rm -rf $(VENV) .venv-bench .venue-mirror build *.egg-info .pytest_cache .hypothesis .ruff_cache .import_linter_cache
