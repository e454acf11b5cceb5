# Every command of the project. `make` alone lists them; each one sets up what it needs first.

.SHELLFLAGS := -euc
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first interpreter that really runs: version managers leave launchers on the PATH that fail.
find_python = $(shell for python in $(1); do \
	"$$python" -c 'import sys, ensurepip, venv; sys.exit(not $(2))' >/dev/null 2>&1 || continue; \
	"$$python" -c 'import sys; print(sys.executable)'; break; done)
PYTHON ?= $(call find_python,python3.13 python3.12 python3.11 python3,(3$(comma) 11) <= sys.version_info)
MINT_PYTHON ?= $(call find_python,python3.12 python3.11 python3,(3$(comma) 11) <= sys.version_info < (3$(comma) 13))
comma := ,

BIN := .venv/bin
NODE := .venv/.stamp
MINT := .venv-mint/.stamp
CLIENTS := .venv-clients/.stamp
CASHU_TS := tests/interop/node_modules/.stamp
PEERS_READY := .bench/litellm/.stamp .bench/portkey/.stamp
PROFILER := .bench/py-spy/.stamp
PIP := -m pip --disable-pip-version-check -qq
ALEMBIC := $(BIN)/python -m alembic
# Tests run side by side, one process per processor; WORKERS= runs them in one.
WORKERS ?= -n logical

##@ Use it
.PHONY: help demo run audit
help: ## List these commands
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(NODE) $(MINT) ## A paid request end to end on a real mint (KEEP=1 leaves it running)
	@KEEP="$(KEEP)" $(BIN)/python -m demo

run: $(NODE) ## Start a node from .env and the environment, migrations first
	@$(BIN)/python -m routstr serve

audit: $(NODE) ## Check that every msat adds up (ARGS="--full", ARGS="--deep")
	@$(BIN)/python -m routstr audit $(ARGS)

##@ Change it
.PHONY: test test-fast test-interop test-clients test-browser screenshots lint type fmt docs
test: $(NODE) $(MINT) ## All tests: both database engines and the real mint
	@$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-fast: $(NODE) ## The tests that need no real mint and no PostgreSQL
	@$(BIN)/python -m pytest $(WORKERS) -m "not real_mint and not postgres" $(ARGS)

test-interop: $(NODE) $(MINT) $(CASHU_TS) ## Ecash to and from a wallet that is not ours, cashu-ts (needs Node.js)
	@$(BIN)/python -m pytest tests/interop $(ARGS)

test-clients: $(NODE) $(CLIENTS) ## Clients that are not ours: LangChain and LiteLLM buy from the node
	@$(BIN)/python -m pytest tests/clients $(ARGS)

test-browser: $(NODE) $(MINT) ## The pages in a real browser (needs the system package chromium)
	@command -v chromium >/dev/null || \
		{ echo "The browser tests need Chromium: install the system package chromium" >&2; exit 2; }
	@$(BIN)/python -m pytest tests/browser $(ARGS)

screenshots: $(NODE) $(MINT) ## The browser tests, which then keep what they saw in docs/screenshots
	@$(MAKE) test-browser ARGS="--screenshots docs/screenshots $(ARGS)"

lint: $(NODE) ## Style, format and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

type: $(NODE) ## Types, strictly
	@$(BIN)/python -m mypy

fmt: $(NODE) ## Format, and mend what can be mended by itself
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(NODE) ## The pages that are made of code: docs/billing.md
	@$(BIN)/python -m docs.make_billing

##@ Measure it
.PHONY: bench bench-compare bench-docs profile
bench: $(NODE) $(MINT) $(if $(PEERS),$(PEERS_READY)) ## Speed on one core beside nginx (PEERS=1: Portkey, LiteLLM; FULL=1; OUT=bench.json)
	@PEERS="$(PEERS)" FULL="$(FULL)" OUT="$(OUT)" $(BIN)/python -m bench.throughput

bench-compare: $(NODE) ## Two runs as ratios (A=before.json B=after.json)
	@test -n "$(A)" -a -n "$(B)" || { echo "Say which two: make bench-compare A=before.json B=after.json" >&2; exit 2; }
	@$(BIN)/python -m bench.throughput.compare "$(A)" "$(B)"

bench-docs: $(NODE) ## The results in docs/performance.md, from a run (OUT=bench.json)
	@$(BIN)/python -m bench.throughput.page "$(or $(OUT),bench.json)"

profile: $(NODE) $(PROFILER) ## A flame graph of the node under load (OUT=docs/flame.svg)
	@OUT="$(OUT)" $(BIN)/python -m bench.throughput.profile

##@ Prove it
.PHONY: prove prove-road prove-ecash prove-billing prove-operator prove-scale bench-ledger
prove: prove-road prove-ecash prove-billing prove-operator prove-scale ## Every proof below

prove-road: $(NODE) $(MINT) ## The paid road: kills, races and disconnects against the real mint
	@$(BIN)/python -m bench.road

prove-ecash: $(NODE) $(MINT) ## Ecash: faults, instant acceptance, a crowd, Lightning, a lost database, interop
	@$(BIN)/python -m bench.ecash

prove-billing: $(NODE) $(MINT) $(CLIENTS) ## Charges: clients of others, failover, disconnects at every byte, starving streams
	@$(BIN)/python -m bench.billing

prove-operator: $(NODE) $(MINT) ## The operator's house: a browser, every door, 5 million rows, jobs under load
	@$(BIN)/python -m bench.operator

prove-scale: $(NODE) $(MINT) ## Scale: nodes, growth, overload, 10,000 streams, a soak (SOAK_MINUTES=30)
	@SOAK_MINUTES="$(SOAK_MINUTES)" $(BIN)/python -m bench.scale

bench-ledger: $(NODE) ## Durable reserve and settle pairs per second
	@$(BIN)/python -m bench.ledger

##@ Its database (DATABASE_URL, or SQLite in DATA_DIR)
.PHONY: db-migrate db-upgrade db-downgrade db-current db-history seed
db-migrate: $(NODE) ## Write a new migration from the tables (m="what changes")
	@test -n "$(m)" || { echo 'Say what changes: make db-migrate m="add a column"' >&2; exit 2; }
	@$(ALEMBIC) revision --autogenerate -m "$(m)"

db-upgrade: $(NODE) ## Migrate to the newest version (to=REVISION for another)
	@$(ALEMBIC) upgrade "$(or $(to),head)"

db-downgrade: $(NODE) ## Undo the last migration (to=REVISION for more)
	@$(ALEMBIC) downgrade "$(or $(to),-1)"

db-current: $(NODE) ## The version the database has
	@$(ALEMBIC) current --verbose

db-history: $(NODE) ## All migrations, newest first
	@$(ALEMBIC) history --indicate-current

seed: $(NODE) ## Fill a new one with a node's life (KEYS=100000 TRANSACTIONS=5000000 LEAN=)
	@KEYS="$(KEYS)" TRANSACTIONS="$(TRANSACTIONS)" LEAN="$(LEAN)" $(BIN)/python -m bench.seed

##@ Look after it
.PHONY: clean lock
clean: ## Remove caches and build output (ALL=1: the environments too)
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage build dist
	@find . -path './.venv*' -prune -o -type d -name __pycache__ -print | xargs rm -rf
	@test -z "$(ALL)" || rm -rf .venv .venv-mint .venv-clients .bench

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header
lock: ## For maintainers: resolve the lock files anew (needs uv; UPGRADE=1 takes newer releases)
	@command -v uv >/dev/null || { echo "make lock needs uv on the PATH" >&2; exit 2; }
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements.lock
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --group dev -o requirements-dev.lock
	$(LOCK) $(if $(UPGRADE),--upgrade) requirements-mint.in --overrides requirements-mint.overrides \
		-o requirements-mint.lock
	$(LOCK) $(if $(UPGRADE),--upgrade) requirements-clients.in -o requirements-clients.lock
	$(LOCK) $(if $(UPGRADE),--upgrade) requirements-peers.in -o requirements-peers.lock
	$(LOCK) $(if $(UPGRADE),--upgrade) requirements-profile.in -o requirements-profile.lock

# ── Environments: made once, and again when a lock changes ──────────────────────────────────────
# $(1): directory, $(2): interpreter, $(3): what to say when there is none
define make_venv
	@test -n "$(2)" || { echo "$(3)" >&2; exit 2; }
	@$(1)/bin/python -c "import pip" 2>/dev/null || "$(2)" -m venv --clear $(1)
endef

.venv/.stamp: requirements-dev.lock pyproject.toml
	@echo "Setting up .venv (about 30 s the first time) …" >&2
	$(call make_venv,.venv,$(PYTHON),This needs Python 3.11 or newer with its venv module. Install one or say make PYTHON=/path/to/python)
	@$(BIN)/python $(PIP) install --no-deps --only-binary :all: --require-hashes -r requirements-dev.lock
	@$(BIN)/python $(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv-mint/.stamp: requirements-mint.lock
	@echo "Setting up .venv-mint, the real mint (about 40 s the first time) …" >&2
	$(call make_venv,.venv-mint,$(MINT_PYTHON),The mint needs Python 3.11 or 3.12 with its venv module. Install one or say make MINT_PYTHON=/path/to/python)
	@LC_ALL=C.UTF-8 .venv-mint/bin/python $(PIP) install \
		--no-deps --only-binary :all: --require-hashes -r requirements-mint.lock
	@touch $@

.venv-clients/.stamp: requirements-clients.lock
	@echo "Setting up .venv-clients, the clients of others (about 30 s the first time) …" >&2
	$(call make_venv,.venv-clients,$(PYTHON),This needs Python 3.11 or newer with its venv module. Install one or say make PYTHON=/path/to/python)
	@.venv-clients/bin/python $(PIP) install \
		--no-deps --only-binary :all: --require-hashes -r requirements-clients.lock
	@touch $@

tests/interop/node_modules/.stamp: tests/interop/package-lock.json tests/interop/.npmrc
	@node -e 'process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)' 2>/dev/null && command -v npm >/dev/null || \
		{ echo "The interop tests need Node.js 18 or newer with npm. Install them; nothing else here uses them" >&2; exit 2; }
	@cd tests/interop && npm ci --loglevel=error >&2
	@touch $@

.bench/litellm/.stamp: requirements-peers.lock
	@echo "Setting up .bench/litellm, a proxy to measure beside the node (two minutes the first time) …" >&2
	$(call make_venv,.bench/litellm,$(PYTHON),This needs Python 3.11 or newer with its venv module. Install one or say make PYTHON=/path/to/python)
	@.bench/litellm/bin/python $(PIP) install \
		--no-deps --only-binary :all: --require-hashes -r requirements-peers.lock
	@touch $@

.bench/py-spy/.stamp: requirements-profile.lock
	$(call make_venv,.bench/py-spy,$(PYTHON),This needs Python 3.11 or newer with its venv module. Install one or say make PYTHON=/path/to/python)
	@.bench/py-spy/bin/python $(PIP) install \
		--no-deps --only-binary :all: --require-hashes -r requirements-profile.lock
	@touch $@

.bench/portkey/.stamp: bench/peers/package-lock.json bench/peers/package.json bench/peers/.npmrc
	@node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' 2>/dev/null && command -v npm >/dev/null || \
		{ echo "make bench PEERS=1 needs Node.js 20 or newer with npm: install the system packages nodejs and npm" >&2; exit 2; }
	@mkdir -p .bench/portkey
	@cp bench/peers/package.json bench/peers/package-lock.json bench/peers/.npmrc .bench/portkey
	@cd .bench/portkey && npm ci --loglevel=error >&2
	@touch $@
