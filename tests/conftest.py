"""Settings for the whole suite."""

import signal

import torch

import envs  # noqa: F401, before any test imports MuJoCo: it chooses the OpenGL that MuJoCo then loads

torch.set_num_threads(1)  # the package's own threads share the work; more would only compete

# A suite started in the background ignores Ctrl-C, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
