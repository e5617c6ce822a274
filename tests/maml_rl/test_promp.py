"""Proximal meta-policy search against its whole loss, differentiated by autograd through the adaptation, in float64."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from maml_rl.config import SGD, Adam, ProMP, RLMeta, TrustRegion
from maml_rl.distributions import Categorical
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.meta_gradient import TaskData, meta_objective
from maml_rl.meta_rl import initial_state
from maml_rl.objectives import PolicyLoss, inner_loss, likelihood_ratio
from maml_rl.parallel import TaskThreads
from maml_rl.policies import CategoricalMLP, GaussianMLP, policy_rates
from maml_rl.promp import clipped_ratio, clipped_share
from maml_rl.rates import fixed_names, theta
from maml_rl.step import MetaGradient, Proximal, meta_step
from maml_rl.types import Batch, Params, State, flatten, split, unflatten

ALONE = TaskThreads(1)
LENGTHS = (5, 12, 8)  # steps of each task's batches


class Problem:
    """Three tasks of random steps, sampled by the parameters that adaptation from theta has reached."""

    def __init__(self, kind: type = GaussianMLP, frozen: Sequence[str] = (), **settings) -> None:
        self.config = RLMeta(**({"inner_lr": 0.3, "inner_objective": "lvc", "step": ProMP()} | settings))
        generator = np.random.default_rng(0)
        network = {"hidden_sizes": (4,), "activation": "tanh", "generator": generator}
        context_size = 2 if self.config.adapted == "context" else 0
        self.policy = kind(3, 2, context_size=context_size, **network).double()
        for name in frozen:
            self.policy.get_parameter(name).requires_grad_(False)
        self.state = initial_state(self.policy, self.config)
        fixed = fixed_names(self.policy, self.state.meta, self.config.adapted)
        self.fixed, self.learned = split(self.state.meta, fixed)
        self.rates = policy_rates(self.policy, theta(self.state.meta), self.config)
        self.start = flatten(self.learned)
        self.there = self.start + 0.3 * torch.from_numpy(np.random.default_rng(9).standard_normal(len(self.start)))
        self.tasks = [self._task(np.random.default_rng(seed), steps) for seed, steps in enumerate(LENGTHS)]

    def _task(self, generator: np.random.Generator, steps: int) -> TaskData:
        path, support = [theta(self.state.meta)], list[Batch]()
        for _ in range(self.config.inner_steps):
            support.append(self._batch(path[-1], generator, steps))
            path = self.path(self.state.meta, support)
        query, count = self._batch(path[-1], generator, steps), len(support) if self.config.sampling_credit else 0
        return TaskData(support, path, query, [torch.from_numpy(generator.standard_normal(1)) for _ in range(count)])

    def _batch(self, params: Params, generator: np.random.Generator, steps: int) -> Batch:
        observations = torch.from_numpy(generator.standard_normal((steps, 3)))
        acting = self.policy(params, observations)
        noise = torch.from_numpy(self.policy.distribution.noise(generator, (steps,), 2).astype(np.float64))
        actions, advantages = acting.sample(noise), torch.from_numpy(generator.standard_normal(steps))
        times = torch.arange(steps)
        batch = Batch(observations, actions, acting.log_prob(actions), advantages, 0 * times, times)
        return Batch(*(field.detach() for field in batch))

    def path(self, meta: Params, support: Sequence[Batch]) -> list[Params]:
        """theta and the parameters after each inner update, as the paper writes it."""
        loss, path = inner_loss(self.policy, self.config), [theta(meta)]
        for step, batch in enumerate(support):
            gradient = torch.func.grad(lambda p, batch=batch: loss(p, batch))(path[-1])
            rates, shift, _ = self.rates.at(meta, step)
            moved = {name: path[-1][name] - rate * gradient[name] for name, rate in rates.items()}
            path.append(path[-1] | moved | {name: moved[name] + value for name, value in shift.items()})
        return path

    def measured(self, vector: Tensor) -> dict[str, Tensor]:
        """Means over tasks: the clipped loss, KLs, and the share of query steps that are clipped."""
        sums, clip = dict[str, Tensor](), self.config.step.clip
        for task in self.tasks:
            path, query = self.path(self.fixed | unflatten(vector, self.learned), task.support), task.query
            ratio = (self.policy(path[-1], query.observations).log_prob(query.actions) - query.log_probs).exp()
            gains = query.advantages > 0  # then min takes the smaller ratio, else the larger one
            bounded = torch.where(gains, ratio.clamp(max=1 + clip), ratio.clamp(min=1 - clip))
            batches = [*task.support, query]
            kls = [
                self.policy(old, batch.observations).kl(self.policy(new, batch.observations)).mean()
                for old, new, batch in zip(task.path, path, batches, strict=True)
            ]
            values = {
                "clipped_loss": -(bounded * query.advantages).mean(),
                "kl": kls[-1],
                "support_kl": sum(kls[:-1], torch.zeros(())) / max(len(kls) - 1, 1),
                "clipped": (bounded != ratio).double().mean(),
                "credited": sum(
                    (self._credited(path[k], task.support[k], credit) for k, credit in enumerate(task.credit)),
                    torch.zeros(()),
                ),
            }
            sums = {name: sums.get(name, 0) + value / len(self.tasks) for name, value in values.items()}
        return sums

    def _credited(self, params: Params, batch: Batch, credit: Tensor) -> Tensor:
        ratios = (self.policy(params, batch.observations).log_prob(batch.actions) - batch.log_probs).exp()
        return credit[0] * (ratios - 1).sum()

    def loss(self, vector: Tensor) -> Tensor:
        """The whole loss, that of the paper's Algorithm 1, less what is credited to the sampling."""
        rule, measured = self.config.step, self.measured(vector)
        return measured["clipped_loss"] + rule.kl_penalty * measured["support_kl"] - measured["credited"]

    def objective(self, threads: TaskThreads = ALONE, **changes) -> MetaGradient:
        config = replace(self.config, **changes)
        return meta_objective(self.policy, self.state.meta, self.tasks, config, threads)

    @property
    def proximal(self) -> Proximal:
        proximal = self.objective().proximal
        assert proximal is not None
        return proximal


PENALISED = ProMP(epochs=1, clip=0.1, kl_penalty=0.7)  # so strict that clip and penalty count


@pytest.mark.parametrize(
    "settings",
    [
        {"inner_steps": 0},
        {"inner_objective": "reinforce"},
        {"inner_steps": 2, "inner_objective": "reinforce", "learned_lr": "parameter"},
        {"inner_steps": 2},
        {"inner_steps": 2, "kind": CategoricalMLP},
        {"inner_steps": 2, "inner_objective": "dice", "dice_lambda": 1.0},
        {"inner_steps": 2, "adapted": "last-layer"},
        {"inner_steps": 2, "learned_lr": "parameter", "adapted": "last-layer"},
        {"inner_steps": 2, "learned_lr": "parameter", "adapted": "context"},
        {"inner_steps": 2, "learned_lr": "tensor-and-step", "kind": CategoricalMLP},
        {"inner_steps": 2, "learned_lr": "parameter", "filtered_lr": True, "adapted_std_factor": 0.5},
        {"inner_steps": 2, "learned_lr": "parameter", "inner_objective": "reinforce", "sampling_credit": 1.0},
        {"frozen": ["weight_0", "bias_1"], "learned_lr": "parameter"},
    ],
)
def test_the_gradient_at_other_meta_parameters_is_that_of_the_whole_loss(settings):
    problem = Problem(step=PENALISED, **settings)
    assert 0 < problem.measured(problem.there)["clipped"] < 1
    expected = torch.func.grad(problem.loss)(problem.there)
    torch.testing.assert_close(problem.proximal.gradient(problem.there), expected)


@pytest.mark.parametrize("inner_steps", [0, 1, 2])
def test_at_the_start_it_is_the_meta_gradient_of_the_likelihood_ratio_and_the_penalty_has_none(inner_steps):
    problem = Problem(inner_steps=inner_steps, step=ProMP(kl_penalty=100.0))
    objective, start = problem.objective(), problem.start

    def of_ratios(vector):
        adapted = [problem.path(unflatten(vector, problem.learned), task.support)[-1] for task in problem.tasks]
        loss = PolicyLoss(problem.policy, likelihood_ratio)
        losses = [loss(p, t.query) for p, t in zip(adapted, problem.tasks, strict=True)]
        return torch.stack(losses).mean()

    expected = torch.func.grad(of_ratios)(start)
    assert expected.norm() > 0.01
    torch.testing.assert_close(flatten(objective.gradient), expected)
    torch.testing.assert_close(objective.proximal.gradient(start), expected)


def test_without_second_order_gradients_are_carried_unchanged_to_theta():
    # J = 1: the gradient at the adapted parameters plus eta / 2 times those of both KLs, each where its policy is.
    problem = Problem(inner_steps=2, step=PENALISED)
    expected = []
    for task in problem.tasks:
        path = problem.path(unflatten(problem.there, problem.learned), task.support)

        def outer(params, query=task.query):
            return clipped_ratio(problem.policy(params, query.observations), query, PENALISED.clip)

        def kl(params, step, task=task):
            observations = task.support[step].observations
            return problem.policy(task.path[step], observations).kl(problem.policy(params, observations)).mean()

        parts = [torch.func.grad(outer)(path[-1])]
        parts += [{n: 0.35 * g for n, g in torch.func.grad(kl)(path[step], step).items()} for step in (0, 1)]
        expected.append(sum(flatten(part) for part in parts))
    found = problem.objective(first_order=True).proximal.gradient(problem.there)
    torch.testing.assert_close(found, torch.stack(expected).mean(0))
    assert not torch.allclose(found, problem.proximal.gradient(problem.there), rtol=1e-2)


@pytest.mark.parametrize("settings", [{}, {"inner_steps": 0}, {"inner_steps": 2, "learned_lr": "parameter"}])
def test_steps_are_those_of_adam_on_the_whole_loss_and_its_moments_last(settings):
    # Two iterations on the same episodes, since the loss of the second is another one: that of its own start.
    rule = ProMP(lr=0.02, epochs=3, kl_penalty=0.7)
    problem = Problem(step=rule, **settings)
    parameter = torch.nn.Parameter(problem.start.clone())
    optimizer, state = torch.optim.Adam([parameter], lr=rule.lr), problem.state
    for iteration in range(2):
        problem.tasks = [
            problem._task(np.random.default_rng(10 * iteration + m), steps) for m, steps in enumerate(LENGTHS)
        ]
        for _ in range(rule.epochs):
            optimizer.zero_grad()
            problem.loss(parameter).backward()
            optimizer.step()
        state, metrics = meta_step(rule, state, problem.objective())
        torch.testing.assert_close(flatten(state.meta), parameter.detach())
        measured = {name: value.item() for name, value in problem.measured(flatten(state.meta)).items()}
        assert metrics["meta/loss_after"] == pytest.approx(problem.loss(flatten(state.meta)).item())
        assert [metrics[f"meta/{name}"] for name in ("kl", "support_kl", "clipped")] == pytest.approx(
            [measured[name] for name in ("kl", "support_kl", "clipped")], abs=1e-12
        )
        problem.state = state


def test_one_step_is_one_of_adam():
    problem = Problem()
    states = [meta_step(rule, problem.state, problem.objective())[0] for rule in (ProMP(epochs=1), Adam())]
    for ours, theirs in zip(*(s.meta.values() for s in states), strict=True):
        assert torch.equal(ours, theirs)
    for name, moment in states[0].optimizer.items():
        assert torch.equal(moment, states[1].optimizer[name])


def test_more_steps_lower_the_loss_more():
    problem = Problem()
    after = []
    for epochs in (1, 3, 9):
        rule = ProMP(lr=0.02, epochs=epochs)
        after.append(meta_step(rule, problem.state, problem.objective(step=rule))[1]["meta/loss_after"])
    assert problem.objective().loss > after[0] > after[1] > after[2]


def test_the_clip_by_hand():
    # Two actions of log-odds 0, so each has probability 1/2; stored ones give ratios 3/2, 3/2, 1/2, 1/2 and 1.2.
    # A        1          -1         1          -1         2
    # r A      1.5        -1.5       0.5        -0.5       2.4
    # clipped  1.3        -1.3       0.7        -0.7       2.4     within 0.7 and 1.3
    # min      1.3        -1.5       0.5        -0.7       2.4     sum 2.0, loss -0.4
    # moves    no         yes        yes        no         yes
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.2], dtype=torch.float64)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0], dtype=torch.float64)
    zeros = torch.zeros(5, dtype=torch.long)
    batch = Batch(torch.zeros(5, 1), zeros, (0.5 / ratios).log(), advantages, zeros, zeros)
    logits = torch.zeros(5, 2, dtype=torch.float64)
    gradient, loss = torch.func.grad_and_value(lambda x: clipped_ratio(Categorical(x), batch, 0.3))(logits)
    assert loss.item() == pytest.approx(-0.4)
    assert clipped_share(Categorical(logits), batch, 0.3).item() == 0.4
    # The derivative of log pi(0) by the first logit is 1 - 1/2, so that of the loss -1/5 r A / 2 where it moves.
    assert gradient[:, 0].tolist() == pytest.approx([0, 0.15, -0.05, 0, -0.24])


@pytest.mark.parametrize("settings", [{}, {"inner_steps": 2, "learned_lr": "parameter", "adapted": "last-layer"}])
def test_the_result_does_not_depend_on_the_number_of_threads(settings):
    problem = Problem(**settings)
    rule = problem.config.step
    alone, metrics = meta_step(rule, problem.state, problem.objective())
    for threads in (2, 3):
        together, same = meta_step(rule, problem.state, problem.objective(TaskThreads(threads)))
        assert torch.equal(flatten(together.meta), flatten(alone.meta))
        assert same == metrics


def test_frozen_parameters_stay_and_have_no_moments():
    problem = Problem(frozen=["weight_0", "log_std"])
    state, _ = meta_step(problem.config.step, problem.state, problem.objective())
    moved = {name for name, value in state.meta.items() if not torch.equal(value, problem.state.meta[name])}
    assert moved == {"bias_0", "weight_1", "bias_1"}
    assert {name.rpartition(".")[2] for name in state.optimizer} == moved


@pytest.mark.parametrize("rule", [TrustRegion(), Adam(), SGD()])
def test_other_rules_have_no_proximal_objective(rule):
    assert Problem().objective(step=rule).proximal is None


def test_it_needs_a_policy():
    with pytest.raises(InputError, match="promp needs a policy: for supervised learning"):
        meta_step(ProMP(), Problem().state, Problem().objective(step=Adam()))


def test_a_later_gradient_that_is_not_finite_is_named():
    problem = Problem()
    objective = problem.objective()
    objective = objective._replace(proximal=Proximal(lambda vector: vector * torch.nan, lambda _: {}))
    with pytest.raises(NonFiniteError, match=r"^meta-gradient is not finite$"):
        meta_step(ProMP(epochs=2), problem.state, objective)
    assert isinstance(meta_step(ProMP(epochs=1), problem.state, objective)[0], State)
