"""What a training prints when something ends it early."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from maml_rl.errors import InputError, NonFiniteError, RankError, WorkerError


@contextmanager
def naming_what_is_saved(
    saved: Path, last: str, resume: str, remedy: Callable[[NonFiniteError], str]
) -> Iterator[None]:
    """Adds to what ends a training how to resume it, or what to change.

    Args:
        saved: File that the training writes at each save. Without it there is nothing to resume.
        last: What was saved last, such as checkpoint.
        resume: Command that resumes the training.
        remedy: What to do after a result that is not finite.

    Raises:
        InputError: If the training ends with a result that is not finite, or a failure of the file system.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not saved.is_file():
            raise
        print(f"\ninterrupted; the last {last} is saved, resume with: {resume}", file=sys.stderr)
        raise SystemExit(130) from None
    except NonFiniteError as error:
        kept = f"the last {last} in {saved.parent} is intact; " if saved.is_file() else ""
        raise InputError(f"training stopped: {error}: {kept}{remedy(error)}") from error
    except (OSError, WorkerError, RankError) as error:
        kept = f"; the last {last} is saved, resume with: {resume}" if saved.is_file() else ""
        message = f"training stopped: {error}{kept}"
        if isinstance(error, OSError):
            raise InputError(message) from error
        error.args = (message,)
        raise
