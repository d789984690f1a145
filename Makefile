# Each target builds .venv from nothing and does all the set-up itself.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
TESTS ?= tests

.PHONY: demo test test-slow soak lint docs clean

demo: .venv/run.stamp  ## train, measure, predict and explain on embedded digits
	$(BIN)/msresnet demo

test: lint  ## everything that a change must pass
	# A worker that dies ends the run: xdist 3.8 would wait forever for what it gives to the one in its place.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --max-worker-restart 0 --cov --cov-report=term -m "not slow" $(TESTS)

test-slow: .venv/dev.stamp  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(TESTS)

soak: .venv/dev.stamp  ## the server under load for an hour each; on a quiet machine
	MSRESNET_SOAK_SECONDS=3600 $(BIN)/python -m pytest -m slow tests/serve/test_load.py

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: .venv/dev.stamp  ## what the documentation takes from the code
	$(BIN)/python docs/generate.py

clean:  ## remove what the targets made
	rm -rf .venv runs

.venv/run.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

.venv/dev.stamp: .venv/run.stamp
	$(PIP) -e ".[dev]"
	# Their opencv-python would overwrite the one without a screen, which needs no system libraries.
	$(PIP) --no-deps trackers supervision
	$(PIP) pydeprecate
	touch $@
