"""Settings for the whole suite."""

import os
import signal

import pytest
import torch

import maml_rl.envs  # noqa: F401, before any test imports MuJoCo: it chooses the OpenGL that MuJoCo then loads

torch.set_num_threads(1)  # the package's own threads share the work; more would only compete

# A suite started in the background ignores Ctrl-C, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory):
    """Keeps what commands remember of their user out of the home of whoever runs the tests."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    os.environ.pop("XDG_STATE_HOME")
    if before is not None:
        os.environ["XDG_STATE_HOME"] = before
