"""What the process that `own_process` forks from has imported. It stays, so no garbage is looked for in it, and forks share its memory."""

import gc
import importlib
import sys

gc.disable()
sys.modules.setdefault("rfc3987_syntax", None)  # see conftest.py
for name in ("matplotlib.pyplot", "execnb.shell", "outputs", "spectramind_nb.apps.cli", "spectramind_nb.apps.report",
             "spectramind_nb.runs.replay"):
    importlib.import_module(name)
gc.freeze()
gc.enable()
