"""Sampling rate with a policy for an environment without a batched form, compared with a bare loop around it.

The bare loop steps one environment without a policy, as fast as it can. The limit is its rate times the number of
processes. The step is a busy loop of that much processor time, not a sleep: it keeps a core busy, as a simulator does.
Sampling is measured with several environments in each process and with one. All three sides alternate within one run;
the figures are medians of the ratios of each round.
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
TASKS, EPISODES, STEPS = 8, 16, 50
STEP_SECONDS = (1e-4, 3e-4, 1e-3, 1e-2)


class Busy(gymnasium.Env[Any, Any]):
    """An environment without a batched form, whose step computes for some time."""

    observation_space = Box(-1.0, 1.0, (20,), np.float32)
    action_space = Box(-1.0, 1.0, (6,), np.float32)
    task_space = Box(0.0, 1.0, (1,), np.float32)
    task = np.zeros(1, np.float32)

    def __init__(self, step_seconds: float = 1e-3) -> None:
        self.step_seconds = step_seconds

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        super().reset(seed=seed)
        return np.zeros(20, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Computes."""
        end = time.thread_time() + self.step_seconds
        while time.thread_time() < end:
            pass
        return np.zeros(20, np.float32), 0.0, False, False, {}


def own_loop(step_seconds: float) -> float:
    """Steps per second of one environment in a loop without a policy."""
    env, action, count = Busy(step_seconds), np.zeros(6, np.float32), max(int(0.5 / step_seconds), 20)
    started = time.perf_counter()
    for _ in range(count):
        env.step(action)
    return count / (time.perf_counter() - started)


def main() -> None:
    """Measures and prints."""
    # Imported here, since the processes import this file too and have no use for PyTorch.
    import torch

    from maml_rl.config import PolicyConfig
    from maml_rl.initial import build_policy, parameters
    from maml_rl.processes import Processes, available_cores
    from maml_rl.rollouts import collect
    from maml_rl.seeding import Draw, Phase
    from maml_rl.tasks import TaskVectorEnv, evaluation_tasks, task_space, vectorize
    from maml_rl.types import repeat

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of measurements (5)")
    parser.add_argument("--processes", type=int, default=available_cores(), help="processes (as many as cores)")
    parser.add_argument("--step-seconds", type=float, nargs="+", default=STEP_SECONDS, help="times of a step")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    gymnasium.register(ENV_ID, Busy, max_episode_steps=STEPS)  # type: ignore[arg-type]

    def rate(envs: TaskVectorEnv, index: int) -> float:
        policy = build_policy(envs, PolicyConfig(), seed=0)
        tasks = evaluation_tasks(task_space(envs), TASKS)
        started = time.perf_counter()
        collect(envs, policy, repeat(parameters(policy), TASKS), tasks, EPISODES, Draw(0, Phase.TRAINING, index))
        return TASKS * EPISODES * STEPS / (time.perf_counter() - started)

    found = {}
    for step_seconds in arguments.step_seconds:
        settings = (Processes(arguments.processes), Processes(arguments.processes, envs_each=1))
        both = [vectorize(ENV_ID, TASKS * EPISODES, each, step_seconds=step_seconds) for each in settings]
        try:
            rounds = [
                (own_loop(step_seconds), rate(both[0], i), rate(both[1], i)) for i in range(arguments.repeats + 1)
            ][1:]
        finally:
            for envs in both:
                envs.close()
        limits = [arguments.processes * own for own, *_ in rounds]
        found[step_seconds] = {
            "limit": statistics.median(limits),
            "env_steps_per_second": statistics.median(several for _, several, _ in rounds),
            "ratio": statistics.median(several / limit for (_, several, _), limit in zip(rounds, limits, strict=True)),
            "ratio_of_one_each": statistics.median(
                one / limit for (*_, one), limit in zip(rounds, limits, strict=True)
            ),
        }
    if arguments.json:
        print(json.dumps({"processes": arguments.processes, "by_step_seconds": found}))
        return
    print(f"{arguments.processes} processes; the limit is {arguments.processes} times the environment's own loop\n")
    print("a step    limit, steps/s  sampled, steps/s  ratio  ratio with one environment each")
    for step_seconds, row in found.items():
        print(
            f"{1000 * step_seconds:4g} ms {row['limit']:15,.0f} {row['env_steps_per_second']:17,.0f} "
            f"{row['ratio']:6.2f} {row['ratio_of_one_each']:6.2f}"
        )


if __name__ == "__main__":
    main()
