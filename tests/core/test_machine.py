"""How large a machine is, whatever a container shows of it, and since when a process uses it."""

import subprocess
import sys
import time

import pytest

from spectramind_nb.core import machine


def test_process_start_is_the_kernels_answer():
    code = "import time; time.sleep(0.5); from spectramind_nb.core.machine import process_start; print(process_start())"
    before = time.time()
    started = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert abs(started - before) < 0.4, "counted from the start of the process, not from the import"


@pytest.mark.parametrize("set_by_s", [-3600, 36000])
def test_a_budget_does_not_notice_that_the_clock_is_set(set_by_s):
    """Set back, a run had gone on for an hour more; set forward, it was over at once."""
    code = f"""
import time
honest, by = time.time, [0.0]
time.time = lambda: honest() + by[0]
from spectramind_nb.core.machine import process_start
from spectramind_nb.runs.wall_and_signals import Wall
wall, began = Wall(process_start(), 1000.0), process_start()
by[0] = {set_by_s}
print(wall.left_s, process_start() - began)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    left_s, moved_s = map(float, done.stdout.split())
    assert 900 < left_s < 1000 and abs(moved_s) < 0.1


def test_cpu_count_respects_affinity():
    code = "import os; os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]});" \
           "from spectramind_nb.core.machine import cpu_count; print(cpu_count())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "1"


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A machine of 16 cores and 8.192 GB whose control groups say what is written here, and this process's place among them."""
    def write(own: str, files: dict[str, str]):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / name).write_text(text)

    monkeypatch.setattr(machine.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2_000_000}.get)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "tree")
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
    assert (machine.cpu_count(), machine.memory_gb()) == (cores, gb)


def test_the_memory_of_a_process_is_its_own_and_not_what_its_parent_once_held():
    code = "from spectramind_nb.core.machine import peak_memory_gb; print(peak_memory_gb())"
    large = f"import subprocess, sys; held = bytearray(400_000_000); del held; sys.exit(subprocess.call([sys.executable, '-c', {code!r}]))"
    used = [float(subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout)
            for words in (large, "held = bytearray(400_000_000);" + code)]
    assert used[0] < 0.2 and used[1] > 0.4
