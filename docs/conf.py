"""The documentation site: `make docs`. Sources are the Markdown files where they are; docs/index.md lists the pages."""

import re
import tomllib
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]

project = "maskrcnn-export"
version = release = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
copyright = "MIT license"  # noqa: A001
root_doc = "docs/index"
# Pages outside docs/ are those that a clone shows where they are, too.
include_patterns = ["docs/*.md", "docs/*.ipynb", "*.md", "benchmarks/README.md", "tests/golden/README.md"]
exclude_patterns = [".*", "README.md", "build", "dist"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # `make notebook` runs it
suppress_warnings = ["myst.header"]  # the changelog's headings below its versions
default_role = "code"  # docstrings have single backticks around names
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes that have a docstring of their own, too, are listed once
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
pygments_dark_style = "monokai"
html_title = "maskrcnn-export"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_start/index.html"]  # leads from the site's folder to docs/index.html
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # summaries are requests, which pages from a disk cannot make


def navigation(text: str) -> str:
    """Return the tables of contents for the groups of pages under the heading "All pages"."""
    groups = re.findall(r"^### (.+)\n\n((?:[- ].*\n)+)", text.partition("\n## All pages\n")[2], re.MULTILINE)
    contents = (
        "\n".join(["```{toctree}", ":hidden:", f":caption: {name}", "", *re.findall(r"\]\(([^)#]+)\)", pages), "```"])
        for name, pages in groups
    )
    return "\n".join(contents)


def _add_navigation(_app: Any, docname: str, source: list[str]) -> None:
    if docname == root_doc:
        source[0] += "\n" + navigation(source[0])


def setup(app: Any) -> None:
    """Connect what is above with Sphinx."""
    app.connect("source-read", _add_navigation)
