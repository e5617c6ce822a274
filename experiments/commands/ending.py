"""What a training prints when something ends it early."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from maml_rl.errors import InputError, NonFiniteError, RankError, WorkerError


class Saved(NamedTuple):
    """What is left of a training that ends early."""

    file: Path  # which every save writes; without it nothing is left
    when_interrupted: str  # what is saved then, such as "the finished iterations"
    otherwise: str  # what was saved last, such as "the last checkpoint"
    resume: str  # command that resumes the training


@contextmanager
def naming_what_is_saved(saved: Saved, remedy: Callable[[NonFiniteError], str]) -> Iterator[None]:
    """Adds to what ends a training how to resume it, or what to change.

    Args:
        saved: What is left of the training.
        remedy: What to do after a result that is not finite.

    Raises:
        InputError: If the training ends with a result that is not finite, or a failure of the file system.
        SystemExit: If it is interrupted and something is saved.
        WorkerError, RankError: As the training raises them, with a longer message.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not saved.file.is_file():
            raise
        print(f"\ninterrupted; {saved.when_interrupted} are saved, resume with: {saved.resume}", file=sys.stderr)
        raise SystemExit(130) from None
    except NonFiniteError as error:
        kept = f"{saved.otherwise} in {saved.file.parent} is intact; " if saved.file.is_file() else ""
        raise InputError(f"training stopped: {error}: {kept}{remedy(error)}") from error
    except OSError as error:
        kept = f"; {saved.otherwise} is intact, resume with: {saved.resume}" if saved.file.is_file() else ""
        raise InputError(f"training stopped: {error}{kept}") from error
    except (WorkerError, RankError) as error:
        kept = f"; {saved.when_interrupted} are saved, resume with: {saved.resume}" if saved.file.is_file() else ""
        error.args = (f"training stopped: {error}{kept}",)
        raise
