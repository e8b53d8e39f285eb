"""The data module: sets of planets, the order of an epoch, and training that survives being stopped."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from spectramind_nb.core.errors import ConfigError, NonFiniteError, SchemaError
from spectramind_nb.learning.datamodule import PlanetOrder, ResumableLoader, VisitDataModule
from spectramind_nb.learning.planetset import FEATURES, PlanetSet, contradictions, describe, has_fit, planet_set, planet_sets, split_planets
from spectramind_nb.physics.visit_fit import VisitFit

CHANNELS = 283


def random_set(n: int, seed: int = 0) -> PlanetSet:
    generator = torch.Generator().manual_seed(seed)
    depth = 0.01 + 1e-3 * torch.randn(n, CHANNELS, generator=generator, dtype=torch.float64)
    errors = torch.full_like(depth, 1e-8), depth.new_zeros(n, 0, CHANNELS)
    features = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return PlanetSet(torch.arange(n) + 100, depth, *errors, features, depth + 1e-4)


def fake_fit(planet: int, visit: int = 0, depth: float = 0.01, sigma: float = 1e-4) -> VisitFit:
    found = {"white_depth": depth, "white_sigma": sigma / math.sqrt(CHANNELS - 1), "converged": 1.0, "coverage": 1.0}
    depths = torch.full((CHANNELS,), depth, dtype=torch.float64)
    errors = torch.full_like(depths, sigma**2), depths.new_zeros(0, CHANNELS)
    return VisitFit(planet, visit, depths, *errors, {}, found,
                    torch.zeros(8).double(), torch.eye(8, CHANNELS + 8).double().roll(CHANNELS, 1))


def label_table(planets) -> pd.DataFrame:
    values = np.array(planets)[:, None] * 1e-3 + np.arange(CHANNELS) * 1e-6
    return pd.DataFrame(values, index=planets, columns=[f"wl_{k}" for k in range(1, CHANNELS + 1)])


# -- sets ------------------------------------------------------------------------------------------------------------


def test_every_planet_is_in_exactly_one_set_and_keeps_its_own_label():
    planets = list(range(3, 23))
    challenge = SimpleNamespace(planets=lambda split: planets, asked_for=lambda split: [900, 901])
    numbers = {"train": planets, "test": [900]}  # 901 failed
    fits = {split: {(p, v): fake_fit(p, v, 1e-3 * p) for p in of_split for v in (0, 1)} for split, of_split in numbers.items()}
    stars = {split: pd.DataFrame({"Rs": 1.0, "Ts": 5000.0}, index=planets) for split in numbers}
    train, val, test = planet_sets(challenge, fits, label_table(planets), stars, 0.25, 42)
    assert sorted(train.planet_id.tolist() + val.planet_id.tolist()) == planets
    assert len(val) == 5 and test.planet_id.tolist() == [900, 901] and test.target is None
    for part in (train, val):
        expected = part.planet_id.double() * 1e-3
        assert torch.equal(part.target[:, 0], expected)
        torch.testing.assert_close(part.depth[:, 5], expected)
    assert has_fit(test.own_variance).tolist() == [True, False]
    assert torch.isfinite(test.features).all()


def test_two_visits_are_weighted_by_their_variance():
    fits = {(1, 0): fake_fit(1, 0, 0.010, 1e-4), (1, 1): fake_fit(1, 1, 0.011, 2e-4)}
    one = planet_set([1], fits, pd.DataFrame())
    torch.testing.assert_close(one.depth, torch.full((1, CHANNELS), (4 * 0.010 + 0.011) / 5, dtype=torch.float64))


def test_split_depends_on_seed_not_on_order():
    planets = list(range(40))
    assert split_planets(planets, 0.25, 1) == split_planets(planets[::-1], 0.25, 1)
    assert split_planets(planets, 0.25, 1) != split_planets(planets, 0.25, 2)
    assert [len(part) for part in split_planets([1, 2], 0.01, 0)] == [1, 1]


@pytest.mark.parametrize("fraction", [0, 1, -0.2, 1.5])
def test_senseless_fraction_is_a_config_error(fraction):
    with pytest.raises(ConfigError, match="validation_fraction"):
        split_planets([1, 2, 3], fraction, 0)


def test_a_single_planet_cannot_be_split():
    with pytest.raises(SchemaError, match="at least two"):
        split_planets([1], 0.5, 0)


def test_missing_label_names_the_planet_and_missing_column_the_column():
    with pytest.raises(SchemaError, match="planet 7"):
        planet_set([3, 7], {}, pd.DataFrame(), label_table([3]))
    with pytest.raises(SchemaError, match="wl_283"):
        planet_set([3], {}, pd.DataFrame(), label_table([3]).drop(columns="wl_283"))


def test_non_finite_fit_names_the_planet():
    fit = fake_fit(5)
    fit.depth[17] = math.nan
    with pytest.raises(NonFiniteError, match="planet 5"):
        planet_set([4, 5], {(4, 0): fake_fit(4), (5, 0): fit}, pd.DataFrame())


def test_a_fit_that_is_not_plausible_is_none_and_leaves_a_second_visit_alone():
    wrong = replace(fake_fit(1, 1, depth=0.07), nuisance=torch.tensor([0.0, 0, 3, 11, 55, -1, 3, 5]).double())
    fits = {(1, 0): fake_fit(1), (1, 1): wrong, (2, 0): replace(wrong, planet_id=2)}
    found = planet_set([1, 2, 3], fits, pd.DataFrame())
    alone = planet_set([1, 2, 3], {(1, 0): fake_fit(1)}, pd.DataFrame())
    assert has_fit(found.own_variance).tolist() == [True, False, False]
    assert all(torch.equal(value, alone.tensors()[name]) for name, value in found.tensors().items())


@pytest.mark.parametrize("away, sigmas, wrong", [(0.27, 7, True), (-0.26, 8, True), (0.27, 5, False), (0.15, 30, False)])
def test_a_label_is_contradicted_by_six_sigma_and_a_fifth(away, sigmas, wrong):
    sigma = abs(away) * 0.01 / sigmas * (CHANNELS - 1) ** 0.5  # of a channel
    labels = label_table([1])
    labels[:] = 0.01
    seen = fake_fit(1, depth=0.01 * (1 + away), sigma=sigma)
    assert list(contradictions({(1, 0): seen}, labels)) == [1] * wrong
    assert contradictions({(1, 0): seen, (1, 1): fake_fit(1, 1, depth=0.01)}, labels) == {}, "one visit agrees"


@pytest.mark.parametrize("fgs1, airs, wrong", [(-4.5, 4.5, True), (0, 4.5, False), (-4.5, 0, False), (-6.5, 0, True)])
def test_an_instrument_with_another_planets_frames_contradicts_its_label_too(fgs1, airs, wrong):
    """One pulls up and the other down: each less than six standard deviations, together more."""
    fit, sigma = fake_fit(1), torch.tensor([6e-4, 6e-4 * (CHANNELS - 1) ** 0.5]).double()
    fit.depth[0] += fgs1 * sigma[0]
    fit.depth[1:] += airs * sigma[0]
    fit.own_variance[0], fit.own_variance[1:] = sigma.square()
    labels = label_table([1])
    labels[:] = 0.01
    assert list(contradictions({(1, 0): fit}, labels)) == [1] * wrong


def test_unknown_features_are_filled_from_the_training_planets():
    stars = pd.DataFrame({"Ts": [4000.0, 5000.0, 7000.0, np.nan]}, index=[1, 2, 3, 4])
    fits = {(p, 0): fake_fit(p) for p in (1, 2, 3, 4)}
    train = planet_set([1, 2, 3], fits, stars)
    other = planet_set([4], fits, stars, None, train)
    assert math.isclose(float(other.features[0, FEATURES.index("log_Ts")]), math.log(5000))
    assert float(other.features[0, FEATURES.index("log_Mp")]) == 0  # no training planet knows it either


def test_negative_depth_gives_a_finite_feature_and_a_missing_fit_none():
    assert math.isfinite(describe(fake_fit(1, depth=-1e-4), {})[FEATURES.index("log_white_depth")])
    assert all(math.isnan(value) for value in describe(None, {}))


def test_damaged_sets_are_refused():
    good = random_set(3).tensors()
    for change, kind in [
        ({"patterns": good["patterns"][..., :5]}, SchemaError),
        ({"own_variance": -good["own_variance"]}, SchemaError),
        ({"target": good["target"].float()}, SchemaError),
        ({"planet_id": good["planet_id"].double()}, SchemaError),
        ({"features": good["features"] * math.inf}, NonFiniteError),
    ]:
        with pytest.raises(kind):
            PlanetSet(**{**good, **change})


# -- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planets, world", [(1, 4), (3, 2), (10, 3), (12, 4), (5, 1)])
def test_ranks_share_all_planets_evenly(planets, world):
    orders = [PlanetOrder(planets, 3, rank, world) for rank in range(world)]
    shares = [list(order) for order in orders]
    assert {len(share) for share in shares} == {len(orders[0])}
    assert set(sum(shares, [])) == set(range(planets))


def test_order_changes_with_epoch_and_seed_only():
    order = PlanetOrder(50, 1)
    torch.manual_seed(0)
    first = list(order)
    torch.manual_seed(99)
    assert list(order) == first
    order.set_epoch(1)
    assert list(order) != first and list(PlanetOrder(50, 2)) != first


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_goes_on_at_the_next_batch(workers):
    planets = random_set(11)

    def make():
        return ResumableLoader(planets.tensors(), PlanetOrder(11, 5), batch_size=2, num_workers=workers)

    whole = [batch["planet_id"].tolist() for batch in make()]
    for stop in range(len(whole) + 1):
        loader = make()
        batches = iter(loader)
        for _ in range(stop):
            next(batches)
        again = make()
        again.load_state_dict(loader.state_dict())
        assert [batch["planet_id"].tolist() for batch in again] == whole[stop:]
        again.sampler.set_epoch(1)
        assert len(list(again)) == len(whole)


def test_loading_does_not_move_the_global_generator():
    module = VisitDataModule(random_set(6), random_set(3), random_set(2), 2, 0)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    for loader in (module.train_dataloader(), module.val_dataloader(), module.predict_dataloader()):
        list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_loader_policy_is_passed_on_and_unknown_settings_refused():
    settings = {"num_workers": 2, "prefetch_factor": 3, "persistent_workers": True, "pin_memory": False}
    module = VisitDataModule(random_set(6), random_set(3), None, 2, 0, settings)
    loader = module.train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (2, 3, True)
    single = VisitDataModule(random_set(6), random_set(3), None, 2, 0, {**settings, "num_workers": 0})
    assert isinstance(single.val_dataloader(), DataLoader) and single.val_dataloader().prefetch_factor is None
    with pytest.raises(ConfigError, match="prefetch"):
        VisitDataModule(random_set(6), random_set(3), None, 2, 0, {"prefetch": 2})
    with pytest.raises(SchemaError, match="no planets to predict"):
        module.predict_dataloader()


def test_training_without_truth_is_refused():
    blind = random_set(4)
    blind = PlanetSet(blind.planet_id, blind.depth, blind.own_variance, blind.patterns, blind.features)
    with pytest.raises(SchemaError, match="true spectra"):
        VisitDataModule(blind, random_set(2), None, 2, 0)


# -- exact resume ----------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


class StopAt(pl.Callback):
    """Save a checkpoint inside the step and leave `fit` at once, as the wall guard does."""

    def __init__(self, path, batches: int):
        self.path, self.left = path, batches

    def on_train_batch_end(self, trainer, *_):
        self.left -= 1
        if self.left == 0:
            trainer.save_checkpoint(self.path)
            raise Stop


class Tiny(pl.LightningModule):
    """Weights that depend on the order of every planet seen."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, CHANNELS, dtype=torch.float64))

    def training_step(self, batch, batch_idx):
        return ((batch["depth"] * 100 * self.weight).sum(1) - batch["target"].mean(1)).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", (batch["depth"] * self.weight).sum())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def fit(callbacks=(), ckpt=None, workers=0, accumulate=1) -> torch.Tensor:
    policy = {"num_workers": workers, "persistent_workers": workers > 0}
    data = VisitDataModule(random_set(11), random_set(3, 1), None, 2, 7, policy)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=4, accumulate_grad_batches=accumulate, use_distributed_sampler=False,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, callbacks=list(callbacks),
    )  # fmt: skip
    model = Tiny()
    trainer.fit(model, datamodule=data, ckpt_path=ckpt, weights_only=None if ckpt is None else True)
    assert trainer.global_step == 4 * math.ceil(6 / accumulate)
    return model.weight.detach().clone()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers, accumulate", [(0, 1), (0, 2), (2, 1)])
def test_stopped_and_resumed_training_ends_with_the_same_bits(tmp_path, workers, accumulate):
    reference = fit(accumulate=accumulate)
    stops = [9, 12, 15] if workers == 0 else [9]  # 6 batches an epoch: middle of an epoch, its last batch, a later one
    if accumulate == 2:
        stops = [8, 12]
    for stop in stops:
        path = tmp_path / f"{stop}.ckpt"
        with pytest.raises(Stop):
            fit([StopAt(path, stop)], workers=workers, accumulate=accumulate)
        assert torch.equal(fit(ckpt=path, workers=workers, accumulate=accumulate), reference), f"stopped at batch {stop}"


@pytest.mark.filterwarnings("ignore")
def test_the_order_matters_to_the_tiny_model():
    """Without this the test above would prove nothing: another order of planets gives other weights."""
    data = random_set(11)
    forward, backward = Tiny(), Tiny()
    for model, rows in ((forward, [[0, 1], [2, 3]]), (backward, [[2, 3], [0, 1]])):
        optimizer = model.configure_optimizers()
        for pair in rows:
            optimizer.zero_grad()
            model.training_step(data[pair].tensors(), 0).backward()
            optimizer.step()
    assert not torch.equal(forward.weight, backward.weight)


def test_a_label_that_is_contradicted_moves_no_other_planet(short_root, stores, tmp_path):
    """The planets were divided after it had been left out, and others judged."""
    from spectramind_nb.observations.challenge import open_challenge
    from spectramind_nb.physics.fitting import fit

    challenge = open_challenge(short_root)
    fits, stars = {"train": fit(challenge, store_root=stores)}, {"train": challenge.stars("train")}
    labels, parts = challenge.labels(), {}
    for wrong in (None, *challenge.planets("train")):
        told = labels if wrong is None else labels.mul((labels.index == wrong) + 1.0, axis=0)
        train, val, _ = planet_sets(challenge, {**fits, "test": {}}, told, {**stars, "test": challenge.stars("test")}, 0.34, 1)
        parts[wrong] = [set(part.planet_id.tolist()) for part in (train, val)]
    whole = parts.pop(None)
    assert [len(part) for part in whole] == [4, 2]
    assert all(found == [part - {wrong} for part in whole] for wrong, found in parts.items())


def test_data_without_a_test_split_train_all_the_same(short_root, tmp_path):
    import shutil

    from spectramind_nb.observations.challenge import open_challenge
    from spectramind_nb.physics.fitting import fit

    root = tmp_path / "root"
    shutil.copytree(short_root, root, ignore=shutil.ignore_patterns("test", "test_*"))
    challenge = open_challenge(root)
    fits, stars = {"train": fit(challenge, store_root=tmp_path / "cache")}, {"train": challenge.stars("train")}
    train, val, test = planet_sets(challenge, fits, challenge.labels(), stars, 0.25, 1)
    assert test is None and len(train) + len(val) == 6
