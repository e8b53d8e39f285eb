"""Profiles as mission modes: what each promises, the contract they keep, and what one can do with them."""

import hashlib
import json
import math
import shlex
from base64 import urlsafe_b64encode
from types import SimpleNamespace

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from toys import Tiny, fit
from typer.testing import CliRunner

from spectramind_nb.apps.cli import app
from spectramind_nb.core import profiles as room
from spectramind_nb.core.config_groups import config_dir, group, options, profiles
from spectramind_nb.core.config_schema import TrainerConfig
from spectramind_nb.core.configuration import compose
from spectramind_nb.core.errors import ConfigError, DataMissingError, ReplayMismatch, SchemaError, TerminatedRun
from spectramind_nb.core.identity import differences
from spectramind_nb.core.profiles import check, find, new, origin
from spectramind_nb.learning.encoder import WarmCosine
from spectramind_nb.runs import submission, training_loop
from spectramind_nb.runs.execution import _profile_notes
from spectramind_nb.runs.replay import replay
from spectramind_nb.runs.run import Run, evaluate
from spectramind_nb.runs.run_attempts import Attempt
from spectramind_nb.runs.trainer import OptimizerFromConfig, RestoredHere, trainer_arguments
from spectramind_nb.runs.training import train

PROMISED = {"defaults", "kaggle_safe", "ci_fast", "multi_gpu", "ddp", "h100", "a100", "ablation", "eval_only", "t4x2",
            "ddp_notebook"}
GIVEN = {"ddp": ["trainer.devices=2", "trainer.num_nodes=1"]}
DDP = "pytorch_lightning.strategies.DDPStrategy"


def of(profile, *overrides):
    """The trainer node of a composed profile."""
    return compose(profile, [*GIVEN.get(profile, []), *overrides]).trainer


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


# -- all of them ---------------------------------------------------------------------------------------------------


def test_p2_p5_the_promised_profiles_are_there():
    assert set(options("trainer")) == PROMISED
    assert (config_dir() / "trainer" / "defaults.yaml").is_file()
    assert compose("default") == compose("defaults"), "an alias, for those who expect the other spelling"


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_p55_every_profile_keeps_the_contract(name):
    assert [str(clause) for clause in check(name) if clause.fault] == []
    config = compose(name, GIVEN.get(name, []))
    assert config.trainer.doc == profiles()[name] and config.launch.choices["trainer"] == name
    assert config.trainer.deterministic is True and config.trainer.benchmark is False


@pytest.mark.parametrize("path", sorted(config_dir().glob("trainer/*.yaml")), ids=lambda path: path.stem)
def test_p17_profiles_hold_orchestration_and_are_read_at_a_glance(path):
    own = set(yaml.safe_load(path.read_text())) - {"defaults", "doc"}
    assert own <= set(TrainerConfig.model_fields)
    assert path.stem == "defaults" or len(own) <= 12
    assert path.read_text().startswith("# ")


def test_profiles_build_what_lightning_accepts():
    """Every strategy is built, every argument is one of Trainer's; a Trainer of the CPU profiles is made."""
    import pytorch_lightning as pl

    for name in PROMISED:
        arguments = trainer_arguments(of(name))
        assert arguments["strategy"] in ("auto",) or isinstance(arguments["strategy"], pl.strategies.DDPStrategy), name
    for name in ("defaults", "ci_fast", "ablation", "eval_only"):
        pl.Trainer(**trainer_arguments(of(name, "trainer.accelerator=cpu")), logger=False)


# -- one by one ----------------------------------------------------------------------------------------------------


def test_p22_p23_defaults_suit_a_laptop():
    node = of("defaults")
    assert node.precision == "32-true" and node.devices == 1 and node.accelerator == "auto" and node.strategy == "auto"
    assert node.check_val_every_n_epoch == 1 and node.gradient_clip_val == 1.0 and node.gradient_clip_algorithm == "norm"
    assert node.enable_checkpointing and node.max_epochs > 1


def test_p6_p24_p25_p26_p27_p49_kaggle_safe_stays_inside_the_session():
    node, base = of("kaggle_safe"), of("defaults")
    assert node.wall.budget_s <= 9 * 3600 and node.wall.reserve_s >= 300
    assert node.precision == "16-mixed" and node.gradient_clip_val
    assert 0 < node.loader.num_workers <= 2
    assert node.checkpoint.every_s > base.checkpoint.every_s
    assert node.log_every_n_steps > base.log_every_n_steps
    assert node.storage.budget_bytes < 20e9, "the working folder of a Kaggle notebook"
    assert node.network is False
    assert base.threads == 1 < node.threads <= 4 - node.loader.num_workers
    with_two = of("t4x2")
    assert with_two.devices == 2 and with_two.min_capability == 7.5
    assert with_two.wall == node.wall and with_two.locked == node.locked


def test_p7_p29_p30_ci_fast_is_small_and_keeps_nothing():
    node = of("ci_fast")
    assert node.max_epochs == 1 and node.enable_checkpointing is False and node.accelerator == "cpu"
    assert all(0 < getattr(node, f"limit_{stage}_batches") <= 8 for stage in ("train", "val", "test"))
    assert node.wall.budget_s <= 20 * 60 and "wall.budget" in node.locked


def test_p8_p34_p35_p36_multi_gpu_takes_every_gpu():
    node = of("multi_gpu")
    assert node.devices == "auto" and node.accelerator == "gpu" and node.precision == "auto"
    assert node.strategy["_target_"] == DDP and node.strategy["find_unused_parameters"] is False
    assert of("multi_gpu", "trainer.devices=4").devices == 4
    strategy = trainer_arguments(node)["strategy"]
    assert strategy._timeout.total_seconds() == 1800


def test_p9_p39_p40_ddp_is_explicit():
    node = of("ddp")
    assert (node.devices, node.num_nodes, node.sync_batchnorm) == (2, 1, True)
    assert group("trainer", "ddp").devices is None and group("trainer", "ddp").num_nodes is None


@pytest.mark.parametrize("name, capability", [("a100", 8.0), ("h100", 9.0)])
def test_p56_data_centre_profiles(name, capability):
    node = of(name)
    assert node.precision == "bf16-mixed" and node.matmul_precision == "high" and node.min_capability == capability
    assert node.env["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "1" and "NCCL_DEBUG" in node.env
    assert "NCCL_ASYNC_ERROR_HANDLING" not in node.env, "the old spelling is deprecated"
    assert of(name, "+trainer.env.NCCL_SOCKET_IFNAME=eth0").env["NCCL_SOCKET_IFNAME"] == "eth0"


def test_p57_ablation_validates_often_and_keeps_every_snapshot():
    node, base = of("ablation"), of("defaults")
    assert isinstance(node.val_check_interval, int) and node.check_val_every_n_epoch is None
    assert node.checkpoint.save_top_k == -1 and node.checkpoint.every_s < base.checkpoint.every_s


def test_p58_eval_only_cannot_train(workspace):
    node = of("eval_only")
    assert node.max_epochs == 0 and node.enable_checkpointing is False
    result = invoke("train", "trainer=eval_only")
    assert result.exit_code == 2 and "spectramind evaluate RUN trainer=eval_only" in result.stderr
    assert not list(workspace.glob("logs/*/config.yaml")), "nothing was started"


# -- branches and scores -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ablation_words(short_root):
    return [f"data.root={short_root}", "data.batch_size=2", "data.workers=1", "trainer.max_epochs=4",
            "trainer.val_check_interval=2"]


@pytest.fixture
def trunk(ablation_words, here, _kept):
    """A run of the ablation profile, with a snapshot of each validation."""
    if "trunk" not in _kept:
        _kept["trunk"] = train("ablation", ablation_words, resume="never")
    return _kept["trunk"]


def snapshots(run):
    return sorted((run.dir / "checkpoints").glob("epoch*.ckpt"))


def test_p57_a_snapshot_of_every_validation(trunk):
    lines = map(json.loads, (trunk.dir / "events.jsonl").read_text().splitlines())
    validations = [line for line in lines if line["event"] == "validation"]
    assert len(snapshots(trunk)) == len(validations) >= 3


def test_p57_a_branch_without_changes_ends_where_its_trunk_ended(trunk, ablation_words):
    branch = train("ablation", ablation_words, fork=snapshots(trunk)[0])
    assert branch.id != trunk.id and branch.record["parent"] == trunk.id
    assert branch.record["snapshot"] == snapshots(trunk)[0].name
    assert branch.record["weights"]["final"] == trunk.record["weights"]["final"]


def test_p21_p57_a_branch_is_repeated_from_its_snapshot(trunk, ablation_words):
    """So is its repetition, whose parent is not the trunk; without the snapshot nothing is trained and the reason is told."""
    branch = train("ablation", [*ablation_words, "run_id=repeated-branch"], fork=snapshots(trunk)[0])
    again = replay(replay(branch.id).again)
    assert (again.verdict.word, again.difference) == ("exact", None)
    assert 0 < again.steps < replay(trunk.id).steps
    path, before = snapshots(trunk)[0], set(trunk.dir.parent.iterdir())
    hidden = path.rename(path.with_suffix(".hidden"))
    try:
        for tolerance in ("none", "stat"):
            with pytest.raises(ReplayMismatch, match=f"the snapshot {path.name} of {trunk.id}, where it began, is gone"):
                replay(branch.id, tolerance=tolerance)
        path.write_bytes(snapshots(trunk)[1].read_bytes())  # as `last.ckpt` is another when its run has gone on
        with pytest.raises(ReplayMismatch, match=f"the snapshot {path.name} of {trunk.id}, where it began, has become another"):
            replay(branch.id)
        with pytest.raises(ConfigError, match=f"repeated-branch did not begin at {path.name} of run {trunk.id}"):
            train("ablation", [*ablation_words, "run_id=repeated-branch"], fork=path, resume=branch.id)
    finally:
        hidden.rename(path)
    assert set(trunk.dir.parent.iterdir()) == before


def test_p57_a_branch_follows_its_own_overrides(trunk, ablation_words, monkeypatch):
    rates = []
    step = OptimizerFromConfig.on_train_start

    def noted(self, trainer, pl_module):
        rates.append(trainer.optimizers[0].param_groups[0]["lr"])  # as restored from the snapshot
        step(self, trainer, pl_module)
        rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    monkeypatch.setattr(OptimizerFromConfig, "on_train_start", noted)
    branch = train("ablation", [*ablation_words, "model.optimizer.lr=0.002"], fork=snapshots(trunk)[0])
    assert rates == [0.003, 0.002]
    assert branch.record["weights"]["final"] != trunk.record["weights"]["final"]
    assert Run.open(trunk.id).record["outcome"] == "finished", "the trunk is as it was"


def test_p57_a_branch_follows_its_own_rate_down_the_schedule_and_so_it_does_where_it_is_resumed(tmp_path):
    """The restored schedule went on from the trunk's rate after one epoch, and a resumed branch had that of its first epoch again."""

    class Scheduled(Tiny):
        def __init__(self, rate, epochs):
            super().__init__()
            self.rate, self.epochs, self.seen = rate, epochs, []

        def on_train_batch_start(self, batch, batch_idx):
            if self.global_step == 10:  # within the first epoch of the branch
                self.trainer.save_checkpoint(tmp_path / "cut.ckpt")
            self.seen.append(self.optimizers().param_groups[0]["lr"])

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=self.rate)
            return [optimizer], [WarmCosine(optimizer, self.epochs)]

    trunk, branch, resumed = Scheduled(0.003, 3), Scheduled(0.1, 6), Scheduled(0.1, 6)
    fit(trunk, [], max_epochs=3).save_checkpoint(tmp_path / "trunk.ckpt")
    fit(branch, [OptimizerFromConfig()], max_epochs=6, ckpt_path=tmp_path / "trunk.ckpt")
    fit(resumed, [], max_epochs=6, ckpt_path=tmp_path / "cut.ckpt")
    assert branch.seen[::3] == [0.1 * 0.5 * (1 + math.cos(math.pi * epoch / 6)) for epoch in (3, 4, 5)]
    assert resumed.seen == branch.seen[1:]
    assert Attempt(tmp_path, 2, tmp_path / "trunk.ckpt").branches_off is False, "it has an optimizer of its own to restore"
    assert Attempt(tmp_path / "branch", 2, tmp_path / "trunk.ckpt").branches_off


@pytest.mark.parametrize("stopped_in", ["fit_model", "validate_model"])  # before it has a checkpoint of its own, and after
def test_p57_a_branch_that_was_stopped_goes_on_as_that_branch(trunk, ablation_words, monkeypatch, stopped_in):
    from spectramind_nb.runs import execution

    words = [*ablation_words, "trainer.checkpoint.every=0s", f"run_id=cut-in-{stopped_in}"]
    with monkeypatch.context() as patch:
        patch.setattr(execution, stopped_in, lambda *rest: (_ for _ in ()).throw(TerminatedRun("SIGTERM received")))
        with pytest.raises(TerminatedRun):
            train("ablation", words, fork=snapshots(trunk)[0])
    with pytest.raises(ConfigError, match="already is a run"):
        train("ablation", words)  # the same words without a fork are another run,
    with pytest.raises(ConfigError, match="already is a run"):
        train("ablation", words, fork=snapshots(trunk)[1])  # and so is a branch off another snapshot
    with pytest.raises(ConfigError, match=f"{words[-1].removeprefix('run_id=')} did not begin at .* of run {trunk.id}"):
        train("ablation", words, fork=snapshots(trunk)[1], resume=words[-1].removeprefix("run_id="))
    branch = train("ablation", words, fork=snapshots(trunk)[0])
    assert branch.record["attempt"] == 2 and branch.record["snapshot"] == snapshots(trunk)[0].name
    assert branch.record["weights"]["final"] == trunk.record["weights"]["final"]


def test_p57_a_branch_that_would_train_nothing_is_refused(trunk, ablation_words):
    with pytest.raises(ConfigError, match="Set trainer.max_epochs above 4"):
        train("ablation", ablation_words, fork=trunk)
    longer = train("ablation", [*ablation_words, "trainer.max_epochs=5"], fork=trunk.id)
    assert longer.record["parent"] == trunk.id and longer.history["epoch"].max() == 4


def test_p57_a_branch_by_steps_that_would_train_nothing_is_refused(trunk, ablation_words):
    steps = int(trunk.history["step"].max()) + 1
    by_steps = [*ablation_words[:3], "trainer.max_epochs=null", f"trainer.max_steps={steps}"]
    with pytest.raises(ConfigError, match=f"this snapshot has seen {steps} steps and the branch ends after {steps}"):
        train("ablation", by_steps, fork=trunk)


def test_a_run_that_only_its_wall_ends_is_not_ended_by_lightning():
    """Lightning takes no number of epochs for a thousand."""
    assert trainer_arguments(of("defaults", "trainer.max_epochs=null", "trainer.wall.budget=1h"))["max_epochs"] == -1


def test_patience_is_as_configured_now_and_a_branch_has_all_of_it(words, here):
    """Of a score that is to be small, the first is the best: training stops as soon as it may."""
    few = [*words[:3], "trainer.max_epochs=6", "trainer.early_stop.enabled=true", "trainer.early_stop.mode=min", "run_id=stops-early",
           "trainer.checkpoint.every=0s"]
    first = train(overrides=[*few, "trainer.early_stop.patience=1"], resume="never")
    stopped = int(first.history["epoch"].max()) + 1
    assert first.outcome == "finished" and stopped < 4
    branch = train(overrides=[*few[:-2], "trainer.early_stop.patience=1", "run_id=branch-of-it"], fork=first)
    assert branch.record["outcome"] == "finished" and branch.history["epoch"].max() >= stopped, "it inherited a patience that was used up"
    patient = train(overrides=[*few, "trainer.early_stop.patience=9"], resume=first)
    assert patient.history["epoch"].max() + 1 == 6, "it kept the patience of its first attempt"


def test_early_stopping_waits_for_the_first_validation(words, here):
    """max_steps may end a run before it: that was an error of Lightning's, and exit code 1."""
    few = [*words[:3], "trainer.max_steps=1", "trainer.early_stop.enabled=true"]
    assert train(overrides=few, resume="never").outcome == "finished"


def test_a_moved_run_knows_which_checkpoint_is_its_best(tmp_path):
    """Lightning forgets it in another folder, and a worse one replaced it."""

    def kept(folder, epochs, **more):
        best = ModelCheckpoint(tmp_path / folder, "best", monitor="val/score", mode="max")
        trainer = fit(Tiny(), [best, RestoredHere()], max_epochs=epochs, enable_checkpointing=True, **more)
        trainer.save_checkpoint(tmp_path / folder / "last.ckpt")
        return best

    before = kept("there", 2)
    (tmp_path / "there").rename(tmp_path / "moved")
    after = kept("moved", 2, ckpt_path=tmp_path / "moved" / "last.ckpt")
    assert after.best_model_score == before.best_model_score
    assert list(after.best_k_models) == [after.best_model_path] == [after.kth_best_model_path] == [str(tmp_path / "moved" / "best.ckpt")]


def test_training_on_without_checkpoints_is_not_undone_by_an_earlier_best_one(words, here):
    first = train(overrides=[*words, "trainer.checkpoint.every=0s", "run_id=then-without"], resume="never")
    best = first.record["weights"]["best"]
    without = ["trainer.enable_checkpointing=false", "trainer.max_epochs=4", "run_id=then-without"]
    again = train(overrides=[*words[:3], *without], resume=first)
    assert again.record["weights"]["best"] == again.record["weights"]["final"] != best


def test_p57_members_of_an_ensemble_are_never_judged_by_planets_that_they_know(words, here):
    few = [*words[:3], "model=ensemble", "trainer.max_epochs=1", "data.validation_fraction=0.34"]
    trunk = train(overrides=[*few, "model.folds=2", "run_id=members"], resume="never")
    more = [*few[:-2], "trainer.max_epochs=2"]
    with pytest.raises(ConfigError, match="had model.folds=2, its branch is to have 3"):
        train(overrides=[*more, "model.folds=3", "data.validation_fraction=0.34"], fork=trunk)
    with pytest.raises(ConfigError, match="deals them to its members anew"):
        train(overrides=[*more, "model.folds=2", "data.validation_fraction=0.2"], fork=trunk)


def test_p57_branching_off_nothing_is_a_sentence(here, whole_run):
    with pytest.raises(DataMissingError, match="there is no run 'no-such-run'"):
        train("ablation", fork="no-such-run")
    hollow = here / "elsewhere"
    hollow.mkdir()
    (hollow / "audit.json").write_text("{}")
    with pytest.raises(DataMissingError, match="kept no checkpoint"):
        train("ablation", fork=hollow)


def test_p58_a_checkpoint_is_scored_without_training(whole_run, here, monkeypatch):
    import pytorch_lightning as pl

    monkeypatch.setattr(pl.Trainer, "fit", lambda *_, **__: pytest.fail("eval_only trained"))
    before = {path: path.stat().st_mtime_ns for path in whole_run.dir.rglob("*")}
    found = evaluate(whole_run.dir / "checkpoints" / "best.ckpt", ["trainer=eval_only"])
    assert found == pytest.approx({name: whole_run.metrics[name] for name in found})
    assert {path: path.stat().st_mtime_ns for path in whole_run.dir.rglob("*")} == before
    records = sorted((here / "logs" / "invocations").glob("*-evaluate-*/audit.json"))
    assert json.loads(records[-1].read_text())["metrics"] == found


def test_p58_a_submission_is_scored_with_labels_alone(whole_run, short_root, here, tmp_path):
    from spectramind_nb.apps.scoring import score

    table = whole_run.predict(split="train")
    made = submission.write(tmp_path / "train.csv", table["planet_id"], *(
        table[list(columns)].to_numpy() for columns in (submission.DEPTH_COLUMNS, submission.SIGMA_COLUMNS)))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "train.csv").write_bytes((short_root / "train.csv").read_bytes())
    found = evaluate(made, ["trainer=eval_only", f"data.root={tmp_path / 'labels'}"])
    assert found["val/score"] == pytest.approx(score(made, short_root / "train.csv")["score"], abs=1e-12)
    packed = submission.write(tmp_path / "train.csv.gz", table["planet_id"], *(
        table[list(columns)].to_numpy() for columns in (submission.DEPTH_COLUMNS, submission.SIGMA_COLUMNS)))
    assert evaluate(packed, ["trainer=eval_only", f"data.root={tmp_path / 'labels'}"]) == found
    with pytest.raises(SchemaError, match="has no label"):
        evaluate(whole_run.dir / "submission.csv", ["trainer=eval_only", f"data.root={tmp_path / 'labels'}"])


# -- profiles of one's own -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_p2_p55_a_profile_from_elsewhere(tmp_path, scheme):
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "mine.yaml").write_text(
        "# Mine.\ndefaults: [kaggle_safe, _self_]\ndoc: Nights on our own cluster, small and safe.\nmax_epochs: 3\n")
    words = [f"hydra.searchpath=[{scheme}{tmp_path}]", "trainer=mine"]
    config = compose(overrides=words)
    assert config.trainer.max_epochs == 3 and config.launch.choices["trainer"] == "mine"
    assert list(config.launch.overrides) == words
    with pytest.raises(ConfigError, match="mine locks it at 9h"):
        compose(overrides=[*words, "trainer.wall.budget=12h"])
    with pytest.raises(ConfigError, match="Did you mean 'mine'"):
        compose(overrides=[words[0], "trainer=mime"])
    assert origin(config.launch)["state"] == "own"


def test_p55_new_profiles_pass_their_check_and_are_documented(workspace):
    result = invoke("profiles", "new", "night", "--from", "kaggle_safe", "--doc", "Nights: on our own cluster.")
    assert result.exit_code == 0, result.output
    path = workspace / "configs" / "trainer" / "night.yaml"
    assert str(path) in result.stdout and f"'hydra.searchpath=[file://{workspace / 'configs'}]' trainer=night" in result.stdout
    assert "| `night` | `kaggle_safe` | Nights: on our own cluster. |" in path.with_name("README.md").read_text()
    for name in ("night", path):
        assert invoke("profiles", "check", name).exit_code == 0
    words = shlex.split(result.stdout.split("spectramind train ")[1].split("\n")[0])
    shown = invoke("train", "--cfg", *words)
    assert shown.exit_code == 0 and OmegaConf.create(shown.stdout).trainer.doc == "Nights: on our own cluster."
    invoke("profiles", "new", "later")
    assert path.with_name("README.md").read_text().count("|---|---|---|") == 1


def test_p55_a_profile_may_lie_in_any_folder(workspace):
    """What is printed can be pasted into a shell, whatever is in the folder's name."""
    result = invoke("profiles", "new", "night", "--dir", workspace / "günther's=mine, own")
    use, check = (shlex.split(line.split(":", 1)[1]) for line in result.stdout.splitlines()[1:])
    assert invoke(*check[1:]).exit_code == 0
    shown = invoke("train", "--cfg", *use[2:])
    assert shown.exit_code == 0 and "The profile night" in OmegaConf.create(shown.stdout).trainer.doc


@pytest.mark.parametrize("words, said", [
    (["ci_fast"], "already is a profile"), (["Bad-Name"], "no name for a profile"),
    (["mine", "--from", "ci_fats"], "Did you mean 'ci_fast'"), (["mine", "--doc", "Too short."], "20 to 119 letters"),
    (["mine", "--doc", "Nights on our cluster.\nAnd days."], "in one line"),
])
def test_p55_new_refuses(workspace, words, said):
    result = invoke("profiles", "new", *words)
    assert result.exit_code == 2 and said in result.stderr and not list(workspace.iterdir())


@pytest.mark.parametrize("text, broken", [
    ("defaults: [defaults, _self_]\nmax_epochs: 3\n", "says what it is for"),
    ("defaults: [defaults, _self_]\ndoc: Everything at once, and a learning rate.\nlr: 0.1\n", "holds orchestration only"),
    ("doc: Standing on nothing at all, it seems.\nmax_epochs: 3\n", "stands on another profile"),
    ("defaults: [defaults, _self_]\ndoc: Half precision without any clipping.\nprecision: 16-mixed\ngradient_clip_val: null\n",
     "composes into a valid run"),
    ("defaults: [nobody, _self_]\ndoc: Standing on a profile that is not there.\n", "composes into a valid run"),
    ("doc: [unclosed\n", "is YAML"),
])
def test_p55_check_finds_what_is_wrong(tmp_path, text, broken):
    path = tmp_path / "trainer" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(text)
    result = invoke("profiles", "check", path)
    assert result.exit_code == 2 and broken in result.stderr and f"X   {broken}: " in result.stdout


def test_p55_list_show_diff():
    assert all(f"{name} " in invoke("profiles", "list").stdout for name in PROMISED)
    assert OmegaConf.create(invoke("profiles", "show", "h100").stdout).min_capability == 9.0
    lines = invoke("profiles", "diff", "defaults", "ci_fast").stdout.splitlines()
    assert len(lines) == len(differences(group("trainer", "defaults"), group("trainer", "ci_fast")))
    assert any(line.split() == ["max_epochs", "40", "->", "1"] for line in lines)
    assert invoke("profiles", "diff", "defaults", "default").stdout == ""


# -- is it what was released? --------------------------------------------------------------------------------------


def installed(monkeypatch, tmp_path, text):
    """A wheel that lists the digest of `text` for ci_fast.yaml."""
    digest = urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()
    path = config_dir() / "trainer" / "ci_fast.yaml"
    entry = SimpleNamespace(name="ci_fast.yaml", hash=SimpleNamespace(value=digest), locate=lambda: path)
    monkeypatch.setattr(room.metadata, "files", lambda name: [entry])


def test_p4_an_edited_profile_is_told_and_recorded(monkeypatch, tmp_path, capsys):
    shipped = (config_dir() / "trainer" / "ci_fast.yaml").read_bytes()
    installed(monkeypatch, tmp_path, shipped)
    released = origin(compose("ci_fast").launch)
    assert released == {"name": "ci_fast", "sha256": hashlib.sha256(shipped).hexdigest(), "state": "released"}
    installed(monkeypatch, tmp_path, shipped + b"# edited\n")
    assert origin(compose("ci_fast").launch)["state"] == "modified"
    assert _profile_notes({"name": "ci_fast", "state": "modified", "unlocked": []}) == [
        "the installed profile ci_fast is not as it was released"]


def test_p4_p28_the_record_says_which_profile_and_which_locks(words, here, capsys):
    run = train("ci_fast", [*words[:3], "trainer.wall.budget=30m", "trainer.unlock=true"], resume="never")
    profile = run.record["profile"]
    assert profile["name"] == "ci_fast" and len(profile["sha256"]) == 64 and profile["unlocked"] == ["wall.budget"]
    assert "the locks of ci_fast are open for trainer.wall.budget" in capsys.readouterr().err


def test_p38_the_record_says_how_many_planets_make_one_step(words, here):
    run = train("ci_fast", [*words[:3], "trainer.accumulate_grad_batches=3"], resume="never")
    assert run.record["effective_batch_size"] == 2 * 3


def test_find_accepts_names_and_files(tmp_path):
    assert find("h100").path == config_dir() / "trainer" / "h100.yaml"
    with pytest.raises(ConfigError, match="no such profile file"):
        find(tmp_path / "trainer" / "none.yaml")
    (tmp_path / "x.yaml").write_text("doc: x")
    with pytest.raises(ConfigError, match="folder named trainer"):
        find(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match="not a name|no name"):
        new("1st", folder=tmp_path)


@pytest.mark.parametrize("content, broken, said", [
    (b"defaults:\ndoc: x", "stands on another profile", "it needs a first line"),
    (b"defaults: 3\ndoc: x", "stands on another profile", "it needs a first line"),
    (b"defaults: [defaults, _self_]\non: 3", "holds orchestration only", "True does not belong here"),
    (b"defaults: [defaults, _self_]\n1: 3", "holds orchestration only", "1 does not belong here"),
    (b"defaults: [defaults, _self_]\n~: 3", "composes into a valid run", "does not compose"),
    (b"defaults: [mine, _self_]", "composes into a valid run", "does not compose"),
    (b"doc: caf\xe9", "is YAML", "unacceptable character"), (b"[1, 2]", "is a group of keys", "it is a list"),
])
def test_whatever_a_profile_s_file_holds_a_clause_says_it(tmp_path, content, broken, said):
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "mine.yaml").write_bytes(content)
    faults = {clause.name: clause.fault for clause in check(tmp_path / "trainer" / "mine.yaml")}
    assert said in faults[broken]


@pytest.mark.parametrize("name", ["foo/bar", "../trainer/ci_fast", "../trainer/mine"])
def test_a_path_is_no_name_of_a_profile(workspace, name):
    (workspace / "configs" / "trainer").mkdir(parents=True)
    (workspace / "configs" / "trainer" / "mine.yaml").write_text("defaults: [defaults, _self_]")
    assert find("mine").path == workspace / "configs" / "trainer" / "mine.yaml"
    with pytest.raises(ConfigError, match="no trainer profile"):
        find(name)


def test_a_profiler_leaves_what_it_found_in_the_folder_of_the_run(words, here):
    run = train(overrides=[*words[:3], "trainer.max_epochs=1", "trainer.profiler=simple"], resume="never")
    assert "run_training_batch" in (run.dir / "fit-profile.txt").read_text()


def test_what_lightning_refuses_is_a_sentence(words, here, monkeypatch):
    def refused(session, *rest):
        raise MisconfigurationException("`this` does not go with `that`.\nDetails")

    monkeypatch.setattr(training_loop, "_fit", refused)
    with pytest.raises(ConfigError, match="Lightning refuses these settings: `this` does not go with `that`"):
        train(overrides=words, resume="never")
