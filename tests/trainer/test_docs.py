"""The two pages beside the profiles: what they list is there, what they say is so, and every command in them runs."""

import itertools
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from own_process import command_elsewhere, run_forked

from spectramind_nb.core.config_groups import config_dir, options
from spectramind_nb.core.config_rules import RULES
from spectramind_nb.core.configuration import compose
from spectramind_nb.core.quantities import duration_s
from spectramind_nb.learning.encoder import EncoderModel
from spectramind_nb.learning.posterior import PosteriorModel

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "configs/trainer/README.md").read_text()
ARCHITECTURE = (REPO / "configs/trainer/architecture.md").read_text()
GIVEN = {"ddp": ["trainer.devices=2", "trainer.num_nodes=1"]}


def rows(page: str, header: str) -> list[list[str]]:
    """The cells of the table whose header line begins so."""
    lines = page.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(header)) + 2
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table]


def commands(page: str) -> list[str]:
    """The lines of the shell blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


# -- lists ---------------------------------------------------------------------------------------------------------


def test_p10_p55_the_readme_lists_every_profile_and_only_those():
    listed = [row[0] for row in rows(README, "| profile |")]
    assert sorted(listed) == sorted(options("trainer"))


def test_p10_what_the_readme_says_of_a_profile_is_so():
    for name, _, devices, precision, stops, keeps in rows(README, "| profile |"):
        node = compose(name, GIVEN.get(name, [])).trainer
        assert precision == node.precision, name
        assert ("given" in devices) == (name in GIVEN), name
        assert ("all GPUs" == devices) == (node.devices == "auto" and node.accelerator == "gpu"), name
        if found := re.search(r"(\d+) epoch", stops):
            assert int(found[1]) == node.max_epochs, name
        assert ("trains nothing" in stops) == (node.max_epochs == 0)
        budget = re.search(r"(\d+) (h|min)$", stops)
        promised_s = duration_s(f"{budget[1]}{budget[2][0]}") if budget else None
        assert promised_s == (node.wall.budget and duration_s(node.wall.budget)), name
        every = re.search(r"every (\d+) min", keeps)
        assert (keeps == "nothing") == (not node.enable_checkpointing)
        assert not every or int(every[1]) * 60 == duration_s(node.checkpoint.every), name
        assert ("every validation" in keeps) == (node.checkpoint.save_top_k == -1)


def test_p11_p55_the_architecture_lists_every_profile_and_its_base():
    table = rows(ARCHITECTURE, "| profile | stands on |")
    assert sorted(row[0] for row in table) == sorted(options("trainer"))
    for name, base, _ in table:
        own = yaml.safe_load((config_dir() / "trainer" / f"{name}.yaml").read_text())
        assert [base] == [entry for entry in own.get("defaults", ["-"]) if entry != "_self_"]


def test_p11_the_codemap_names_rooms_that_exist_and_all_that_belong():
    named = [row[0] for row in rows(ARCHITECTURE, "| room |")]
    for room in named:
        floor, name = room.split(".")
        assert (REPO / "spectramind_nb" / floor / f"{name}.py").is_file(), room
        assert len(list((REPO / "nbs" / floor).glob(f"[0-9][0-9][0-9]_{name}.ipynb"))) == 1, room
    runs = {f"runs.{path.stem}" for path in (REPO / "spectramind_nb/runs").glob("*.py") if path.stem != "__init__"}
    assert runs - {"runs.submission"} <= set(named), "submission is about files of the competition, not about runs"


def test_p11_p25_the_table_of_precisions_is_that_of_the_models():
    models = {"posterior": PosteriorModel, "encoder": EncoderModel}
    told = {name: {part: said for model, part, said, *_ in rows(ARCHITECTURE, "| model | part |") if model == name} for name in models}
    told["encoder"] = told["posterior"] | told["encoder"]  # which it begins with
    assert told == {name: dict(model.parts) for name, model in models.items()}
    for name in models:
        assert compose(overrides=[f"model={name}"]).plain()["model"]["compute"] == told[name]


def test_p11_keys_of_the_architecture_exist():
    known = compose().trainer.plain()
    for key in re.findall(r"`((?:wall|checkpoint|storage)\.\w+)`", ARCHITECTURE):
        assert key.split(".")[1] in known[key.split(".")[0]], key
    for key in ("precision", "escalate_after", "deterministic", "benchmark", "shape_stable", "network", "env", "barebones",
                "max_time"):
        assert f"`{key}" in ARCHITECTURE and key in known
    assert "`RULES` of `core.config_rules`" in ARCHITECTURE and RULES


# -- commands ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def shell(tmp_path_factory):
    """Run a line in a shell, in a workspace where `spectramind` is installed with the default data set made small.

    The package is the checkout's; only `simulate` in data/synthetic.yaml differs, so that filling the stores takes seconds.
    """
    home = tmp_path_factory.mktemp("docs")
    (home / "site").mkdir()
    (home / "site" / "spectramind_nb").symlink_to(REPO / "spectramind_nb")
    for path in (REPO / "configs").rglob("*.yaml"):
        copy = home / "site" / "configs" / path.relative_to(REPO / "configs")
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text()
        copy.write_text(text.replace("{train: 48, test: 12,", "{train: 6, test: 2,"))
        assert path.name != "synthetic.yaml" or copy.read_text() != text
    (home / "bin").mkdir()
    program = home / "bin" / "spectramind"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m spectramind_nb "$@"\n')
    program.chmod(0o755)
    (home / "here").mkdir()
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(home / "site"), "OMP_NUM_THREADS": "1"}
    env.pop("SPECTRAMIND_CACHE", None)

    def run(line: str, warm: bool = False) -> subprocess.CompletedProcess:
        """`warm` saves the seconds of importing, where the shell has nothing to do but to split words."""
        if warm:
            words = shlex.split(line.replace("$PWD", str(home / "here")))
            done = run_forked(command_elsewhere, words, home / "here", env, timeout=300)
        else:
            done = subprocess.run(["bash", "-c", line], cwd=home / "here", env=env, capture_output=True, text=True, timeout=300)
        done.runs = lambda: sorted((home / "here" / "logs").glob("*/audit.json"))
        return done

    return run


def gpus() -> int:
    import torch

    return torch.cuda.device_count()


def succeeded(done: subprocess.CompletedProcess) -> None:
    assert done.returncode == 0, f"{done.args}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """Code 3 and one sentence that says what is there and how to simulate it."""
    assert done.returncode == 3, done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith("error: ")
    assert all(word in sentence for word in ("trainer.accelerator=cpu", "trainer.devices=2", *words)), sentence


def processor_seconds(run, line):
    """Of a command, so that a busy machine does not make it slower."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(line)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_quick_start_is_these_five():
    assert commands(README)[:5] == [
        "spectramind train trainer=defaults", "spectramind train trainer=kaggle_safe trainer.max_epochs=30",
        "spectramind train trainer=ci_fast", "spectramind train trainer=multi_gpu trainer.devices=4",
        "spectramind train trainer=ddp trainer.devices=8 trainer.num_nodes=2",
    ]


def test_p59_defaults_runs(shell):
    done = shell("spectramind train trainer=defaults")
    succeeded(done)
    assert "finished" in done.stdout and "val/score" in done.stdout


def test_p60_p64_kaggle_safe_runs(shell):
    done = shell("spectramind train trainer=kaggle_safe trainer.max_epochs=30", warm=True)
    succeeded(done)
    assert "9h" in done.stdout + done.stderr, "the guard rails are told"


def test_p61_p30_ci_fast_runs_and_leaves_no_checkpoint(shell):
    done = shell("spectramind train trainer=ci_fast", warm=True)
    succeeded(done)
    folder = next(path.parent for path in reversed(done.runs()) if path.parent.name.endswith("ci_fast"))
    assert not list(folder.rglob("*.ckpt")) and (folder / "submission.csv").is_file()


def test_p62_p34_multi_gpu_runs_or_says_what_is_there(shell):
    done, seconds = processor_seconds(shell, "spectramind train trainer=multi_gpu trainer.devices=4")
    if gpus() >= 4:
        succeeded(done)
    else:
        refused(done, "4 GPUs are asked for", "here")
        assert seconds < 3


def test_p63_p39_ddp_runs_or_says_what_is_there(shell):
    done, seconds = processor_seconds(shell, "spectramind train trainer=ddp trainer.devices=8 trainer.num_nodes=2")
    if gpus() >= 8:  # one process started alone is not two machines
        assert done.returncode == 3 and "torchrun" in done.stderr
    else:
        refused(done, "8 GPUs are asked for", "here", "trainer.num_nodes=1")
        assert seconds < 3


@pytest.mark.slow
def test_p10_every_other_command_of_the_readme_runs(shell):
    lines = commands(README)[5:]
    assert len(lines) >= 10 and all(line.startswith("spectramind ") for line in lines)
    for line in lines:
        succeeded(shell(line, warm="multi_gpu" not in line))  # a launcher of several processes starts what was typed


def test_p12_p19_p65_the_merged_configuration_is_captured(filled, short_root, warm_spectramind):
    """What lies in a run directory composes to the run's hash again, and says what was typed."""
    from spectramind_nb.core.configuration import read_config
    from spectramind_nb.core.storage import file_digest
    from spectramind_nb.records.record import load

    typed = ["trainer=ci_fast", "trainer.limit_train_batches=1", f"data.root={short_root}", "run_id=kept"]
    succeeded(warm_spectramind("train", *typed, cwd=filled))
    folder = filled / "logs" / "kept"
    record, stored = load(folder / "audit.json"), read_config(folder / "config.yaml")
    assert stored.hash == record["config_hash"] and stored.trainer.limit_train_batches == 1
    assert (folder / "overrides.txt").read_text().split() == typed
    assert record["choices"]["trainer"] == "ci_fast" and record["argv"][-1] == "run_id=kept"
    assert record["profile"]["sha256"] == file_digest(config_dir() / "trainer" / "ci_fast.yaml")


def test_p20_module_script_and_function_are_one_path(shell, spectramind, tmp_path):
    script = shell("spectramind train --cfg trainer=ci_fast").stdout
    module = spectramind("train", "--cfg", "trainer=ci_fast", cwd=tmp_path).stdout
    known = yaml.safe_load(module)
    assert yaml.safe_load(script)["trainer"] == known["trainer"]
    function = compose("ci_fast")
    assert dict(known["trainer"]["wall"]) == dict(function.trainer.wall) and known["launch"]["overrides"] == ["trainer=ci_fast"]
