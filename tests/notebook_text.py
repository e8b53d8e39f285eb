"""A notebook as text for `git diff`: what people wrote, without outputs and metadata (`make hooks` tells git)."""

import json
import sys
from pathlib import Path

for cell in json.loads(Path(sys.argv[1]).read_text())["cells"]:
    print(f"# -- {cell['cell_type']} {cell.get('id', '')}\n{''.join(cell['source'])}\n")
