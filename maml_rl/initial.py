"""The policy before training: random weights, and observation statistics from its own episodes."""

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from maml_rl.config import PolicyConfig, RLMeta
from maml_rl.policies import CategoricalMLP, GaussianMLP, Standardisation
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
    # The bound counts standard deviations, and raw observations are not divided by theirs.
    standardisation = Standardisation(mean, std, config.observation_clip if config.standardise else None)
    settings = {
        "hidden_sizes": config.hidden_sizes,
        "activation": config.activation,
        "generator": Draw(seed, Phase.INITIALISATION).generator(Purpose.PARAMS),
        "standardisation": standardisation,
        "context_size": config.context_size,
    }
    actions = envs.single_action_space
    if isinstance(actions, spaces.Discrete):
        return CategoricalMLP(observation_size(envs), int(actions.n), **settings)
    action_size = int(np.prod(actions.shape or ()))
    return GaussianMLP(observation_size(envs), action_size, initial_std=config.initial_std, **settings)


def initial_policy(envs: TaskVectorEnv, config: PolicyConfig, meta: RLMeta, seed: int) -> MLPPolicy:
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
