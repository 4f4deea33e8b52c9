"""Sphinx: `sphinx-build -W docs docs/_build/html`, without a network."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "async_loader"
author = "async_loader maintainers"
copyright = author  # noqa: A001  # Sphinx's own name for it
release = version = version_of("async_loader")

extensions = ["myst_parser", "sphinx.ext.autodoc", "settings_tables"]
exclude_patterns = ["_build", "extensions"]
html_theme = "furo"
html_title = f"async_loader {release}"
html_use_index = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3  # so that pages link to each other's sections

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
nitpicky = False
