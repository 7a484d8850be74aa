"""Sphinx configuration."""

import skmars

project = "skmars"
author = "The skmars developers"
copyright = "2026, The skmars developers"
version = release = skmars.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
]
myst_heading_anchors = 2
default_role = "literal"
# Methods are listed on the page of their class; inherited ones are scikit-learn's and torch's.
numpydoc_show_class_members = False
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "skmars"
html_static_path = ["images"]
