"""Trained runs of the paper's tasks: a wheel has the checkpoints of three, a clone all files of each.

`importlib.resources.files("maml_rl.trained") / "half-cheetah-dir"` is the directory of one.
"""
