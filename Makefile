# Two commands set up a fresh machine: `make train` installs the core, `make test` the rest.
PYTHON ?= python3
BIN := .venv/bin
CORE := .venv/.installed-core
INSTALLED := .venv/.installed
CONSTRAINTS ?= constraints.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs
QUICK := $(addprefix tests/,functional base config engine control tabular test_end_to_end.py)
EXTRAS ?= box2d,mujoco,atari,minigrid,sweep,joblib,hf,onnx,docs,dev

.PHONY: help train quick test fresh check lint docs docs-serve gallery results results-long results-lm bench bench-lm torture witness mutants clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

$(CORE): pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e .
	touch $(CORE)

$(INSTALLED): $(CORE)
	$(PIP) -e ".[$(EXTRAS)]"
	touch $(INSTALLED)

train: $(CORE)  ## install the core, train PPO on CartPole, say what to do next
	$(BIN)/rlx train algo=ppo env=cartpole
	@echo; echo "rlx is in .venv: run  . .venv/bin/activate  and then  rlx"

quick: $(INSTALLED)  ## the tests of the inner loop: equations, engine, configuration, both worlds end to end
	$(BIN)/python -m pytest -n 2 $(QUICK)

test: $(INSTALLED)   ## install the extras too, and run the tests (about 25 minutes on 2 cores)
	$(BIN)/python -m pytest -n 2

fresh: $(INSTALLED)  ## a clean clone that installs the core and trains: a minute or two, and downloads
	$(BIN)/python -m pytest -m fresh tests/test_readme.py

check: lint test     ## what must be green before every commit

lint: $(INSTALLED)   ## ruff, mypy, import-linter
	$(BIN)/ruff check rlx tests benchmarks docs/_site
	$(BIN)/ruff format --check rlx tests benchmarks docs/_site
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)   ## the documentation site, into site/: strict, offline
	$(MKDOCS) build --quiet

docs-serve: $(INSTALLED)  ## the same on localhost, built again when a page changes
	$(MKDOCS) serve --dev-addr localhost:8000

gallery: $(INSTALLED)  ## the films and maps of the gallery; what is there is skipped
	$(BIN)/python -m benchmarks.gallery

results: $(INSTALLED)  ## the learning tables of docs/results, cell by cell; what is there is skipped
	$(BIN)/python -m benchmarks.results

results-long: $(INSTALLED)  ## the slow rows of that table too: MuJoCo, Box2D, 300,000 steps and more
	$(BIN)/python -m benchmarks.results --all

results-lm: $(INSTALLED)  ## the same of the language family
	$(BIN)/python -m benchmarks.language

bench: $(INSTALLED)  ## speed beside Stable-Baselines3 on the same hyper-parameters
	$(PIP) -e ".[bench]"
	$(BIN)/python -m benchmarks.speed

bench-lm: $(INSTALLED)  ## GRPO and sampling beside TRL and Hugging Face, which it installs into .venv-trl
	test -x .venv-trl/bin/python || $(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv-trl/bin/python -m pip install --quiet --disable-pip-version-check "trl==1.16.0"
	$(BIN)/python -m benchmarks.lm_speed --trl-python .venv-trl/bin/python

torture: $(INSTALLED)  ## kill -9 again and again, and compare with the run that never stopped
	$(BIN)/python -m benchmarks.torture

witness: $(INSTALLED)  ## train 20 configurations with the code of the base commit and with this: equal bits?
	$(BIN)/python -m benchmarks.witness --jobs 2

mutants: $(INSTALLED)  ## break each equation on purpose, and see its test fail
	$(BIN)/python tests/mutants.py

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache
