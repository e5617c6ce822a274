"""Links of Markdown pages that work both in the repository and on the site.

Pages link to files by their place in the repository, as GitHub follows them. On the site some files have another place:
README, changelog and other pages outside of `docs` are included in pages of the site; a source file is described on the
page of its module; any other file is offered for download. This is done for each page that is read and for each file
that is included in one.
"""

import re
from os.path import normpath
from pathlib import Path
from typing import Any

from generated_pages import ROOT, module_name
from sphinx.application import Sphinx

DOCS = ROOT / "docs"
PAGES = {
    "README.md": "/index.md",
    "CHANGELOG.md": "/changelog.md",
    "CONTRIBUTING.md": "/contributing.md",
    "trained/README.md": "/trained.md",
}
"""Pages of the site that include a page of the repository."""
_CODE_OR_LINK = re.compile(r"^ *```.*?^ *```|`[^`]*`|(?:\[([^\[\]`]*))?\]\(([^)\s#]+)(?=[)#])", re.M | re.S)


def place_on_the_site(target: str, file: Path) -> str:
    """Where a link of the page `file` leads on the site, for a path that is relative to it.

    An absolute path begins at `docs`, as Sphinx takes it. What is not in the repository stays as it is, for Sphinx to
    warn of.
    """
    if ":" in target:
        return target
    path = Path(normpath(file.parent / target))
    if not path.exists() or not path.is_relative_to(ROOT):
        return target
    in_repository = path.relative_to(ROOT).as_posix()
    module = module_name(in_repository)
    if in_repository in PAGES:
        return PAGES[in_repository]
    if module and (DOCS / "reference" / "modules" / f"{module}.md").exists():
        return f"/reference/modules/{module}.md"
    return f"/{path.relative_to(DOCS)}" if path.is_relative_to(DOCS) else f"/../{in_repository}"


def for_the_site(text: str, file: Path) -> str:
    """The text of a page with its links as the site needs them; code stays as it is.

    A link whose text is the name of the file, as in the README, has the title of its page on the site.
    """

    def replaced(found: re.Match[str]) -> str:
        text, target = found.groups()
        if target is None:
            return found[0]
        place = place_on_the_site(target, file)
        shown = "" if text == target and place.endswith(".md") else text
        return f"]({place}" if text is None else f"[{shown}]({place}"

    return _CODE_OR_LINK.sub(replaced, text)


def read_page(app: Sphinx, name: str, content: list[str]) -> None:
    """Replaces the links of a page."""
    content[0] = for_the_site(content[0], app.env.doc2path(name))


def read_included(app: Sphinx, path: Path, _: str, content: list[str]) -> None:
    """Replaces the links of a file that a page includes."""
    content[0] = for_the_site(content[0], Path(normpath(app.srcdir / path)))


def setup(app: Sphinx) -> dict[str, Any]:
    """Reads every page and every included file through `for_the_site`."""
    app.connect("source-read", read_page)
    app.connect("include-read", read_included)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
