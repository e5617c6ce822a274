"""What is installed has one import name: a user's directory may hold packages called envs, experiments and tests."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("maml-rl")
SMALL = (
    "--iterations=1",
    "--meta.meta-batch-size=2",
    "--meta.episodes=2",
    "--network.hidden-sizes",
    "4",
    "--threads=1",
)
SMALL_EVALUATION = ("--tasks=2", "--episodes=2", "--gradient-steps=1", "--threads=1", "--json")
PROJECT = {
    "envs/__init__.py": "",
    "envs/mine.py": """
import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Foo(gymnasium.Env):
    observation_space = action_space = task_space = Box(-1.0, 1.0, (1,), np.float32)
    task = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1.0, 1.0, 1).astype(np.float32), {}

    def step(self, action):
        return action, -float(abs(action - self.task)[0]), False, False, {}


gymnasium.register("Foo-v0", Foo, max_episode_steps=3)
""",
    "experiments/__init__.py": "",
    "experiments/commands.py": "",
    "tests/__init__.py": "",
    "script.py": """
import envs.mine
import experiments.commands
import maml_rl
import tests
from maml_rl.processes import Processes

if __name__ == "__main__":
    for method in ("spawn", "fork"):
        theirs = maml_rl.vectorize("envs.mine:Foo-v0", 2, Processes(2, method))
        print(theirs.reset(seed=[0, 1])[0].shape)
        theirs.close()
    print(maml_rl.vectorize("maml_rl.envs:finn2017/Navigation2D-v0", 2).reset(seed=[0, 1])[0].shape)
""",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Callable[..., str]:
    """Runs a program in the user's directory and returns its output."""
    directory = tmp_path_factory.mktemp("project")
    for name, source in PROJECT.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(source)

    def finished(*arguments: object) -> str:
        done = subprocess.run([*map(str, arguments)], cwd=directory, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return finished


def test_commands_train_and_evaluate_in_the_users_envs(run):
    run(COMMAND, "train", "--env-id", "envs.mine:Foo-v0", "--preset=navigation", *SMALL, "--processes=2", "--out=run")
    evaluated = run(COMMAND, "evaluate", "run", *SMALL_EVALUATION, "--processes=2", "--start-method=fork")
    assert '"problem": "envs.mine:Foo-v0"' in evaluated


def test_the_package_as_a_program_evaluates_in_its_own_envs(run):
    """Python puts the current directory first where it looks for modules: the hardest case."""
    trained = Path(__file__).parents[1] / "trained" / "navigation"
    evaluated = run(sys.executable, "-m", "maml_rl.experiments", "evaluate", trained, *SMALL_EVALUATION, "--out=own")
    assert '"problem": "maml_rl.envs:finn2017/Navigation2D-v0"' in evaluated


def test_a_script_uses_the_users_envs_and_the_packages(run):
    assert run(sys.executable, "script.py") == "(2, 1)\n(2, 1)\n(2, 2)\n"
