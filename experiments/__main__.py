"""Where the command `maml-rl` starts.

Kept apart from the command line because each process of an environment imports this module as its main one, and has no
use for PyTorch.
"""

import os
import sys
from contextlib import suppress


def main() -> None:
    """Runs the command line; what is printed after its end, when Python exits, is not its output."""
    try:
        from experiments import cli
    except KeyboardInterrupt:  # PyTorch takes seconds to import
        raise SystemExit(130) from None
    try:
        cli.main()
    finally:
        with suppress(AttributeError, OSError):  # no output, or a pipe that nobody reads any more
            sys.stdout.flush()
            os.dup2(2, 1)


if __name__ == "__main__":
    main()
