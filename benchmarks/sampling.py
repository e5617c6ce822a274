"""Rate of sampling against the machine's limit, the raw rate of `mj_step`, in one process.

The limit is the rate of free-running threads that only call `mj_step`, in the same episodes: from the same starts, with
the sampled controls, to the same lengths. Both sides alternate. The figures are the median of each, and of the ratio of
each pair.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Any

import mujoco
import numpy as np
import torch
from mujoco.rollout import Rollout

from maml_rl.config import PolicyConfig
from maml_rl.envs.batched import stacked_tasks
from maml_rl.initial import build_policy, parameters
from maml_rl.processes import available_cores
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.tasks import evaluation_tasks, task_space, vectorize
from maml_rl.types import Trajectories, repeat

TASKS, EPISODES = 40, 20


def physics_rate(mdp: Any, sampled: Trajectories, draw: Draw, tasks: Sequence[Any], threads: int) -> float:
    """Control steps per second of `mj_step` in all threads together, for the episodes that were sampled."""
    size = mujoco.mj_stateSize(mdp.model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
    seeds = [seed for m in range(TASKS) for seed in draw.integers(Purpose.RESETS, EPISODES, m)]
    starts = mdp.initial([np.random.default_rng(seed) for seed in seeds])[:, :size].copy()
    inputs = mdp.inputs(mdp.controls(sampled.actions.numpy().astype(np.float64)))
    controls = np.repeat(inputs, mdp.frame_skip, axis=2)
    controls = controls.reshape(len(starts), -1, mdp.model.nu)
    lengths = sampled.mask.sum(-1).reshape(-1).int().numpy() * mdp.frame_skip
    models = mdp.models(np.repeat(stacked_tasks(mdp.task_space, tasks), EPISODES, axis=0))
    models = [copy(model) for model in models] if isinstance(models, list) else [copy(models)] * len(starts)
    for model in models:
        model.opt.disableflags = 0  # MuJoCo's own defaults

    def work(thread: int) -> None:
        rollout, data = Rollout(nthread=0), mujoco.MjData(mdp.model)
        for i in range(thread, len(starts), threads):
            rollout.rollout(models[i], data, starts[i], controls[i, : lengths[i]])

    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(work, range(threads)))
        return float(sampled.mask.sum()) / (time.perf_counter() - started)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--env-id", default="maml_rl.envs:finn2017/HalfCheetahVel-v0", help="a MuJoCo environment (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of measurements (5)")
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of both sides (all cores)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    envs = vectorize(arguments.env_id, TASKS * EPISODES, threads=arguments.threads)
    policy = build_policy(envs, PolicyConfig(), seed=0)
    params = repeat(parameters(policy), TASKS)
    tasks = evaluation_tasks(task_space(envs), TASKS)
    mdp = envs.unwrapped.mdp  # type: ignore[attr-defined]

    def rates(i: int) -> tuple[float, float]:
        draw = Draw(0, Phase.TRAINING, i)
        started = time.perf_counter()
        sampled = collect(envs, policy, params, tasks, EPISODES, draw)
        rate = float(sampled.mask.sum()) / (time.perf_counter() - started)
        return rate, physics_rate(mdp, sampled, draw, tasks, arguments.threads)

    rates(0)  # warm up
    pairs = [rates(i) for i in range(1, arguments.repeats + 1)]
    result = {
        "env_steps_per_second": statistics.median(rate for rate, _ in pairs),
        "physics_limit": statistics.median(limit for _, limit in pairs),
        "ratio_to_physics": statistics.median(rate / limit for rate, limit in pairs),
        "threads": arguments.threads,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"sampling {TASKS * EPISODES} of {arguments.env_id} with the policy: "
            f"{result['env_steps_per_second']:,.0f} steps/s"
        )
        print(f"mj_step alone in {arguments.threads} threads: {result['physics_limit']:,.0f} steps/s")
        print(f"ratio: {result['ratio_to_physics']:.2f}")


if __name__ == "__main__":
    main()
