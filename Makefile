# Three commands, each of which sets itself up in .venv: make lab, make train, make test.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/series

.DEFAULT_GOAL := help
.PHONY: help lab train test bench corpus
help:
	@echo "make lab     open the series in JupyterLab"
	@echo "make train   train the final model on the prose of the series, into $(OUT), and print text from it"
	@echo "make test    everything that CI runs"
	@echo "make bench   speed and memory beside other libraries, into runs/bench: half an hour in which nothing else should run"
	@echo "make corpus  take a new snapshot of the prose of the series"

.venv/ready: setup.py settings.ini pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

lab: .venv/ready
	$(BIN)/nbdev_trust
	$(BIN)/jupyter lab nbs/index.ipynb

train: .venv/ready
	$(BIN)/transformer-nb train --out $(OUT) --overwrite --steps 600

# Two pages at a time, one thread each: two processes with two threads each would get in each other's way.
test: .venv/ready
	$(BIN)/python -m pytest -q tests/test_repository.py
	OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2 --do_print
	$(BIN)/python -m pytest -q --ignore tests/test_repository.py
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutation

# Beside the other environment, as litgpt does not get along with the newest numpy.
.venv/bench/ready: setup.py settings.ini tests/benchmarks/constraints.txt
	$(PYTHON) -m venv .venv/bench
	.venv/bench/bin/python -m pip install --quiet --constraint tests/benchmarks/constraints.txt --editable '.[bench]'
	@touch $@

bench: .venv/bench/ready
	.venv/bench/bin/python -m tests.benchmarks $(BENCH)

corpus: .venv/ready
	$(BIN)/python -m tests.corpus
