"""How Sphinx builds the API pages: ``make docs``."""

from __future__ import annotations

import npprelnorm

project = "npprelnorm"
author = "The npprelnorm authors"
version = release = npprelnorm.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx.ext.mathjax"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

# the docstrings are numpydoc; single backticks in them name objects
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "py:obj"
# a short name such as `rows` may fit several classes: it is printed all the same
suppress_warnings = ["ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the numpydoc sections say types and shapes
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "alabaster"
html_theme_options = {"description": "RoBERTa-PreLayerNorm in NumPy", "page_width": "1100px", "sidebar_width": "240px"}
html_static_path: list[str] = []


def keep_bars(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Absolute values, |x|, are no reStructuredText substitutions."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app) -> None:  # type: ignore[no-untyped-def]
    app.connect("autodoc-process-docstring", keep_bars)
