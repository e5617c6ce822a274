"""The block in which a command computes, and what it prints."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from maml_rl.json_values import json_text


@contextlib.contextmanager
def computing(as_json: bool = False) -> Iterator[Callable[[Any], None]]:
    """Takes the object that a command prints with `--json`, and keeps all else out of standard output.

    An environment may print anything, at import and later, also from its processes and from C libraries. So the file
    descriptor itself is redirected to standard error, until the object is written.

    PyTorch gets one thread: the tasks run on this package's threads, and OpenMP's would only compete with them.

    Args:
        as_json: Whether the object is printed; otherwise the command may print anything.
    """
    torch.set_num_threads(1)
    objects: list[Any] = []
    with _output_to_errors() if as_json else contextlib.nullcontext():
        yield objects.append
    if as_json:
        for shown in objects:
            print(json_text(shown))


@contextlib.contextmanager
def _output_to_errors() -> Iterator[None]:
    """Sends everything printed to standard output to standard error."""
    sys.stdout.flush()
    output = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()  # what was written to the stream itself
        with contextlib.suppress(AttributeError):
            ctypes.pythonapi.fflush(None)  # C's own buffer
        os.dup2(output, 1)
        os.close(output)
