"""Sphinx's settings for the book."""

import configparser
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent
settings = configparser.ConfigParser(delimiters=["="])
settings.read(REPO / "settings.ini")
meta = settings["DEFAULT"]
sys.path.insert(0, str(HERE))

project, release = meta["title"], meta["version"]
author, copyright = meta["author"], meta["copyright"]
extensions = ["myst_nb", "sphinx_design", "sphinx_copybutton", "mathml"]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # docs/build.py runs the notebooks
nb_merge_streams = True
nb_output_stderr = "remove"
nb_code_prompt_show, nb_code_prompt_hide = "Imports", "Imports"  # only they are folded
nitpicky = True  # a name that no module has any more ends the build
toc_object_entries_show_parents = "hide"
add_module_names = False
python_maximum_signature_line_length = 88
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
pygments_style, pygments_dark_style = "default", "github-dark"
