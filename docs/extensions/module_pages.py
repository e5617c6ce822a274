"""Pages of the API reference: one for each module that the documentation names.

A build writes them to `docs/reference/modules`, for the modules that a page of `docs` names or imports. The public
names of `maml_rl` are described in `docs/api.md`, and environments on pages of their own: modules only link to them.
"""

import ast
import re
from pathlib import Path
from typing import Any

import environment_pages
from generated_pages import ROOT, module_name, package_files, toctree, write_pages
from sphinx.application import Sphinx

import maml_rl

SECTIONS = {
    "The method": "maml_rl",
    "Supervised learning": "maml_rl/supervised",
    "Environments": "envs",
    "Commands, runs and presets": "experiments",
}
"""Folders of each section; a file belongs to the last one that fits."""
_NAMED = re.compile(r"\b[\w/]+\.py\b|\bmaml_rl(?:\.[a-z]\w*)+")


def named_modules() -> dict[str, Path]:
    """Files of the modules that the pages of `docs` name, as a file or by a name in it, and of the public names."""
    files = {str(module_name(path.relative_to(ROOT).as_posix())): path for path in package_files()}
    named = {getattr(maml_rl, name).__module__ for name in maml_rl.__all__}
    for page in (ROOT / "docs").glob("*.md"):
        for text in _NAMED.findall(page.read_text()):
            name = module_name(text) or text
            named |= {name, name.rpartition(".")[0], f"maml_rl.{text.removesuffix('.py')}"}
    return {name: files[name] for name in sorted(named & files.keys())}


def sections() -> dict[str, dict[str, str]]:
    """First sentences of the docstrings of modules by name, for each section."""
    found: dict[str, dict[str, str]] = {title: {} for title in SECTIONS}
    for name, path in named_modules().items():
        title = [title for title, folder in SECTIONS.items() if path.is_relative_to(ROOT / folder)][-1]
        found[title][name] = str(ast.get_docstring(ast.parse(path.read_text()))).split("\n\n")[0].replace("\n", " ")
    return found


def described_elsewhere() -> dict[str, dict[str, str]]:
    """Links to what other pages describe, by name, for each module."""
    elsewhere: dict[str, dict[str, str]] = {}
    for name in maml_rl.__all__:
        module = getattr(maml_rl, name).__module__
        elsewhere.setdefault(module, {})[name] = f"[`maml_rl.{name}`](#maml_rl.{name})"
    for page, specs in environment_pages.registered().items():
        module, _, name = environment_pages.class_name(specs[0]).partition(":")
        elsewhere.setdefault(module, {})[name] = f"[`{name}`](../environments/{page}.md)"
    return elsewhere


def module_page(name: str, elsewhere: dict[str, str]) -> str:
    """The page of one module."""
    links = f"Described elsewhere: {', '.join(elsewhere.values())}.\n\n" if elsewhere else ""
    left_out = f"   :exclude-members: {', '.join(elsewhere)}\n" if elsewhere else ""
    return f"# {name}\n\n{links}```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n{left_out}```\n"


def module_pages() -> dict[str, str]:
    """All pages of modules, and their table of contents."""
    elsewhere, pages = described_elsewhere(), dict[str, str]()
    index = "# Modules\n\nWhat each module is for. Names outside of [`maml_rl` itself](../../api.md) may change.\n"
    for section, modules in sections().items():
        pages |= {name: module_page(name, elsewhere.get(name, {})) for name in modules}
        rows = "".join(f"| [{name}]({name}.md) | {summary} |\n" for name, summary in modules.items())
        index += f"\n## {section}\n\n| module | |\n|---|---|\n{rows}\n{toctree({name: name for name in modules})}"
    return {**pages, "index": index}


def setup(app: Sphinx) -> dict[str, Any]:
    """Writes the pages before the build looks for them."""
    app.connect("config-inited", lambda *_: write_pages("modules", module_pages()))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
