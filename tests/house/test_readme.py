"""The README's commands do what it says, in the order in which it says them."""

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def commands(text: str) -> list[str]:
    """The `spectramind` lines of the shell blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("spectramind")]


def test_commands_of_the_readme_run(tmp_path, warm_spectramind):
    lines = commands((REPO / "README.md").read_text())
    assert len(lines) >= 8
    env = {"SPECTRAMIND_CACHE": str(tmp_path / "cache")}
    for line in lines:
        done = warm_spectramind(*line.split()[1:], cwd=tmp_path, env=env)
        assert done.returncode == 0, f"{line}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"


def test_make_targets_of_the_readme_exist():
    named = set(re.findall(r"`?make ([a-z]+)", (REPO / "README.md").read_text()))
    made = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named <= made


def test_notebooks_of_the_readme_exist():
    for folder in re.findall(r"`(nbs/\w+)`", (REPO / "README.md").read_text()):
        assert any((REPO / folder).glob("[0-9]*.ipynb"))
