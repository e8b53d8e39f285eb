"""What README and the tutorials show: `--write` runs them and stores their outputs; the suite compares what is stored with what runs.

Words must be equal. A number may differ by half a per cent or by two units of its last digit, whichever is more: another processor sums in
another order, and a training of a few steps amplifies it; anything that a change of the code does is larger. Whole numbers of six digits
and more are names of planets, those below a hundred are counts; both must be equal. Seconds, megabytes, hashes and names made from the
time are measured anew in each run and are not compared. Progress lines are not stored. Cells marked `#| eval: false` need what others
made: they keep what is stored, and run where EXOSIM_OUTPUT names the folder of ExoSim's NDRs, or WASP17_CURVES the published light
curves; the one that needs TauREx is run by tests/travel.
"""

import contextlib
import html
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
SHOWN = [REPO / "nbs/index.ipynb", *sorted((REPO / "nbs/tutorials").glob("[0-9]*.ipynb"))]
PROGRESS = re.compile(r"^(\w+( \w+)?: \d+/\d+,|epoch \d+/).*\n?", re.MULTILINE)
MEASURED = re.compile(r"(\d+(\.\d+)? of )?\d+(\.\d+)? ?(s|min|h|MB|GB)\b")
NAMES = re.compile(r"\b(?=\w*\d)(?=\w*[a-f])[0-9a-f]{8,}\b|\b\d{8}-\d{6}\b|(?<!\w)/tmp/[\w./-]+")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def run(path: Path) -> dict:
    """The notebook with fresh outputs, as `nbdev` tests it; an exception in a cell is raised."""
    from execnb.nbio import nb2dict, read_nb
    from execnb.shell import CaptureShell

    os.environ["IN_TEST"] = "1"
    notebook = read_nb(path)
    _take_kernels_from_the_library(notebook.cells)
    with contextlib.chdir(path.parent):
        CaptureShell(path, mpl_format="png").run_all(notebook, exc_stop=True, preproc=_left_out)
    fresh = json.loads(json.dumps(nb2dict(notebook)))
    for cell in fresh["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [kept for output in cell.get("outputs", []) if (kept := _worth_storing(output))]
    return fresh


def _take_kernels_from_the_library(cells: list) -> None:
    """Numba would compile an exported cell anew in every run; the module is the same code, which a test holds, and is compiled already."""
    exported = [cell for cell in cells if cell.source.startswith("#| export")]
    if any(re.search(r"^@(compiled|njit)\(", cell.source, re.MULTILINE) for cell in exported):
        module = next(cell.source.split()[-1] for cell in cells if cell.source.startswith("#| default_exp"))
        for cell in exported:
            cell.source = ""
        exported[0].source = (f"import spectramind_nb.{module} as _room\n"
                              "globals().update({name: value for name, value in vars(_room).items() if not name.startswith('__')})")


def _left_out(cell) -> bool:
    """Does the cell need what is not there?"""
    text = "".join(cell.source)
    needed = "WASP17_CURVES" if "wasp17" in text else "EXOSIM_OUTPUT"
    return text.startswith("#| eval: false") and ("taurex" in text or needed not in os.environ)


def _worth_storing(output: dict) -> dict | None:
    """An output without progress and without an execution count; nothing for what is progress only."""
    if output["output_type"] == "stream":
        text = PROGRESS.sub("", "".join(output["text"]))
        return {**output, "text": text.splitlines(True)} if output["name"] == "stdout" and text.strip() else None
    return {**output, **({"execution_count": None} if output["output_type"] == "execute_result" else {})}


def words(output: dict) -> str:
    """What an output says; pictures and the tags of HTML say nothing."""
    if output["output_type"] == "stream":
        return PROGRESS.sub("", "".join(output["text"]))
    data = output.get("data", {})
    if "text/html" in data:
        text = re.sub(r"<style.*?</style>|<[^>]*>", " ", "".join(data["text/html"]), flags=re.DOTALL)
        return html.unescape(text)
    return "" if "image/png" in data else "".join(data.get("text/plain", ""))


def same_number(stored: str, fresh: str) -> bool:
    """Within the tolerance of this file."""
    if stored.isdigit() and (len(stored) >= 6 or int(stored) < 100):  # names and counts
        return stored == fresh
    mantissa, _, exponent = stored.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(stored) - float(fresh)) <= max(2.001 * unit, 0.005 * abs(float(stored)))


def difference(stored: str, fresh: str) -> str | None:
    """The first thing that two texts say differently, or None."""
    stored, fresh = (" ".join(NAMES.sub("#", MEASURED.sub("#", text)).split()) for text in (stored, fresh))
    if NUMBER.sub("0", stored) != NUMBER.sub("0", fresh):
        return f"stored: {stored[:300]!r}, now: {fresh[:300]!r}"
    pairs = zip(NUMBER.findall(stored), NUMBER.findall(fresh))
    return next((f"{a} is stored where now is {b}" for a, b in pairs if not same_number(a, b)), None)


def differences(stored: dict, fresh: dict) -> list[str]:
    """Where the outputs of two executions of a notebook differ: cell and first difference."""
    found = []
    for old, new in zip(stored["cells"], fresh["cells"], strict=True):
        if old["cell_type"] == "code":
            texts = (" ".join(map(words, cell.get("outputs", []))) for cell in (old, new))
            found += [f"cell {old['id']}: {what}"] if (what := difference(*texts)) else []
    return found


def with_what_is_still_true(stored: dict, fresh: dict) -> dict:
    """The fresh notebook with the stored outputs of cells that show words only and say what they said."""
    for old, new in zip(stored["cells"], fresh["cells"], strict=True):
        outputs = [cell.get("outputs", []) for cell in (old, new)]
        pictures = any("image/png" in output.get("data", {}) for output in outputs[1])
        if outputs[0] and not pictures and difference(*(" ".join(map(words, one)) for one in outputs)) is None:
            new["outputs"] = outputs[0]
    return fresh


def store(path: Path) -> None:
    """Run a notebook in a process and with stores of its own, and keep what it says now."""
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "SPECTRAMIND_CACHE": cache, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, __file__, path], env=env, check=True)
    print(f"{path.relative_to(REPO)}: stored", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        for one in SHOWN:
            store(one)
    else:
        shown = Path(sys.argv[1])
        told = with_what_is_still_true(json.loads(shown.read_text()), run(shown))
        shown.write_text(json.dumps(told, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
