"""The ensemble: what members say together, and that none of them learns of the planets it left out."""

import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from spectramind_nb.core.configuration import compose, pretraining_config
from spectramind_nb.core.errors import ConfigError, SchemaError
from spectramind_nb.core.instantiate import build
from spectramind_nb.learning.datamodule import VisitDataModule
from spectramind_nb.learning.encoder import EncoderModel
from spectramind_nb.learning.ensemble import Ensemble, mixture
from spectramind_nb.learning.metrics import CHANNELS, WeightedGaussianNLL, ariel_score, calibration_factors
from spectramind_nb.learning.planetmodel import PlanetModel
from spectramind_nb.learning.planetset import FEATURES, PlanetSet
from spectramind_nb.learning.posterior import PosteriorModel
from spectramind_nb.runs.planets import bins_of
from spectramind_nb.runs.training import train

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = {"components": 2, "smooth": 4, "amplitude_nodes": 3, "outlier_scales": [60.0]}


def population(planets: int, seed: int) -> PlanetSet:
    """Two smooth shapes sized by one feature, white noise, identifiers in no order and without a pattern."""
    g = torch.Generator().manual_seed(seed)
    normal = lambda *size: torch.randn(*size, generator=g, dtype=torch.float64)  # noqa: E731
    features = normal(planets, len(FEATURES))
    x = torch.linspace(0, math.pi, CHANNELS - 1, dtype=torch.float64)
    shape = normal(planets, 2) @ torch.stack([torch.cos(x), torch.cos(3 * x)]) * 150e-6 * (0.5 * features[:, 4:5]).exp()
    truth = 0.008 * (0.3 * normal(planets, 1)).exp() + torch.cat([shape[:, :1], shape], 1)
    own, patterns = torch.full_like(truth, 100e-6**2), truth.new_zeros(planets, 0, CHANNELS)
    curves = 1e-3 * normal(planets, 3, 5, 8).float().abs()
    ids = torch.randperm(10**6, generator=g)[:planets] * 5  # all in one fold, were it their remainder
    return PlanetSet(ids, truth + 100e-6 * normal(planets, CHANNELS), own, patterns, features, truth, curves=curves)


def made(planets: PlanetSet, folds: int = 3, seeds: int = 1, member=None) -> Ensemble:
    torch.manual_seed(0)
    ensemble = Ensemble(member or PosteriorModel(**TINY), folds=folds, seeds=seeds)
    ensemble.prepare(planets)
    return ensemble


def trained(planets: PlanetSet, epochs: int = 2, ckpt_path=None, callbacks=(), batch_size: int = 4, **how) -> Ensemble:
    ensemble = made(planets, **how)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, gradient_clip_val=0.01, logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, enable_checkpointing=bool(callbacks), callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(ensemble, datamodule=VisitDataModule(planets, planets[:4], None, batch_size, 0), ckpt_path=ckpt_path, weights_only=True)
    ensemble.reported = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return ensemble.eval()


def with_other_labels(planets: PlanetSet, rows: torch.Tensor) -> PlanetSet:
    return PlanetSet(**{**planets.tensors(), "target": planets.target + 1e-3 * rows[:, None]})


@torch.no_grad()
def answer(model, planets, *more):
    return model(planets.tensors(), *more)


def same(left, right) -> bool:
    return all(torch.equal(value, right.state_dict()[name]) for name, value in left.state_dict().items())


@pytest.fixture(scope="module")
def planets():
    return population(13, 1)  # batches of 4 leave one of a single planet


@pytest.fixture(scope="module")
def ensemble(planets):
    return trained(planets)


# -- the answer ------------------------------------------------------------------------------------------------------


def test_what_they_say_together_has_the_moments_of_the_mixture():
    mu, sigma = torch.tensor([[0.0, 1.0], [4.0, 1.0]]).double(), torch.tensor([[1.0, 2.0], [3.0, 2.0]]).double()
    draws = torch.cat([mu[k] + sigma[k] * torch.randn(200_000, 2, generator=torch.Generator().manual_seed(k)) for k in (0, 1)])
    for found, expected in zip(mixture(mu[:, None], sigma[:, None]), (draws.mean(0), draws.std(0))):
        torch.testing.assert_close(found[0], expected, rtol=0.01, atol=0.01)
    torch.testing.assert_close(mixture(mu, sigma)[1], ((sigma**2 + mu**2).mean(0) - mu.mean(0) ** 2).sqrt())


def test_what_channels_share_has_the_moments_of_the_mixture(ensemble, planets):
    unseen = population(6, 5).tensors()
    with torch.no_grad():
        shared, (mu, sigma) = ensemble.shared_errors(unseen), ensemble(unseen)
        each = [(member.shared_errors(unseen), member(unseen)[0] - mu) for member in ensemble.members]
    together = sum(part @ part.mT + off[:, :, None] * off[:, None] for part, off in each) / len(each)
    factor = ensemble.calibration[torch.arange(CHANNELS).clamp(max=1)]
    assert torch.allclose(shared @ shared.mT, factor[:, None] * together * factor, rtol=1e-9, atol=1e-16)
    assert (shared.square().sum(2) < sigma.square()).all()


def test_unseen_planets_are_answered_by_all_and_training_planets_by_those_who_left_them_out(ensemble, planets):
    ensemble.calibration.copy_(torch.tensor([0.5, 2.0]))
    mu, sigma = answer(ensemble, planets)
    each = [answer(member, planets) for member in ensemble.members]
    together = mixture(*map(torch.stack, zip(*each)))
    assert torch.equal(mu, together[0])
    torch.testing.assert_close(sigma / together[1], torch.tensor([0.5] + [2.0] * 282).double().expand_as(sigma))
    fold = ensemble.fold(planets.planet_id)
    mu, sigma = answer(ensemble, planets, fold)  # as stated: this is what calibration is found from
    for row, k in enumerate(fold.tolist()):
        torch.testing.assert_close(mu[row], each[k][0][row], rtol=1e-12, atol=0)
        torch.testing.assert_close(sigma[row], each[k][1][row], rtol=1e-12, atol=0)
    two = made(planets, folds=2, seeds=2)
    assert len(two.members) == 4
    fold = two.fold(planets.planet_id)
    for k in (0, 1):
        seen = [set(planets.planet_id[fold != k].tolist())] * 2
        assert [two.members[n].planets for n in (k, k + 2)] == [len(seen[0])] * 2


def test_folds_are_equal_and_do_not_depend_on_the_order(planets):
    ensemble, backwards = made(planets), made(planets[torch.arange(12, -1, -1)])
    fold = ensemble.fold(planets.planet_id)
    assert sorted(fold.bincount().tolist()) == [4, 4, 5] and torch.equal(fold, backwards.fold(planets.planet_id))
    again = PlanetSet(**{name: torch.cat([v, v]) for name, v in planets.tensors().items()}).planet_id  # a planet met twice
    assert torch.equal(ensemble.fold(again), fold.repeat(2))


# -- no leak, same bits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [4, 1])
def test_a_member_does_not_change_with_the_labels_of_the_planets_that_it_left_out(planets, batch_size):
    fold = made(planets).fold(planets.planet_id)
    one, other = (trained(part, batch_size=batch_size) for part in (planets, with_other_labels(planets, fold == 1)))
    assert same(one.members[1], other.members[1])
    assert not same(one.members[0], other.members[0]) and not same(one.members[2], other.members[2])


def test_it_is_as_if_every_member_had_been_trained_alone(planets):
    """Also the clipping of gradients, which is hard here and would couple the members."""
    together = trained(planets, epochs=1, batch_size=13)
    fold = together.fold(planets.planet_id)
    alone = PosteriorModel(**TINY)
    alone.prepare(planets[fold != 2])
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, gradient_clip_val=0.01, logger=False, enable_progress_bar=False,
                         enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0)
    trainer.fit(alone, datamodule=VisitDataModule(planets[fold != 2], planets[:4], None, 13, 0))
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(parameter, dict(together.members[2].named_parameters())[name], rtol=1e-6, atol=1e-9)


def test_twice_is_the_same_and_so_is_going_on_after_a_stop(planets, ensemble, tmp_path):
    kept = ModelCheckpoint(tmp_path, "{epoch}", every_n_epochs=1, save_top_k=-1)
    once = trained(planets, callbacks=[kept])
    resumed = trained(planets, ckpt_path=tmp_path / "epoch=0.ckpt")
    ensemble = trained(planets)
    assert same(once, ensemble) and same(resumed, ensemble) and resumed.reported == ensemble.reported


def test_members_begin_differently_and_the_global_stream_does_not_notice(planets):
    member = EncoderModel(width=8, layers=1, heads=1, time_bins=8, wavelength_bins=4, components=1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ensemble = Ensemble(member, folds=2)
    assert torch.equal(torch.rand(3), expected) and torch.initial_seed() == 5
    first, second = (member.networks[0].position for member in ensemble.members)
    assert not torch.equal(first, second) and ensemble.needs == ("curves",)


# -- the cross-validated score ---------------------------------------------------------------------------------------


def test_the_cross_validated_score_is_that_of_the_left_out_answers(planets):
    """In one batch all answers are of the same moment: just before the first step."""
    start = made(planets)
    mu, sigma = answer(start, planets, start.fold(planets.planet_id))
    ensemble = trained(planets, epochs=1, batch_size=13)
    expected = ariel_score(mu, sigma, planets.target, start.naive_mean, start.naive_sigma)
    assert math.isclose(ensemble.reported["cv/score"], expected, rel_tol=1e-6) and expected > 0.3
    z = (planets.target - mu) / sigma
    seen = torch.stack([torch.stack([part[:, :1].sum(), part[:, 1:].mean(1).sum()])
                        for part in (torch.ones_like(z), z**2, (z.abs() < 1).double())])
    torch.testing.assert_close(ensemble.calibration, calibration_factors(seen))
    assert all((member.calibration == 1).all() for member in ensemble.members)  # not calibrated twice


def test_of_seeds_alone_there_is_no_such_score_and_members_calibrate_themselves(planets):
    ensemble = trained(planets, folds=1, seeds=2)
    assert "cv/score" not in ensemble.reported and "val/score" in ensemble.reported and (ensemble.calibration == 1).all()
    assert all((member.calibration != 1).all() and member.planets == 13 for member in ensemble.members)


def test_what_is_to_be_predicted_is_shown_to_every_member(planets):
    class Curious(PosteriorModel):
        def adapt_to(self, planets):
            self.met = len(planets)

    ensemble = made(planets, member=Curious(**TINY))
    ensemble.adapt_to(planets[:5])
    assert [member.met for member in ensemble.members] == [5, 5, 5]


def test_errors_have_their_class(planets):
    with pytest.raises(ConfigError, match="has no members"):
        Ensemble(PosteriorModel(**TINY), seeds=0)
    with pytest.raises(ConfigError, match="prepare"):
        answer(Ensemble(PosteriorModel(**TINY)), planets)
    with pytest.raises(SchemaError, match="two training planets"):
        made(planets[:2])


# -- on the command line ---------------------------------------------------------------------------------------------


def test_the_configuration_chooses_and_builds_members():
    config = compose(overrides=["model=ensemble", "data.edition='2024'", "model.folds=2"])
    model = build(config.model, loss=WeightedGaussianNLL("2024"))
    assert [type(member) for member in model.members] == [PosteriorModel] * 2 and bins_of(config.model) is None
    assert all(member.loss.edition_name == "2024" for member in model.members)
    words = ["model=ensemble", "model@model.member=encoder", "pretrain=simulated", "pretrain.lr=0.001"]
    config = compose(overrides=[*words, "model.member.time_bins=32"])
    assert bins_of(config.model).time == 32 and pretraining_config(config).model["member"]["optimizer"]["lr"] == 0.001
    with pytest.raises(ConfigError, match=r"Did you mean 'width'"):
        compose(overrides=[*words, "model.member.widht=8"])


def test_members_that_know_sigmas_alone_say_so():
    class SigmasAlone(PosteriorModel):
        shared_errors = PlanetModel.shared_errors

    assert Ensemble(SigmasAlone(), folds=2).shared_errors({"depth": torch.zeros(1, CHANNELS)}) is None


def test_it_trains_predicts_and_evaluates_like_any_model(words, tmp_path):
    small = ["model=ensemble", "model.folds=2", *(f"model.member.{name}={value}" for name, value in TINY.items())]
    run = train(overrides=[*words, *small], resume="never")
    assert run.outcome == "finished" and 0 <= run.metrics["cv/score"] <= 1 and "cross-validated" in str(run)
    assert run.evaluate().items() <= run.metrics.items()
    run.predict(out=tmp_path / "s.csv")
    again = train(overrides=[*words, *small], resume="never")
    submissions = [path.read_bytes() for path in (tmp_path / "s.csv", run.dir / "submission.csv", again.dir / "submission.csv")]
    assert submissions == submissions[:1] * 3 and again.record["weights"] == run.record["weights"]


def test_encoders_can_be_members_and_follow_their_own_schedule(words):
    sizes = {"width": 16, "layers": 1, "heads": 2, "time_bins": 20, "wavelength_bins": 12}
    small = ["model=ensemble", "model@model.member=encoder", "model.folds=2", *(f"model.member.{k}={v}" for k, v in sizes.items())]
    run = train(overrides=[*words, *small], resume="never")
    assert run.outcome == "finished" and "cv/score" in run.metrics
    kept = torch.load(run.weights, weights_only=True)
    groups, (schedule,) = kept["optimizer_states"][0]["param_groups"], kept["lr_schedulers"]
    assert [group["initial_lr"] for group in groups] == [0.003, 0.001]
    assert sum(len(group["params"]) for group in groups) == 2 * len(list(EncoderModel(**sizes).parameters()))
    assert schedule["last_epoch"] == kept["epoch"] + 1
    assert run.evaluate(["model.member.dropout=0.0"]).items() <= run.metrics.items()
