#!/usr/bin/env bash
# papermill 2.7.0: after the kernel died, cells that never ran are marked "completed" in the output notebook.
#
# Behaviour: the second cell ends its kernel (exit status 75, which schedulers read as "try again"). papermill raises, and in the notebook it
# leaves behind the cells after it carry `papermill.status == "completed"` with no execution count, no output and no time; the status
# with which the kernel left is not kept anywhere.
# Expected before the run: "pending", papermill's own word for a cell that has not been reached.
# Whoever reads status to see how far a notebook came is told that it came to its end: look at execution counts.
# Source: papermill/engines.py and clientwrap.py of the installed package.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check papermill==2.7.0 nbclient==0.11.0 ipykernel==7.4.0
cd "$folder"
JUPYTER_PATH="$folder/venv/share/jupyter" "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import nbformat
import papermill

cells = ["first = 1", "import os; os._exit(75)", "third = 3", "fourth = 4"]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
nbformat.write(notebook, "in.ipynb")
try:
    papermill.execute_notebook("in.ipynb", "out.ipynb", kernel_name="python3", progress_bar=False)
    raised = "nothing"
except Exception as error:
    raised = f"{type(error).__name__}: {error}"
print("raised:", raised)
seen = [(cell.source, cell.metadata.papermill.status, cell.execution_count) for cell in nbformat.read("out.ipynb", 4).cells]
for row in seen:
    print(*row, sep=" | ")
assert "75" not in raised
assert [status for _, status, _ in seen[2:]] == ["completed", "completed"], "papermill changed: cells that never ran have another status"
assert [count for _, _, count in seen[2:]] == [None, None]
PYTHON
