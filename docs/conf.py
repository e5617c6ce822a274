"""Settings of the documentation site: `make docs` builds it from these pages and from the docstrings."""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "maml-rl"
author = "the maml-rl authors"
release = metadata.version(project)
html_title = f"{project} {release}"

extensions = [
    "myst_nb",  # MyST, for pages and notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "module_pages",
    "environment_pages",
    "docstrings",
    "repository_links",
    "code_links",
]
exclude_patterns = ["extensions"]
highlight_language = "text"  # of blocks that do not say: commands and drawings
default_role = "literal"  # docstrings write code between single backticks

myst_enable_extensions = ["attrs_block", "fieldlist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # notebooks are shown with the outputs that they hold

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
viewcode_line_numbers = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False

linkcheck_timeout = 20
linkcheck_retries = 2
