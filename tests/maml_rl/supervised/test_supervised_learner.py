"""Supervised learning as a learner: its iteration is a function of the state alone."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from maml_rl.config import SGD
from maml_rl.errors import InputError
from maml_rl.machine import Machine
from maml_rl.seeding import Phase
from maml_rl.supervised.meta_learning import meta_gradient, meta_iteration
from maml_rl.supervised.settings import NetworkConfig, SupervisedConfig, SupervisedMeta, TasksConfig
from maml_rl.supervised.supervised_learner import SupervisedLearner, open_supervised
from maml_rl.supervised.task_batches import Sinusoid, TaskBatch
from maml_rl.types import State

CONFIG = SupervisedConfig(
    tasks=TasksConfig(shots=4, queries=4),
    meta=SupervisedMeta(meta_batch_size=3, learned_lr="parameter"),
    network=NetworkConfig(hidden_sizes=(4,)),
    seed=5,
)
ONE_THREAD = Machine(threads=1)


def same_bits(left: State, right: State) -> bool:
    (a, b) = (state.meta | state.optimizer for state in (left, right))
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


class Counted(Sinusoid):
    """Sinusoids that keep which indices were drawn, and fail as long as `broken`."""

    drawn: list[Sequence[int]]
    broken = False

    def batch(self, seed: int, phase: Phase, indices: Sequence[int]) -> TaskBatch:
        if type(self).broken:
            raise InputError("broken")
        type(self).drawn.append(indices)
        return super().batch(seed, phase, indices)


def test_an_iteration_is_that_of_algorithm_2_on_the_tasks_of_its_number() -> None:
    learner = open_supervised(CONFIG, ONE_THREAD)
    state = learner.initial()
    expected, gradient = state, meta_gradient(learner.network, CONFIG.meta)
    for iteration in range(3):
        tasks = learner.source.batch(5, Phase.TRAINING, range(3 * iteration, 3 * iteration + 3))
        expected, values = meta_iteration(gradient, expected, tasks, CONFIG.meta, learner.threads)
        state, metrics = learner.iterate(state)
        assert metrics == (values, {})
        assert same_bits(state, expected)
    assert state.iteration == 3
    assert {name for name in state.meta if name.startswith("inner_lr.")}


def test_an_iteration_depends_only_on_the_state() -> None:
    learner, other = (SupervisedLearner(CONFIG, Sinusoid(4, 4), ONE_THREAD) for _ in range(2))
    states = [learner.initial()]
    for _ in range(4):
        states.append(learner.iterate(states[-1])[0])
    for iteration in (2, 0, 3):  # anywhere, and in any order
        assert same_bits(learner.iterate(states[iteration])[0], states[iteration + 1])
        assert same_bits(other.iterate(states[iteration])[0], states[iteration + 1])


def test_tasks_are_drawn_ahead_and_drawn_again_only_for_another_iteration() -> None:
    Counted.drawn = []
    learner = SupervisedLearner(CONFIG, Counted(4, 4), ONE_THREAD)
    assert [list(indices) for indices in Counted.drawn] == [[0]]  # for the shapes
    first = learner.initial()
    state = learner.iterate(first)[0]
    for _ in range(5):
        state = learner.iterate(state)[0]
    assert [(drawn[0], len(drawn)) for drawn in Counted.drawn[1:]] == [(0, 3), (3, 300)]
    learner.iterate(first)
    assert [drawn[0] for drawn in Counted.drawn[3:]] == [0]


def test_an_iteration_can_be_retried_after_an_error_in_its_tasks() -> None:
    Counted.drawn = []
    learner = SupervisedLearner(CONFIG, Counted(4, 4), ONE_THREAD)
    state = learner.initial()
    Counted.broken = True
    try:
        for _ in range(2):
            with pytest.raises(InputError, match="broken"):
                learner.iterate(state)
    finally:
        Counted.broken = False
    assert learner.iterate(state)[0].iteration == 1


def test_a_state_has_what_its_step_needs() -> None:
    learner = open_supervised(CONFIG, ONE_THREAD)
    state = learner.initial()
    forms = {name: value.shape for name, value in state.optimizer.items()}
    assert forms == {f"adam.{m}.{name}": value.shape for m in ("first", "second") for name, value in state.meta.items()}
    plain = open_supervised(replace(CONFIG, meta=replace(CONFIG.meta, step=SGD())), ONE_THREAD)
    assert plain.initial().optimizer == {}
    assert learner.constants == {}
    assert not learner.advice


def test_the_progress_shows_loss_or_accuracy() -> None:
    learner = open_supervised(CONFIG, ONE_THREAD)
    losses = {"loss/before": 3.14159, "loss/after": 0.5}
    assert learner.summary(losses) == "loss 3.14 before, 0.5 after adaptation"
    accuracies = losses | {"accuracy/before": 0.2, "accuracy/after": 0.987}
    assert learner.summary(accuracies) == "accuracy 20 % before, 98.7 % after adaptation"


def test_an_unavailable_device_is_refused_before_the_data_are_read() -> None:
    config = replace(CONFIG, tasks=TasksConfig("omniglot"), data="absent")
    with pytest.raises(InputError, match="device 'nonsense' cannot be used"):
        open_supervised(config, Machine("nonsense"))
    with pytest.raises(InputError, match="there is no Omniglot in absent"):
        open_supervised(config)
