# Every target works on a machine that has only Python 3.11 or newer and make: what else it needs
# goes into .venv, once. PYTHON=... names another Python, PORT=... another port for the demo.

PYTHON ?= python3
PORT ?= 8000
# The commit with which `make costs` compares, and another benchmark to do it by.
REV ?= 09e9fed
PEERS ?=

BIN = .venv/bin
SOURCES := $(shell find nocookie -name '*.py') pyproject.toml README.md

# tox looks on PATH, where pyenv shows only the version that is switched on.
FOUND := $(wildcard $(foreach root,$(or $(PYENV_ROOT),$(HOME)/.pyenv),\
	$(root)/versions/3.1[1-9].*/bin/python))
# What runs everything, real servers included: 3.13 where it is there, else the Python that runs
# make. The others run the core.
FULL = $(or $(if $(findstring /versions/3.13.,$(FOUND)),py313),\
	$(shell python3.13 -c 'print("py313")' 2>/dev/null),\
	$(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])'))
CORE = $(filter-out $(FULL),py311 py312 py313)
TOX = $(if $(FOUND),--discover $(FOUND)) --skip-missing-interpreters $(if $(filter true,$(CI)),false,true)
comma := ,
empty :=
space := $(empty) $(empty)

.PHONY: help demo test soak lint bench bench-stores bench-scale bench-rewriter bench-drivers costs mutants docs clean

help:
	@echo 'make demo    serve the demo on 127.0.0.1:8000 (PORT=8123 make demo: on another port)'
	@echo 'make test    run all tests on the built wheel, with real servers; the core under each Python from 3.11, side by side'
	@echo 'make soak    run all tests under one Python; races, kills and generated input five to ten times as long, and failing calls on every store'
	@echo 'make lint    ruff and mypy'
	@echo 'make bench   measure what a request costs, beside Beaker'
	@echo 'make bench-stores measure what it costs on each store, beside Beaker'
	@echo 'make bench-scale measure stores with up to a million sessions, and what a purge costs'
	@echo 'make bench-rewriter measure what rewriting a page costs, beside other rewriters, and count who is right'
	@echo 'make costs   compare what a request costs with another commit (REV=...)'
	@echo 'make bench-drivers see which promises drivers keep that a store could use, and what they cost'
	@echo 'make mutants break the code on purpose and see which test notices'
	@echo 'make docs    write docs/configuration.md from the table of options'
	@echo 'make clean   remove what these made, except the data of the demo'

demo: $(BIN)/.installed
	@exec $(BIN)/nocookie demo --port $(PORT) --data-dir data

test: $(BIN)/.tox
	$(BIN)/python tests/realservers/install.py
	$(BIN)/tox run-parallel --parallel auto --parallel-no-spinner \
		-e $(subst $(space),$(comma),full $(CORE)) $(TOX)

soak: $(BIN)/.tox
	$(BIN)/python tests/realservers/install.py
	$(BIN)/tox run -e soak $(TOX)

lint: $(BIN)/.lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv-bench/bin/.installed
	.venv-bench/bin/python tests/bench/run.py $(BENCH)

bench-stores: .venv-bench/bin/.installed
	.venv-bench/bin/python tests/bench/stores.py $(BENCH)

bench-scale: .venv-bench/bin/.installed
	.venv-bench/bin/python tests/bench/scale.py $(BENCH)

bench-rewriter: .venv-bench/bin/.installed
	.venv-bench/bin/python tests/realservers/install.py php
	.venv-bench/bin/python tests/bench/rewriters.py $(BENCH)

costs: .venv-bench/bin/.installed
	.venv-bench/bin/python tests/realservers/install.py memcached
	.venv-bench/bin/python tests/bench/compare.py $(REV) $(if $(PEERS),--peers $(PEERS)) $(BENCH)

bench-drivers: .venv-bench/bin/.drivers
	.venv-bench/bin/python tests/realservers/install.py memcached
	set -e; for part in $(wildcard tests/bench/drivers_*.py); do .venv-bench/bin/python $$part $(BENCH); done

mutants: $(BIN)/.installed
	$(BIN)/python tests/realservers/install.py memcached
	$(BIN)/python -m pip install --quiet '.[crypto,redis,memcached,sqlalchemy]' --group test --group servers
	$(BIN)/python tests/mutants.py $(MUTANTS)

docs: $(BIN)/.installed
	$(BIN)/python -c 'from nocookie.options import reference; print(reference(), end="")' \
		> docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md

clean:
	rm -rf .venv .venv-bench .tox build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A file .name in a venv says that it has what the target of that name needs.

$(BIN)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer, please: make PYTHON=/path/to/python3")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(BIN)/.installed: $(BIN)/.made $(SOURCES)
	$(BIN)/python -m pip install --quiet '.[crypto]'
	@touch $@

$(BIN)/.tox: $(BIN)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --group tox
	@touch $@

$(BIN)/.lint: $(BIN)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet '.[crypto,redis,memcached,sqlalchemy]' --group lint
	@touch $@

.venv-bench/bin/.installed: $(SOURCES)
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.venv-bench/bin/python -m pip install --quiet '.[crypto,redis,memcached,sqlalchemy]' --group bench --group servers
	@touch $@

.venv-bench/bin/.drivers: .venv-bench/bin/.installed
	.venv-bench/bin/python -m pip install --quiet --group drivers
	@touch $@
