"""Which precision a run computes in, and what happens when fp16 is not enough."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from spectramind_nb.apps.report_sections import envelope_table
from spectramind_nb.core.configuration import compose
from spectramind_nb.core.environment import Place
from spectramind_nb.records.journal import events, step_losses
from spectramind_nb.runs import precision
from spectramind_nb.runs.devices import Gpu, resolve_devices
from spectramind_nb.runs.precision import HalfPrecisionOverflow, OverflowMonitor, effective_precision, steadier_precision
from spectramind_nb.runs.training import train

T4, A100 = Gpu("Tesla T4", (7, 5)), Gpu("A100", (8, 0))


@pytest.mark.parametrize("asked, accelerator, native, effective", [
    ("auto", "cuda", True, "bf16-mixed"), ("auto", "cuda", False, "16-mixed"), ("auto", "cpu", False, "32-true"),
    ("16-mixed", "cuda", True, "16-mixed"), ("16-mixed", "cpu", False, "32-true"),
    ("bf16-mixed", "cpu", False, "bf16-mixed"), ("bf16-mixed", "cuda", True, "bf16-mixed"),
    ("32-true", "cuda", True, "32-true"), ("64-true", "cpu", False, "64-true"),
])
def test_p47_p25_precision_that_is_really_used(asked, accelerator, native, effective):
    assert effective_precision(asked, accelerator, native) == effective


def test_p47_emulated_bfloat16_does_not_count():
    """A T4 says that it supports bfloat16, and emulates it; one such GPU among others decides for all."""
    profile = compose("multi_gpu").trainer.plain()
    assert resolve_devices(profile, Place(), [A100, A100], lambda index: None).precision == "bf16-mixed"
    assert resolve_devices(profile, Place(), [A100, T4], lambda index: None).precision == "16-mixed"
    forced = resolve_devices(profile | {"precision": "bf16-mixed"}, Place(), [T4], lambda index: None)
    assert any("emulates it slowly" in note for note in forced.notes)


def test_p25_half_precision_for_a_gpu_is_single_precision_without_one():
    settled = resolve_devices(compose("kaggle_safe").trainer.plain(), Place(), [])
    assert settled.precision == "32-true"
    assert settled.notes == ("precision 16-mixed is 32-true on a processor, which half precision would only slow down",)


def test_p25_the_effective_precision_is_in_the_record_part_by_part(words):
    """A profile's half precision is its GPU's; who asks a processor for bfloat16 gets it."""
    for asked, used, half in (("16-mixed", "32-true", "float32"), ("bf16-mixed", "bf16-mixed", "bfloat16")):
        more = [f"trainer.precision={asked}", "trainer.max_epochs=1", "trainer.loader.num_workers=0"]
        run = train("kaggle_safe", [*words[:-1], *more], resume="never")
        parts = {"likelihood": "float64", "conditioning": "float32", "exemplars": half}
        assert run.record["precision"] == {"trainer": used, **parts} and run.config.trainer.precision == asked
        assert run.record["devices"]["precision"] == run.record["envelope"]["precision"] == used
    assert "precision_note" not in run.record
    assert "precision of the exemplars" in envelope_table(run)


def test_p25_a_run_whose_model_uses_nothing_of_what_the_profile_asks_says_so(words, capsys):
    exact = [f"model.compute.{part}=float64" for part in ("conditioning", "exemplars")]
    more = ["trainer.precision=bf16-mixed", "trainer.max_epochs=1", "trainer.loader.num_workers=0"]
    run = train("kaggle_safe", [*words[:-1], *exact, *more], resume="never")
    assert set(run.record["precision"].values()) == {"bf16-mixed", "float64"}
    said = "the profile's bf16-mixed changes nothing that this model knows of: all of it is float64"
    assert run.record["precision_note"] == said and f"note: {said}" in capsys.readouterr().err


# -- overflows -----------------------------------------------------------------------------------------------------


class Scaler:
    """A GradScaler as PyTorch documents it: halved by a step that overflowed, doubled after many that did not."""

    def __init__(self):
        self.scale = 65536.0

    def get_scale(self):
        return self.scale


class Strategy:
    def broadcast(self, value):
        return value


def played(overflows, after):
    """Play a sequence of steps (True: overflowed); returns the step that ended it, and the events."""
    scaler, told, saved = Scaler(), [], []
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(_should_accumulate=lambda: False))
    trainer = SimpleNamespace(
        precision_plugin=SimpleNamespace(scaler=scaler), fit_loop=loop, strategy=Strategy(), global_step=0, current_epoch=0,
        save_checkpoint=saved.append,
    )
    escalation = OverflowMonitor(after, "state.ckpt", lambda event, **fields: told.append(fields))
    for step, overflowed in enumerate(overflows):
        escalation.on_train_batch_start(trainer, None, None, step)
        scaler.scale *= 0.5 if overflowed else 1.0
        try:
            escalation.on_train_batch_end(trainer, None, None, None, step)
        except HalfPrecisionOverflow as error:
            assert saved == ["state.ckpt"] and error.checkpoint == "state.ckpt" and error.exit_code == 11
            return step, told
        assert not saved
    return None, told


@pytest.mark.parametrize("overflows, after, ended", [
    ([True, True, True], 3, 2), ([True, True, False, True, True], 3, None), ([False, True, True, True], 3, 3), ([False] * 20, 1, None),
    ([True], 1, 0), ([True, False] * 10, 2, None),
])
def test_p47_only_steps_that_overflow_in_a_row_end_fp16(overflows, after, ended):
    step, told = played(overflows, after)
    assert step == ended
    assert len(told) == sum(overflows if ended is None else overflows[: ended + 1])


def test_p47_a_real_scaler_halves_its_scale_when_a_step_overflows():
    """What `OverflowMonitor` reads, from PyTorch's own scaler."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, scaler = torch.optim.SGD([weight], lr=0.1), torch.amp.GradScaler("cpu", init_scale=8.0)
    scales = []
    for factor in (1.0, float("inf")):
        optimizer.zero_grad()
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    assert scales == [8.0, 4.0] and torch.isfinite(weight).all()


def test_p47_where_fp16_escalates_to():
    assert (steadier_precision(True), steadier_precision(False)) == ("bf16-mixed", "32-true")


@pytest.fixture
def overflowing(monkeypatch):
    """From its third step on, every step of a 16-bit run seems to overflow; the processor itself has no scaler."""
    from spectramind_nb.runs import session

    scales = itertools.chain([2.0**16] * 3, (2.0**-k for k in itertools.count()))
    monkeypatch.setattr(precision, "_scale", lambda trainer: next(scales))
    honest = resolve_devices

    def as_on_a_gpu(profile, here, *rest):
        return replace(honest(profile, here, *rest), precision="16-mixed")

    monkeypatch.setattr(session, "resolve_devices", as_on_a_gpu)


WORDS = ["trainer.precision=16-mixed", "trainer.escalate_after=2"]


@pytest.mark.parametrize("checkpoints", ["true", "false"])
def test_p47_p66_a_run_that_overflows_goes_on_in_a_steadier_precision(whole_run, words, overflowing, checkpoints, capsys):
    run = train(overrides=[*words, *WORDS, f"trainer.enable_checkpointing={checkpoints}"], resume="never")
    assert run.outcome == "finished" and run.record["precision"]["trainer"] == "32-true"
    assert run.record["precision"]["exemplars"] == "float32"
    lines = [line for line in events(run.dir / "events.jsonl") if line["event"] == "precision"]
    assert [(line["before"], line["now"]) for line in lines] == [("16-mixed", "32-true")]
    assert [line["reason"] for line in run.record["envelope"]["precision_events"]] == ["2 steps in a row overflowed in fp16"]
    assert "the run goes on in 32-true" in capsys.readouterr().err
    losses = [line for line in events(run.dir / "events.jsonl") if line["event"] == "step"]
    assert step_losses(run.dir / "events.jsonl").keys() == step_losses(whole_run.dir / "events.jsonl").keys()
    assert len(losses) == len(step_losses(run.dir / "events.jsonl")), "no step is done twice"
    assert run.record["weights"]["final"] != whole_run.record["weights"]["final"], "its first steps were in half precision"
    assert not list(run.dir.glob("*.ckpt"))


def test_p47_a_resumed_run_does_not_try_the_old_precision_again(words, overflowing, monkeypatch):
    from spectramind_nb.core.errors import TerminatedRun
    from spectramind_nb.runs import execution

    honest = OverflowMonitor.__init__
    words = [*words, *WORDS, "trainer.checkpoint.every=0s"]
    with monkeypatch.context() as patch:
        patch.setattr(execution, "write_predictions", lambda *rest: (_ for _ in ()).throw(TerminatedRun("SIGTERM received")))
        with pytest.raises(TerminatedRun):
            train(overrides=words, resume="never")
    made = []
    monkeypatch.setattr(OverflowMonitor, "__init__", lambda self, *rest: (made.append(1), honest(self, *rest))[1])
    resumed = train(overrides=words)
    assert (resumed.record["attempt"], resumed.outcome, resumed.record["precision"]["trainer"]) == (2, "finished", "32-true")
    assert not made, "nothing to escalate from"


@pytest.mark.gpu
def test_p46_p47_mixed_precision_on_a_gpu(words):
    if not torch.cuda.is_available():
        pytest.skip("NOT TESTED ON A GPU: there is no CUDA device")
    run = train(overrides=[*words, "trainer.precision=auto", "trainer.accelerator=gpu"], resume="never")
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    assert run.record["precision"]["trainer"] == ("bf16-mixed" if native else "16-mixed") and run.outcome == "finished"
    assert run.record["precision"]["exemplars"] == ("bfloat16" if native else "float16")
