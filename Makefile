# What a contributor types. Every target sets up .venv first, so a fresh machine needs Python 3.11 and make only.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SHARED := ../shared
SETS := $(foreach set,breastmnist pneumoniamnist bccd_cells_28,--data $(SHARED)/data/$(set).npz)
ENCODED := --encoder squeezenet1_0 --weights $(SHARED)/weights/squeezenet1_0_imagenet.pth
COMPARED := $(SETS) --epsilon 8 --epsilon 3 --epsilon 3 $(ENCODED) --without sisa --output runs/comparison
PROTOS := dev/fedmunkey/protos/*.proto

AUDIT := .venv-audit

HANDBOOK := $(BIN)/python -m tests.handbook

.PHONY: demo console-demo demo-transformer deploy-local handbook test test-again check format moments bench results protos docs browser \
	audit-dependencies hashes clean

demo: $(VENV)/.installed  ## Five hospitals learn digits together and forget on the way.
	$(BIN)/munkey-sim run --hospitals 5 --delete records:5%@2 --delete subjects:10@3 --delete site:2@4

console-demo: $(VENV)/.installed  ## A small federation with requests in many states, and the officer's console on it.
	$(BIN)/munkey-sim console-demo

demo-transformer: $(VENV)/.installed  ## The same with the transformer that is published, trained step by step.
	$(BIN)/munkey-sim run --guarantee empirical --hospitals 5 --delete records:5%@3 --delete subjects:10@4 --delete site:2@5

deploy-local: $(VENV)/.installed  ## A coordinator and three hospitals as processes of their own, from nothing to a certificate.
	$(BIN)/munkey-sim deploy-local

handbook: $(VENV)/.installed-dev  ## Types every command of the README and of docs/operations.md, with SQLite and with PostgreSQL.
	$(HANDBOOK) README.md docs/operations.md
	MUNKEY_POSTGRES=$$(PYTHON=$(BIN)/python .ci/postgresql) $(HANDBOOK) docs/operations.md --ledger PostgreSQL

test: $(VENV)/.installed-dev  ## All tests, with line coverage of common, client and server.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses auto --cov --cov-report term

test-again: $(VENV)/.installed-dev  ## What failed in make test, one after the other and without coverage, up to the first that fails again.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --exitfirst --last-failed --last-failed-no-failures none

# Else every process that a test starts would compile all that it imports.
test test-again: export PYTHONDONTWRITEBYTECODE :=

check: $(VENV)/.installed-dev  ## ruff and mypy.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## Put the code into ruff's form.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

moments: $(VENV)/.installed-dev  ## Ends a simulation at 20 random moments, by SIGTERM and SIGKILL, and looks for what is left.
	MUNKEY_MOMENTS=20 $(BIN)/pytest -q --no-cov -rP tests/simulations/run/test_random_moments.py

bench: $(VENV)/.installed-dev  ## Every figure as a ratio measured in one run, into bench.json.
	$(BIN)/munkey-sim bench --output bench.json

results: $(VENV)/.installed  ## The tables of docs/results/, which docs/results.md sums up; finished cells are kept.
	$(BIN)/munkey-sim compare $(COMPARED)
	cp runs/comparison/report.md docs/results/random-records.md
	$(BIN)/munkey-sim compare $(COMPARED) --alpha 1 --alpha 0.3
	cp runs/comparison/report.md docs/results/unlike-hospitals.md
	$(BIN)/munkey-sim compare $(COMPARED) --forget-set subjects --forget-set site
	cp runs/comparison/report.md docs/results/patients-and-sites.md

protos: $(VENV)/.installed-dev  ## The code generated from protos/*.proto.
	$(BIN)/python -m grpc_tools.protoc -Idev --python_out=dev --pyi_out=dev --grpc_python_out=dev $(PROTOS)

browser:  ## Chromium for the tests of pages, and what checks them for accessibility, where these can be installed.
	@test -f node_modules/axe-core/axe.min.js || npm install --no-save --no-package-lock --silent axe-core@4 >/dev/null 2>&1 \
		|| echo "no axe-core: pages are not checked for accessibility"
	@command -v chromium >/dev/null \
		|| { apt-get update && apt-get install --yes --no-install-recommends chromium; } >/dev/null 2>&1 \
		|| echo "no Chromium: tests in a browser are skipped"

audit-dependencies: $(AUDIT)/.installed  ## Known vulnerabilities of exactly what constraints.txt installs, and sbom.json.
	$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file sbom.json $(AUDIT)/site
	$(AUDIT)/bin/pip-audit --path "$$($(AUDIT)/site/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

hashes: $(VENV)/.installed  ## requirements.txt: what a site or a coordinator installs, each file with its hash, from your package index.
	$(BIN)/uv pip compile pyproject.toml $(EXTRAS:%=--extra %) --constraint constraints.txt --generate-hashes --no-header --quiet \
		$(UV_OPTIONS) --output-file requirements.txt

docs: $(VENV)/.installed  ## The references of settings and commands.
	$(BIN)/python -m fedmunkey.common.settings.settings_reference > docs/settings.md
	$(BIN)/munkey-sim command-reference > docs/commands.md
	$(BIN)/munkey-sim files-reference > docs/files.md

clean:
	rm -rf $(VENV) $(AUDIT) sbom.json requirements.txt build dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[simulation]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	touch $@

# What a site or a coordinator installs, and beside it the tools that look at it.
$(AUDIT)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.7,<3' 'cyclonedx-bom>=7,<8'
	$(PYTHON) -m venv --without-pip $(AUDIT)/site
	$(AUDIT)/bin/python -m pip --python $(AUDIT)/site/bin/python install --quiet --disable-pip-version-check \
		--constraint constraints.txt '.[certified,pdf,postgresql]'
	touch $@
