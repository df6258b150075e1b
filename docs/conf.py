"""Sphinx settings. The reference pages are generated from the code before each build."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

import generate  # noqa: E402  (from this folder)

generate.write(DOCS / "reference")

project = "castile"
copyright = "the castile developers, Apache-2.0"  # noqa: A001  (Sphinx wants this name)
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "castile"
html_copy_source = False
nitpicky = True
