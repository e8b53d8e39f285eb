"""SpectraMind NB: from raw Ariel detector frames to a calibrated exoplanet spectrum, reproducibly.

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
    "train": "runs.runtime",
    "evaluate": "runs.runtime",
    "predict": "runs.runtime",
    "Run": "runs.runtime",
    "replay": "runs.replay",
    "score": "apps.report",
    "report": "apps.report",
    "Spectrum": "apps.figures",
    "launchpad": "apps.launchpad",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'spectramind_nb' has no attribute '{name}'")
    from importlib import import_module

    if _HOME[name].startswith("runs."):
        import_module("spectramind_nb.apps.report")  # gives Run, which lies below it, its report
    return getattr(import_module(f"spectramind_nb.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
