# make repro: set everything up, run the pipeline, print the result table.  make test: set everything up, pass the tests.
# make check: what a developer wants before a commit.  make lock: resolve the lock again after an edit of pyproject.toml.
# make signals: train and measure every preference signal, print them side by side.
# make benchmarks: ask every policy the benchmarks whose questions lie in data/raw/tasks.
# make ablations: what each choice of the algorithm is worth, as DVC experiments.
# make seeds: what the claim is worth over five seeds, as DVC experiments.
# make verify: the reader's proof.  make invalidation, make chaos: the long proofs of what reruns and what survives.
# make families: models of eight families through the whole pipeline.  make paper-small: the paper's profile in small.
# make layouts: every trainer on two processes against one.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENGINE := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
OTHER := $(if $(filter gpu,$(ENGINE)),cpu,gpu)
STAMP := $(VENV)/installed-$(ENGINE)
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONUTF8 := 1
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: setup repro signals benchmarks ablations seeds test check lock verify invalidation chaos families paper-small layouts
setup: $(STAMP)

# torch first, with what it needs itself; then the complete lock as it is. Neither torchvision (its registry build breaks a CPU torch)
# nor llama-cpp-python (compiles for minutes) is in the lock, so nothing may resolve dependencies again: --no-deps.
$(STAMP): requirements.lock
	@rm -f $(VENV)/installed-*
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "setup: Python %d.%d found, 3.11 to 3.13 is needed; run: make PYTHON=python3.11" % sys.version_info[:2])'
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	grep -v '# $(OTHER)$$' requirements.lock > $(VENV)/wanted.txt
	$(BIN)/pip install --quiet --constraint requirements.lock "$$(grep -o '^torch==[^ ]*' requirements.lock)"
	grep -v '# torch$$' $(VENV)/wanted.txt | $(BIN)/pip install --quiet --no-deps --requirement /dev/stdin
	touch $@

repro: setup
	dvc --wait-for-lock repro --quiet
	@cat metrics/table.md; echo "report: metrics/report.html"

signals: setup
	@python -m stages.tools.signals
	@echo "report: metrics/signals.html"

benchmarks: setup
	@python -m stages.tools.benchmarks

ablations: setup
	python -m stages.tools.ablations

seeds: setup
	@python -m stages.tools.seeds

test: setup
	ruff format --check .
	ruff check .
	basedpyright
	python -m pytest -q -p no:randomly -n 2 --dist loadfile --no-loadscope-reorder --durations 15

check: setup
	ruff format --check .
	ruff check .
	basedpyright
	python -m pytest -q -p no:randomly -m "not slow" -n 2 --dist loadfile

verify: setup
	@python -m stages.tools.verify

invalidation: setup
	python -m tests.trust.invalidation

families: setup
	python -m tests.trust.families

layouts: setup
	python -m tests.trust.layouts

paper-small: setup
	python -m tests.trust.paper_small

chaos: setup
	python -m tests.trust.chaos
	python -m tests.trust.kills_in_rows

# Every line of the lock may carry a tag: torch (comes with torch), cpu or gpu (only that engine wants it).
lock: setup
	tests/lock.sh
