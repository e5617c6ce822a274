"""The meta-gradient and steps by it, on a problem small enough for explicit Jacobians and Hessians, in float64."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maml_rl.config import SGD, Adam, ProMP, RLMeta, TrustRegion
from maml_rl.derivatives import TaskLoss
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.gradient_filter import is_statistic
from maml_rl.inner import inner_path, inner_update
from maml_rl.jacobian import adaptation_jacobian
from maml_rl.linear_policy import fisher_product, linear_policy
from maml_rl.meta_gradient import TaskData, inner_losses, meta_objective, thin
from maml_rl.meta_rl import adapt_each, initial_state
from maml_rl.objectives import PolicyLoss, inner_loss, likelihood_ratio, reinforce, surrogate_and_kl
from maml_rl.parallel import TaskThreads
from maml_rl.policies import CategoricalMLP, GaussianMLP, policy_rates
from maml_rl.rates import fixed_names
from maml_rl.rates import theta as without_rates
from maml_rl.step import MetaGradient, meta_step
from maml_rl.types import Batch, Params, State, flatten, frozen_names, select, split, stack, unflatten

TASKS, STEPS, OBSERVATION = 3, 12, 3
EPISODES = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2])  # of 5, 1 and 6 steps
TIMES = torch.tensor([0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 4, 5])
ALONE = TaskThreads(1)
GAUSSIAN_AND_CATEGORICAL = pytest.mark.parametrize("kind", [GaussianMLP, CategoricalMLP])
INNER_OBJECTIVES = pytest.mark.parametrize("objective", ["reinforce", "lvc", "dice"])


class Update(NamedTuple):
    """Result of one meta-update."""

    meta: Params
    metrics: dict[str, float]


def with_statistics(state: State) -> State:
    """The same state, as if a filter of the inner gradient had measured a share of noise in each number."""
    generator = np.random.default_rng(0)
    shares = {n: torch.from_numpy(generator.uniform(0.2, 1.0, v.shape)) for n, v in state.meta.items()}
    of = {name: name.startswith("inner_signal.") for name in state.meta if is_statistic(name)}
    return state._replace(meta=state.meta | {n: shares[n] if signal else 1 + 0 * shares[n] for n, signal in of.items()})


class Problem:
    """Tasks of random steps. Those of every update are sampled at the parameters where the path is then."""

    def __init__(self, kind: type = GaussianMLP, frozen: Sequence[str] = (), tasks: int = TASKS, **settings) -> None:
        self.config = RLMeta(**({"inner_lr": 0.3, "step": TrustRegion(curvature_fraction=1.0)} | settings))
        network = {"hidden_sizes": (4,), "activation": "tanh", "generator": np.random.default_rng(0)}
        context_size = 2 if self.config.adapted == "context" else 0
        self.policy = kind(OBSERVATION, 2, context_size=context_size, **network).double()
        for name in frozen:
            self.policy.get_parameter(name).requires_grad_(False)
        self.state = with_statistics(initial_state(self.policy, self.config))
        self.theta = without_rates(self.state.meta)
        fixed = fixed_names(self.policy, self.state.meta, self.config.adapted)
        self.fixed, self.learned = split(self.state.meta, fixed)
        self.rates = policy_rates(self.policy, self.theta, self.config)
        self.tasks = [self._task(np.random.default_rng(m + 1)) for m in range(tasks)]

    def _task(self, generator: np.random.Generator) -> TaskData:
        path, support = [self.theta], []
        for step in range(self.config.inner_steps):
            support.append(self._batch(path[-1], generator))
            path.append(inner_path(self.losses(support[-1:]), path[-1], [self.rates.at(self.state.meta, step)])[-1])
        query, count = self._batch(path[-1], generator), len(support) if self.config.sampling_credit else 0
        credit = [torch.from_numpy(generator.standard_normal(3)) for _ in range(count)]  # of three episodes each
        return TaskData(support, path, query, credit)

    def _batch(self, params: Params, generator: np.random.Generator) -> Batch:
        observations = torch.from_numpy(generator.standard_normal((STEPS, OBSERVATION)))
        distribution = self.policy(params, observations)
        noise = self.policy.distribution.noise(generator, (STEPS,), 2)
        actions = distribution.sample(torch.from_numpy(noise.astype(np.float64))).detach()
        advantages = torch.from_numpy(generator.standard_normal(STEPS))
        return Batch(observations, actions, distribution.log_prob(actions).detach(), advantages, EPISODES, TIMES)

    def losses(self, support: Sequence[Batch]) -> list[TaskLoss]:
        return inner_losses(inner_loss(self.policy, self.config), support)

    def adapted(self, vector: Tensor, task: TaskData) -> Params:
        """Parameters adapted from learned meta-parameters."""
        return self.path(vector, task)[-1]

    def path(self, vector: Tensor, task: TaskData) -> list[Params]:
        """The same before and after each gradient step."""
        meta = self.fixed | unflatten(vector, self.learned)
        path = [without_rates(meta)]
        for step, loss in enumerate(self.losses(task.support)):
            path.append(inner_update(loss, path[-1], self.rates.at(meta, step), self.config.first_order))
        return path

    def outer_gradient(self, task: TaskData) -> Params:
        """Gradient of the outer loss with respect to the adapted parameters."""
        return torch.func.grad(lambda p: PolicyLoss(self.policy, likelihood_ratio)(p, task.query))(task.path[-1])

    def first_order_gradient(self) -> Tensor:
        return torch.stack([flatten(self.outer_gradient(task)) for task in self.tasks]).mean(0)

    def outer_loss(self, vector: Tensor) -> Tensor:
        """Mean outer loss of the policies adapted from `vector`."""
        adapted = [self.adapted(vector, task) for task in self.tasks]
        pairs = zip(adapted, self.tasks, strict=True)
        losses = [PolicyLoss(self.policy, likelihood_ratio)(params, task.query) for params, task in pairs]
        return torch.stack(losses).mean() - self.credited(vector)

    def credited(self, vector: Tensor) -> Tensor:
        """Mean over tasks of the sum over support steps of credit times (ratio - 1)."""
        total = torch.zeros((), dtype=vector.dtype)
        for task in self.tasks:
            for params, batch, credit in zip(self.path(vector, task), task.support, task.credit, strict=False):
                new = self.policy(params, batch.observations).log_prob(batch.actions)
                total = total + (credit[batch.episodes] * ((new - batch.log_probs).exp() - 1)).sum()
        return total / len(self.tasks)

    def kl(self, vector: Tensor) -> Tensor:
        """Mean KL(old adapted || adapted from `vector`)."""
        kls = []
        for task in self.tasks:
            old = self.policy(task.path[-1], task.query.observations)
            kls.append(
                surrogate_and_kl(self.policy(self.adapted(vector, task), task.query.observations), task.query, old).kl
            )
        return torch.stack(kls).mean()

    def objective(
        self, threads: TaskThreads = ALONE, tasks: Sequence[TaskData] | None = None, **changes
    ) -> MetaGradient:
        config = replace(self.config, **changes)
        return meta_objective(self.policy, self.state.meta, tasks or self.tasks, config, threads)

    def update(self, *args, **changes) -> Update:
        step = changes.get("step", self.config.step)
        state, metrics = meta_step(step, self.state, self.objective(*args, **changes))
        return Update(state.meta, metrics)


def central_differences(function: Callable[[Tensor], Tensor], at: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Gradient with an error of about epsilon^2 from the third derivative and 1e-16 / epsilon from rounding."""
    directions = epsilon * torch.eye(len(at), dtype=at.dtype)
    return torch.stack([(function(at + d) - function(at - d)) / (2 * epsilon) for d in directions])


OBJECTIVES = {
    "reinforce": {},
    "lvc": {"inner_objective": "lvc"},
    **{f"dice {x}": {"inner_objective": "dice", "dice_lambda": x} for x in (0.0, 0.5, 1.0)},
}
# What the inner update changes, and by what step sizes: a line here is checked with every objective.
RATES = {
    "all": {},
    "ANIL": {"adapted": "last-layer"},
    "CAVIA": {"adapted": "context"},
    "Meta-SGD": {"learned_lr": "parameter"},
    "tensor and step": {"learned_lr": "tensor-and-step"},
    "normalised": {"normalised_gradient": True},
    "filter and shift": {"filtered_lr": True, "adapted_std_factor": 0.5},
}
SOME = {
    "frozen": {"frozen": ["weight_0", "log_std"]},
    "CAVIA, frozen": {"adapted": "context", "frozen": ["weight_1", "log_std"]},
    "CAVIA, learned, lvc": {"adapted": "context", "learned_lr": "parameter", "inner_objective": "lvc"},
    "CAVIA, tensor and step": {"adapted": "context", "learned_lr": "tensor-and-step"},
    "ANIL, frozen": {"adapted": "last-layer", "frozen": ["bias_0", "bias_1"]},
    "Meta-SGD, ANIL, lvc": {"learned_lr": "parameter", "adapted": "last-layer", "inner_objective": "lvc"},
    "tensor and step, ANIL": {"learned_lr": "tensor-and-step", "adapted": "last-layer"},
    "Meta-SGD, frozen": {"learned_lr": "parameter", "frozen": ["bias_0", "log_std"]},
    "CAVIA, normalised": {"adapted": "context", "normalised_gradient": True},
    "ANIL, Meta-SGD, filter, normalised": {
        "adapted": "last-layer",
        "learned_lr": "parameter",
        "filtered_lr": True,
        "normalised_gradient": True,
    },
    "CAVIA, shift, lvc": {"adapted": "context", "adapted_std_factor": 0.7, "inner_objective": "lvc"},
    "ANIL, shift": {"adapted": "last-layer", "adapted_std_factor": 0.7},
    "E-MAML, shift": {"sampling_credit": 1.0, "adapted_std_factor": 0.7},
    "E-MAML, CAVIA": {"sampling_credit": 1.0, "adapted": "context"},
    "E-MAML, ANIL, Meta-SGD, frozen": {
        "sampling_credit": 1.0,
        "adapted": "last-layer",
        "learned_lr": "parameter",
        "frozen": ["bias_0", "log_std"],
    },
}
VARIANTS = SOME | {f"{o}, {r}": OBJECTIVES[o] | RATES[r] for o, r in product(OBJECTIVES, RATES)}
COMBINATIONS = {"no steps": {"inner_steps": 0}} | {
    f"{name}, {steps} steps{', first order' * first_order}": settings
    | {"inner_steps": steps, "first_order": first_order}
    for (name, settings), steps, first_order in product(VARIANTS.items(), (1, 2), (False, True))
    if not (first_order and settings.get("inner_objective") == "dice")  # which then equals the other objectives
}


@pytest.fixture(scope="class", params=COMBINATIONS.values(), ids=COMBINATIONS)
def problem(request) -> Problem:
    return Problem(tasks=1, **request.param)


@pytest.fixture(scope="class")
def objective(problem: Problem) -> MetaGradient:
    return problem.objective()


class TestDerivatives:
    """Derivatives of every objective with every kind of step sizes, on episodes of unequal length."""

    def test_the_meta_gradient_is_that_through_the_whole_adaptation(self, problem, objective) -> None:
        expected = torch.func.grad(problem.outer_loss)(flatten(problem.learned))
        assert list(objective.gradient) == list(problem.learned)
        torch.testing.assert_close(flatten(objective.gradient), expected)

    def test_j_and_its_transpose_are_those_of_the_explicit_jacobian(self, problem) -> None:
        task, learned, names = problem.tasks[0], problem.learned, frozen_names(problem.policy)
        frozen, path = split(task.path[0], names)[0], [split(params, names)[1] for params in task.path]
        losses = [lambda p, loss=loss: loss(frozen | p) for loss in problem.losses(task.support)]
        meta = split(problem.state.meta, names)[1]
        jacobian = adaptation_jacobian(losses, path, problem.rates, meta, problem.config.first_order)

        def adapted(vector: Tensor) -> Tensor:
            params = problem.adapted(vector, task)
            return flatten({name: params[name] for name in path[-1]})

        explicit = torch.func.jacrev(adapted)(flatten(learned))
        generator = np.random.default_rng(5)
        change, cotangent = (torch.from_numpy(generator.standard_normal(n)) for n in reversed(explicit.shape))
        still = {name: torch.zeros_like(value) for name, value in meta.items()}
        product = jacobian.product(still | unflatten(change, learned))
        torch.testing.assert_close(flatten({name: product[name] for name in path[-1]}), explicit @ change)
        transposed = jacobian.transposed_product(unflatten(cotangent, path[-1]))
        torch.testing.assert_close(flatten({name: transposed[name] for name in learned}), explicit.T @ cotangent)

    def test_the_curvature_is_the_hessian_of_the_mean_kl_after_adaptation(self, problem, objective) -> None:
        start = flatten(problem.learned)
        vector = torch.from_numpy(np.random.default_rng(5).standard_normal(len(start)))
        product = torch.autograd.functional.vhp(problem.kl, start, vector)[1]
        assert product.norm() > 0.01
        torch.testing.assert_close(objective.curvature(vector), product, rtol=1e-6, atol=1e-9)

    def test_loss_and_kl_of_other_meta_parameters_are_those_after_adaptation(self, problem, objective) -> None:
        start = flatten(problem.learned)
        there = start + 0.1 * torch.from_numpy(np.random.default_rng(5).standard_normal(len(start)))
        loss, kl = objective.evaluate(there)
        torch.testing.assert_close(loss, problem.outer_loss(there).detach())
        torch.testing.assert_close(kl, problem.kl(there).detach())
        torch.testing.assert_close(objective.loss, problem.outer_loss(start).detach())


@pytest.mark.parametrize("kind", [GaussianMLP, CategoricalMLP])
@pytest.mark.parametrize("learned_lr", ["no", "parameter"])
def test_gradient_and_curvature_are_those_of_central_differences_and_a_dense_hessian(kind, learned_lr: str) -> None:
    problem = Problem(kind, learned_lr=learned_lr)
    start, objective = flatten(problem.learned), problem.objective()
    expected = central_differences(problem.outer_loss, start)
    torch.testing.assert_close(flatten(objective.gradient), expected, rtol=1e-6, atol=1e-8)
    hessian = torch.autograd.functional.hessian(problem.kl, start)
    columns = [objective.curvature(column) for column in torch.eye(len(start), dtype=start.dtype)]
    torch.testing.assert_close(torch.stack(columns, dim=1), hessian, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(torch.func.grad(problem.kl)(start), torch.zeros_like(start))


@GAUSSIAN_AND_CATEGORICAL
def test_the_fisher_product_is_that_of_the_mean_fisher_matrix(kind) -> None:
    problem = Problem(kind)
    observations, like = problem.tasks[0].query.observations, problem.theta
    old = problem.policy(like, observations)
    hessian = torch.autograd.functional.hessian(
        lambda v: old.kl(problem.policy(unflatten(v, like), observations)).mean(), flatten(like)
    )
    product = fisher_product(linear_policy(problem.policy, like, observations))
    for column, basis in zip(hessian.T, torch.eye(len(hessian), dtype=torch.float64), strict=True):
        torch.testing.assert_close(flatten(product(unflatten(basis, like))), column)


@INNER_OBJECTIVES
def test_first_and_second_order_gradients_differ_by_the_known_term(objective: str) -> None:
    problem = Problem(inner_objective=objective)
    terms = []
    for task in problem.tasks:  # (I - alpha H) g - g = -alpha H g
        loss = problem.losses(task.support)[0]
        hessian = torch.autograd.functional.hessian(
            lambda v, loss=loss: loss(unflatten(v, problem.theta)), flatten(problem.theta)
        )
        terms.append(-problem.config.inner_lr * hessian @ flatten(problem.outer_gradient(task)))
    expected = torch.stack(terms).mean(0)
    assert expected.norm() > 1e-3
    first_order = {"first_order": True, "inner_objective": "reinforce"}  # whose gradient is that of every inner loss
    second, first = (flatten(problem.objective(**changes).gradient) for changes in ({}, first_order))
    torch.testing.assert_close(first, problem.first_order_gradient())
    torch.testing.assert_close(second - first, expected)
    updates = [problem.update(**changes).meta for changes in ({}, first_order)]
    assert not torch.allclose(*map(flatten, updates), rtol=1e-3)


def test_the_inner_objective_changes_the_result() -> None:
    problem = Problem()
    reinforce, lvc = problem.update(), problem.update(inner_objective="lvc")
    assert not torch.allclose(flatten(reinforce.meta), flatten(lvc.meta), rtol=1e-3)


@pytest.mark.parametrize("inner_steps", [0, 1, 2])
def test_the_step_is_the_natural_gradient_that_uses_up_the_trust_region(inner_steps: int) -> None:
    # So small a KL that the first candidate is accepted: theta - sqrt(2 max_kl / g.x) x, x = (F + damping I)^-1 g.
    region = TrustRegion(max_kl=1e-6, cg_iterations=200, cg_damping=0.1, curvature_fraction=1.0)
    problem = Problem(inner_steps=inner_steps, step=region)
    result, theta = problem.update(), flatten(problem.theta)
    matrix = torch.autograd.functional.hessian(problem.kl, theta) + 0.1 * torch.eye(len(theta), dtype=torch.float64)
    gradient = torch.func.grad(problem.outer_loss)(theta)
    natural = torch.linalg.solve(matrix, gradient)
    assert result.metrics["meta/backtracks"] == 0
    expected = -(2e-6 / (gradient @ natural)).sqrt() * natural
    torch.testing.assert_close(flatten(result.meta) - theta, expected, rtol=1e-3, atol=1e-3 * expected.abs().max())


@GAUSSIAN_AND_CATEGORICAL
@INNER_OBJECTIVES
@pytest.mark.parametrize("inner_steps", [0, 1, 2])
def test_an_update_lowers_the_loss_within_max_kl(kind, objective: str, inner_steps: int) -> None:
    problem = Problem(kind, inner_objective=objective, inner_steps=inner_steps)
    result = problem.update()
    metrics, vector = result.metrics, flatten(result.meta)
    assert metrics["meta/accepted"] == 1
    # The metrics are those of the parameters that are returned.
    assert metrics["meta/loss_before"] == pytest.approx(problem.outer_loss(flatten(problem.theta)).item())
    assert metrics["meta/loss_after"] == pytest.approx(problem.outer_loss(vector).item())
    assert metrics["meta/kl"] == pytest.approx(problem.kl(vector).item())
    assert metrics["meta/step_norm"] == pytest.approx((vector - flatten(problem.theta)).norm().item())
    assert metrics["meta/loss_after"] < metrics["meta/loss_before"]
    assert 0 < metrics["meta/kl"] <= problem.config.step.max_kl


@pytest.mark.parametrize("rule", [TrustRegion(), Adam(lr=0.01), ProMP(lr=0.01, epochs=1), SGD(lr=0.1)])
@pytest.mark.parametrize("settings", [{}, {"learned_lr": "parameter"}, {"first_order": True}])
def test_every_rule_takes_a_step_that_lowers_the_loss(rule, settings) -> None:
    problem = Problem(step=rule, **settings)
    state, metrics = meta_step(rule, problem.state, problem.objective())
    before, after = flatten(problem.state.meta), flatten(state.meta)
    assert problem.outer_loss(after) < problem.outer_loss(before)
    assert metrics["meta/step_norm"] == pytest.approx((after - before).norm().item())
    assert state.iteration == 1
    assert list(state.optimizer) == list(problem.state.optimizer)
    after, search = {"meta/loss_after", "meta/kl"}, {"meta/backtracks", "meta/accepted"}
    assert after <= set(metrics) if rule.rule in ("trust-region", "promp") else not after & set(metrics)
    assert search & set(metrics) == (search if isinstance(rule, TrustRegion) else set())


@pytest.mark.parametrize("settings", RATES.values(), ids=RATES)
def test_adam_as_the_meta_step_takes_the_plain_policy_gradient(settings) -> None:
    # MAML-VPG: where the episodes were sampled, the likelihood ratio has the gradient of log pi A.
    problem = Problem(inner_steps=2, step=Adam(), **settings)

    def outer_loss(vector: Tensor) -> Tensor:
        loss = PolicyLoss(problem.policy, reinforce)
        losses = [loss(problem.adapted(vector, task), task.query) for task in problem.tasks]
        return torch.stack(losses).mean()

    expected = torch.func.grad(outer_loss)(flatten(problem.learned))
    torch.testing.assert_close(flatten(problem.objective().gradient), expected)


def test_a_step_without_a_trust_region_computes_no_curvature() -> None:
    objective = Problem().objective(step=SGD())
    assert objective.curvature is None
    assert objective.evaluate is None


def test_an_inner_update_that_could_change_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"nothing to change \(adapted is last-layer\)"):
        Problem(adapted="last-layer", frozen=["weight_1", "bias_1", "log_std"])


def test_a_smaller_trust_region_gives_a_smaller_kl() -> None:
    problem = Problem()
    region = problem.config.step
    for max_kl in (1e-2, 1e-4, 1e-6):
        kl = problem.update(step=replace(region, max_kl=max_kl)).metrics["meta/kl"]
        assert 0.1 * max_kl < kl <= max_kl


def test_a_rejected_step_leaves_theta_and_is_reported() -> None:
    # Equal advantages of 0: no gradient, no step, nothing to improve.
    problem = Problem()
    flat = [
        task._replace(query=task.query._replace(advantages=torch.zeros(STEPS, dtype=torch.float64)))
        for task in problem.tasks
    ]
    result = problem.update(tasks=flat)
    assert result.metrics["meta/accepted"] == 0
    assert result.metrics["meta/step_norm"] == result.metrics["meta/kl"] == 0
    assert result.metrics["meta/backtracks"] == problem.config.step.max_backtracks
    assert torch.equal(flatten(result.meta), flatten(problem.theta))


def test_metrics_are_finite_where_all_rewards_are_equal() -> None:
    problem = Problem()
    zero = torch.zeros(STEPS, dtype=torch.float64)
    flat = [
        TaskData([b._replace(advantages=zero) for b in task.support], task.path, task.query._replace(advantages=zero))
        for task in problem.tasks
    ]
    metrics = problem.update(tasks=flat).metrics
    assert {name: value for name, value in metrics.items() if not np.isfinite(value)} == {}


@pytest.mark.parametrize("inner_steps", [0, 1])
def test_nothing_is_changed_in_place(inner_steps: int) -> None:
    problem = Problem(inner_steps=inner_steps)
    theta = flatten(problem.theta).clone()
    tasks = [[field.clone() for field in task.query] for task in problem.tasks]
    paths = [[flatten(params).clone() for params in task.path] for task in problem.tasks]
    result = problem.update()
    assert torch.equal(flatten(problem.theta), theta)
    assert torch.equal(flatten(dict(problem.policy.named_parameters())), theta)
    assert not torch.equal(flatten(result.meta), theta)
    for task, query, path in zip(problem.tasks, tasks, paths, strict=True):
        assert all(torch.equal(now, before) for now, before in zip(task.query, query, strict=True))
        assert all(torch.equal(flatten(now), before) for now, before in zip(task.path, path, strict=True))


@pytest.mark.parametrize("inner_steps", [0, 1])
def test_the_result_carries_no_graph_where_theta_is_the_modules_own_parameters(inner_steps: int) -> None:
    problem = Problem(inner_steps=inner_steps)
    own = dict(problem.policy.named_parameters())
    tasks = [task._replace(path=[own, *task.path[1:]]) for task in problem.tasks]
    objective = meta_objective(problem.policy, own, tasks, problem.config, ALONE)
    result = meta_step(problem.config.step, State(own, {}, 0), objective)[0]
    assert not any(value.requires_grad for value in result.meta.values())
    assert torch.equal(flatten(result.meta), flatten(problem.update().meta))


@GAUSSIAN_AND_CATEGORICAL
@pytest.mark.parametrize("inner_steps", [0, 1, 2])
def test_the_result_does_not_depend_on_the_number_of_threads(kind, inner_steps: int) -> None:
    problem = Problem(kind, inner_steps=inner_steps)
    alone = problem.update()
    for threads in (2, 3, 5):
        together = problem.update(TaskThreads(threads))
        assert torch.equal(flatten(together.meta), flatten(alone.meta))
        assert together.metrics == alone.metrics


def test_the_order_of_the_tasks_does_not_matter() -> None:
    # Few iterations, because each unconverged conjugate-gradient iteration multiplies rounding, here by about 30.
    problem = Problem(inner_steps=2, step=TrustRegion(cg_iterations=3, curvature_fraction=1.0))
    result, permuted = problem.update(), problem.update(tasks=[problem.tasks[m] for m in (2, 0, 1)])
    torch.testing.assert_close(permuted.meta, result.meta)
    assert permuted.metrics == pytest.approx(result.metrics)


@pytest.mark.parametrize("inner_steps", [1, 2, 3])
def test_permuting_tasks_permutes_their_adapted_parameters(inner_steps: int) -> None:
    problem, order = Problem(inner_steps=inner_steps), [2, 0, 1]

    def adapted(tasks: Sequence[TaskData]) -> Params:
        params = stack([problem.theta] * TASKS)
        for step in range(inner_steps):
            batches = [task.support[step] for task in tasks]
            rates = problem.rates.at(problem.state.meta, step)
            params = adapt_each(problem.policy, params, batches, problem.config, rates, TaskThreads(2))
        return params

    plain, permuted = adapted(problem.tasks), adapted([problem.tasks[m] for m in order])
    for new, old in enumerate(order):
        assert torch.equal(flatten(select(permuted, new)), flatten(select(plain, old)))
        torch.testing.assert_close(select(plain, old), problem.tasks[old].path[-1])  # each task has its own
    assert not torch.allclose(flatten(select(plain, 0)), flatten(select(plain, 1)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["support", "query"])
def test_an_advantage_that_is_not_finite_is_an_error_that_names_the_quantity(field: str, value: float) -> None:
    problem = Problem()
    broken = problem.tasks[1].query._replace(advantages=torch.full((STEPS,), value, dtype=torch.float64))
    changes = {"support": [broken]} if field == "support" else {"query": broken}
    tasks = [problem.tasks[0], problem.tasks[1]._replace(**changes), problem.tasks[2]]
    named = "outer loss" if field == "query" else "meta-gradient"
    with pytest.raises(NonFiniteError, match=f"^{named} is not finite$"):
        problem.update(tasks=tasks)


@pytest.mark.parametrize("first_order", [False, True])
def test_curvature_of_the_inner_loss_is_reported_where_there_is_an_inner_derivative(first_order: bool) -> None:
    metrics = Problem().update(first_order=first_order).metrics
    assert ("inner/curvature" in metrics) is not first_order
    assert "inner/curvature" not in Problem(inner_steps=0).update().metrics


def test_the_reported_curvature_is_that_of_the_inner_loss() -> None:
    problem = Problem()
    largest = []
    for task in problem.tasks:
        loss = problem.losses(task.support)[0]
        hessian = torch.autograd.functional.hessian(
            lambda v, loss=loss: loss(unflatten(v, problem.theta)), flatten(problem.theta)
        )
        largest.append(0.3 * torch.linalg.eigvalsh(hessian).abs().max().item())
    # Five power iterations bound it from below.
    assert 0.7 * np.mean(largest) < problem.update().metrics["inner/curvature"] <= np.mean(largest) * (1 + 1e-9)


def numbered(count: int) -> Batch:
    numbers = torch.arange(float(count))
    return Batch(numbers[:, None], -numbers[:, None], 2 * numbers, 3 * numbers, 0 * numbers.long(), numbers.long())


def test_thinning_by_one_is_the_identity() -> None:
    batch = numbered(7)
    assert thin(batch, 1.0) is batch


def test_thinning_by_hand() -> None:
    # 9 steps by 1/3 are 3: the first, the middle and the last; by 5/9 are 5: every second.
    assert thin(numbered(9), 1 / 3).observations.flatten().tolist() == [0, 4, 8]
    assert thin(numbered(9), 5 / 9).observations.flatten().tolist() == [0, 2, 4, 6, 8]


@given(st.integers(1, 500), st.floats(0.01, 1))
def test_thinning_takes_that_share_evenly_and_the_same_steps_of_every_field(count: int, fraction: float) -> None:
    thinned = thin(numbered(count), fraction)
    chosen = thinned.observations.flatten()
    assert len(chosen) == max(1, round(fraction * count))
    gaps = chosen.diff()
    assert (gaps >= 1).all()
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
    assert torch.equal(thinned.actions[:, 0], -chosen)
    assert torch.equal(thinned.log_probs, 2 * chosen)
    assert torch.equal(thinned.advantages, 3 * chosen)
    assert torch.equal(thinned.times, chosen.long())


def test_thinning_changes_the_curvature_and_neither_gradient_nor_kl() -> None:
    problem = Problem()
    region = problem.config.step
    full, thinned = problem.update(), problem.update(step=replace(region, curvature_fraction=0.5))
    assert full.metrics["meta/accepted"] == thinned.metrics["meta/accepted"] == 1
    assert not torch.allclose(flatten(full.meta), flatten(thinned.meta), rtol=1e-3)
    for name in ("meta/gradient_norm", "meta/loss_before"):
        assert thinned.metrics[name] == full.metrics[name]
    assert thinned.metrics["meta/kl"] == pytest.approx(problem.kl(flatten(thinned.meta)).item())
    assert thinned.metrics["meta/loss_after"] == pytest.approx(problem.outer_loss(flatten(thinned.meta)).item())
