"""A page of sections: one HTML file with its style and scripts, which loads nothing from elsewhere."""

import html
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from maml_rl.experiments.media.charts import COLOURS

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


class Section(NamedTuple):
    """A part of the page."""

    title: str  # empty for none
    body: str  # HTML
    script: str = ""  # JavaScript, run after the page is there
    data: tuple[tuple[str, Any], ...] = ()  # JSON values that the script finds, by the id of their element


class Fact(NamedTuple):
    """A figure at the top of the page."""

    value: str
    name: str


def html_page(title: str, lead: str, facts: Sequence[Fact], sections: Sequence[Section], footer: str = "") -> str:
    """The page.

    Args:
        title: Its title, as text.
        lead: What it shows in a sentence or two, as HTML.
        facts: Figures at the top.
        sections: Its parts.
        footer: Where it comes from, as HTML.
    """
    shown = "".join(f"<li><b>{text(fact.value)}</b><span>{text(fact.name)}</span></li>" for fact in facts)
    parts = [_section(section) for section in sections]
    colours = " ".join(f"--{name}: {colour};" for name, colour in COLOURS.items())  # which a dark page changes
    scripts = [f"<script>{section.script}</script>" for section in sections if section.script]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{text(title)}</title>
<style>:root {{ {colours} }}
{asset("page.css")}</style>
</head>
<body>
<main>
<h1>{text(title)}</h1>
<p class="lead">{lead}</p>
<ul class="facts">{shown}</ul>
{"".join(parts)}
<footer class="muted">{footer}</footer>
</main>
{"".join(scripts)}
</body>
</html>
"""


def text(value: object) -> str:
    """A value as text in HTML."""
    return html.escape(str(value))


def asset(name: str) -> str:
    """A file of this package, as it stands in the page."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of HTML cells as a table, the first of them its head."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows[1:])
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _section(section: Section) -> str:
    heading = f"<h2>{text(section.title)}</h2>" if section.title else ""
    data = "".join(
        # Within a script element only "<" could end it, and JSON may write it so.
        f'<script type="application/json" id="{name}">{json.dumps(value).replace("<", chr(92) + "u003c")}</script>'
        for name, value in section.data
    )
    return f"<section>{heading}{section.body}{data}</section>\n"
