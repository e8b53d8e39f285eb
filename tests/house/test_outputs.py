"""The comparison of stored with fresh outputs sees what matters and nothing else."""

import json
import re

import pytest
from outputs import SHOWN, difference, run, words


@pytest.mark.parametrize(("stored", "fresh"), [
    ("val/score 0.4852 (raw fit 0.2330)", "val/score 0.4520 (raw fit 0.2263)"),  # README of commit 6872fe4, and what ran then
    ("depth 13149 +- 173 ppm", "depth 13232 +- 166 ppm"), ("depth 13149 +- 173 ppm", "depth 13149 +- 176 ppm"),
    ("official score 0.518", "official score 0.535"), ("6 training planets", "7 training planets"),
    ("the first is 1831423967", "the first is 1831423968"), ("score 0.45", "score none"), ("rms 1e-3", "rms 5e-3"), ("", "0.5"),
])
def test_what_changed_is_seen(stored, fresh):
    assert difference(stored, fresh)


@pytest.mark.parametrize(("stored", "fresh"), [
    ("val/score 0.4852", "val/score 0.4861"), ("depth 13149 +- 173 ppm", "depth 13160 +- 174 ppm"),
    ("envelope: 17 of 1200 s, peak memory 1.0 GB", "envelope: 48 of 1200 s, peak memory 0.8 GB"),
    ("config_hash  fdf764d9d7dab88c", "config_hash  0b24b232c916bc03"), ("20261128-101112-ci_fast", "20270101-000000-ci_fast"),
])
def test_what_another_machine_says_is_no_change(stored, fresh):
    assert difference(stored, fresh) is None


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.stem)
def test_prose_repeats_no_number_that_an_output_shows(path):
    """Nobody renews prose: a measured number stands in an output only."""
    cells = json.loads(path.read_text())["cells"]
    prose = " ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    shown = " ".join(words(output) for cell in cells for output in cell.get("outputs", []))
    measured = [set(re.findall(r"\d+\.\d{2,}", re.sub(r"```.*?```", "", text, flags=re.DOTALL))) for text in (prose, shown)]
    assert measured[0] & measured[1] == set()


def test_a_cell_that_needs_another_program_keeps_what_it_said(tmp_path, monkeypatch):
    said = [{"output_type": "stream", "name": "stdout", "text": ["said there\n"]}]
    cells = [{"cell_type": "code", "id": f"cell-{k}", "metadata": {}, "execution_count": None, "outputs": said, "source": source}
             for k, source in enumerate(["#| eval: false\nprint('said here')", "print('said now')"])]  # fmt: skip
    path = tmp_path / "shown.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    for folder, told in ((None, "said there"), (tmp_path, "said here")):
        monkeypatch.setenv("EXOSIM_OUTPUT", str(folder)) if folder else monkeypatch.delenv("EXOSIM_OUTPUT", raising=False)
        assert [words(cell["outputs"][0]).strip() for cell in run(path)["cells"]] == [told, "said now"]
