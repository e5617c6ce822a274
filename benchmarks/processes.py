"""How much faster an environment is sampled in several processes than in one, where a step takes one millisecond.

The step is a busy loop of that much processor time, not a sleep: it keeps a core at work, as a simulator does, so the
figure tells whether they really run side by side. Both sides alternate within one run; the median of the ratios taken
pair by pair is quoted.
"""

import argparse
import json
import statistics
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

ENV_ID = "BusyForBenchmarks-v0"
TASKS, EPISODES, STEPS = 2, 4, 100
STEP_SECONDS = 1e-3


class Busy(gymnasium.Env[Any, Any]):
    """An environment without a batched form, whose step computes for a millisecond."""

    observation_space = Box(-1.0, 1.0, (20,), np.float32)
    action_space = Box(-1.0, 1.0, (6,), np.float32)
    task_space = Box(0.0, 1.0, (1,), np.float32)
    task = np.zeros(1, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        super().reset(seed=seed)
        return np.zeros(20, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Computes for a millisecond."""
        end = time.thread_time() + STEP_SECONDS
        while time.thread_time() < end:
            pass
        return np.zeros(20, np.float32), 0.0, False, False, {}


def main() -> None:
    """Measures and prints."""
    # Imported here, since the processes import this file too and have no use for PyTorch.
    import torch

    from maml_rl.config import PolicyConfig
    from maml_rl.initial import build_policy, parameters
    from maml_rl.processes import Processes
    from maml_rl.rollouts import collect
    from maml_rl.seeding import Draw, Phase
    from maml_rl.tasks import TaskVectorEnv, evaluation_tasks, task_space, vectorize
    from maml_rl.types import repeat

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of measurements (5)")
    parser.add_argument("--processes", type=int, default=2, help="processes of the faster side (2)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    gymnasium.register(ENV_ID, Busy, max_episode_steps=STEPS)

    def rate(envs: TaskVectorEnv, index: int) -> float:
        policy = build_policy(envs, PolicyConfig(), seed=0)
        tasks = evaluation_tasks(task_space(envs), TASKS)
        started = time.perf_counter()
        collect(envs, policy, repeat(parameters(policy), TASKS), tasks, EPISODES, Draw(0, Phase.TRAINING, index))
        return TASKS * EPISODES * STEPS / (time.perf_counter() - started)

    one, several = (vectorize(ENV_ID, TASKS * EPISODES, Processes(n)) for n in (1, arguments.processes))
    try:
        rate(one, 0), rate(several, 0)  # warm up
        pairs = [(rate(one, i), rate(several, i)) for i in range(arguments.repeats)]
    finally:
        one.close()
        several.close()
    result = {
        "env_steps_per_second_of_one": statistics.median(pair[0] for pair in pairs),
        "env_steps_per_second": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[1] / pair[0] for pair in pairs),
        "processes": arguments.processes,
        "step_seconds": STEP_SECONDS,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"a step of {1000 * STEP_SECONDS:g} ms in one process: {result['env_steps_per_second_of_one']:,.0f} steps/s"
        )
        print(f"in {arguments.processes} processes: {result['env_steps_per_second']:,.0f} steps/s")
        print(f"ratio: {result['ratio']:.2f}")


if __name__ == "__main__":
    main()
