"""SpectraMind NB: from raw Ariel detector frames to a calibrated exoplanet spectrum, reproducibly.

What users type is listed below and loaded when it is first used, so that `import spectramind_nb` stays light.
"""

__version__ = "0.1.0"

_HOME = {
    "train": "apps.report",  # imports runs.runtime and gives its Run the report and the pictures
    "evaluate": "apps.report",
    "predict": "apps.report",
    "Run": "apps.report",
    "report": "apps.report",
    "replay": "runs.replay",
    "calibrate": "runs.runtime",
    "fit": "runs.runtime",
    "simulate": "physics.simulator",
    "score": "runs.submission",
    "validate": "runs.submission",
    "compose": "core.configuration",
    "launchpad": "apps.launchpad",
    "open_challenge": "observations.challenge",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'spectramind_nb' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"spectramind_nb.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
