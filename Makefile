# Two commands matter: `make run` and `make test`. Both set up what they need on a fresh machine.
# Empty: scripts/setup.sh searches for a Python 3.11 or 3.12. TORCH=cpu or TORCH=cuda chooses the build of torch; set-up
# runs whenever TORCH is set, since it may have to replace the installed build.
PYTHON ?=
export TORCH ?=
BIN := .venv/bin
PORT ?= 8080
# One stamp for each set of pins: a change of these files runs set-up again, and an unchanged set costs nothing.
PINS := $(shell cat pyproject.toml requirements.lock swinir/network/*.c swinir/network/*.h swinir/network/cuda/*.py 2>/dev/null | sha256sum | cut -c1-12)

.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: .setup-run-$(PINS) ## Make .venv with everything that serving needs

run: setup ## Serve page, API and a real Triton on http://127.0.0.1:$PORT; VARIANTS="real_x4 ..." fetches these first
	$(if $(strip $(VARIANTS)),@$(BIN)/superres weights fetch --optional $(VARIANTS))
	@PORT=$(PORT) $(BIN)/superres serve

unit: .setup-test-$(PINS) ## Run the tests that start no Triton, Redis, Chromium or gunicorn (about a minute on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not triton and not redis and not browser and not containers and not slow"

test: .setup-test-$(PINS) ## Run every test, on the real Triton, Redis and Chromium, in WORKERS (2) processes
	$(BIN)/python -m scripts.run_tests -n $(or $(WORKERS),2) --dist loadfile

check: .setup-test-$(PINS) ## Format, lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

fuzz: .setup-test-$(PINS) ## Fuzz the readers of image headers, guided by coverage, for SECONDS (60)
	$(BIN)/python -m pip install --quiet --no-build-isolation -e ".[fuzz]"
	$(BIN)/python -m testing.fuzz_readers .fuzz-corpus -max_total_time=$(or $(SECONDS),60)

fix: .setup-test-$(PINS) ## Format, and let ruff fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .setup-test-$(PINS) ## Measure network, stack and goals for speed (10 minutes; the machine should be idle)
	$(BIN)/python -m benchmarks.network
	$(BIN)/python -m benchmarks.stack
	$(BIN)/python -m benchmarks.goals

gpu: .setup-test-$(PINS) ## Measure on an NVIDIA GPU and write docs/measurements/gpu.md (minutes)
	$(BIN)/python -m benchmarks.gpu

bill: .setup-test-$(PINS) ## Update the tables and plots of docs/how-to/plan-costs.md and docs/measurements/scale.md (minutes)
	$(BIN)/python -m planning.reports.report

docs: .setup-test-$(PINS) ## Build the documentation into build/site; a broken link fails
	@$(BIN)/python -m scripts.cli_reference
	@$(BIN)/python -m scripts.openapi
	@$(BIN)/python -m testing.format_table
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

containers: .setup-test-$(PINS) ## Build both images and test docker-compose.yml with them (root, Debian 12; 5 minutes)
	$(BIN)/python -m docker.exercise

lock: .setup-test-$(PINS) ## Resolve pyproject.toml into requirements.lock (UPGRADE=1 allows newer versions)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/lock.py write $(if $(UPGRADE),--upgrade)

dist: .setup-test-$(PINS) ## Build the wheel and the sdist into dist/
	@rm -rf dist
	$(BIN)/python -m build --no-isolation --quiet .

sbom: .setup-test-$(PINS) ## Write build/sbom.json: the packages of requirements.lock, as CycloneDX
	@mkdir -p build
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.json requirements.lock

audit: .setup-test-$(PINS) ## Check every package of requirements.lock for known vulnerabilities; fails if it cannot
	@$(BIN)/python -m scripts.audit

.setup-run-$(PINS): $(if $(TORCH),always)
	@sh scripts/setup.sh run "$(PYTHON)"
	@rm -f .setup-run-*; touch $@

.setup-test-$(PINS): .setup-run-$(PINS)
	@sh scripts/setup.sh test "$(PYTHON)"
	@rm -f .setup-test-*; touch $@

always:

.PHONY: help setup run unit test check fix bench gpu bill docs containers lock dist sbom audit fuzz
