"""Seconds per simulated visit on one core, and the share that only writing its files takes."""

import time

from spectramind_nb.core.environment import pin_threads


def measure(short: bool, visits: int) -> dict[str, float]:
    """CPU seconds of one visit after a warm-up: all, and writing its frames alone; MB on disk."""
    import tempfile
    from pathlib import Path

    from spectramind_nb.observations.challenge import INSTRUMENTS, write_signal
    from spectramind_nb.physics.simulator import draw_circumstances, visit_frames, write_planet
    from spectramind_nb.physics.spectra import draw_planet, settings

    config = settings({"population": {"second_visit": 0.0}})
    n_frames = config["frames"]["short" if short else "full"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "workshop").mkdir()
        warm = draw_planet(0, 0, config)
        write_planet(folder / "warm", warm, 0, config["frames"]["short"], config, folder / "workshop")
        start = time.process_time()
        for number in range(1, visits + 1):
            planet = draw_planet(0, number, config)
            write_planet(folder / str(number), planet, 0, n_frames, config, folder / "workshop")
        whole, writing = time.process_time() - start, 0.0
        circumstances = draw_circumstances(0, visits, 0, config)
        for instrument in INSTRUMENTS:
            frames, _ = visit_frames(planet, circumstances, instrument, n_frames[instrument], 0, config)
            start = time.process_time()
            write_signal(folder / "frames.parquet", frames.T)
            writing += time.process_time() - start
        size_mb = sum(path.stat().st_size for path in (folder / "1").rglob("*.parquet")) / 1e6
    return {"visit_s": whole / visits, "writing_s": writing, "size_mb": size_mb}


def main() -> None:
    """Print the figures of short and full visits."""
    pin_threads(1)
    for name, short, lead in (("short", True, 0.7), ("full", False, 5.0)):
        figures = measure(short, 5 if short else 1)
        print(
            f"simulate, {name} visit: {figures['visit_s']:.2f} s CPU (lead <= {lead} s), "
            f"{figures['visit_s'] / figures['writing_s']:.1f} x only writing its frames, {figures['size_mb']:.0f} MB"
        )


if __name__ == "__main__":
    main()
