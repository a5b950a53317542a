# Two commands on a fresh machine with Python 3.11 to 3.13 and make:
#   make demo    sets up, exports the demo model to both formats, predicts, draws; says where the results are
#   make test    sets up, and passes the tests
# Without make: CONTRIBUTING.md has the same steps by hand.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

TARGET ?= picture
MINUTES ?= 30

.PHONY: demo test check bench coverage audit sbom wheel-check lowest fuzz mutants clean

demo: $(VENV)/.export
	$(BIN)/maskrcnn-export demo -o demo-output

test: check
	$(BIN)/pytest -m "not slow" --numprocesses=auto --maxprocesses=4 --dist=loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/pytest benchmarks --benchmark-only --benchmark-sort=name

# Lines of runtime/ and export/ that the tests run; fails below 95 %.
coverage: $(VENV)/.dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not slow" --numprocesses=auto --maxprocesses=4 --dist=loadfile
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95 --skip-covered

# Known vulnerabilities of what the extras installed; fails where no service can be reached.
audit: $(VENV)/.dev
	$(BIN)/python -m tools.audit

# sbom.cdx.json: what the extras installed, as CycloneDX.
sbom: $(VENV)/.dev
	$(BIN)/python -m tools.sbom sbom.cdx.json

# Builds sdist and wheel, checks the files in them, and detects with the wheel and `[onnx]` in a new environment.
wheel-check: $(VENV)/.dev
	$(BIN)/python -m tools.check_wheel

# tests/predictor without TensorFlow, at the lowest versions that pyproject.toml allows.
lowest: $(VENV)/.dev
	$(BIN)/python -m tools.check_lowest

# One door for files of strangers, for so long (Linux): make fuzz TARGET=picture MINUTES=30
fuzz: $(VENV)/.dev
	$(BIN)/pip install --quiet --group fuzz
	$(BIN)/python tests/support/fuzz.py $(TARGET) --minutes $(MINUTES)

# Lines that the results depend on, broken one at a time: tests must notice nine of ten.
mutants: $(VENV)/.dev
	$(BIN)/pip install --quiet --group mutation
	$(BIN)/python tests/mutation/run.py

$(VENV)/.export: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --editable ".[export]"
	touch $@

$(VENV)/.dev: $(VENV)/.export pyproject.toml
	$(BIN)/pip install --quiet --group dev
	touch $@

clean:
	rm -rf $(VENV) demo-output sbom.cdx.json .fuzz .mutation .coverage*
