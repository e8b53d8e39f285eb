"""Patterns of a covariance answer as the covariance itself: against the 283 x 283 formulas, in the model and in an ensemble."""

import pytest
import torch
from test_posterior import answer, population, trainer

from spectramind_nb.learning.datamodule import VisitDataModule
from spectramind_nb.learning.ensemble import Ensemble
from spectramind_nb.learning.posterior import PosteriorModel
from spectramind_nb.observations.layout import PPM

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def few():
    return population(16, 1, unfitted=1)


@pytest.fixture(scope="module")
def moved(few):
    """A model whose numbers have left their start."""
    model = PosteriorModel()
    model.prepare(few)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for deviation in model.deviation.values():
            deviation += 0.2 * torch.randn(deviation.shape, generator=draw, dtype=torch.float64)
    return model


def test_inner_products_are_those_of_the_whole_noise_covariance(moved, few):
    """The fit's covariance with the prior that was learned, scaled, with errors proportional to the depth: all as one matrix."""
    with torch.no_grad():
        batch, fold = few.tensors(), moved.fold(few.planet_id)
        x = moved.standardised(few.features)
        unresolved = moved.amplitude(x)[:, None] * moved.value("unresolved").exp()
        found = moved.products(batch, moved.columns(fold), x, unresolved, moved.expected_level.expand(len(few)))

        depth, relief = moved.informed(batch, x)
        covariance = PPM**2 * few.covariance - relief.mT @ relief
        scale = (moved.value("inflation") + x @ moved.value("inflation_features").T).clamp(-2, 3).exp()
        scale, unresolved = (torch.cat([pair[:, :1], pair[:, 1:].expand(-1, 282)], 1) for pair in (scale, unresolved))
        relative = moved.value("systematic").exp()[:, None] * moved.systematic_shapes
        level = depth[:, 1:].mean(1).clamp(min=0)
        noise = covariance * scale[:, :, None] * scale[:, None] + torch.diag_embed(unresolved.square())
        noise += level.square()[:, None, None] * (relative.T @ relative)
        spectra = torch.cat([moved.columns(fold)[:, :-1], (depth - moved.expected_level)[:, None]], dim=1)
        expected = spectra @ torch.linalg.solve(noise, spectra.mT)
    size = expected.diagonal(dim1=1, dim2=2).sqrt()
    error = (found - expected) / (size[:, :, None] * size[:, None])
    assert float(error.abs().max()) < 1e-7


def test_planets_are_small(few):
    """What a batch holds of a planet beside standard curves: the covariances would be 640 kB each."""
    assert sum(tensor.nbytes for tensor in few.tensors().values()) / len(few) < 60e3


def test_an_ensemble_answers_from_batches_as_from_whole_sets(few):
    ensemble = Ensemble(PosteriorModel(), folds=2)
    ensemble.prepare(few)
    assert all(torch.equal(*pair) for pair in zip(answer(ensemble, few), ensemble(ensemble.fields(few)), strict=True))


def test_training_batches_hold_patterns_and_no_covariance(few):
    model, seen = PosteriorModel(), []
    model.prepare(few)
    step = model.training_step
    model.training_step = lambda batch, batch_idx: seen.append(set(batch)) or step(batch, batch_idx)
    trainer(1).fit(model, datamodule=VisitDataModule(few, few, None, 8, 0))
    assert seen and all({"own_variance", "patterns"} <= names and "covariance" not in names for names in seen)
