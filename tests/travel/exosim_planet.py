"""A planet through ExoSim, in the competition's shapes, where ExoSim 2.2 is installed (Python 3.12):

    python exosim_planet.py FOLDER                      half a minute without noise, for the tests
    python exosim_planet.py FOLDER --hours 3 --noise    a transit as a telescope sees it, 2 minutes and 1.2 GB of memory

It leaves `ndrs.h5` and its options, `se.h5` (the light that each read collected) and `fp.h5`. Without noise only the maps of the
detectors are random, so that what ExoSim did to the light can be told exactly.
"""

import argparse
import os
from pathlib import Path

import numpy as np

os.environ.setdefault("NUMBA_NUM_THREADS", "1")
PIXEL_UM, SUBPIXELS, WIDTH = 18.0, 3, {"AIRS-CH0": 356, "FGS1": 32}
CLOCKS = {"AIRS-CH0": 45, "FGS1": 1}  # of 0.1 s, between the two reads
BAND_UM = {"AIRS-CH0": (1.6, 4.09), "FGS1": (0.6, 0.8)}
WELL = 100_000  # electrons


def table(path: Path, **columns) -> None:
    """A table as ExoSim reads it, lengths in micrometres."""
    from astropy import units
    from astropy.table import QTable

    of = {name: units.um if name in ("Wavelength", "x", "y") else units.dimensionless_unscaled for name in columns}
    QTable({name: values * of[name] for name, values in columns.items()}).write(path, format="ascii.ecsv", delimiter=",", overwrite=True)


def detector(folder: Path, name: str, noise: bool) -> str:
    """The options of a detector; its maps go into files."""
    rng, shape = np.random.default_rng(len(name)), (32, WIDTH[name])
    dark, dead, flat = rng.lognormal(-5, 0.5, shape), rng.random(shape) < 0.003, rng.normal(1, 0.03, (1, *shape))
    c = 1e-6 * (1 + 0.05 * rng.standard_normal(shape))
    bent = np.stack([1 + 0.005 * rng.standard_normal(shape), -c / 2, c**2 / 6])
    for what, values in (("dark", dark), ("dead", dead), ("flat", flat), ("bent", bent)):
        np.save(folder / f"{name}_{what}.npy", values)
    place = f"__ConfigPath__/{name}"
    return f"""<detector>
      <plate_scale><spatial unit="arcsec/micron">0.01</spatial><spectral unit="arcsec/micron">0.01</spectral></plate_scale>
      <delta_pix unit="micron">{PIXEL_UM}</delta_pix><spatial_pix>32</spatial_pix><spectral_pix>{WIDTH[name]}</spectral_pix>
      <oversampling>{SUBPIXELS}</oversampling><convolution_method>fftconvolve</convolution_method>
      <irf_task>CreateIntrapixelResponseFunction</irf_task><diffusion_length unit="micron">1.7</diffusion_length>
      <intra_pix_distance unit="micron">0.0</intra_pix_distance><ils_task>LoadILS</ils_task>
      <add_background_to_se>True</add_background_to_se><add_foregrounds_to_se>True</add_foregrounds_to_se>
      <qe_map_task>LoadQeMapNumpy</qe_map_task><qe_map_filename>{place}_flat.npy</qe_map_filename>
      <well_depth unit="count">{WELL}</well_depth><f_well_depth>1.0</f_well_depth>
      <dark_current>True</dark_current><dc_task>AddDarkCurrentMapNumpy</dc_task><dc_map_filename>{place}_dark.npy</dc_map_filename>
      <shot_noise>{noise}</shot_noise><cosmic_rays>False</cosmic_rays>
      <ktc_offset>{noise}</ktc_offset><ktc_offset_task>AddKTC</ktc_offset_task><ktc_sigma unit="ct">10</ktc_sigma>
      <gain_drift>{noise}</gain_drift><gain_drift_task>AddGainDrift</gain_drift_task><gain_drift_amplitude>0.001</gain_drift_amplitude>
      <gain_coeff_order_t>3</gain_coeff_order_t><gain_coeff_t_min>-1.0</gain_coeff_t_min><gain_coeff_t_max>1.0</gain_coeff_t_max>
      <gain_coeff_order_w>{3 * (name != "FGS1")}</gain_coeff_order_w><gain_coeff_w_min>-1.0</gain_coeff_w_min>
      <gain_coeff_w_max>1.0</gain_coeff_w_max>
      <dead_pixels>True</dead_pixels><dp_map_task>ApplyDeadPixelMapNumpy</dp_map_task><dp_map_filename>{place}_dead.npy</dp_map_filename>
      <pixel_non_linearity>True</pixel_non_linearity><pnl_task>ApplyPixelsNonLinearity</pnl_task>
      <pnl_map_task>LoadPixelsNonLinearityMapNumpy</pnl_map_task><pnl_filename>{place}_bent.npy</pnl_filename>
      <saturation>True</saturation><sat_task>ApplySimpleSaturation</sat_task>
      <read_noise>True</read_noise><read_noise_task>AddNormalReadNoise</read_noise_task>
      <read_noise_sigma unit="ct">{13.0 if noise else 0.01}</read_noise_sigma>
      <ADC>True</ADC><ADC_num_bit>16</ADC_num_bit><ADC_gain>0.4369</ADC_gain><ADC_offset>-1000</ADC_offset>
      <ADC_round_method>floor</ADC_round_method></detector>"""


def channel(folder: Path, name: str, noise: bool) -> str:
    """The options of a channel."""
    spectrometer, (first, last) = name == "AIRS-CH0", BAND_UM[name]
    um = np.linspace(0.45, 4.6, 500)
    table(folder / f"{name}_band.ecsv", Wavelength=um, Transmission=0.5 * ((um > first) & (um < last)), Emissivity=0.03 + 0 * um)
    told = "<wl_solution_task>LoadWavelengthSolution</wl_solution_task><datafile>__ConfigPath__/airs_um.ecsv</datafile>"
    return f"""<root><type>{'spectrometer' if spectrometer else 'photometer'}</type>{'<targetR>100</targetR>' if spectrometer else ''}
      <wl_min unit="micron">{first}</wl_min><wl_max unit="micron">{last}</wl_max>
      <optical_path><opticalElement>{name}-band<type>filter</type><task_model>LoadOpticalElement</task_model>
        <temperature unit="K">60</temperature><datafile>__ConfigPath__/{name}_band.ecsv</datafile>
        <wavelength_key>Wavelength</wavelength_key><emissivity_key>Emissivity</emissivity_key>
        <efficiency_key>Transmission</efficiency_key></opticalElement></optical_path>
      <Fnum_x>{17.5 if spectrometer else 75}</Fnum_x><Fnum_y>{12 if spectrometer else 60}</Fnum_y>{detector(folder, name, noise)}
      <readout><readout_frequency unit="Hz">10</readout_frequency><n_NRDs_per_group>1</n_NRDs_per_group><n_groups>2</n_groups>
        <n_sim_clocks_Ground>1</n_sim_clocks_Ground><n_sim_clocks_first_NDR>1</n_sim_clocks_first_NDR>
        <n_sim_clocks_Reset>1</n_sim_clocks_Reset><n_sim_clocks_groups>{CLOCKS[name]}</n_sim_clocks_groups></readout>
      <qe><responsivity_task>LoadResponsivity</responsivity_task><datafile>__ConfigPath__/qe.ecsv</datafile></qe>
      {f'<wl_solution>{told}</wl_solution>' if spectrometer else ''}<psf><shape>Airy</shape><nzero>4</nzero></psf></root>"""


def write_options(folder: Path, hours: float, noise: bool) -> Path:
    """All that ExoSim is told, in files of the folder; the main one is returned."""
    um, columns = np.linspace(0.45, 4.6, 500), np.arange(-4, 361)
    table(folder / "mirror.ecsv", Wavelength=um, Reflectivity=0.9 + 0 * um, Emissivity=0.03 + 0 * um)
    table(folder / "qe.ecsv", **{"Wavelength": um} | {name: 0.65 + 0 * um for name in WIDTH})
    table(folder / "rp.ecsv", **{"Wavelength": um, "rp/rs": 0.1 + 0.005 * np.exp(-0.5 * ((um - 2.7) / 0.15) ** 2)})
    axis_um, place_um = 4.08 - 0.0068 * columns, (columns * SUBPIXELS + SUBPIXELS // 2) * PIXEL_UM / SUBPIXELS
    table(folder / "airs_um.ecsv", Wavelength=axis_um, x=place_um, y=0.0 * columns)
    for name in WIDTH:
        (folder / f"{name}.xml").write_text(channel(folder, name, noise))
    (folder / "payload.xml").write_text(f"""<root><Telescope>Telescope<Atel unit="m**2">0.63</Atel><optical_path>
      <opticalElement>M1<task_model>LoadOpticalElement</task_model><datafile>__ConfigPath__/mirror.ecsv</datafile>
      <temperature unit="K">70</temperature><wavelength_key>Wavelength</wavelength_key><emissivity_key>Emissivity</emissivity_key>
      <efficiency_key>Reflectivity</efficiency_key></opticalElement></optical_path></Telescope>
      {''.join(f'<channel>{name}<config>__ConfigPath__/{name}.xml</config></channel>' for name in WIDTH)}</root>""")
    (folder / "sky.xml").write_text(f"""<root><source>star<source_target>True</source_target><source_type>planck</source_type>
      <R unit="R_sun">0.75</R><M unit="M_sun">0.8</M><T unit="K">4900</T><D unit="pc">27</D><z unit="">0.0</z>
      <planet>b<signal_task>EstimatePlanetarySignal</signal_task><t0 unit="hour">{hours / 2}</t0>
      <period unit="day">1.0</period><sma>5.21</sma><inc unit="deg">87.0</inc><w unit="deg">90.0</w><ecc>0.0</ecc>
      <rp>__ConfigPath__/rp.ecsv</rp><limb_darkening>quadratic</limb_darkening>
      <limb_darkening_coefficients>[0.3, 0.2]</limb_darkening_coefficients>
      </planet></source></root>""")
    main, shake = folder / "main.xml", 0.1 * PIXEL_UM * 0.01  # arcsec: a tenth of a pixel
    pointing = f"""<jitter><jitter_task>EstimatePointingJitter</jitter_task><spatial unit="arcsec">{shake}</spatial>
      <spectral unit="arcsec">{shake}</spectral><frequency_resolution unit="Hz">10</frequency_resolution></jitter>"""
    main.write_text(f"""<root><ConfigPath>{folder}</ConfigPath>
      <wl_grid><wl_min unit="micron">0.5</wl_min><wl_max unit="micron">4.4</wl_max>
        <logbin_resolution unit="">2000</logbin_resolution></wl_grid>
      <time_grid><start_time unit="hour">0.0</start_time><end_time unit="hour">{hours}</end_time>
        <low_frequencies_resolution unit="hour">{hours}</low_frequencies_resolution></time_grid>{pointing if noise else ''}
      <pointing><ra>22h03m10.8s</ra><dec>+18d53m04s</dec></pointing>
      <sky><config>__ConfigPath__/sky.xml</config></sky><payload><config>__ConfigPath__/payload.xml</config></payload></root>""")
    return main


def simulate(folder: Path, hours: float, noise: bool, seed: int) -> None:
    """Focal plane, sub-exposures, NDRs."""
    import exosim.recipes as recipes
    from exosim.utils import RunConfig

    folder.mkdir(parents=True, exist_ok=True)
    RunConfig.n_job, RunConfig.chunk_size, RunConfig.random_seed = 1, 64, seed
    main = str(write_options(folder, hours, noise))
    recipes.CreateFocalPlane(main, str(folder / "fp.h5"))
    recipes.CreateSubExposures(input_file=str(folder / "fp.h5"), output_file=str(folder / "se.h5"), options_file=main)
    recipes.CreateNDRs(input_file=str(folder / "se.h5"), output_file=str(folder / "ndrs.h5"), options_file=main)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--hours", type=float, default=0.01)
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--seed", type=int, default=20_001)
    simulate(**vars(parser.parse_args()))
