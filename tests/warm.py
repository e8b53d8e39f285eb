"""What the process that `own_process` forks from has imported and done once: a fork reads no configuration file and need not wake Numba."""

import gc
import importlib
import sys

gc.disable()  # what is imported stays: no garbage is looked for in it, and forks share its memory
sys.modules.setdefault("rfc3987_syntax", None)  # see conftest.py
for name in ("matplotlib.pyplot", "execnb.shell", "outputs", "spectramind_nb.apps.cli", "spectramind_nb.apps.report",
             "spectramind_nb.runs.replay"):
    importlib.import_module(name)


def wake() -> None:
    import numpy as np

    from spectramind_nb.core.configuration import compose
    from spectramind_nb.observations.series import running_mean

    for trainer in ("defaults", "ci_fast"):
        compose(trainer)
    running_mean(np.ones((1, 9)), 3)


wake()
gc.freeze()
gc.enable()
