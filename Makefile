# The front door. `make demo` and `make test` work on a fresh machine with Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo ready test simulation adapters browser helm containers environments check lint types contracts lua docs security format sizes bench clean

demo: $(READY)
	@$(BIN)/sluicegate demo $(ARGS)

ready: $(READY)

# What fails is tried once more, alone, and named in the end: scripts/test.py.
test: $(READY)
	$(BIN)/python scripts/test.py -n $${PYTEST_WORKERS:-2} --dist loadgroup $(ARGS)

# A million calls through a world that breaks, in a thousand stories; CI tells them after the tests.
simulation: $(READY)
	$(BIN)/python benchmarks/simulation.py --calls 1000000 --server valkey --processes 2 $(ARGS)

# Adapters against the real packages, in environments of their own (.venv-adapters).
adapters: $(READY)
	$(BIN)/python scripts/adapters.py test $(ARGS)

# The dashboard in the system's Chromium, from an environment of its own (.venv-browser).
browser: $(READY)
	$(BIN)/python scripts/browser.py $(ARGS)

# The chart's tests need helm; the image's tests an engine, which this starts where it can.
helm: $(READY)
	$(BIN)/python scripts/helm.py

containers: $(READY)
	$(BIN)/python scripts/containers.py $(ARGS)

# All that the three above need and this machine can fetch.
environments: $(READY)
	$(BIN)/python scripts/helm.py
	$(BIN)/python scripts/adapters.py build
	$(BIN)/python scripts/browser.py build

check: lint types contracts lua docs security test

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports
	$(BIN)/python scripts/unasync.py --check

# luacheck reads the expanded scripts; where it is not installed the rest still runs.
lua: $(READY)
	$(BIN)/python -m limiter_service.store.scripts build/lua
	@if command -v luacheck >/dev/null; then luacheck --config lua/.luacheckrc build/lua; \
	else echo "luacheck is not installed (Debian: lua-check): skipped"; fi

docs: $(READY)
	$(BIN)/python scripts/reference.py --check
	$(BIN)/python scripts/image_pins.py --check

# Static checks beside ruff's, and the bill of materials of the image. What else there is of
# security are tests: tests/architecture/test_security.py.
security: $(READY)
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive limiter_wire limiter_service client_sdk
	$(BIN)/python scripts/sbom.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python scripts/unasync.py
	$(BIN)/python scripts/reference.py
	$(BIN)/python scripts/image_pins.py

sizes: $(READY)
	$(BIN)/python scripts/sizes.py

# Prints the figures that README and docs quote.
bench: $(READY)
	$(BIN)/python benchmarks/decision.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/layers.py
	$(BIN)/python benchmarks/instructions.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/peers.py

clean:
	rm -rf $(VENV) .venv-adapters .venv-browser build dist
