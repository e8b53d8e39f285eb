"""A Jupyter server of our own and a headless Chromium that looks at it: what a user sees, tested as a user does it."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

REPO = Path(__file__).resolve().parents[2]
PATIENCE_MS = 120_000  # on a loaded machine; every wait ends as soon as its condition holds
QUIET = {"fetchNews": "false", "checkForUpdates": False}


@pytest.fixture(scope="session")
def browser():
    """Chromium of the system, without a window."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("THE PAGE WAS NOT LOOKED AT: chromium is not installed (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        chromium = playwright.chromium.launch(executable_path=found, args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def screen(browser):
    """A page that remembers what it complained about in `screen.complaints`."""
    context = browser.new_context(viewport={"width": 1100, "height": 1300}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda line: page.complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    yield page
    context.close()


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory, stores):
    """JupyterLab and Notebook 7 from one server; returns its address and the folder it shows."""
    home, folder = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("workspace")
    settings = home / "config/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(QUIET))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    places = {f"JUPYTER_{name.upper()}_DIR": str(home / name) for name in ("config", "data", "runtime")}
    path = os.pathsep.join([str(REPO / "tests/runs/faults"), str(REPO)])
    environ = {**os.environ, **places, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "FAULTY_TRAINING": "slow+"}
    environ["SPECTRAMIND_CACHE"] = str(stores)
    words = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
             f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}", "--expose-app-in-browser"]
    with open(home / "log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *words], env=environ, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + PATIENCE_MS / 1000
        while not answers(f"{address}/api?token={token}"):
            if server.poll() is not None or time.monotonic() > until:
                pytest.fail(f"Jupyter did not start:\n{(home / 'log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield address, token, folder
    finally:
        server.terminate()
        server.wait(60)


def answers(url: str) -> bool:
    """Does a server answer there?"""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def notebook(jupyter):
    """Write a notebook of one cell a source into a folder of its own; returns its address in JupyterLab or Notebook 7."""
    address, token, folder = jupyter

    def write(place: str, *sources: str, frontend: str = "lab") -> str:
        (folder / place).mkdir(exist_ok=True)  # a test may have put something there
        spec = {"name": "python3", "display_name": "python3", "language": "python"}
        cells = [new_code_cell(source) for source in sources]
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": spec}), folder / place / "page.ipynb")
        tree = f"lab/workspaces/{place}/tree" if frontend == "lab" else "notebooks"  # a workspace that restores nothing
        return f"{address}/{tree}/{place}/page.ipynb?token={token}"

    return write
