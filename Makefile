# Every target works on a fresh machine that has Python 3.11 and make.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
API := http://127.0.0.1:4200/api

.PHONY: help setup demo test lint bench serve clean

help:
	@echo "make demo   run configs/ml-100k.yaml end to end"
	@echo "make test   lint, type-check and test"
	@echo "make lint   ruff, mypy, import-linter"
	@echo "make bench  everything in benchmarks/ that measures"
	@echo "make serve  Prefect server, work pool, deployments and worker"
	@echo "make setup  only install into .venv"
	@echo "make clean  remove .venv and caches, never data/"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	$(BIN)/llmkt run configs/ml-100k.yaml

test: lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

BENCHMARKS := $(wildcard $(addprefix benchmarks/,training_speed.py llm_throughput.py embedding_speed.py scale.py))

bench: setup
	@set -e; for file in $(BENCHMARKS); do echo "$$file"; $(BIN)/python "$$file"; done

serve: setup
	@export PREFECT_API_URL=$(API); set -e; \
	mkdir -p data; \
	$(BIN)/prefect server start > data/prefect-server.log 2>&1 & \
	trap "kill $$!" EXIT INT TERM; \
	until $(BIN)/python -c "import urllib.request as u; u.urlopen('$(API)/health')" 2>/dev/null; do sleep 1; done; \
	$(BIN)/prefect --no-prompt work-pool create llmkt --type process --overwrite; \
	$(BIN)/prefect --no-prompt deploy --all; \
	echo "Prefect is at http://127.0.0.1:4200; in another terminal: export PREFECT_API_URL=$(API)"; \
	$(BIN)/prefect worker start --pool llmkt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info
