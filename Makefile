# The two commands of the README are `make demo` and `make test`; each does all its own set-up.
PYTHON ?= python3
VENV := .venv
MLSERVER := .venv-mlserver
PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test venv check test-long test-oldest bench bench-fleet models conformance screenshots trace sbom lock clean test-tools

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' $(MAKEFILE_LIST)

demo: $(VENV)/.server ## scanners, box, PACS and fleet server on this machine, installed into .venv alone
	$(VENV)/bin/scanside demo $(ARGS)

test: venv test-tools $(MLSERVER)/.mlserver ## every test at a tenth of its size; as root it may apt-get DCMTK, Orthanc, ...
	tools/test-in-memory $(PYTEST) -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

venv: $(VENV)/.dev ## the environment alone, with what tests and checks need

check: venv ## lint, types, floors
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PYTEST) -q tests/test_floors.py

test-long: venv test-tools $(MLSERVER)/.mlserver ## full size; writes its result and date into docs/testing.md
	$(PY) tools/test_long.py $(ARGS)

test-oldest: test-tools $(MLSERVER)/.mlserver ## the tests with the oldest versions allowed (JetPack 6), on Python 3.10 where there is one
	tools/venv .venv-oldest oldest "$$(tools/find-python 3.10 || command -v $(PYTHON))"
	tools/test-in-memory .venv-oldest/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: venv test-tools ## the figures of the README, with peers in the same run
	$(PY) tools/bench --json build/bench.json $(ARGS)

bench-fleet: venv test-tools ## 10,000 simulated boxes on one machine; ARGS=--quick for 300
	$(PY) tools/bench_fleet --json build/bench-fleet.json $(ARGS)

models: venv ## compute the bundled packages anew; ARGS=NAME for one, ARGS=--check compares hashes only
	$(PY) tools/models $(ARGS)

conformance: venv ## docs/conformance.md from the tables of the code; ARGS=--check compares only
	$(PY) tools/conformance.py $(ARGS)

screenshots: venv ## every page and state in every language, into build/screenshots; needs chromium
	$(PY) tools/screenshots.py $(ARGS)

trace: venv ## requirement x test
	$(PY) tools/trace.py $(ARGS)

sbom: venv ## CycloneDX list of what a box runs, into build/sbom.cdx.json
	$(PY) tools/sbom.py $(ARGS)

lock: venv ## add what is missing to requirements/; ARGS=--upgrade takes the newest
	tools/lock $(ARGS)

clean: ## everything made, environments too
	rm -rf $(VENV) $(MLSERVER) .venv-oldest build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

test-tools:
	tools/test-tools

# With what the fleet server needs, which a box does not.
$(VENV)/.server: requirements/server.txt pyproject.toml tools/venv
	tools/venv $(VENV) server $(PYTHON)

$(VENV)/.dev: requirements/dev.txt requirements/server.txt requirements/run.txt pyproject.toml tools/venv
	tools/venv $(VENV) dev $(PYTHON)

# A real KServe server for the tests. Where it cannot be had, the tests that need it skip with the reason.
$(MLSERVER)/.mlserver: requirements/mlserver.txt tools/venv
	-tools/venv $(MLSERVER) mlserver $(PYTHON)
