# Everything runs in .venv, which `make install` creates. Requirements: Python 3.11 or newer and,
# only for compiled training, a C++ compiler (g++).
PYTHON ?= python3
BIN := .venv/bin
DEMO_BUDGET ?= train.max_minutes=2
DEMO_PS ?= 5
# of processor time, for each target of the fuzzers
MINUTES ?= 30
DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: install test test-slow test-peers fuzz lint demo clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

# the fast suite: under four minutes on two cores
test: install
	$(BIN)/pytest --numprocesses 2

# all tests, including many interrupted runs, the real compiler and long runs
test-slow: install
	$(BIN)/pytest --numprocesses 2 -m "slow or not slow"

# odd and damaged input of every kind, by hand: make fuzz MINUTES=5
fuzz: install
	$(BIN)/python tests/fuzz/run.py --minutes $(MINUTES) $(TARGETS)

# networks of other packages, in a separate environment because of their dependencies
test-peers: .venv-peers/installed
	.venv-peers/bin/pytest --numprocesses 2 -m "slow or not slow" tests/peers

.venv-peers/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".[dev,schnetpack]"
	touch $@

lint: install
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/pyright
	$(BIN)/python .ci/size.py

# data → training → errors → dynamics → plots, in about three minutes
demo: install
	$(BIN)/gradpot train --model painn --out $(DEMO) $(DEMO_BUDGET)
	$(BIN)/gradpot md $(DEMO)/model.safetensors CH3CH2OH --temperature-K 500 --time-ps $(DEMO_PS) \
		--timestep-fs 0.5 --ensemble langevin --out $(DEMO)/md
	@echo
	@echo "The run is in $(DEMO). See learning_curve.png, parity.png and md/md.png there."
	@echo "The potential is model.safetensors; the trajectory is md/md.extxyz."

clean:
	rm -rf .venv .venv-peers dist build .pytest_cache .ruff_cache .hypothesis
