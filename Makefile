# Two commands on a fresh machine with Python 3.11 to 3.13 and make:
#   make demo    sets up, exports the demo model to both formats, predicts, draws, and prints where the results are
#   make test    sets up, and runs the checks and the tests
# CONTRIBUTING.md has the same steps without make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

TARGET ?= picture
MINUTES ?= 30

.PHONY: demo demo-onnx test slow quick check bench coverage audit sbom docs wheel-check lowest cuda triton notebook fuzz mutants clean

demo: $(VENV)/.export
	$(BIN)/maskrcnn-export demo -o demo-output

# Exports the packaged demo.onnx again from the packaged checkpoint; a test compares the two.
demo-onnx: $(VENV)/.export
	$(BIN)/maskrcnn-export onnx demo -o maskrcnn/demo.onnx --force
	rm maskrcnn/demo.onnx.verdict.json

test: check
	$(BIN)/pytest -m "not slow" --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

# The tests that take minutes each: ResNet-101 at full size, killed and resumed runs, long fuzzing. Hours on two cores.
slow: $(VENV)/.dev
	$(BIN)/pytest -m slow

# Style, types and the tests that start no TensorFlow: the loop while developing.
quick: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest --quick -m "not slow" --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/ci.yml

bench: $(VENV)/.dev
	$(BIN)/pytest benchmarks --benchmark-only --benchmark-sort=name

# Lists the lines of runtime/ and export/ that no test runs; fails below 95 % coverage.
coverage: $(VENV)/.dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --cache-clear -m "not slow" --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95 --skip-covered

# Looks for known vulnerabilities in what the extras installed; fails if no service can be reached.
audit: $(VENV)/.dev
	$(BIN)/python -m tools.audit

# Writes sbom.cdx.json: what the extras installed, as CycloneDX.
sbom: $(VENV)/.dev
	$(BIN)/python -m tools.sbom sbom.cdx.json

# Builds the documentation site from docs/ into build/site, and checks its links and pages. Needs no network.
docs: $(VENV)/.dev
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env -c docs . build/site
	$(BIN)/python -m tools.check_site build/site

# Builds sdist and wheel, checks the files in them, and detects with the wheel and `[onnx]` in a new environment.
wheel-check: $(VENV)/.dev
	$(BIN)/python -m tools.check_wheel

# tests/predictor without TensorFlow, at the lowest versions that pyproject.toml allows.
lowest: $(VENV)/.dev
	$(BIN)/python -m tools.check_lowest

# tests/cuda: ONNX Runtime's CUDA provider on a stand-in for CUDA's libraries, without a GPU.
cuda: $(VENV)/.dev
	$(BIN)/python -m tools.check_cuda

# tests/triton: a repository of `maskrcnn-export triton` in the real Triton server.
triton: $(VENV)/.dev
	$(BIN)/python -m tools.check_triton

# Executes docs/tutorial.ipynb: trains, exports and predicts. `python -m tools.check_notebook --save` stores the outputs.
notebook: $(VENV)/.dev
	$(BIN)/python -m tools.check_notebook

# Fuzzes one entry point for untrusted files (Linux): make fuzz TARGET=picture MINUTES=30
fuzz: $(VENV)/.dev
	$(BIN)/pip install --quiet --group fuzz
	$(BIN)/python tests/fuzz/fuzz.py $(TARGET) --minutes $(MINUTES)

# Breaks one place at a time in code that results depend on; tests must notice 90 % of the changes.
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
	rm -rf $(VENV) build demo-output sbom.cdx.json .fuzz .mutation .coverage*
