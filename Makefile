# Everything that is needed is built or installed on first use: Python packages into .venv, Kubernetes binaries into a
# cache outside the clone (about 10 minutes once on 2 cores; MODELSWARM_CACHE says where).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 3
# Much of the time a test waits. Each worker has an API server of its own, and takes whole files, the longest first.
PARALLEL = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
GENERATED := --output crds --output charts/modelswarm/crds --docs docs/reference/crds.md --embed config/p2p/model-agent-daemonset.yaml

.PHONY: help fmt lint test test-swarm unit integration dragonfly test-dragonfly tools crds reference verify manifests chart demo bench-operator bench-dragonfly bench-swarm clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "needs Python 3.11: install python3.11 with its venv module, or set PYTHON="; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: needs Python 3.11 or later"; exit 1; }
	@echo "installing Python packages into $(VENV) (about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

tools: $(READY) ## build the Kubernetes binaries into the cache (tests and demo do it by themselves)
	@$(BIN)/python -m dev.binaries

.PHONY: built
built: $(READY)
	@$(BIN)/python -m dev.binaries --quiet

fmt: $(READY) ## format the code
	@$(BIN)/ruff format operator dev tests
	@$(BIN)/ruff check --fix operator dev tests

lint: $(READY) ## ruff, mypy --strict, import contracts, generated files
	@$(BIN)/ruff format --check operator dev tests
	@$(BIN)/ruff check operator dev tests
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory verify

crds: $(READY) ## generate crds/ (and their copy in the chart), docs/reference/crds.md and the CRD in config/p2p
	@$(BIN)/python -m modelswarm.api.schema $(GENERATED)

reference: $(READY) ## generate the pages of docs/reference that are made from code, and the dashboard
	@$(BIN)/python -m dev.reference

verify: $(READY) ## fail if a generated file is stale
	@$(BIN)/python -m modelswarm.api.schema $(GENERATED) --check
	@$(BIN)/python -m dev.reference --check

manifests: $(READY) ## dist/modelswarm.yaml: the chart without Helm (REGISTRY=HOST[/PATH] and TAG= of your images)
	@$(BIN)/python -m dev.manifests --output dist/modelswarm.yaml $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(TAG),--tag $(TAG))

chart: built ## helm lint and the chart's tests
	@$(BIN)/pytest -q tests/unit/chart tests/integration/test_chart.py tests/integration/test_chart_install.py

test: built ## all tests, on real API servers (no root), but for fleets of agents; WORKERS=3 at a time
	@$(BIN)/pytest -m "not fleet" $(PARALLEL)

test-swarm: WORKERS = 2
test-swarm: built ## the tests with fleets of agents: kills, faults, the first seed's README (SOAK=1 for the long ones)
	@$(BIN)/pytest -m fleet tests/integration $(PARALLEL)

unit: $(READY) ## the tests that need no API server
	@$(BIN)/pytest tests/unit $(PARALLEL)

integration: built ## the tests on a real API server
	@$(BIN)/pytest tests/integration

dragonfly: $(READY) ## build the real Dragonfly into the cache (half an hour once; CI=1 as root installs the Debian packages)
	@$(BIN)/python -m dev.dragonfly.builds $(if $(CI),--install-packages)

test-dragonfly: dragonfly ## the tests on the real Dragonfly (needs MariaDB and Redis)
	@$(BIN)/pytest tests/dragonfly

demo: built ## the main job, start to end, on this machine (ENGINE=bittorrent, dragonfly or direct; KEEP=1 leaves it running)
	@$(BIN)/python -m dev.demo $(if $(ENGINE),--engine $(ENGINE)) $(if $(KEEP),--keep)

bench-operator: built ## 1,000 OpenModels and 1,000 Playgrounds from nothing
	@$(BIN)/python -m dev.bench.operator

bench-swarm: built ## the swarm on shaped links, N nodes in namespaces (root; ARGS="--nodes 8 --rates 100 --models 1GiB")
	@$(BIN)/python -m dev.bench.swarm $(ARGS)

bench-dragonfly: built dragonfly ## one model to 1, 2 and 4 nodes over shaped links (root; ARGS="--nodes 4 --size 256MiB")
	@$(BIN)/python -m dev.bench.dragonfly $(ARGS)

clean: ## remove what was made in the clone (the cache stays)
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.PHONY: images wheels test-images
images: $(READY) ## build the images as OCI archives, without Docker (root, buildah, debootstrap; CI=1 installs these; ARGS="operator agent")
	@$(BIN)/python -m dev.images $(if $(CI),--install-packages) $(ARGS)

wheels: $(READY) ## build/wheels: all Python packages of the images, for building them without a network
	@$(BIN)/python -m dev.images --wheels

test-images: $(READY) ## build the images and run what is in them as pods would (needs what images needs)
	@$(BIN)/pytest tests/images

.PHONY: cluster test-e2e cluster-programs
cluster-programs: built
	@$(BIN)/python -m dev.cluster.programs $(if $(CI),--install-packages)

cluster: cluster-programs ## a real cluster of three nodes on this machine: containerd, kubelet, kube-proxy, DNS (root; Ctrl-C ends it; ARGS="--nodes 5")
	@$(BIN)/python -m dev.cluster $(ARGS)

test-e2e: cluster-programs ## the chart, the images and everything else on the real cluster (root; needs what cluster and images need)
	@$(BIN)/python -m dev.images $(if $(CI),--install-packages)
	@$(BIN)/pytest -s --durations=12 tests/e2e
