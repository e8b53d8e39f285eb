"""A row of the star table that cannot be true costs its planet little, says so, and costs nobody else anything."""

import json
import math
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from corrupt_stars import DAMAGES, damaged, pool
from synthetic_visits import observe

from spectramind_nb.core.errors import SchemaError
from spectramind_nb.learning.planetset import describe
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.physics import fitting
from spectramind_nb.physics.catalogue import believed
from spectramind_nb.physics.fitting import fit_visit
from spectramind_nb.physics.star import star_row
from spectramind_nb.simulation.planets import catalogue_table, draw_planet
from spectramind_nb.simulation.settings import planet_number, settings


def miss(fit, truth):
    "By how many sigma the white depth is off."
    return abs(fit.diagnostics["white_depth"] - truth[1:].mean()) / fit.diagnostics["white_sigma"]


@pytest.fixture(scope="module")
def visit():
    return observe(3, (450, 90), impact=0.2)


WRONG = {
    "P in seconds": {"P": 86400}, "P in minutes": {"P": 1440}, "P in hours": {"P": 24}, "P in years": {"P": 1 / 365.25},
    "P too long": {"P": 3}, "sma in AU": {"sma": 0.0047}, "sma in m": {"sma": 7e8}, "sma below 1": {"sma": 0.09},
    "sma halved": {"sma": 0.5}, "P and sma": {"P": 1440, "sma": 7e8},
    "Rs in km": {"Rs": 695_700}, "i in radians": {"i": math.pi / 180}, "sign of P": {"P": -1}, "e of 60": {"e": 1},
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_an_orbit_that_cannot_be_true_is_worth_as_much_as_none(visit, wrong):
    light_curves, star, truth = visit
    unknown = fit_visit(light_curves, {"Ts": star["Ts"]})
    row = {**star, **{name: star[name] * factor for name, factor in WRONG[wrong].items()}}
    if wrong == "e of 60":
        row["e"] = 60.0
    fit = fit_visit(light_curves, row)
    assert torch.equal(fit.depth, unknown.depth) and torch.equal(fit.covariance, unknown.covariance)
    assert "not believed of" in fit.diagnostics["remark"] and next(iter(WRONG[wrong])) in fit.diagnostics["remark"]
    assert fit.plausible and miss(fit, truth) < 3 and "remark" not in unknown.diagnostics


def test_a_temperature_that_no_star_has_is_not_used(visit):
    light_curves, star, _ = visit
    without = fit_visit(light_curves, {**star, "Ts": math.nan})
    for wrong in (1e6, 56.0, -5600.0, math.inf, 0.0):
        fit = fit_visit(light_curves, {**star, "Ts": wrong})
        assert torch.equal(fit.depth, without.depth) and "Ts is" in fit.diagnostics["remark"]


def test_what_the_star_table_lacks_is_reported(visit):
    light_curves, star, _ = visit
    assert fit_visit(light_curves, {**star, "Mp": math.nan}).diagnostics["remark"].endswith("star table: Mp is no number")


def test_rows_of_simulated_planets_are_believed():
    config = settings()
    rows = catalogue_table([draw_planet(5, planet_number(5, k), config) for k in range(400)], 5, config["catalogue"])
    assert not [doubts for row in rows.to_dict("records") if (doubts := believed(row, 7.5)[1])]


def test_rows_of_real_planets_are_believed(sample_root):
    rows = open_challenge(sample_root).stars("train").to_dict("records")
    assert len(rows) == 1100 and all(believed(row) == (row, []) for row in rows)
    assert sum(believed(row, 7.5)[1] != [] for row in rows) == 2  # of which the table says 7.8 h and 8.2 h


def test_a_transit_longer_than_the_window_is_looked_for_in_the_data(visit):
    light_curves, star, truth = visit
    fit = fit_visit(light_curves, {**star, "P": 12.0, "sma": 11.0, "i": 89.0, "Rs": 2.0})
    assert "in a window of 7.5 h" in fit.diagnostics["remark"] and fit.plausible and miss(fit, truth) < 3


@pytest.mark.parametrize("how", [{"period_d": 12.0, "a_rs": 11.0}, {"eccentricity": 0.8, "periastron_deg": 270.0}])
def test_where_a_transit_fills_the_window_its_depth_is_not_invented(how):
    light_curves, star, truth = observe(1, (450, 90), impact=0.3, mid_time_h=3.75, **how)
    fit = fit_visit(light_curves, star)
    assert miss(fit, truth) < 3 or not fit.plausible


@pytest.mark.parametrize("eccentricity, periastron_deg", [(0.3, 90), (0.3, 270), (0.6, 90), (0.6, 0), (0.6, 270), (0.8, 90), (0.8, 180)])
def test_eccentric_orbits(eccentricity, periastron_deg):
    for seed in (0, 1):
        light_curves, star, truth = observe(seed, (450, 90), impact=0.2, eccentricity=eccentricity, periastron_deg=periastron_deg)
        fit = fit_visit(light_curves, star)
        assert fit.plausible and miss(fit, truth) < 3 and "remark" not in fit.diagnostics


def test_a_circular_orbit_needs_no_eccentricity(visit):
    light_curves, star, _ = visit
    circle = fit_visit(light_curves, star)
    for row in ({**star, "e": math.nan}, {name: value for name, value in star.items() if name != "e"}):
        assert torch.equal(fit_visit(light_curves, row).covariance, circle.covariance)


def test_random_damage_costs_no_time_and_no_truth():
    found = list(damaged(pool(4), 2 * len(DAMAGES) + 3, seed=1))
    assert max(took for _, _, _, _, took, _ in found) < 10
    assert all(fit.plausible for *_, fit in found) and max(abs(white) for _, _, white, *_ in found) < 4
    assert 0.9 < np.mean([np.square(z) for _, _, _, z, _, _ in found]) ** 0.5 < 1.2


def test_features_of_a_wrong_row_are_unknown_and_not_enormous(visit):
    star = visit[1]
    rows = [{**star, "Ts": "hot", "P": None}, *({**star, name: value} for name in star for value in (1e9, -1.0, math.inf, "?"))]
    for row in rows:
        features = np.array(describe(None, row))
        assert (np.isnan(features) | (np.abs(features) < 100)).all()
    assert math.log(5600) in describe(None, star)


@pytest.fixture
def damaged_root(short_root, stores, workspace):
    "The small data set, its light curves in store, with three rows damaged; which planets they are of."
    root, cache = workspace / "root", workspace / "cache"
    shutil.copytree(short_root, root)
    shutil.copytree(stores, cache, ignore=shutil.ignore_patterns("views"))  # which jobs of other tests come and go in
    table = pd.read_csv(root / "train_star_info.csv")
    table = table.astype(object)
    table.loc[0, "P"], table.loc[1, "Ts"], table.loc[2, "sma"] = "5.2 days", 1e6, 0.04
    table.to_csv(root / "train_star_info.csv", index=False)
    return root, cache, [int(planet) for planet in table["planet_id"][:3]]


def test_one_bad_row_costs_nobody_else_anything(damaged_root, short_root, stores, capfd):
    root, cache, bad = damaged_root
    before = fitting.fit(open_challenge(short_root), "train", store_root=stores)
    after = fitting.fit(open_challenge(root), "train", store_root=cache)
    assert list(after) == list(before)
    for visit, fit in after.items():
        assert ("remark" in fit.diagnostics) == (visit.planet_id in bad)
        if visit.planet_id not in bad:
            assert torch.equal(fit.depth, before[visit].depth) and torch.equal(fit.covariance, before[visit].covariance)
    said = capfd.readouterr().err
    assert all(f"train planet {planet} visit 0: " in said for planet in bad)
    faults = open_challenge(root).faults("train")
    assert len(faults) == 1 and "'5.2 days'" in faults[0] and str(bad[0]) in faults[0]


def test_stage_and_report_say_what_is_not_believed(damaged_root, workspace):
    from spectramind_nb import fit
    from spectramind_nb.apps.report_data import flags

    root, _, bad = damaged_root
    train = next(filled for filled in fit(overrides=[f"data.root={root}", "data.workers=1"]) if filled.split == "train")
    said = flags(train, {})
    assert all("not believed" in said[f"planet {planet}, visit 0"] for planet in bad)
    record = json.loads(next((workspace / "logs").glob("invocations/*/audit.json")).read_text())
    assert sorted(record["visits"]["train"]["remarks"]) == sorted(f"{planet} visit 0" for planet in bad)


def test_a_table_with_text_instead_of_a_number_of_a_planet_keeps_the_others(damaged_root):
    root, _, bad = damaged_root
    path = root / "train_star_info.csv"
    table = pd.read_csv(path).astype(object)
    table.loc[0, "planet_id"] = "x"
    table.to_csv(path, index=False)
    stars = open_challenge(root).stars("train")
    assert bad[0] not in stars.index and bad[1] in stars.index and stars.dtypes.eq(np.float64).all()
    assert any(str(bad[0]) in fault for fault in open_challenge(root).faults("train"))


@pytest.mark.parametrize("factor, unit", [(1 / 24, "days"), (60, "minutes"), (3600, "seconds")])
def test_a_data_set_whose_times_are_not_in_hours_is_refused_at_once(short_root, workspace, factor, unit):
    root = shutil.copytree(short_root, workspace / "root", copy_function=os.link)
    axes = pd.read_parquet(root / "axis_info.parquet")
    (root / "axis_info.parquet").unlink()  # or the file would be everybody's
    for name in ("AIRS-CH0-axis0-h", "FGS1-axis0-h"):
        axes[name] *= factor
    axes.to_parquet(root / "axis_info.parquet", index=False)
    from spectramind_nb import fit

    with pytest.raises(SchemaError, match="axis0-h") as error:
        fit(overrides=[f"data.root={root}"])
    assert error.value.exit_code == 10 and unit in str(error.value) and "\n" not in str(error.value)


IMPOSSIBLE = {
    "Rs is 0": {"radius": 0, "mass": 1}, "Rs is -1": {"radius": -1, "mass": 1}, "Ms is -1": {"radius": 1, "mass": -1},
    "Rs is 0,": {"semi_major_axis": 0.05, "radius": 0}, "sma is 0": {"a_rs": 0, "impact": 0.3},
    "sma is 0,": {"semi_major_axis": 0, "radius": 1, "impact": 0}, "P is 1e+200": {"period": 1e200, "radius": 1, "mass": 1},
    "impact parameter is 9": {"a_rs": 8, "impact": 9}, "impact parameter is 'low'": {"a_rs": 8, "impact": "low"},
    "a_rs is 'far'": {"a_rs": "far"},
}  # fmt: skip


@pytest.mark.parametrize("words", IMPOSSIBLE)
def test_a_star_that_cannot_be_is_refused_in_a_sentence(words):
    with pytest.raises(SchemaError, match=re.escape(words)) as error:
        star_row(**{"period": 3, **IMPOSSIBLE[words]})
    assert "\n" not in str(error.value)
