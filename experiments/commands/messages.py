"""Rewrites tyro's messages about arguments that it cannot parse as one line, in the style of the other messages."""

import re
from collections.abc import Sequence

_GROUPS = ("run", "trust", "tracking", "machine")
"""Fields that group other options and have no name on the command line."""

_REWORDED = (
    (r"Missing value for argument '(\S+)'\..*", r"\1 needs a value"),
    (r"Error parsing (--\S+): invalid literal for int\(\) with base 10: (.*)", r"\1 needs a whole number, got \2"),
    (r"Error parsing (--\S+): could not convert string to float: (.*)", r"\1 needs a number, got \2"),
    (r"Error parsing (--\S+): Could not find valid parse for arguments: \[(.*)\]", r"\1 cannot be \2"),
)


def in_one_line(message: str, arguments: Sequence[str], remark: str) -> str:
    """Tyro's message about arguments that cannot be parsed, with options that resemble a misspelt one.

    Args:
        message: What tyro printed: a frame of several lines.
        arguments: What the user typed.
        remark: Text to add after options that do not exist.
    """
    # A frame of box characters, or, where the terminal cannot show them, a title over a line of dashes.
    lines = message.splitlines()
    framed = any(line.startswith("╭") for line in lines)
    inside = [line.strip("│ ") for line in lines if not line.startswith(("╭", "╰"))]
    parts = re.split("[─-]{10,}", "\n".join(inside))[0 if framed else 1 :]
    text = " ".join(parts[0].split())
    if text.startswith("Unrecognized options: "):
        return _unknown(text, parts[1:]) + remark
    if missing := re.fullmatch(r"Missing from (?:maml-rl )?(.*?): (.*)", text):
        needed = re.findall(r"(?:^|\(required\) )(--[\w.-]+ \S+|\S+)", missing[2])
        return f"{missing[1]} needs {' and '.join(map(_with_article, needed))}"
    if choice := re.fullmatch(r"invalid choice (.*) for argument '(\S+)'\. Expected one of \((.*?),?\)\.", text):
        choices = choice[3].replace("'", "")
        return f"{choice[2]} must be {'one of ' if ',' in choices else ''}{choices}, got {choice[1]}"
    if whole := re.fullmatch(r"Error parsing [A-Z]\w*: (.*)", text):  # by a dataclass of options itself
        return with_option(whole[1], "", arguments)
    if nested := re.fullmatch(r"Error parsing ([a-z][\w.]*): (.*)", text):
        group, _, rest = nested[1].partition(".")
        return with_option(nested[2], rest if group in _GROUPS else nested[1], arguments)
    for pattern, replacement in _REWORDED:
        text = re.sub(f"^{pattern}$", replacement, text)
    return text


def with_option(message: str, group: str, arguments: Sequence[str]) -> str:
    """A message that begins with the name of a setting, with that name replaced by the option that gave the setting.

    Args:
        message: Such as "lr must be above 0, got 0.0".
        group: Where the setting is, such as "meta.step"; empty where it is in no group.
        arguments: What the user typed. A setting that was not typed keeps its name.
    """
    setting, space, rest = message.partition(" ")
    option = "--" + ".".join(filter(None, [group, setting])).replace("_", "-")
    typed = any(argument.partition("=")[0] == option for argument in arguments)
    return f"{option}{space}{rest}" if typed else message


def _with_article(operand: str) -> str:
    if operand.startswith("-"):
        return operand
    return f"{'an' if operand[0] in 'AEIO' else 'a'} {operand}"


def _unknown(text: str, others: Sequence[str]) -> str:
    """Options that do not exist, without their values, and similar ones."""
    words = text.removeprefix("Unrecognized options: ").split(", ")
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    if not options:
        return f"Unrecognized arguments: {', '.join(words)}"
    near = [word.rstrip(",") for part in others for word in re.findall(r"^(--[\w.-]+)", part, re.M)]
    suggestion = f"; perhaps you meant {' or '.join(dict.fromkeys(near))}" if near else ""
    return f"Unrecognized options: {', '.join(options)}{suggestion}"
