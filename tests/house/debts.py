"""What the house's rules do not yet find everywhere, counted: a list that only shrinks.

    python tests/house/debts.py     writes debts.json as things are; a number that has grown needs a reason in the commit

A rule is a function below: what breaks it -> by how much. `test_debts.py` fails where there is more than debts.json says.
"""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_suffix(".json")
LONGEST_CELL = 60  # lines


def exported_cells() -> dict[str, str]:
    """Notebook#cell -> code of every cell that becomes library code, imports apart."""
    return {
        f"{path.parent.name}/{path.stem}#{cell['id']}": "".join(cell["source"]).partition("\n")[2]
        for path in sorted(REPO.glob("nbs/*/[0-9]*.ipynb"))
        for cell in json.loads(path.read_text())["cells"]
        if cell["cell_type"] == "code" and cell["source"] and cell["source"][0].startswith("#| export") and cell["id"] != "imports"
    }


def long_cells() -> dict[str, int]:
    """Exported cells that fill more than a screen, with their lines."""
    lines = {name: len(code.strip().splitlines()) for name, code in exported_cells().items()}
    return {name: count for name, count in lines.items() if count > LONGEST_CELL}


def crowded_cells() -> dict[str, int]:
    """Exported cells with more than one public class or function, with their number."""
    defined = {
        name: sum(isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") for node in ast.parse(code).body)
        for name, code in exported_cells().items()
    }
    return {name: count for name, count in defined.items() if count > 1}


def type_errors() -> dict[str, int]:
    """Modules about which mypy complains (its settings: pyproject.toml), with the number of complaints."""
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=REPO, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not re.search(r"^(Found|Success)", done.stdout, re.MULTILINE):  # 1 is also "no module named mypy"
        raise RuntimeError(done.stdout + done.stderr)
    return dict(sorted(Counter(re.findall(r"^spectramind_nb/(\S+?)\.py:\d+: error: ", done.stdout, re.MULTILINE)).items()))


RULES = {rule.__name__: rule for rule in (long_cells, crowded_cells, type_errors)}

if __name__ == "__main__":
    RECORD.write_text(json.dumps({name: rule() for name, rule in RULES.items()}, indent=1) + "\n")
