"""Files as ExoSim 2.2.1's CreateNDRs writes them: the same names, types and attributes, with numbers that a test chooses."""

from pathlib import Path

import h5py
import numpy as np

from spectramind_nb.observations.layout import airs_wavelengths_um

GAIN, OFFSET = 0.4369, -1000
SHAPE = {"FGS1": (32, 32), "AIRS-CH0": (32, 356)}
READ_S = {"FGS1": (0.1, 0.1), "AIRS-CH0": (0.1, 4.5)}  # from the reset to the first read, from there to the second
DETECTOR = """<detector><dark_current>True</dark_current><dc_task>AddDarkCurrentMapNumpy</dc_task>
  <dc_map_filename>__ConfigPath__/{name}_dark.npy</dc_map_filename><read_noise>True</read_noise>
  <read_noise_task>AddNormalReadNoise</read_noise_task><read_noise_sigma unit="ct">13.0</read_noise_sigma></detector>"""
SKY = """<root><source> star <source_target>True</source_target><R unit="R_sun">1.1</R><M unit="M_sun">1.05</M><T unit="K">5800</T>
  <planet> b <period unit="hour">69.6</period><sma>16.0</sma><inc unit="deg">88.6</inc><ecc>0.0</ecc>
  <rp>__ConfigPath__/rp.ecsv</rp></planet></source></root>"""
RADIUS = """# %ECSV 1.0
# ---
# delimiter: ','
# datatype:
# - {name: Wavelength, unit: nm, datatype: float64}
# - {name: rp/rs, datatype: float64}
Wavelength,rp/rs
400.0,0.09
2000.0,0.10
4700.0,0.11
"""


def start_times_h(name: str, pairs: int, minutes: float = 75.0) -> np.ndarray:
    """When integrations start: pairs spread over the visit, the first read 0.1 s and the second 0.2 s after each reset."""
    return ((np.arange(pairs) * 60 * minutes / pairs)[:, None] + [0.1, 0.2]).ravel() / 3600


def digitised(electrons: np.ndarray) -> np.ndarray:
    """What ExoSim's converter makes of a charge."""
    return np.clip(np.floor((electrons - OFFSET) * GAIN), 0, 65535).astype(np.uint16)


def channel(name: str, pairs: int = 12, seed: int = 5) -> dict[str, np.ndarray]:
    """Every data set of one channel, with frames of noise."""
    rng, shape, times = np.random.default_rng([seed, len(name)]), SHAPE[name], start_times_h(name, pairs)
    return {
        "NDRs/data": rng.integers(3000, 9000, (2 * pairs, *shape), dtype=np.uint16), "NDRs/data_units": b"adu",
        "NDRs/time": times, "NDRs/time_units": b"h", "NDRs/spectral_units": b"um",
        "NDRs/spectral": airs_wavelengths_um() if name == "AIRS-CH0" else np.linspace(0.56, 4.32, 32),
        "NDRs/metadata/ADC/gain": GAIN, "NDRs/metadata/ADC/offset": OFFSET, "NDRs/metadata/n_groups_per_ramp": 2,
        "NDRs/metadata/integration_times/value": np.tile(READ_S[name], pairs), "NDRs/metadata/integration_times/unit": b"s",
        "simulation_data/dead_pixel_map/dead_pixel_map": rng.random(shape) < 0.003,
        "simulation_data/qe_variation_map/data": rng.normal(1, 0.03, (1, *shape)),
        "simulation_data/pixel_non_linearity/map": bent(rng, shape),
        "simulation_data/efficiency/spectral": np.geomspace(0.5, 4.4, 400), "simulation_data/efficiency/data": band(name)[None, None],
    }  # fmt: skip


def bent(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:  # (5, rows, columns)
    """A charge Q is seen as Q times a polynomial of fourth order: a tenth too little at a full well."""
    c = 1e-6 * (1 + 0.05 * rng.standard_normal(shape))
    return np.stack([1 + 0.005 * rng.standard_normal(shape), -c / 2, c**2 / 6, -(c**3) / 24, c**4 / 120])


def band(name: str) -> np.ndarray:  # (400,)
    """What a channel transmits."""
    um, (first, last) = np.geomspace(0.5, 4.4, 400), (0.6, 0.8) if name == "FGS1" else (1.9, 3.95)
    return ((um > first) & (um < last)) * 0.5


def write_ndrs(path: Path, channels: dict[str, dict], version: str = "2.2.1", program: str = "ExoSim 2") -> Path:
    """A file with these channels, and ExoSim's options beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update({"program_name": program, "program_version": version, "creator": "HDF5Output"})
        for name, named in channels.items():
            for place, values in named.items():
                file[f"channels/{name}/{place}"] = values
    write_options(path.parent)
    return path


def write_options(folder: Path, place: str = "/where/it/was/simulated") -> Path:
    """ExoSim's options, as CreateNDRs copies them beside its output."""
    for name, shape in SHAPE.items():
        (folder / f"{name}.xml").write_text(f"<root>{DETECTOR.format(name=name)}</root>")
        np.save(folder / f"{name}_dark.npy", np.random.default_rng(len(name)).lognormal(-5, 0.5, shape))
    (folder / "sky.xml").write_text(SKY)
    (folder / "rp.ecsv").write_text(RADIUS)
    named = "".join(f"<channel>{name}<config>__ConfigPath__/{name}.xml</config></channel>" for name in SHAPE)
    (folder / "payload.xml").write_text(f"<root>{named}</root>")
    main = f"""<root><ConfigPath>{place}</ConfigPath><sky><config>__ConfigPath__/sky.xml</config></sky>
      <payload><config>__ConfigPath__/payload.xml</config></payload></root>"""
    (folder / "main.xml").write_text(main)
    return folder / "main.xml"
