"""A few of the random damages of damages.py; `python tests/runs/damages.py --count 500` tries as many as one has time for."""

import shutil

import pytest

SEEDS = (1, 7, 12, 23, 25, 31)


@pytest.fixture(scope="module")
def damages(script):
    """The script that does it."""
    return script("runs/damages.py")


def test_damages_are_one_sentence_each_and_cost_nobody_else_anything(damages, short_root, here, tmp_path):
    run = damages.trained(["data=ariel2025", "data.workers=1", "trainer.max_epochs=1", "data.batch_size=2"])
    whole = shutil.copy(run(short_root), tmp_path / "whole.csv")
    trials = [damages.attempt(seed, short_root, tmp_path / "damaged", run, whole, margin=0.15) for seed in SEEDS]
    assert [trial for trial in trials if trial.faults] == []
    assert {trial.exit_code for trial in trials} <= {0, 3, 10, 11} and sum(trial.score is not None for trial in trials) >= 3


def test_a_damage_never_writes_through_a_link(damages, short_root, tmp_path):
    stamp = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in short_root.rglob("*") if path.is_file()}
    said = set()
    for seed in range(40):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        said |= set(damages.damage(damages.linked(short_root, tmp_path / "copy"), seed)[0])
    assert stamp == {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in stamp} and len(said) > 40
