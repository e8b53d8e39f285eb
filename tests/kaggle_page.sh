#!/usr/bin/env bash
# The launchpad with the notebook packages of Kaggle's image (2026-08): its unit tests, and its kernel through papermill.
# Usage: tests/kaggle_page.sh [FOLDER]   FOLDER gets the environment and is kept. Not part of `make test`: it installs a gigabyte.
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
venv=${1:-$repo/.venv-kaggle}
if [ ! -e "$venv/.installed" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
  "$venv/bin/pip" install -q --disable-pip-version-check ipywidgets==8.1.5 jupyterlab-widgets==3.0.16 widgetsnbextension==4.0.15 \
    ipykernel==6.17.1 ipython==7.34.0 nbclient==0.5.13 papermill==2.7.0 jupyter-client==7.4.9 traitlets==5.7.1 pyzmq==26.2.1 tornado==6.5.1 \
    nbformat==5.10.4 pytest -e "$repo"
  touch "$venv/.installed"
fi
export PYTHONPATH=$repo MPLBACKEND=agg OMP_NUM_THREADS=1
"$venv/bin/pip" list --disable-pip-version-check 2>/dev/null | grep -E "^(ipywidgets|ipykernel|ipython|nbclient|papermill|torch) "
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$venv/bin/python" -m spectramind_nb simulate --out data --train 6 --test 2 --seed 1 --short
KAGGLE_KERNEL_RUN_TYPE=Batch "$venv/bin/python" -m spectramind_nb notebook "$repo/kaggle/kernels/launchpad/launchpad.ipynb" --out done.ipynb \
  -y "{profile: ci_fast, overrides: ['data.root=$work/data', data.batch_size=2], run: true, result_json: result.json}"
"$venv/bin/python" - <<'P'
import json
import nbformat

cells = nbformat.read("done.ipynb", 4).cells
outputs = [output for cell in cells for output in cell.get("outputs", [])]
shown = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
assert any("SpectraMind launchpad" in page and "finished" in page for page in shown), "the page was not rendered"
assert not any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs), "a live widget"
print("papermill:", json.load(open("result.json"))["outcome"])
P
cd "$repo"
"$venv/bin/python" -m pytest -q -p no:cacheprovider tests/apps/test_launchpad.py
