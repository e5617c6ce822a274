"""Where the command `maml-rl` starts.

Kept apart from the command line because each process of an environment imports this module as its main one, and has no
use for PyTorch.
"""

import os
import sys


def main() -> None:
    """Runs the command line; what is printed after its end, when Python exits, is not its output.

    Where nobody reads the output any more, as after `| head`, it ends quietly, with the exit code of other programs.
    """
    try:
        from maml_rl.experiments.commands import cli
    except KeyboardInterrupt:  # PyTorch takes seconds to import
        raise SystemExit(130) from None
    try:
        try:
            cli.main()
        finally:
            if sys.stdout:  # None where it is closed
                sys.stdout.flush()
                os.dup2(2, sys.stdout.fileno())
    except OSError as error:  # of the output itself: the command reports all others
        unread = isinstance(error, BrokenPipeError)
        if not unread:
            print(f"maml-rl: {error}", file=sys.stderr)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in filter(None, (sys.stdout, sys.stderr)):
            os.dup2(nowhere, stream.fileno())  # or Python complains when it flushes them at its end
        raise SystemExit(141 if unread else 2) from None  # 128 + SIGPIPE


if __name__ == "__main__":
    main()
