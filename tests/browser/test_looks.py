"""How the launchpad looks and feels: every key, both themes, a small screen and a large one, one run beside another."""

import contextlib
import re
import shutil

import pytest
from playwright.sync_api import Page, TimeoutError
from test_page import button, finished, keep, launch, run_all_cells  # noqa: F401 (fixtures)

pytestmark = pytest.mark.browser
SIZES = {"small": (900, 700), "large": (1400, 900)}
THEMES = ("JupyterLab Light", "JupyterLab Dark")
CONTRAST = """() => {
    const numbers = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number), k = text.startsWith('color(') ? 255 : 1
        return [r * k, g * k, b * k, a] }
    const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]))
    const linear = v => v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
    const upwards = it => it ? [...upwards(it.parentElement), it] : []
    const found = [], page = document.querySelector('.launchpad')
    const judge = (element, style, words, opacity = 1) => {
        const all = upwards(element).map(it => getComputedStyle(it))
        const ground = all.reduce((below, it) => over(numbers(it.backgroundColor), below), [255, 255, 255])
        const [r, g, b, a] = numbers(style.color), seen = all.reduce((product, it) => product * it.opacity, a * opacity)
        const [dark, light] = [luminance(ground), luminance(over([r, g, b, seen], ground))].sort((x, y) => x - y)
        found.push([(light + 0.05) / (dark + 0.05), words.trim().slice(0, 60)]) }
    const walk = document.createTreeWalker(page, NodeFilter.SHOW_TEXT)
    while (walk.nextNode()) { const it = walk.currentNode.parentElement
        if (walk.currentNode.data.trim() && !['STYLE', 'OPTION'].includes(it.tagName) && it.getClientRects().length)
            judge(it, getComputedStyle(it), walk.currentNode.data) }
    for (const it of page.querySelectorAll('select, textarea')) {
        judge(it, getComputedStyle(it), it.value)
        const ghost = getComputedStyle(it, '::placeholder')
        if (it.placeholder) judge(it, ghost, it.placeholder, ghost.opacity) }
    return found }"""
CUT_OFF = """() => { const page = document.querySelector('.launchpad'), box = page.closest('.jp-OutputArea-output').getBoundingClientRect()
    return [...page.querySelectorAll('select, textarea, button, table, img, pre, code, label')].filter(it => it.getClientRects().length)
        .filter(it => { const { left, right } = it.getBoundingClientRect()
            const holds = it.tagName === 'LABEL' || it.multiple
            return left < box.left - 1 || right > box.right + 1 || holds && it.scrollWidth > it.clientWidth + 1 })
        .map(it => `${it.tagName} ${it.innerText.slice(0, 30)}`) }"""
ARROWS = """() => [...document.querySelectorAll('.launchpad .widget-dropdown > select')].map(it => getComputedStyle(it))
    .map(style => style.backgroundImage.includes(style.color))"""
CELLS = """() => [...document.querySelectorAll('.jp-Notebook .jp-Cell')].map(cell => [cell.classList.contains('jp-CodeCell'),
    cell.classList.contains('jp-mod-active'), cell.classList.contains('jp-mod-selected'),
    cell.querySelector('.jp-InputPrompt').textContent])"""  # innerText is empty where JupyterLab leaves out what is out of sight
FOCUS = """() => { const it = document.activeElement
    return [it.getAttribute('aria-label') || it.labels?.[0]?.innerText || it.innerText, it.tagName, !!it.closest('.launchpad')] }"""


@pytest.fixture(scope="module")
def desk(browser, notebook, jupyter, finished, short_root) -> Page:  # noqa: F811
    """JupyterLab with its file browser open; the launchpad between two other cells, beside a finished run that kept no checkpoint."""
    (jupyter[2] / "desk").mkdir()
    shutil.copytree(finished, jupyter[2] / "desk" / "logs")
    context = browser.new_context(viewport=dict(zip(("width", "height"), SIZES["large"])), reduced_motion="reduce")
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.words = words = [f"data.root={short_root}", "data.batch_size=2", "data.workers=1"]
    source = f"from spectramind_nb import launchpad\nlaunchpad('defaults', {words!r})"
    page.goto(notebook("desk", "1", source, "2"))
    page.get_by_text("| Idle").first.wait_for()
    run_all_cells(page)
    button(page, "Train").wait_for()
    yield page
    context.close()


def unreadable(page):
    found = page.evaluate(CONTRAST)
    assert len(found) > 30
    return [text for text in found if text[0] < 4.5]


def in_theme(page, theme):
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.locator(f"body[data-jp-theme-name='{theme}']").wait_for(state="attached")


def of_size(page, size):
    page.set_viewport_size(dict(zip(("width", "height"), SIZES[size])))
    page.wait_for_function("width => document.querySelector('.launchpad').getBoundingClientRect().right < width", arg=SIZES[size][0])


def type_in(page, *lines):
    """Fill the box with what was there at first and these lines; returns when the page has understood."""
    page.get_by_role("textbox", name="Overrides").fill("\n".join([*page.words, *lines]))
    page.locator(".launchpad-command", has_text=re.compile(" ".join(["data.workers=1", *lines]) + "$")).wait_for()


def pick(page, menu, run):
    """Choose a run in a menu; what it says of one that goes on may change before it is chosen."""
    menu = page.get_by_label(menu, exact=True)
    for _ in range(10):
        with contextlib.suppress(TimeoutError):
            return menu.select_option(menu.locator("option", has_text=f"{run}, ").inner_text(), timeout=3000)
    raise AssertionError(f"{run} cannot be chosen")


def press_everything(page):
    """Walk through the page by Tab and press, on each control, the keys that are Jupyter's; returns what was walked through."""
    seen = []
    page.locator(".jp-OutputArea-output .launchpad select").first.focus()
    before = page.evaluate(CELLS)
    while (focus := page.evaluate(FOCUS))[2]:
        name, kind, _ = focus
        seen.append(name.strip())
        enter = ["Shift+Enter", "Control+Enter"] if kind != "BUTTON" else []  # it would press the button
        for key in ["ArrowDown", "ArrowUp", "b", "a", "m", "x", "d", "d", "Escape", *enter]:
            page.keyboard.press(key)
            assert page.evaluate(CELLS) == before, (name, key, page.evaluate(CELLS), page.evaluate(FOCUS))
        if kind == "SELECT":
            page.keyboard.press("Escape")  # a menu that Enter opened
        page.wait_for_timeout(500 if kind == "BUTTON" else 2000)  # what was chosen or typed shows further down, and Tab goes through that
        assert len(seen) < 40, "Tab does not lead out of the page"
        page.keyboard.press("Tab")
    return seen


def test_no_key_touches_the_notebook(desk):
    seen = press_everything(desk)
    assert {"Profile", "Data", "Model", "Experiment", "Overrides", "Command", "Composed configuration", "Run"} <= set(seen), seen
    desk.get_by_role("combobox", name="Profile").focus()
    known = desk.locator(".launchpad-profile option").all_inner_texts()
    desk.get_by_role("combobox", name="Profile").select_option(known[0])
    desk.keyboard.press("ArrowDown")  # on a closed menu: the next option, not the next cell
    desk.locator(".launchpad-command", has_text=f"trainer={known[1]}").wait_for()
    for menu, option in (("Profile", "defaults"), ("Data", "synthetic"), ("Model", "posterior"), ("Experiment", "none")):
        desk.get_by_role("combobox", name=menu).select_option(option)
    type_in(desk)


def test_no_key_touches_the_notebook_in_notebook_7(launch):  # noqa: F811
    assert {"Profile", "Overrides", "Command"} <= set(press_everything(launch("keys-classic", "defaults", frontend="classic")))


def test_every_text_can_be_read_and_nothing_is_cut_off(desk):
    for theme in THEMES:
        in_theme(desk, theme)
        type_in(desk, "trainer.max_epoch=3")
        desk.get_by_role("alert").first.wait_for()
        assert unreadable(desk) == []
        type_in(desk, "trainer.max_epochs=3 seed=5")
        desk.get_by_text("composes,").wait_for()
        assert desk.get_by_role("textbox", name="Overrides").input_value().endswith("\nseed=5")
        for size in SIZES:
            of_size(desk, size)
            keep(desk, f"looks-{theme[-4:].strip()}-{size}")
            assert unreadable(desk) == [] and desk.evaluate(CUT_OFF) == []
        assert desk.evaluate(ARROWS) == [True] * 5, "an arrow of another colour than its menu's text is lost in one of the themes"
    desk.evaluate("() => { document.querySelector('.launchpad-against').style.width = '14em' }")
    assert [found.split(",")[0] for found in desk.evaluate(CUT_OFF)] == ["SELECT before"], "a list too narrow for its lines"
    desk.evaluate("() => { document.querySelector('.launchpad-against').style.width = '' }")
    type_in(desk)


def test_what_cannot_be_done_says_why(desk):
    assert button(desk, "Predict").is_disabled() and "kept no checkpoint" in button(desk, "Predict").get_attribute("title")
    desk.locator(".launchpad-answer", has_text="Predict: before kept no checkpoint").wait_for()
    desk.locator(".launchpad-answer", has_text="Compare: There is no other run yet").wait_for()


def test_one_run_beside_another_and_after_a_restart(desk):
    type_in(desk, "trainer.max_epochs=5000", "run_id=long")
    desk.get_by_text("composes,").wait_for()
    before = desk.evaluate(CELLS)
    button(desk, "Train").focus()
    for key in ("Enter", "b", "ArrowDown", "d", "d"):  # a button that was switched off has the focus no more
        desk.keyboard.press(key)
        desk.wait_for_timeout(200)
    assert desk.evaluate(CELLS) == before
    desk.locator(".launchpad-progress img").wait_for()
    for size in SIZES:
        of_size(desk, size)
        desk.evaluate("() => document.querySelector('.launchpad-progress').scrollIntoView({ block: 'end' })")  # its image is often replaced
        keep(desk, f"trains-{size}")
        train, curve = desk.evaluate("""() => ['.launchpad-train', '.launchpad-progress img'].map(
            name => document.querySelector(name).getBoundingClientRect().toJSON())""")
        assert train["top"] > 0 and curve["bottom"] <= SIZES[size][1] and curve["top"] - train["top"] < 200, (size, train, curve)
        assert unreadable(desk) == [] and desk.evaluate(CUT_OFF) == []

    pick(desk, "Run", "before")
    for _ in range(60):  # the menu is filled anew when the run that goes on has got further: a choice at that moment is lost
        pick(desk, "Compare with", "long")
        desk.wait_for_timeout(1000)
        if button(desk, "Compare").is_enabled():
            break
    button(desk, "Compare").click()
    desk.frame_locator("iframe[title='Comparison']").get_by_text("long has no metrics").wait_for()
    button(desk, "Submission").click()
    desk.get_by_text("valid, 2 planets").wait_for()
    button(desk, "Report").click()
    desk.frame_locator("iframe[title='Report of before']").get_by_role("heading", name="Envelope").wait_for()
    assert "running" in desk.locator(".launchpad-status").inner_text()

    desk.evaluate("() => { document.querySelector('.launchpad').id = 'before-the-restart' }")
    desk.evaluate("() => { window.jupyterapp.commands.execute('notebook:restart-run-all') }")
    desk.locator(".jp-Dialog button", has_text="Restart").click()
    desk.locator("#before-the-restart").wait_for(state="detached")  # it answers no more, and says the same
    desk.locator(".launchpad-going", has_text="long is going on").wait_for()
    type_in(desk, "trainer.max_epochs=5000", "run_id=long")
    desk.get_by_text("composes,").wait_for()
    button(desk, "Train").click()
    desk.get_by_text("long is the same run and is going on").wait_for()
    keep(desk, "restarted")
    assert unreadable(desk) == []
    button(desk, "Watch").click()
    desk.locator(".launchpad-progress", has_text=re.compile(r"epoch [1-9]\d* of 5000")).wait_for()
    button(desk, "Stop").click()
    desk.get_by_text("Stopped. Resume continues it.").wait_for()
    button(desk, "Submission").click()
    desk.locator(".launchpad-answer", has_text="Predict makes one").wait_for()
    assert "done" not in desk.locator(".launchpad-answer").inner_text()
    keep(desk, "stopped")
