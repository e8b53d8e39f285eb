#!/usr/bin/env bash
# PyTorch 2.13.0 on a CPU: inside float16 autocast some linear algebra silently goes to float32, its siblings raise.
#
# Behaviour: a float16 matrix inside `torch.autocast("cpu", torch.float16)`: cholesky, solve, inv and eigh answer in float32, as if nothing were
# half about it; solve_triangular, slogdet, det and lu_factor raise. A smoke test on a CPU of a model that solves with Cholesky factors
# says little about the same model under autocast on a GPU, where cholesky itself raises for a float16 matrix.
# Expected before the run: one rule for all of torch.linalg. Leave autocast around linear algebra and choose the precision yourself.
# Source: the CPU lists of lower precision and float32 operations in PyTorch's autocast documentation; tried one by one here.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch

draw = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
half = (draw @ draw.T + 8 * torch.eye(8)).half()
calls = {
    "cholesky": torch.linalg.cholesky, "inv": torch.linalg.inv, "eigh": torch.linalg.eigh,
    "solve": lambda a: torch.linalg.solve(a, a), "slogdet": torch.linalg.slogdet, "det": torch.linalg.det,
    "lu_factor": torch.linalg.lu_factor, "solve_triangular": lambda a: torch.linalg.solve_triangular(a, a, upper=False),
}
seen = {}
for name, call in calls.items():
    try:
        with torch.autocast("cpu", torch.float16):
            answer = call(half)
        seen[name] = str((answer if isinstance(answer, torch.Tensor) else answer[0]).dtype)
    except (RuntimeError, NotImplementedError) as error:
        seen[name] = "raises " + type(error).__name__
    print(f"{name:17} {seen[name]}")
lifted = {name for name, what in seen.items() if what == "torch.float32"}
assert lifted == {"cholesky", "inv", "eigh", "solve"}, "PyTorch changed: autocast treats other operations so"
assert all(what.startswith("raises") for name, what in seen.items() if name not in lifted)
PYTHON
