"""Transit curves with gradients against batman, and the time of a visit's fit. Prints, never asserts."""

import sys
import time
from pathlib import Path

import batman
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "physics"))
from synthetic_visits import observe

from spectramind_nb.physics.channel_curves import channel_light_curves
from spectramind_nb.physics.fitting import fit_visit
from spectramind_nb.physics.transit import (
    light_curve,
    limb_darkening_shares,
    occultation_gradients,
    sky_separation,
)


def best_of(n, work):
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main():
    torch.set_num_threads(1)
    time_d, k = torch.linspace(-0.156, 0.156, 1125, dtype=torch.float64), torch.linspace(0.0995, 0.1005, 283, dtype=torch.float64)
    orbit = batman.TransitParams()
    orbit.t0, orbit.per, orbit.a, orbit.inc, orbit.ecc, orbit.w = 0.0, 4.0, 10.0, 88.0, 0.0, 90.0
    orbit.rp, orbit.u, orbit.limb_dark = 0.1, [0.15, 0.25], "quadratic"
    reference = batman.TransitModel(orbit, time_d.numpy())

    def with_batman():
        curves = np.empty((283, 1125))
        for i, radius in enumerate(k.tolist()):
            orbit.rp = radius
            curves[i] = reference.light_curve(orbit)
        return curves

    def one_by_one():
        z = sky_separation(time_d, 0.0, 4.0, 10.0, 88.0).expand(283, -1)
        return occultation_gradients(z, k[:, None].expand_as(z))

    depth = k**2
    shares = torch.stack([s.expand(283) for s in limb_darkening_shares(0.15, 0.25)])

    def together():
        z = sky_separation(time_d, 0.0, 4.0, 10.0, 88.0)
        flux, _, by_z, by_depth = channel_light_curves(z, depth, shares, depth.mean())
        return flux, by_z @ shares, by_depth @ shares

    curves = with_batman()
    batman_s, differences_s = best_of(5, with_batman), best_of(2, lambda: [with_batman() for _ in range(8)])
    exact_s, channels_s = best_of(5, one_by_one), best_of(9, together)
    exact_ppm = 1e6 * np.abs(curves - light_curve(time_d, 0.0, 4.0, 10.0, 88.0, k, 0.15, 0.25).numpy()).max()
    channels_ppm = 1e6 * np.abs(curves - together()[0].numpy().T).max()
    print("283 transit curves of 1,125 times, one thread")
    print(f"  batman, no gradients                           {1e3 * batman_s:7.1f} ms")
    print(f"  batman, 7 derivatives by forward differences   {1e3 * differences_s:7.1f} ms")
    for name, seconds, ppm in (("each channel by itself, with gradients", exact_s, exact_ppm),
                               ("channel_light_curves, with gradients", channels_s, channels_ppm)):
        print(f"  {name:46s} {1e3 * seconds:7.1f} ms   {differences_s / seconds:6.1f} x as fast as batman with differences, "
              f"{batman_s / seconds:5.1f} x without; {ppm:.3f} ppm apart")
    for name, bins in (("full", (3375, 1125)), ("short", (900, 180))):
        light_curves, star, _ = observe(1, bins=bins)
        print(f"fit of one {name} visit, depths and covariance {best_of(3, lambda: fit_visit(light_curves, star)):8.2f} s")


if __name__ == "__main__":
    main()
