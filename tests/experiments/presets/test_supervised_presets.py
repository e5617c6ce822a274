"""Published settings for a sum of losses, converted to settings for the mean."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from maml_rl.config import SGD
from maml_rl.experiments.presets.supervised_presets import SUPERVISED_PRESETS, clip_of_mean, inner_lr_of_mean
from maml_rl.parallel import TaskThreads
from maml_rl.supervised.meta_learning import initial_state, meta_gradient, meta_iteration
from maml_rl.supervised.networks import build_network
from maml_rl.supervised.settings import LSTMConfig, NetworkConfig, SupervisedMeta, TasksConfig
from maml_rl.supervised.task_batches import TaskBatch
from maml_rl.types import Params, flatten

TASKS = TasksConfig("mini-imagenet", ways=3, shots=2, queries=4)


def tasks(seed: int = 0) -> TaskBatch:
    """Two tasks of random inputs, float64."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[Tensor] = []
    for count in (TASKS.shots, TASKS.queries):
        labels = torch.arange(TASKS.ways).repeat_interleave(count).repeat(2, 1)
        parts += [torch.randn(2, TASKS.ways * count, 4, generator=generator, dtype=torch.float64), labels]
    return TaskBatch(*parts)


def published_gradient(forward, theta: Params, batch: TaskBatch, inner_lr: float) -> Params:
    """The meta-gradient of the paper's code: sums over the examples divided by the shots, mean over the tasks."""
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    total = torch.zeros((), dtype=torch.float64)
    for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
        inner = cross_entropy(forward(leaves, support_x), support_y, reduction="sum") / TASKS.shots
        gradients = torch.autograd.grad(inner, list(leaves.values()), create_graph=True)
        adapted = {n: p - inner_lr * g for (n, p), g in zip(leaves.items(), gradients, strict=True)}
        total = total + cross_entropy(forward(adapted, query_x), query_y, reduction="sum") / TASKS.shots
    return dict(zip(leaves, torch.autograd.grad(total / 2, list(leaves.values())), strict=True))


def test_step_size_and_clip_on_the_mean_act_as_the_published_ones_on_the_sum():
    network, batch = build_network(NetworkConfig("mlp", (5,)), tasks(), TASKS.ways, 0), tasks()
    theta = {name: value.double() for name, value in network.parameters().items()}
    published = flatten(published_gradient(network, theta, batch, inner_lr=0.1))
    clip = float(published.abs().quantile(0.6))
    config = SupervisedMeta(
        inner_lr=inner_lr_of_mean(0.1, TASKS.ways),
        step=SGD(lr=1.0, gradient_clip=clip_of_mean(clip, TASKS)),
    )
    state = initial_state(network, config)._replace(meta=theta)
    after, _ = meta_iteration(meta_gradient(network, config), state, batch, config, TaskThreads(1))
    step = flatten(theta) - flatten(after.meta)
    factor = TASKS.ways * TASKS.queries / TASKS.shots  # of the published loss to the mean
    assert factor == 6
    torch.testing.assert_close(factor * step, published.clamp(-clip, clip))
    assert 0 < (published.abs() > clip).sum() < len(published)


@pytest.mark.parametrize(
    ("name", "inner_lr", "clip"),
    [
        # 10 x 1 / (5 x 15) and 10 x 5 / (5 x 15); 0.01 x 5, 0.4 x 5 and 0.1 x 20
        ("mini-imagenet-5way-1shot", 0.05, 10 / 75),
        ("mini-imagenet-5way-5shot", 0.05, 50 / 75),
        ("omniglot-5way-1shot", 2.0, None),
        ("omniglot-20way-5shot", 2.0, None),
    ],
)
def test_the_presets_have_the_papers_settings_converted(name, inner_lr, clip):
    preset = SUPERVISED_PRESETS[name]
    assert preset.config.meta.inner_lr == pytest.approx(inner_lr)
    assert preset.config.meta.step.gradient_clip == (None if clip is None else pytest.approx(clip))
    if clip is not None:
        assert f"{clip:.3f}" in preset.source


@pytest.mark.parametrize(("shots", "steps", "iterations"), [(1, 12, 75_000), (5, 8, 50_000)])
def test_the_presets_of_the_meta_learner_lstm_have_the_settings_of_its_code(shots, steps, iterations):
    config = SUPERVISED_PRESETS[f"mini-imagenet-5way-{shots}shot-meta-lstm"].config
    assert (config.iterations, config.meta.inner_steps, config.meta.meta_batch_size) == (iterations, steps, 1)
    assert (config.meta.step.lr, config.meta.step.norm_clip) == (0.001, 0.25)
    assert config.meta.lstm == LSTMConfig(20, 10.0, (4.0, 5.0), (-5.0, -4.0), divided_gradient=True)
    assert (config.network.architecture, config.network.filters) == ("pooled-conv", 32)
    assert (config.tasks.shots, config.tasks.queries, config.meta.batch_norm) == (shots, 15, "support")
    assert config.evaluation.gradient_steps == steps


def test_a_preset_of_the_meta_learner_lstm_says_so_in_place_of_a_step_size():
    settings = SUPERVISED_PRESETS["sinusoid-meta-lstm"].settings()
    assert settings == "70000 iterations of 5 tasks, 5 inner steps of an LSTM, adam 0.001"
    one_task = SUPERVISED_PRESETS["mini-imagenet-5way-5shot-meta-lstm"].settings()
    assert one_task == "50000 iterations of 1 task, 8 inner steps of an LSTM, adam 0.001"
