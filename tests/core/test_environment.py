"""Where we are: detected without guessing, and without showing a secret."""

import time

import pytest

from spectramind_nb.core import environment
from spectramind_nb.core.errors import DataMissingError


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


@pytest.mark.parametrize(
    ("variables", "session"),
    [
        ({}, ""),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, "interactive"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, "batch"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch", "KAGGLE_IS_COMPETITION_RERUN": "1"}, "rerun"),
        ({"KAGGLE_DOCKER_IMAGE": "image@sha256:0"}, "batch"),
    ],
)
def test_a_session_on_kaggle_is_told_by_what_kaggle_says(variables, session, monkeypatch):
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_IS_COMPETITION_RERUN", "KAGGLE_DOCKER_IMAGE", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.kaggle_session() == session
    assert environment.platform_name() == ("kaggle" if session else "local")


def test_a_former_layout_of_the_mounts_and_a_copy_are_found_newer_ones_first(tmp_path, monkeypatch):
    monkeypatch.delenv("SPECTRAMIND_DATA", raising=False)
    former, copy = tmp_path / "ariel-data-challenge-2025", tmp_path / "datasets/me/copy"
    for root in (former, copy):
        root.mkdir(parents=True)
        (root / "adc_info.csv").touch()
    assert environment.competition_root("2025", mounts=tmp_path) == former
    (former / "adc_info.csv").unlink()
    assert environment.competition_root("2025", mounts=tmp_path) == copy


def test_what_is_attached_is_looked_for_where_attachments_begin_and_nowhere_deeper(tmp_path):
    places = ["competitions/c", "datasets/me/d", "notebooks/me/n", "models/a/b/c/d/1", "old"]
    for place in [*places, "datasets/me/d/deeper", "competitions/c/train/1"]:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "manifest.json").touch()
    assert environment.attached("manifest.json", tmp_path) == [tmp_path / place / "manifest.json" for place in places]
    assert environment.attached("manifest.json", tmp_path / "none") == []


def test_no_token_is_ever_printed(warm_spectramind, tmp_path):
    """The commands that describe the machine, with Kaggle's live tokens in the environment."""
    tokens = {"KAGGLE_USER_SECRETS_TOKEN": "t0ken-a", "KAGGLE_DATA_PROXY_TOKEN": "t0ken-b", "KAGGLE_KEY": "t0ken-c",
              "KAGGLE_API_TOKEN": "t0ken-d", "KAGGLE_KERNEL_RUN_TYPE": "Batch"}
    for words in (["doctor"], ["train", "data.root=none"]):
        done = warm_spectramind(*words, cwd=tmp_path, env={**tokens, "SPECTRAMIND_CACHE": str(tmp_path / "cache")})
        assert "t0ken" not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written and not [path for path in written if b"t0ken" in path.read_bytes()]


def test_progress_is_quiet_and_lossless_in_a_log(capsys):
    assert list(environment.progress(range(100), 100, "fit", interval_s=60)) == list(range(100))
    assert capsys.readouterr().err.count("\n") == 1


def test_work_in_threads_tells_that_it_is_done(capsys, monkeypatch):
    """The last line of the progress was never printed."""
    monkeypatch.setattr(environment, "is_watched", lambda: False)
    assert environment.in_threads(str, range(5), 2, "reading") == {n: str(n) for n in range(5)}
    assert capsys.readouterr().err == "", "of what takes no time nothing is said"
    environment.in_threads(lambda n: time.sleep(0.3), range(4), 1, "reading")
    assert "reading: 4/4, 1 s" in capsys.readouterr().err


def test_a_name_that_begins_with_a_tilde_and_no_user_is_a_name(tmp_path, monkeypatch):
    """A look-up of a home that there is not ended with a traceback."""
    (tmp_path / "~nobody-of-this-name").mkdir()
    monkeypatch.chdir(tmp_path)
    assert environment.competition_root("2025", "~nobody-of-this-name") == tmp_path / "~nobody-of-this-name"
