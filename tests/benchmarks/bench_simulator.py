"""Seconds per simulated visit on one core, and the share that only writing its files takes."""

import time

from spectramind_nb.core.environment import pin_threads


def measure(short: bool) -> dict[str, float]:
    """CPU seconds of one visit after a warm-up: all, and the files alone."""
    import tempfile
    from pathlib import Path

    from spectramind_nb.observations.challenge import INSTRUMENTS, write_signal
    from spectramind_nb.physics.simulator import draw_circumstances, simulate, visit_frames
    from spectramind_nb.physics.spectra import draw_planet, settings

    with tempfile.TemporaryDirectory() as folder:
        once = {"population": {"second_visit": 0.0}}
        simulate(Path(folder) / "warm", 1, 0, short=True, config=once, workers=1)
        start = time.process_time()
        simulate(Path(folder) / "root", 1, 0, short=short, config=once, workers=1)
        whole = time.process_time() - start
        config = settings(once)
        planet, writing = draw_planet(0, 1, config), 0.0
        for name in INSTRUMENTS:
            n = config["frames"]["short" if short else "full"][name]
            frames, _ = visit_frames(planet, draw_circumstances(0, 1, 0, config), name, n, 0, config)
            start = time.process_time()
            write_signal(Path(folder) / f"{name}.parquet", frames.T)
            writing += time.process_time() - start
        size_mb = sum(path.stat().st_size for path in (Path(folder) / "root" / "train").rglob("*.parquet")) / 1e6
    return {"visit_s": whole, "writing_s": writing, "size_mb": size_mb}


def main() -> None:
    """Print the figures of short and full visits."""
    pin_threads(1)
    for name, short, lead in (("short", True, 0.7), ("full", False, 5.0)):
        figures = measure(short)
        print(
            f"simulate, {name} visit: {figures['visit_s']:.2f} s CPU (lead <= {lead} s), "
            f"{figures['visit_s'] / figures['writing_s']:.1f} x only writing its frames, {figures['size_mb']:.0f} MB"
        )


if __name__ == "__main__":
    main()
