"""E-MAML's term on problems small enough to list every outcome, in float64."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from maml_rl.advantages import advantage_batch
from maml_rl.config import SGD, RLConfig, RLMeta
from maml_rl.errors import InputError
from maml_rl.inner import inner_update
from maml_rl.meta_gradient import TaskData, meta_objective
from maml_rl.meta_rl import initial_state
from maml_rl.objectives import inner_loss
from maml_rl.parallel import TaskThreads
from maml_rl.policies import CategoricalMLP, policy_rates
from maml_rl.rates import theta as without_rates
from maml_rl.sampling_credit import credit_losses, episode_credits
from maml_rl.types import Batch, Params, Trajectories, flatten, unflatten

ALONE = TaskThreads(1)
# Two states and two actions; an action's own number is the next state. Rewards of each task by state and action.
TASKS = [torch.tensor(rewards, dtype=torch.float64) for rewards in ([[1, 0], [0, 3]], [[0, 2], [1, -1]])]


class Sampling(NamedTuple):
    """Some episodes of a task."""

    batch: Batch
    log_prob: Tensor  # of all of them, a function of the parameters that sampled them
    returns: Tensor  # [K]


class History(NamedTuple):
    """A path of parameters, with the samplings that lead along it, that of the query last."""

    path: list[Params]
    samplings: list[Sampling]


def probability(history: History) -> Tensor:
    return torch.stack([sampling.log_prob for sampling in history.samplings]).sum().exp()


class World:
    """Finite processes, a policy, and all support and query episodes that a task can have.

    The inner update is the package's, advantages of support included; those of the query are returns to go, divided by
    the unit of their task.
    """

    def __init__(self, horizon: int, episodes: int, tasks: Sequence[Tensor] = TASKS, units=1.0, **settings) -> None:
        self.horizon, self.episodes, self.tasks = horizon, episodes, tasks
        self.units = torch.as_tensor(units, dtype=torch.float64).expand(len(tasks))
        settings = {"meta_batch_size": len(tasks), "inner_lr": 0.7, "step": SGD()} | settings
        self.config = RLMeta(episodes=episodes, discount=1.0, **settings)
        self.policy = CategoricalMLP(2, 2, hidden_sizes=(), activation="tanh", generator=np.random.default_rng(3))
        self.policy = self.policy.double()
        state = initial_state(self.policy, self.config)
        generator = torch.Generator().manual_seed(5)  # a different step size for each number, where they are learned
        self.meta = {n: v * (0.5 + torch.rand(v.shape, generator=generator).double()) for n, v in state.meta.items()}
        self.meta["bias_0"] = torch.tensor([0.3, -0.2], dtype=torch.float64)
        self.rates = policy_rates(self.policy, without_rates(self.meta), self.config)
        self.loss = inner_loss(self.policy, self.config)

    def samplings(self, task: Tensor, params: Params, episodes: int) -> Iterator[Sampling]:
        """All possible samplings of a task; there are 2^horizon episodes."""
        for actions in product(product(range(2), repeat=self.horizon), repeat=episodes):
            acted = torch.tensor(actions)  # [K, T]
            states = torch.cat([torch.zeros(episodes, 1, dtype=torch.int64), acted[:, :-1]], 1)
            observations = torch.nn.functional.one_hot(states, 2).double()
            log_probs = self.policy(params, observations).log_prob(acted)
            rewards, mask = task[states, acted], torch.ones(acted.shape, dtype=torch.float64)
            ended = torch.zeros(episodes, dtype=torch.bool)
            trajectories = Trajectories(observations, acted, log_probs, rewards, mask, ended)
            yield Sampling(advantage_batch(trajectories, 1.0, 1.0)[0], log_probs.sum(), trajectories.returns)

    def adapted(self, params: Params, batch: Batch, meta: Params, step: int) -> Params:
        return inner_update(lambda p: self.loss(p, batch), params, self.rates.at(meta, step))

    def query(self, task: Tensor, params: Params) -> Iterator[Sampling]:
        """One query episode, with returns to go as advantages."""
        for batch, log_prob, returns in self.samplings(task, params, 1):
            rewards = task[batch.observations.argmax(-1), batch.actions]
            yield Sampling(batch._replace(advantages=rewards.flip(0).cumsum(0).flip(0)), log_prob, returns)

    def value(self, vector: Tensor) -> Tensor:
        """-E[return of the adapted policy] / T, over all outcomes, as a function of the meta-parameters.

        Differentiating it knows nothing of estimators: probabilities and updates are functions of the vector.
        """
        meta = unflatten(vector, self.meta)

        def reached(task: Tensor, params: Params, step: int) -> Tensor:
            if step == self.config.inner_steps:
                return sum(s.log_prob.exp() * s.returns.mean() for s in self.samplings(task, params, 1))
            return sum(
                s.log_prob.exp() * reached(task, self.adapted(params, s.batch, meta, step), step + 1)
                for s in self.samplings(task, params, self.episodes)
            )

        values = [reached(task, without_rates(meta), 0) for task in self.tasks]
        return -(torch.stack(values) / self.units).mean() / self.horizon

    def histories(self, task: Tensor, params: Params, step: int = 0) -> Iterator[History]:
        if step == self.config.inner_steps:
            yield from (History([params], [query]) for query in self.query(task, params))
            return
        for sampling in self.samplings(task, params, self.episodes):
            for path, later in self.histories(task, self.adapted(params, sampling.batch, self.meta, step), step + 1):
                yield History([params, *path], [sampling, *later])

    def expected_gradient(self, credit: float) -> Tensor:
        """E of the gradient of `meta_objective`, whose tasks here are all histories of all tasks.

        It is linear in the advantages of the query and in the credit, so that both carry the probabilities: the credit
        is summed over all outcomes of the other tasks.
        """
        each = [list(self.histories(task, without_rates(self.meta))) for task in self.tasks]
        credits = self.credits(each)
        count, data = sum(map(len, each)) / len(each), list[TaskData]()
        for m, histories in enumerate(each):
            for h, (path, (*support, query)) in enumerate(histories):
                advantages = count * probability(histories[h]) * query.batch.advantages / self.units[m]
                weighted = query.batch._replace(advantages=advantages)
                of_support = [count * credit * of_step[m][h] for of_step in credits]
                data.append(TaskData([s.batch for s in support], path, weighted, of_support))
        gradient = meta_objective(self.policy, self.meta, data, self.config, ALONE).gradient
        return flatten({name: gradient[name] for name in self.meta})

    def credits(self, each: Sequence[Sequence[History]]) -> list[list[Tensor]]:
        """Sum over all histories of the other tasks of probability times credit, `[history, K]`, by step and task."""
        joint = torch.cartesian_prod(*(torch.arange(len(histories)) for histories in each))  # [joint, M]

        def jointly(values: Callable[[History], Tensor]) -> Tensor:
            of_each = [torch.stack([values(history) for history in histories]) for histories in each]
            return torch.stack([of_task[joint[:, m]] for m, of_task in enumerate(of_each)], 1)

        weights = jointly(probability).prod(1)
        reached = jointly(lambda history: history.samplings[-1].returns.mean())
        units = (self.horizon * self.units).expand_as(reached)
        sums = []
        for step in range(self.config.inner_steps):
            before = jointly(lambda history, step=step: history.samplings[step].returns)
            credit = weights[:, None, None] * torch.func.vmap(episode_credits)(reached, units, before)
            of_tasks = [torch.zeros(len(histories), self.episodes, dtype=torch.float64) for histories in each]
            sums.append([sums.index_add(0, joint[:, m], credit[:, m]) for m, sums in enumerate(of_tasks)])
        return sums

    def true_gradient(self) -> Tensor:
        return torch.autograd.functional.jacobian(self.value, flatten(self.meta))


def relative_error(estimate: Tensor, exact: Tensor) -> float:
    return ((estimate - exact).norm() / exact.norm()).item()


FIVE_TASKS = [a * TASKS[0] + b for a, b in ((1, 0), (2, 1), (-1, 2), (0.5, 3), (3, -1))]  # enough for a slope
WORLDS = {
    "two processes, one episode": {"horizon": 2, "episodes": 1},
    "five bandits, two pulls": {"horizon": 1, "episodes": 2, "tasks": FIVE_TASKS},
    "two steps of learned size": {"horizon": 1, "episodes": 2, "inner_steps": 2, "learned_lr": "parameter"},
}


@pytest.mark.parametrize("settings", WORLDS.values(), ids=WORLDS)
def test_with_the_credit_the_expected_meta_gradient_is_that_of_the_return_after_adaptation(settings) -> None:
    world = World(**settings)
    exact = world.true_gradient()
    assert exact.norm() > 0.1
    torch.testing.assert_close(world.expected_gradient(1.0), exact, rtol=0, atol=1e-9)


def test_without_the_credit_it_is_not_and_the_likelihood_ratio_has_part_of_it() -> None:
    # Relative errors. To first order in the inner step, LVC's Hessian has most of the term here.
    worlds = [World(2, 1), World(1, 2), World(2, 1, inner_objective="lvc"), World(1, 2, inner_objective="lvc")]
    exact = [worlds[0].true_gradient(), worlds[1].true_gradient()] * 2
    errors = [relative_error(world.expected_gradient(0.0), of) for world, of in zip(worlds, exact, strict=True)]
    assert errors == pytest.approx([0.3728, 3.1000, 0.0300, 0.0894], abs=1e-4)


def test_the_credit_of_a_task_has_the_other_tasks_unit_so_unequal_units_are_not_exact() -> None:
    # MAML leaves the mean of C_i / u_i out of the exact gradient. Of two tasks, the credit divides C_0 by u_1 and
    # C_1 by u_0: what MAML leaves out where the units are exchanged.
    def omitted(units: Sequence[float]) -> Tensor:
        world = World(2, 1, units=units)
        return world.true_gradient() - world.expected_gradient(0.0)

    world = World(2, 1, units=(1.0, 2.0))
    credit = world.expected_gradient(1.0) - world.expected_gradient(0.0)
    torch.testing.assert_close(credit, omitted((2.0, 1.0)), rtol=0, atol=1e-9)
    assert relative_error(credit, omitted((1.0, 2.0))) > 0.1


def test_credit_by_hand() -> None:
    # Task 0: what it reached, 5, less the mean of the others, 2, by the mean of their units, 4. Four tasks are too few
    # for a slope.
    before = torch.zeros(4, 3)
    reached, units = torch.tensor([5.0, 1.0, 2.0, 3.0]), torch.tensor([100.0, 3.0, 4.0, 5.0])
    credit = episode_credits(reached, units, before)
    assert credit.shape == (4, 3)
    torch.testing.assert_close(credit[0], torch.full((3,), 0.75, dtype=torch.float64))


def test_the_baseline_knows_how_hard_a_task_is_from_the_other_episodes() -> None:
    # All tasks reach 3 + 2 G, G their return before. So the line through the others is exact. For episode k of task 0
    # it is read at the mean of the other two: of returns 1, 2, 6 (mean 3, reached 9) those are 4, 3.5 and 1.5, so
    # that 3 + 2 * 4 = 11, 10 and 6 are expected.
    before = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0], [0.0, 0.0, 0.0], [7.0, 7.0, 7.0], [5.0, 5.0, 5.0]])
    credit = episode_credits(3 + 2 * before.mean(1), torch.full((5,), 2.0), before)
    torch.testing.assert_close(credit[0], torch.tensor([-1.0, -0.5, 1.5], dtype=torch.float64))
    torch.testing.assert_close(credit[1:], torch.zeros(4, 3, dtype=torch.float64))
    flat = episode_credits(torch.tensor([5.0, 1.0, 2.0, 3.0, 4.0]), torch.ones(5), torch.ones(5, 3))
    torch.testing.assert_close(flat[0], torch.full((3,), 2.5, dtype=torch.float64))  # as hard as each other: no slope


def test_credit_has_the_units_of_the_outer_loss_and_none_where_that_has_no_signal() -> None:
    generator = torch.Generator().manual_seed(0)
    before, reached = torch.rand(6, 3, generator=generator), torch.rand(6, generator=generator)
    units = 1 + torch.rand(6, generator=generator)
    credit = episode_credits(reached, units, before)
    torch.testing.assert_close(episode_credits(1e3 * reached + 7, 1e3 * units, 1e3 * before - 5), credit)
    assert not episode_credits(reached, torch.zeros(6), before).any()


def test_the_loss_of_a_task_that_fared_badly_is_bounded() -> None:
    # Three episodes of one step with logits 0: making action 1 impossible brings at most its credit back, not more.
    policy = CategoricalMLP(1, 2, hidden_sizes=(), activation="tanh", generator=np.random.default_rng(0))
    zeros = {name: torch.zeros_like(value) for name, value in policy.named_parameters()}
    index = torch.arange(3)
    batch = Batch(torch.ones(3, 1), torch.ones(3).long(), torch.full((3,), 0.5).log(), index.float(), index, 0 * index)
    (loss,) = credit_losses(policy, [batch], [torch.tensor([-1.0, -2.0, -3.0])])
    assert loss(zeros).item() == pytest.approx(0)
    assert loss(zeros | {"bias_0": torch.tensor([0.0, -50.0])}).item() == pytest.approx(-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner_steps": 0}, "inner_steps of at least 1, got 0"),
        ({"meta_batch_size": 1}, "meta_batch_size of at least 2"),
        ({"inner_objective": "lvc"}, "count twice"),
    ],
)
def test_settings_that_leave_nothing_to_credit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RLMeta(sampling_credit=1.0, **settings)


@pytest.mark.parametrize(
    ("settings", "name"),
    [({}, "e-maml"), ({"adapted": "last-layer"}, "e-anil"), ({"first_order": True}, "e-first-order")],
)
def test_a_run_is_named_after_the_paper(settings: dict[str, object], name: str) -> None:
    config = RLConfig(env_id="maml_rl.envs:finn2017/Navigation2D-v0", meta=RLMeta(sampling_credit=0.5, **settings))
    assert config.method == name
