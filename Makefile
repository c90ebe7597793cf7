# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Each process takes half of the tests in their order, so that it builds what a file shares once, and
# the one that is done first takes of the other's.
IN_TWO := -n 2 --dist worksteal

.PHONY: demo shrink test test-avx2 lint check compat wheel-check bench clean

demo: .venv/run-installed
	$(BIN)/python main.py --model demo --mode sequential --max-windows 60 --save_results

# a smaller model of the demo, in about four minutes on two cores
shrink: .venv/run-installed
	$(BIN)/python main.py shrink --model demo --max-params 6 --minutes 4 --out smaller

test: .venv/dev-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(IN_TWO)

lint: .venv/dev-installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# lint, the fast suite, and the heavier checks behind the marker `slow`
check: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(IN_TWO) -m "not compat"

# the suite as on a processor without AVX-512 and bfloat16
test-avx2: .venv/dev-installed
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(IN_TWO)

# what other programs make of pruned models: docs/deploy.md
compat: .venv-compat/installed
	OMP_NUM_THREADS=1 .venv-compat/bin/python -m pytest -q -m compat tests/compat

# wheel and sdist; the wheel alone, in an empty environment, runs the demo elsewhere
wheel-check:
	rm -rf dist .venv-build .venv-wheel
	$(PYTHON) -m venv .venv-build
	.venv-build/bin/pip install --quiet build
	.venv-build/bin/python -m build --outdir dist .
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/pip install --quiet --constraint requirements.txt dist/*.whl
	ls -l dist
	cd "$$(mktemp -d)" && $(CURDIR)/.venv-wheel/bin/pruning-kit sweep --model demo --mode sequential \
		--max-windows 4 --no-speed --output run --save_results

bench: .venv/run-installed
	$(BIN)/python -m benchmarks.sweep

clean:
	rm -rf .venv .venv-build .venv-compat .venv-wheel build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis

.venv/run-installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.txt
	touch $@

.venv/dev-installed: requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements-dev.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

.venv-compat/installed: requirements.txt requirements-compat.txt pyproject.toml
	$(PYTHON) -m venv .venv-compat
	.venv-compat/bin/pip install --quiet -r requirements-compat.txt
	.venv-compat/bin/pip install --quiet --no-deps --editable .
	touch $@
