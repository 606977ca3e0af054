# Everything runs in .venv in the checkout; `make demo` and `make test` make it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= demo
SPARK ?= out/spark
SPARK_IMAGES ?= 120

WEIGHTS ?= out/weights

.PHONY: demo test lint bench bench-describe bench-rerank weights spark clean

$(READY): setup.py beam_requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[cpu,learned,test]"
	touch $(READY)

# A rendered city, its atlas, and how far the map is from the truth.
demo: $(READY)
	$(BIN)/vladmap sample $(DEMO)/city --images 120 --seed 0
	$(BIN)/vladmap build --images $(DEMO)/city/images --atlas $(DEMO)/atlas
	$(BIN)/vladmap check-map --atlas $(DEMO)/atlas --truth $(DEMO)/city/truth.parquet
	@echo "open $(DEMO)/atlas/report/index.html in a browser"

lint: $(READY)
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
	$(BIN)/python -c "from pipeline.spark import classpath; classpath()"
	rm -rf $(SPARK)
	$(BIN)/vladmap sample $(SPARK)/city --images $(SPARK_IMAGES) --seed 0
	$(BIN)/vladmap build --images $(SPARK)/city/images --atlas $(SPARK)/in-process
	$(BIN)/python -m pipeline.spark --log $(SPARK)/job-server.log -- \
	    $(BIN)/python -m jobs.build --images $(SPARK)/city/images --atlas $(SPARK)/spark
	$(BIN)/python -m pipeline.compare $(SPARK)/in-process $(SPARK)/spark

clean:
	rm -rf $(VENV) $(DEMO) out build spark/target *.egg-info
