# Three commands matter: `make demo` shows the main job, `make check` finds most faults of a change, `make test` proves everything.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
export MPLBACKEND := agg
# Where this is set, each of the tests' many processes compiles the library's modules anew.
export PYTHONDONTWRITEBYTECODE :=
# Installs in a quarter of pip's time. Torch is pip's: uv does not look where the build without CUDA lies.
UV := $(BIN)/uv pip install -q --python
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help demo check test promises bench gpu docs page notebooks readme outputs hooks clean

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The stamp is made anew when anything that decides the installation changed.
$(VENV)/.installed: settings.ini setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch==2.13.0 uv
	$(UV) $(BIN)/python --compile-bytecode -c constraints.txt -e '.[dev]'
	@touch $@

# The generation after the pinned one must be able to export the same notebooks.
.venv-nbdev3/.installed: | $(VENV)/.installed
	$(PYTHON) -m venv --without-pip .venv-nbdev3
	$(UV) .venv-nbdev3/bin/python 'nbdev>=3.3,<3.4'
	@touch $@

# Sphinx makes the book of pages that docs/build.py writes; it needs nothing of the library.
.venv-docs/.installed: constraints.txt | $(VENV)/.installed
	$(PYTHON) -m venv --without-pip .venv-docs
	$(UV) .venv-docs/bin/python -c constraints.txt myst-nb furo sphinx-design sphinx-copybutton latex2mathml
	@touch $@

# DVC runs the pipeline of dvc.yaml in a test; its many requirements stay out of ours.
.venv-dvc/.installed: | $(VENV)/.installed
	$(PYTHON) -m venv --without-pip .venv-dvc
	$(UV) .venv-dvc/bin/python 'dvc>=3.60,<4'
	@touch $@

demo: $(VENV)/.installed  ## simulate planets, train on ci_fast through papermill, write submission.csv and pictures
	$(BIN)/python -m spectramind_nb notebook kaggle/kernels/train/train.ipynb --out demo/train.ipynb \
	  -y '{profile: ci_fast, data: synthetic, overrides: ["experiment=demo", "paths.root=$(CURDIR)/demo"], result_json: "$(CURDIR)/demo/result.json"}'
	$(BIN)/python tests/show_demo.py demo/result.json

check: $(VENV)/.installed  ## a change, in two to three minutes: lint, types, export in sync, changed notebooks, tests of at most a second
	$(BIN)/python -m ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quick -n auto --no-loadscope-reorder -o faulthandler_timeout=300

test: $(VENV)/.installed .venv-nbdev3/.installed .venv-dvc/.installed .venv-docs/.installed  ## everything: exported code in sync, notebooks, pytest, papermill (TESTS=tests/physics: a part)
	$(BIN)/python -m ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --record-durations -n auto --no-loadscope-reorder $(TESTS)

promises: $(VENV)/.installed  ## the trainer layer: every promise with its tests and their result
	$(BIN)/python tests/promises.py

bench: $(VENV)/.installed  ## speed, printed as ratios against a peer measured in the same run
	$(BIN)/python tests/benchmarks/run.py

gpu: $(VENV)/.installed  ## what is promised of GPUs, on those of this machine, in six minutes; without one its processor columns
	OMP_NUM_THREADS=1 PYTHONPATH=.:tests $(BIN)/python tests/trainer/gpu.py

docs: $(VENV)/.installed .venv-docs/.installed  ## the book: notebooks, reference, gallery, search, as pages in _docs/html
	$(BIN)/python docs/build.py

page:  ## the launchpad with Kaggle's notebook packages, in an environment of its own
	PYTHON=$(PYTHON) tests/kaggle_page.sh

notebooks: $(VENV)/.installed  ## export the library from the notebooks, clean them, draw the house anew
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python docs/house.py --write

readme: $(VENV)/.installed  ## README.md from nbs/index.ipynb
	$(BIN)/python tests/readme.py --write

outputs: $(VENV)/.installed  ## run README's notebook and the tutorials, store what they say now, and README.md with it
	$(BIN)/python tests/outputs.py --write
	$(BIN)/nbdev_clean
	$(BIN)/python tests/readme.py --write

hooks: $(VENV)/.installed  ## git in this clone: notebooks are compared as code and text, and merged cell by cell
	git config diff.notebook.textconv '$(abspath $(BIN))/python tests/notebook_text.py'
	git config merge.nbdev-merge.driver '$(abspath $(BIN))/nbdev_merge %O %A %B %P'

clean:  ## remove what was made here, the environment too
	rm -rf $(VENV) .venv-nbdev3 .venv-dvc .venv-docs _docs pipeline build dist *.egg-info demo .pytest_cache .ruff_cache .mypy_cache
