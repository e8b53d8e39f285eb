"""The house as it stands: its rooms read from the notebooks, the doors between them from the imports, and a picture of both.

`--write` draws docs/house.svg anew; without it the picture is compared with the code and exit code 1 says that it is out of date.
"""

import ast
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
PACKAGE = "spectramind_nb"
PICTURE = REPO / "docs/house.svg"
WIDTH, MARGIN, TOP, FLOOR_NAME, COLUMN, ROOM_HEIGHT, GAP = 1060, 12, 52, 152, 22, 26, 8  # pixels
LETTER = 7.1  # width of a letter of a room's name
STYLE = ("text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1b2733}.name{font-size:15px;font-weight:600}.ground{fill:#fff}"
         ".floor{fill:#e8eef6}.room rect{fill:#fff;stroke:#7f95b2}.room text,.column{text-anchor:middle}circle{fill:#35598a}")


@dataclass(frozen=True)
class Room:
    """A notebook and, if it is one of the library's, the module that is exported from it."""

    notebook: Path

    @cached_property
    def name(self) -> str:
        """Name of the module below the package, such as `physics.transit`."""
        return re.search(r"^#\| default_exp (\S+)", self.code, re.MULTILINE)[1]

    @property
    def floor(self) -> str:
        return self.name.split(".")[0]

    @cached_property
    def cells(self) -> list[dict]:
        return json.loads(self.notebook.read_text())["cells"]

    @cached_property
    def code(self) -> str:
        """Source of all code cells."""
        return "\n".join("".join(cell["source"]) for cell in self.cells if cell["cell_type"] == "code")

    @cached_property
    def title(self) -> str:
        return "".join(self.cells[0]["source"]).split("\n")[0].removeprefix("# ")

    @cached_property
    def promise(self) -> str:
        """The sentence below the title."""
        return re.search(r"^> (.*)", "".join(self.cells[0]["source"]), re.MULTILINE)[1]

    @property
    def module(self) -> Path:
        return REPO / PACKAGE / f"{self.name.replace('.', '/')}.py"


def rooms() -> list[Room]:
    """All rooms, from the ground up: in the order of the notebooks' numbers."""
    return [Room(path) for path in sorted(REPO.glob("nbs/**/[0-9][0-9][0-9]*.ipynb"), key=lambda path: path.name)]


def doors(
    house: list[Room],
) -> dict[str, set[str]]:  # a room's name -> names of the rooms that it imports, inside functions too
    """Who knows whom."""
    names, imports = {room.name for room in house}, {}
    for room in house:
        found = set()
        package = [PACKAGE, *room.name.split(".")[:-1]]
        for node in ast.walk(ast.parse(room.module.read_text())):
            if isinstance(node, ast.ImportFrom):
                base = package[: len(package) + 1 - node.level] if node.level else []
                base = ".".join([*base, *([node.module] if node.module else [])])
                found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        imports[room.name] = {name.removeprefix(f"{PACKAGE}.") for name in found} & names - {room.name}
    return imports


def draw(
    house: list[Room],
    link: Callable[[Room], str] | None = None,  # a room's address; with it each room is a link that says what it imports
) -> str:
    """An SVG: a band a floor, the ground at the bottom; a box a room; on the right a dot for each floor that something here imports."""
    imports, floors = doors(house), list(dict.fromkeys(room.floor for room in house))
    shapes, y = [], TOP
    used = WIDTH - MARGIN - COLUMN * (len(floors) - 1)
    column = {floor: used + COLUMN * (number + 0.5) for number, floor in enumerate(floors)}
    for number, floor in reversed(list(enumerate(floors))):
        here = [room for room in house if room.floor == floor]
        boxes, x, top, y = [], MARGIN + FLOOR_NAME, y, y + GAP
        for room in here:
            label = room.name.split(".", 1)[1]
            width = round(len(label) * LETTER + 18)
            if x + width > used - GAP:
                x, y = MARGIN + FLOOR_NAME, y + ROOM_HEIGHT + GAP
            box = (f'<rect x="{x}" y="{y}" width="{width}" height="{ROOM_HEIGHT}" rx="4"/>'
                   f'<text x="{x + width / 2:g}" y="{y + 18}">{label}</text>')
            boxes.append(_link(room, box, link(room), imports[room.name]) if link else f'<g class="room">{box}</g>')
            x += width + GAP
        y += ROOM_HEIGHT + GAP
        middle = (top + y) / 2
        shapes += [f'<rect class="floor" x="{MARGIN}" y="{top}" width="{WIDTH - 2 * MARGIN}" height="{y - top}" rx="6"/>',
                   f'<text class="name" x="{MARGIN + 12}" y="{middle + 5:g}">{number}  {floor}</text>', *boxes]
        below = {other.split(".")[0] for room in here for other in imports[room.name]} - {floor}
        shapes += [f'<circle cx="{column[other]:g}" cy="{middle:g}" r="5"/>' for other in floors if other in below]
        y += GAP
    columns = [f'<text class="column" x="{column[floor]:g}" y="{TOP - 8}">{number}</text>' for number, floor in enumerate(floors[:-1])]
    head = f'<text class="column" x="{used + COLUMN * (len(floors) - 1) / 2:g}" y="{TOP - 26}">imports from floor</text>'
    size = f'viewBox="0 0 {WIDTH} {y}" role="img" aria-label="The floors and rooms of the house"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{STYLE}</style>",
                      f'<rect class="ground" width="{WIDTH}" height="{y}" rx="8"/>', head, *columns, *shapes, "</svg>"]) + "\n"


def _link(room: Room, box: str, address: str, below: set[str]) -> str:
    names = " ".join(sorted(below))
    title = f"<title>{escape(room.promise)} Imports: {names or 'nothing'}.</title>"
    return f'<a href="{address}"><g class="room" data-room="{room.name}" data-imports="{names}">{title}{box}</g></a>'


if __name__ == "__main__":
    picture = draw(rooms())
    if "--write" in sys.argv:
        PICTURE.write_text(picture)
    elif not PICTURE.is_file() or PICTURE.read_text() != picture:
        sys.exit("docs/house.svg is not what the imports say: run `make notebooks`")
