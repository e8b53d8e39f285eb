import math

import astropy.units as u
import batman
import numpy as np
import pytest
import torch
from astropy.time import Time

from spectramind_nb.core.errors import SchemaError
from spectramind_nb.physics.channel_curves import channel_light_curves
from spectramind_nb.physics.transit import (
    duration_h,
    light_curve,
    limb_darkening_shares,
    looks_within,
    occultation,
    occultation_gradients,
    sky_separation,
)

TIME = torch.linspace(-0.16, 0.16, 401, dtype=torch.float64)
PERIOD, A_RS = 4.0, 10.0


def tilt(impact):
    return math.degrees(math.acos(impact / A_RS))


def with_batman(time, inclination, k, u):
    orbit = batman.TransitParams()
    orbit.t0, orbit.per, orbit.a, orbit.inc, orbit.rp = 0.0, PERIOD, A_RS, inclination, k
    orbit.ecc, orbit.w, orbit.u, orbit.limb_dark = 0.0, 90.0, list(u), "quadratic"
    return batman.TransitModel(orbit, time.numpy(), max_err=0.01).light_curve(orbit)


# No impact parameter equals a k: batman is off by up to 130 ppm in the single point z = k, where its formula divides 0 by 0.
@pytest.mark.parametrize("k", [0.005, 0.02, 0.1, 0.16, 0.3])
@pytest.mark.parametrize("impact", [0.0, 0.29, 0.6, 0.9, 0.99, 1.02])
@pytest.mark.parametrize("u", [(0.0, 0.0), (0.1, 0.1), (0.2, 0.5), (0.6, 0.1)])
def test_agrees_with_batman_to_a_tenth_of_a_ppm(k, impact, u):
    ours = light_curve(TIME, 0.0, PERIOD, A_RS, tilt(impact), k, *u).numpy()
    assert np.abs(ours - with_batman(TIME, tilt(impact), k, u)).max() < 1e-7


def brute_force(z, k, power, n=1500):
    r = (torch.arange(n, dtype=torch.float64) + 0.5) / n * k
    angle = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 * math.pi
    x, y = z + r[:, None] * torch.cos(angle), r[:, None] * torch.sin(angle)
    mu2 = 1 - x**2 - y**2
    light = torch.where(mu2 > 0, mu2.clamp(min=0) ** (power / 2), 0.0)
    return float((light * r[:, None]).sum() * (k / n) * (2 * math.pi / n)) / (math.pi / (1 + power / 2))


@pytest.mark.parametrize("z, k", [(0.0, 0.1), (0.45, 0.1), (0.1, 0.1), (0.95, 0.1), (1.0, 0.1), (0.5, 0.5), (0.6, 0.7),
                                  (0.3, 0.7), (1.3, 0.6), (0.7, 1.3), (0.0, 1.5)])
def test_hidden_terms_are_the_integrals_over_the_hidden_part(z, k):
    hidden = occultation(torch.tensor(z, dtype=torch.float64), torch.tensor(k, dtype=torch.float64))
    for power in range(3):
        assert float(hidden[power]) == pytest.approx(brute_force(z, k, power), abs=3e-4 * k**2 + 1e-5 * (k > 0.4))


def test_the_curve_is_smooth_where_the_edge_passes_the_centre():
    z = torch.linspace(0.2999, 0.3001, 11, dtype=torch.float64)  # the middle one is k
    bend = occultation(z, torch.tensor(0.3, dtype=torch.float64)).diff(n=2)
    assert torch.allclose(bend, bend[:, :1], rtol=1e-2, atol=1e-13)


EDGES = {
    "out of transit": (1.5, 0.1), "planet behind the star": (math.inf, 0.1), "no planet": (0.5, 0.0), "concentric": (0.0, 0.1),
    "touching from outside": (1.1, 0.1), "touching from inside": (0.9, 0.1), "grazing": (1.0999999, 0.1),
    "edge at the centre": (0.1, 0.1), "large planet": (0.3, 0.6), "large planet at the centre": (0.6, 0.6),
    "star covered": (0.1, 1.3), "as large as the star": (0.0, 1.0), "half and half": (0.5, 0.5),
}


@pytest.mark.parametrize("name", EDGES)
def test_values_and_gradients_are_finite_and_in_range_at(name):
    z, k = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in EDGES[name])
    hidden = occultation(z, k)
    hidden.sum().backward()
    assert ((hidden >= -1e-15) & (hidden <= 1 + 1e-12)).all()
    assert z.grad.isfinite() and k.grad.isfinite()
    if name in ("out of transit", "planet behind the star", "no planet", "touching from outside"):
        assert not hidden.any() and z.grad == 0 and k.grad == 0
    if name in ("star covered", "as large as the star"):
        assert torch.allclose(hidden, torch.ones(3, dtype=torch.float64))


def test_a_nan_is_not_taken_for_an_empty_sky():
    assert occultation(torch.tensor(math.nan), torch.tensor(0.1)).isnan().all()


@pytest.mark.parametrize("impact, k", [(0.0, 0.1), (0.4, 0.1), (0.95, 0.1), (0.5, 0.6), (0.3, 0.01)])
def test_gradients_agree_with_finite_differences(impact, k):
    time = torch.linspace(-0.15, 0.15, 37, dtype=torch.float64) + 1e-4
    start = torch.tensor([0.001, PERIOD, A_RS, tilt(impact), k, 0.2, 0.3], dtype=torch.float64)

    def curve(p):
        return light_curve(time, *p)

    forward, reverse = torch.func.jacfwd(curve)(start), torch.func.jacrev(curve)(start)
    assert torch.allclose(forward, reverse, atol=1e-12)
    for i, step in enumerate(1e-6 * torch.eye(7, dtype=torch.float64)):
        difference = (curve(start + step) - curve(start - step)) / 2e-6
        # Right at a contact the second derivative is infinite: a finite difference is rounder than the truth there.
        assert torch.allclose(forward[:, i], difference, rtol=1e-4, atol=3e-6 * float(difference.abs().max()) + 1e-9), i


def test_a_planet_with_no_impact_parameter_has_finite_gradients_at_the_centre():
    start = torch.tensor([0.0, PERIOD, A_RS, 90.0, 0.1, 0.2, 0.3], dtype=torch.float64)
    assert torch.func.jacfwd(lambda p: light_curve(torch.zeros(1), *p))(start).isfinite().all()


def test_eclipse_by_the_star_leaves_the_light_as_it_is():
    curve = light_curve(torch.linspace(1.9, 2.1, 21), 0.0, PERIOD, A_RS, 90.0, 0.1, 0.2, 0.3)
    assert (curve == 1).all()


def test_parameters_broadcast_against_time():
    k, t0 = torch.tensor([0.05, 0.1, 0.15]), torch.zeros(2, 1)
    curves = light_curve(TIME, t0, PERIOD, A_RS, 88.0, k, 0.2, torch.full((2, 3), 0.3))
    assert curves.shape == (2, 3, 401) and curves.dtype == torch.float64
    assert torch.equal(curves[1, 2], light_curve(TIME, 0.0, PERIOD, A_RS, 88.0, k[2], 0.2, torch.tensor(0.3)))
    assert light_curve(TIME.expand(4, -1), 0.0, PERIOD, A_RS, 88.0, torch.full((4,), 0.1), 0.2, 0.3).shape == (4, 401)


def test_duration_is_the_time_with_less_light():
    time = torch.linspace(-0.2, 0.2, 40001, dtype=torch.float64)
    dark = (light_curve(time, 0.0, PERIOD, A_RS, 87.0, 0.12, 0.2, 0.3) < 1).double().mean() * 0.4 * 24
    assert float(duration_h(PERIOD, A_RS, 87.0, 0.12)) == pytest.approx(float(dark), abs=1e-3)
    assert duration_h(PERIOD, A_RS, 80.0, 0.12) == 0


def test_separation_is_that_of_a_circle_seen_from_the_side():
    angle = torch.linspace(-1.4, 1.4, 15, dtype=torch.float64)
    i = math.radians(86.0)
    x, y = A_RS * torch.sin(angle), A_RS * torch.cos(angle) * math.cos(i)
    z = sky_separation(angle / (2 * math.pi) * PERIOD, 0.0, PERIOD, A_RS, 86.0)
    assert torch.allclose(z, torch.hypot(x, y))


def test_vmap_gives_what_a_loop_gives():
    z = torch.rand(3, 8, dtype=torch.float64) * 1.2
    k = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)
    together = torch.func.vmap(occultation)(z, k)
    assert torch.equal(together, torch.stack([occultation(zz, kk) for zz, kk in zip(z, k)]))
    assert torch.equal(occultation_gradients(z, k[:, None].expand_as(z))[0], together.movedim(1, 0))


@pytest.mark.parametrize("white", [4e-4, 0.01, 0.025])
def test_channels_near_a_common_depth_agree_with_batman_to_a_ten_thousandth_of_it(white):
    depth = white * torch.linspace(0.988, 1.012, 7, dtype=torch.float64)
    shares = torch.stack([s.expand(7) for s in limb_darkening_shares(0.2, 0.3)])
    z = sky_separation(TIME, 0.0, PERIOD, A_RS, tilt(0.41))
    curves = channel_light_curves(z, depth, shares, torch.tensor(white, dtype=torch.float64))[0]
    for curve, k in zip(curves.T, depth.sqrt().tolist()):
        assert np.abs(curve.numpy() - with_batman(TIME, tilt(0.41), k, (0.2, 0.3))).max() < 1e-4 * white


@pytest.mark.parametrize("minutes", [1, 5, 30, 60])
@pytest.mark.parametrize("period_d, a_rs, impact, k", [
    (4.0, 10.0, 0.35, 0.1), (1.5, 5.0, 0.0, 0.15), (3.0, 8.0, 0.95, 0.2), (0.6, 3.0, 0.3, 0.03),
])
def test_an_exposure_is_the_mean_of_its_moments_to_a_ppm(minutes, period_d, a_rs, impact, k):
    """Half an hour had been 28 ppm off, an hour 78 and more: five looks are too few once the planet moves far meanwhile."""
    exposure_d, orbit = minutes / 1440, (0.0, period_d, a_rs, float(np.degrees(np.arccos(impact / a_rs))), k)
    time = torch.linspace(-0.1, 0.1, 201, dtype=torch.float64)
    moments = (time[:, None] + exposure_d * ((torch.arange(1001, dtype=torch.float64) + 0.5) / 1001 - 0.5)).flatten()
    exact, ours = light_curve(moments, *orbit, 0.2, 0.4), light_curve(time, *orbit, 0.2, 0.4, exposure_d=exposure_d)
    assert (exact.unflatten(-1, (-1, 1001)).mean(-1) - ours).abs().max() < 1e-6


def test_who_looks_at_short_exposures_pays_for_five_looks_and_may_say_how_many():
    assert looks_within(1 / 1440, PERIOD, A_RS) == 5 == looks_within(1e-9, torch.full((2, 3), PERIOD), A_RS) == looks_within(0.1, [], [])
    assert looks_within(9.0, PERIOD, A_RS) == 1000 and looks_within(0.02, float("nan"), A_RS) == 5
    orbit = torch.tensor([0.0, PERIOD, A_RS, 88.0, 0.1, 0.2, 0.3], dtype=torch.float64)
    assert torch.func.jacfwd(lambda p: light_curve(TIME, *p, exposure_d=0.02))(orbit).isfinite().all()
    many = torch.func.vmap(lambda p: light_curve(TIME, *p, exposure_d=0.02, looks=40))(orbit[None])
    assert (many[0] - light_curve(TIME, *orbit, exposure_d=0.02)).abs().max() < 1e-6


DAYS = TIME.numpy()
SAME = {  # TIME, an orbit and an exposure in other words
    "radians": {"inclination_deg": (88.0 * u.deg).to(u.rad)}, "hours": {"time_d": (DAYS * u.day).to(u.hour), "period_d": 96 * u.hour},
    "times": {"time_d": Time(DAYS, 2459000.0, format="jd"), "t0_d": Time(2459000.0, format="jd")},
    "bytes of a FITS file": {"time_d": DAYS.astype(">f8")}, "backwards": {"time_d": DAYS[::-1]}, "text": {"exposure_d": "28.8 min"},
    "no unit": {"rp_rs": 10 * u.percent, "a_rs": u.Quantity(10.0)},
}  # fmt: skip


@pytest.mark.parametrize("words", SAME)
def test_a_light_curve_knows_units_and_any_array(words):
    """Radians had been taken for degrees, and hours for days, without a word."""
    plain = dict(time_d=TIME, t0_d=0.0, period_d=4.0, a_rs=10.0, inclination_deg=88.0, rp_rs=0.1, u1=0.2, u2=0.3, exposure_d=0.02)
    assert (light_curve(**plain | SAME[words]) - light_curve(**plain)).abs().max() < 1e-9


def test_a_wrong_unit_of_an_orbit_is_told():
    with pytest.raises(SchemaError, match="the period is given in kg"):
        light_curve(TIME, 0.0, 4.0 * u.kg, 10.0, 88.0, 0.1, 0.2, 0.3)
    with pytest.raises(SchemaError, match="a_rs is given in km"):
        light_curve(TIME, 0.0, 4.0, 1e6 * u.km, 88.0, 0.1, 0.2, 0.3)
    in_hours = duration_h(96 * u.hour, 10.0, (88.0 * u.deg).to(u.rad), 0.1)
    assert float(in_hours) == pytest.approx(float(duration_h(4.0, 10.0, 88.0, 0.1)), rel=1e-9)


GOOD = dict(time_d=TIME, t0_d=0.0, period_d=4.0, a_rs=10.0, inclination_deg=88.0, rp_rs=0.1, u1=0.2, u2=0.3)


@pytest.mark.parametrize("wrong, words", [
    ({"exposure_d": -0.01}, "the exposure is -0.01 days"), ({"exposure_d": math.nan}, "the exposure is nan days"),
    ({"a_rs": 1.0}, "a_rs is not a number above 1"), ({"a_rs": [10.0, -10.0]}, "a_rs is"),
    ({"a_rs": math.inf}, "a_rs is"), ({"a_rs": math.nan}, "a_rs is"),
    ({"period_d": 0.0}, "the period is not a positive"), ({"period_d": -4.0, "exposure_d": 0.02}, "the period is not"),
    ({"rp_rs": torch.tensor([0.1, -0.1], requires_grad=True)}, "rp_rs is negative"),
    ({"time_d": None}, "the time is not given"), ({"u1": None}, "u1 is not given"),
    ({"rp_rs": [0.1, 0.1], "u1": [0.2, 0.2, 0.2]}, "u1 has the shape .3,., and what is before it .2,."),
    ({"time_d": TIME.expand(3, -1), "rp_rs": [0.1, 0.1]}, "rp_rs has the shape .2,., and what is before it .3,."),
])  # fmt: skip
def test_a_transit_that_cannot_be_is_refused(wrong, words):
    with pytest.raises(SchemaError, match=words):
        light_curve(**GOOD | wrong)


@pytest.mark.parametrize("exposure_d", [0.0, 0.02])
def test_an_unknown_moment_has_an_unknown_flux(exposure_d):
    """And no other: it had been 1."""
    time = TIME.clone()
    time[[3, 200]] = math.nan
    flux = light_curve(**GOOD | {"time_d": time}, exposure_d=exposure_d)
    assert torch.equal(flux.isnan(), time.isnan())
    assert light_curve(**GOOD | {"inclination_deg": math.nan}, exposure_d=exposure_d).isnan().all()
    assert float(light_curve(**GOOD | {"time_d": 0.0}, exposure_d=exposure_d)) == pytest.approx(float(flux[199]), abs=1e-4)


def test_checks_of_an_orbit_leave_vmap_and_gradients_as_they_are():
    orbits = torch.tensor([[0.0, PERIOD, A_RS, 88.0, 0.1, 0.2, 0.3], [0.01, 3.0, 8.0, 87.0, 0.05, 0.1, 0.4]], dtype=torch.float64)
    one_by_one = torch.stack([light_curve(TIME, *orbit) for orbit in orbits])
    assert torch.equal(torch.func.vmap(lambda p: light_curve(TIME, *p))(orbits), one_by_one)
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda p: light_curve(TIME, *p)))(orbits)
    backward = torch.func.vmap(torch.func.jacrev(lambda p: light_curve(TIME, *p)))(orbits)
    assert jacobian.isfinite().all() and torch.allclose(jacobian, backward)
