"""The policy before training: random weights, and observation statistics from its own episodes."""

from typing import Any

import torch
from torch import Tensor

from maml_rl.actions import action_kind
from maml_rl.config import PolicyConfig, RLMeta
from maml_rl.module_policy import PICTURE_RANGE, ModulePolicy, plain_standardisation
from maml_rl.observations import Parts, observation_parts
from maml_rl.own_network import feature_count, own_network
from maml_rl.picture_network import PictureNetwork
from maml_rl.policies import MLPPolicy, Standardisation, perceptron_for
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.standardisation import observation_statistics
from maml_rl.tasks import TaskVectorEnv, observation_size, task_space, training_tasks
from maml_rl.types import Params, repeat

BuiltPolicy = MLPPolicy | ModulePolicy
"""The policies of runs."""


def build_policy(
    envs: TaskVectorEnv, config: PolicyConfig, seed: int, mean: Tensor | None = None, std: Tensor | None = None
) -> BuiltPolicy:
    """Policy for the spaces of `envs` with random weights, a function of the seed.

    Args:
        envs: Environments whose spaces decide the sizes and the distribution over actions (`maml_rl.actions`), and
            whether there are pictures to convolve.
        config: Settings of the network.
        seed: Seed of the run.
        mean, std: Shift and scale `[obs]` of observations; 0 and 1 if None, and 0 and 255 for pictures that are
            convolved.

    Raises:
        InputError: If the user's own network cannot be used.
    """
    # The bound is in standard deviations, so it does not apply to raw observations.
    clip = config.observation_clip if config.standardise else None
    generator = Draw(seed, Phase.INITIALISATION).generator(Purpose.PARAMS)
    parts = observation_parts(envs.single_observation_space)
    kind = action_kind(envs.single_action_space)
    shared: dict[str, Any] = {"activation": config.activation, "generator": generator}
    shared |= {"hidden_sizes": config.hidden_sizes, "context_size": config.context_size}
    standardisation = Standardisation(mean, std, clip)
    if not has_module(config, parts):
        shared["standardisation"] = standardisation
        return perceptron_for(kind, observation_size(envs), config.initial_std, **shared)
    if std is None:
        standardisation = plain_standardisation(parts, clip)
    if config.module is None:
        network: Any = PictureNetwork(parts, config.filters, **shared)
        features = network.features
    else:
        network = own_network(config, parts, int(generator.integers(2**31)))
        features = feature_count(config.module, network, parts)
    return ModulePolicy(network, parts, features, kind, generator, config.initial_std, standardisation)


def has_module(config: PolicyConfig, parts: Parts) -> bool:
    """Whether a policy is a `ModulePolicy`: with the user's own network, or convolutions of pictures."""
    return config.module is not None or (bool(config.filters) and any(part.is_picture for part in parts))


def initial_policy(envs: TaskVectorEnv, config: PolicyConfig, meta: RLMeta, seed: int) -> BuiltPolicy:
    """Policy at the start of a run.

    If `config.standardise`, observations are shifted and scaled by their mean and standard deviation over episodes of
    the random policy, M tasks x K episodes; components that do not vary keep scale 1. These statistics never change.
    Pictures that are convolved are scaled to [0, 1] instead.
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
    if isinstance(policy, ModulePolicy):
        mean, std = _with_pictures(policy.parts, mean, std)
    return build_policy(envs, config, seed, mean, std)


def _with_pictures(parts: Parts, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale of observations, with those of pictures in their places."""
    places = torch.cat([torch.full((part.size,), part.is_picture) for part in parts])
    return torch.where(places, 0.0, mean), torch.where(places, PICTURE_RANGE, std)


def parameters(policy: BuiltPolicy) -> Params:
    """The policy's own parameters as values: theta at the start."""
    return {name: value.detach().clone() for name, value in policy.named_parameters()}
