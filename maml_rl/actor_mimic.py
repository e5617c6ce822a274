"""Actor-Mimic (Parisotto, Ba, Salakhutdinov 2016): one student learns from the experts of a fixed set of tasks.

The student acts. In the states that it visits, it learns to act as the expert of each task would. It minimises the mean
over tasks and time steps of::

    KL(pi_E(. | s, task) || pi(. | s)) + beta |F_task h(s) - h_E(s, task)|^2

The first term is the cross-entropy minus the expert's own entropy, which does not depend on the student. h and h_E are
the last hidden features of student and expert, and F_task is a linear map that is learned too. No reward is used.

The experts are the policy of an oracle's run, which has the task in its observation (Finn, Abbeel, Levine 2017, section
5.3). In the original, the picture shows which game it is. A student that cannot see its task learns a mixture of the
experts in each state. With normal distributions, this is the one with the mean of their actions and a deviation that
covers all of them (moment matching).
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Discrete, Space, flatdim
from gymnasium.spaces import flatten as flatten_task
from torch import Tensor

from maml_rl.config import SGD, Adam, RLConfig
from maml_rl.distributions import Categorical, Distribution
from maml_rl.errors import InputError, NonFiniteEnvironmentError, NonFiniteError, one_line
from maml_rl.initial import BuiltPolicy
from maml_rl.learner import Metrics
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.meta_rl import Iteration
from maml_rl.parallel import TaskThreads, mean_over_tasks, one_torch_thread
from maml_rl.policies import Policy
from maml_rl.reinforcement import RLLearner, task_share
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.step import MetaGradient, initial_optimizer, meta_step
from maml_rl.tasks import Task, TaskVectorEnv, observation_size, source_tasks
from maml_rl.types import Params, State, Trajectories, flatten, laid_out, repeat, split, unflatten

_ORACLES = ("oracle", "mimic-oracle")  # methods of runs that have the task in the observation, and no inner updates
_MAPS = "features.maps"  # F of all tasks, [M, units of the expert, units of the student]


class Experts(NamedTuple):
    """The experts of all tasks: one policy that observes the task."""

    policy: BuiltPolicy
    params: Params  # one set
    task_space: Space[Any]
    appends_task: bool = True  # whether to append the task, which the student's observations do not have

    def observations(self, seen: Tensor, task: Task) -> Tensor:
        """What the expert of a task observes, `[N, obs + task]`, where the student observes `[N, obs]`."""
        if not self.appends_task:
            return seen
        flat = torch.as_tensor(np.asarray(flatten_task(self.task_space, task))).to(seen)
        return torch.cat([seen, flat.expand(len(seen), -1)], dim=1)

    @property
    def feature_size(self) -> int:
        """Number of its last hidden features."""
        return int(self.params[self.policy.last_layer()[0]].shape[1])


class Lesson(NamedTuple):
    """Time steps of one task, and what its expert does in them."""

    observations: Tensor  # [N, obs]   as the student has them
    expert: Distribution  # over actions `[N]`
    features: Tensor  # [N, units]   the expert's last hidden ones

    def rows(self, indices: Tensor) -> "Lesson":
        """Some of its time steps."""
        parts = (part[indices] for part in self.expert.parameters())
        return Lesson(self.observations[indices], type(self.expert)(*parts), self.features[indices])


class Imitated(NamedTuple):
    """How a student differs from the expert of a task, each a mean over time steps."""

    kl: Tensor  # []   KL(expert || student), in nats
    features: Tensor  # []   squared distance of mapped features; 0 without a map
    entropy: Tensor  # []   the student's own, in nats


class _EpsilonGreedy(NamedTuple):
    """A student during training: it takes its likeliest action, or with some probability a random one."""

    policy: Policy
    epsilon: float

    @property
    def distribution(self) -> type[Distribution]:
        """Kind of distribution over actions."""
        return self.policy.distribution

    @property
    def noise_size(self) -> int:
        """Number of choices."""
        return self.policy.noise_size

    def __call__(self, params: Params, observations: Tensor) -> Categorical:
        """1 - epsilon + epsilon / A for the likeliest of A choices, epsilon / A for each of the others."""
        (logits,) = self.policy(params, observations).parameters()
        likeliest = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits)
        return Categorical(((1 - self.epsilon) * likeliest + self.epsilon / logits.shape[-1]).log())

    def standardised(self, observations: Tensor) -> Tensor:
        """Observations as the network sees them."""
        return self.policy.standardised(observations)

    def last_layer(self) -> tuple[str, ...]:
        """Names of the parameters of the last layer."""
        return self.policy.last_layer()


class MimicLearner(RLLearner):
    """Tasks and policy of reinforcement learning, trained by imitation; evaluated and adapted like any other policy.

    Attributes:
        experts: The experts.
        tasks: The M tasks, the same in every iteration.
    """

    def __init__(
        self,
        config: RLConfig,
        envs: TaskVectorEnv,
        policy: BuiltPolicy,
        experts: Experts,
        machine: Machine = THIS_MACHINE,
    ) -> None:
        params = {name: value.to(machine.torch_device()) for name, value in experts.params.items()}
        self.experts = experts._replace(policy=experts.policy.to(machine.torch_device()), params=params)
        super().__init__(config, envs, policy, machine)
        self.tasks = source_tasks(self.task_space, config.meta.meta_batch_size, Draw(config.seed, Phase.TRAINING))
        if config.imitation.epsilon is not None and not isinstance(envs.single_action_space, Discrete):
            raise InputError(
                "imitation.epsilon is for discrete actions, but the actions are in "
                f"{one_line(envs.single_action_space)}: leave it out to sample actions"
            )

    @property
    def advice(self) -> list[str]:
        """Warns about pictures as observations."""
        return self.picture_advice()

    def initial(self) -> State:
        """The policy's own parameters, and the maps of the features, uniform within Glorot's bound."""
        state, rule = super().initial(), self.config.meta.step
        maps: Params = {}
        if self.config.imitation.feature_weight:
            units, of_expert = state.meta[self.policy.last_layer()[0]].shape[1], self.experts.feature_size
            bound = (6 / (units + of_expert)) ** 0.5
            shape = (self.config.meta.meta_batch_size, of_expert, units)
            generator = Draw(self.config.seed, Phase.INITIALISATION).generator(Purpose.FEATURES)
            maps[_MAPS] = torch.from_numpy(generator.uniform(-bound, bound, shape).astype(np.float32)).to(self.device)
        return state._replace(optimizer=maps | initial_optimizer(rule, state.meta | maps))

    def iterate(self, state: State) -> tuple[State, Metrics]:
        """One iteration: samples episodes of the student in all tasks, and takes steps towards the experts on them."""
        state = state.to(self.device).ordered(self._names)
        threads = self.threads.sharing(task_share(self.config))
        done = mimic_iteration(self.policy, state, self.envs, self.tasks, self.experts, self.config, threads)
        return done.state, Metrics(done.metrics, done.by_task)

    def summary(self, values: Any) -> str:
        """Return of the student, its distance from the experts, and the speed if it is known."""
        own, *speed = super().summary(values).split(", ")
        return ", ".join([own, f"KL from the experts {values['mimic/kl']:.3g}", *speed])


def check_experts(directory: Path, theirs: RLConfig, own: RLConfig) -> None:
    """Checks that a run has experts for the tasks of an imitation.

    Args:
        directory: The run.
        theirs: Its settings.
        own: Those of the imitation.

    Raises:
        InputError: If it is not an oracle's, or is in another environment.
    """
    if theirs.method not in _ORACLES:
        raise InputError(
            f"imitation.experts {directory} is a run of the method {theirs.method}, but an expert has to observe the "
            "task: give a run of the method oracle, such as that of maml-rl train PRESET-oracle"
        )
    if theirs.env_id != own.env_id:
        raise InputError(
            f"imitation.experts {directory} is a run in {theirs.env_id}, but the student is trained in {own.env_id}: "
            "give an oracle of the same environment"
        )


def experts_of(directory: Path, oracle: RLLearner, state: State, student: RLLearner) -> Experts:
    """The experts from an oracle's run.

    Args:
        directory: The run.
        oracle: Its learner.
        state: What its training has reached.
        student: Learner of the imitation.

    Raises:
        InputError: If the spaces of their environments differ.
    """
    ours, theirs = student.envs, oracle.envs
    if ours.single_action_space != theirs.single_action_space:
        raise InputError(
            f"the experts of {directory} have actions in {one_line(theirs.single_action_space)}, but the student's "
            f"are in {one_line(ours.single_action_space)}: give experts of the same environment"
        )
    observes_task, task_size = student.config.observe_task, flatdim(student.task_space)
    expected = observation_size(ours) + (0 if observes_task else task_size)
    if observation_size(theirs) != expected:
        raise InputError(
            f"the experts of {directory} observe {observation_size(theirs)} numbers instead of "
            f"{expected}, the student's and the task: give experts of the same environment"
        )
    return Experts(oracle.policy, state.meta, student.task_space, appends_task=not observes_task)


@one_torch_thread()
def mimic_iteration(
    policy: BuiltPolicy,
    state: State,
    envs: TaskVectorEnv,
    tasks: Sequence[Task],
    experts: Experts,
    config: RLConfig,
    threads: TaskThreads,
) -> Iteration:
    """One iteration of Actor-Mimic.

    Args:
        policy: The student.
        state: The state after the previous iterations; its `iteration` and the seed decide everything that is random.
        envs: Task-distributed sub-environments, any number of them.
        tasks: M tasks, the same in every iteration: the maps of the features are theirs.
        experts: The experts.
        config: Settings.
        threads: Threads that share the tasks; their `share` says which tasks belong to this rank.

    Raises:
        NonFiniteError: If a sampled or computed quantity is not finite; names iteration and quantity.
        RankError: If another rank has ended or does not answer.
    """
    started = time.perf_counter()
    state = State(laid_out(state.meta), laid_out(state.optimizer), state.iteration)
    draw = Draw(config.seed, Phase.TRAINING, state.iteration)
    try:
        trajectories = _student_episodes(policy, state, envs, tasks, config, draw, threads)
        sampled = time.perf_counter() - started
        lessons = _lessons(experts, trajectories, threads.share.of(tasks) if threads.share else tasks, threads)
        by_task = _measured(policy, state, trajectories, lessons, threads)
        new, of_step = _imitate(policy, state, lessons, config, draw, threads)
    except NonFiniteEnvironmentError as error:
        raise NonFiniteEnvironmentError(f"iteration {state.iteration + 1}: {error}") from error
    except NonFiniteError as error:
        raise NonFiniteError(f"iteration {state.iteration + 1}: {error}") from error
    metrics = {name: float(mean_over_tasks(list(values))) for name, values in by_task.items()} | of_step
    metrics |= {
        "sampling/env_steps": float(sum(threads.gathered(trajectories.lengths.sum(1)))),
        "time/sampling_seconds": sampled,
        "time/update_seconds": time.perf_counter() - started - sampled,
    }
    return Iteration(new, metrics, by_task)


def _student_episodes(
    policy: BuiltPolicy,
    state: State,
    envs: TaskVectorEnv,
    tasks: Sequence[Task],
    config: RLConfig,
    draw: Draw,
    threads: TaskThreads,
) -> Trajectories:
    """Episodes of the student in the tasks of this rank."""
    epsilon, share = config.imitation.epsilon, threads.share
    acting: Policy = policy if epsilon is None else _EpsilonGreedy(policy, epsilon)
    params = share.repeated(state.meta) if share else repeat(state.meta, len(tasks))
    own = share.of(tasks) if share else tasks
    return collect(envs, acting, params, own, config.meta.episodes, draw, share)


def _lessons(experts: Experts, trajectories: Trajectories, tasks: Sequence[Task], threads: TaskThreads) -> list[Lesson]:
    """What the expert of each task does in the states that the student has visited."""

    def of_task(m: int) -> Lesson:
        with torch.no_grad():
            seen = trajectories.observations[m][trajectories.mask[m].bool()]
            features = experts.policy.features(experts.params, experts.observations(seen, tasks[m]))
            return Lesson(seen, experts.policy.from_features(experts.params, features), features)

    return threads.map(of_task, range(len(tasks)))


def imitated(policy: BuiltPolicy, params: Params, lesson: Lesson, feature_map: Tensor | None) -> Imitated:
    """How a student with these parameters differs from the expert of a task.

    Args:
        policy: The student.
        params: Its parameters, one set.
        lesson: Time steps of the task.
        feature_map: F of the task, `[units of the expert, units of the student]`; None for no regression.
    """
    features = policy.features(params, lesson.observations)
    student = policy.from_features(params, features)
    kl = lesson.expert.kl(student).mean()
    distance = torch.zeros_like(kl)
    if feature_map is not None:
        distance = (features @ feature_map.T - lesson.features).square().sum(-1).mean()
    return Imitated(kl, distance, student.entropy().mean())


def _imitate(
    policy: BuiltPolicy, state: State, lessons: Sequence[Lesson], config: RLConfig, draw: Draw, threads: TaskThreads
) -> tuple[State, dict[str, float]]:
    """The state after the iteration's steps of Adam, each on a minibatch of every task, and what to log of the last.

    Each update of all parameters is a meta-step of `maml_rl.step`, whose count of iterations counts updates here.
    """
    settings, rule = config.imitation, config.meta.step
    if isinstance(rule, Adam | SGD) and rule.cosine_iterations is not None:
        period = rule.cosine_iterations * settings.updates
        rule = replace(rule, cosine_iterations=period)
    maps, moments = split(state.optimizer, {_MAPS})
    own = threads.share.indices if threads.share else range(len(lessons))
    generators = [draw.generator(Purpose.MINIBATCHES, m) for m in own]
    metrics: dict[str, float] = {}
    learned = State(state.meta | maps, moments, state.iteration * settings.updates)
    for _ in range(settings.updates):
        batch = [
            lesson.rows(torch.from_numpy(generator.integers(len(lesson.observations), size=settings.minibatch)))
            for lesson, generator in zip(lessons, generators, strict=True)
        ]
        gradient = _gradient(policy, learned.meta, batch, settings.feature_weight, threads)
        learned, metrics = meta_step(rule, learned, gradient)
        learned = learned._replace(meta=laid_out(learned.meta))
    maps, meta = split(learned.meta, {_MAPS})
    return State(meta, maps | learned.optimizer, state.iteration + 1), metrics


def _gradient(
    policy: BuiltPolicy, learned: Params, batch: Sequence[Lesson], feature_weight: float, threads: TaskThreads
) -> MetaGradient:
    """Gradient of the mean over tasks of KL and weighted feature regression, for the student's parameters and maps."""
    maps, params = split(learned, {_MAPS})
    own = threads.share.indices if threads.share else range(len(batch))

    def of_task(m: int, lesson: Lesson) -> tuple[Params, Tensor]:
        given = {name: value.detach().requires_grad_() for name, value in params.items()}
        given |= {name: value[m].detach().requires_grad_() for name, value in maps.items()}
        found = imitated(policy, given, lesson, given.get(_MAPS))
        value = found.kl + feature_weight * found.features
        return dict(zip(given, torch.autograd.grad(value, list(given.values())), strict=True)), value.detach()

    gradients, losses = zip(*threads.map(of_task, own, batch), strict=True)
    vectors = [flatten({name: gradient[name] for name in params}) for gradient in gradients]
    mean = unflatten(threads.mean(vectors), params)
    for name, value in maps.items():  # each is of one task
        mean[name] = torch.stack(threads.gathered(gradient[name] for gradient in gradients)) / len(value)
    return MetaGradient({name: mean[name] for name in learned}, threads.mean(losses))


def _measured(
    policy: BuiltPolicy, state: State, trajectories: Trajectories, lessons: Sequence[Lesson], threads: TaskThreads
) -> dict[str, Tensor]:
    """Contribution of each task, on any rank, to the metrics that are means over tasks, `[M]`.

    They describe the student that acted, before this iteration changes it.
    """
    maps = state.optimizer.get(_MAPS)
    own = threads.share.indices if threads.share else range(len(lessons))

    def of_task(m: int, lesson: Lesson) -> Tensor:
        with torch.no_grad():
            found = imitated(policy, state.meta, lesson, None if maps is None else maps[m])
            of_expert = lesson.expert.entropy().mean()
            return torch.stack([found.kl, found.kl + of_expert, of_expert, found.features, found.entropy])

    rows = torch.stack(threads.map(of_task, own, lessons)).unbind(1)
    names = ["mimic/kl", "mimic/cross_entropy", "mimic/expert_entropy", "mimic/feature_distance", "policy/entropy"]
    values = {"return/after_0_steps": trajectories.returns.mean(1), **dict(zip(names, rows, strict=True))}
    if maps is None:
        del values["mimic/feature_distance"]
    return {name: torch.stack(threads.gathered(of_tasks.unbind())) for name, of_tasks in values.items()}
