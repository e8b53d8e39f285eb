"""The book: `python docs/build.py` runs the notebooks of all floors, writes the pages, and lets Sphinx make _docs/html of them.

Nothing is fetched. Tutorials and README keep the outputs that are stored with them, which the tests hold true; all others are run here,
so figures are those of today. `--stored` runs nothing; `--only physics 01_frames` makes a book of those floors and tutorials only.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chapters import PAGES, Linker, facts, notebook_page, page_of, pictures
from house import REPO, Room, doors, draw, rooms
from reference import Module, chapter, first_line, page, plain

from spectramind_nb import _EXAMPLE, _HOME

sys.path.insert(0, str(REPO / "tests"))
HERE, OUT = REPO / "docs", REPO / "_docs"
SPHINX = REPO / ".venv-docs/bin/python"


def run_notebooks(
    paths: list[Path],
    workers: int,  # processes at a time
) -> dict[Path, dict]:  # notebook -> itself with fresh outputs
    """Run every cell, as the tests do: in a process each, with a store that all share. Ends with code 1 where one fails."""
    from own_process import notebook, run_forked

    with tempfile.TemporaryDirectory() as scratch:
        settings = {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO), "SPECTRAMIND_CACHE": f"{scratch}/store"}

        def run(path: Path) -> dict:
            began, fresh = time.monotonic(), Path(scratch, path.name)
            done = run_forked(notebook, ["notebook", path, fresh], REPO, {**os.environ, **settings})
            if done.returncode:
                sys.exit(f"{path.relative_to(REPO)} does not run, so there is no book of it:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            print(f"  {path.relative_to(REPO)}: {time.monotonic() - began:.0f} s", flush=True)
            return json.loads(fresh.read_text())

        with ThreadPoolExecutor(workers) as pool:
            return dict(zip(paths, pool.map(run, paths)))


class Book:
    """The pages, written one by one below a folder."""

    def __init__(
        self,
        folder: Path,  # what is there is removed
        house: list[Room],  # the rooms that are chapters
        notebooks: dict[Path, dict],  # those of the rooms, README's and the tutorials, with the outputs to show
        whole: bool,  # all of them, not some
    ):
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.house, self.notebooks, self.whole = folder, house, notebooks, whole
        self.floors = list(dict.fromkeys(room.floor for room in house))
        self.modules = [Module(room, {name: _EXAMPLE[name] for name, home in _HOME.items() if home == room.name}) for room in house]
        self.linker = Linker(self.modules, _HOME, notebooks)
        self.rooms = {room.notebook: room for room in house}

    def write(self, name: str, text: str) -> None:
        """A page or another file of the sources."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def prose(self) -> None:
        """What is written by hand: pages of docs/, and files of the repository that are pages."""
        for path in [*sorted(HERE.glob("*.md")), *(REPO / name for name in PAGES if name.endswith(".md") and name != "README.md")]:
            text = path.read_text().replace("![The house](house.svg)", ":::{div} house\n```{raw} html\n:file: house.svg\n```\n:::")
            text = self.linker.page(text, path.parent)
            if path.parent == HERE and (unknown := re.findall(r"`[\w.]+\(\)`(?!`)", text)) and self.whole:
                sys.exit(f"docs/{path.name} names {', '.join(unknown)}, which no module has")
            self.write(page_of(path), text.replace("CHAPTERS", "\n".join(f"chapters/{floor}/index" for floor in self.floors)))
        self.write("house.svg", draw(self.house, lambda room: f"{chapter(room)}.html"))

    def chapters(self) -> None:
        """Notebooks, and a page for each floor that lists its rooms."""
        imports = doors(self.house)
        for path, notebook in self.notebooks.items():
            room = self.rooms.get(path)
            said = facts(room, self.house, imports) if room else ""
            folder = path.parent
            self.write(page_of(path), json.dumps(notebook_page(notebook, folder, self.linker, said)))
        for floor in self.floors:
            here = [room for room in self.house if room.floor == floor]
            lines = [f"* {{doc}}`{room.title} </{chapter(room)}>`: {self.linker.names(room.promise)}" for room in here]
            number = here[0].notebook.name[0]
            self.listing(f"chapters/{floor}", f"{number} {floor}", lines, [chapter(room) for room in here])
        told = [path for path in self.notebooks if path.parent.name == "tutorials"]
        names = [page_of(path).removesuffix(".ipynb") for path in told]
        lines = [f"* {{doc}}`{Room(path).title} </{name}>`: {self.linker.names(Room(path).promise)}" for path, name in zip(told, names)]
        self.listing("chapters/tutorials", "Tutorials", lines, names)

    def listing(self, folder: str, title: str, lines: list[str], names: list[str]) -> None:
        """The page of a folder of chapters."""
        tree = ["```{toctree}", ":hidden:", *(f"/{name}" for name in names), "```", ""]
        self.write(f"{folder}/index.md", "\n".join([f"# {title}", "", *lines, "", *tree]))

    def reference(self) -> None:
        """A page a module, and one that lists them below what the package itself gives."""
        for module in self.modules:
            self.write(f"reference/{module.room.name}.md", page(module, self.linker.names))
        by_name = {module.room.name: module for module in self.modules}
        top = ["| name | what it is |", "|---|---|"]
        for name, home in _HOME.items():
            if home in by_name:
                if name not in by_name[home].definitions:
                    sys.exit(f"spectramind_nb/__init__.py says that {name} is in {home}, which only imports it")
                said = self.linker.names(plain(first_line(by_name[home].definitions[name]))).replace("|", "\\|")
                top.append(f"| {{py:obj}}`{name} <{by_name[home].path}.{name}>` | {said} |")
        lists = []
        for floor in self.floors:
            here = [f"* {{doc}}`{room.name}`: {self.linker.names(room.promise)}" for room in self.house if room.floor == floor]
            lists.append("\n".join([f"### {floor}", "", *here]))
        tree = "\n".join(["```{toctree}", ":hidden:", *by_name, "```"])
        self.write("reference/index.md", "\n\n".join([
            "# Reference", "Each entry says what goes in and what comes out, with shapes and units.",
            "## At the top of the package", "`from spectramind_nb import ..`", "\n".join(top), "## By module", *lists, tree]) + "\n")

    def gallery(self) -> None:
        """Every figure of the notebooks, each a link to where it is drawn."""
        cards = []
        for path, notebook in self.notebooks.items():
            for name, heading, content in pictures(notebook):
                image = f"gallery/{path.stem}-{name}.png"
                self.write(image, "")
                (self.folder / image).write_bytes(content)
                docname = page_of(path).removesuffix(".ipynb")
                cards += [f"::::{{grid-item-card}} {heading}", f":img-top: /{image}", f":img-alt: {heading}", f":link: /{docname}",
                          ":link-type: doc", "::::"]
        head = ["# Gallery", "", "Figures of the chapters; each leads to where it is drawn.", ""]
        self.write("gallery.md", "\n".join([*head, ":::::{grid} 1 2 2 3", ":gutter: 3", *cards, ":::::", ""]))

    def settings(self) -> None:
        """Every YAML file of configs/, with the comments that explain its keys."""
        groups = sorted({path.parent for path in REPO.glob("configs/**/*.yaml")})
        parts = ["# Settings", "Every key, as `configs/` holds them: `group=option` chooses a file, `key=value` changes a key."]
        for group in groups:
            for path in sorted(group.glob("*.yaml")):
                parts += [f"## {path.relative_to(REPO / 'configs').with_suffix('')}", f"```yaml\n{path.read_text().strip()}\n```"]
        self.write("settings.md", "\n\n".join(parts) + "\n")

    def commands(self) -> None:
        """What `--help` says, for each command."""
        parts = ["# Commands", "What `spectramind COMMAND --help` says."]
        for words, text in command_helps():
            parts += [f"## {' '.join(words)}", f"```text\n{text}\n```"]
        self.write("commands.md", "\n\n".join(parts) + "\n")


def command_helps() -> list[tuple[list[str], str]]:
    """(words of a command, its help) of all commands, groups before what they hold."""
    os.environ |= {"TERMINAL_WIDTH": "88", "TERM": "dumb"}  # read when Typer is imported
    from typer.main import get_command
    from typer.testing import CliRunner

    from spectramind_nb.apps.cli import app

    def walk(command, words):
        yield words
        for name, inner in sorted(getattr(command, "commands", {}).items()):
            if not inner.hidden:
                yield from walk(inner, [*words, name])

    runner = CliRunner()

    def help_of(words: list[str]) -> str:
        return runner.invoke(app, [*words[1:], "--help"], prog_name="spectramind").output.strip("\n")

    return [(words, help_of(words)) for words in walk(get_command(app), ["spectramind"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stored", action="store_true", help="run no notebook; show the outputs that are stored in them")
    parser.add_argument("--only", nargs="+", help="floors, and beginnings of tutorials' names")
    parser.add_argument("--out", type=Path, default=OUT, help="folder that is made")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="notebooks that run at a time")
    options = parser.parse_args()
    if not SPHINX.exists():
        sys.exit("Sphinx is not there: `make docs` makes its environment .venv-docs")
    house, told = rooms(), sorted(REPO.glob("nbs/tutorials/*.ipynb"))
    if options.only:
        house = [room for room in house if room.floor in options.only]
        told = [path for path in told if path.name.startswith(tuple(options.only))]
    notebooks = {path: json.loads(path.read_text()) for path in [REPO / "nbs/index.ipynb", *told, *(room.notebook for room in house)]}
    if not options.stored:
        notebooks |= run_notebooks([room.notebook for room in house], options.workers)
    for made in ("html", "doctrees"):  # pages of rooms that are no more would stay
        shutil.rmtree(options.out / made, ignore_errors=True)
    book = Book(options.out / "pages", house, notebooks, whole=not options.only)
    for part in (book.prose, book.chapters, book.reference, book.gallery, book.settings, book.commands):
        part()
    words = ["-c", HERE, "-d", options.out / "doctrees", "-j", str(options.workers), "-q"]
    words += [] if options.only else ["-W", "--keep-going"]  # a part of the book has links to the rest of it
    done = subprocess.run([SPHINX, "-m", "sphinx", *words, book.folder, options.out / "html"])
    if done.returncode:
        sys.exit("Sphinx found what is said above.")
    print(f"The book: {options.out / 'html/index.html'}")


if __name__ == "__main__":
    main()
