# make demo    install into .venv, run every experiment in its quick form, write results/report.html
# make test    install into .venv, run all tests (both precisions)
# Further: test-slow, bench, docs, lint, format, clean. PYTHON=... chooses the interpreter.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
OK := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	if $$p -c "$(OK)" >/dev/null 2>&1; then echo $$p; break; fi; done)
PYTEST := $(BIN)/python -m pytest -q -n auto

.PHONY: demo test test-slow bench docs lint format clean

demo: $(VENV)/with-experiments
	$(BIN)/python -m experiments all --quick

test: $(VENV)/with-test
	JAX_ENABLE_X64=0 $(PYTEST) -m "not slow"
	JAX_ENABLE_X64=1 $(PYTEST) -m "not slow"

test-slow: $(VENV)/with-test
	JAX_ENABLE_X64=1 $(PYTEST)

bench: $(VENV)/with-experiments
	$(BIN)/python -m experiments bench

docs: $(VENV)/with-docs
	$(BIN)/python -m mkdocs build --strict --quiet --config-file docs/mkdocs.yml --site-dir ../site

lint: $(VENV)/with-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/with-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) results site build *.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "certax needs Python 3.11 or newer; none was found on PATH." \
		"Install one, or say where it is: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/with-experiments: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[experiments]'
	@touch $@

$(VENV)/with-test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[test,experiments]'
	@touch $@

$(VENV)/with-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[docs]'
	@touch $@
