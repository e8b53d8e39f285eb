"""README.md from nbs/index.ipynb: prose with its links seen from the root, code fenced, text outputs indented, pictures as files.

--write renews it.
"""

import base64
import json
import os
import re
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def from_root(link: re.Match) -> str:
    """A link of the notebook, which lies in nbs, as README.md needs it."""
    return f"]({os.path.normpath(os.path.join('nbs', link[1]))})"


def render() -> dict[Path, bytes]:
    """README.md and its pictures: path -> content."""
    parts, files = [], {}
    for cell in json.loads((REPO / "nbs/index.ipynb").read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"\]\((?!https?:|#)([^)]+)\)", from_root, source))
        elif not source.startswith("#|"):
            parts.append(f"```python\n{source}\n```")
            for output in cell["outputs"]:
                data = output.get("data", {})
                if "image/png" in data:
                    name = f"nbs/images/{cell['id']}.png"
                    files[REPO / name] = base64.b64decode("".join(data["image/png"]))
                    parts.append(f"![What the lines above draw]({name})")
                elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
                    parts.append("\n".join(f"    {line}".rstrip() for line in text.split("\n")))
    return {REPO / "README.md": ("\n\n".join(parts) + "\n").encode(), **files}


if __name__ == "__main__":
    for path, content in render().items():
        if "--write" in sys.argv:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        elif not path.is_file() or path.read_bytes() != content:
            sys.exit(f"{path.relative_to(REPO)} is not what nbs/index.ipynb says: run `make readme`")
