"""Seconds of one core for a simulated visit, beside only writing or reading the same parquet files."""

import tempfile
import time
from pathlib import Path

from spectramind_nb.core.machine import pin_threads


def measure(short: bool, level: str, visits: int) -> dict[str, float]:
    """CPU seconds of one visit after a warm-up, of only writing and reading its frames (best of `visits`); MB on disk."""
    from spectramind_nb.observations.layout import INSTRUMENTS
    from spectramind_nb.observations.signals import read_signal
    from spectramind_nb.observations.writing import write_signal
    from spectramind_nb.simulation.dataset import write_planet
    from spectramind_nb.simulation.planets import draw_planet
    from spectramind_nb.simulation.settings import settings

    config = settings({"switches": {"second_visits": False}})
    n_frames, figures = config["frames"]["short" if short else "full"], {}
    with tempfile.TemporaryDirectory() as name:
        folder, times = Path(name), []
        (folder / "workshop").mkdir()
        write_planet(folder / "warm", draw_planet(0, 0, config), 0, config["frames"]["short"], config, folder / "workshop", level)
        for number in range(1, visits + 1):
            start = time.process_time()
            planet = draw_planet(0, number, config)
            write_planet(folder / str(number), planet, 0, n_frames, config, folder / "workshop", level)
            times.append(time.process_time() - start)
        figures["visit_s"] = min(times)
        figures["size_mb"] = sum(path.stat().st_size for path in (folder / "1").rglob("*") if path.is_file()) / 1e6
        if level == "frames":
            spent = {"writing_s": [], "reading_s": []}
            for number in range(1, visits + 1):
                writing = reading = 0.0
                for instrument in INSTRUMENTS:
                    start = time.process_time()
                    frames = read_signal(folder / str(number) / f"{instrument}_signal_0.parquet", instrument)
                    reading += time.process_time() - start
                    stack = frames.numpy().reshape(frames.n_frames, -1).T.copy()
                    start = time.process_time()
                    write_signal(folder / "again.parquet", stack.T)
                    writing += time.process_time() - start
                spent["writing_s"].append(writing)
                spent["reading_s"].append(reading)
            figures |= {key: min(values) for key, values in spent.items()}
    return figures


def main() -> None:
    """Print the figures of short and full visits, with frames and without."""
    pin_threads(1)
    for name, short, lead in (("short", True, 0.7), ("full", False, 4.0)):
        figures = measure(short, "frames", 5 if short else 3)
        print(
            f"frames, {name} visit: {figures['visit_s']:.2f} s CPU (lead <= {lead} s), "
            f"{figures['visit_s'] / figures['writing_s']:.1f} x only writing its parquet, "
            f"{figures['visit_s'] / figures['reading_s']:.1f} x only reading it, {figures['size_mb']:.0f} MB"
        )
        curves = measure(short, "lightcurves", 20)
        print(
            f"light curves, {name} visit: {curves['visit_s']:.3f} s CPU (lead <= 0.1 s), "
            f"1/{figures['visit_s'] / curves['visit_s']:.0f} of its frames, {curves['size_mb']:.1f} MB"
        )


if __name__ == "__main__":
    main()
