"""Errors that a user can act on. The command line prints their message in one line."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """Unusable input. The message says what was expected, what was given and what to do."""


class AgreedError(InputError):
    """An InputError that all ranks detect from facts that all of them have, so only rank 0 reports it."""


class NonFiniteError(ArithmeticError):
    """A quantity is infinite or not a number; the message names it."""


class NonFiniteEnvironmentError(NonFiniteError):
    """An environment returned infinity or NaN for finite actions; the message names the task."""


class WorkerError(RuntimeError):
    """A process that runs an environment failed; the message names the process and its task.

    Attributes:
        trace: Traceback of the exception that the environment raised; empty if the process ended.
    """

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class RankError(RuntimeError):
    """Another rank (a process that shares the tasks) has ended or does not answer; the message names it."""


def one_line(value: object) -> str:
    """A value for a message, the same in every process: without the addresses of objects."""
    return re.sub(" object at 0x[0-9a-fA-F]+", "", " ".join(repr(value).split()))


def reason(error: BaseException) -> str:
    """Type and message of an exception in one line."""
    return " ".join("".join(traceback.format_exception_only(error)).split())


def place(error: BaseException) -> str:
    """File and line that raised an exception."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}, line {frame.lineno}"


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Adds the path to errors of the operating system that do not name one, such as a full disk.

    Raises:
        OSError: With the path.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
