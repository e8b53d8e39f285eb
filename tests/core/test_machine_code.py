"""Machine code on disk is that of the source, whatever has happened to the files: Numba's own way fails each of these."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from own_process import code, run_forked

from spectramind_nb.core import machine_code

HEAD = "from spectramind_nb.core.machine_code import compiled\n"
KERNEL = HEAD + "@compiled()\ndef f(x): return {} * x\n"


@pytest.fixture
def answer(tmp_path):
    """f(3.0) of the module `kernel`, in a process of its own, and whether its machine code was found."""
    def ask(before: str = "", x: str = "3.0") -> tuple[float, bool]:
        source = f"import sys; sys.path.insert(0, '.'); sys.dont_write_bytecode = True\n{before}\n"
        source += f"from kernel import *\nprint(f({x}), sum(f.stats.cache_hits.values()))"
        done = run_forked(code, ["code", source], tmp_path, dict(os.environ))
        assert done.returncode == 0, done.stderr
        value, hits = done.stdout.split()
        return float(value), bool(int(hits))

    return ask


def test_a_full_disk_leaves_no_old_code_behind(tmp_path, answer):
    """Files of more than 4 kB cannot be written: the index goes through, the code does not."""
    (tmp_path / "kernel.py").write_text(KERNEL.format("2.0"))
    assert (answer(), answer()) == ((6.0, False), (6.0, True))
    (tmp_path / "kernel.py").write_text(KERNEL.format("5.0"))
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    assert answer(full) == (15.0, False)
    assert (answer(), answer()) == ((15.0, False), (15.0, True))
    assert len(list(tmp_path.glob("**/*.nbc"))) == 1  # what no index names is removed


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04nonsense"])
def test_a_damaged_file_costs_a_compilation(tmp_path, answer, suffix, content):
    (tmp_path / "kernel.py").write_text(KERNEL.format("2.0"))
    answer()
    (damaged,) = tmp_path.glob(f"**/*.{suffix}")
    damaged.write_bytes(content)
    assert (answer(), answer()) == ((6.0, False), (6.0, True))


def test_what_is_read_elsewhere_belongs_to_the_code(tmp_path, answer):
    """Numbers, arrays, and the order of a named tuple's fields, each from a module that is not the kernel's."""
    other = "from typing import NamedTuple\nimport numpy as np\n"
    other += "class Pair(NamedTuple):\n    {}: float\n    {}: float\nN, A = {}, np.array([{}])\n"
    (tmp_path / "kernel.py").write_text(HEAD + "from other import A, N, Pair\n@compiled()\ndef f(p): return N * p.a + A[0]\n")

    def now(*words: str) -> list[tuple[float, bool]]:
        (tmp_path / "other.py").write_text(other.format(*words))
        return [answer(x="Pair(3.0, 4.0)") for _ in range(2)]

    assert now("a", "b", "2", "0.5") == [(6.5, False), (6.5, True)]
    assert now("a", "b", "3", "0.5") == [(9.5, False), (9.5, True)]
    assert now("a", "b", "3", "1.5") == [(10.5, False), (10.5, True)]
    assert now("b", "a", "3", "1.5") == [(13.5, False), (13.5, True)]


def test_kernels_may_call_themselves_and_each_other_and_travel_as_functions_do(tmp_path):
    (tmp_path / "kernel.py").write_text(HEAD + """
@compiled()
def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

@compiled()
def even(n):
    if n == 0:
        return True
    return odd(n - 1)

@compiled()
def odd(n):
    if n == 0:
        return False
    return even(n - 1)

@compiled()
def add(a, b=2): return a + b
""")
    source = "import pickle, sys; sys.path.insert(0, '.'); from kernel import *\n"
    source += "print(fibonacci(10), even(10), add(1, b=4), pickle.loads(pickle.dumps(add)) is add)"
    done = run_forked(code, ["code", source], tmp_path, dict(os.environ))
    assert done.stdout.split() == ["55", "True", "5", "True"], done.stderr


def test_where_no_folder_can_be_written_code_stays_in_memory(tmp_path):
    source = "import numba.core.caching as caching; caching.CacheImpl._locator_classes = []\n"
    source += "from spectramind_nb.core.machine_code import compiled\nkernel = compiled()(lambda x: 2 * x)\n"
    source += "print(kernel(3.0), kernel.stats.cache_path)"
    done = run_forked(code, ["code", source], tmp_path, dict(os.environ))
    assert done.stdout.split() == ["6.0", "None"], done.stderr


def test_every_kernel_is_kept_in_this_way():
    library = Path(machine_code.__file__).parents[1]
    assert [path.name for path in library.rglob("*.py") if "njit(" in path.read_text()] == ["kept_code.py"]


def test_with_numba_switched_off_the_functions_are_there(tmp_path):
    source = "import numpy, spectramind_nb.observations.series as series; print(series.running_mean(numpy.ones((1, 5)), 3)[0, 2])"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"})
    assert done.stdout.strip() == "1.0", done.stderr
