"""Thirty small faults, planted one by one in thirty modules: how many does the net find?

    python tests/house/mutants.py [--with test] [--only 3,17]

Each is planted in the notebook of a clone, exported, and looked for with `make check` (or `make test`), which must say no. Before the
first, the command must say yes without any fault. Prints a line a fault and `k of N`; exit code 1 if the net finds fewer than it must.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
VENV = Path(sys.prefix)
MUST_FIND = {"check": 0.8, "test": 0.93}  # 24 and 28 of 30
MUTANTS = (  # module, a line's part as it is, the same with a fault
    ("core/storage", "> 2:  # times are coarse", "> -2:  # times are coarse"),
    ("core/environment", "return min(total, int(limit)) / 1e9", "return min(total, int(limit)) / 1e6"),
    ("core/errors", "return kind(many + first.what,", "return kind(first.what,"),
    ("core/config_groups", "return tuple(sorted(path.stem for path in", "return tuple((path.name for path in"),
    ("core/workforce", "suspects.extend(running.values())", "running.clear()"),
    ("observations/layout", "(np.arange(356) - 177.5) / 177.5", "(np.arange(356) - 178.5) / 177.5"),
    ("observations/detector_kernels", "change += abs(cds[first + np.uint64(1)] - cds[first])",
     "change += cds[first + np.uint64(1)] - cds[first]"),
    ("observations/lightcurve_figure", "tiles = len(time) // step * step", "tiles = len(time) // step * step - step"),
    ("observations/series", "/ 0.6745 / np.sqrt(2)", "/ 0.6745 * np.sqrt(2)"),
    ("physics/transit", "sin2 = q2 * torch.sin(s) ** 2", "sin2 = q2 * torch.sin(s)"),
    ("physics/limb_darkening", "touched = ~((z >= 1 + k) | (k <= 0))", "touched = ~((z >= 1 - k) | (k <= 0))"),
    ("physics/normalised_curves", "bend[1:-1] = flux[1:-1] - (flux[:-2] + flux[2:]) / 2",
     "bend[1:-1] = flux[1:-1] - (flux[:-2] + flux[2:])"),
    ("simulation/planets", "* np.sqrt(0.5 / star[\"sma\"])", "* np.sqrt(0.5 * star[\"sma\"])"),
    ("simulation/visits", "middle, half = (k.max() + k.min()) / 2", "middle, half = (k.max() - k.min()) / 2"),
    ("simulation/image", "jitter[\"white_px\"] * np.sqrt(0.1 / exposure_s)", "jitter[\"white_px\"] * np.sqrt(exposure_s / 0.1)"),
    ("simulation/light_curves", "np.sqrt(sigma**2 + (light.mean(axis=0)", "np.sqrt(sigma + (light.mean(axis=0)"),
    ("learning/metrics", "sigma) ** 2 - torch.log(sigma)", "sigma) ** 2 + torch.log(sigma)"),
    ("learning/standard_curves", "weight = part.good / part.sigma**2", "weight = part.good / part.sigma"),
    ("learning/datamodule", "return math.ceil(self.planets / self.world_size)", "return math.floor(self.planets / self.world_size)"),
    ("learning/encoder", "return (mu.clamp(max=0) / scale).square().mean()", "return (mu.clamp(min=0) / scale).square().mean()"),
    ("learning/conditioning", "(pull * coefficients).sum(-1) + log_volume)", "(pull * coefficients).sum(-1) - log_volume)"),
    ("learning/nuisances", "root = (precision - 1).sqrt()", "root = (precision + 1).sqrt()"),
    ("runs/submission", "if (counts > 1).any():", "if (counts > 2).any():"),
    ("runs/storage_budget", "(1 - _SPARE) * self.budget_bytes", "(1 + _SPARE) * self.budget_bytes"),
    ("runs/wall_and_signals", "self.last_s = min(max(1.0, wall.reserve_s / 10), 10.0)",
     "self.last_s = min(max(-1.0, -wall.reserve_s / 10), 10.0)"),
    ("records/ledger", "file.write(b\"\\n\" * broken + line", "file.write(line"),
    ("records/provenance", "b\"\\1\" + root(leaves[:half]) + root(leaves[half:])", "b\"\\1\" + root(leaves[:half]) + root(leaves[:half])"),
    ("apps/estimate", "if self.run_bytes > self.budget_bytes:", "if self.run_bytes < self.budget_bytes:"),
    ("apps/jobs", "if record.get(\"exit_code\") is not None else 137", "if record.get(\"exit_code\") is not None else 0"),
    ("apps/fit_figure", "mid_d = (geometry[\"mid_time_h\"] + later * geometry[\"offset_h\"]) / 24",
     "mid_d = (geometry[\"mid_time_h\"] - later * geometry[\"offset_h\"]) / 24"),
)


def plant(clone: Path, module: str, honest: str, wrong: str) -> Path:
    """Write the fault into the module's notebook and export it; ValueError if the line is not there exactly once."""
    floor, name = module.split("/")
    (path,) = (clone / "nbs" / floor).glob(f"[0-9]*_{name}.ipynb")
    book = json.loads(path.read_text())
    cells = [cell for cell in book["cells"] if "".join(cell["source"]).startswith("#| export")]
    found = [cell for cell in cells if honest in "".join(cell["source"])]
    if len(found) != 1 or "".join(found[0]["source"]).count(honest) != 1:
        raise ValueError(f"{module} has not exactly one line with {honest!r}: bring the list of mutants up to date")
    found[0]["source"] = "".join(found[0]["source"]).replace(honest, wrong).splitlines(keepends=True)
    path.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n")
    subprocess.run([VENV / "bin/nbdev_export"], cwd=clone, check=True, capture_output=True)
    return path


def ask(clone: Path, target: str) -> tuple[bool, str, float]:
    """Does the command say yes; what failed first; how long it took."""
    stamps = [f"-o{folder}/.installed" for folder in (VENV, ".venv-nbdev3", ".venv-dvc")]
    environment = {key: value for key, value in os.environ.items() if key != "SPECTRAMIND_CACHE"} | {"PYTHONPATH": str(clone)}
    began = time.monotonic()
    done = subprocess.run(["make", *stamps, f"VENV={VENV}", target], cwd=clone, env=environment, capture_output=True, text=True)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return done.returncode == 0, failed[0] if failed else done.stdout[-200:] + done.stderr[-200:], time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with", dest="target", choices=MUST_FIND, default="check")
    parser.add_argument("--only", help="numbers, with commas between them")
    asked = parser.parse_args()
    chosen = [int(word) for word in asked.only.split(",")] if asked.only else list(range(1, len(MUTANTS) + 1))
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "-q", REPO, clone], check=True)
        for folder in (".venv-nbdev3", ".venv-dvc"):
            (clone / folder).symlink_to(REPO / folder)
        yes, words, seconds = ask(clone, asked.target)
        print(f"   without a fault: {'yes' if yes else f'NO: {words}'} ({seconds:.0f} s)", flush=True)
        if not yes:
            return 1
        found = 0
        for number in chosen:
            module, honest, wrong = MUTANTS[number - 1]
            plant(clone, module, honest, wrong)
            yes, words, seconds = ask(clone, asked.target)
            found += not yes
            verdict = "MISSED" if yes else f"found by {words}"
            print(f"{number:2d} {module:26} {verdict} ({seconds:.0f} s): {honest}  ->  {wrong}", flush=True)
            subprocess.run(["git", "checkout", "-q", "."], cwd=clone, check=True)
    print(f"{found} of {len(chosen)} with make {asked.target}")
    return int(found < MUST_FIND[asked.target] * len(chosen))


if __name__ == "__main__":
    sys.exit(main())
