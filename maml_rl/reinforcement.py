"""Reinforcement learning as a `Learner`: environments, a policy and Algorithm 3 of Finn, Abbeel, Levine 2017."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gymnasium.spaces import Space
from gymnasium.vector import VectorWrapper
from torch import Tensor

from maml_rl.advantages import enough_episodes
from maml_rl.config import RLConfig, RLEvaluation, RLMeta
from maml_rl.errors import InputError
from maml_rl.evaluation import SeededTasks, adaptation, returns_by_step, with_step_size
from maml_rl.initial import BuiltPolicy, build_policy, initial_policy, parameters
from maml_rl.learner import RANDOM, THIS_RUN, Advance, Curve, Learner, Metrics, Validation
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.meta_rl import initial_state, meta_iteration
from maml_rl.module_policy import ModulePolicy
from maml_rl.objectives import check_own_loss
from maml_rl.ranks import ALONE, Ranks, Share, this_rank
from maml_rl.requirements import picture_advice
from maml_rl.seeding import Phase
from maml_rl.step import MetaStep
from maml_rl.task_parts import plain
from maml_rl.tasks import (
    Task,
    TaskVectorEnv,
    episode_limit,
    evaluation_tasks,
    groups,
    observation_size,
    strata,
    task_space,
    vectorize,
)
from maml_rl.types import Params, State, Trajectories

_NUM_ENVS = 800  # sub-environments stepped at once in an evaluation; it does not change what is sampled


class RLLearner(Learner[RLEvaluation]):
    """Meta-learns a policy on the tasks of environments.

    The states given to it may be on any device.

    Attributes:
        config: Settings of the run.
        envs: Task-distributed sub-environments, any number of them.
        machine: Machine resources to use.
        device: Where the policy and its updates are computed.
        threads: Threads that share the tasks of the update.
        policy: The policy, on the device.
        step: The meta-step; that of the settings if None.
    """

    def __init__(
        self,
        config: RLConfig,
        envs: TaskVectorEnv,
        policy: BuiltPolicy,
        machine: Machine = THIS_MACHINE,
        step: MetaStep | None = None,
    ) -> None:
        self.config, self.envs, self.machine, self.step = config, envs, machine, step
        self.device, self.threads = machine.torch_device(), machine.task_threads()
        self.policy: BuiltPolicy = policy.to(self.device)
        self._names = list(self.initial().meta)
        check_own_loss(self.policy, parameters(self.policy), config.meta, observation_size(envs))

    def close(self) -> None:
        """Closes the environments."""
        self.envs.close()

    @property
    def task_space(self) -> Space[Any]:
        """p(T)."""
        return task_space(self.envs)

    @property
    def constants(self) -> Params:
        """Statistics of observations, by which the policy standardises them, and buffers of the user's own network."""
        return dict(self.policy.named_buffers())

    @property
    def advice(self) -> list[str]:
        """Warnings about pictures as observations, and about too few episodes for the baseline to be fitted to them."""
        return [*self.picture_advice(), *self.few_episodes(self.config.meta.episodes)]

    def picture_advice(self) -> list[str]:
        """A warning where a perceptron or the baseline sees a picture as a row of numbers; none otherwise."""
        if self.config.network.module is not None:
            return []
        advice = picture_advice(self.envs.single_observation_space, convolved=bool(self.config.network.filters))
        return [advice] if advice else []

    def few_episodes(self, episodes: int) -> list[str]:
        """A warning where a task has too few episodes for the baseline to be fitted to them; none otherwise."""
        size, horizon = baseline_size(self.policy), episode_limit(self.envs)
        enough = enough_episodes(size, horizon)
        if episodes >= enough:
            return []
        return [
            f"a task has {episodes} episode{'' if episodes == 1 else 's'} of at most {horizon} steps for the "
            f"{2 * size + 4} weights of the baseline, so it overfits the returns and the advantages are mostly noise: "
            f"use at least {enough} episodes"
        ]

    def initial(self) -> State:
        """The policy's own parameters, and step sizes where they are learned."""
        return initial_state(self.policy, self.config.meta)

    def iterate(self, state: State) -> tuple[State, Metrics]:
        """One pass through the loop of Algorithm 3, together with the other ranks if this process has joined some.

        Raises:
            InputError: If the settings are those of an imitation, and the learner has no experts.
        """
        if self.config.imitates:
            raise InputError("the run is trained by imitation of experts: open its learner with open_learner(config)")
        state = state.to(self.device).ordered(self._names)
        config = self.config
        threads = self.threads.sharing(task_share(config))
        done = meta_iteration(self.policy, state, self.envs, config.meta, config.seed, threads, self.step)
        return done.state, Metrics(done.metrics, done.by_task)

    def summary(self, values: Mapping[str, float]) -> str:
        """Return before and after adaptation, and the speed if it is known."""
        shown, steps = f"return {values['return/after_0_steps']:.1f}", self.config.meta.inner_steps
        if steps:
            shown += f" before, {values[f'return/after_{steps}_steps']:.1f} after adaptation"
        speed = values.get("time/env_steps_per_second")
        return shown if speed is None else f"{shown}, {speed:,.0f} env steps/s"

    def evaluate(
        self,
        state: State,
        config: RLEvaluation,
        advance: Advance = lambda _: None,
        tasks: Sequence[Task] | None = None,
        validation: Validation | None = None,
    ) -> list[Curve]:
        """Return after each number of gradient steps, as in Figures 4 and 5: of the run, and of its random policy.

        Both take gradient steps of the size that the run was trained for. A run that was trained without inner updates
        has none: then it is chosen on validation tasks.

        The run has a curve for each number of `config.episodes_used`; its random policy has none if there are several
        numbers. All numbers have the same tasks, noise and number of episodes by which the return is measured, so they
        differ only in what the gradient steps have seen.

        If this process has joined other ranks, they share the tasks, and all of them have to call this.

        Args:
            state: The state that training has reached.
            config: Settings of the evaluation.
            advance: Called with the share of the work that has been done since the last call.
            tasks: The tasks; those that the settings draw if None.
            validation: How the step size was chosen, if that was done before.

        Raises:
            InputError: If there are more ranks than tasks.
        """
        state, space, ranks = state.to(self.device), self.task_space, this_rank()
        tasks = evaluation_tasks(space, config.tasks, config.seed) if tasks is None else tasks
        total = evaluation_episodes(self.config, config, len(tasks), validation is not None)
        envs = Counted(self.envs, lambda count: advance(count * ranks.size / total))
        shared = (tuple(plain(task) for task in tasks), strata(space, tasks))
        curves, task_set = [], SeededTasks(tasks).of_rank(ranks)
        for own in config.by_episodes_used():
            meta, chosen = self.with_step_size(state, own, envs, validation, ranks)
            inner_lr, used = tuple(step_sizes(meta, own)), own.step_episodes
            condition = f"{used} episode{'' if used == 1 else 's'}" if own.episodes_used else ""
            for name in _policies(config):
                params = state.meta if name == THIS_RUN else self.untrained().meta
                path = adaptation(self.policy, params, envs, task_set, meta, own, self.threads)
                returns = returns_by_step(path, ranks)
                curves.append(Curve(name, "return", returns, inner_lr, condition, *shared, chosen))
        return curves

    def with_step_size(
        self,
        state: State,
        config: RLEvaluation,
        envs: TaskVectorEnv | None = None,
        validation: Validation | None = None,
        ranks: Ranks = ALONE,
    ) -> tuple[RLMeta, Validation | None]:
        """Settings with the step size to adapt with, and how it was chosen if training had none.

        Args:
            state: The state that training has reached.
            config: Settings of the evaluation, with the step sizes to choose from.
            envs: Environments to choose it with; the learner's own if None.
            validation: How it was chosen, if that was done before.
            ranks: Ranks that share the validation tasks; this process alone by default.

        Raises:
            NonFiniteError: If none of the step sizes to choose from has a finite return.
        """
        meta, learned = self.config.meta, state.to(self.device).meta
        if validation is not None:
            return replace(meta, inner_lr=validation.best), validation
        return with_step_size(self.policy, learned, envs or self.envs, meta, config, self.threads, ranks)

    def adaptation(
        self,
        state: State,
        tasks: Sequence[Task],
        config: RLEvaluation | None = None,
        meta: RLMeta | None = None,
        indices: Sequence[int] | None = None,
        phase: Phase = Phase.EVALUATION,
    ) -> Iterator[tuple[Params, Trajectories]]:
        """Each task's parameters after 0, 1, 2, ... gradient steps, `[M, ...]`, and its episodes.

        Yields one pair at a time, as they are sampled. With an evaluation's tasks and their indices there, it does what
        the evaluation does.

        Args:
            state: The state that training has reached.
            tasks: M tasks.
            config: Gradient steps, episodes and seed; the run's own if None.
            meta: Settings of the inner update; as `with_step_size` has them if None.
            indices: Index of each task, which seeds its episodes; 0, 1, ... if None.
            phase: Part of the run, which seeds its episodes too.
        """
        config = config or self.config.evaluation
        meta = meta or self.with_step_size(state, config)[0]
        learned = state.to(self.device).meta
        task_set = SeededTasks(tasks, indices, phase)
        return adaptation(self.policy, learned, self.envs, task_set, meta, config, self.threads)

    def untrained(self) -> State:
        """The state of a random policy, a function of the seed, whatever run this one started from."""
        policy = build_policy(self.envs, self.config.network, self.config.seed)
        return initial_state(policy.to(self.device), self.config.meta)


def open_rl(
    config: RLConfig, machine: Machine = THIS_MACHINE, constants: Params | None = None, episodes: int | None = None
) -> RLLearner:
    """A learner with new environments, which it closes.

    Args:
        config: Settings of the run.
        machine: Machine resources to use.
        constants: Statistics of observations, from a run that has them; measured by a random policy's episodes if None.
        episodes: How many episodes are sampled at once, at most; those of a meta-iteration if None.

    Raises:
        InputError: If the environment cannot be meta-trained, a setting or the device cannot be used, or, for training,
            there are more ranks than tasks.
        WorkerError: If a process cannot make the environment.
    """
    machine.torch_device()
    num_envs = training_envs(config) if episodes is None else min(_NUM_ENVS, episodes)
    envs = make_envs(config, num_envs, machine)
    try:
        if constants is None:
            policy = initial_policy(envs, config.network, config.meta, config.seed)
        else:
            statistics = _statistics(constants, observation_size(envs))
            policy = build_policy(envs, config.network, config.seed, *statistics)
            _restore(policy, constants)
        return RLLearner(config, envs, policy, machine)
    except BaseException:
        envs.close()
        raise


def task_share(config: RLConfig) -> Share | None:
    """This rank's share of the tasks of a meta-iteration; None where it is all of them.

    Raises:
        InputError: If there are more ranks than tasks.
    """
    ranks, count = this_rank(), config.meta.meta_batch_size
    advice = f"set meta.meta_batch_size to at least {ranks.size}"
    return ranks.share(count, f"a meta-iteration whose meta.meta_batch_size is {count}", advice)


def training_envs(config: RLConfig) -> int:
    """Number of sub-environments of this rank in training.

    Raises:
        InputError: If there are more ranks than tasks.
    """
    share = task_share(config)
    tasks = len(share.indices) if share else config.meta.meta_batch_size
    episodes = tasks * config.meta.episodes
    if config.num_envs is None:
        return episodes
    return min(episodes, -(-config.num_envs // this_rank().size)) if share else config.num_envs


def _statistics(constants: Params, size: int) -> list[Tensor | None]:
    """Mean and standard deviation of observations; None for those of another size, which `check_fits` then rejects.

    Raises:
        InputError: If a standard deviation is not above 0.
    """
    found = [constants.get(name) for name in ("observation_mean", "observation_std")]
    mean, std = (value if value is not None and value.shape == (size,) else None for value in found)
    if std is not None and not (std > 0).all():
        raise InputError("the run has a standard deviation of observations that is not above 0: restore it from a copy")
    return [mean, std]


def _restore(policy: BuiltPolicy, constants: Params) -> None:
    """Copies the buffers that fit into a new policy; `check_fits` rejects the others."""
    for name, buffer in policy.named_buffers():
        if name in constants and constants[name].shape == buffer.shape:
            buffer.copy_(constants[name])


def baseline_size(policy: BuiltPolicy) -> int:
    """Numbers that the baseline sees of an observation."""
    return policy.of_baseline_size if isinstance(policy, ModulePolicy) else len(policy.observation_mean)


def make_envs(config: RLConfig, num_envs: int, machine: Machine = THIS_MACHINE, **settings: Any) -> TaskVectorEnv:
    """The environments of a run.

    Args:
        config: Settings of the run.
        num_envs: Number of sub-environments.
        machine: Machine resources to use.
        settings: Keyword arguments of the environment.

    Raises:
        InputError: If the environment cannot be meta-trained.
        WorkerError: If a process cannot make the environment.
    """
    processes = machine.env_processes()
    return vectorize(config.env_id, num_envs, processes, config.observe_task, config.max_episode_steps, **settings)


def rl_learner(learner: object) -> RLLearner:
    """The learner, which has to be one of reinforcement learning.

    Raises:
        InputError: If it is another one.
    """
    if not isinstance(learner, RLLearner):
        raise InputError("this is for runs of reinforcement learning, but the run is supervised")
    return learner


def step_sizes(meta: RLMeta, config: RLEvaluation) -> list[float]:
    """Step size of each gradient step of an evaluation; none where they are learned."""
    if meta.learned_lr != "no":
        return []
    return [meta.inner_lr * config.factor(step, meta.inner_steps) for step in range(config.gradient_steps)]


def _policies(settings: RLEvaluation) -> tuple[str, ...]:
    """The policies to evaluate: the run's own, and the random one unless there are several numbers of episodes."""
    return (THIS_RUN,) if len(settings.by_episodes_used()) > 1 else (THIS_RUN, RANDOM)


def evaluation_episodes(config: RLConfig, settings: RLEvaluation, tasks: int, is_validated: bool = False) -> int:
    """Episodes of an evaluation: of the run, of its random policy, and to choose a step size if necessary."""
    stages = settings.gradient_steps + 1
    chooses = config.meta.inner_steps == 0 and settings.gradient_steps and not is_validated
    validation = len(settings.inner_lrs) * settings.validation_tasks if chooses else 0
    each = (len(_policies(settings)) * tasks + validation) * settings.episodes * stages
    return len(settings.by_episodes_used()) * each


class Counted(VectorWrapper[Any, Any, Any, Any, Any]):
    """Sub-environments that report how many episodes start. An exception in the report ends the sampling.

    Args:
        envs: Sub-environments.
        begun: Called with the number of episodes that begin, from any of the threads that sample.
    """

    def __init__(self, envs: TaskVectorEnv, begun: Callable[[int], object]) -> None:
        super().__init__(envs)
        self._begun = begun
        self.groups: list[TaskVectorEnv] = [self if one is envs else Counted(one, begun) for one in groups(envs)]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Begins episodes; those that only fill the batch have the seed of another one."""
        self._begun(len(set(seed)))
        return self.env.reset(seed=seed, options=options)
