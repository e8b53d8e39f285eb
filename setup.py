"""Installs the package; all metadata is read from settings.ini, which nbdev 2 reads too."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(here / "settings.ini", encoding="utf-8")
meta = parser["DEFAULT"]


def lines(key):
    """The non-empty lines of a multi-line setting."""
    return [line for line in meta[key].split("\n") if line.strip()]


name = meta["lib_path"]
setup(
    name=meta["lib_name"],
    version=meta["version"],
    description=meta["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    keywords=meta["keywords"],
    author=meta["author"],
    license="Apache-2.0",
    python_requires=f">={meta['min_python']}",
    install_requires=lines("requirements"),
    extras_require={"dev": lines("dev_requirements"), "exosim": lines("exosim_requirements")},
    entry_points={"console_scripts": lines("console_scripts")},
    # the Hydra groups lie beside the package in the checkout and inside it in the wheel
    packages=[*find_packages(include=[name, f"{name}.*"]), f"{name}.configs"],
    package_dir={name: name, f"{name}.configs": "configs"},
    package_data={name: ["py.typed"], f"{name}.configs": ["*.yaml", "*/*.yaml", "*/*.md"]},
    zip_safe=False,
)
