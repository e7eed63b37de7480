"""The documentation site: sphinx-build -W --keep-going -n -b html docs build/site"""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "fastgpt-c"
author = "the fastgpt-c authors"
project_copyright = "the fastgpt-c authors; MIT licence"
release = version = installed_version("fastgpt-c")

extensions = ["myst_parser", "sphinx.ext.autodoc", "c_header", "command_line", "docstrings", "repository_links"]
exclude_patterns = ["_ext", "_static"]
nitpicky = True
nitpick_ignore = [("c:identifier", name) for name in ("int32_t", "int64_t", "size_t", "uint32_t", "uint64_t")]
# Types of the standard library and of NumPy have their pages elsewhere, and those below are not public.
nitpick_ignore_regex = [(r"py:.*", r"(?!fastgpt_c\.).*"), (r"py:.*", r"fastgpt_c\.[a-z].*")]

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
smartquotes = False  # "--option" and "text" stay as they are
pygments_style = "default"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "fastgpt-c"
html_copy_source = False
