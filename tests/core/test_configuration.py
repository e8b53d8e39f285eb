"""Composition: what is declared, what is refused and how it is said."""

import inspect
import threading
from pathlib import Path

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

from spectramind_nb.core import configuration
from spectramind_nb.core.configuration import compose, config_hash, group, options, profiles, validate
from spectramind_nb.core.errors import ConfigError

BUILT_BY_US = {"logger", "callbacks", "plugins", "default_root_dir", "model_registry"}


def told(*words):
    with pytest.raises(ConfigError) as caught:
        compose(overrides=words)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_base_profile_declares_every_trainer_argument():
    from pytorch_lightning import Trainer

    arguments = set(inspect.signature(Trainer.__init__).parameters) - {"self"} - BUILT_BY_US
    declared = set(group("trainer", "defaults"))
    assert arguments <= declared
    ours = {"doc", "threads", "wall", "checkpoint", "early_stop", "loader", "guards", "storage", "env"}
    assert declared - arguments == ours
    assert declared == set(configuration.TrainerConfig.model_fields)


@pytest.mark.parametrize("profile", options("trainer"))
def test_every_profile_composes_and_says_what_it_is_for(profile):
    config = compose(trainer=profile)
    assert config.trainer.doc == profiles()[profile] and len(config.trainer.doc) < 120
    assert config.launch.choices.trainer == profile
    assert config.seed is not None and config.trainer.deterministic is True


@pytest.mark.parametrize("name", [n for n in configuration.groups() if n not in ("trainer", "experiment")])
def test_every_option_of_every_group_composes(name):
    for option in options(name):
        assert compose(**{name: option}).launch.choices[name] == option


def test_every_experiment_composes():
    for option in options("experiment"):
        compose(overrides=[f"experiment={option}"])


def test_overrides_win_and_are_recorded():
    config = compose(trainer="ci_fast", overrides=["trainer.max_epochs=3", "seed=7"])
    assert (config.trainer.max_epochs, config.seed) == (3, 7)
    assert list(config.launch.overrides) == ["trainer=ci_fast", "trainer.max_epochs=3", "seed=7"]
    assert compose("ci_fast") == compose(overrides=["trainer=ci_fast"])


def test_result_is_plain_and_read_only():
    config = compose()
    assert "${" not in yaml.safe_dump(configuration.OmegaConf.to_container(config))
    with pytest.raises(Exception, match="read-only"):
        config.seed = 1


@pytest.mark.parametrize("words, said", [
    (["trainer.max_epoch=3"], "Did you mean 'max_epochs'?"),
    (["trainer.wall.budgt=9h"], "Did you mean 'budget'?"),
    (["trainer=kaggel_safe"], "Did you mean 'kaggle_safe'?"),
    (["data=ariel2026"], "Did you mean 'ariel2025'?"),
    (["trainer.max_epochs=abc"], "trainer.max_epochs"),
    (["trainer.max_epochs="], "trainer.max_epochs"),
    (["trainer.precision=16"], "trainer.precision"),
    (["trainer.wall.budget=nine hours"], "'nine hours' is not a duration"),
    (["trainer.storage.budget=much"], "'much' is not a size"),
    (["trainer.max_epochs=1,2"], "Give one value"),
    (["trainer"], "is not an override"),
    (["trainer.max_time=60"], "use trainer.wall.budget"),
    (["trainer.precision=16-mixed", "trainer.gradient_clip_val=null"], "clip"),
    (["trainer.benchmark=true"], "deterministic"),
    (["trainer.wall.budget=9h", "trainer.min_epochs=3"], "min_epochs"),
    (["trainer.wall.budget=20s", "trainer.wall.reserve=30s"], "shorter"),
    (["seed=null"], "seed"),
    (["nonsense=1"], "there is no key 'nonsense'"),
    (["trainer=[defaults,ci_fast]"], "no trainer profile"),
])
def test_mistakes_are_answered_with_one_sentence(words, said):
    message = told(*words)
    assert said in message and "\n" not in message


def test_all_errors_are_reported_at_once():
    message = told("trainer.max_epochs=abc", "data.batch_size=0", "seed=-1")
    assert "3 errors" in message
    assert all(key in message for key in ("trainer.max_epochs", "data.batch_size", "seed"))


@pytest.mark.parametrize("leak", ["+trainer.lr=0.1", "+trainer.batch_size=8", "+model.devices=2", "+data.max_epochs=3",
                                  "+loss.precision=16-mixed"])
def test_how_and_what_do_not_mix(leak):
    assert leak.strip("+").split("=")[0] in told(leak)


@pytest.mark.parametrize("path", sorted(configuration.config_dir().glob("trainer/*.yaml")), ids=lambda p: p.stem)
def test_shipped_profiles_hold_only_orchestration(path):
    keys = set(yaml.safe_load(path.read_text())) - {"defaults"}
    assert keys <= set(configuration.TrainerConfig.model_fields)


def test_shipped_science_holds_no_orchestration():
    for name in (*configuration.SCIENCE_GROUPS, "data"):
        for option in options(name):
            assert list(configuration._leaks(compose(**{name: option})[name], name)) == []


def test_every_key_that_is_removed_from_a_profile_is_missed():
    plain = configuration.OmegaConf.to_container(compose())
    for key in plain["trainer"]:
        broken = {**plain, "trainer": {k: v for k, v in plain["trainer"].items() if k != key}}
        with pytest.raises(ConfigError, match=f"trainer.{key}"):
            validate(broken)


def test_hash_is_about_content_not_about_place(tmp_path, monkeypatch):
    here = config_hash(compose())
    monkeypatch.chdir(tmp_path)
    assert config_hash(compose(overrides=["run_id=x"])) == here
    assert config_hash(compose(overrides=["trainer.max_epochs=41"])) != here


def test_foreign_hydra_state_survives_and_threads_do_not_collide():
    from hydra import initialize_config_dir

    with initialize_config_dir(str(configuration.config_dir()), version_base="1.3"):
        foreign = GlobalHydra.instance().hydra
        results = []
        threads = [threading.Thread(target=lambda n=n: results.append(compose(overrides=[f"seed={n}"]).seed))
                   for n in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert sorted(results) == [0, 1, 2, 3]
        assert GlobalHydra.instance().hydra is foreign


def test_configs_are_found_from_any_folder(tmp_path, spectramind):
    done = spectramind("train", "--cfg", "trainer=ci_fast", cwd=tmp_path)
    assert done.returncode == 0 and "max_epochs: 1" in done.stdout
    assert not list(Path(tmp_path).iterdir()), "--cfg leaves nothing behind"
