# at-most-one. `make` alone lists the targets. Nothing is installed outside the checkout.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
UV := $(BIN)/uv
PLAYBOOK := $(BIN)/ansible-playbook
LAB := $(PLAYBOOK) -i lab/inventory
DEPLOY := $(PLAYBOOK) deploy.yml -i inventories/local -l local

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## ---- Setting up -------------------------------------------------------------------------------------------------------

.PHONY: setup setup-dev
setup: $(STAMPS)/run $(STAMPS)/collections ## Make the Python environment and the collections that a deployment needs
setup-dev: $(STAMPS)/dev $(STAMPS)/collections ## The same with everything that tests and linters need

# The environment itself. uv comes first, alone, by its hash; it installs the rest by theirs and removes nothing.
$(STAMPS)/uv: requirements/run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make setup: $(PYTHON) is $$($(PYTHON) --version 2>&1 || true). Expected: Python 3.11 or newer." \
	       "Next: install it, or name another one: make setup PYTHON=/usr/bin/python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "make setup: $(PYTHON) cannot make a virtual environment. Next: install its venv module" \
	       "(on Debian and Ubuntu: apt-get install python3-venv)." >&2; rm -rf $(VENV); exit 1; }
	@mkdir -p $(STAMPS)
	@awk '/^uv==/ {take = 1} /^[a-z]/ && !/^uv==/ {take = 0} take && !/# via/ && !/^    #/' $< > $(STAMPS)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(STAMPS)/uv.txt
	@touch $@

$(STAMPS)/run $(STAMPS)/dev: $(STAMPS)/%: requirements/%.txt $(STAMPS)/uv
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r $<
	@touch $@

$(STAMPS)/collections: requirements/collections.txt requirements.yml scripts/collections_from_wheel.py $(STAMPS)/uv
	@rm -rf $(STAMPS)/wheels
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
	  --dest $(STAMPS)/wheels -r $<
	@$(BIN)/python scripts/collections_from_wheel.py $(STAMPS)/wheels requirements.yml collections
	@rm -rf $(STAMPS)/wheels
	@touch $@

.PHONY: lock
lock: $(STAMPS)/uv ## Compile the lock files of requirements/ again (UPGRADE=1: to newer versions)
	for name in run dev collections lab-node lab-postgres; do \
	  case $$name in run) more=;; dev) more="--constraint requirements/run.txt";; *) more=--no-deps;; esac; \
	  $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes $(if $(UPGRADE),--upgrade) $$more \
	    --custom-compile-command "make lock" requirements/$$name.in --output-file requirements/$$name.txt; \
	done

## ---- The lab: the whole service on this machine ---------------------------------------------------------------------

.PHONY: demo lab-up lab-down lab-reset tools
demo: lab-up ## Set up, start the lab, deploy to it, say where the report is
	@$(DEPLOY)
	@$(BIN)/python scripts/demo_summary.py artifacts/local/latest

lab-up: setup ## Start the lab if it is not up; LAB_SURPLUS=N for a larger example
	@$(LAB) lab/up.yml

lab-down: setup ## Stop the lab; what it holds stays
	@$(LAB) lab/down.yml

lab-reset: setup ## Take the lab back to the guide's example; LAB_KEEP_BUILDS=true keeps built releases
	@$(LAB) lab/reset.yml

tools: setup ## Node.js, PostgreSQL and PM2 in .lab, without a lab
	@$(LAB) lab/tools.yml
