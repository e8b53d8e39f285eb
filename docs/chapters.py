"""Pages from notebooks and from Markdown of the repository: links that lead within the book, names that lead to the reference."""

import ast
import base64
import configparser
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from house import REPO, Room
from reference import Module, chapter, is_shown

settings = configparser.ConfigParser(delimiters=["="])
settings.read(REPO / "settings.ini")
SOURCES = "https://github.com/{user}/{repo}/blob/{branch}".format(**settings["DEFAULT"])
PAGES = {  # files of the repository that are pages under another name
    "nbs/index.ipynb": "start.ipynb", "README.md": "start.ipynb", "CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md",
    "configs/trainer/README.md": "trainer/profiles.md", "configs/trainer/architecture.md": "trainer/architecture.md",
}
LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")
NAME = re.compile(r"(?<![`}\w])`([A-Za-z]\w*(?:\.[a-z]\w*)?)(\(\))?`(?!`)")
CODE = re.compile(r"(^ *(`{3,}).*?^ *\2 *$)", re.DOTALL | re.MULTILINE)


def page_of(path: Path) -> str | None:
    """The page that a file of the repository is, with its suffix; None if it is none."""
    name = path.relative_to(REPO).as_posix()
    if name.startswith("nbs/") and name.endswith(".ipynb"):
        return PAGES.get(name, f"chapters/{name.removeprefix('nbs/')}")
    return PAGES.get(name, name.removeprefix("docs/") if re.fullmatch(r"docs/\w+\.md", name) else None)


class Linker:
    """Makes links of what a text names: public names of the library, and files of the repository."""

    def __init__(
        self,
        modules: Sequence[Module],
        top: Mapping[str, str],  # a name that the package itself gives -> its module: there it is meant where others have it too
        notebooks: Container[Path],  # those that are pages of this book
    ):
        self.notebooks = notebooks
        homes: dict[str, list[str]] = {}
        for module in modules:
            for name in module.definitions:
                homes.setdefault(name, []).append(module.path)
        # A word such as `fit` may be the command, a key or the function: only names that look like nothing else are links.
        self.targets = {name: f"{found[0]}.{name}" for name, found in homes.items() if len(found) == 1}
        paths = {module.room.name: module.path for module in modules}
        self.targets |= {name: f"{paths[home]}.{name}" for name, home in top.items() if home in paths}
        classes = {name: node for module in modules for name, node in module.definitions.items() if isinstance(node, ast.ClassDef)}
        for name in classes:
            self.targets |= {f"{name}.{method}": target for method, target in self._methods(name, classes).items()}

    def _methods(self, name: str, classes: Mapping[str, ast.ClassDef]) -> dict[str, str]:
        """Public methods of a class, those that it inherits too, each with its entry."""
        found: dict[str, str] = {}
        for base in [ast.unparse(base) for base in classes[name].bases][::-1]:
            found |= self._methods(base, classes) if base in classes else {}
        defined = [node for node in classes[name].body if isinstance(node, ast.FunctionDef)]
        own = [node.name for node in defined if is_shown(node)] if name in self.targets else []
        return found | {method: f"{self.targets[name]}.{method}" for method in own}

    def names(self, text: str) -> str:
        """`light_curve` becomes a link to its entry in the reference."""
        def link(match: re.Match) -> str:
            name, call = match[1], match[2] or ""
            telling = call or "_" in name or re.search("[a-z][A-Z]", name)
            return f"{{py:obj}}`{name}{call} <{self.targets[name]}>`" if telling and name in self.targets else match[0]

        lines = (line if line.startswith("#") else NAME.sub(link, line) for line in text.split("\n"))
        return "\n".join(lines)

    def page(self, text: str, folder: Path) -> str:
        """A page's Markdown, whose links are relative to a folder of the repository; what stands in fences stays."""
        def link(match: re.Match) -> str:
            path = (folder / match[2]).resolve()
            if not path.is_relative_to(REPO) or not path.exists():
                return match[0]
            page = page_of(path) if path.suffix != ".ipynb" or path in self.notebooks else None
            return f"{match[1]}/{page}{match[3]}" if page else f"{match[1]}{SOURCES}/{path.relative_to(REPO)}{match[3]}"

        parts = CODE.split(text)  # text, fenced code, its fence, text, ..
        return "".join(self.names(LINK.sub(link, part)) if i % 3 == 0 else part for i, part in enumerate(parts) if i % 3 != 2)


def notebook_page(notebook: dict, folder: Path, linker: Linker, facts: str = "") -> dict:
    """A notebook as a page: without what only nbdev reads, with `facts` below its title, imports folded."""
    cells = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        directives = re.findall(r"^#\| *(\w+)", source, re.MULTILINE)
        source = re.sub(r"^#\|.*\n?", "", source, flags=re.MULTILINE).strip("\n")
        if {"hide", "default_exp"} & set(directives) or not source:
            continue
        if cell["cell_type"] == "markdown":
            cell = {**cell, "source": linker.page(source, folder)}
        else:
            tags = ["hide-input"] if "export" in directives and _imports_only(source) else []
            outputs = [_without_links(output) for output in cell.get("outputs", [])]
            cell = {**cell, "source": source, "outputs": outputs, "metadata": {"tags": tags} if tags else {}}
        cells.append(cell)
    if facts:
        cells.insert(1, {"cell_type": "markdown", "id": "where-it-stands", "metadata": {}, "source": facts})
    return {**notebook, "cells": cells}


def _without_links(output: dict) -> dict:
    """An output whose HTML leads to no file of the run that made it: the book has none of them."""
    if "text/html" not in output.get("data", {}):
        return output
    html = re.sub(r"<a\b[^>]*href=[\"'](?!https?:|#)[^>]*>(.*?)</a>", r"\1", "".join(output["data"]["text/html"]), flags=re.DOTALL)
    return {**output, "data": {**output["data"], "text/html": html}}


def _imports_only(source: str) -> bool:
    return all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(source).body)


def facts(room: Room, house: list[Room], imports: dict[str, set[str]]) -> str:
    """Where a chapter's room stands: its module, what it imports, who imports it."""
    def listed(names: set[str]) -> str:
        return ", ".join(f"{{doc}}`{one.name} </{chapter(one)}>`" for one in house if one.name in names) or "none"

    above = {name for name, below in imports.items() if room.name in below}
    return (f":::{{div}} facts\nModule {{doc}}`{room.name} </reference/{room.name}>` · imports: {listed(imports[room.name])} · "
            f"imported by: {listed(above)}\n:::")


def pictures(notebook: dict) -> list[tuple[str, str, bytes]]:
    """(id of the cell and a number, nearest heading above it, PNG) of each picture among the outputs."""
    found, heading = [], ""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            heading = ([heading] + re.findall(r"^#+ (.*)", "".join(cell["source"]), re.MULTILINE))[-1]
        drawn = [output["data"]["image/png"] for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        found += [(f"{cell['id']}-{number}", heading, base64.b64decode("".join(image))) for number, image in enumerate(drawn)]
    return found
