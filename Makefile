PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# What `make demo` needs, and what the tests need beside it.
READY = $(VENV)/.ready
TESTS_READY = $(VENV)/.ready-for-tests
SOURCES = pyproject.toml CMakeLists.txt $(wildcard csrc/* csrc/*/*)
# Only what is imported is compiled to bytecode, once: compiling all of torch takes longer than installing it.
INSTALL = $(BIN)/pip install --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-slow lint clean

setup: $(READY)

$(VENV):
	$(PYTHON) -m venv $@

$(READY): $(SOURCES) | $(VENV)
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable .
	touch $@

$(TESTS_READY): $(SOURCES) | $(VENV)
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable '.[test]'
	touch $(READY) $@

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(TESTS_READY)
	$(BIN)/pytest

test-slow: $(TESTS_READY)
	$(BIN)/pytest -m slow

lint: $(TESTS_READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build
