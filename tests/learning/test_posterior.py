"""The posterior model: against the textbook formula, against its two rivals, and as a citizen of Lightning."""

import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from spectramind_nb.core.errors import ConfigError, SchemaError
from spectramind_nb.learning.conditioning import condition
from spectramind_nb.learning.datamodule import VisitDataModule
from spectramind_nb.learning.metrics import WeightedGaussianNLL, ariel_score
from spectramind_nb.learning.nuisances import learn_prior, nuisance_facts, on_axes, with_prior
from spectramind_nb.learning.planetmodel import raw_fit
from spectramind_nb.learning.planetset import FEATURES, PlanetSet
from spectramind_nb.learning.posterior import PosteriorModel
from spectramind_nb.learning.spectral_shapes import principal_shapes, ridge, smooth_variances
from spectramind_nb.runs.prediction import Prediction

CHANNELS = 283
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


def population(n: int, seed: int, unfitted: int = 0) -> PlanetSet:
    """Spectra from four smooth shapes, sized by one feature, with a fit whose stated sigma is 20 % too small."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, CHANNELS - 1)
    bands = np.stack([np.exp(-0.5 * ((x - centre) / width) ** 2) for centre, width in
                      [(-0.6, 0.15), (0.1, 0.1), (0.5, 0.3), (0.9, 0.05)]])  # fmt: skip
    size = np.exp(0.6 * rng.normal(size=n))
    airs = rng.gamma(2.0, 50e-6, (n, 4)) * size[:, None] @ bands
    level = np.exp(rng.normal(-4.8, 0.6, n))
    truth = np.c_[level + 60e-6 * size * rng.normal(size=n), level[:, None] + airs]
    covariance = np.diag(np.r_[50e-6, 250e-6 + 150e-6 * x] ** 2)
    covariance[1:, 1:] += 30e-6**2
    depth = truth + rng.normal(size=truth.shape) @ np.linalg.cholesky(covariance).T
    own = np.repeat(0.8**2 * np.r_[50e-6, 250e-6 + 150e-6 * x][None] ** 2, n, axis=0)
    features = 0.1 * rng.normal(size=(n, len(FEATURES)))
    features[:, 0], features[:, 7] = np.log(level), np.log(size) + 0.3 * rng.normal(size=n)
    features[:, -1] = 1.0  # a column that is the same for all
    depth[:unfitted], own[:unfitted] = 0, 1
    # eight nuisances, of which the fit knows no more than its prior, each move the spectrum by a few ppm
    moves = 5e-6 * np.cos(np.outer(np.arange(8), np.arange(CHANNELS) / 30))
    fitted = slice(unfitted, None)
    depth[fitted] += rng.normal(size=(n, 8))[fitted] @ moves
    patterns = np.repeat(np.vstack([0.8 * 30e-6 * (np.arange(CHANNELS) > 0), moves])[None], n, axis=0)
    patterns[:unfitted] = 0
    told = torch.from_numpy(np.repeat(np.hstack([moves, np.eye(8)])[None], n, axis=0))
    told[:unfitted, :, :CHANNELS] = 0
    tensors = (torch.from_numpy(a) for a in (depth, own, patterns, features, truth))
    return PlanetSet(torch.arange(n) + 1000 * seed, *tensors, torch.zeros(n, 8).double(), told)


def trainer(epochs: int = 1, **more) -> pl.Trainer:
    settings = dict(
        accelerator="cpu", max_epochs=epochs, gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
    )  # fmt: skip
    return pl.Trainer(**{**settings, **more})


def answer(model, planets):
    with torch.no_grad():
        return model(planets.tensors())


def score(model, planets) -> float:
    return ariel_score(*answer(model, planets), planets.target, model.naive_mean, model.naive_sigma)


@pytest.fixture(scope="module")
def few():
    return population(16, 1)


@pytest.fixture(scope="module")
def held():
    return population(60, 2)


@pytest.fixture
def prepared(few):
    model = PosteriorModel()
    model.prepare(few)
    return model


# -- mathematics -----------------------------------------------------------------------------------------------------


def test_exemplars_know_a_population_that_is_no_gaussian_better(held):
    many, scores = population(200, 3), {}
    for exemplars in (0, 1024, 50):
        model = PosteriorModel(exemplars=exemplars)
        model.prepare(many)
        scores[exemplars] = score(model, held)
    assert scores[1024] > scores[50] > scores[0]
    model = PosteriorModel(components=0)
    model.prepare(many)
    assert score(model, held) < scores[0]


def test_condition_equals_a_mixture_of_textbook_posteriors():
    rng = np.random.default_rng(0)
    q, nodes = 4, np.array([0.5, 1.0, 3.0])
    log_prior = np.log([0.2, 0.5, 0.3])
    basis, shape = rng.normal(size=(q, CHANNELS)), rng.normal(size=CHANNELS)
    root = rng.normal(size=(CHANNELS, CHANNELS)) / math.sqrt(CHANNELS)
    noise = 20 * (root @ root.T + np.eye(CHANNELS))
    deviations = rng.uniform(0.1, 0.3, (3, q))
    data = shape + 3 * rng.normal(size=CHANNELS)
    means, variances, evidence = [], [], []
    for a, s in zip(nodes, deviations):
        prior = basis.T @ np.diag(s**2) @ basis
        total = prior + noise
        gain = prior @ np.linalg.inv(total)
        means.append(a * shape + gain @ (data - a * shape))
        variances.append(np.diag(prior - gain @ prior))
        left = data - a * shape
        evidence.append(-0.5 * left @ np.linalg.solve(total, left) - 0.5 * np.linalg.slogdet(total)[1])
    weights = np.exp(np.array(evidence) + log_prior)
    weights /= weights.sum()
    assert weights.max() < 0.99  # more than one node matters
    mean = weights @ np.array(means)
    variance = weights @ (np.array(variances) + (np.array(means) - mean) ** 2)
    spectra = np.vstack([basis, shape, data])
    given = (torch.from_numpy(a)[None] for a in (spectra @ np.linalg.solve(noise, spectra.T), deviations, nodes))
    coefficients, covariance, log_weights = (found[0].numpy() for found in condition(*given, torch.from_numpy(log_prior)))
    np.testing.assert_allclose(np.exp(log_weights), weights, rtol=1e-9)
    np.testing.assert_allclose(coefficients @ spectra[:-1], mean, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose((spectra[:-1] * (covariance @ spectra[:-1])).sum(0), variance, rtol=1e-8)


def test_smooth_terms_have_the_matern_correlation():
    """In the middle of the band the expansion is the Matern-3/2 kernel less its mean (there is no constant term)."""
    length, count = 0.03, 400
    order = np.arange(1, count + 1)
    shares = smooth_variances(torch.tensor(length, dtype=torch.float64), count).numpy()
    x = np.array([0.5, 0.52, 0.55, 0.6])
    terms = math.sqrt(2) * np.cos(math.pi * order[:, None] * x)
    kernel = (terms * shares[:, None]).T @ terms
    distance = np.abs(x - 0.5) / length
    expected = ((1 + distance) * np.exp(-distance) - 4 * length) / (1 - 4 * length)
    np.testing.assert_allclose(kernel[0] / kernel[0, 0], expected, atol=1e-3)


def test_ridge_leave_one_out_residuals_equal_refits():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(25, 3)), rng.normal(size=25)
    x, y = torch.from_numpy(x), torch.from_numpy(y + 2 * x[:, 0])
    intercept, weights, residuals = ridge(x, y)
    fitted = intercept + x @ weights
    assert float((y - fitted).square().mean()) <= float(residuals.square().mean())
    loose = ridge(torch.cat([x, torch.zeros(25, 1, dtype=torch.float64)], 1), y)  # a useless column changes nothing
    torch.testing.assert_close(loose[1][:3], weights)


def test_principal_shapes_of_one_direction():
    rng = np.random.default_rng(2)
    direction = rng.normal(size=CHANNELS)
    shapes = torch.from_numpy(1.0 + rng.normal(size=(40, 1)) * direction)
    mean, components = principal_shapes(shapes, 3)
    torch.testing.assert_close(components.T @ components, torch.from_numpy(np.cov(shapes.numpy().T)))
    assert float(principal_shapes(shapes[:2], 3)[1].abs().max()) == 0  # two planets determine none


# -- what it is for --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planets", [16, 40])
def test_one_epoch_beats_the_mean_and_the_raw_fit(held, planets):
    train = population(planets, 1, unfitted=1)
    model = PosteriorModel()
    model.prepare(train)
    fit = trainer(limit_train_batches=8)
    fit.fit(model, datamodule=VisitDataModule(train, held, None, 12, 0))
    seen = {name: float(value) for name, value in fit.callback_metrics.items()}
    assert seen["val/score"] > seen["val/score_fit"] + 0.1 and seen["val/score"] > 0.5
    assert seen["val/score_mean"] == 0
    raw = raw_fit(held.depth, held.sigma, model.naive_mean, model.naive_sigma)
    fit_score = ariel_score(*raw, held.target, model.naive_mean, model.naive_sigma)
    assert math.isclose(fit_score, seen["val/score_fit"], rel_tol=1e-5)
    assert math.isclose(score(model, held), seen["val/score"], rel_tol=1e-5)
    assert math.isclose(1 - seen["val/nll"], seen["val/score"], rel_tol=1e-5)


def test_many_epochs_on_few_planets_do_no_harm(few, held):
    model = PosteriorModel()
    model.prepare(few)
    before = score(model, held)
    trainer(30, limit_val_batches=0).fit(model, datamodule=VisitDataModule(few, held, None, 8, 0))
    assert score(model, held) > before - 0.01


def test_training_lowers_the_loss(few):
    model = PosteriorModel(anchor=0.0)
    model.prepare(few)
    optimizer = torch.optim.AdamW(model.parameters(), **model.hparams.optimizer)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        mu, sigma, _ = model.posterior(few.tensors(), model.fold(few.planet_id))
        loss = model.loss(mu, sigma, few.target, model.naive_mean, model.naive_sigma)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_channels_share_what_the_textbook_says(prepared, held):
    """One node, no exemplars, no outliers: the covariance is that of a Gaussian prior and a Gaussian likelihood, written out in full."""
    model = PosteriorModel(exemplars=0, amplitude_nodes=1, outlier_share=0.0, compute={"conditioning": "float64"})
    model.prepare(population(40, 4))
    one = held[:3]
    with torch.no_grad():
        shared, (_, sigma) = model.shared_errors(one.tensors()), model(one.tensors())
        x = model.standardised(one.features)
        amplitude, sizes = model.amplitude(x), model.value("components").exp()
        deviations, _ = model.coefficient_prior(amplitude, sizes)
        basis = model.columns(model.no_fold(3))[:, :-2]
        own = amplitude[:, None] * model.value("unresolved").exp()
        products = model.products(one.tensors(), model.columns(model.no_fold(3)), x, own, torch.zeros(3))[:, :-2, :-2]
    inner = torch.linalg.inv(products + torch.diag_embed(deviations[:, 0] ** -2))
    textbook = basis.mT @ inner @ basis + torch.diag_embed(torch.cat([own[:, :1] ** 2, own[:, 1:].expand(-1, 282) ** 2], dim=1))
    correlation = textbook / torch.sqrt(textbook.diagonal(dim1=1, dim2=2)[:, :, None] * textbook.diagonal(dim1=1, dim2=2)[:, None])
    found = shared @ shared.mT / (sigma[:, :, None] * sigma[:, None])
    off = ~torch.eye(CHANNELS, dtype=torch.bool)
    assert torch.allclose(found[:, off], correlation[:, off], rtol=0, atol=1e-9) and float(correlation[:, off].abs().mean()) > 0.2


@pytest.mark.parametrize("trained_for", [0, 2])
def test_sigma_is_what_the_covariance_has_on_its_diagonal(few, held, trained_for):
    model = PosteriorModel()
    model.prepare(few)
    if trained_for:
        trainer(trained_for).fit(model, datamodule=VisitDataModule(few, held, None, 6, 0))
    with torch.no_grad():
        shared, (mu, sigma) = model.shared_errors(held.tensors()), model(held.tensors())
    for row in range(0, len(held), 10):
        covariance = Prediction(held.planet_id.numpy(), mu.numpy(), sigma.numpy(), list(shared.numpy())).covariance(row)
        assert np.allclose(np.diag(covariance), sigma[row].square(), rtol=1e-12, atol=0) and np.linalg.eigvalsh(covariance).min() > 0


def test_error_bars_are_honest(held):
    train = population(150, 1)
    model = PosteriorModel()
    model.prepare(train)
    mu, sigma = answer(model, held)
    z = (held.target - mu) / sigma
    assert 0.85 < float(z[:, 1:].square().mean().sqrt()) < 1.15
    assert 0.8 < float(z[:, 0].square().mean().sqrt()) < 1.2


def systematic_at_start(planets: int, share: float, seed: int = 0) -> torch.Tensor:  # (2,) of FGS1 and AIRS, in what the fit states
    """Where training starts when mean depths err by what the fit states, and beside it by a share of the depth, so many times that."""
    draw, stated, own = torch.Generator().manual_seed(seed), 50e-6, 30e-6
    level, common, shares, noise = (torch.randn(planets, n, generator=draw, dtype=torch.float64) for n in (1, 2, 2, CHANNELS))
    truth = (0.01 * (1 + 0.01 * level)).expand(-1, CHANNELS)
    patterns = torch.zeros(planets, 2, CHANNELS, dtype=torch.float64)
    patterns[:, 0, 0], patterns[:, 1, 1:] = stated, stated
    off = (stated * common + share * stated / 0.01 * truth[:, :2] * shares)[:, (torch.arange(CHANNELS) > 0).long()]
    depth, features = truth + own * noise + off, torch.zeros(planets, len(FEATURES), dtype=torch.float64)
    model = PosteriorModel()
    model.start_from_errors(PlanetSet(torch.arange(planets), depth, torch.full_like(depth, own**2), patterns, features, truth))
    return model.start_systematic.exp()[:2] * 0.01 / stated


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 2.0])
def test_training_starts_from_the_systematic_that_errors_show(share):
    found = systematic_at_start(4000, share).square().tolist()
    assert found == pytest.approx([share**2] * 2, abs=0.1 * (1.4 + share**2))  # what a difference of two medians can know


def test_chance_makes_no_systematic_of_a_few_planets():
    found = torch.cat([systematic_at_start(40, 0.0, seed) for seed in range(25)])
    assert (found > 0.1).double().mean() < 0.3 and (found > 0.7).double().mean() < 0.1


def test_a_planet_without_a_fit_gets_the_population(prepared, few):
    blind = {"depth": torch.zeros(1, CHANNELS).double(), "own_variance": torch.ones(1, CHANNELS).double(),
             "patterns": torch.zeros(1, 0, CHANNELS).double(), "features": few.features.mean(0, keepdim=True)}  # fmt: skip
    with torch.no_grad():
        mu, sigma = prepared(blind)
    assert abs(float(mu.mean() / few.target.mean()) - 1) < 0.05
    assert 0.7 < float(sigma[0, 1:].mean() / few.target[:, 1:].mean(1).std()) < 2


def test_a_sharp_fit_is_believed_and_a_blunt_one_is_not(prepared, held):
    one = {name: tensor for name, tensor in held[:1].tensors().items() if not name.startswith("nuisance")}
    sharp, blunt = ({**one, "own_variance": one["own_variance"] * factor**2, "patterns": one["patterns"] * factor} for factor in (1e-3, 10))
    with torch.no_grad():
        assert float(prepared(sharp)[1].mean()) < float(prepared(one)[1].mean()) < float(prepared(blunt)[1].mean())


def test_shallow_and_negative_depths_stay_finite_and_allowed(prepared, held):
    one = held[:2].tensors()
    with torch.no_grad():
        mu, sigma = prepared({**one, "depth": one["depth"] * 0 - 3e-4})
    assert torch.isfinite(mu).all() and (mu >= 0).all() and (sigma >= prepared.hparams.sigma_floor).all()


@pytest.mark.parametrize("planets", [2, 3, 5])
def test_a_handful_of_planets_is_enough_to_start(held, planets):
    model = PosteriorModel()
    model.prepare(population(planets, 3))
    mu, sigma = answer(model, held)
    assert torch.isfinite(mu).all() and torch.isfinite(sigma).all() and (sigma > 0).all()


def test_no_fit_at_all_still_gives_an_answer(held):
    model = PosteriorModel()
    model.prepare(population(6, 3, unfitted=6))
    mu, sigma = answer(model, held)
    assert torch.isfinite(mu).all() and (sigma > 0).all()


@pytest.mark.parametrize("compute, rtol", [({}, 1e-6), ({"conditioning": "float64"}, 1e-9)])
def test_an_answer_does_not_depend_on_the_company(prepared, held, compute, rtol):
    model = PosteriorModel(compute=compute)
    model.load_state_dict(prepared.state_dict())
    together = answer(model, held[:10])
    for row in (0, 7):
        alone = answer(model, held[row : row + 1])
        for a, b in zip(together, alone):
            torch.testing.assert_close(a[row], b[0], rtol=rtol, atol=0)


# -- errors ----------------------------------------------------------------------------------------------------------


def test_errors_have_their_class(few, held):
    with pytest.raises(ConfigError, match="prepare"):
        answer(PosteriorModel(), held)
    with pytest.raises(SchemaError, match="two training planets"):
        PosteriorModel().prepare(few[:1])
    with pytest.raises(SchemaError, match="features"):
        PosteriorModel(n_features=3).prepare(few)
    with pytest.raises(SchemaError, match="positive definite"):
        PlanetSet(**{**held.tensors(), "own_variance": -held.own_variance})


def test_half_precision_weights_are_refused(few, held):
    model = PosteriorModel()
    model.prepare(few)
    with pytest.raises(ConfigError, match="float64"):
        trainer(precision="bf16-true").fit(model, datamodule=VisitDataModule(few, held, None, 8, 0))


# -- Lightning -------------------------------------------------------------------------------------------------------


def train(few, held, **more) -> PosteriorModel:
    model = PosteriorModel()
    model.prepare(few)
    trainer(2, **more).fit(model, datamodule=VisitDataModule(few, held, None, 6, 0))
    return model


def test_training_twice_gives_the_same_bits(few, held):
    first, second = train(few, held).state_dict(), train(few, held).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_folds_are_equal_whatever_the_identifiers_and_a_checkpoint_knows_them(few, prepared):
    """All identifiers multiples of the number of folds: dealt by their remainder, one fold would have had every planet and no shape."""
    five = PlanetSet(**{**few.tensors(), "planet_id": 5 * few.planet_id})
    model, again = PosteriorModel(), PosteriorModel()
    model.prepare(five)
    assert sorted(model.fold(five.planet_id).bincount().tolist()) == [3, 3, 3, 3, 4]
    assert torch.equal(model.shapes, prepared.shapes) and (model.shapes.square().sum((1, 2)) > 0).all()
    assert torch.equal(model.fold(five.planet_id[[9, 3]]), model.fold(five.planet_id)[[9, 3]])
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.fold(five.planet_id), model.fold(five.planet_id))


def test_every_trained_number_gets_a_gradient(prepared, few):
    mu, sigma, _ = prepared.posterior(few.tensors(), prepared.fold(few.planet_id))
    WeightedGaussianNLL()(mu, sigma, few.target, prepared.naive_mean, prepared.naive_sigma).backward()
    for name, parameter in prepared.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_a_checkpoint_alone_predicts_and_loads_with_weights_only(tmp_path, few, held):
    from omegaconf import OmegaConf

    model = PosteriorModel(components=4, optimizer=OmegaConf.create({"lr": 0.02, "weight_decay": 0.0}))
    model.prepare(few)
    fit = trainer(1)
    fit.fit(model, datamodule=VisitDataModule(few, held, held, 8, 0))
    path = tmp_path / "model.ckpt"
    fit.save_checkpoint(path)
    stored = torch.load(path, weights_only=True)
    assert stored["hyper_parameters"]["optimizer"] == {"lr": 0.02, "weight_decay": 0.0}
    again = PosteriorModel.load_from_checkpoint(path, weights_only=True)
    for a, b in zip(answer(model, held), answer(again, held)):
        assert torch.equal(a, b)
    batches = trainer().predict(again, datamodule=VisitDataModule(few, held, held, 8, 0))
    assert torch.equal(torch.cat([batch["planet_id"] for batch in batches]), held.planet_id)
    torch.testing.assert_close(torch.cat([batch["mu"] for batch in batches]), answer(model, held)[0], rtol=1e-9, atol=0)


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_validation_score_does_not_depend_on_the_batches(prepared, few, held, batch_size):
    seen = trainer().validate(prepared, datamodule=VisitDataModule(few, held, None, batch_size, 0), verbose=False)[0]
    assert math.isclose(seen["val/score"], score(prepared, held), rel_tol=1e-6)


def test_hydra_builds_it_from_the_shipped_configuration(few, held, repo):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    shipped = {name: OmegaConf.load(repo / "configs" / name / f"{file}.yaml")
               for name, file in [("model", "posterior"), ("loss", "gll")]}  # fmt: skip
    settings = OmegaConf.merge({"data": {"edition": "2024"}}, shipped)
    model = instantiate(settings.model, loss=instantiate(settings.loss))
    assert isinstance(model, PosteriorModel) and model.loss.edition_name == "2024"
    model.prepare(few)
    assert score(model, held) > 0.4


# -- what stars have in common ---------------------------------------------------------------------------------------


def stars(n: int, seed: int):
    """Nuisances of which pairs scatter together, and what fits that know of them no more than their priors make of the depths."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=g, dtype=torch.float64)  # noqa: E731
    shared = draw(n, 2)
    nuisance = 0.4 * torch.cat([shared, 0.9 * shared + 0.44 * draw(n, 2)], dim=1)
    moves = draw(4, CHANNELS)
    error, found = nuisance @ moves + draw(n, CHANNELS), torch.zeros(n, 4, dtype=torch.float64)
    told = torch.cat([-moves, torch.eye(4, dtype=torch.float64)], dim=1).expand(n, -1, -1)
    return error, torch.ones(n, CHANNELS, dtype=torch.float64), moves.expand(n, -1, -1), found, told, nuisance


def test_what_nuisances_are_off_by_together_is_learned_and_used():
    *facts, true = stars(300, 1)
    ones = torch.ones(300, 1, dtype=torch.float64)
    law, width, axes = learn_prior(*nuisance_facts(*facts), ones)
    covariance = (axes * width**2) @ axes.mT
    scatter = covariance.diagonal().sqrt()
    correlation = covariance / scatter / scatter[:, None]
    assert float(correlation[0, 2]) > 0.7 and float(correlation[1, 3]) > 0.7 and float(correlation[0, 1].abs()) < 0.2
    torch.testing.assert_close(axes.mT @ axes, torch.eye(4, dtype=torch.float64))

    # fits that have measured the second of each pair, and confuse the first with depths: these are now known better
    *_, moves, found, told, true = stars(300, 3)
    moves, found = moves[0, :2], torch.cat([found[:, :2], true[:, 2:]], dim=1)
    inner = torch.diag(torch.tensor([1.0, 1.0, 1e-4, 1e-4], dtype=torch.float64))
    told = torch.cat([torch.cat([-moves, 0 * moves]), inner], dim=1).expand(300, -1, -1)
    left = {}
    for name, (turn, sizes) in {"alone": (torch.eye(4, dtype=torch.float64), scatter), "together": (axes, width)}.items():
        nuisance, spread = on_axes(found, told, turn)
        error, _ = with_prior(true[:, :2] @ moves, nuisance, spread, torch.zeros_like(nuisance), sizes)
        left[name] = float(error.square().mean().sqrt())
    assert left["together"] < 0.7 * left["alone"]


@pytest.mark.parametrize("planets", [2, 3, 8])
def test_few_planets_teach_next_to_nothing_of_what_scatters_together(planets):
    *facts, _ = stars(planets, 5)
    law, width, axes = learn_prior(*nuisance_facts(*facts), torch.ones(planets, 1, dtype=torch.float64))
    covariance = (axes * width**2) @ axes.mT
    scatter = covariance.diagonal().sqrt()
    off = (covariance / scatter / scatter[:, None]).fill_diagonal_(0)
    assert float(off.abs().max()) < (1e-12 if planets < 3 else 0.75) and (width < 1).all() and (width > 0).all()


def test_a_model_of_an_older_version_still_answers_as_it_did(few, held):
    model, again = PosteriorModel(), PosteriorModel()
    model.prepare(few)
    model.nuisance_axes = torch.eye(8, dtype=torch.float64)  # as it was before
    old = {name: value for name, value in model.state_dict().items() if name != "nuisance_axes"}
    again.load_state_dict(old)
    for a, b in zip(answer(model, held), answer(again, held)):
        assert torch.equal(a, b)


def test_what_training_planets_look_calm_by_says_nothing_of_another_kind(few):
    model = PosteriorModel()
    model.prepare(few)
    known, nodes = len(model.node_weights), len(model.log_node_weights())
    alike, unlike = torch.full((2, 1, nodes), -50.0, dtype=torch.float64)
    alike[:, :known], unlike[:, known:] = -math.log(known), -math.log(nodes - known)
    calm, wild = torch.tensor([[-0.2, -0.1], [0.2, 0.1]], dtype=torch.float64)
    assert model._scale(calm, alike)[0, :2].tolist() == pytest.approx([math.exp(-0.2), math.exp(-0.1)])
    assert model._scale(calm, unlike)[0, :2].tolist() == pytest.approx([1.0, 1.0])
    assert model._scale(wild, unlike)[0, :2].tolist() == pytest.approx([math.exp(0.2), math.exp(0.1)])
