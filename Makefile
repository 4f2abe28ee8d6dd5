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

$(STAMPS)/run $(STAMPS)/dev $(STAMPS)/site: $(STAMPS)/%: requirements/%.txt $(STAMPS)/uv
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r $<
	@touch $@

$(STAMPS)/collections: requirements/collections.txt requirements.yml scripts/collections_from_wheel.py $(STAMPS)/uv
	@rm -rf $(STAMPS)/wheels
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
	  --dest $(STAMPS)/wheels -r $<
	@$(BIN)/python scripts/collections_from_wheel.py $(STAMPS)/wheels requirements.yml collections
	@rm -rf $(STAMPS)/wheels
	@touch $@

.PHONY: new-service
new-service: setup ## An inventory for a service of your own, with one file to fill in: NAME=shop URL=https://shop.example.org ADAPTER=pm2
	@$(PLAYBOOK) new_service.yml -e new_service_name='$(NAME)' -e new_service_url='$(URL)' -e new_service_adapter='$(or $(ADAPTER),pm2)'

.PHONY: plan-check
plan-check: setup ## Every error of a plan at once, by line, without a server: PLAN=name (all), RELEASE=path compares the migration
	@$(BIN)/python scripts/plan_check.py $(PLAN) $(if $(RELEASE),--release '$(RELEASE)')

.PHONY: collection
collection: setup ## The Ansible collection of this tree, for your own repository: dist/*.tar.gz (docs/collection.md)
	@$(BIN)/python scripts/build_collection.py

.PHONY: lock
lock: $(STAMPS)/uv ## Compile the lock files of requirements/ again (UPGRADE=1: to newer versions)
	for name in run dev site collections lab-node lab-postgres core-2.20 core-2.21 hosts; do \
	  case $$name in core-*) python=3.12;; hosts) python=3.9;; *) python=3.11;; esac; \
	  case $$name in run) more=;; dev) more="--constraint requirements/run.txt";; \
	    site) more="--constraint requirements/dev.txt";; *) more=--no-deps;; esac; \
	  $(UV) pip compile --quiet --universal --python-version $$python --generate-hashes $(if $(UPGRADE),--upgrade) $$more \
	    --custom-compile-command "make lock" requirements/$$name.in --output-file requirements/$$name.txt; \
	done

## ---- The lab: the whole service on this machine ---------------------------------------------------------------------

.PHONY: demo lab-up lab-down lab-reset lab-staging tools
demo: lab-up ## Set up, start the lab, deploy to it, say where the report is
	@$(DEPLOY)
	@$(BIN)/python scripts/demo_summary.py artifacts/local/latest

lab-up: setup ## Start the lab if it is not up; LAB_SURPLUS=N for a larger example
	@$(LAB) lab/up.yml

lab-down: setup ## Stop the lab; what it holds stays
	@$(LAB) lab/down.yml

lab-reset: setup ## Take the lab back to the guide's example; LAB_KEEP_BUILDS=true keeps built releases
	@$(LAB) lab/reset.yml

lab-staging: lab-up ## A second environment beside the lab, as new each time, to rehearse in: -i inventories/local_staging
	@$(LAB) lab/staging.yml

tools: setup ## Node.js, PostgreSQL and PM2 in .lab, without a lab
	@$(LAB) lab/tools.yml

.PHONY: history
history: setup ## Who deployed what, when, and what came out: ENVIRONMENT=production (or staging, local)
	@$(PLAYBOOK) history.yml -i inventories/$(or $(ENVIRONMENT),local) -l $(or $(ENVIRONMENT),local)

.PHONY: lab-commit lab-fault
lab-commit: setup ## Push one more commit to the lab's origin: NAME=second-rule (deploy it with -e app_branch=NAME)
	@lab/bin/push-commit $(NAME)

lab-fault: setup ## Push a commit with a real fault to the lab's origin: FAULT=the name of a folder of lab/faults or lab/variants
	@lab/bin/push-fault $(FAULT)

## ---- Tests: everything that CI runs ---------------------------------------------------------------------------------

# Tests that repeat a rule are marked thorough: `make test` leaves them out, `make test-all` (THOROUGH=1) does not.
THOROUGH ?=
PYTEST := $(BIN)/python -m pytest $(if $(THOROUGH),,-m "not thorough")
WORKERS := --numprocesses auto # each with a PostgreSQL or a browser of its own; what a suite starts must stand that
PLAYBOOKS := $(wildcard *.yml)
FRONT_DOORS := $(filter-out requirements.yml,$(PLAYBOOKS))
# A systemd of the tests' own is booted as root: sudo has to ask for nothing where somebody else makes it.
BOOTED := /lib/systemd/systemd:systemd nsenter:util-linux
AS_ROOT = $(if $(filter 0,$(shell id -u)),,sudo --non-interactive env PYTHONDONTWRITEBYTECODE=1)
# Linters that import modules find this project's module_utils through scripts/lint/sitecustomize.py.
LINT_ENV := ANSIBLE_LINT_SKIP_SCHEMA_UPDATE=1 PYTHONPATH=scripts/lint PATH=$(CURDIR)/$(BIN):$(PATH)

# Each suite is a target of its own; scripts/run_suites.sh stops after the first that fails and prints the seconds of each.
# BESIDE: what needs the processor and neither a lab nor its own time runs beside the SUITES that wait for a service; the
# matrix runs behind those, so that both lists take as long. What takes more than a night's 85 minutes by itself has a job of its
# own there, and a part of it here: 200 of 1,000 adversarial trials, a sample of chaos, the matrix for what differs.
BESIDE := lint unit database
SUITES := molecule deploy-tests chaos-essential service hosts matrix-ends
ALL_BESIDE := lint unit pages database adversarial matrix-night systemd
ALL_SUITES := molecule molecule-fault deploy-tests chaos-sample service hosts

.PHONY: test test-all test-packages lint unit pages database service hosts molecule molecule-fault deploy-tests chaos \
  chaos-essential chaos-sample docs
test: setup-dev tools test-packages ## Everything that CI runs; the goal is 45 minutes on 2 cores
	@scripts/run_suites.sh "$(BESIDE)" "$(SUITES)"

test-all: THOROUGH := 1
test-all: setup-dev tools test-packages ## The same with every repetition: what runs by night, in at most 85 minutes
	@THOROUGH=1 TRIALS=200 scripts/run_suites.sh "$(ALL_BESIDE)" "$(ALL_SUITES)"

test-packages: ## The system packages that only tests need: installed by root on Debian and Ubuntu, named elsewhere
	@scripts/test_packages.sh sshd:openssh-server nginx:nginx-light chromium:chromium \
	  pgbouncer:pgbouncer fc-list:fontconfig lang=ko:fonts-nanum $(if $(THOROUGH),promtool:prometheus $(BOOTED))

lint: setup-dev site ## Style, types, links, the packages' layers, the hosts' Python, the playbooks' rules, ansible-test's checks, the docs' tables
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(BIN)/vermin --target=3.9- --no-tips --violations module_utils library
	PYTHONPATH=module_utils $(BIN)/lint-imports --no-logo
	$(BIN)/yamllint --strict .
	@git ls-files -z | xargs -0 $(BIN)/codespell
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.gitlab-ci monitor/gitlab-ci.yml
	@mkdir -p .ansible
	$(LINT_ENV) $(BIN)/ansible-lint --strict 2> .ansible/lint.log || { cat .ansible/lint.log; exit 1; }
	@! grep 'Ignored exception' .ansible/lint.log # a rule that skips a file in silence is a failure here
	$(BIN)/python scripts/variables_table.py --check
	$(BIN)/python -m scripts.catalogue --check
	$(BIN)/python scripts/troubleshooting.py --check
	$(BIN)/python -m scripts.stops_table --check
	@$(BIN)/ansible-doc --type module --json $(notdir $(basename $(wildcard library/*.py))) > /dev/null
	@$(BIN)/python -m scripts.sanity > .ansible/sanity.log 2>&1 || { cat .ansible/sanity.log; exit 1; }
	@for environment in production staging local local_staging; do for playbook in $(FRONT_DOORS); do \
	  echo $$playbook -i inventories/$$environment -l $$environment; done; done \
	  | xargs -P 2 -L 1 $(PLAYBOOK) --syntax-check > /dev/null
	@echo "lint: modules documented, every playbook parses against every inventory"

unit: setup-dev ## Pure functions, the house's own rules, what people see
	$(PYTEST) $(WORKERS) tests/unit tests/house tests/report tests/notify tests/dashboard

pages: setup-dev test-packages site ## Report, dashboard and documents in Chromium: nothing cut, no network, nothing that axe calls serious
	$(PYTEST) $(WORKERS) tests/pages

database: setup-dev tools test-packages ## The core against a real PostgreSQL
	$(PYTEST) $(WORKERS) tests/database
	$(if $(THOROUGH),,$(PYTEST) tests/adversarial)

.PHONY: coverage
COVERED := duplicates indexes prisma migration runs # what touches rows, indexes and what is recorded of them
coverage: setup-dev tools test-packages ## Which lines and branches of the core the unit and database tests reach
	@rm -rf .ansible/coverage && mkdir -p .ansible/coverage
	$(BIN)/coverage run -m pytest $(WORKERS) tests/unit tests/database
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage json --quiet -o .ansible/coverage/report.json
	@$(BIN)/python scripts/coverage_table.py .ansible/coverage/report.json $(COVERED)

.PHONY: matrix matrix-ends matrix-night
matrix: setup-dev tools test-packages ## The same on PostgreSQL 13, 14, 15, 16, 17 and 18, one line each (docs/versions.md)
	@$(BIN)/python matrix/run.py

matrix-ends: setup-dev tools ## On the oldest and the newest: the tests of what differs between versions
	@$(BIN)/python matrix/run.py --ends --quick

# What differs between versions is marked; the rest of tests/database has run on the machine's own server already.
matrix-night: setup-dev tools ## On each of them: the tests of what differs between versions
	@$(BIN)/python matrix/run.py --quick

.PHONY: core-matrix
core-matrix: setup-dev tools ## Playbooks, tests and a deployment on ansible-core 2.19, 2.20 and 2.21 and on each Python of the hosts: ONLY=2.21
	@$(BIN)/python -m matrix.core $(if $(ONLY),--only '$(ONLY)') $(if $(STEPS),--steps '$(STEPS)') $(if $(HOSTS),--hosts '$(HOSTS)')

.PHONY: adversarial
TRIALS ?= 1000
adversarial: setup-dev tools ## 1,000 clean-ups and builds against eight writers who do not stop (TRIALS=N); CI runs a sample
	ADVERSARIAL_TRIALS=$(TRIALS) $(PYTEST) tests/adversarial

.PHONY: mutants
mutants: setup-dev tools ## Small changes of the core, one by one: killed of tried, 8 minutes of them; ALL=1: every one
	PYTHONPATH=module_utils:. $(BIN)/python -m tests.mutants $(if $(ALL),--all) $(MUTANTS_OPTIONS)

service: setup-dev tools ## PM2, the traffic probe and the service checks against real processes
	$(PYTEST) --numprocesses 2 --dist loadfile tests/service

hosts: setup-dev tools test-packages ## Several hosts over ssh behind nginx: batch by batch, faults, a lost host, a reboot
	$(PYTEST) tests/hosts

.PHONY: systemd
systemd: setup-dev tools test-packages ## Units of a systemd that is booted in namespaces of its own, 10,000 requests, deploy.yml: root
	@scripts/test_packages.sh $(BOOTED)
	@$(AS_ROOT) true || { echo "make systemd: a systemd is booted as root, and this account is $$(id -un). Expected: root, or a" \
	  "sudo that asks for nothing. Next: sudo make systemd." >&2; exit 1; }
	$(AS_ROOT) $(PYTEST) -p no:cacheprovider --durations 8 tests/systemd

molecule: setup-dev lab-up ## The playbooks as a user's CI would run them
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/molecule test --scenario-name default

molecule-fault: setup-dev lab-up ## The same with new code that crashes at its boot: tests/deploy holds the rule as well
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/molecule test --scenario-name fault

deploy-tests: setup-dev lab-up test-packages ## The whole procedure on the lab, its faults and its way back
	$(PYTEST) --durations $(or $(DURATIONS),12) tests/deploy

# Resumable: what was struck with this very code is not struck again. CHAOS_OPTIONS="--minutes 60", "--only restart", ...
chaos: setup-dev lab-up ## Kill, end, restart, freeze, fill and cut off at every point of deploy.yml and rollback.yml, run once more: K of K
	PYTHONPATH=module_utils:. $(BIN)/python -m tests.chaos $(CHAOS_OPTIONS)

# One world: for six points the second one's undisturbed runs cost more than it saves.
chaos-essential: setup-dev lab-up ## The same at the points of no return that cost rows or requests
	PYTHONPATH=module_utils:. $(BIN)/python -m tests.chaos --essential --workers 1 $(CHAOS_OPTIONS)

chaos-sample: setup-dev lab-up ## The same at the points of no return, one of each fault that comes in each phase, and inside every sixteenth statement
	PYTHONPATH=module_utils:. $(BIN)/python -m tests.chaos --sample 10 $(CHAOS_OPTIONS)

.PHONY: bench
bench: setup-dev tools ## The figures in docs/bench.md; BENCH=name for one of them, BENCH_SCALE=0.01 to try it
	@BENCH='$(BENCH)' BENCH_SCALE='$(BENCH_SCALE)' PYTHONPATH=module_utils $(BIN)/python -m bench

.PHONY: screenshots
screenshots: setup-dev test-packages ## The pictures in docs/screenshots, of the lab's newest reports and its dashboard
	$(BIN)/python scripts/page_screenshots.py docs/screenshots --height 2600

.PHONY: profile
profile: setup-dev lab-up ## The slowest tasks of a deployment to the lab (of one with nothing to do, once it is deployed)
	@PYTHONPATH=module_utils $(BIN)/python -m bench.profile

# What the pages link to lies beside them as it does here; a link to anything else fails. The warning is for those who do not pin.
.PHONY: site
SITE := README.md README.ko.md CONTRIBUTING.md CHANGELOG.md SECURITY.md docs plans awx monitor lab/README.md bench/guide.sh
site: setup-dev $(STAMPS)/site ## The documents as pages, every link checked, readable without a network: dist/site/index.html
	@rm -rf .ansible/site && mkdir -p .ansible/site/assets
	@tar -cf - $(SITE) | tar -xf - -C .ansible/site
	@cp .config/site/*.js .config/site/*.css .ansible/site/assets
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean --config-file .config/site/mkdocs.yml 2> .ansible/site.log \
	  || { cat .ansible/site.log; exit 1; } # not --quiet: that would keep --strict from its warnings

docs: setup-dev ## Write the generated parts of the documents again
	$(BIN)/python scripts/variables_table.py
	$(BIN)/python -m scripts.catalogue
	$(BIN)/python scripts/troubleshooting.py
	$(BIN)/python -m scripts.stops_table
	$(BIN)/python -m matrix.core --table
