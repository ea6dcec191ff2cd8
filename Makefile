# Each target sets up what it needs first. `make` alone lists them.
PYTHON ?= python3
# For pytest, such as PYTEST_ARGUMENTS="-k trust --exitfirst"; by default a worker for each of two cores.
PYTEST_ARGUMENTS ?= --numprocesses=2 --dist=loadfile
# How long to fuzz, all targets together, or to prove.
SECONDS ?= 60
# How many followers to kill.
ROUNDS ?= 1000
# The kernel that the lab boots; its modules belong beside it, in ../lib/uml/modules.
UML ?= linux.uml

VENV := .venv
BIN := $(VENV)/bin
# Commands of the system that a target and its set-up need.
TO_RUN := gpg ipset iptables ip unshare
demo proof mutants soak crash: NEEDS := $(TO_RUN)
bench: NEEDS := $(TO_RUN) compiler
test lowest: NEEDS := $(TO_RUN) systemd-analyze
fuzz: NEEDS := gpg
lab: NEEDS := $(TO_RUN) $(UML) modprobe swanctl /usr/lib/ipsec/charon
# Debian's ordinary users do not have the directories of ipset and iptables in their PATH.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
export PYTHON UML

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test fuzz proof crash mutants lab lint format bench soak constraints lowest clean

help:  ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: $(VENV)/demo.stamp  ## Watch real packets being accepted and dropped
	@scripts/install-system-packages $(NEEDS)
	$(BIN)/reyes demo

test: $(VENV)/dev.stamp  ## Run all tests
	@scripts/install-system-packages $(NEEDS)
	$(BIN)/pytest $(PYTEST_ARGUMENTS)

fuzz: $(VENV)/fuzz.stamp  ## Look for inputs that break a property, for SECONDS=60
	@scripts/install-system-packages $(NEEDS)
	$(BIN)/python -m tests.fuzz $(SECONDS)

proof: $(VENV)/dev.stamp  ## Compare oracle, compiled chains and kernel on random worlds, for SECONDS=60
	@scripts/install-system-packages $(NEEDS)
	$(BIN)/python -m tests.proof $(SECONDS)

crash: $(VENV)/dev.stamp  ## Kill followers in the middle of commits, at ROUNDS=1000 random moments
	@scripts/install-system-packages $(NEEDS)
	REYES_CRASH_ROUNDS=$(ROUNDS) $(BIN)/pytest $(PYTEST_ARGUMENTS) tests/kernel/test_crash.py

mutants: $(VENV)/dev.stamp  ## Put faults into a copy of the package and see the tests find each
	@scripts/install-system-packages $(NEEDS)
	$(BIN)/python -m tests.mutants

lab: $(VENV)/dev.stamp  ## Judge packets out of real IPsec, in a kernel of its own
	@scripts/install-system-packages $(NEEDS)
	$(BIN)/python -m tests.lab

lint: $(VENV)/dev.stamp  ## Check style, types and import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp  ## Mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/dev.stamp  ## Measure each stage beside its floor
	@scripts/install-system-packages $(NEEDS)
	@mkdir -p build
	$(BIN)/python -m tests.bench --json build/bench.json

soak: $(VENV)/dev.stamp  ## Let a resident follower make 10,000 passes, and look at its memory
	@scripts/install-system-packages $(NEEDS)
	$(BIN)/python -m tests.soak

constraints:  ## Write constraints.txt anew; run it with the oldest Python that is supported
	@scripts/install-system-packages venv
	$(PYTHON) -m venv --clear build/fresh
	build/fresh/bin/python -m pip install --quiet --editable '.[dev]'
	build/fresh/bin/python -m pip freeze --exclude-editable > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -r build/fresh

lowest:  ## Run the tests that need no kernel with the oldest packages that are allowed
	@scripts/install-system-packages venv $(NEEDS)
	$(PYTHON) -m venv --clear build/lowest
	$(PYTHON) scripts/lowest-versions > build/lowest.txt
	build/lowest/bin/python -m pip install --quiet --editable '.[dev]' --constraint build/lowest.txt
	build/lowest/bin/python -m pytest -n 2 tests/unit tests/integration
	rm -r build/lowest

clean:  ## Remove all that the other targets made here; system packages stay
	rm -rf $(VENV) build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -r {} +

# A set-up that was stopped leaves `unfinished` behind, and the next one starts from nothing.
$(VENV)/%.stamp: $(BIN)/python pyproject.toml constraints.txt
	@scripts/install-system-packages venv $(NEEDS)
	@if test -e $(VENV)/unfinished || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/unfinished
	@test -e $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Python packages into $(VENV); the first time takes a minute"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]' --constraint constraints.txt
	@rm $(VENV)/unfinished
	@touch $@

# No recipe: an interpreter that is not there, or was replaced by a newer one, makes the stamps stale.
$(BIN)/python:
