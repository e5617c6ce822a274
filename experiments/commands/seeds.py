"""Several seeds of one training: `--seeds 0-4`."""

import re

from maml_rl.errors import InputError

_MOST = 1000


def seeds_of(text: str) -> list[int]:
    """Seeds that a user named: `0-4`, `0,2,5`, or both, in this order.

    Raises:
        InputError: If it is neither, or one is named twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip())
        if not found:
            raise InputError(f"--seeds needs numbers, such as 0-4 or 0,2,5, got {text!r}")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last - first >= _MOST:
            raise InputError(f"--seeds {text}: {part.strip()} should go from a number to a larger one, such as 0-4")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {text}: each seed is trained once, so name it once")
    return seeds
