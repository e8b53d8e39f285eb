"""Standard curves, the encoder that reads them, and what it shares with every other model."""

import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from spectramind_nb.core.config_groups import group
from spectramind_nb.core.configuration import compose
from spectramind_nb.core.errors import ConfigError, NonFiniteError, SchemaError
from spectramind_nb.core.instantiate import build
from spectramind_nb.learning.curve_network import bridges, mirrored, negativity, roughness
from spectramind_nb.learning.datamodule import VisitDataModule
from spectramind_nb.learning.encoder import EncoderModel, stacking_sums, trust_of
from spectramind_nb.learning.ensemble import Ensemble
from spectramind_nb.learning.metrics import CHANNELS, ariel_score
from spectramind_nb.learning.planetset import FEATURES, PlanetSet, planet_set
from spectramind_nb.learning.posterior import PosteriorModel
from spectramind_nb.learning.standard_curves import Bins, standard_visit, together
from spectramind_nb.observations.lightcurves import LightCurves
from spectramind_nb.physics.limb_darkening import limb_darkening_prior
from spectramind_nb.physics.transit import light_curve
from spectramind_nb.runs.numerics import StepSeed
from spectramind_nb.runs.trainer import numerics_guard

pytestmark = pytest.mark.filterwarnings("ignore")
BINS = Bins(time=20, wavelength=12)
SMALL = {"width": 16, "layers": 1, "heads": 2, "time_bins": 20, "wavelength_bins": 12, "components": 3}


def population(planets: int, seed: int, noise: float = 4e-4) -> PlanetSet:
    """Curves in caricature: a trapezoid as deep as the spectrum says, and white noise of the size that the weights say."""
    g = torch.Generator().manual_seed(seed)
    normal = lambda *size: torch.randn(*size, generator=g, dtype=torch.float64)  # noqa: E731
    features = normal(planets, len(FEATURES))
    x = torch.linspace(0, math.pi, CHANNELS - 1, dtype=torch.float64)
    shape = normal(planets, 2) @ torch.stack([torch.cos(x), torch.cos(3 * x)]) * 150e-6 * (0.5 * features[:, 4:5]).exp()
    truth = 0.008 * (0.3 * normal(planets, 1)).exp() + torch.cat([shape[:, :1], shape], 1)
    clock = torch.linspace(-2.5, 2.5, BINS.time, dtype=torch.float64)
    template = (6 * (1 - clock.abs()) + 0.5).clamp(0, 1).expand(planets, 1 + BINS.wavelength, -1)
    flux = -(truth @ bridges(BINS.wavelength)[0])[..., None] * template + noise * normal(planets, 1 + BINS.wavelength, BINS.time)
    white = truth.mean(1) + 30e-6 * normal(planets)
    features[:, 0], features[:, 1] = white.log(), math.log(30e-6)
    depth = white[:, None].repeat(1, CHANNELS)
    own, patterns = torch.full_like(depth, 200e-6**2), depth.new_zeros(planets, 0, CHANNELS)
    curves = torch.stack([flux, torch.full_like(flux, noise**-2), template], dim=1).float()
    return PlanetSet(torch.arange(planets), depth, own, patterns, features, truth, curves=curves)


def trainer(epochs=1, callbacks=(), **more):
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", gradient_clip_val=1.0)
    checks = [StepSeed(1), numerics_guard(group("trainer", "defaults").guards, bins=BINS)]
    return pl.Trainer(**{**quiet, "enable_checkpointing": False, "max_epochs": epochs, "callbacks": [*checks, *callbacks], **more})


def made(train: PlanetSet, **settings) -> EncoderModel:
    torch.manual_seed(0)
    model = EncoderModel(**{**SMALL, **settings})
    model.prepare(train)
    return model


def answer(model, planets):
    with torch.no_grad():
        return model(planets.tensors())


def score(model, planets):
    return ariel_score(*answer(model, planets), planets.target, model.naive_mean, model.naive_sigma)


@pytest.fixture(scope="module")
def few():
    return population(24, 1)


@pytest.fixture(scope="module")
def held():
    return population(40, 2)


@pytest.fixture(scope="module")
def trained(held):
    train = population(200, 3)
    model = made(train)
    before, fit = score(model, held), trainer(8, check_val_every_n_epoch=8)
    fit.fit(model, datamodule=VisitDataModule(train, held, None, 12, 0))
    return model, before, {name: float(value) for name, value in fit.callback_metrics.items()}


# -- standard curves -------------------------------------------------------------------------------------------------


def visit(depth=0.01, mid_h=3.2, drift=3e-3, noise=1e-4, airs_length=400, broken=False):
    """A visit, and its orbit and depth as a fit would know them."""
    geometry = {"mid_time_h": mid_h, "offset_h": 0.0, "period_d": 4.0, "a_rs": 10.0, "inclination_deg": 88.5, "duration_h": 3.0}
    depths = np.concatenate([[1.05 * depth], depth * np.linspace(0.98, 1.02, 282)])
    wavelengths = np.concatenate([[0.7], np.linspace(1.95, 3.9, 282)])
    u1, u2 = limb_darkening_prior(torch.as_tensor(wavelengths), 5500.0)
    rng, flux, sigma, time = np.random.default_rng(0), {}, {}, {}
    for name, rows, length in (("FGS1", slice(0, 1), 500), ("AIRS-CH0", slice(1, None), airs_length)):
        t = time[name] = np.linspace(0, 7, length)
        k = torch.as_tensor(depths[rows]) ** 0.5
        transit = light_curve(t / 24, mid_h / 24, 4.0, 10.0, 88.5, k, u1[rows], u2[rows]).numpy().T
        slow = 1 + drift * ((t - 3) / 4)[:, None] ** 2 * np.linspace(1, 0.6, transit.shape[1])
        flux[name] = 1e4 * transit * slow * (1 + noise * rng.normal(size=transit.shape))
        sigma[name] = np.full_like(flux[name], 1e4 * noise)
    flux["FGS1"], sigma["FGS1"] = flux["FGS1"][:, 0], sigma["FGS1"][:, 0]
    if broken:
        flux["AIRS-CH0"][:, 40], flux["AIRS-CH0"][100:110] = np.nan, np.nan
    return LightCurves(1, 0, "train", flux, sigma, time, wavelengths, {}), (geometry, depth), depths


def depths_of(curves):
    flux, weight, template = curves.astype(float)
    return -(weight * flux * template).sum(1) / (weight * template**2).sum(1)


@pytest.mark.parametrize("case, worse", [
    ({}, 1), ({"drift": -5e-3}, 1), ({"depth": 0.001}, 1), ({"broken": True}, 1),
    ({"mid_h": 0.8}, 2),  # without light before the transit the drift is less well known
    ({"airs_length": 37}, 3),  # a tenth of the light
])
def test_two_sums_give_the_depths_back_whatever_drifts(case, worse):
    curves, fit, depths = visit(**case)
    planes = standard_visit(curves, *fit, 5500.0, group("fit"), BINS)
    assert planes.shape == BINS.shape and planes.dtype == np.float32 and np.isfinite(planes).all()
    expected = np.array([depths[0], *(part.mean() for part in np.array_split(depths[1:], BINS.wavelength))])
    error = depths_of(planes) - expected
    assert abs(error[0]) < 4e-5 * worse and abs(error[1:].mean()) < 4e-5 * worse
    assert abs(error[1:] - error[1:].mean()).max() < 2e-5 * worse


def test_standard_curves_keep_the_clock_and_say_where_there_is_no_light():
    curves, fit, _ = visit(mid_h=0.2)
    flux, weight, template = standard_visit(curves, *fit, math.nan, group("fit"), BINS)
    assert (weight[:, :9] == 0).all() and (flux[:, :9] == 0).all() and (weight[:, 10:] > 0).all()
    assert template[1, 10] > 0.9 and template[1, -4] == 0
    lost = {**fit[0], "duration_h": 0.0}
    assert not standard_visit(curves, lost, fit[1], 5500.0, group("fit"), BINS).any()


def test_two_visits_are_averaged_by_their_weights():
    curves, fit, _ = visit()
    sharp = standard_visit(curves, *fit, 5500.0, group("fit"), BINS)
    blunt = sharp * np.array([2, 0.25, 1], dtype=np.float32)[:, None, None]
    flux, weight, template = together([sharp, blunt])
    np.testing.assert_allclose(weight, 1.25 * sharp[1])
    np.testing.assert_allclose(flux, 1.2 * sharp[0], atol=1e-8)
    np.testing.assert_allclose(together([sharp, 0 * sharp]), sharp * (sharp[1] > 0), atol=1e-8)


def test_planet_sets_check_curves_like_every_other_field(few):
    with pytest.raises(SchemaError, match=r"curves has shape \(24, 2, 13, 20\), expected \(24, 3, 13, 20\)"):
        PlanetSet(**{**few.tensors(), "curves": few.curves[:, :2]})
    with pytest.raises(SchemaError, match="curves is torch.float64"):
        PlanetSet(**{**few.tensors(), "curves": few.curves.double()})
    with pytest.raises(NonFiniteError, match="curves is not finite"):
        PlanetSet(**{**few.tensors(), "curves": few.curves * math.nan})
    import pandas as pd

    known = planet_set([1, 2], {}, pd.DataFrame(), curves={2: few.curves[0].numpy()})
    assert not known.curves[0].any() and torch.equal(known.curves[1], few.curves[0])


# -- the encoder -----------------------------------------------------------------------------------------------------


def test_it_learns_more_than_it_began_with(trained, held):
    model, before, seen = trained
    assert seen["val/score"] > before + 0.1 and seen["val/score"] > seen["val/score_fit"] > seen["val/score_mean"] == 0
    assert math.isclose(score(model, held), seen["val/score"], rel_tol=1e-5)
    assert math.isclose(1 - seen["val/nll"], seen["val/score"], rel_tol=1e-5)


def test_its_error_bars_are_about_right(trained, held):
    mu, sigma = answer(trained[0], held)
    z = (held.target - mu) / sigma
    assert 0.7 < float(z[:, 1:].square().mean().sqrt()) < 1.3 and 0.6 < float(z[:, 0].square().mean().sqrt()) < 1.5


def test_answers_are_spectra(few, held):
    model = made(few)
    mu, sigma = answer(model, held)
    assert mu.shape == sigma.shape == (40, CHANNELS) and mu.dtype == sigma.dtype == torch.float64
    assert (mu >= 0).all() and (sigma > 0).all() and torch.isfinite(mu).all() and torch.isfinite(sigma).all()
    white = held.curves.clone()
    white[:, 0] *= 0.01  # next to no transit, and some of it upside down
    mu, _ = answer(model, PlanetSet(**{**held.tensors(), "curves": white}))
    assert (mu >= 0).all() and torch.isfinite(mu).all()


def posterior_of(model, planets):
    """What the model would say without its networks."""
    trust = model.trust.clone()
    model.trust.zero_()
    mu, sigma = answer(model, planets)
    model.trust.copy_(trust)
    return mu, sigma


def test_a_planet_without_light_is_answered_for_by_its_fit(trained, few, held):
    model = trained[0]
    dark = PlanetSet(**{**held[:3].tensors(), "curves": held.curves[:3] * torch.tensor([0.0, 1, 1])[:, None, None, None]})
    (mu, sigma), (of_fit, stated) = answer(model, dark), posterior_of(model, dark)
    assert torch.equal(mu[0], of_fit[0]) and torch.equal(sigma[0], stated[0]) and (mu[1] != of_fit[1]).all()
    trainer(1).fit(made(few), datamodule=VisitDataModule(few, dark, None, 12, 0))  # the guards find nothing


def test_before_training_it_is_the_posterior_to_the_last_bit(few, held):
    posterior = PosteriorModel(components=SMALL["components"])
    posterior.prepare(few)
    for a, b in zip(answer(made(few), held), answer(posterior, held)):
        assert torch.equal(a, b)


def test_networks_that_learn_planets_by_heart_are_not_believed(few, held):
    """Curves of noise: what a network finds in them is true of no other planet."""
    torch.manual_seed(1)
    noise = lambda curves: torch.cat([4e-4 * torch.randn_like(curves[:, :1]), curves[:, 1:]], dim=1)  # noqa: E731
    few, held = (PlanetSet(**{**planets.tensors(), "curves": noise(planets.curves)}) for planets in (few, held))
    model = made(few, restraint=0.0, smoothness=0.0, residual_features=8, optimizer={"lr": 0.005, "weight_decay": 0.0})
    trainer(60, limit_val_batches=0).fit(model, datamodule=VisitDataModule(few, held, None, 12, 0))
    model.eval().posterior(few.tensors(), model.fold(few.planet_id))
    mu, sigma, changes = model.proposed
    gain = (changes[:, 0] * (few.target - mu) / sigma).mean(-1)  # (networks, planets)
    left_out = model.half(few.planet_id) == torch.arange(2)[:, None]
    assert float(gain[~left_out].mean()) > 0.1 > 10 * float(gain[left_out].mean()), "each knows the planets that it was shown"
    assert float(model.trust[0].max()) < 0.2
    plain = ariel_score(*posterior_of(model, held), held.target, model.naive_mean, model.naive_sigma)
    assert score(model, held) > plain - 0.005


def test_a_planet_is_corrected_by_the_network_that_has_not_seen_it(few):
    model, planets = made(few), few.tensors()
    model.trust.fill_(1.0)
    for number, network in enumerate(model.networks):
        network.of_planet.bias.data.fill_(0.1 * (1 + number))
    mu, *_ = model.posterior(planets, model.fold(few.planet_id))
    start, sigma, changes = model.proposed
    half = model.half(few.planet_id)
    assert sorted(half.bincount().tolist()) == [12, 12]
    for number in (0, 1):
        rows = half == number
        torch.testing.assert_close(mu[rows], start[rows] + sigma[rows] * changes[number, 0, rows])
    both = model.posterior(planets, None)[0]
    assert not torch.allclose(both, mu)


@pytest.mark.slow
def test_members_of_an_ensemble_trust_their_networks(held):
    """They never did: what they corrected was left out of the answer, in silence."""
    torch.manual_seed(0)
    train = population(100, 1)
    together = Ensemble(EncoderModel(**SMALL), folds=2)
    together.prepare(train)
    trainer(6, limit_val_batches=0).fit(together, datamodule=VisitDataModule(train, held, None, 25, 1))
    assert float(torch.stack([member.trust for member in together.eval().members])[:, 0].max()) > 0.5
    trusting = score(together, held)
    for member in together.members:
        member.trust.zero_()
    assert trusting > score(together, held) + 0.005


def test_planets_that_a_member_must_not_know_do_not_count_for_its_trust(few):
    """Where all planets of a batch are of the fold that it leaves out, it takes the step with the answers of others for labels."""
    torch.manual_seed(0)
    together = Ensemble(EncoderModel(**SMALL), folds=2)
    together.prepare(few)
    together.log = together._hear
    fold = together.fold(few.planet_id)
    left, learned = (together.members[number].train() for number in (0, 1))
    batch = {name: tensor[fold == 0] for name, tensor in few.tensors().items()}
    for network in (*left.networks, *learned.networks):
        network.of_planet.bias.data.fill_(0.3)
    together.train().training_step(batch, 0)
    assert not left.left_out_sums.any() and learned.left_out_sums.any()


@pytest.mark.parametrize("planets", [8, 40, 400])
def test_trust_in_chance_is_rare_and_trust_in_knowledge_is_not(planets):
    g = torch.Generator().manual_seed(planets)
    z, luck, noise = torch.randn(3, planets, 500, generator=g, dtype=torch.float64)
    chance = trust_of(stacking_sums(luck * z, luck.square()))
    assert float((chance > 0.2).double().mean()) < (0.15 if planets == 8 else 0.03)
    knows = 0.5 * z + 0.2 * noise
    assert float(trust_of(stacking_sums(knows * z, knows.square())).mean()) > 0.9
    doubles = 2 * z + 0.2 * noise
    assert float(trust_of(stacking_sums(doubles * z, doubles.square())).mean()) == pytest.approx(0.49, abs=0.06)


def test_a_pre_training_hands_on_the_networks_and_nothing_else(trained, few):
    model, before = trained[0], made(few)
    own = before.state_dict()
    handed = {name for name in model.state_dict() if name not in before.own}
    assert handed and all(name.startswith("networks.") for name in handed)
    before.load_state_dict({**model.state_dict(), **{name: own[name] for name in before.own}})
    assert not before.trust.any() and torch.equal(before.taught, few.planet_id)


def test_an_answer_does_not_depend_on_the_company(trained, held):
    together = answer(trained[0], held[:10])
    for a, b in zip(together, answer(trained[0], held[7:8])):
        torch.testing.assert_close(a[7], b[0], rtol=1e-4, atol=0)


def test_penalties_pull_the_way_they_should(few):
    scale = torch.tensor(1e-4, dtype=torch.float64)
    straight = (0.01 + 1e-5 * torch.arange(CHANNELS, dtype=torch.float64)).repeat(2, 1)
    assert roughness(straight, scale) < 1e-20 and negativity(straight, scale) == 0
    rough = straight.clone()
    rough[0, 50] = -1e-4
    rough.requires_grad_()
    roughness(rough, scale).backward()
    assert rough.grad[0, 50] < 0 < rough.grad[0, 49] and rough.grad[0, 0] == 0
    rough.grad = None
    negativity(rough, scale).backward()
    assert rough.grad[0, 50] < 0 and rough.grad.count_nonzero() == 1
    rougher, smoother = (made(few, smoothness=weight) for weight in (0.0, 100.0))
    for model in (rougher, smoother):
        trainer(4).fit(model, datamodule=VisitDataModule(few, few, None, 8, 0))
    assert roughness(answer(smoother, few)[0], scale) < roughness(answer(rougher, few)[0], scale)


def test_every_trained_number_gets_a_gradient(trained, few):
    model, *_ = trained
    model.zero_grad()
    model.posterior(few.tensors(), model.fold(few.planet_id))
    mu, sigma, changes = model.proposed
    sum(model.network_loss(mu, sigma, change, few.target) for change in changes).backward()
    for name, parameter in model.networks.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, name


def test_in_training_half_of_the_planets_run_backwards(few):
    torch.manual_seed(3)
    lopsided = few.curves * torch.linspace(1, 2, BINS.time)
    curves = mirrored(lopsided)
    turned = torch.tensor([torch.equal(now, was.flip(-1)) for now, was in zip(curves, lopsided)])
    assert all(torch.equal(now, was) for now, was, back in zip(curves, lopsided, turned) if not back) and 4 < turned.sum() < 20


# -- Lightning -------------------------------------------------------------------------------------------------------


def test_training_twice_gives_the_same_bits_and_so_does_going_on_after_a_stop(few, held, tmp_path):
    data = lambda: VisitDataModule(few, held, None, 7, 0)  # noqa: E731
    kept = ModelCheckpoint(tmp_path, "{epoch}", every_n_epochs=1, save_top_k=-1)
    once = made(few, dropout=0.2)
    trainer(4, [kept], enable_checkpointing=True).fit(once, datamodule=data())
    again, resumed = made(few, dropout=0.2), EncoderModel(**SMALL, dropout=0.2)
    trainer(4).fit(again, datamodule=data())
    trainer(4).fit(resumed, datamodule=data(), ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True)
    for model in (again, resumed):
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in once.state_dict().items())
    alone = EncoderModel.load_from_checkpoint(tmp_path / "epoch=3.ckpt", weights_only=True)
    for a, b in zip(answer(once.eval(), held), answer(alone.eval(), held)):
        assert torch.equal(a, b)


def test_a_finished_training_goes_on_for_another_epoch(few, held, tmp_path):
    """Its learning rate ended at zero, which is not that of the epoch before the last."""
    data, kept, first = VisitDataModule(few, held, None, 7, 0), ModelCheckpoint(tmp_path, "{epoch}"), made(few)
    trainer(2, [kept], enable_checkpointing=True).fit(first, datamodule=data)
    more = EncoderModel(**SMALL)
    trainer(3).fit(more, datamodule=data, ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True)
    assert any(not torch.equal(value, more.state_dict()[name]) for name, value in first.named_parameters())


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_it_follows_the_precision_of_the_profile_and_answers_in_float64(few, held, precision):
    model = made(few)
    trainer(2, precision=precision).fit(model, datamodule=VisitDataModule(few, held, None, 8, 0))
    assert answer(model, held)[0].dtype == torch.float64 and score(model, held) > 0.2


def test_errors_have_their_class(few, held):
    with pytest.raises(ConfigError, match="prepare"):
        answer(EncoderModel(**SMALL), held)
    with pytest.raises(SchemaError, match="two training planets"):
        EncoderModel(**SMALL).prepare(few[:1])
    with pytest.raises(SchemaError, match=r"shape \(3, 13, 20\), expected \(3, 13, 21\)"):
        EncoderModel(**{**SMALL, "time_bins": 21}).prepare(few)
    without = PlanetSet(**{name: tensor for name, tensor in few.tensors().items() if name != "curves"})
    with pytest.raises(SchemaError, match="shape None"):
        EncoderModel(**SMALL).prepare(without)
    with pytest.raises(SchemaError, match="no tensor 'curves'"):
        trainer().fit(made(few), datamodule=VisitDataModule(without, held, None, 8, 0))
    with pytest.raises(ConfigError, match="float64"):
        trainer(precision="bf16-true").fit(made(few), datamodule=VisitDataModule(few, held, None, 8, 0))
    for wrong in ({"width": 15}, {"heads": 0}, {"wavelength_bins": 283}, {"residual_features": 0}):
        with pytest.raises(ConfigError, match="Choose sizes"):
            EncoderModel(**{**SMALL, **wrong})


def test_hydra_builds_it_from_the_shipped_configuration():
    from spectramind_nb.runs.planets import bins_of

    config = compose(overrides=["model=encoder", "data.edition='2024'", "model.components=3"])
    model = build(config.model, loss=build(config.loss))
    assert isinstance(model, EncoderModel) and model.loss.edition_name == "2024" and model.bins == bins_of(config.model)
    assert model.hparams.components == 3 and bins_of(compose().model) is None
