"""The site: `.ci/docs` builds it. docs/design/0011-documentation-site.md says why Sphinx."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as read_version
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))
sys.path.insert(0, str(DOCS))

project = "nsd_zarr"
author = "The nsd_zarr developers"
copyright = author
release = read_version("nsd-zarr")
version = re.match(r"[\d.]*\d", release)[0]  # type: ignore[index]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "options_table",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
nb_execution_mode = "off"  # tests execute blocks and notebooks; the site shows what they gave
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
suppress_warnings = [
    "myst.header",  # a page of the repository may begin below its title
    "ref.python",  # a field of one report may have the name of a field of another
]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True

smartquotes = False  # options begin with two hyphens

html_theme = "pydata_sphinx_theme"
html_title = f"nsd_zarr {version}"
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2, "secondary_sidebar_items": ["page-toc"]}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def leave_the_repository(app: object, name: str, text: list[str]) -> None:
    """Links to files of the repository that are no pages become their words: the site has nothing behind them."""
    page = (DOCS / name).parent

    def replace(found: re.Match[str]) -> str:
        words, target = found[1], found[2].partition("#")[0]
        inside = (page / target).resolve().is_relative_to(DOCS)
        return found[0] if inside or not target else words

    text[0] = re.sub(r"\[([^\]]+)\]\((?!https?:|mailto:)([^)]+)\)", replace, text[0])


def setup(app: object) -> None:
    """As Sphinx asks for it."""
    app.connect("source-read", leave_the_repository)  # type: ignore[attr-defined]
