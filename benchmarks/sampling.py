"""Rate of sampling against the machine's limit, the raw rate of `mj_step`, in one process.

The limit is what free-running threads reach that call `mj_step` on the same model, in episodes of the same length from
the same kind of start, with random controls in long stretches of pure physics. Both sides alternate; the median of each
is quoted, and of the ratio taken pair by pair.
"""

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np
import torch
from mujoco.rollout import Rollout

from envs.mujoco_batch import available_cores
from maml_rl.config import PolicyConfig
from maml_rl.initial import build_policy, parameters
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase
from maml_rl.tasks import episode_limit, evaluation_tasks, task_space, vectorize
from maml_rl.types import repeat

TASKS, EPISODES = 40, 20


def physics_rate(mdp: Any, steps: int, threads: int) -> float:
    """Control steps per second of `mj_step` in all threads together, whole episodes under random controls."""
    count = TASKS * EPISODES // threads
    size = mujoco.mj_stateSize(mdp.model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
    states = mdp.initial([np.random.default_rng(i) for i in range(count)])[:, :size].copy()
    controls = np.random.default_rng(0).uniform(-1, 1, (count, steps * mdp.frame_skip, mdp.model.nu))

    def work(_: int) -> None:
        Rollout(nthread=0).rollout(mdp.model, mujoco.MjData(mdp.model), states, controls)

    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(work, range(threads)))
        return threads * count * steps / (time.perf_counter() - started)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--env-id", default="envs:finn2017/HalfCheetahVel-v0", help="a MuJoCo environment (%(default)s)"
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
    mdp, horizon = envs.unwrapped.mdp, episode_limit(envs)  # type: ignore[attr-defined]

    def sampling_rate(repeat_index: int) -> float:
        started = time.perf_counter()
        sampled = collect(envs, policy, params, tasks, EPISODES, Draw(0, Phase.TRAINING, repeat_index))
        return float(sampled.mask.sum()) / (time.perf_counter() - started)

    sampling_rate(0)  # warm up
    pairs = [(sampling_rate(i), physics_rate(mdp, horizon, arguments.threads)) for i in range(arguments.repeats)]
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
