# The few things one does in this repository. PYTHON=... picks another interpreter.
PYTHON ?= python

.PHONY: check lint types test reference fuzz mutants thorough build clean

check: lint types test  ## what every change must pass

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest

reference:  ## live against the installed torch and transformers
	$(PYTHON) -m pytest -m reference

fuzz:  ## at least 100,000 mutated files of each format through the readers
	$(PYTHON) tools/fuzz.py

mutants:  ## every deliberate bug, each of which a named test must kill
	$(PYTHON) tools/mutants.py

thorough: fuzz mutants

build:
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
