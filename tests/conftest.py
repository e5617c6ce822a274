"""Settings for the whole suite."""

import torch

torch.set_num_threads(1)  # the package's own threads share the work; more would only compete
