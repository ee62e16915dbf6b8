# Two commands from a bare clone: `make demo`, `make test`. Each makes what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: demo test install check lint types imports tests docs format benchmarks clean help

help:            ## show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: install    ## train on the built-in problems and write runs/demo/latest/report.html
	$(BIN)/everymode demo

test: check tests ## everything that must hold: lint, types, import direction, tests, notebooks

install: $(STAMP) ## make .venv and install everymode with its development tools

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

check: lint types imports ## lint, types, import direction

lint: install    ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install   ## pyright
	$(BIN)/pyright

imports: install ## import-linter: modules import only from above themselves
	$(BIN)/lint-imports

tests: install   ## pytest, notebooks and the user guide included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

docs: install    ## the user guide: every block of code on its pages is run; docs/_build/html/index.html
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -E -b html docs docs/_build/html

format: install  ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmarks: install ## measure speed against peers; results in benchmarks/results
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[benchmarks]"
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/sampling_speed.py

clean:           ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache build dist docs/_build
