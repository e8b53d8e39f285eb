"""Looks at the book that `make docs` made: every link, every page in a browser, wide and light, narrow and dark, and the search.

`python docs/check.py [FOLDER]` prints what is wrong and exits with code 1; it needs Chromium.
"""

import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPO = Path(__file__).resolve().parent.parent
LOOKS = [("light", 1300), ("dark", 400)]  # colour scheme, width of the window in pixels


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.fetched, self.ids = [], [], set()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif address := given.get("src") or given.get("href"):
            self.fetched.append(address)


def broken_links(
    html: Path,  # folder of the book
) -> list[str]:
    """Links to a page or a place that is not there, and what a page would fetch from elsewhere."""
    pages = {}
    for path in html.rglob("*.html"):
        pages[path] = _Page()
        pages[path].feed(path.read_text())
    wrong = []
    for path, page in pages.items():
        name = path.relative_to(html)
        wrong += [f"{name} fetches {address}" for address in page.fetched if urlsplit(address).netloc]
        for link in {*page.links, *page.fetched}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                wrong.append(f"{name} leads to {link}, which is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                wrong.append(f"{name} leads to {link}, where there is no such place")
    return wrong


def complaints(
    browser,  # of Playwright
    html: Path,  # folder of the book
    pages: list[str],  # addresses in it
    scheme: str,  # light or dark
    width: int,  # of the window, pixels
) -> list[str]:
    """What the console says, pages wider than the window, and text that cannot be told from what is behind it."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    screen, wrong, name = context.new_page(), [], ""
    screen.on("console", lambda line: wrong.append(f"{name}: {line.text}") if line.type == "error" else None)
    screen.on("pageerror", lambda error: wrong.append(f"{name}: {error}"))
    for name in pages:
        screen.goto((html / name).as_uri())
        wide = screen.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            wrong.append(f"{name} is {wide} pixels wide in a window of {width}")
        ink, paper = (screen.evaluate(f"getComputedStyle(document.body).{what}") for what in ("color", "backgroundColor"))
        if (_brightness(paper) > 128) != (scheme == "light") or abs(_brightness(ink) - _brightness(paper)) < 100:
            wrong.append(f"{name} writes {ink} on {paper} in the {scheme} scheme")
    context.close()
    return wrong


def _brightness(colour: str) -> float:
    return sum(map(float, colour[colour.index("(") + 1:-1].split(",")[:3])) / 3


def found(
    browser,  # of Playwright
    html: Path,  # folder of the book
    words: str,
) -> list[str]:
    """Titles that the search gives, the best first; each leads to a page that opens."""
    screen = browser.new_page()
    screen.goto(f"{(html / 'search.html').as_uri()}?q={words}")
    screen.wait_for_selector("#search-results ul.search li a")
    screen.wait_for_function("document.querySelector('#search-results p').innerText.includes('finished')")
    titles = screen.locator("#search-results ul.search li > a").all_inner_texts()
    screen.locator("#search-results ul.search li > a").first.click()
    screen.wait_for_selector(f"text={words}")
    screen.close()
    return titles


def main() -> None:
    from playwright.sync_api import sync_playwright

    html = Path(sys.argv[1]) if len(sys.argv) > 1 else REPO / "_docs/html"
    pages = sorted(path.relative_to(html).as_posix() for path in html.rglob("*.html"))
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not pages or chromium is None:
        sys.exit(f"There is nothing to look at in {html}: run `make docs`." if not pages else "Chromium is not installed.")
    wrong = broken_links(html)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for look in LOOKS:
            wrong += complaints(browser, html, pages, *look)
        if not any("fit_visit" in title for title in found(browser, html, "fit_visit")):
            wrong.append("the search does not find fit_visit")
        browser.close()
    print(*wrong, f"{len(pages)} pages, {len(wrong)} faults", sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
