"""Amounts and tables as people read them."""

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """A time as people read it."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def env_steps_text(env_steps: float) -> str:
    """A number of env steps as people read it: `13,440`, or `1.3 M`."""
    return f"{env_steps / 1e6:.1f} M" if env_steps >= 1e5 else f"{env_steps:,.0f}"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table, the first of them its head, with columns aligned to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table of Markdown, the first of them its head; short rows are filled with dashes."""
    width = len(rows[0])
    lines = ["| " + " | ".join([*row, *["-"] * (width - len(row))]) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * width, *lines[1:]])
