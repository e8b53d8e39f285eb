"""Composition and validation: what is declared, what is refused, and how it is said. Numbers are those of the promises."""

import ast
import inspect
import threading
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

from spectramind_nb.core import config_schema
from spectramind_nb.core.config_faults import SCIENCE_GROUPS, leaks
from spectramind_nb.core.config_groups import config_dir, group, groups, options
from spectramind_nb.core.config_rules import _BOUNDED, RULES, clashes
from spectramind_nb.core.configuration import adjusted, checked_config, compose
from spectramind_nb.core.errors import ConfigError
from spectramind_nb.core.identity import flat

BUILT_BY_US = {"logger", "callbacks", "plugins", "default_root_dir", "model_registry"}
OURS = {"doc", "threads", "wall", "checkpoint", "early_stop", "loader", "guards", "storage", "env", "shape_stable",
        "matmul_precision", "min_capability", "escalate_after", "network", "locked", "unlock"}


def told(*words):
    with pytest.raises(ConfigError) as caught:
        compose(overrides=words)
    assert caught.value.exit_code == 2
    return str(caught.value)


# -- what is declared ----------------------------------------------------------------------------------------------


def test_p1_base_profile_declares_every_trainer_argument():
    from pytorch_lightning import Trainer

    arguments = set(inspect.signature(Trainer.__init__).parameters) - {"self"} - BUILT_BY_US
    declared = set(group("trainer", "defaults"))
    assert arguments <= declared
    assert declared - arguments == OURS
    assert declared == set(config_schema.TrainerConfig.model_fields)


def test_p1_every_key_that_is_removed_from_a_profile_is_missed():
    plain = compose().plain()
    for key in plain["trainer"]:
        broken = {**plain, "trainer": {k: v for k, v in plain["trainer"].items() if k != key}}
        with pytest.raises(ConfigError, match=f"trainer.{key}: is missing"):
            checked_config(broken)


def test_p1_p15_no_orchestration_is_written_in_python():
    """No call of a Trainer anywhere in the package gives it a device, precision, length, strategy or cadence of its own."""
    switches = {"enable_checkpointing", "enable_progress_bar", "fast_dev_run", "limit_predict_batches"}  # off for a look
    calls = 0
    for path in Path(config_schema.__file__).parents[1].glob("*/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "Trainer":
                calls += 1
                given = {keyword.arg for keyword in node.keywords if keyword.arg}
                nested = {key.value for part in ast.walk(node) if isinstance(part, ast.Dict) for key in part.keys
                          if isinstance(key, ast.Constant)}
                assert (given | nested) & set(config_schema.TrainerConfig.model_fields) <= switches, f"{path.name}:{node.lineno}"
    assert calls >= 2


def test_p13_without_a_word_the_profile_is_defaults():
    assert compose().launch.choices["trainer"] == "defaults"
    first = yaml.safe_load((config_dir() / "train.yaml").read_text())["defaults"][0]
    assert first == {"trainer": "defaults"}


@pytest.mark.parametrize("words, values", [
    (["trainer=defaults"], {"max_epochs": 40, "devices": 1}),
    (["trainer=kaggle_safe", "trainer.max_epochs=30"], {"max_epochs": 30, "precision": "16-mixed"}),
    (["trainer=ci_fast"], {"max_epochs": 1, "enable_checkpointing": False}),
    (["trainer=multi_gpu", "trainer.devices=4"], {"devices": 4, "accelerator": "gpu"}),
    (["trainer=ddp", "trainer.devices=8", "trainer.num_nodes=2"], {"devices": 8, "num_nodes": 2, "sync_batchnorm": True}),
])
def test_p14_quick_start_words_compose(words, values):
    config = compose(overrides=words)
    assert {key: getattr(config.trainer, key) for key in values} == values


def test_p4_p14_overrides_win_and_are_recorded_beside_the_whole():
    config = compose(trainer="ci_fast", overrides=["trainer.max_epochs=3", "seed=7"])
    assert (config.trainer.max_epochs, config.seed) == (3, 7)
    assert list(config.launch.overrides) == ["trainer=ci_fast", "trainer.max_epochs=3", "seed=7"]
    assert compose("ci_fast") == compose(overrides=["trainer=ci_fast"])


def test_the_last_choice_in_a_group_counts():
    config = compose("ci_fast", ["trainer=kaggle_safe", "data=ariel2024", "data=synthetic"])
    assert config.launch.choices["trainer"] == "kaggle_safe" and config.data.name == "synthetic"
    assert list(config.launch.overrides) == ["trainer=kaggle_safe", "data=synthetic"]


@pytest.mark.parametrize("name", [n for n in groups() if n not in ("trainer", "experiment")])
def test_every_option_of_every_group_composes(name):
    for option in options(name):
        assert compose(**{name: option}).launch.choices[name] == option


def test_every_experiment_composes():
    for option in options("experiment"):
        compose(overrides=[f"experiment={option}"])


def test_result_is_plain_and_read_only():
    config = compose()
    assert "${" not in config.yaml()
    with pytest.raises(Exception, match="frozen"):
        config.seed = 1


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words, said", [
    (["trainer.max_epoch=3"], "Did you mean 'max_epochs'?"),
    (["trainer.wall.budgt=9h"], "Did you mean 'budget'?"),
    (["trainer=multi_gpu", "trainer.strategy.static_grph=true"], "Did you mean 'static_graph'?"),
    (["trainer=kaggel_safe"], "Did you mean 'kaggle_safe'?"),
    (["data=ariel2026"], "Did you mean 'ariel2025'?"),
    (["trainr=ci_fast"], "Did you mean 'trainer'?"),
    (["trainer.precision=bf16-mixd"], "did you mean 'bf16-mixed'?"),
    (["trainer.accelerator=cuba"], "did you mean 'cuda'?"),
    (["+trainer.limit_train_batch=3"], "did you mean 'limit_train_batches'?"),
    (["trainer.max_epochs=abc"], "trainer.max_epochs: must be a whole number, not 'abc'"),
    (["trainer.max_epochs="], "trainer.max_epochs"),
    (["trainer.precision=16"], "trainer.precision"),
    (["trainer.wall.budget=nine hours"], "'nine hours' is not a duration"),
    (["trainer.storage.budget=much"], "'much' is not a size"),
    (["trainer.max_epochs=1,2"], "Give one value"),
    (["trainer"], "is not an override"),
    (["trainer.max_time=60"], "trainer.wall.budget keeps the time"),
    (["nonsense=1"], "there is no key 'nonsense'"),
    (["trainer=[defaults,ci_fast]"], "no trainer profile"),
    (["trainer.devices=0"], "trainer.devices"),
    (["trainer.devices=some"], "trainer.devices"),
    (["trainer.barebones=true"], "trainer.barebones"),
    (["trainer.overfit_batches=1"], "use trainer.limit_train_batches"),
    (["trainer.limit_predict_batches=1"], "every planet gets an answer"),
    (["trainer.profiler=simpel"], "did you mean 'simple'?"), (["data.edition=2024"], "write data.edition=\"'2024'\""),
    (["trainer.min_epochs=50", "trainer.max_epochs=3"], "it is more than trainer.max_epochs"),
    (["trainer.min_steps=50", "trainer.max_steps=3"], "it is more than trainer.max_steps"),
    (["trainer.max_epochs=-1"], "nothing ends this run"),
    (["trainer.max_epochs=null"], "nothing ends this run"),
    (["trainer.val_check_interval=5"], "check_val_every_n_epoch=null"),
    (["trainer.val_check_interval=1.5"], "at most 1.0"),
    (["trainer.early_stop.enabled=true", "trainer.limit_val_batches=0"], "nothing to watch"),
    (["trainer.checkpoint.monitor=train/loss"], "trainer.checkpoint.monitor: it is looked at when a validation ends"),
    (["trainer.early_stop.monitor=train/loss"], "trainer.early_stop.monitor: it is looked at when a validation ends"),
    (["trainer.check_val_every_n_epoch=null"], "trainer.check_val_every_n_epoch: null counts batches across epochs"),
    (["trainer.precision=bf16-true"], "trainer.precision"), (["trainer.profiler=xla"], "trainer.profiler"),
    (["+trainer.env.WANDB_API_KEY=abc"], "a secret would be copied"),
    (["+trainer.env.DB_PASSWD=abc"], "a secret would be copied"),
    (["+trainer.env.BASIC_AUTH=abc"], "a secret would be copied"),
    (["hydra.searchpath=[file:///not/there]", "trainer=mine"], "/not/there"),
])
def test_p14_mistakes_are_answered_with_one_sentence(words, said):
    message = told(*words)
    assert said in message and "\n" not in message


@pytest.mark.parametrize("words, said", [
    (["trainer.precision=16-mixed", "trainer.gradient_clip_val=null"], "gradient_clip_val=1.0"),
    (["trainer.precision=16-mixed", "trainer.gradient_clip_val=0.0"], "gradient_clip_val=1.0"),
    (["trainer.precision=auto", "trainer.gradient_clip_val=null"], "gradient_clip_val=1.0"),
    (["trainer.precision=bf16-mixed", "+model.optimizer.fused=true"], "fused optimizer cannot clip"),
])
def test_p46_half_precision_without_clipping_is_refused(words, said):
    assert said in told(*words)


def test_p46_what_goes_together_is_accepted():
    compose(overrides=["trainer.precision=bf16-mixed", "trainer.gradient_clip_val=null"])
    compose(overrides=["trainer.precision=16-mixed"])


def test_p21b_benchmark_only_when_asked_twice():
    assert "deterministic forbids" in told("trainer.benchmark=true", "trainer.shape_stable=true")
    assert "shape_stable=true" in told("trainer.benchmark=true", "trainer.deterministic=false")
    compose(overrides=["trainer.benchmark=true", "trainer.deterministic=false", "trainer.shape_stable=true"])


def test_p24_a_wall_cannot_promise_a_minimum():
    assert "min_epochs" in told("trainer.wall.budget=9h", "trainer.min_epochs=3")
    assert "min_epochs" in told("trainer=kaggle_safe", "trainer.min_steps=3")
    assert "shorter" in told("trainer.wall.budget=20s", "trainer.wall.reserve=30s")


def test_p38_p41_static_graph_and_accumulation_do_not_meet():
    two = ["trainer=ddp", "trainer.devices=2", "trainer.num_nodes=1"]
    assert compose(overrides=two).trainer.strategy["static_graph"] is True
    assert compose(overrides=[*two, "trainer.accumulate_grad_batches=4"]).trainer.strategy["static_graph"] is False
    refused = told(*two, "trainer.accumulate_grad_batches=4", "trainer.strategy.static_graph=true")
    assert "accumulate_grad_batches" in refused
    assert compose(overrides=["trainer=multi_gpu", "trainer.accumulate_grad_batches=4"]).trainer.strategy["static_graph"] is False


def test_p35_strategies_of_another_dialect_are_refused():
    assert "_target_" in told("trainer.strategy={class_path:pytorch_lightning.strategies.DDPStrategy,init_args:{}}")
    assert "datetime.timedelta" in told("trainer=multi_gpu", "trainer.strategy.timeout=1800")
    assert "must be auto, ddp" in told("trainer.strategy=ddp_spawn")


def test_p39_devices_and_nodes_must_both_be_given():
    both = told("trainer=ddp")
    assert "trainer.devices: is not given, add trainer.devices=N" in both and "trainer.num_nodes: is not given" in both
    assert "trainer.devices" not in told("trainer=ddp", "trainer.devices=8")


def test_p54_a_seed_is_never_null():
    assert "seed: must be a number, a run without one cannot be repeated" in told("seed=null")
    for profile in set(options("trainer")) - {"ddp"}:
        assert isinstance(compose(profile).seed, int)


def test_all_errors_are_reported_at_once_rules_among_them():
    message = told("trainer.max_epochs=abc", "data.batch_size=0", "seed=-1", "trainer.precision=16-mixed",
                   "trainer.gradient_clip_val=null", "trainer.benchmark=true", "+model.devices=2")
    expected = ("trainer.max_epochs", "data.batch_size", "seed", "trainer.precision", "trainer.benchmark", "model.devices")
    assert all(f"{key}: " in message for key in expected)
    assert "7 errors" in message, "benchmark breaks two rules"


BREAKING = [
    {"trainer": {"precision": "16-mixed", "gradient_clip_val": None}},
    {"trainer": {"deterministic": True, "benchmark": True, "shape_stable": False}},
    {"trainer": {"precision": "bf16-mixed", "gradient_clip_val": 1.0}, "model": {"optimizer": {"fused": True}}},
    {"trainer": {"strategy": {"static_graph": True, "timeout": 1800}, "accumulate_grad_batches": 2}},
    {"trainer": {"wall": {"budget": "20s", "reserve": "1m"}, "min_epochs": 1, "min_steps": None}},
    {"trainer": {"max_epochs": -1, "max_steps": -1, "wall": {"budget": None}}},
    {"trainer": {**dict.fromkeys(["limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches"], 1.5),
                 "val_check_interval": 1.5, "overfit_batches": 1.5}},
    {"simulator": {"population": {"depth": [0.02, 0.01], "shape_rms_ppm": [20.0]}, "star": {"airs_um": [2.0], "airs_shape": [1.0]}}},
    {"trainer": {"val_check_interval": 3, "check_val_every_n_epoch": 1}},
    {"trainer": {"val_check_interval": 1.0, "check_val_every_n_epoch": None}},
    {"trainer": {"early_stop": {"enabled": True, "monitor": "train/loss"}, "limit_val_batches": 0, "checkpoint": {"monitor": "epoch"}}},
    {"trainer": {"devices": [], "env": {"MY_TOKEN": "x"}}},
    {"trainer": {"min_epochs": 3, "max_epochs": 2, "min_steps": 3, "max_steps": 2}},
    {"trainer": {"enable_checkpointing": False}, "pretrain": {"train": 8}},
]


def test_every_rule_can_be_broken_and_reads_keys_that_exist():
    """A rule about a key that was renamed would never speak again."""
    heard = {sentence for broken in BREAKING for sentence in clashes(broken)}
    assert heard == {rule.sentence for rule in RULES}
    known, optional = flat(compose(pretrain="simulated").plain()), {"model.optimizer.fused", "trainer.strategy.static_graph"}
    for key in {key for rule in RULES for key in rule.keys} - optional:
        assert any(f"{name}.".startswith(f"{key}.") for name in known), key


@pytest.mark.parametrize("word, said", [
    ("detector.edge_columns=36", "must be from 0 to 35, not 36"), ("detector.edge_columns=8.0", "must be a whole number, not 8.0"),
    ("detector.hot_pixel_iterations=2.5", "must be a whole number, not 2.5"), ("detector.bin_seconds.FGS1=-3", "greater than 0, not -3"),
    ("detector.weights=optimel", "must be optimal or sum, not 'optimel'"), ("detector.hot_pixel_sigma=0", "must be greater than 0"),
    ("detector.trace_half_rows=-1", "must be at least 0"), ("detector.least_share=1", "less than 1"),
    ("detector.aperture_radius=0", "greater than 0"),
    ("fit.geometry.unknown.period_d=0", "greater than 0"), ("fit.limb_darkening.sum.tilt=0", "greater than 0"),
    ("fit.drift.time_degree=-1", "at least 0"), ("fit.search.bins=1", "at least 20"), ("fit.search.step_h=0", "greater than 0"),
    ("fit.red_noise.white=-1", "from 0 to 1"), ("fit.red_noise.corners_per_h=[0]", "greater than 0"),
    ("fit.red_noise.ratios=[much]", "must be a number, not 'much'"), ("fit.red_noise.ratios=[null]", "without null"),
    ("fit.robust.clip_sigma=0", "greater than 0"), ("fit.iterations=4.5", "a whole number"),
    ("model.amplitude_nodes=0", "at least 1"), ("model.folds=0", "at least 1"), ("model.outlier_share=1", "less than 1"),
    ("model.optimizer.lr=-1", "at least 0"), ("model.components=2.5", "a whole number"),
    ("simulator.population.max_impact_parameter=0", "greater than 0"), ("simulator.frames.short.FGS1=25", "an even number"),
    ("trainer.storage.budget=-1", "'-1' is not a size"), ("trainer.checkpoint.every=-5", "'-5' is not a duration"),
    ("trainer.wall.reserve=-3600", "'-3600' is not a duration"), ("trainer.limit_train_batches=1.5", "at most 1.0"),
    ("trainer.min_epochs=-1", "at least 0"), ("trainer.min_steps=-1", "at least 0"), ("trainer.fast_dev_run=-1", "at least 0"),
    ("seed=4294967296", "less than 4294967296"),
    ("trainer.wall.budget=inf", "a finite number"), ("trainer.gradient_clip_val=inf", "a finite number"),
    ("model.optimizer.lr=inf", "a finite number"), ("detector.hot_pixel_sigma=nan", "a finite number"),
])
def test_a_value_beyond_its_bounds_is_refused_when_composing(word, said):
    message = told(word)
    assert f"{word.split('=')[0]}: " in message and said in message and "an error" in message


def test_what_belongs_to_a_member_has_the_bounds_of_the_model():
    assert "model.member.folds: must be at least 1" in told("model=ensemble", "model.member.folds=0")
    assert "model.dropout" in told("model=encoder", "model.dropout=1.5")


def test_what_only_some_options_have_has_bounds_too():
    assert "fit.limb_darkening.sum.bends: must be greater than 0" in told("fit=own", "fit.limb_darkening.sum.bends=[0.03,0]")


def test_every_bound_is_about_a_key_that_exists():
    known = {key for name in SCIENCE_GROUPS for option in options(name) for key in flat(compose(**{name: option}).plain())}
    for name, bounds in _BOUNDED.items():
        for pattern in " ".join(bounds.values()).split():
            assert any(fnmatchcase(key, f"{name}.{pattern}") for key in known), pattern


@pytest.mark.parametrize("leak", ["+trainer.lr=0.1", "+trainer.batch_size=8", "+trainer.optimizer=adamw",
                                  "+trainer.loss=composite"])
def test_p17_science_under_the_trainer_is_refused(leak):
    assert leak.strip("+").split("=")[0] in told(leak)


@pytest.mark.parametrize("leak", ["+model.devices=2", "+data.max_epochs=3", "+loss.precision=16-mixed", "+fit.num_nodes=2",
                                  "+model.optimizer.gradient_clip_val=1.0"])
def test_p18_orchestration_among_science_is_refused(leak):
    assert leak.strip("+").split("=")[0] in told(leak)


def test_p18_shipped_science_holds_no_orchestration():
    for name in (*SCIENCE_GROUPS, "data"):
        for option in options(name):
            assert list(leaks(compose(**{name: option}).plain()[name], name)) == []


# -- locks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loosening", ["trainer.wall.budget=12h", "trainer.wall.budget=null", "trainer.wall.reserve=1s",
                                       "trainer.storage.budget=50GB", "trainer.guards.loss=false", "trainer.checkpoint.every=1s",
                                       "trainer.network=true", "trainer.enable_checkpointing=false", "trainer.locked=[]"])
def test_p28_kaggle_safe_guards_are_locked(loosening):
    if loosening == "trainer.locked=[]":  # emptying the list opens nothing
        assert "locks it at 9h" in told("trainer=kaggle_safe", loosening, "trainer.wall.budget=12h")
        return
    message = told("trainer=kaggle_safe", loosening)
    assert "kaggle_safe locks it" in message and "trainer.unlock=true" in message
    key = loosening.partition("=")[0].removeprefix("trainer.")
    opened = compose("kaggle_safe", [loosening, "trainer.unlock=true"]).launch.unlocked
    assert len(opened) == 1 and key.startswith(opened[0]), "what was opened is recorded"


@pytest.mark.parametrize("small", ["trainer.max_epochs=30", "trainer.wall.budget=2h", "trainer.wall.reserve=20m",
                                   "trainer.storage.budget=1GB", "trainer.loader.num_workers=4", "trainer.gradient_clip_val=0.5"])
def test_p28_small_knobs_stay_free(small):
    assert list(compose("kaggle_safe", [small]).launch.unlocked) == []


# -- identity ------------------------------------------------------------------------------------------------------


def test_p16_hash_is_about_content_not_about_place(tmp_path, monkeypatch):
    here = compose().hash
    monkeypatch.chdir(tmp_path)
    assert compose(overrides=["run_id=x"]).hash == here
    assert compose(overrides=["trainer.max_epochs=41"]).hash != here


def test_foreign_hydra_state_survives_and_threads_do_not_collide():
    from hydra import initialize_config_dir

    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        foreign = GlobalHydra.instance().hydra
        results = []
        threads = [threading.Thread(target=lambda n=n: results.append(compose(overrides=[f"seed={n}"]).seed))
                   for n in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert sorted(results) == [0, 1, 2, 3]
        assert GlobalHydra.instance().hydra is foreign


def test_p2_configs_are_found_from_any_folder(tmp_path, warm_spectramind):
    done = warm_spectramind("train", "--cfg", "trainer=ci_fast", cwd=tmp_path)
    assert done.returncode == 0 and "max_epochs: 1" in done.stdout
    assert not list(Path(tmp_path).iterdir()), "--cfg leaves nothing behind"


def test_p39_a_run_that_was_told_its_devices_is_revisited_without_telling_them_again():
    recorded = compose("ddp", ["trainer.devices=8", "trainer.num_nodes=2"])
    assert adjusted(recorded, ["data.batch_size=3"]).trainer.devices == 8
    assert adjusted(recorded, ["trainer=eval_only"]).trainer.devices == 1


def test_p2_a_run_is_revisited_where_its_stores_were_put_as_long_as_they_are_there(workspace):
    recorded = compose(overrides=["paths.root=elsewhere"])
    assert Path(adjusted(recorded).paths.logs) == workspace / "logs", "from another machine"
    Path("elsewhere").mkdir()
    assert adjusted(recorded).paths.root == recorded.paths.root
    assert adjusted(recorded, ["paths.root=third"]).paths.root == "third"
    assert Path(adjusted(compose()).paths.root) == workspace
