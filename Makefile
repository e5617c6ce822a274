.DEFAULT_GOAL := help
.PHONY: help demo test metaworld test-metaworld check types docs docs-links format benchmark pictures notebooks build clean

PYTHON ?= python3
VENV := .venv
METAWORLD := .venv-metaworld
BIN := $(VENV)/bin
DEMO := runs/navigation
# The packages as links under the names that they are installed by, which mypy cannot find in an editable installation.
INSTALLED := build/installed
# Every page is read again, as Sphinx warns only of pages that it reads.
SPHINX = $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --doctree-dir build/doctrees
# Each process takes neighbouring tests, and most fixtures of a module are made once.
SHARED := --numprocesses 2 --dist worksteal

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# Compiling all of PyTorch would take half a minute; Python compiles what is imported.
$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed, found $$($(PYTHON) --version): make PYTHON=python3.12 ..."; exit 1; }
	@echo "Making $(VENV), once: about a gigabyte to download, which takes a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --progress-bar on --no-compile --constraint constraints.txt \
		--editable '.[dev]'
	@touch $@

$(METAWORLD)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(METAWORLD)
	grep -v '^mujoco' constraints.txt > $(METAWORLD)/constraints.txt
	$(METAWORLD)/bin/pip install --quiet --disable-pip-version-check --constraint $(METAWORLD)/constraints.txt \
		--editable '.[metaworld,test]'
	@touch $@

demo: $(VENV)/installed  ## meta-train on 2D navigation, evaluate, draw a picture (a few minutes)
	@$(BIN)/maml-rl train navigation --out $(DEMO) --resume-if-exists
	@$(BIN)/maml-rl evaluate $(DEMO)
	@echo
	@echo "Next, after . $(BIN)/activate:"
	@echo "  maml-rl visualize $(DEMO)              a page that shows it adapt"
	@echo "  maml-rl view $(DEMO)                   live in a browser: choose a goal, and watch it adapt"
	@echo "  maml-rl train half-cheetah-dir         a robot, about 20 minutes on two cores"
	@echo "  maml-rl presets                        what else there is to train"

test: $(VENV)/installed  ## run the whole suite
	$(BIN)/python -m pytest $(SHARED)

metaworld: $(METAWORLD)/installed  ## make .venv-metaworld, with Meta-World and the MuJoCo it needs

test-metaworld: $(METAWORLD)/installed  ## test environments and evaluation in .venv-metaworld
	$(METAWORLD)/bin/python -m pytest $(SHARED) tests/envs tests/experiments/runs/test_metaworld_protocol.py

check: $(VENV)/installed  ## lint, format, types and documentation
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@$(MAKE) --no-print-directory --jobs 2 --output-sync types docs

types: $(VENV)/installed  ## types of every file, those of the packages under their installed names
	@rm -rf $(INSTALLED) && mkdir -p $(INSTALLED)/maml_rl
	@ln -s "$(CURDIR)"/maml_rl/* "$(CURDIR)/envs" "$(CURDIR)/experiments" $(INSTALLED)/maml_rl
	$(BIN)/mypy --package maml_rl | tee $(INSTALLED)/mypy.txt
	@sources=$$(find maml_rl envs experiments -name '*.py' | wc -l); \
		grep -q "found in $$sources source files" $(INSTALLED)/mypy.txt \
		|| { echo "mypy should have seen no issues in all $$sources source files"; exit 1; }
	$(BIN)/mypy docs/extensions/*.py benchmarks/*.py examples/*.py

docs: $(VENV)/installed  ## build the documentation site into build/docs; a warning is an error
	$(SPHINX) --builder html docs build/docs
	@echo "The site is in build/docs: open build/docs/index.html"

docs-links: $(VENV)/installed  ## try the links of the site that lead elsewhere (needs a network)
	$(SPHINX) --builder linkcheck docs build/docs-links

format: $(VENV)/installed  ## fix what lint and format can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

benchmark: $(VENV)/installed  ## time sampling and a meta-iteration against this machine's limits
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/python benchmarks/meta_iteration.py
	$(BIN)/python benchmarks/processes.py
	$(BIN)/python benchmarks/ranks.py
	$(BIN)/python benchmarks/supervised.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/peers.py

pictures: $(VENV)/installed  ## draw the pictures of the README and of the environments from trained/
	$(BIN)/python -m maml_rl.experiments.paper.readme_pictures
	$(BIN)/python -m maml_rl.experiments.paper.environment_pictures

notebooks: $(VENV)/installed  ## run the notebooks of the site, and store what their cells print and draw
	$(BIN)/python docs/extensions/notebooks.py

build: $(VENV)/installed  ## build sdist and wheel, and try both with the newest and the oldest versions
	rm -rf dist
	$(BIN)/python -m build
	bash tests/smoke_wheel.sh $(PYTHON)

clean:  ## remove what make and the tools have made, except runs
	rm -rf $(VENV) $(METAWORLD) build docs/reference dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
