"""Random damage to rows of star tables, and what becomes of the fits: run as a script, it prints a table of 1,000."""

import math
import sys
import time
from collections import defaultdict

import numpy as np
import torch
from synthetic_visits import observe

from spectramind_nb.core.machine import peak_memory_gb
from spectramind_nb.physics.fitting import fit_visit

COLUMNS = ("Rs", "Ms", "Ts", "Mp", "e", "P", "sma", "i")
UNITS = {  # what a column is multiplied with when its unit is mistaken
    "P": (24, 1440, 86400, 1 / 365.25, 1 / 24), "sma": (1 / 215, 695_700, 6.957e8, 0.1, 10), "i": (math.pi / 180, 60, 180 / math.pi),
    "Rs": (695_700, 6.957e8, 109, 1 / 109, 9.95), "Ms": (1.989e30, 1047, 333_000), "Ts": (1e3, 1e-3, 180),
    "Mp": (318, 1e-3), "e": (100, 180),
}  # fmt: skip


def units(row, rng):
    name = rng.choice(COLUMNS)
    return {**row, name: row[name] * rng.choice(UNITS[name])}


def several_units(row, rng):
    for name in rng.choice(COLUMNS, 3, replace=False):
        row = {**row, name: row[name] * rng.choice(UNITS[name])}
    return row


def swap(row, rng):
    one, other = rng.choice(COLUMNS, 2, replace=False)
    return {**row, one: row[other], other: row[one]}


def shuffle(row, rng):
    return dict(zip(COLUMNS, rng.permutation([row[name] for name in COLUMNS])))


def sign(row, rng):
    name = rng.choice(COLUMNS)
    return {**row, name: -row[name]}


def of(*values):
    def replaced(row, rng):
        chosen = rng.choice(COLUMNS, rng.integers(1, 4), replace=False)
        return {**row, **{name: values[rng.integers(len(values))] for name in chosen}}

    return replaced


def magnitude(row, rng):
    name = rng.choice(COLUMNS)
    return {**row, name: row[name] * 10 ** rng.uniform(-9, 9)}


def random(row, rng):
    return {**row, **{name: 10 ** rng.uniform(-3, 6) for name in rng.choice(COLUMNS, 2, replace=False)}}


DAMAGES = {
    "units": units, "several units": several_units, "swap": swap, "shuffle": shuffle, "sign": sign, "NaN": of(math.nan),
    "text": of("n/a", "", "5.2 d", None), "infinity": of(math.inf, -math.inf), "zero": of(0.0), "magnitude": magnitude, "random": random,
}  # fmt: skip


def pool(visits=16, bins=(450, 90)):
    """Visits of ordinary planets, each with its true depths and how long its fit takes with the row as it should be."""
    made = []
    for seed in range(1000, 1000 + visits):
        light_curves, star, truth = observe(seed, bins)
        begun = time.thread_time()
        fit_visit(light_curves, star)
        made.append((light_curves, star, truth, time.thread_time() - begun))
    return made


def damaged(visits, count, seed=0):
    """For each of `count` damaged rows: kind, row, z of the white depth, of all channels, time over the median of undamaged rows, fit."""
    rng, usual = np.random.default_rng(seed), np.median([visit[3] for visit in visits])
    for number in range(count):
        kind = list(DAMAGES)[number % len(DAMAGES)]
        light_curves, star, truth, _ = visits[rng.integers(len(visits))]
        row = DAMAGES[kind](star, rng)
        begun = time.thread_time()
        fit = fit_visit(light_curves, row)
        took = (time.thread_time() - begun) / usual
        white = (fit.diagnostics["white_depth"] - truth[1:].mean()) / fit.diagnostics["white_sigma"]
        yield kind, row, white, ((fit.depth - torch.from_numpy(truth)) / fit.sigma).numpy(), took, fit


def main(count):
    torch.set_num_threads(1)
    seen = defaultdict(list)
    for kind, row, white, z, took, fit in damaged(pool(), count):
        seen[kind].append((white, np.square(z).mean(), took, "remark" in fit.diagnostics, fit.plausible))
        if abs(white) > 3.5 or took > 8 or not fit.plausible:
            print(f"  {kind}: z {white:.1f}, {took:.1f} x the usual time, {row}", flush=True)
    print(f"{'damage':14} {'rows':>5} {'doubted':>8} {'implausible':>12} {'rms z white':>12} {'rms z':>6} {'longest':>8}")
    for kind, rows in [*seen.items(), ("all", sum(seen.values(), []))]:
        white, squares, took, doubted, plausible = map(np.array, zip(*rows))
        print(f"{kind:14} {len(rows):5} {doubted.sum():8} {(~plausible).sum():12} {np.square(white).mean() ** 0.5:12.2f} "
              f"{squares[plausible].mean() ** 0.5:6.2f} {took.max():7.1f}x")
    print(f"most memory: {peak_memory_gb():.2f} GB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
