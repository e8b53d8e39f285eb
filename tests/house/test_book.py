"""What the book is made from: the picture of the house is true, docments become tables, names become links."""

import subprocess
import sys
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="module", autouse=True)
def _docs_are_importable(repo):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repo / "docs"))
        yield


@pytest.fixture
def module(repo, tmp_path):
    """A module of a given text, as docs/reference.py reads it."""
    from reference import Module

    def make(text: str) -> Module:
        path = tmp_path / "example.py"
        path.write_text(text)
        return Module(SimpleNamespace(name="physics.example", module=path, notebook=repo / "nbs/physics/299_example.ipynb"))

    return make


def test_the_picture_of_the_house_is_drawn_from_the_imports(repo):
    done = subprocess.run([sys.executable, repo / "docs/house.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_picture_shows_every_room_and_the_floors_below_each(repo):
    from house import doors, draw, rooms

    house = rooms()
    picture = draw(house)
    assert {room.module for room in house} == {path for path in repo.glob("spectramind_nb/*/**/*.py") if path.stem != "__init__"}
    assert all(f">{room.name.split('.', 1)[1]}</text>" in picture for room in house)
    below = {room.floor: set() for room in house}
    for room, others in doors(house).items():
        below[room.split(".")[0]] |= {other.split(".")[0] for other in others} - {room.split(".")[0]}
    assert picture.count("<circle") == sum(map(len, below.values())) and below["records"] == {"core"}


def test_docments_become_a_table(module):
    from reference import page

    text = page(module('''
__all__ = ["f", "Shape", "LIMIT"]
LIMIT = 3  # ppm

def f(
    a,  # (N,) days
    *rest: int,
    b: float | None = None,  # m or `a`
) -> tuple[int, int]:  # (2,) counts
    """Says what.

    Raises `ValueError`.
    """

def _hidden(): pass

class Shape:
    """A shape."""

    rows: int  # of a frame

    def area(self, scale=1):  # square pixels
        """Its area."""
'''), str)
    assert "| `a` |  | (N,) days |" in text and "| `*rest` | `int` |  |" in text
    assert "| `b` | `float \\| None` | m or `a` |" in text and "| *returns* | `tuple[int, int]` | (2,) counts |" in text
    assert "{py:function} f(a, *rest, b=None)" in text and "Raises `ValueError`." in text
    assert "````{py:class} Shape\n" in text and "```{py:method} area(scale=1)" in text and "| `rows` | `int` | of a frame |" in text
    assert "| *returns* |  | square pixels |" in text
    assert "_hidden" not in text and "{py:data} LIMIT\n\n`3`\n\nppm" in text


def test_names_become_links_and_words_do_not(module):
    from chapters import Linker

    text = '__all__ = ["light_curve", "fit", "VisitFit"]\ndef light_curve(): pass\ndef fit(): pass\nclass VisitFit: pass\n'
    linker = Linker([module(text)], {}, ())
    home = "spectramind_nb.physics.example"
    assert linker.names("`light_curve`, `VisitFit` and `fit()`") == (
        f"{{py:obj}}`light_curve <{home}.light_curve>`, {{py:obj}}`VisitFit <{home}.VisitFit>` and {{py:obj}}`fit() <{home}.fit>`")
    kin = "__all__ = ['A', 'B']\nclass A:\n    def read(self): 'Says.'\nclass B(A):\n    def show(self): 'Says.'\n    def step(self): 1\n"
    heirs = Linker([module(kin)], {}, ())
    assert heirs.names("`B.read()`") == f"{{py:obj}}`B.read() <{home}.A.read>`" and f"{home}.B.show" in heirs.names("`B.show()`")
    assert heirs.names("`B.step()`") == "`B.step()`", "what says nothing has no entry"
    untouched = "`fit`, `unknown_name`, ``light_curve``"
    assert linker.names(untouched) == untouched and linker.names("# `light_curve`") == "# `light_curve`"


def test_links_lead_within_the_book_or_to_the_sources(repo):
    from chapters import SOURCES, Linker

    linker = Linker([], {}, [repo / "nbs/index.ipynb"])
    text = "[a](CONTRIBUTING.md) [b](nbs/index.ipynb#x) [c](settings.ini) [d](https://e.f)\n```\n[a](CONTRIBUTING.md)\n```\n"
    assert linker.page(text, repo) == (
        f"[a](/contributing.md) [b](/start.ipynb#x) [c]({SOURCES}/settings.ini) [d](https://e.f)\n```\n[a](CONTRIBUTING.md)\n```\n")


def test_an_output_leads_to_no_file_of_a_run_that_is_not_there(repo):
    from chapters import Linker, notebook_page

    html = '<b><a href="logs/x/report.html">a page</a> <a href="https://e.f">out</a></b>'
    cell = {"cell_type": "code", "id": "c", "metadata": {}, "source": "report()", "outputs": [{"data": {"text/html": html}}]}
    (shown,) = notebook_page({"cells": [cell]}, repo, Linker([], {}, ()))["cells"]
    assert shown["outputs"][0]["data"]["text/html"] == '<b>a page <a href="https://e.f">out</a></b>'


def test_what_only_nbdev_reads_is_no_part_of_a_chapter(repo):
    from chapters import Linker, notebook_page

    def code(name, source):
        return {"cell_type": "code", "id": name, "metadata": {"tags": ["x"]}, "source": source, "outputs": []}

    cells = [{"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# T\n> p"}, code("module", "#| default_exp a.b"),
             code("imports", "#| export\nimport a"), code("f", "#| export\ndef f(): pass"), code("end", "#| hide\nimport nbdev")]
    page = notebook_page({"cells": cells}, repo, Linker([], {}, ()), "facts")
    assert [cell["source"] for cell in page["cells"]] == ["# T\n> p", "facts", "import a", "def f(): pass"]
    assert page["cells"][2]["metadata"] == {"tags": ["hide-input"]} and page["cells"][3]["metadata"] == {}
