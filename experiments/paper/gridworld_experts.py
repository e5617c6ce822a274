"""Makes the experts of the gridworld, for the presets gridworld-mimic: an oracle's run from exact values.

    python -m maml_rl.experiments.paper.gridworld_experts runs/gridworld-experts

Value iteration gives Q*(s, a) of every source task. As in Parisotto, Ba, Salakhutdinov 2016 (Actor-Mimic), an expert is
a network that approximates its Q*, and acts by softmax(Q* / temperature). One network is the expert of all tasks: it is
fitted to Q* / temperature of all cells and goals by least squares, with the task in its observation.
"""

import argparse
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gymnasium.spaces import flatten
from torch import Tensor

from maml_rl.config import RLConfig
from maml_rl.envs.gridworld import GridWorld, optimal_values
from maml_rl.errors import InputError
from maml_rl.experiments.presets.rl_presets import RL_PRESETS
from maml_rl.experiments.runs.loop import check_new
from maml_rl.initial import BuiltPolicy, build_policy, parameters
from maml_rl.optimizers import Moments, adam, cosine
from maml_rl.reinforcement import make_envs
from maml_rl.run import Progress, Run, save_run
from maml_rl.types import State, laid_out, unflatten
from maml_rl.types import flatten as joined

UPDATES = 4000
TEMPERATURE = 0.2  # with 1, the released default, a step costs 2 at most and the experts act almost at random
_LR = 1e-2


def targets(world: GridWorld, discount: float, temperature: float) -> tuple[Tensor, Tensor]:
    """What an oracle observes in every cell but the goal, for every goal, `[N, obs + tasks]`, and Q* / temperature.

    Args:
        world: The room.
        discount: Discount factor of a step.
        temperature: Divides Q*, `[N, 4]`.
    """
    observations, values = [], []
    for task in range(int(world.task_space.n)):  # type: ignore[attr-defined]
        q = optimal_values(world, task, discount)
        cells = np.flatnonzero(q.any(axis=1))  # the goal's values are 0
        seen = world.cells(task)[cells]
        encoded_task = np.broadcast_to(flatten(world.task_space, task), (len(cells), int(world.task_space.n)))  # type: ignore[attr-defined,arg-type]
        observations.append(np.concatenate([seen, encoded_task], axis=1))
        values.append(q[cells] / temperature)
    return torch.from_numpy(np.concatenate(observations)).float(), torch.from_numpy(np.concatenate(values)).float()


def fitted(policy: BuiltPolicy, observations: Tensor, values: Tensor, updates: int) -> tuple[State, float]:
    """Parameters whose logits are as close as possible to the values, and the largest error of a difference of logits.

    Args:
        policy: A policy of discrete actions.
        observations: `[N, obs]`.
        values: Logits, `[N, A]`.
        updates: Steps of Adam on all of them, with step sizes that fall along a half cosine.
    """
    params = parameters(policy)
    vector = joined(params)
    moments = Moments(torch.zeros_like(vector), torch.zeros_like(vector))

    def loss(of: dict[str, Tensor]) -> Tensor:
        logits: Tensor = policy(of, observations).parameters()[0]
        return (logits - values).square().mean()

    for update in range(updates):
        gradient = joined(torch.func.grad(loss)(params))
        vector, moments = adam(vector, gradient, moments, cosine(_LR, updates, update), update + 1)
        params = laid_out(unflatten(vector, params))
    with torch.no_grad():
        error = policy(params, observations).parameters()[0] - values
        return State(params, {}, updates), float((error - error.mean(1, keepdim=True)).abs().max())


def make_experts(out: Path, updates: int = UPDATES, temperature: float = TEMPERATURE) -> float:
    """Makes the run, and returns the largest error of its logits.

    Args:
        out: Directory of the run, which must not exist or be empty.
        updates: Steps of the fit.
        temperature: Divides Q*.

    Raises:
        InputError: If `out` holds something, or a number is out of range.
    """
    if not (temperature > 0 and math.isfinite(temperature)) or updates < 1:
        raise InputError(f"temperature must be above 0 and updates at least 1, got {temperature} and {updates}")
    check_new(out)
    config: RLConfig = replace(RL_PRESETS["gridworld-oracle"].config, iterations=updates)
    with closing(make_envs(config, 1)) as envs:
        policy = build_policy(envs, config.network, config.seed)
    state, error = fitted(policy, *targets(GridWorld(), config.meta.discount, temperature), updates)
    save_run(out, Run(config, state, dict(policy.named_buffers()), Progress()))
    return error


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="directory of the run")
    parser.add_argument("--updates", type=int, default=UPDATES, help="steps of the fit")
    parser.add_argument("--temperature", type=float, default=TEMPERATURE, help="divides the values")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        error = make_experts(chosen.out, chosen.updates, chosen.temperature)
    except (InputError, OSError) as error_of_user:
        parser.error(str(error_of_user))
    print(f"{chosen.out}: logits within {error:.2g} of Q* / {chosen.temperature:g}, except for a constant in each cell")


if __name__ == "__main__":
    main()
