# The two commands: `make train` and `make test`. Everything lives in .venv; nothing is downloaded at run time.
SEED ?= 0
PYTHON ?= python3
VENV := .venv
# pinned, or system: the torch that $(PYTHON) already has, 2.11 or later. The environment remembers which.
TORCH ?= $(or $(shell cat $(VENV)/.torch 2>/dev/null),pinned)
INSTALLED := $(VENV)/.installed$(if $(filter system,$(TORCH)),-system-torch)
WORKERS ?= 2

.PHONY: help setup train vllm test test-agents test-clients test-corpora test-containers test-async test-kills test-uml test-vllm test-zero3 test-simulations test-vocabularies fuzz lint bench model test-models clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED)  ## virtual environment, pinned packages, bubblewrap (TORCH=system: the torch you have)

$(INSTALLED): pyproject.toml constraints.txt scripts/setup.sh
	PYTHON=$(PYTHON) VENV=$(VENV) TORCH=$(TORCH) sh scripts/setup.sh
	touch $@

train: setup  ## the quickstart: evaluate, train, evaluate again (SEED=n, ARGS='key=value ...')
	$(VENV)/bin/crrl train quickstart seed=$(SEED) $(ARGS)

test: setup  ## all tests, in parallel
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n $(WORKERS) $(ARGS)

# The agents that the tests need; `AGENTS=` (all there are) installs the others too, and tests them.
AGENTS ?= nano-agent mini-swe-agent aider codex opencode pi claude-code qwen-code goose

test-agents: setup  ## third-party agents in the sandbox: installs them outside HOME (needs npm), then runs them
	$(VENV)/bin/python scripts/agents.py $(AGENTS)
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -m agents tests/agents $(ARGS)

test-clients: setup  ## the official clients of both APIs: installs the Node ones outside HOME (needs npm), then runs all
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -m clients tests/clients $(ARGS)

test-simulations: setup  ## false positives and coverage of what crrl compare says
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -m simulations tests/evaluation $(ARGS)

MODEL ?= qwen2.5-coder-0.5b

model: setup  ## a small pretrained model in models/ (MODEL=smollm2-135m: a smaller one); nothing needs it
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[models]'
	$(VENV)/bin/python scripts/model.py $(MODEL)

test-models: setup  ## what was claimed of real models, on those in models/
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -m models tests/learning/test_real_models.py $(ARGS)

test-vocabularies: setup  ## renderers on real vocabularies: those of DeepSeek and gpt-oss, taken from packages (needs npm)
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -m vocabularies tests/gateway/test_families_real.py $(ARGS)

test-corpora: setup  ## every real bug at hand, with its own toolchain
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[swebench]'
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -m corpora tests/tasks tests/making tests/rewards tests/evaluation $(ARGS)

test-containers: setup  ## boxes in Docker and Podman, whichever answers (ENGINES="podman docker": must)
	CRRL_ENGINES="$(ENGINES)" OMP_NUM_THREADS=1 $(VENV)/bin/pytest -m containers tests/sandbox tests/rewards tests/rollout $(ARGS)

test-uml: setup  ## cgroup v2 in a kernel of its own (apt-get install user-mode-linux)
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -m uml tests/sandbox/test_cgroup2.py $(ARGS)

test-zero3: setup  ## several ranks: DDP and ZeRO-3, two and three processes (installs DeepSpeed)
	DS_BUILD_OPS=0 $(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[deepspeed]'
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -m ranks tests/learning tests/run $(ARGS)

vllm: setup  ## vLLM in an environment of its own (3.4 GB on a CPU): engine=vllm uses it
	$(VENV)/bin/python scripts/vllm.py

test-vllm: vllm  ## the engine over a real vLLM server, on the CPU
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -m vllm tests/engines tests/run $(ARGS)

KILLS ?= 200

test-kills: setup  ## kill -9 of every kind of process of a run, at random instants (KILLS=number, about 10 s each)
	CRRL_KILLS=$(KILLS) OMP_NUM_THREADS=1 $(VENV)/bin/pytest -m kills -s tests/run/test_kills.py $(ARGS)

ASYNC_KILLS ?= 40

test-async: setup  ## kill -9 of runs whose episodes are ahead of the trainer; one is stopped for a minute (ASYNC_KILLS=number)
	CRRL_KILLS=$(ASYNC_KILLS) OMP_NUM_THREADS=1 $(VENV)/bin/pytest -m kills -s tests/run/test_async_kills.py $(ARGS)

FUZZ ?= 200

fuzz: setup  ## the gateway's endpoints, with many more bodies than `make test` draws (FUZZ=examples)
	CRRL_FUZZ=$(FUZZ) OMP_NUM_THREADS=1 $(VENV)/bin/pytest --timeout 0 tests/gateway/test_fuzz.py $(ARGS)

lint: setup  ## ruff, mypy, and the floors of the rooms
	$(VENV)/bin/ruff check src tests
	$(VENV)/bin/ruff format --check src tests
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: setup  ## the measured targets, peers side by side
	$(VENV)/bin/crrl bench

clean:  ## the environment and caches (run folders stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
