"""The README's commands do what it says, in the order in which it says them."""

import json
import re
from pathlib import Path

import pytest

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


def test_recipes_of_the_readme_compose():
    from spectramind_nb.core.configuration import compose

    recipes = re.findall(r"\| `spectramind train ([^`]+)` \|", (REPO / "README.md").read_text())
    assert len(recipes) >= 6
    for recipe in recipes:
        assert compose(overrides=[word for word in recipe.split() if "=" in word]).data.name


def test_files_that_the_readme_links_are_there_and_its_pictures_are_small():
    targets = re.findall(r"\]\((?!http)([^)]+)\)", (REPO / "README.md").read_text())
    assert targets and all((REPO / target).is_file() for target in targets)
    pictures = [REPO / target for target in targets if target.endswith(".png")]
    assert pictures and sum(picture.stat().st_size for picture in pictures) < 100_000


@pytest.mark.parametrize("page", [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "configs/trainer/README.md", "configs/trainer/architecture.md",
    "nbs/index.ipynb", *sorted(path.relative_to(REPO).as_posix() for path in (REPO / "nbs/tutorials").glob("*.ipynb")),
])
def test_links_lead_somewhere(page):
    """From the folder that the page lies in, as an editor or a notebook follows them."""
    path = REPO / page
    text = path.read_text()
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\((?!https?:|#|attachment:)([^)\s#]+)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []
