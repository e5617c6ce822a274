"""RL^2 (Duan et al. 2016): a recurrent policy that learns within a trial, trained by PPO of sb3-contrib.

Nothing is adapted by gradients: the policy's hidden state carries over through all episodes of a trial (`Trial`) and
holds what it has found out about the task. Training maximises the return of whole trials.

The paper has a GRU and TRPO; sb3-contrib has an LSTM and PPO. Each sequence of an update is a trial that begins with a
hidden state of zeros, so an update has to consist of whole trials. sb3-contrib cuts an update at a random place, and
into minibatches from there. So at most one trial in each is cut in two; its second part begins with the hidden state
that it was sampled with.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from maml_rl.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.experiments.runs.ppo_baselines import Point
from maml_rl.experiments.runs.provenance import note_machine
from maml_rl.experiments.runs.rl2_files import POLICY, is_rl2
from maml_rl.experiments.runs.rl2_settings import RL2Config, Schedule
from maml_rl.json_types import from_json
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.sb3 import check_spaces, sb3_vec_env
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.tasks import Task, admit_beyond, assign_tasks, evaluation_tasks, sample_tasks, task_space, vectorize
from maml_rl.trials import Trial

if TYPE_CHECKING:
    from sb3_contrib import RecurrentPPO

_KIND = "rl2"
_ADAM, _REWARDS = "adam.", "rewards"  # names of the state of a training
_MOST_ENVS = 1000  # trials of an evaluation at once
_CLIP = 10.0  # bound on a standardised observation, as in Stable-Baselines3's VecNormalize
_LEAST_STD = 1e-6  # of an observation that varies


def trial_envs(config: RL2Config, count: int, machine: Machine = THIS_MACHINE) -> Trial:
    """Sub-environments whose episodes are the trials of the settings.

    Raises:
        InputError: If environment or settings cannot be used.
    """
    envs = vectorize(config.env_id, count, machine.env_processes(), max_episode_steps=config.max_episode_steps)
    try:
        trial = Trial(envs, config.episodes, config.reward_scale, config.memory)
        check_spaces(trial.single_observation_space, trial.single_action_space)
    except InputError:
        envs.close()
        raise
    return trial


def train_rl2(config: RL2Config, schedule: Schedule, out: Path, machine: Machine = THIS_MACHINE) -> Iterator[Point]:
    """Trains, and writes the policy into `out` after each evaluation: returns by episode, `[tasks, n]`.

    Args:
        config: Settings.
        schedule: How long it trains, and how it is evaluated.
        out: Directory of the policy.
        machine: Processes of an environment that is not batched.

    Raises:
        InputError: If environment or settings cannot be used, or sb3-contrib is not installed.
        NonFiniteError: If a parameter becomes NaN or infinite; what was saved last is kept.
    """
    schedule.check(config)
    with closing(trial_envs(config, config.num_envs, machine)) as envs:
        model = _new_model(config, envs)
        if config.standardise:
            _measure(model, envs, Draw(config.seed, Phase.TRAINING))
        yield _saved(model, config, schedule, out, machine)
        yield from _trained(model, config, schedule, out, machine)


def resume_rl2(directory: Path, schedule: Schedule, machine: Machine = THIS_MACHINE) -> Iterator[Point]:
    """Continues where `train_rl2` has stopped: with the same schedule, to the same bits as without the stop.

    Args:
        directory: What was trained.
        schedule: See `train_rl2`; `env_steps` counts from the beginning.
        machine: See `train_rl2`.

    Raises:
        InputError: See `load_rl2`; or if it has been trained for as long.
    """
    checkpoint, config = read_rl2(directory)
    schedule.check(config)
    with closing(trial_envs(config, config.num_envs, machine)) as envs:
        model = _new_model(config, envs)
        _restore(model, checkpoint, directory / POLICY)
        if model.num_timesteps >= schedule.env_steps:
            raise InputError(
                f"{directory} has been trained for {model.num_timesteps} env steps, {schedule.env_steps} were "
                "requested: give more"
            )
        yield from _trained(model, config, schedule, directory, machine)


def _trained(
    model: "RecurrentPPO", config: RL2Config, schedule: Schedule, out: Path, machine: Machine
) -> Iterator[Point]:
    """Trains until the next evaluation, and again.

    Each part of the training starts with new trials, and what it draws depends only on the seed and the env steps so
    far, as do step size and weight of the entropy. So a resumed training repeats one that was not stopped.
    """
    note_machine(out, model.num_timesteps // (model.n_steps * model.n_envs), model.device)
    while model.num_timesteps < schedule.env_steps:
        model.set_random_seed(Draw(config.seed, Phase.TRAINING, model.num_timesteps).integers(Purpose.PARAMS, 1)[0])
        model._last_obs = None  # so that all trials are reset
        model.lr_schedule = FloatSchedule(config.lr_after(model.num_timesteps))
        model.ent_coef = config.entropy_after(model.num_timesteps)
        _learn(model, min(schedule.every, schedule.env_steps - model.num_timesteps))
        yield _saved(model, config, schedule, out, machine)


def _learn(model: "RecurrentPPO", env_steps: int) -> None:
    """Takes updates for this many env steps.

    Raises:
        NonFiniteError: If a parameter becomes NaN or infinite.
    """
    try:
        model.learn(env_steps, reset_num_timesteps=False)
    except ValueError:  # of a distribution whose parameters are NaN
        if _is_finite(model):
            raise
    if not _is_finite(model):
        raise NonFiniteError(f"a parameter is NaN or infinite after {model.num_timesteps} env steps")


def _is_finite(model: "RecurrentPPO") -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in model.policy.parameters())


def _saved(model: "RecurrentPPO", config: RL2Config, schedule: Schedule, out: Path, machine: Machine) -> Point:
    """Evaluates the policy, then writes it: a stop meanwhile leaves what was evaluated last."""
    point = Point(model.num_timesteps, evaluate_rl2(model, config, schedule.tasks, machine=machine))
    save_rl2(model, config, out)
    return point


def _new_model(config: RL2Config, envs: Trial) -> "RecurrentPPO":
    n_steps = config.n_steps or envs.steps
    if n_steps % envs.steps:
        raise InputError(
            f"n_steps must be a multiple of a trial's {envs.steps} steps ({config.episodes} episodes of "
            f"{envs.steps // config.episodes}), got {n_steps}: set it to {-(-n_steps // envs.steps) * envs.steps}"
        )
    count = n_steps // envs.steps * envs.num_envs
    if count % config.minibatches:
        raise InputError(f"minibatches must divide the {count} trials of an update, got {config.minibatches}")
    check_installed()
    from sb3_contrib import RecurrentPPO

    from maml_rl.experiments.runs.trial_policies import ReactivePolicy, TrialPolicy

    trials: VecEnv = sb3_vec_env(envs, new_tasks=True)
    if config.normalise_rewards:
        trials = VecNormalize(trials, norm_obs=False, gamma=config.discount)
    return RecurrentPPO(
        TrialPolicy if config.memory else ReactivePolicy,
        trials,
        learning_rate=config.lr,
        n_steps=n_steps,
        batch_size=n_steps * envs.num_envs // config.minibatches,
        n_epochs=config.epochs,
        gamma=config.discount,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip,
        ent_coef=config.entropy,
        policy_kwargs={
            "lstm_hidden_size": config.units,
            "shared_lstm": config.shared_lstm,
            "enable_critic_lstm": not config.shared_lstm,
            "chrono": config.chrono,
            "net_arch": [],
            "features_extractor_class": _Standardised if config.standardise else FlattenExtractor,
        },
        seed=config.seed,
        device="cpu",
    )


class _Standardised(FlattenExtractor):
    """Observations as the LSTM sees them: standardised with statistics that the policy stores, and clipped."""

    mean: Tensor
    std: Tensor

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space)
        self.register_buffer("mean", torch.zeros(self.features_dim))
        self.register_buffer("std", torch.ones(self.features_dim))

    def forward(self, observations: Tensor) -> Tensor:
        """Standardised observations, `[n, obs]`."""
        standardised: Tensor = (super().forward(observations) - self.mean) / self.std
        return standardised.clamp(-_CLIP, _CLIP)


def _measure(model: "RecurrentPPO", envs: Trial, draw: Draw) -> None:
    """Sets the statistics of observations to those of one trial of random actions in each sub-environment."""
    extractor = model.policy.features_extractor
    assert isinstance(extractor, _Standardised)
    tasks_seed, actions_seed = (draw.integers(purpose, 1)[0] for purpose in (Purpose.TASKS, Purpose.ACTIONS))
    assign_tasks(envs, sample_tasks(task_space(envs), envs.num_envs, tasks_seed))
    envs.action_space.seed(actions_seed)
    observations, _ = envs.reset(seed=draw.integers(Purpose.RESETS, envs.num_envs))
    seen = [observations]
    while (running := envs.episode < envs.episodes).any():
        observations, *_ = envs.step(envs.action_space.sample())
        seen.append(observations[running])
    std, mean = torch.std_mean(torch.as_tensor(np.concatenate(seen)), dim=0)
    extractor.mean.copy_(mean)
    extractor.std.copy_(torch.where(std > _LEAST_STD, std, 1.0))


def check_installed() -> None:
    """Raises InputError if sb3-contrib, which the extra rl2 installs, is missing."""
    try:
        import sb3_contrib  # noqa: F401
    except ImportError:
        raise InputError("RL^2 needs the package sb3-contrib: pip install 'maml-rl[rl2]'") from None


def evaluate_rl2(
    model: "RecurrentPPO",
    config: RL2Config,
    tasks: int | Sequence[Task],
    seed: int = 0,
    greedy: bool = False,
    machine: Machine = THIS_MACHINE,
) -> NDArray[np.float64]:
    """Return of each episode of one trial on each task, `[tasks, n]`.

    Args:
        model: What was trained.
        config: Its settings.
        tasks: Tasks, which may be outside the bounds of p(T); or the number of held-out tasks, those of
            `maml-rl evaluate`.
        seed: Of tasks, first states and actions.
        greedy: Whether actions are the likeliest ones, or the means of a Gaussian, in place of samples.
        machine: Processes of an environment that is not batched.
    """
    count = tasks if isinstance(tasks, int) else len(tasks)
    with closing(trial_envs(config, min(count, _MOST_ENVS), machine)) as envs, torch.random.fork_rng(devices=[]):
        torch.manual_seed(Draw(seed, Phase.EVALUATION).integers(Purpose.ACTIONS, 1)[0])
        if isinstance(tasks, int):
            tasks = evaluation_tasks(task_space(envs), tasks, seed)
        else:
            admit_beyond(envs)
        parts = [tasks[start : start + envs.num_envs] for start in range(0, count, envs.num_envs)]
        draws = [Draw(seed, Phase.EVALUATION, i) for i in range(len(parts))]
        returns = [_returns(model, envs, part, draw, greedy) for part, draw in zip(parts, draws, strict=True)]
    return np.concatenate(returns)


def _returns(
    model: "RecurrentPPO", envs: Trial, tasks: Sequence[Task], draw: Draw, greedy: bool
) -> NDArray[np.float64]:
    """Returns `[tasks, n]` of one trial of each task; spare sub-environments repeat the last task."""
    assign_tasks(envs, [*tasks, *[tasks[-1]] * (envs.num_envs - len(tasks))])
    observations, _ = envs.reset(seed=draw.integers(Purpose.RESETS, envs.num_envs))
    returns = np.zeros((envs.num_envs, envs.episodes))
    memory: Any = None
    starts = np.ones(envs.num_envs, np.bool_)
    while (running := np.flatnonzero(envs.episode < envs.episodes)).size:
        episode = envs.episode[running]
        actions, memory = model.predict(observations, memory, starts, greedy)
        observations, rewards, *_ = envs.step(actions)
        returns[running, episode] += rewards[running]
        starts = np.zeros_like(starts)
    return returns[: len(tasks)]


def save_rl2(model: "RecurrentPPO", config: RL2Config, out: Path) -> None:
    """Writes the policy, its settings and the state of its training into a directory."""
    out.mkdir(parents=True, exist_ok=True)
    # The policy names the statistics of observations more than once, which safetensors would refuse.
    tensors = {name: value.clone() for name, value in model.policy.state_dict().items()}
    for index, state in model.policy.optimizer.state_dict()["state"].items():
        tensors |= {f"{_ADAM}{index}.{name}": value for name, value in state.items()}
    if isinstance(model.env, VecNormalize):
        spread = model.env.ret_rms
        numbers = [float(number) for number in (spread.mean, spread.var, spread.count)]
        tensors[_REWARDS] = torch.tensor(numbers, dtype=torch.float64)
    record = {"kind": _KIND, "env_steps": model.num_timesteps, "config": asdict(config)}
    save_checkpoint(out / POLICY, Checkpoint(tensors, record))


def load_rl2(directory: Path, machine: Machine = THIS_MACHINE) -> tuple["RecurrentPPO", RL2Config]:
    """What `save_rl2` has written: a model to act with, and its settings.

    Args:
        directory: What was trained.
        machine: Processes of an environment that is not batched.

    Raises:
        InputError: If there is none, or sb3-contrib or the environment cannot be used.
    """
    checkpoint, config = read_rl2(directory)
    acting = replace(config, num_envs=1, n_steps=None, minibatches=1)  # what it needs to train does not matter
    with closing(trial_envs(acting, 1, machine)) as envs:
        model = _new_model(acting, envs)
        _restore(model, checkpoint, directory / POLICY)
    return model, config


def read_rl2(directory: Path) -> tuple[Checkpoint, RL2Config]:
    """The checkpoint that `save_rl2` has written, and its settings.

    Raises:
        InputError: If there is none.
    """
    path = directory / POLICY
    if not is_rl2(directory):
        raise InputError(f"there is no {POLICY} in {directory}: give the directory that RL^2 was trained in")
    checkpoint = load_checkpoint(path)
    if checkpoint.record.get("kind") != _KIND:
        raise InputError(f"{path} is not an RL^2 policy: give the directory that it was trained in")
    try:
        return checkpoint, from_json(RL2Config, checkpoint.record["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): train again") from error


def _restore(model: "RecurrentPPO", checkpoint: Checkpoint, path: Path) -> None:
    """Gives a new model what was stored: policy, state of Adam, spread of rewards, and env steps."""
    tensors, adam = dict(checkpoint.tensors), model.policy.optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name in [name for name in tensors if name.startswith(_ADAM)]:
        index, _, field = name.removeprefix(_ADAM).partition(".")
        state.setdefault(int(index), {})[field] = tensors.pop(name)
    try:
        if isinstance(model.env, VecNormalize):
            spread = model.env.ret_rms
            spread.mean, spread.var, spread.count = tensors.pop(_REWARDS).tolist()
        model.policy.load_state_dict(tensors)
        model.policy.optimizer.load_state_dict(adam | {"state": state})
        model.num_timesteps = int(checkpoint.record["env_steps"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} has tensors that do not match its settings: train again") from error
