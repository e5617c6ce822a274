"""Docstrings as the API reference shows them.

- Their sections (Args, Returns, Raises) become lists, by Napoleon. Descriptions of settings stay as they are: Napoleon
  would take what is before the first colon, as in `Bound on the KL, in nats (paper: 0.01)`, for a type.
- Comments behind the fields of records, `rewards: Tensor  # [M, K, T]`, become their descriptions. Shapes and units
  stand there throughout the package; without this, a page would have "Alias for field number 3".
- "On this page" lists classes and functions, and not every member of a class.
"""

import ast
import inspect
import io
import tokenize
from functools import cache
from importlib import import_module
from textwrap import dedent
from typing import Any, Literal

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

_Kind = Literal["module", "class", "exception", "function", "method", "property", "attribute", "data"]
_NAPOLEON: Any = Config(napoleon_use_rtype=False)


@cache
def field_comments(module: str, name: str) -> dict[str, str]:
    """Comments that end the lines of the annotated fields of a class, by field."""
    source = dedent(inspect.getsource(getattr(import_module(module), name)))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.removeprefix("#").strip() for t in tokens if t.type == tokenize.COMMENT}
    fields = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.AnnAssign))
    return {ast.unparse(field.target): comments[field.lineno] for field in fields if field.lineno in comments}


def read_docstring(app: Sphinx, what: _Kind, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Replaces the lines of a docstring by those that the page shows."""
    if what == "attribute" and lines and lines[0].startswith("Alias for field number"):
        module, record, field = name.rsplit(".", 2)
        lines[:] = [field_comments(module, record).get(field, ""), ""]
    elif what not in ("attribute", "data"):
        kind: _Kind = "method" if what == "property" else what
        lines[:] = GoogleDocstring(lines, _NAPOLEON, app, kind, name, found, options).lines()


def shorten_contents(app: Sphinx, *_: object) -> None:
    """Leaves members of classes out of the contents of pages."""
    for contents in app.env.tocs.values():
        for item in list(contents.findall(nodes.list_item)):
            if item[0].next_node(nodes.literal) is not None and len(item) > 1:
                del item[1:]


def setup(app: Sphinx) -> dict[str, Any]:
    """Reads docstrings where autodoc shows them."""
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("env-updated", shorten_contents)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
