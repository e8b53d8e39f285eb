"""README.md from nbs/index.ipynb: prose as it is, code fenced, text outputs indented. --write renews it."""

import json
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def render() -> str:
    parts = []
    for cell in json.loads((REPO / "nbs/index.ipynb").read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif not source.startswith("#|"):
            parts.append(f"```python\n{source}\n```")
            for output in cell["outputs"]:
                text = "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
                if text.strip():
                    parts.append("\n".join(f"    {line}".rstrip() for line in text.rstrip().split("\n")))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    readme = REPO / "README.md"
    if "--write" in sys.argv:
        readme.write_text(render())
    elif not readme.is_file() or readme.read_text() != render():
        sys.exit("README.md is not what nbs/index.ipynb says: run `make readme`")
