"""SpectraMind NB: from raw Ariel detector frames to a calibrated exoplanet spectrum, reproducibly.

    from spectramind_nb import train

    run = train(trainer="ci_fast")    # simulate, calibrate, fit, train, predict, on a configuration that Hydra composes
    run.spectra()                     # planet -> its spectrum, which prints and plots itself

`train?` or `help(train)` says what each argument means; `spectramind --help` lists the same on the command line.
What users type is listed below and loaded when it is first used, so that `import spectramind_nb` stays light.
"""

__version__ = "0.1.0"

_HOME = {
    "compose": "core.configuration",
    "open_challenge": "observations.challenge",
    "LightCurves": "observations.lightcurves",
    "light_curve": "physics.transit",
    "star_row": "physics.star",
    "fit_visit": "physics.fitting",
    "combine_visits": "physics.visit_fit",
    "simulate": "simulation.dataset",
    "calibrate": "runs.stages",
    "fit": "runs.stages",
    "train": "runs.training",
    "evaluate": "runs.run",
    "predict": "runs.run",
    "Run": "runs.run",
    "replay": "runs.replay",
    "score": "apps.scoring",
    "report": "apps.report",
    "Spectrum": "apps.spectrum",
    "launchpad": "apps.launchpad",
}
_EXAMPLE = {  # shown by `train?` and `help(train)`, below what the arguments mean
    "compose": 'config = compose("kaggle_safe", ["trainer.max_epochs=30"])',
    "open_challenge": 'challenge = open_challenge("data")\nchallenge.planets("train")',
    "LightCurves": 'curves = LightCurves.from_arrays(time, wavelength, flux, error)',
    "light_curve": "flux = light_curve(time_d, 0.0, 3.5, 8.8, 87.0, 0.1, 0.3, 0.2)",
    "fit_visit": 'fit = fit_visit(curves, star_row(period=3.5, a_rs=8.8, inclination=87.0))\nfit.depth, fit.sigma',
    "star_row": 'star = star_row(period="84.6 h", a_rs=8.8, inclination=87.0)',
    "combine_visits": "fit = combine_visits([fit_visit(curves, star) for curves in visits])",
    "simulate": 'simulate("data", train=12, test=3, short=True)',
    "calibrate": 'calibrate(data="ariel2025", overrides=["data.root=data"])',
    "fit": 'fit(data="ariel2025", overrides=["data.root=data"])',
    "train": 'run = train(trainer="ci_fast", overrides=["trainer.max_epochs=3"])\nrun.plot()',
    "evaluate": 'evaluate("first")',
    "predict": 'table = predict("first", split="test")',
    "Run": 'run = Run.open("first")\nrun.metrics, run.spectra()',
    "replay": 'replay("first")',
    "score": 'score("submission.csv", "truth.csv")',
    "report": 'report("first")',
    "Spectrum": 'spectrum = train().spectra()[planet_id]\nspectrum.plot()',
    "launchpad": "launchpad()",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'spectramind_nb' has no attribute '{name}'")
    from importlib import import_module

    with import_module("spectramind_nb.core.imports").quick_imports():
        if _HOME[name].startswith("runs."):
            import_module("spectramind_nb.apps.report")  # gives Run, which lies below it, its report
        found = getattr(import_module(f"spectramind_nb.{_HOME[name]}"), name)
        return import_module("spectramind_nb.core.docments").explained(found, _EXAMPLE.get(name, ""))


def __dir__() -> list[str]:
    return sorted(__all__)
