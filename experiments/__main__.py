"""Where the command `maml-rl` starts.

Kept apart from the command line because each process of an environment imports this module as its main one, and has no
use for PyTorch.
"""

import sys


def main() -> None:
    """Runs the command line; modules of the current directory can be imported, as with `python -m`."""
    sys.path.append("")
    try:
        from experiments import cli
    except KeyboardInterrupt:  # PyTorch takes seconds to import
        raise SystemExit(130) from None
    cli.main()


if __name__ == "__main__":
    main()
