"""Errors that a user can act on. The command line prints their message in one line."""


class InputError(ValueError):
    """Something given to the package is not usable; the message says what was expected, what came and what to do."""


class NonFiniteError(ArithmeticError):
    """A quantity became infinite or not a number; the message names it."""
