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


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A machine of 16 cores and 8.192 GB whose control groups say what is written here, and this process's place among them."""
    def write(own: str, files: dict[str, str]):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / name).write_text(text)

    monkeypatch.setattr(environment.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2_000_000}.get)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.setattr(environment, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(environment, "_GROUPS", tmp_path / "tree")
    return write


FREE = {"cpu.max": "max 100000\n", "memory.max": "max\n"}
OLD = "9:name=systemd:/\n4:memory:/docker/f0\n2:cpuacct,cpu:/docker/f0\n0::/\n"


@pytest.mark.parametrize(
    "own, files, cores, gb",
    [
        ("0::/\n", {}, 16, 8.192),
        ("0::/\n", FREE, 16, 8.192),
        ("0::/\n", {"cpu.max": "200000 100000\n", "memory.max": "2000000000\n"}, 2, 2),  # a container sees its own group as the root
        ("0::/\n", {"cpu.max": "50000 100000\n", "memory.max": "9" * 18}, 1, 8.192),
        ("0::/slurm/job_7/step_0\n", {**FREE, "slurm/job_7/cpu.max": "300000 100000\n", "slurm/job_7/memory.max": "4000000000\n",
                                      "slurm/job_7/step_0/cpu.max": "max 100000\n", "slurm/other/cpu.max": "100000 100000\n"}, 3, 4),
        (OLD, {"cpu/docker/f0/cpu.cfs_quota_us": "400000\n", "cpu/docker/f0/cpu.cfs_period_us": "100000\n",
               "memory/docker/f0/memory.limit_in_bytes": "3000000000\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"}, 4, 3),
        (OLD, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n",
               "memory/memory.limit_in_bytes": "3000000000\n"}, 16, 3),  # the container's own tree, the host's path
    ],
)  # fmt: skip
def test_a_machine_is_as_large_as_control_groups_allow(own, files, cores, gb, groups):
    groups(own, files)
    assert (environment.cpu_count(), environment.memory_gb()) == (cores, gb)


def test_the_memory_of_a_process_is_its_own_and_not_what_its_parent_once_held():
    code = "from spectramind_nb.core.environment import peak_memory_gb; print(peak_memory_gb())"
    large = f"import subprocess, sys; held = bytearray(400_000_000); del held; sys.exit(subprocess.call([sys.executable, '-c', {code!r}]))"
    used = [float(subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout)
            for words in (large, "held = bytearray(400_000_000);" + code)]
    assert used[0] < 0.2 and used[1] > 0.4


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
