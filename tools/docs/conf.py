"""How Sphinx builds the API pages: ``make docs``."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx import addnodes

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
# models, pipelines and tokenizers are called
autodoc_default_options = {"members": True, "special-members": "__call__", "show-inheritance": True}

html_theme = "alabaster"
html_theme_options = {
    "description": "RoBERTa-PreLayerNorm in NumPy",
    "page_width": "1240px",
    "body_max_width": "1000px",
    "sidebar_width": "240px",
    "show_relbars": True,  # on a phone the sidebar is at the end of the page
}
html_show_copyright = False
html_static_path = ["static"]  # custom.css: phones


def keep_bars(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Absolute values, |x|, are no reStructuredText substitutions; in code they need no backslash."""
    lines[:] = [
        line
        if line.lstrip().startswith((">>>", "..."))
        else re.sub(r"(``.*?``)|\|", lambda found: found[1] or r"\|", line)
        for line in lines
    ]


def before_napoleon(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Make two attributes of ``a, b : type``, as napoleon does of parameters."""
    if "Attributes" not in lines:
        return
    start = lines.index("Attributes") + 2  # below the underline
    entry = re.compile(r"^(\w+(?:, \w+)+)( : .*)?\n((?: .*\n)*)", re.MULTILINE)  # names, type, what is indented
    text = entry.sub(
        lambda found: "".join(f"{one}{found[2] or ''}\n{found[3]}" for one in found[1].split(", ")),
        "\n".join([*lines[start:], ""]),
    )
    lines[start:] = text.split("\n")


def after_napoleon(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Put back what napoleon took for the type of a property: what its first sentence says before a colon."""
    kind = next((line for line in lines if line.startswith(":type: ")), None)
    if what == "property" and kind:
        lines.remove(kind)
        lines[0] = f"{kind.removeprefix(':type: ')}: {lines[0]}"


def skip(app: object, what: str, name: str, obj: object, skipped: bool, options: object) -> bool | None:
    """Leave out the fields of named tuples, of which Python says "Alias for field number 0"; their class lists them."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def public_prefix(app: object, doctree: nodes.document) -> None:
    """Show names as users import them: not the module of the package's inside where they are written."""
    for prefix in doctree.findall(addnodes.desc_addname):
        module, name = prefix.astext().rstrip("."), prefix.parent["ids"][0].rpartition(".")[2]
        for public in (npprelnorm, npprelnorm.inspect):
            if module.startswith(public.__name__) and name in public.__all__:
                prefix.children[:] = [nodes.Text(f"{public.__name__}.")]


def setup(app) -> None:  # type: ignore[no-untyped-def]
    app.connect("autodoc-process-docstring", keep_bars)
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)
    app.connect("autodoc-skip-member", skip)
    app.connect("doctree-read", public_prefix)
