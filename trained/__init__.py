"""Trained runs of the paper's tasks. A wheel has the checkpoints of three, a clone all of each::

    run = maml_rl.load_run(importlib.resources.files("maml_rl.trained") / "half-cheetah-dir")
"""
