"""The policy before training: random weights, and observation statistics from its own episodes."""

from dataclasses import asdict

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from maml_rl.config import MetaConfig, PolicyConfig
from maml_rl.errors import InputError
from maml_rl.policies import CategoricalMLP, GaussianMLP
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.standardisation import observation_statistics
from maml_rl.tasks import TaskVectorEnv, observation_size, task_space, training_tasks
from maml_rl.types import Params, repeat

MLPPolicy = GaussianMLP | CategoricalMLP


def build_policy(
    envs: TaskVectorEnv, config: PolicyConfig, seed: int, mean: Tensor | None = None, std: Tensor | None = None
) -> MLPPolicy:
    """Policy for the spaces of `envs` with random weights, a function of the seed.

    Args:
        envs: Environments whose spaces decide the sizes: a normal distribution for a Box of actions, a categorical one
            for Discrete.
        config: Settings of the network.
        seed: Seed of the run.
        mean, std: Shift and scale `[obs]` of observations; 0 and 1 if None.
    """
    settings = asdict(config)
    settings.pop("statistics_of")
    initial_std, clip = settings.pop("initial_std"), settings.pop("observation_clip")
    if not settings.pop("standardise"):
        clip = None  # the bound counts standard deviations, and raw observations are not divided by theirs
    settings |= {"generator": Draw(seed, Phase.INITIALISATION).generator(Purpose.PARAMS), "mean": mean, "std": std}
    actions = envs.single_action_space
    if isinstance(actions, spaces.Discrete):
        return CategoricalMLP(observation_size(envs), int(actions.n), clip=clip, **settings)
    action_size = int(np.prod(actions.shape or ()))
    return GaussianMLP(observation_size(envs), action_size, initial_std=initial_std, clip=clip, **settings)


def initial_policy(envs: TaskVectorEnv, config: PolicyConfig, meta: MetaConfig, seed: int) -> MLPPolicy:
    """Policy at the start of a run.

    If `config.standardise`, observations are shifted and scaled by their mean and standard deviation over episodes of
    the random policy, M tasks x K episodes; components that do not vary keep scale 1. These statistics never change.
    """
    if not config.standardise:
        return build_policy(envs, config, seed)
    blind = torch.full((observation_size(envs),), torch.inf)  # divided by it, every observation is 0
    policy = build_policy(envs, config, seed, std=blind if config.statistics_of == "noise" else None)
    draw = Draw(seed, Phase.STANDARDISATION)
    tasks = training_tasks(task_space(envs), meta.meta_batch_size, draw)
    trajectories = collect(envs, policy, repeat(parameters(policy), len(tasks)), tasks, meta.episodes, draw)
    observations = trajectories.observations[trajectories.mask.bool()]
    mean, std = (torch.from_numpy(value).float() for value in observation_statistics(observations.numpy()))
    return build_policy(envs, config, seed, mean, std)


def parameters(policy: MLPPolicy) -> Params:
    """The policy's own parameters as values: theta at the start."""
    return {name: value.detach().clone() for name, value in policy.named_parameters()}


def check_shapes(policy: MLPPolicy, tensors: Params, source: str) -> None:
    """Checks that loaded tensors are those of this policy.

    Raises:
        InputError: If a name, shape or type differs, as with a checkpoint of another environment.
    """
    expected = {name: _form(value) for name, value in policy.state_dict().items()}
    found = {name: _form(value) for name, value in tensors.items()}
    if expected != found:
        name = next(n for n in sorted({*expected, *found}) if expected.get(n) != found.get(n))
        raise InputError(
            f"the checkpoint in {source} does not fit its environment and network: {name} should be "
            f"{expected.get(name, 'absent')}, is {found.get(name, 'absent')}; is it of another environment?"
        )


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
