"""The official score against a brute force written with `math`, value by value, and cases worked by hand."""

import math
import random

import numpy as np
import pytest
import torch

from spectramind_nb.core.errors import ConfigError, NonFiniteError, SchemaError
from spectramind_nb.learning.metrics import WeightedGaussianNLL, ariel_score, calibration

CHANNELS = 283


def log_density(y: float, mean: float, sigma: float) -> float:
    return math.log(math.exp(-((y - mean) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi)))


def brute_force(mu, sigma, truth, naive_mean, naive_sigma, weight=57.846, ideal_fgs1=1e-6, ideal_airs=1e-5) -> float:
    """Unclipped score: weighted mean over values of (GLL - GLL_ref) / (GLL_ideal - GLL_ref)."""
    total = weights = 0.0
    for i in range(len(mu)):
        for c in range(CHANNELS):
            w, ideal = (weight, ideal_fgs1) if c == 0 else (1.0, ideal_airs)
            got = log_density(truth[i][c], mu[i][c], sigma[i][c])
            best = log_density(truth[i][c], truth[i][c], ideal)
            reference = log_density(truth[i][c], naive_mean, naive_sigma)
            total += w * (got - reference) / (best - reference)
            weights += w
    return total / weights


@pytest.fixture
def answer():
    rng = random.Random(3)
    truth = [[0.01 + 0.003 * rng.gauss(0, 1) for _ in range(CHANNELS)] for _ in range(4)]
    sigma = [[1e-4 * rng.uniform(0.5, 2) for _ in range(CHANNELS)] for _ in range(4)]
    mu = [[t + s * rng.gauss(0, 1) for t, s in zip(*rows)] for rows in zip(truth, sigma)]
    return mu, sigma, truth, 0.0098, 0.0031


def test_equals_brute_force(answer):
    expected = brute_force(*answer)
    assert 0.3 < expected < 0.9
    assert math.isclose(ariel_score(*answer), expected, rel_tol=1e-12)


def test_2024_edition_is_one_ratio_of_sums_over_everything(answer):
    """The mean of the values' own ratios, which it was, differs by up to 0.014 in either direction."""
    mu, sigma, truth, mean, spread = answer
    truth[0] = [value / 3 for value in truth[0]]  # a planet far from the mean of the labels
    mu[0] = [value / 3 for value in mu[0]]
    got = best = reference = 0.0
    for i in range(len(mu)):
        for c in range(CHANNELS):
            got += log_density(truth[i][c], mu[i][c], sigma[i][c])
            best += log_density(truth[i][c], truth[i][c], 1e-5)
            reference += log_density(truth[i][c], mean, spread)
    expected = (got - reference) / (best - reference)
    assert math.isclose(ariel_score(*answer, "2024"), expected, rel_tol=1e-12)
    assert abs(expected - brute_force(*answer, weight=1.0, ideal_fgs1=1e-5)) > 1e-4
    tensors = [torch.tensor(table, dtype=torch.float64) for table in (mu, sigma, truth, mean, spread)]
    assert math.isclose(1 - float(WeightedGaussianNLL("2024")(*tensors)), expected, rel_tol=1e-12)


def test_naive_pair_may_be_given_per_channel(answer):
    mu, sigma, truth, mean, spread = answer
    pair = np.full(CHANNELS, mean), torch.full((CHANNELS,), spread, dtype=torch.float64)
    per_channel = ariel_score(mu, sigma, truth, *pair)
    assert math.isclose(per_channel, ariel_score(*answer), rel_tol=1e-12)


def test_ideal_is_one_naive_is_zero_and_worse_is_clipped(answer):
    _, _, truth, mean, spread = answer
    truth = np.array(truth)
    ideal = np.full(truth.shape, 1e-5)
    ideal[:, 0] = 1e-6
    assert ariel_score(truth, ideal, truth, mean, spread) == 1.0
    assert ariel_score(np.full_like(truth, mean), np.full_like(truth, spread), truth, mean, spread) == 0.0
    assert ariel_score(truth + 0.01, ideal, truth, mean, spread) == 0.0
    assert ariel_score(truth, ideal / 10, truth, mean, spread) == 1.0


def test_by_hand_weight_of_fgs1():
    """FGS1 ideal, AIRS naive: the score is FGS1's share of the weight, 57.846 / (57.846 + 282)."""
    truth = np.full((1, CHANNELS), 0.01)
    mu, sigma = truth.copy(), np.full_like(truth, 2e-3)
    mu[:, 1:], sigma[:, 0] = 0.012, 1e-6
    assert math.isclose(ariel_score(mu, sigma, truth, 0.012, 2e-3), 57.846 / 339.846, rel_tol=1e-12)


def test_by_hand_one_sigma_off():
    """Perfect mean, sigma ten times ideal, reference at the truth: 1 - ln 10 / ln(naive_sigma / ideal)."""
    truth = np.full((2, CHANNELS), 0.01)
    score = ariel_score(truth, np.full_like(truth, 1e-4), truth, 0.01, 1e-2, "2024")
    assert math.isclose(score, 1 - math.log(10) / math.log(1e3), rel_tol=1e-12)


def test_sigma_is_floored():
    truth = np.full((1, CHANNELS), 0.01)
    assert ariel_score(truth, np.full_like(truth, 1e-300), truth, 0.01, 1e-2) == 1.0


@pytest.mark.parametrize(
    "change, kind, words",
    [
        (lambda a: (np.array(a[0])[:, :282], *a[1:]), SchemaError, "mu has shape"),
        (lambda a: (np.array(a[0]).T, *a[1:]), SchemaError, "mu has shape"),
        (lambda a: (a[0], a[1][:3], *a[2:]), SchemaError, "sigma has shape"),
        (lambda a: (*a[:3], [0.01, 0.02], a[4]), SchemaError, "naive_mean has shape"),
        (lambda a: (a[0], -np.array(a[1]), *a[2:]), SchemaError, "sigma must be positive"),
        (lambda a: (a[0], 0 * np.array(a[1]), *a[2:]), SchemaError, "sigma must be positive"),
        (lambda a: (*a[:4], 0.0), SchemaError, "naive_sigma must be positive"),
        (lambda a: (np.array(a[0]) * np.inf, *a[1:]), NonFiniteError, "mu holds"),
        (lambda a: (*a[:3], math.nan, a[4]), NonFiniteError, "naive_mean is not finite"),
        (lambda a: (np.zeros((0, CHANNELS)), a[1], a[2], *a[3:]), SchemaError, "mu has shape"),
    ],
)
def test_bad_input_is_named(answer, change, kind, words):
    with pytest.raises(kind, match=words):
        ariel_score(*change(answer))


def test_the_place_of_a_bad_value_is_named(answer):
    truth = np.array(answer[2])
    truth[2, 16] = np.nan
    with pytest.raises(NonFiniteError, match=r"row 2, wl_17"):
        ariel_score(answer[0], answer[1], truth, *answer[3:])


def test_unknown_edition_is_a_config_error(answer):
    with pytest.raises(ConfigError, match="2023"):
        ariel_score(*answer, "2023")


def test_loss_is_one_minus_unclipped_score(answer):
    tensors = [torch.tensor(part, dtype=torch.float64) for part in answer]
    assert math.isclose(float(WeightedGaussianNLL()(*tensors)), 1 - brute_force(*answer), rel_tol=1e-12)
    bold = [tensors[0], tensors[1] * 0.02, *tensors[2:]]
    assert float(WeightedGaussianNLL()(*bold)) > 1 and ariel_score(*bold) == 0


def test_loss_without_naive_pair_is_weighted_negative_log_likelihood(answer):
    mu, sigma, truth, *_ = answer
    weights = [57.846] + [1.0] * 282
    total = sum(
        -w * log_density(*values) for rows in zip(truth, mu, sigma) for w, *values in zip(weights, *rows)
    )  # fmt: skip
    tensors = [torch.tensor(part, dtype=torch.float64) for part in (mu, sigma, truth)]
    assert math.isclose(float(WeightedGaussianNLL()(*tensors)), total / sum(weights) / 4, rel_tol=1e-12)


def test_loss_gradient_is_finite_difference(answer):
    mu, sigma, truth, mean, spread = (torch.tensor(part, dtype=torch.float64) for part in answer)
    loss = WeightedGaussianNLL()
    mu.requires_grad_(), sigma.requires_grad_()
    loss(mu, sigma, truth, mean, spread).backward()
    for tensor, name in ((mu, "mu"), (sigma, "sigma")):
        for place in ((0, 0), (2, 100)):
            step = torch.zeros_like(mu)
            step[place] = 1e-8
            with torch.no_grad():
                on_mu, on_sigma = (step, 0 * step) if name == "mu" else (0 * step, step)
                sides = [loss(mu + k * on_mu, sigma + k * on_sigma, truth, mean, spread) for k in (1, -1)]
            assert math.isclose(float(tensor.grad[place]), float(sides[0] - sides[1]) / 2e-8, rel_tol=1e-3)


def test_calibration_by_hand():
    truth = np.zeros((10, CHANNELS))
    mu = np.zeros_like(truth)
    mu[:5, 1:] = 1.5  # half of AIRS 1.5 sigma off: inside 95 %, outside 68 %
    mu[:1, 0] = 3.0  # one FGS1 value in ten outside both
    found = calibration(mu, np.ones_like(truth), truth)
    assert found["AIRS-CH0"] == {"rms_z": math.sqrt(1.5**2 / 2), "coverage_68": 0.5, "coverage_95": 1.0}
    assert found["FGS1"] == {"rms_z": math.sqrt(0.9), "coverage_68": 0.9, "coverage_95": 0.9}


def test_calibration_of_honest_errors():
    rng = np.random.default_rng(0)
    sigma = rng.uniform(1e-5, 1e-3, (3000, CHANNELS))
    found = calibration(sigma * rng.normal(size=sigma.shape), sigma, np.zeros_like(sigma))
    assert abs(found["AIRS-CH0"]["rms_z"] - 1) < 0.005
    assert abs(found["FGS1"]["coverage_68"] - 0.68) < 0.03
    assert abs(found["AIRS-CH0"]["coverage_95"] - 0.95) < 0.002


def test_a_table_that_may_not_be_written_to_is_no_reason_for_a_warning(answer, recwarn):
    """pandas hands out such arrays."""
    mu, sigma, truth, mean, spread = answer
    known = np.array(truth)
    known.setflags(write=False)
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else once a process
    try:
        assert ariel_score(mu, sigma, known, mean, spread) == ariel_score(*answer) and not recwarn.list
    finally:
        torch.set_warn_always(always)


def test_what_is_masked_is_not_finite(answer):
    mu, sigma, truth, mean, spread = answer
    masked = np.ma.masked_array(mu, mask=np.zeros(np.shape(mu), dtype=bool))
    masked[1, 2] = np.ma.masked
    with pytest.raises(NonFiniteError, match="wl_3"):
        ariel_score(masked, sigma, truth, mean, spread)
