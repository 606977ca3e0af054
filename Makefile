# Everything runs in .venv in the checkout; `make demo` and `make test` make it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= demo
SPARK ?= out/spark
SPARK_IMAGES ?= 120

WEIGHTS ?= out/weights

# PyPI's torch brings CUDA, 4 GB that a machine without a GPU has no use for. Where PyTorch's own
# index of builds for CPUs answers within four seconds it is asked too; TORCH_INDEX= never asks it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
GPU ?= $(shell command -v nvidia-smi)
ANSWERS = import os, sys, threading, urllib.request as web; \
    asked = threading.Thread(target=lambda: web.urlopen(sys.argv[1], timeout=4) and os._exit(0), daemon=True); \
    asked.start(); asked.join(4); os._exit(1)

.PHONY: demo test lint types bench bench-describe bench-rerank weights spark clean

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

# A rendered city, its atlas, and how far the map is from the truth.
demo: $(READY)
	$(BIN)/vladmap sample $(DEMO)/city --images 120 --seed 0
	$(BIN)/vladmap build --images $(DEMO)/city/images --atlas $(DEMO)/atlas
	$(BIN)/vladmap check-map --atlas $(DEMO)/atlas --truth $(DEMO)/city/truth.parquet
	@echo "open $(DEMO)/atlas/report/index.html in a browser"

# The rooms under the name that they are imported by, for tools that only look at files.
types:
	@rm -rf build/types && mkdir -p build/types/vladmap
	@ln -s $(CURDIR)/vladmap/* $(patsubst %/__init__.py,$(CURDIR)/%,$(filter-out tests/% benchmarks/% vladmap/%,$(wildcard */__init__.py))) build/types/vladmap

lint: $(READY) types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

bench: $(READY)
	$(BIN)/python -m benchmarks.throughput

bench-describe: $(READY)
	$(BIN)/python -m benchmarks.describe

# With PHOTOS=<folder of sets> also the table of what re-ranking is worth on photographs.
bench-rerank: $(READY)
	$(BIN)/python -m benchmarks.rerank
	$(if $(PHOTOS),$(BIN)/python -m benchmarks.rerank_recall --photos $(PHOTOS))

# The backbone that ships, made again: PHOTOS has the folders lund, larochelle and sped.
weights: $(READY)
	$(if $(PHOTOS),,$(error make weights needs PHOTOS=<folder of sets>))
	$(BIN)/vladmap worlds $(WEIGHTS)/places --seeds 0:40 --places 100 --every 7 --aligned
	$(BIN)/vladmap distil --worlds $(WEIGHTS)/places \
	    --photographs $(PHOTOS)/lund $(PHOTOS)/larochelle \
	    --validate $(PHOTOS)/sped --output $(WEIGHTS)/run
	cp $(WEIGHTS)/run/best.safetensors models/weights/netvlad-lite.safetensors

# The same build in one process and on Apache Spark: the two atlases must be equal.
spark: $(READY)
	$(BIN)/python -c "from vladmap.pipeline.spark import classpath; classpath()"
	rm -rf $(SPARK)
	$(BIN)/vladmap sample $(SPARK)/city --images $(SPARK_IMAGES) --seed 0
	$(BIN)/vladmap build --images $(SPARK)/city/images --atlas $(SPARK)/in-process
	$(BIN)/python -m vladmap.pipeline.spark --log $(SPARK)/job-server.log -- \
	    $(BIN)/python -m vladmap.jobs.build --images $(SPARK)/city/images --atlas $(SPARK)/spark
	$(BIN)/python -m vladmap.atlas.difference $(SPARK)/in-process $(SPARK)/spark

clean:
	rm -rf $(VENV) $(DEMO) out build spark/target *.egg-info
