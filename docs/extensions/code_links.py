"""Makes links of code that names something the site describes.

- `maml_rl/inner.py`: a file, which leads to its module;
- `maml_rl.checks.check_task_env`, `types.flatten(theta)`: a name, with or without the package and arguments;
- `inner_update` after `maml_rl/inner.py` in the same paragraph or cell: a name of that module;
- `RLLearner`: a class, as no two classes of the package have one name.

So the pages stay plain Markdown, and `docs/algorithm.md` leads from the paper's lines to the functions.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from docutils import nodes
from generated_pages import module_name
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.util.nodes import make_refnode

Place = tuple[str, str]
"""Document and anchor."""
_FILE = re.compile(r"[\w/]+\.py")
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_ARGUMENTS = re.compile(r"\(.*\)$", re.S)
_BLOCKS = (nodes.paragraph, nodes.entry, nodes.term)
_LINKED = (nodes.reference, addnodes.pending_xref, nodes.title, addnodes.desc_signature, nodes.caption)


class Names:
    """What the site describes.

    Args:
        objects: Documents and anchors of classes, functions and their members, by full name.
        classes: Full names of the classes.
        modules: The same of modules.
    """

    def __init__(self, objects: Mapping[str, Place], classes: Iterable[str], modules: Mapping[str, Place]) -> None:
        self._places = {**objects, **modules}
        self._modules = modules
        named: dict[str, set[Place]] = {}
        for name in classes:
            named.setdefault(name.rpartition(".")[2], set()).add(objects[name])
        self._classes = {name: places.pop() for name, places in named.items() if len(places) == 1}

    def module(self, text: str) -> str | None:
        """The module that code names as a file: `maml_rl/inner.py`, or `inner.py` if it is of the method."""
        if not _FILE.fullmatch(text):
            return None
        return next((m for m in (module_name(text), f"maml_rl.{text[:-3]}") if m in self._modules), None)

    def place(self, text: str, module: str | None) -> Place | None:
        """Where the site describes what code names, read after the name of a module; None if it does not."""
        file = self.module(text)
        if file is not None:
            return self._places[file]
        name = _ARGUMENTS.sub("", text)
        if not _NAME.fullmatch(name):
            return None
        tried = [f"{module}.{name}"] if module else []
        tried += [name, f"maml_rl.{name}"] if "." in name else []
        found = next((self._places[full] for full in tried if full in self._places), None)
        return found or self._classes.get(name)


@cache
def names(domain: PythonDomain) -> Names:
    """What the site describes, from Sphinx's index of Python, which is complete when pages are written."""
    objects = {name: (entry.docname, entry.node_id) for name, entry in domain.objects.items()}
    classes = [name for name, entry in domain.objects.items() if entry.objtype in ("class", "exception")]
    modules = {name: (entry.docname, entry.node_id) for name, entry in domain.modules.items()}
    return Names({n: p for n, p in objects.items() if n not in modules}, classes, modules)


def literals(block: nodes.Element) -> Iterator[nodes.literal]:
    """Code in a block that is not part of a link or a heading already."""
    for literal in block.findall(nodes.literal):
        parent = literal.parent
        while parent is not None and parent is not block and not isinstance(parent, _LINKED):
            parent = parent.parent
        if parent is block:
            yield literal


def link_code(app: Sphinx, document: nodes.document, page: str) -> None:
    """Puts links around the code of a page."""
    domain = app.env.domains.python_domain
    known = names(domain)
    for block in list(document.findall(lambda node: isinstance(node, _BLOCKS))):
        if isinstance(block, nodes.paragraph) and isinstance(block.parent, nodes.entry):
            continue  # the cell of a table is one block
        module = None
        for literal in list(literals(block)):
            text = literal.astext()
            module = known.module(text) or module
            place = known.place(text, module)
            if place is not None and place != (page, ""):
                literal.replace_self(make_refnode(app.builder, page, place[0], place[1], literal.deepcopy(), text))


def setup(app: Sphinx) -> dict[str, Any]:
    """Links the code of every page that is written."""
    app.connect("doctree-resolved", link_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
