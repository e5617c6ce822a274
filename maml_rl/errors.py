"""Errors that a user can act on. The command line prints their message in one line."""


class InputError(ValueError):
    """Something given to the package is not usable; the message says what was expected, what came and what to do."""


class NonFiniteError(ArithmeticError):
    """A quantity became infinite or not a number; the message names it."""


class WorkerError(RuntimeError):
    """A process that runs an environment failed; the message names the process and its task.

    Attributes:
        trace: Traceback of the exception that the environment raised; empty if the process ended.
    """

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


def one_line(value: object) -> str:
    """A value as it is shown in a message."""
    return " ".join(repr(value).split())
