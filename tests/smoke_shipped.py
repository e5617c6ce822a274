"""Adapts each run that the wheel ships, as docs/notebooks does, with the package installed from that wheel."""

from importlib.resources import files

import numpy as np

import maml_rl

TASKS = {
    "half-cheetah-dir": 1,
    "half-cheetah-vel": np.full(1, 1.8, np.float32),
    "navigation": np.full(2, 0.3, np.float32),
}


def main() -> None:
    """Prints the returns before and after a gradient step."""
    for name, task in TASKS.items():
        run = maml_rl.load_run(files("maml_rl.trained") / name)
        with run.open() as learner:
            settings = maml_rl.RLEvaluation(gradient_steps=1)
            path = learner.adaptation(run.state, [task], settings)
            before, after = (float(maml_rl.task_returns(episodes).mean()) for _, episodes in path)
        print(f"{name}: {before:.1f} before, {after:.1f} after")
        assert after > before + 10


if __name__ == "__main__":
    main()
