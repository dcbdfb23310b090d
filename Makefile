# The few things one does in this repository. PYTHON=... picks another interpreter.
PYTHON ?= python

.PHONY: check lint types test reference kernels fuzz mutants kills thorough bench tutorials docs build clean

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

kernels:  ## the tests of the model and of texts again, on the Numba backend
	NPPRELNORM_BACKEND=numba $(PYTHON) -m pytest tests/model tests/text

fuzz:  ## at least 100,000 mutated files of each format through the readers
	$(PYTHON) tools/fuzz.py

mutants:  ## every deliberate bug, each of which a named test must kill
	$(PYTHON) tools/mutants.py

kills:  ## kill -9 during pretrain and train at 20 random moments each
	NPPRELNORM_KILLS=20 $(PYTHON) -m pytest tests/training/test_kill.py tests/training/test_kill_pretrain.py

thorough: fuzz mutants kills

bench:  ## beside the other engines that are installed; python -m benchmarks --help says more
	$(PYTHON) -m benchmarks

tutorials:  ## execute tutorials/*.py and write the notebooks; pip install -e ".[tutorials]" first
	$(PYTHON) tools/build_tutorials.py

docs:  ## the API pages, in build/docs; a warning is an error
	$(PYTHON) -m sphinx -W --keep-going -b html tools/docs build/docs

build:
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
