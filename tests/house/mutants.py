"""Thirty small faults, planted one by one in thirty modules: how many does the net find?

    python tests/house/mutants.py [--with test] [--only 3,17]

Each is planted in the notebook of a clone, exported, and looked for with `make check` (or `make test`), which must say no: first with a
part of it, that notebook and the quick tests of its floor, for what a part finds the whole finds; only what survives goes through the
whole. Before the first, the parts must say yes without any fault, and the whole before the first that survives. Prints a line a fault
and `k of N`; exit code 1 if the net finds fewer than it must.
"""

import argparse
import json
import os
import re
import shutil
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
    ("core/machine", '"memory.limit_in_bytes"))]) / 1e9', '"memory.limit_in_bytes"))]) / 1e6'),
    ("core/errors", "return kind(many + first.what,", "return kind(first.what,"),
    ("core/config_groups", "return tuple(sorted(path.stem for path in", "return tuple((path.name for path in"),
    ("core/workforce", "suspects.extend(running.values())", "running.clear()"),
    ("observations/layout", "(np.arange(356) - 177.5) / 177.5", "(np.arange(356) - 178.5) / 177.5"),
    ("observations/detector_kernels", "total += abs(cds[np.uint64(j)] - cds[np.uint64(j - 1)])",
     "total += cds[np.uint64(j)] - cds[np.uint64(j - 1)]"),
    ("observations/lightcurve_figure", "tiles = len(time) // step * step", "tiles = len(time) // step * step - step"),
    ("observations/series", "/ 0.6745 / np.sqrt(2)", "/ 0.6745 * np.sqrt(2)"),
    ("physics/transit", "sin2 = q2 * torch.sin(s) ** 2", "sin2 = q2 * torch.sin(s)"),
    ("physics/limb_darkening", "torch.stack([both + apart, both - apart])", "torch.stack([both - apart, both + apart])"),
    ("physics/normalised_curves", "left, right = flux[t, c] - flux[before, c],", "left, right = flux[before, c] - flux[t, c],"),
    ("simulation/planets", "* np.sqrt(0.5 / star[\"sma\"])", "* np.sqrt(0.5 * star[\"sma\"])"),
    ("simulation/visits", "middle, half = (k.max() + k.min()) / 2", "middle, half = (k.max() - k.min()) / 2"),
    ("simulation/image", "jitter[\"white_px\"] * np.sqrt(0.1 / exposure_s)", "jitter[\"white_px\"] * np.sqrt(exposure_s / 0.1)"),
    ("simulation/light_curves", "np.sqrt(sigma**2 + (light.mean(axis=0)", "np.sqrt(sigma + (light.mean(axis=0)"),
    ("learning/metrics", "sigma) ** 2 - torch.log(sigma)", "sigma) ** 2 + torch.log(sigma)"),
    ("learning/standard_curves", "weight = part.good / part.sigma**2", "weight = part.good / part.sigma"),
    ("learning/datamodule", "return math.ceil(self.planets / self.world_size)", "return math.floor(self.planets / self.world_size)"),
    ("learning/curve_network", "return (mu.clamp(max=0) / scale).square().mean()", "return (mu.clamp(min=0) / scale).square().mean()"),
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


def notebook_of(clone: Path, module: str) -> Path:
    """The notebook that a module is exported from."""
    floor, name = module.split("/")
    (path,) = (clone / "nbs" / floor).glob(f"[0-9][0-9][0-9]_{name}.ipynb")
    return path


def plant(clone: Path, module: str, honest: str, wrong: str) -> None:
    """Write the fault into the module's notebook and export it; ValueError if the line is not there exactly once."""
    path = notebook_of(clone, module)
    book = json.loads(path.read_text())
    cells = [cell for cell in book["cells"] if "".join(cell["source"]).startswith("#| export")]
    found = [cell for cell in cells if honest in "".join(cell["source"])]
    if len(found) != 1 or "".join(found[0]["source"]).count(honest) != 1:
        raise ValueError(f"{module} has not exactly one line with {honest!r}: bring the list of mutants up to date")
    found[0]["source"] = "".join(found[0]["source"]).replace(honest, wrong).splitlines(keepends=True)
    path.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n")
    subprocess.run([VENV / "bin/nbdev_export"], cwd=clone, env=environment(clone), check=True, capture_output=True)


def environment(clone: Path) -> dict[str, str]:
    real = {"SPECTRAMIND_TEST_DATA": str(REPO.parent / "shared/data")}
    return real | {key: value for key, value in os.environ.items() if key != "SPECTRAMIND_CACHE"} | {
        "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}


def part(clone: Path, *modules: str) -> list[str]:
    """The quick tests of a floor, and the notebooks of some of its modules; a training's own tests are in a folder of their own."""
    floor = modules[0].split("/")[0]
    names = [notebook_of(clone, module).relative_to(clone).as_posix() for module in modules]
    folders = ["tests/runs", "tests/trainer"] if floor == "runs" else [f"tests/{floor}"]
    return [str(VENV / "bin/python"), "-m", "pytest", "--quick", "-x", "-p", "no:cacheprovider", *folders,
            *(f"tests/house/test_library_notebooks.py::test_notebook_runs[{name}]" for name in names)]


def whole(target: str) -> list[str]:
    """`make check` or `make test`, with this installation."""
    return ["make", *(f"-o{folder}/.installed" for folder in (VENV, ".venv-nbdev3", ".venv-dvc", ".venv-docs")), f"VENV={VENV}", target]


def ask(clone: Path, command: list[str]) -> tuple[bool, str, float]:
    """Does the command say yes; what failed first; how long it took."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=clone, env=environment(clone), capture_output=True, text=True)
    failed = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
    return done.returncode == 0, failed[0] if failed else done.stdout[-200:] + done.stderr[-200:], time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with", dest="target", choices=MUST_FIND, default="check")
    parser.add_argument("--only", help="numbers, with commas between them")
    asked = parser.parse_args()
    chosen = [int(word) for word in asked.only.split(",")] if asked.only else list(range(1, len(MUTANTS) + 1))
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)  # a test works as nobody
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "-q", REPO, clone], check=True)
        for folder in (".venv-nbdev3", ".venv-dvc", ".venv-docs"):
            (clone / folder).symlink_to(REPO / folder)
        found, sound = 0, set()  # sound: commands that say yes without a fault
        for number in chosen:
            module, honest, wrong = MUTANTS[number - 1]
            neighbours = [other for other, _, _ in MUTANTS if other.split("/")[0] == module.split("/")[0]]
            for command, of_all in ((part(clone, module), part(clone, *neighbours)), (whole(asked.target), whole(asked.target))):
                if str(of_all) not in sound:
                    yes, words, seconds = ask(clone, of_all)
                    if not yes:
                        print(f"   without a fault {' '.join(of_all)} says NO: {words} ({seconds:.0f} s)")
                        return 1
                    sound.add(str(of_all))
                mutant = shutil.copytree(clone, Path(scratch) / "mutant", symlinks=True)  # with what Numba has compiled
                plant(mutant, module, honest, wrong)
                yes, words, seconds = ask(mutant, command)
                shutil.rmtree(mutant)
                if not yes:
                    break
            found += not yes
            verdict = "MISSED" if yes else f"found by {words}"
            print(f"{number:2d} {module:26} {verdict} ({seconds:.0f} s): {honest}  ->  {wrong}", flush=True)
    print(f"{found} of {len(chosen)} with make {asked.target}")
    return int(found < MUST_FIND[asked.target] * len(chosen))


if __name__ == "__main__":
    sys.exit(main())
