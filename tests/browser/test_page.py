"""The launchpad in a real browser: in JupyterLab and Notebook 7, with the mouse, with the keyboard alone, for a screen reader."""

import os
import re
import shutil
import statistics
import time
from pathlib import Path

import pytest
from playwright.sync_api import TimeoutError

from spectramind_nb.core.configuration import compose

pytestmark = pytest.mark.browser
HARMLESS = re.compile(r"favicon|status of 404|ResizeObserver")  # Jupyter's own, nothing of the page's


@pytest.fixture
def words(short_root):
    """Overrides of a run that takes seconds."""
    return [f"data.root={short_root}", "data.batch_size=2", "data.workers=1"]


@pytest.fixture
def launch(screen, notebook):
    """Open a notebook with the launchpad and run it; returns the page."""

    def opened(place, profile, overrides=(), frontend="lab"):
        source = f"from spectramind_nb import launchpad\nlaunchpad({profile!r}, {list(overrides)!r})"
        screen.goto(notebook(place, source, frontend=frontend))
        screen.locator(".jp-Notebook").wait_for()
        if frontend == "lab":
            screen.get_by_text("| Idle").first.wait_for()
        else:
            screen.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
        screen.complaints.clear()  # what came before is Jupyter's own
        run_all_cells(screen)
        screen.get_by_role("button", name="Train", exact=True).wait_for()
        return screen

    return opened


def run_all_cells(page):
    """Choose Run All Cells until a cell's prompt says that it runs: before its session is ready Jupyter ignores the choice."""
    began = page.locator(".jp-CodeCell .jp-InputPrompt", has_text=re.compile(r"\[(\*|\d+)\]")).first
    question = page.locator("dialog.jp-Dialog")  # on a loaded machine Jupyter may ask something, such as which kernel it shall be
    page.add_locator_handler(question, lambda: question.locator("button.jp-mod-accept").click())
    try:
        for _ in range(12):
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_text("Run All Cells", exact=True).click()
            try:
                return began.wait_for(timeout=10_000)
            except TimeoutError:
                continue
        pytest.fail("Jupyter ran no cell")
    finally:
        page.remove_locator_handler(question)


def keep(page, name):
    """Keep a screenshot where SPECTRAMIND_SCREENSHOTS says."""
    if folder := os.environ.get("SPECTRAMIND_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def train_to_the_end(page):
    """Press Train; returns the different learning curves that were shown."""
    button(page, "Train").click()
    page.evaluate("""() => { window.curves = new Set(); window.looker = setInterval(() => {
        const image = document.querySelector('.launchpad-progress img'); if (image) window.curves.add(image.src) }, 50) }""")
    page.locator(".launchpad-progress progress").wait_for()
    keep(page, "training")
    page.locator(".launchpad-status", has_text=re.compile("done|failed|stopped")).wait_for()
    assert "Everything is in" in page.locator(".launchpad-status").inner_text()
    assert page.locator(".launchpad-progress").inner_text().count("done")
    return page.evaluate("() => { clearInterval(window.looker); return window.curves.size }")


def no_complaints(page):
    assert [text for text in page.complaints if not HARMLESS.search(text)] == []


CHANGE = """([menu, value]) => new Promise(resolve => {
    const control = document.querySelector(`.launchpad-${menu} select`), shown = document.querySelector('.launchpad-preview')
    const before = shown.innerHTML, began = performance.now()
    new MutationObserver((_, me) => { const now = document.querySelector('.launchpad-preview').innerHTML
        if (now !== before) { me.disconnect(); resolve(performance.now() - began) } }).observe(document.body,
        {childList: true, subtree: true, characterData: true})
    control.value = value; control.dispatchEvent(new Event('change', {bubbles: true})) })"""


def seconds_to_the_preview(page):
    """Twenty changes to what was not chosen before; also what composing alone takes here and now."""
    options = page.locator(".launchpad-profile option").all_inner_texts()
    names = [name for name in options if name not in ("defaults", "ddp")] + ["defaults"]  # ddp alone does not compose
    taken, composing = [], []
    for experiment in ("none", "demo"):
        if experiment != "none":
            page.evaluate(CHANGE, ["experiment", experiment])
        for name in names:
            taken.append(page.evaluate(CHANGE, ["profile", name]) / 1000)
            assert f"trainer={name}" in page.locator(".launchpad-command").inner_text()
            began = time.monotonic()
            compose(name)
            composing.append(time.monotonic() - began)
    page.evaluate(CHANGE, ["experiment", "none"])
    return taken, statistics.median(composing)


def test_the_story_of_a_run_in_jupyterlab(launch, words, jupyter, capsys):
    page = launch("story", "ci_fast", [*words, "trainer.max_epochs=20"])
    taken, composing = seconds_to_the_preview(page)
    median = statistics.median(taken)
    with capsys.disabled():
        print(f"\nprofile to preview in the browser: median of {len(taken)} {median:.3f} s, slowest {max(taken):.3f} s; "
              f"composing alone {composing:.3f} s")
    assert len(taken) == 20 and median < max(3, 10 * composing)
    page.get_by_role("combobox", name="Profile").select_option("ci_fast")
    page.locator(".launchpad-command", has_text="trainer=ci_fast").wait_for()
    box = page.get_by_role("textbox", name="Overrides")
    good = box.input_value()
    box.focus()
    page.keyboard.press("Control+End")
    page.keyboard.type("\ntrainer.max_epoch=40")
    page.get_by_role("alert").get_by_text("line 5, trainer.max_epoch=40: there is no key").wait_for()
    assert button(page, "Train").is_disabled()
    keep(page, "fault")
    button(page, "trainer.max_epochs=40").click()  # what was meant
    page.get_by_text("composes,").wait_for()
    assert box.input_value() == f"{good}\ntrainer.max_epochs=40"
    box.fill(good)
    page.get_by_text("composes,").wait_for()
    assert train_to_the_end(page) >= 2, "the curve did not move"
    keep(page, "done")
    button(page, "Submission").click()
    page.get_by_text("valid, 2 planets").wait_for()
    assert (jupyter[2] / "story" / "submission.csv").is_file()

    # stop in the middle, resume from the page
    page.get_by_role("combobox", name="Profile").select_option("defaults")
    box.fill("\n".join([*words, "trainer.max_epochs=2000"]))
    page.locator(".launchpad-command", has_text="trainer=defaults").get_by_text("=2000").wait_for()
    button(page, "Train").click()
    page.locator(".launchpad-progress", has_text=re.compile(r"epoch [1-9]\d* of 2000")).wait_for()
    button(page, "Stop").click()
    page.get_by_text("Stopped. Resume continues it.").wait_for()
    reached = int(re.search(r"epoch (\d+)", page.locator(".launchpad-progress").inner_text())[1])
    button(page, "Resume").click()
    page.locator(".launchpad-progress", has_text="attempt 2").wait_for()
    page.wait_for_function("reached => Number((document.querySelector('.launchpad-progress').innerText.match(/epoch (\\d+)/) || [0, 0])[1])"
                           " > reached", arg=reached)
    keep(page, "resumed")
    button(page, "Stop").click()
    page.get_by_text("Stopped. Resume continues it.").wait_for()

    no_complaints(page)


def test_the_same_page_in_notebook_7(launch, words):
    page = launch("classic", "ci_fast", words, frontend="classic")
    page.get_by_role("combobox", name="Profile").select_option("kaggle_safe")
    page.locator(".launchpad-about", has_text="wall 9h").wait_for()
    box = page.get_by_role("textbox", name="Overrides")
    box.fill("trainer.max_epoch=3")
    page.get_by_role("alert").get_by_text("line 1").wait_for()
    page.get_by_role("combobox", name="Profile").select_option("ci_fast")
    box.fill("\n".join([*words, "trainer.max_epochs=20"]))
    page.get_by_text("composes,").wait_for()
    assert train_to_the_end(page) >= 2, "the curve did not move"
    keep(page, "classic")
    button(page, "Submission").click()
    page.get_by_text("valid, 2 planets").wait_for()
    no_complaints(page)


CONTROLS = {
    "combobox": ["Profile", "Experiment", "Data", "Model", "Run"],
    "listbox": ["Compare with"],
    "textbox": ["Overrides"],
    "button": ["Train", "Stop", "Predict", "Submission", "Report", "Reopen", "Compare", "Replay"],
    "region": ["Composed configuration"],
}


@pytest.fixture(scope="module")
def finished(short_root, stores, tmp_path_factory):
    """The folder of a finished run, to be copied beside a notebook."""
    from spectramind_nb.runs.training import train

    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SPECTRAMIND_CACHE", str(stores))
        train("ci_fast", overrides=[f"data.root={short_root}", "data.batch_size=2", "data.workers=1", "run_id=before"])
    return folder / "logs"


def tree(page):
    """Role and name of everything in Chromium's accessibility tree."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")]


def test_keyboard_and_screen_reader(launch, words, jupyter, finished):
    (jupyter[2] / "keys").mkdir()
    shutil.copytree(finished, jupyter[2] / "keys" / "logs")
    page = launch("keys", "defaults", words)
    for role, wanted in CONTROLS.items():
        there = {name for found, name in tree(page) if found.lower().startswith(role)}
        assert set(wanted) <= there, (role, sorted(set(wanted) - there))

    # from the cell on, by Tab alone, every control that is not switched off
    seen = []
    page.locator(".jp-OutputArea-output").first.evaluate("element => { const cell = element.closest('.jp-Cell'); cell.focus() }")
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("""() => { const it = document.activeElement
            return it.getAttribute('aria-label') || it.labels?.[0]?.innerText || it.innerText }""").strip())
        if seen[-1] == "Replay":
            break
    wanted = {name for known in CONTROLS.values() for name in known} - {"Stop", "Predict", "Compare"}  # these say why they are off
    assert wanted <= set(seen), (sorted(wanted - set(seen)), seen)

    def reach(name, back=False):
        for _ in range(60):
            at = page.evaluate("""() => { const it = document.activeElement
                return (it.getAttribute('aria-label') || it.labels?.[0]?.innerText || it.innerText).trim() }""")
            if at == name:
                return
            page.keyboard.press("Shift+Tab" if back else "Tab")
        pytest.fail(f"{name} cannot be reached by the keyboard")

    def pick(name, option, back=False):
        """Space opens a menu, arrows walk in it, Enter takes."""
        reach(name, back)
        known = page.evaluate("() => [...document.activeElement.options].map(option => option.innerText)")
        place = next(place for place, words in enumerate(known) if words.startswith(option))
        page.keyboard.press("Space")
        page.keyboard.press("Home")
        for _ in range(place):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")

    pick("Profile", "ci_fast", back=True)
    page.locator(".launchpad-command", has_text="trainer=ci_fast").wait_for()
    reach("Overrides")
    page.keyboard.press("Control+End")
    page.keyboard.type("\nmax_epochs=2")
    page.get_by_role("alert").get_by_text("line 4").wait_for()
    assert "alert" in [role for role, _ in tree(page)]
    button(page, "trainer.max_epochs=2").wait_for()  # all of what was typed is understood
    reach("trainer.max_epochs=2")
    page.keyboard.press("Space")
    page.get_by_text("composes,").wait_for()
    page.get_by_role("button", name="Train", exact=True, disabled=False).wait_for()  # a button that is off is no stop for Tab
    reach("Train")
    page.keyboard.press("Enter")
    page.get_by_role("progressbar", name="Epochs").wait_for()
    page.get_by_text("Everything is in").wait_for()
    assert page.get_by_role("img", name=re.compile("Learning curve: epoch 2")).count() == 1
    pick("Compare with", "before")
    page.get_by_role("button", name="Compare", exact=True, disabled=False).wait_for()
    reach("Compare")
    page.keyboard.press("Space")
    page.frame_locator("iframe[title='Comparison']").get_by_role("heading", name="Set differently").wait_for()
    keep(page, "comparison")
    reach("Submission", back=True)
    page.keyboard.press("Space")
    page.get_by_text("valid, 2 planets").wait_for()
    reach("Report")
    page.keyboard.press("Enter")
    report = page.frame_locator("iframe[title^='Report of']")
    report.get_by_role("heading", name="Envelope").wait_for()
    keep(page, "report")
    pick("Run", "before", back=True)
    reach("Reopen")
    page.keyboard.press("Enter")
    page.get_by_text("This is what before was made from.").wait_for()
    no_complaints(page)


def test_the_report_opens_from_a_file_without_network(browser, finished, stores, monkeypatch):
    from spectramind_nb.apps.report import report

    monkeypatch.setenv("SPECTRAMIND_CACHE", str(stores))
    path = report(finished / "before")
    assert path.stat().st_size < 5e6
    context = browser.new_context(offline=True, viewport={"width": 1000, "height": 1000})
    page, complaints = context.new_page(), []
    page.on("console", lambda line: complaints.append(line.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto(path.as_uri())
    sizes = page.evaluate("() => [...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(sizes) >= 7 and min(sizes) > 300
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    assert complaints == []
    context.close()
