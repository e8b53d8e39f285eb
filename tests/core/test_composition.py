"""What is composed from kept choices is what Hydra composes from nothing, and is composed anew when a file says something else."""

import shutil

import pytest
from hydra import compose as hydra_compose
from hydra.errors import HydraException

from spectramind_nb.core import config_groups
from spectramind_nb.core.config_groups import composition, hydra_session


def from_nothing(words):
    """By Hydra alone: the composition and the options, or its error."""
    try:
        with hydra_session():
            config = hydra_compose("train", overrides=list(words), return_hydra_config=True)
    except (HydraException, ValueError) as error:
        return type(error), str(error), str(error.__cause__)
    choices = {name: option for name, option in config.hydra.runtime.choices.items() if "/" not in name}
    with hydra_session():
        return hydra_compose("train", overrides=list(words)), choices


def from_what_is_kept(words):
    """The same by the library, twice: the first may fill what the second takes."""
    for _ in range(2):
        try:
            found = composition(words)
        except (HydraException, ValueError) as error:
            found = type(error), str(error), str(error.__cause__)
    return found


@pytest.mark.parametrize("words", [
    [],
    ["trainer=ci_fast", "trainer.max_epochs=3", "trainer.max_epochs=4"],
    ["trainer.devices=2", "trainer=ddp", "data.root=${oc.env:HOME}/data"],
    ["seed=7", "+data.note=mine", "++trainer.env={A: b}", "~run_id"],
    ["experiment=demo", "trainer.max_epochs=3"],
    ["experiment=null", "model.optimizer={lr: 0.1}"],
    ["+trainer@twin=ci_fast", "twin.max_epochs=9"],
    ["~logger", "trainer={max_epochs: 3}"],
    ["hydra.run.dir=elsewhere", "seed=3"],
    ["trainer.max_epoch=3"],
    ["trainer=ci_fst", "trainer.max_epoch=3"],
    ["+seed=1"], ["~nothing"], ["~seed=1"], ["trainer.wall=3"], ["++trainer=ci_fast"], ["+trainer=ci_fast"], ["nothing/at=all"],
], ids=" ".join)
def test_kept_choices_give_what_hydra_gives(words):
    assert from_what_is_kept(words) == from_nothing(words)


def test_nobody_changes_what_is_kept():
    config, choices = composition(["trainer=ci_fast"])
    config.trainer.max_epochs, choices["trainer"] = 99, "mine"
    again, others = composition(["trainer=ci_fast"])
    assert again.trainer.max_epochs == 1 and others["trainer"] == "ci_fast"


def test_a_file_that_says_something_else_is_read_again(tmp_path, monkeypatch):
    shutil.copytree(config_groups.config_dir(), tmp_path / "configs")
    monkeypatch.setattr(config_groups, "config_dir", lambda: tmp_path / "configs")
    assert composition([])[0].seed == 42
    path = tmp_path / "configs/train.yaml"
    path.write_text(path.read_text().replace("seed: 42", "seed: 43"))
    assert composition([])[0].seed == 43
    (tmp_path / "configs/trainer/mine.yaml").write_text("defaults: [ci_fast]\nmax_epochs: 5\n")
    assert composition(["trainer=mine"])[0].trainer.max_epochs == 5
