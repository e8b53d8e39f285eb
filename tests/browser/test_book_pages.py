"""The book of a few chapters, built with the outputs that are stored and opened in a browser; `docs/check.py` looks at the whole one."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def book(repo, tmp_path_factory):
    """Folder of the pages: README's, one floor, one tutorial, the reference of that floor, and what is written by hand."""
    if not (repo / ".venv-docs/bin/python").exists():
        pytest.skip("THE BOOK WAS NOT LOOKED AT: `make test` and `make docs` make .venv-docs, which this run lacks")
    out = tmp_path_factory.mktemp("book")
    words = ["--stored", "--only", "physics", "01_", "--workers", "1", "--out", out]
    done = subprocess.run([sys.executable, repo / "docs/build.py", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "html"


@pytest.fixture(scope="module")
def check(script):
    return script("../docs/check.py")


@pytest.fixture(scope="module")
def pages(book):
    return sorted(path.relative_to(book).as_posix() for path in book.rglob("*.html"))


def test_links_lead_somewhere_and_nothing_is_fetched_from_elsewhere(book, check, pages):
    assert len(pages) > 20
    assert check.broken_links(book) == []


def test_a_broken_link_and_a_foreign_script_are_seen(check, tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html">x</a><a href="#z">x</a><a id="y" href="a.html#y">x</a><script src="https://a.b/c.js"></script>')
    assert len(check.broken_links(tmp_path)) == 3


@pytest.mark.parametrize(("scheme", "width"), [("light", 1300), ("dark", 400)])
def test_pages_are_readable(browser, book, check, pages, scheme, width):
    assert check.complaints(browser, book, pages, scheme, width) == []


def test_search_finds_a_function_first(browser, book, check):
    assert "fit_visit" in check.found(browser, book, "fit_visit")[0]


def test_the_reference_says_shapes_and_units(browser, book):
    screen = browser.new_page()
    screen.goto((book / "reference/physics.transit.html").as_uri())
    rows = [row.split() for row in screen.locator("dl.py:has(dt[id$='.duration_h']) tr").all_inner_texts()]
    assert ["period_d", "orbital", "period", "in", "days"] in rows
    assert rows[-1][0] == "returns" and "hours," in rows[-1]
    screen.close()


def test_a_chapter_has_formulas_figures_and_a_way_to_its_reference(browser, book):
    screen = browser.new_page()
    screen.goto(next((book / "chapters/physics").glob("*_transit.html")).as_uri())
    assert screen.locator("math").count() > 10 and screen.locator(".cell_output img").count() >= 1
    assert screen.locator(".facts a[href$='reference/physics.transit.html']").count() == 1
    assert "#|" not in screen.inner_text("article")
    screen.close()
