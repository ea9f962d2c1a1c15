# What one types here. `make run` needs python3 (3.11 or newer, with venv), make and git; no more.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON3 ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell command -v $(name) >/dev/null && $(name) -c 'import sys; \
	print("$(name)" if sys.version_info >= (3, 11) else "")' 2>/dev/null)))
VENV := .venv
PYTHON := $(VENV)/bin/python
JOBS ?= 4
BROWSERS ?= 3
ARGS ?=
# They start hundreds of processes: what one has compiled the others read (PYTHONDONTWRITEBYTECODE unset).
# What `make test` runs: all that needs nothing but this machine and takes no promises of time.
EVERYWHERE := not e2e and not rabbitmq and not openstack and not packages and not chaos

# PORT and STATE_DIR reach `manage.py up` through the environment: make run PORT=8010 STATE_DIR=/tmp/two
export HOST PORT STATE_DIR

.NOTPARALLEL:
.PHONY: help run test test-chaos test-e2e test-openstack test-packages agent-packages lint format bench clean venv \
	venv-dev frontend

help: ## Say what can be done
	@echo "Sentinella. Start with: make run"
	@echo
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo
	@echo "  make run PORT=8010 STATE_DIR=/tmp/second ARGS=--no-agent    a second one beside the first"
	@echo "  make test ARGS='tests/alerts -k reopen'                     some of the tests"

run: venv frontend ## Start everything on this machine, and print where to look
	@exec $(PYTHON) manage.py up $(ARGS)

test: venv-dev frontend ## Run the tests, in parallel, on a PostgreSQL and a Valkey of their own
	@unset HOST PORT STATE_DIR PYTHONDONTWRITEBYTECODE; exec $(PYTHON) -m sentinel_site.embedded run --fast -- \
		$(PYTHON) -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder -m "$(EVERYWHERE)" $(ARGS)

test-chaos: venv-dev frontend ## Kill, rotate and fail for some ten minutes: no line and no sample may be lost
	@unset HOST PORT STATE_DIR; exec $(PYTHON) -m sentinel_site.embedded run --fast -- \
		$(PYTHON) -m pytest -m chaos $(ARGS)

test-e2e: venv-dev frontend ## Run the end-to-end tests in a real browser (needs chromium, prometheus)
	@unset HOST PORT STATE_DIR; $(PYTHON) -m sentinel_site.embedded run --fast -- \
		$(PYTHON) -m pytest -m "e2e and alone" $(ARGS)
	@unset HOST PORT STATE_DIR; exec $(PYTHON) -m sentinel_site.embedded run --fast -- \
		$(PYTHON) -m pytest -n $(BROWSERS) --dist worksteal -m "e2e and not alone" $(ARGS)

test-openstack: venv-dev ## Run the tests against a real OpenStack (root on Debian 12; installs into an overlay)
	@$(PYTHON) -m tests.openstack up
	@status=0; $(PYTHON) -m tests.openstack exec $(PYTHON) -m pytest -m openstack -p no:cacheprovider \
		-p no:django -W ignore::pytest.PytestConfigWarning --confcutdir tests/openstack tests/openstack $(ARGS) || status=$$?; \
		$(PYTHON) -m tests.openstack down; exit $$status

test-packages: venv-dev frontend ## Install the agent's packages into a fresh Debian (root; needs debootstrap, rpm, systemd)
	@unset HOST PORT STATE_DIR; exec $(PYTHON) -m sentinel_site.embedded run --fast -- \
		$(PYTHON) -m pytest -m packages $(ARGS)

agent-packages: venv ## Build the agent's wheel, .deb and .rpm into dist/agent (needs dpkg-deb, rpmbuild)
	@exec $(PYTHON) -m agent_client.packaging $(ARGS)

lint: venv-dev ## Check style, types, layers, templates, migrations and locks
	@failed=; \
	check() { echo "== $$*"; "$$@" || failed="$$failed $$(basename $$1)"; }; \
	no_hosts() { ! git grep -nE '"resolved": *"|--(extra-)?index-url|--find-links|^[^#]*@ *https?://' \
		-- 'requirements*.txt' '*package-lock.json'; }; \
	check $(VENV)/bin/ruff check .; \
	check $(VENV)/bin/ruff format --check .; \
	check $(VENV)/bin/mypy .; \
	check $(VENV)/bin/mypy --python-version 3.10 agent_client; \
	check $(VENV)/bin/lint-imports; \
	check $(VENV)/bin/djlint templates --check --lint; \
	check $(PYTHON) -m sentinel_site.embedded run --fast -- \
		$(PYTHON) manage.py makemigrations --check --dry-run; \
	check no_hosts; \
	[ -z "$$failed" ] || { echo "error: failed:$$failed" >&2; exit 1; }

format: venv-dev ## Put code and templates into shape
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/djlint templates --reformat --quiet

bench: venv-dev ## Measure, side by side with another way
	@unset HOST PORT STATE_DIR; exec $(PYTHON) -m sentinel_site.embedded run -- $(PYTHON) -m benchmarks $(ARGS)

clean: ## Remove what can be made again; the data under var/ stays
	rm -rf $(VENV) node_modules static/vendor .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

venv:
	@$(call install,requirements.txt)

venv-dev:
	@$(call install,requirements-dev.txt)

frontend: venv
	@$(PYTHON) -m sentinel_site.frontend

# Installs a lock, unless the stamp says that this very lock is installed for this very Python.
define install
if [ -z "$(PYTHON3)" ]; then \
	echo "error: Python 3.11 or newer is needed and not found; on Debian 12: apt install python3 python3-venv" >&2; \
	exit 1; \
fi; \
wanted=$$(sha256sum < $(1) | cut -c1-16); \
stamp=$(VENV)/installed-$(1).sha256; \
if [ "$$(cat $$stamp 2>/dev/null)" != "$$wanted" ] || ! $(PYTHON) -c pass 2>/dev/null; then \
	echo "Python packages of $(1) …"; \
	$(PYTHON) -c pass 2>/dev/null || $(PYTHON3) -m venv --clear $(VENV) || { \
		echo "error: no virtual environment; on Debian 12: apt install python3-venv" >&2; exit 1; }; \
	total=$$(grep -cE '^[a-zA-Z0-9].*==' $(1)); \
	PYTHONUNBUFFERED=1 $(PYTHON) -m pip install --disable-pip-version-check --no-input --progress-bar off -r $(1) \
		| awk -v total=$$total '/^(Collecting|Requirement already)/ && ++n % 20 == 0 \
			{ printf "  %d of %d packages\n", n, total; fflush() } \
			/^Installing/ { print "  installing"; fflush() }'; \
	echo "$$wanted" > $$stamp; \
fi
endef
