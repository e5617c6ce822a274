"""Success rate on Meta-World's test tasks, by the benchmark's own protocol for meta-learning.

The protocol (`metaworld.evaluation.metalearning_evaluation`) adapts an agent to a test task on a few episodes and
counts in how many later episodes it succeeds. This module provides the agent, which is a run's policy with the inner
update, and the environments.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.config import require
from maml_rl.distributions import Distribution
from maml_rl.errors import InputError
from maml_rl.experiments.runs.progress import ProgressBar
from maml_rl.meta_rl import adapt_each, advantage_batches
from maml_rl.policies import Policy, policy_rates
from maml_rl.rates import theta
from maml_rl.reinforcement import RLLearner
from maml_rl.run import load_run
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.types import State, Trajectories, aligned, laid_out, repeat

_TEST_MANIPULATIONS = 5  # of ML10, ML25 and ML45


@dataclass(frozen=True)
class Protocol:
    """Settings of Meta-World's evaluation, with its defaults."""

    goals: int = 50
    """Goals per test manipulation, at most 50."""
    adaptation_steps: int = 1
    """Gradient steps, with new episodes for each (Meta-World: 1)."""
    adaptation_episodes: int = 10
    """Episodes per gradient step (Meta-World: 10)."""
    evaluation_episodes: int = 3
    """Episodes of the adapted policy, with its mean action (Meta-World: 3)."""
    seed: int = 0
    """Seed of the actions in the episodes that the policy adapts to."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("goals", self.goals, 1 <= self.goals <= 50, "from 1 to 50")
        require("adaptation_steps", self.adaptation_steps, self.adaptation_steps >= 1, "at least 1")
        require("adaptation_episodes", self.adaptation_episodes, self.adaptation_episodes >= 1, "at least 1")
        require("evaluation_episodes", self.evaluation_episodes, self.evaluation_episodes >= 1, "at least 1")
        require("seed", self.seed, self.seed >= 0, "at least 0")


class Success(NamedTuple):
    """What the protocol measures."""

    success_rate: float  # share of episodes with a success, mean over the manipulations
    mean_return: float  # of episodes that end with their first success
    by_manipulation: dict[str, float]  # success rate of each


class MetaWorldEvaluation(NamedTuple):
    """Success of a run's policy on test tasks, as meta-trained and after adaptation to each task."""

    env_id: str
    protocol: Protocol
    before: Success
    after: Success

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return {
            "env_id": self.env_id,
            **asdict(self.protocol),
            "before_adaptation": self.before._asdict(),
            "after_adaptation": self.after._asdict(),
        }

    def table(self) -> str:
        """Success rate in % of each manipulation and overall, before and after adaptation."""
        names = sorted(self.after.by_manipulation)
        rows = [(name, self.before.by_manipulation[name], self.after.by_manipulation[name]) for name in names]
        rows.append(("all", self.before.success_rate, self.after.success_rate))
        width = max(len("manipulation"), *(len(name) for name in names))
        lines = [f"{name:<{width}}  {before:>6.1%}  {after:>6.1%}" for name, before, after in rows]
        return "\n".join([f"{'manipulation':<{width}}  before   after", *lines])


class AdaptingAgent:
    """A policy with the inner update, as Meta-World's `MetaLearningAgent`: one task in each of M sub-environments.

    Args:
        learner: The learner of a run.
        state: What its training has reached.
        num_envs: M.
        seed: Seed of the actions in the episodes that the policy adapts to.
        on_task: Called when the protocol moves on to the next tasks.
    """

    def __init__(
        self, learner: RLLearner, state: State, num_envs: int, seed: int, on_task: Callable[[], object]
    ) -> None:
        self._policy: Policy = learner.policy
        self._meta, self._threads = learner.config.meta, learner.threads
        self._on_task = on_task
        self._learned = laid_out(state.meta)
        self._rates = policy_rates(self._policy, theta(self._learned), self._meta)
        self._theta = repeat(theta(self._learned), num_envs)
        self._params, self._updates = self._theta, 0
        self._generator = Draw(seed, Phase.EVALUATION).generator(Purpose.ACTIONS)
        self._steps: list[Any] = []

    def init(self) -> None:
        """Forgets the tasks so far."""
        self._params, self._updates = self._theta, 0
        self._on_task()

    def reset(self, env_mask: NDArray[np.bool_]) -> None:
        """Does nothing: the policy has no memory within an episode."""

    def adapt_action(self, observations: NDArray[np.float64]) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
        """Sampled actions `[M, act]`, clipped, with what `adapt` needs of each: the action itself, its log-probability.

        Args:
            observations: `[M, obs]`.
        """
        distribution = self._distribution(observations)
        noise = distribution.noise(self._generator, (len(observations), 1), self._policy.noise_size)
        sampled = distribution.sample(torch.from_numpy(noise))
        log_probs = distribution.log_prob(sampled)[:, 0].numpy()
        return _clipped(sampled), {"actions": sampled[:, 0].numpy(), "log_probs": log_probs}

    def step(self, timestep: Any) -> None:
        """Keeps a step, with fields `[M, ...]`, until `adapt`."""
        self._steps.append(timestep)

    def adapt(self) -> None:
        """theta_i' of each task by one inner update on the steps since the last."""
        batches, _ = advantage_batches(self._policy, _trajectories(self._steps), self._meta, self._threads)
        rates = self._rates.at(self._learned, self._updates)
        self._params = adapt_each(self._policy, self._params, batches, self._meta, rates, self._threads)
        self._steps, self._updates = [], self._updates + 1

    def eval_action(self, observations: NDArray[np.float64]) -> NDArray[np.float32]:
        """Mean actions `[M, act]` under the adapted parameters, clipped, as Meta-World's own agents take them."""
        without_noise = torch.zeros(len(observations), 1, self._policy.noise_size)
        return _clipped(self._distribution(observations).sample(without_noise))

    def _distribution(self, observations: NDArray[np.float64]) -> Distribution:
        with torch.no_grad():
            return self._policy(self._params, aligned(torch.from_numpy(observations.astype(np.float32)))[:, None])


def _clipped(actions: Tensor) -> NDArray[np.float32]:
    """Actions `[M, act]` in the range that Meta-World takes, of `[M, 1, act]`."""
    clipped: NDArray[np.float32] = actions[:, 0].clamp(-1.0, 1.0).numpy()
    return clipped


def _trajectories(steps: list[Any]) -> Trajectories:
    """Episodes of a list of steps, which all end together: while the agent adapts, only the time limit ends them."""
    episodes = sum(bool(step.truncated[0]) for step in steps)

    def field(values: list[NDArray[Any]]) -> Tensor:
        joined = np.stack(values, 1).astype(np.float32)  # [M, K T, ...]
        return aligned(torch.from_numpy(joined.reshape(len(joined), episodes, -1, *joined.shape[2:])))

    rewards = field([step.reward for step in steps])
    return Trajectories(
        observations=field([step.observation for step in steps]),
        actions=field([step.aux_policy_outputs["actions"] for step in steps]),
        log_probs=field([step.aux_policy_outputs["log_probs"] for step in steps]),
        rewards=rewards,
        mask=torch.ones_like(rewards),
        terminated=torch.zeros(rewards.shape[:2], dtype=torch.bool),
    )


def evaluate_metaworld(directory: Path, protocol: Protocol) -> MetaWorldEvaluation:
    """Evaluates a run on the test tasks of its benchmark, with the same seed as its training tasks.

    Raises:
        InputError: If the run cannot be used, is not of a Meta-World environment, or metaworld is not installed.
    """
    run = load_run(directory)
    env_id = run.rl_config.env_id
    with run.open_rl(episodes=1) as learner:
        settings = learner.envs.spec.kwargs if learner.envs.spec else {}
        if "benchmark" not in settings:
            raise InputError(
                f"{directory} was trained on {env_id}, which is not a Meta-World environment: use maml-rl evaluate "
                f"{directory}"
            )
    from metaworld import make_ml_envs_test  # the extra `metaworld`; `open_rl` has reported where it is missing
    from metaworld.evaluation import metalearning_evaluation

    # One sub-environment for each manipulation, which goes through its goals one after the other. The protocol counts
    # the first episodes to end. With several sub-environments for a manipulation, episodes that succeed would count
    # more often than those that fail, since they are shorter.
    benchmark, seed = settings["benchmark"], settings.get("seed", 0)
    manipulations = _TEST_MANIPULATIONS if benchmark.startswith("ML") else 1
    measured = []
    with ProgressBar("evaluating", "goal", 2 * protocol.goals) as bar:
        for adaptation_steps in (0, protocol.adaptation_steps):
            agent = AdaptingAgent(learner, run.state, manipulations, protocol.seed, bar.update)
            with closing(make_ml_envs_test(benchmark, seed=seed, meta_batch_size=manipulations)) as envs:
                success_rate, mean_return, by_manipulation = metalearning_evaluation(
                    agent,
                    envs,
                    num_evals=protocol.goals,
                    adaptation_steps=adaptation_steps,
                    adaptation_episodes=protocol.adaptation_episodes,
                    evaluation_episodes=protocol.evaluation_episodes,
                )
            rates = {name: float(rate) for name, rate in by_manipulation.items()}
            measured.append(Success(success_rate, mean_return, rates))
    return MetaWorldEvaluation(env_id, protocol, *measured)
