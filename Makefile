# Everything runs in .venv, which `make install` makes with Python 3.11 or newer; nothing else is
# needed but a C++ compiler (g++), and that only for compiled training.
PYTHON ?= python3
BIN := .venv/bin
DEMO_BUDGET ?= train.max_minutes=2
DEMO_PS ?= 5
DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: install test test-slow test-peers lint demo clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

# the fast suite: under four minutes on two cores
test: install
	$(BIN)/pytest --numprocesses 2

# everything, with the many kills, the real compiler and the long runs
test-slow: install
	$(BIN)/pytest --numprocesses 2 -m "slow or not slow"

# networks of other packages: with what they pull in, in an environment of their own
test-peers: .venv-peers/installed
	.venv-peers/bin/pytest --numprocesses 2 tests/peers

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
	@echo "The run is in $(DEMO). Look at learning_curve.png and parity.png there, and at"
	@echo "md/md.png; the potential is model.safetensors, the trajectory md/md.extxyz."

clean:
	rm -rf .venv .venv-peers dist build .pytest_cache .ruff_cache .hypothesis
