"""Settings for the whole suite."""

import os
import sys

if sys.platform == "linux" and "DISPLAY" not in os.environ:
    os.environ.setdefault("MUJOCO_GL", "egl")  # before any test imports MuJoCo, which reads it then

import torch

torch.set_num_threads(1)  # the package's own threads share the work; more would only compete
