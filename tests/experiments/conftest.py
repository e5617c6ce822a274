"""The command maml-rl in the test's own process."""

import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from maml_rl.experiments.commands import cli


class Result(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def maml_rl(monkeypatch, capsys, tmp_path) -> Callable[..., Result]:
    """Runs the command in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # to which a command may add the directory

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["maml-rl", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        except KeyboardInterrupt:  # not caught by the command: pytest would stop
            code = -signal.SIGINT
        return Result(code, *capsys.readouterr())

    return run
