"""Tables between markers in pages of Markdown."""

from collections.abc import Mapping
from pathlib import Path

from maml_rl.errors import InputError
from maml_rl.json_values import read_text

_END = "<!-- end -->\n"


def with_tables(page: Path, tables: Mapping[str, str]) -> str:
    """A page's text with these tables between their markers.

    Raises:
        InputError: If the markers are missing.
    """
    text = read_text(page)
    for name, table in tables.items():
        begin = f"<!-- results_page: {name} -->\n"
        before, marker, rest = text.partition(begin)
        _, other, after = rest.partition(_END)
        if not (marker and other):
            raise InputError(f"{page} should have the lines {begin.strip()} and {_END.strip()}")
        text = f"{before}{begin}{table}\n{_END}{after}"
    return text
