"""A report on a narrow screen."""

import html
from pathlib import Path

import numpy as np
import pytest

from spectramind_nb.apps.figures import plot_calibration, png_bytes
from spectramind_nb.apps.report_html import download_html, figure_html, html_page, table_html

pytestmark = pytest.mark.browser


def test_a_report_fits_a_telephone(screen, tmp_path):
    """Hashes, long words and pictures wrap or shrink: nothing is reached by scrolling sideways only."""
    rng = np.random.default_rng(0)
    truth, sigma = 0.01 + np.zeros((8, 283)), np.full((8, 283), 1e-4)
    figure = plot_calibration(truth + sigma * rng.normal(size=truth.shape), sigma, truth, np.linspace(0.7, 3.9, 283))
    record = {"config hash": "0123456789abcdef" * 4, "overrides": "data.root=" + "/a-folder" * 20, "rms of error / sigma": 1.0123456}
    path = tmp_path / "report.html"
    sections = {"Calibration": figure_html(png_bytes(figure), "caption"), "Record": table_html(record)}
    path.write_text(html_page("Run 20261128-101112-ci_fast", sections))
    for width in (420, 900):
        screen.set_viewport_size({"width": width, "height": 800})
        screen.goto(path.as_uri())
        assert screen.evaluate("document.documentElement.scrollWidth") <= width
    assert "1.01" in screen.inner_text("table") and "1.0123" not in screen.inner_text("table")


@pytest.mark.parametrize("width", [420, 1100])
def test_a_file_in_the_page_is_saved_by_a_click_without_a_network(screen, tmp_path, width):
    """From file:// and from a frame of another page, as the launchpad shows a report."""
    content = bytes(range(256)) * 4000
    path, outer = tmp_path / "report.html", tmp_path / "outer.html"
    path.write_text(html_page("Run", {"Spectra": f"<p>To save: {download_html('7.npz', content)}</p>"}))
    outer.write_text(f"<iframe srcdoc='{html.escape(path.read_text())}'></iframe>")
    screen.context.set_offline(True)
    screen.set_viewport_size({"width": width, "height": 800})
    for page, place in ((path, screen), (outer, screen.frame_locator("iframe"))):
        screen.goto(page.as_uri())
        with screen.expect_download() as saved:
            place.get_by_role("link", name="7.npz").click()
        assert saved.value.suggested_filename == "7.npz" and Path(saved.value.path()).read_bytes() == content
    assert screen.complaints == []
