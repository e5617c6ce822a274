"""To and from Stable-Baselines3: policies as PPO models and back, vector environments as its `VecEnv`.

A policy observes the result of `gymnasium.spaces.flatten`, and so does the network of a PPO model, including one-hot
choices. Images are the exception: Stable-Baselines3 moves their colour channels to the front and divides them by 255.
Both become part of the first layer (`to_ppo`) or of the standardisation (`from_ppo`).

A model from `to_ppo` consists only of Stable-Baselines3's and PyTorch's classes, so its saved files can be loaded, used
and trained where this package is not installed.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecMonitor,
    VecTransposeImage,
    is_vecenv_wrapped,
    unwrap_vec_normalize,
    unwrap_vec_wrapper,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn
from torch import Tensor, nn

from maml_rl.actions import action_kind
from maml_rl.advantages import discounted_sum, explained_variance
from maml_rl.config import Activation
from maml_rl.distributions import Bernoulli, Categorical
from maml_rl.errors import InputError, one_line
from maml_rl.initial import BuiltPolicy, parameters
from maml_rl.policies import GaussianMLP, MLPPolicy, Standardisation, perceptron_for
from maml_rl.standardisation import observation_statistics
from maml_rl.tasks import TaskVectorEnv, assign_tasks, resets_itself, task_space
from maml_rl.types import Params, Trajectories
from maml_rl.unrolled import activation_of, as_perceptron, check_perceptron, convolutions_of, effective_clip

CRITIC_STEPS = 500
"""Gradient steps that fit a critic."""
_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def to_ppo(policy: BuiltPolicy, params: Params, env: GymEnv, **settings: Any) -> PPO:
    """A PPO model with the same distribution over actions, to rounding, as this policy with these parameters.

    The standardisation of observations becomes part of the first layer, which is then trained on raw observations:
    W (x - mean) / std + b = (W / std) x + (b - W mean / std). That is exact; in float32, means of actions agree to
    about `1e-7 |mean / std|` of their size. What Stable-Baselines3 does to pictures is undone there too. A bound on
    standardised observations becomes two layers of rectifiers before the others (`_clipping_layers`). The critic is
    random: `fit_critic` fits it. It has the policy's hidden layers, but no convolutions. Context numbers, as adapted,
    become part of the first layer's bias. Convolutions of a picture become matrices (`maml_rl.unrolled`).

    Args:
        policy: The policy.
        params: Its parameters, one set, without a leading M.
        env: Environment, or vector environment of Stable-Baselines3, with the policy's spaces.
        settings: Keyword arguments of `PPO`, for example `gamma` and `seed`; layers and activation are the policy's.

    Raises:
        InputError: If the policy cannot be a perceptron; if a tanh network clips its observations, which needs
            rectifiers; if the spaces of `env` are not those of the policy, or PPO does not take them; or if `env`
            normalises observations.
    """
    check_exportable(policy, env)
    convolutions = convolutions_of(policy)
    policy, params = as_perceptron(policy, params)
    layers = [policy.layer(params, i) for i in range(policy.layers)]
    critic = [len(bias) for _, bias in layers[convolutions:-1]]
    if policy.clip is not None:
        layers = _clipping_layers(policy.clip, layers)
    units = [len(bias) for _, bias in layers[:-1]]
    network = {"net_arch": {"pi": units, "vf": critic}, "activation_fn": _ACTIVATIONS[policy.activation]}
    settings = {"device": "cpu"} | settings | {"policy_kwargs": settings.get("policy_kwargs", {}) | network}
    model = PPO("MlpPolicy", env, **settings)
    actor = _linear_layers(model.policy.mlp_extractor.policy_net, model.policy.action_net)
    with torch.no_grad():
        for layer, (weight, bias) in zip(actor, layers, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        _standardise_inputs(actor[0], policy.observation_mean, policy.observation_std, _inputs_of(model))
        if isinstance(policy, GaussianMLP):
            model.policy.log_std.copy_(params["log_std"])
    return model


def check_exportable(policy: BuiltPolicy, env: GymEnv) -> None:
    """Checks that `to_ppo` can make a model of a policy for an environment.

    Raises:
        InputError: If not; see `to_ppo`.
    """
    observations, actions = env.observation_space, env.action_space
    check_perceptron(policy)
    check_spaces(observations, actions)
    clip, activation = effective_clip(policy), activation_of(policy)
    if clip is not None and activation != "relu":
        raise InputError(
            f"this policy clips standardised observations to +-{clip:g}, which a network of Stable-Baselines3 "
            f"supports with relu but not with {activation}: to export, train with network.activation relu or "
            "network.observation_clip None"
        )
    size, kind = len(policy.observation_mean), action_kind(actions)
    if (kind.distribution, kind.size) != (policy.distribution, policy.noise_size):
        raise InputError(
            f"Stable-Baselines3 needs actions in {_expected_actions(policy)} for this policy, but those of env are in "
            f"{one_line(actions)}"
        )
    if _observation_size(observations) != size:
        raise InputError(f"this policy observes {size} numbers, but env has observations in {one_line(observations)}")
    normalised = unwrap_vec_normalize(env) if isinstance(env, VecEnv) else None
    if normalised is not None and normalised.norm_obs:
        raise InputError(
            "env is a VecNormalize that normalises observations, but this policy needs them raw: give the environments "
            "inside it, or set norm_obs=False"
        )


def _expected_actions(policy: BuiltPolicy) -> str:
    """The actions that a policy has."""
    kind, size = policy.distribution, policy.noise_size
    if sizes := getattr(kind, "sizes", ()):
        return f"MultiDiscrete({list(sizes)})"
    if kind is Bernoulli:
        return f"MultiBinary({size})"
    return f"Discrete({size})" if kind is Categorical else f"a bounded Box of {size} numbers"


def _observation_size(space: spaces.Space[Any]) -> int:
    """Number of inputs of a network of Stable-Baselines3 for observations of a space.

    Raises:
        InputError: If its `MlpPolicy` does not take them, or flattens them differently from `gymnasium.spaces.flatten`.
    """
    begins_at_zero = not np.any(getattr(space, "start", 0))  # its one-hot vectors count from 0
    one_row = not isinstance(space, spaces.MultiDiscrete) or space.nvec.ndim == 1
    kinds = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    no_axis = isinstance(space, spaces.Box) and not space.shape
    if not isinstance(space, kinds) or no_axis or not begins_at_zero or not one_row:
        raise InputError(
            "Stable-Baselines3 needs observations in a Box of one axis or more, a MultiBinary, or a Discrete or "
            f"MultiDiscrete that begins at 0, but those of env are in {one_line(space)}"
        )
    return spaces.flatdim(space)


class _Inputs(NamedTuple):
    """How the inputs of a model's network come from its environment's flattened observations."""

    order: Tensor  # [obs]   the component of an observation that each input is
    scale: float  # by which it is divided

    def __call__(self, observations: Tensor) -> Tensor:
        """Inputs `[..., obs]` of observations `[..., obs]`."""
        return observations[..., self.order] / self.scale

    def in_order_of_observations(self, values: Tensor) -> Tensor:
        """Values `[..., obs]` of the inputs, put where they are in an observation."""
        return torch.empty_like(values).index_copy_(-1, self.order, values)


def _inputs_of(model: PPO) -> _Inputs:
    """How a model's network sees observations.

    Raises:
        InputError: If that cannot be known.
    """
    space = model.observation_space
    order = np.arange(_observation_size(space))
    is_picture = is_image_space(space)
    wrapper = unwrap_vec_wrapper(model.env, VecTransposeImage) if model.env is not None else None
    if wrapper is not None:
        shape = wrapper.venv.observation_space.shape or ()
        if np.prod(shape) != order.size:
            raise InputError(
                f"the model observes {space.shape}, made of the {shape} inside VecTransposeImage: stack frames first"
            )
        order = np.asarray(wrapper.transpose_observations(order.reshape(1, *shape))).ravel()
    elif model.env is None and is_picture and space.shape[0] > 1:  # type: ignore[index]
        raise InputError(
            f"the model has no environment, so it is not known whether its pictures {space.shape} had channels "
            "first: load it with one, PPO.load(path, env)"
        )
    return _Inputs(torch.from_numpy(order), 255.0 if is_picture and model.policy.normalize_images else 1.0)


def check_spaces(observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
    """Checks that `to_ppo` takes policies of these spaces.

    Raises:
        InputError: If not, with the kind of space that it takes.
    """
    if isinstance(actions, (spaces.Discrete, spaces.MultiDiscrete)):
        is_row = isinstance(actions, spaces.Discrete) or actions.nvec.ndim == 1
        usable, expected = is_row and not np.any(actions.start), "to begin at 0, in one row"
    elif isinstance(actions, spaces.MultiBinary):
        usable, expected = len(actions.shape) == 1, "in a MultiBinary of one row"
    else:
        usable = isinstance(actions, spaces.Box) and actions.is_bounded() and actions.dtype.kind == "f"
        expected = "in a bounded Box of real numbers, Discrete, MultiDiscrete or MultiBinary"
    if not usable:
        raise InputError(f"Stable-Baselines3 needs actions {expected}, but those of env are in {one_line(actions)}")
    _observation_size(observations)


_Layer = tuple[Tensor, Tensor]
"""Weight `[out, in]` and bias `[out]`."""


def _clipping_layers(clip: float, layers: Sequence[_Layer]) -> list[_Layer]:
    """Layers of a relu network that compute from z what `layers` compute from z clipped to +-clip.

    With a = relu(z + clip) and b = relu(2 clip - a), the clipped z is clip - b: exactly +-clip outside, however large z
    is. (The difference of relu(z + clip) and relu(z - clip) would lose the digits of what is between.)
    """
    (weight, bias), *others = layers
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    bound = torch.full_like(identity[0], clip)
    return [(identity, bound), (-identity, 2 * bound), (-weight, bias + weight @ bound), *others]


def _linear_layers(*modules: nn.Module) -> list[nn.Linear]:
    return [layer for module in modules for layer in module.modules() if isinstance(layer, nn.Linear)]


def _standardise_inputs(layer: nn.Linear, mean: Tensor, std: Tensor, inputs: _Inputs) -> None:
    """Makes a layer compute from the inputs of an observation x what it computed from (x - mean) / std."""
    mean, std = (value.to(layer.weight.device).double() for value in (mean, std))
    weight = layer.weight.double() / std
    layer.bias.copy_(layer.bias.double() - weight @ mean)
    layer.weight.copy_(weight[:, inputs.order] * inputs.scale)


def fit_critic(
    model: PPO,
    episodes: Trajectories,
    steps: int = CRITIC_STEPS,
    seed: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> float:
    """Fits the critic of a model to episodes of its policy, so that its first updates have useful advantages.

    A critic that starts near 0 has errors of the size of the returns; their gradient would drown the policy's, because
    PPO bounds the norm of both together. Targets are those of Stable-Baselines3, for which a time limit is not an end:
    the discounted return of an episode, continued at its time limit by the critic's own value of the last observation.

    Args:
        model: A model from `to_ppo`, whose `gamma` discounts.
        episodes: Episodes of one task, fields without the leading M, on the device of the model.
        steps: Gradient steps; the targets are recomputed every 20.
        seed: Seed of the order in which time steps are drawn.
        advance: Called after each gradient step.

    Returns:
        Share of the targets' variance that the critic explains, at most 1.
    """
    critic = nn.Sequential(model.policy.mlp_extractor.value_net, model.policy.value_net)
    inputs_of = _inputs_of(model)
    seen = episodes.observations[episodes.mask.bool()]
    mean, std = (torch.from_numpy(value).to(seen) for value in observation_statistics(seen.cpu().numpy()))
    standardised = (episodes.observations - mean) / std
    generator = torch.Generator().manual_seed(seed)
    returns, shift, scale = _regress(critic, standardised, episodes, model.gamma, steps, generator, advance)
    with torch.no_grad():
        layers = _linear_layers(critic)
        layers[-1].weight.mul_(scale)
        layers[-1].bias.mul_(scale).add_(shift)
        _standardise_inputs(layers[0], mean, std, inputs_of)
        fitted = critic(inputs_of(episodes.observations))[..., 0]
        return float(explained_variance(fitted, returns, episodes.mask))


def _regress(
    critic: nn.Module,
    inputs: Tensor,
    episodes: Trajectories,
    gamma: float,
    steps: int,
    generator: torch.Generator,
    advance: Callable[[], object],
) -> tuple[Tensor, Tensor, Tensor]:
    """Fits a critic's outputs to (returns - shift) / scale.

    Returns:
        The last targets, returns `[K, T]`, and their shift and scale, with which outputs are of the order of 1.
    """
    mask = episodes.mask.bool()
    ends = mask.clone()
    ends[:, :-1] &= ~mask[:, 1:]
    continued = ends & ~episodes.terminated[:, None]
    rewards = episodes.rewards * episodes.mask
    returns = discounted_sum(rewards, gamma)
    shift, scale = returns[mask].mean(), returns[mask].std(correction=0) + 1e-8
    seen = inputs[mask]
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    for step in range(steps):
        if step % 20 == 0:
            with torch.no_grad():
                values = critic(inputs)[..., 0] * scale + shift
            # A time limit is not an end: the value of the last observation stands for what would have followed it.
            returns = discounted_sum(torch.where(continued, values, rewards), gamma)
            targets = ((returns - shift) / scale)[mask]
        rows = torch.randint(len(seen), (256,), generator=generator)
        loss = (critic(seen[rows])[:, 0] - targets[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        advance()
    return returns, shift, scale


def from_ppo(model: PPO) -> tuple[MLPPolicy, Params]:
    """The policy of a PPO model, to rounding, and its parameters.

    Where the model's environment is a `VecNormalize`, its statistics and clip of observations become the policy's, and
    so does the division of pictures by 255. A model that was loaded has them only if it was loaded with its
    environment: `PPO.load(path, env)`.

    Args:
        model: A model with an `MlpPolicy` whose hidden layers are all relu or all tanh.

    Raises:
        InputError: If the model is another one.
    """
    actor, activation = model.policy, _activation_of(model)
    layers = _linear_layers(actor.mlp_extractor.policy_net, actor.action_net)
    inputs = _inputs_of(model)
    settings: dict[str, Any] = {
        "hidden_sizes": [layer.out_features for layer in layers[:-1]],
        "activation": activation,
        "generator": np.random.default_rng(0),  # weights are replaced
        "standardisation": _standardisation(model, inputs),
    }
    policy = perceptron_for(action_kind(_counted_from_zero(model.action_space)), layers[0].in_features, **settings)
    with torch.no_grad():
        for i, layer in enumerate(layers):
            weight = layer.weight.cpu()
            weight = inputs.in_order_of_observations(weight) if i == 0 else weight
            policy.get_parameter(f"weight_{i}").copy_(weight)
            policy.get_parameter(f"bias_{i}").copy_(layer.bias)
        if isinstance(policy, GaussianMLP):
            policy.log_std.copy_(actor.log_std)
    return policy, parameters(policy)


def _counted_from_zero(actions: spaces.Space[Any]) -> spaces.Space[Any]:
    """The actions of a model, if a policy can have them.

    Raises:
        InputError: If not.
    """
    if np.any(getattr(actions, "start", 0)):
        raise InputError(
            f"actions must be in a Box, or in a space of choices that begins at 0, but those of the model are in "
            f"{one_line(actions)}"
        )
    return actions


def _activation_of(model: PPO) -> Activation:
    """Activation of a model's hidden layers.

    Raises:
        InputError: If its policy is not made of Stable-Baselines3's plain parts, with relu or tanh.
    """
    actor = model.policy
    activation = next((name for name, kind in _ACTIVATIONS.items() if actor.activation_fn is kind), None)
    kinds = {"policy": ActorCriticPolicy, "features_extractor": FlattenExtractor, "mlp_extractor": MlpExtractor}
    found = {"policy": type(actor)} | {name: type(getattr(actor, name)) for name in list(kinds)[1:]}
    if model.use_sde or found != kinds or activation is None:
        raise InputError(
            "expected a PPO model with an MlpPolicy of relu or tanh without state-dependent exploration, got "
            f"{', '.join(kind.__name__ for kind in found.values())}, {actor.activation_fn.__name__}, "
            f"use_sde={model.use_sde}"
        )
    return activation


def _standardisation(model: PPO, inputs: _Inputs) -> Standardisation:
    """The standardisation of observations that a model and its environment have, for a policy.

    Where both a `VecNormalize` and the division of pictures apply, in this order, clip((x - mean) / std, c) / s is
    clip((x - mean) / (s std), c / s).
    """
    size, scale = len(inputs.order), inputs.scale
    normalised = model.get_vec_normalize_env()
    if normalised is None or not normalised.norm_obs:
        return Standardisation(std=torch.full((size,), scale))
    statistics: Any = normalised.obs_rms
    mean = torch.as_tensor(statistics.mean).flatten()
    std = torch.as_tensor(statistics.var + normalised.epsilon).sqrt().flatten() * scale
    if is_vecenv_wrapped(normalised.venv, VecTransposeImage):  # its statistics are in the order of the inputs
        mean, std = (inputs.in_order_of_observations(value) for value in (mean, std))
    return Standardisation(mean.float(), std.float(), normalised.clip_obs / scale)


class BatchVecEnv(VecEnv):
    """A vector environment of Gymnasium with Stable-Baselines3's interface.

    A sub-environment whose episode has ended begins the next one at once; the last observation is then the
    `terminal_observation` of its info, and `TimeLimit.truncated` says whether only the time limit ended it. The other
    entries of an info are the environment's, for example the terms of the reward.

    Args:
        envs: Sub-environments that do not reset themselves, as `maml_rl.tasks.vectorize` makes them.
        new_tasks: Whether each episode begins with a new task from `task_space`, drawn with the seed of `seed`;
            otherwise a sub-environment keeps its task until `set_attr("task", task)`.

    Raises:
        InputError: If the sub-environments reset themselves.
    """

    def __init__(self, envs: TaskVectorEnv, new_tasks: bool = False) -> None:
        if resets_itself(envs):
            raise InputError(
                f"{envs} resets itself, which Stable-Baselines3 does not expect: use maml_rl.tasks.vectorize with "
                "processes, or stable_baselines3.common.env_util.make_vec_env"
            )
        self.envs = envs
        self.new_tasks = deepcopy(task_space(envs)) if new_tasks else None
        self._actions: NDArray[Any] = np.zeros(0)
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seeds the sub-environments from their next reset on, with s, s + 1, ..., and the drawing of tasks."""
        seeds = super().seed(seed)
        if self.new_tasks is not None:
            self.new_tasks.seed(seeds[0])
        return seeds

    def reset(self) -> NDArray[Any]:
        """Begins an episode in every sub-environment: first observations `[num_envs, ...]`."""
        return self._begin(np.ones(self.num_envs, np.bool_))

    def _begin(self, mask: NDArray[np.bool_]) -> NDArray[Any]:
        """Begins an episode in the sub-environments of `mask`: observations of all."""
        if self.new_tasks is not None:
            tasks = self.get_attr("task")
            for i in np.flatnonzero(mask):
                tasks[i] = self.new_tasks.sample()
            assign_tasks(self.envs, tasks)
        observations, _ = self.envs.reset(seed=self._seeds, options={"reset_mask": mask})  # type: ignore[arg-type]
        self._reset_seeds()
        return np.asarray(observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Takes the actions `[num_envs, ...]` of the next step."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Steps: observations, rewards `[num_envs]`, whether each episode has ended, and an info for each."""
        observations, rewards, terminated, truncated, terms = self.envs.step(self._actions)
        done = terminated | truncated
        names = [name for name in terms if not name.startswith("_")]
        infos: list[dict[str, Any]] = [
            {name: terms[name][i] for name in names if terms[f"_{name}"][i]} for i in range(self.num_envs)
        ]
        for info, limited in zip(infos, truncated & ~terminated, strict=True):
            info["TimeLimit.truncated"] = bool(limited)
        if done.any():
            for i in np.flatnonzero(done):
                infos[i]["terminal_observation"] = observations[i]
            observations = self._begin(done)
        return observations, np.asarray(rewards, np.float32), done, infos

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Value of an attribute in each sub-environment, or in those of `indices`."""
        if attr_name == "render_mode":
            return [self.envs.render_mode] * self.num_envs
        values = self.envs.unwrapped.get_attr(attr_name)  # type: ignore[attr-defined]
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Assigns an attribute such as `task` in each sub-environment, or in those of `indices`."""
        values = self.get_attr(attr_name)
        for i in self._get_indices(indices):
            values[i] = value
        self.envs.unwrapped.set_attr(attr_name, values)  # type: ignore[attr-defined]

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Raises NotImplementedError: the sub-environments of a batch are not objects with methods."""
        raise NotImplementedError(f"{self.envs} has no sub-environments to call {method_name} of")

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """False for each sub-environment: a batch is wrapped as a whole."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """A picture of each sub-environment."""
        pictures = self.envs.render()
        return [None] * self.num_envs if pictures is None else list(pictures)  # type: ignore[arg-type]

    def close(self) -> None:
        """Frees the environments' resources."""
        self.envs.close()


def sb3_vec_env(envs: TaskVectorEnv, new_tasks: bool = False) -> VecMonitor:
    """`BatchVecEnv` of these sub-environments, with return and length of each finished episode in its info.

    Any algorithm of Stable-Baselines3 trains on it, and `evaluate_policy` takes it.
    """
    return VecMonitor(BatchVecEnv(envs, new_tasks))
