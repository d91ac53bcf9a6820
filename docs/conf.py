"""How the pages become a site: ``python -m sphinx -W -n -b html docs docs/_build``."""

project = "smpvm"
author = "smpvm developers"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "alabaster"
html_show_copyright = False
html_show_sourcelink = False
html_theme_options = {"description": "DragonFly BSD's page-out machinery, as a model that runs"}
