"""Where we are: detected without guessing, and without showing a secret."""

import subprocess
import sys

import pytest

from spectramind_nb.core import environment
from spectramind_nb.core.errors import DataMissingError


def test_process_start_is_the_kernels_answer():
    code = "import time; time.sleep(0.5); from spectramind_nb.core.environment import process_start; print(process_start())"
    import time

    before = time.time()
    started = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert abs(started - before) < 0.4, "counted from the start of the process, not from the import"


def test_cpu_count_respects_affinity():
    code = "import os; os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]});" \
           "from spectramind_nb.core.environment import cpu_count; print(cpu_count())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "1"


def test_competition_root_prefers_override_then_environment(tmp_path, monkeypatch):
    mine, attached = tmp_path / "mine", tmp_path / "input/competitions/ariel-data-challenge-2025"
    for root in (mine, attached):
        root.mkdir(parents=True)
        (root / "adc_info.csv").touch()
    monkeypatch.delenv("SPECTRAMIND_DATA", raising=False)
    assert environment.competition_root("2025", mounts=tmp_path / "input") == attached
    monkeypatch.setenv("SPECTRAMIND_DATA", str(mine))
    assert environment.competition_root("2025", mounts=tmp_path / "input") == mine
    assert environment.competition_root("2025", attached) == attached


def test_missing_competition_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.delenv("SPECTRAMIND_DATA", raising=False)
    with pytest.raises(DataMissingError) as caught:
        environment.competition_root("2024", mounts=tmp_path)
    assert "ariel-data-challenge-2024" in str(caught.value) and caught.value.exit_code == 3


def test_search_for_the_competition_is_bounded(tmp_path, monkeypatch):
    monkeypatch.delenv("SPECTRAMIND_DATA", raising=False)
    deep = tmp_path / "a/b/c/d"
    deep.mkdir(parents=True)
    (deep / "adc_info.csv").touch()
    with pytest.raises(DataMissingError):
        environment.competition_root("2025", mounts=tmp_path)


def test_progress_is_quiet_and_lossless_in_a_log(capsys):
    assert list(environment.progress(range(100), 100, "fit", interval_s=60)) == list(range(100))
    assert capsys.readouterr().err.count("\n") == 1
