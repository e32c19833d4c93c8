# Both commands make their own environment in .venv; Python 3.11 or later and make are all they need.
PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check

.PHONY: demo test suite faults lint env

demo: env  ## the main job on embedded images, then its table: leaves runs/demo
	.venv/bin/degan-search sweep demo

test: env  ## linters and types, and beside them every test
	$(MAKE) --jobs 2 lint suite

suite: env
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

faults: env  ## every fault that is injected: killed processes, full disks, lost machines, torn files; about an hour
	FUZZ_INPUTS=$${FUZZ_INPUTS:-100000} OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/faults -m "faults or not faults" -o timeout=3600 --numprocesses 2 --dist loadfile

lint: env
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

env: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch .venv/installed
