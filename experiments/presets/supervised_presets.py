"""Settings of supervised experiments by name."""

from dataclasses import replace
from typing import NamedTuple

from maml_rl.experiments.runs.supervised_run import EvaluationConfig, SupervisedConfig
from maml_rl.supervised.config import MethodConfig
from maml_rl.supervised.networks import ModelConfig
from maml_rl.supervised.sources import TasksConfig

_FINN = "Finn, Abbeel, Levine 2017"


class Preset(NamedTuple):
    """A run's settings with their source and what to expect of them."""

    config: SupervisedConfig
    task: str
    source: str
    expected: str

    def settings(self) -> str:
        """The settings in one line."""
        method = self.config.method
        inner = f"{method.inner_steps} inner steps of {method.inner_lr:g} on the mean loss"
        return (
            f"{self.config.iterations} iterations of {method.meta_batch_size} tasks, "
            f"{inner if method.inner_steps else 'no inner updates'}, {method.optimizer} {method.outer_lr:g}"
        )


# The paper's code (github.com/cbfinn/maml, utils.py and maml.py) sums a task's cross-entropy over its examples and
# divides by the shots: the inner loss over ways x shots examples, the outer one over ways x queries. Here both losses
# are means. The clip acts on each number of the outer gradient, and Adam's step does not depend on its scale.


def inner_lr_of_mean(published: float, ways: int) -> float:
    """Step size on the mean loss that equals a published one: the published inner loss is `ways` times the mean."""
    return published * ways


def clip_of_mean(published: float, tasks: TasksConfig) -> float:
    """Bound on each number of the gradient of the mean loss that cuts where a published one does.

    The published outer loss is ways x queries / shots times the mean.
    """
    return published * tasks.shots / (tasks.ways * tasks.queries)


_SINUSOID = SupervisedConfig(
    TasksConfig("sinusoid", shots=10, queries=10),
    iterations=70_000,
    checkpoint_every=5000,
    method=MethodConfig(meta_batch_size=25, inner_steps=1, inner_lr=0.01),
    model=ModelConfig("mlp"),
    evaluation=EvaluationConfig(gradient_steps=10, shots=(10, 5, 20), queries=100),
)
_OMNIGLOT = SupervisedConfig(
    TasksConfig("omniglot", ways=5, shots=1, queries=1, rotations=True),
    iterations=60_000,
    method=MethodConfig(meta_batch_size=32, inner_steps=1, inner_lr=inner_lr_of_mean(0.4, 5), chunk_size=8),
    model=ModelConfig("strided-conv", filters=64),
    evaluation=EvaluationConfig(gradient_steps=3),
)
_OMNIGLOT_20 = replace(
    _OMNIGLOT,
    tasks=replace(_OMNIGLOT.tasks, ways=20),
    method=replace(
        _OMNIGLOT.method, meta_batch_size=16, inner_steps=5, inner_lr=inner_lr_of_mean(0.1, 20), chunk_size=2
    ),
    evaluation=EvaluationConfig(gradient_steps=5),
)
_CONVERTED = "inner lr 0.4 on a sum over the ways is 2.0 on the mean"
_CONVERTED_20 = "inner lr 0.1 on a sum over the ways is 2.0 on the mean"


def _shots(config: SupervisedConfig, shots: int, queries: int) -> SupervisedConfig:
    return replace(config, tasks=replace(config.tasks, shots=shots, queries=queries))


def _mini_imagenet(shots: int, meta_batch_size: int) -> SupervisedConfig:
    tasks = TasksConfig("mini-imagenet", ways=5, shots=shots, queries=15)
    return SupervisedConfig(
        tasks,
        iterations=60_000,
        method=MethodConfig(
            meta_batch_size=meta_batch_size,
            inner_steps=5,
            inner_lr=inner_lr_of_mean(0.01, tasks.ways),
            gradient_clip=clip_of_mean(10.0, tasks),
            chunk_size=1,
        ),
        model=ModelConfig("pooled-conv", filters=32),
        evaluation=EvaluationConfig(gradient_steps=10),
    )


PRESETS = {
    "sinusoid": Preset(
        _SINUSOID,
        "regression of sinusoids of amplitude in [0.1, 5] and phase in [0, pi]",
        f"{_FINN}, 5.1",
        "paper, 5-shot squared error after 1, 5, 10 steps: 0.67, 0.38, 0.35",
    ),
    "sinusoid-pretrained": Preset(
        replace(
            _SINUSOID,
            method=replace(_SINUSOID.method, inner_steps=0),
            evaluation=replace(_SINUSOID.evaluation, inner_lrs=(0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)),
        ),
        "the same: trained on all tasks at once, fine-tuned with the best step size on validation tasks",
        f"{_FINN}, 5.1, pretrained",
        "paper, 5-shot squared error after 1, 5, 10 steps: 2.41, 2.23, 2.19",
    ),
    "sinusoid-oracle": Preset(
        replace(
            _SINUSOID,
            tasks=replace(_SINUSOID.tasks, observe_task=True),
            method=replace(_SINUSOID.method, inner_steps=0),
        ),
        "the same: trained on all tasks at once, with amplitude and phase as inputs",
        f"{_FINN}, 5.1, oracle",
        "an error near 0 without gradient steps",
    ),
    "omniglot-5way-1shot": Preset(
        _OMNIGLOT,
        "Omniglot: tell 5 characters apart after 1 drawing of each",
        f"{_FINN}, 5.2; {_CONVERTED}",
        "paper: 98.7 ± 0.4 %",
    ),
    "omniglot-5way-5shot": Preset(
        _shots(_OMNIGLOT, 5, 5),
        "Omniglot: tell 5 characters apart after 5 drawings of each",
        f"{_FINN}, 5.2; {_CONVERTED}",
        "paper: 99.9 ± 0.1 %",
    ),
    "omniglot-20way-1shot": Preset(
        _OMNIGLOT_20,
        "Omniglot: tell 20 characters apart after 1 drawing of each",
        f"{_FINN}, 5.2; {_CONVERTED_20}",
        "paper: 95.8 ± 0.3 %; other implementations reach 91 to 94",
    ),
    "omniglot-20way-5shot": Preset(
        _shots(_OMNIGLOT_20, 5, 5),
        "Omniglot: tell 20 characters apart after 5 drawings of each",
        f"{_FINN}, 5.2; {_CONVERTED_20}",
        "paper: 98.9 ± 0.2 %",
    ),
    "mini-imagenet-5way-1shot": Preset(
        _mini_imagenet(1, meta_batch_size=4),
        "MiniImagenet: tell 5 classes of photographs apart after 1 of each",
        f"{_FINN}, 5.2; inner lr 0.01 and clip 10 of the published loss, a sum, are 0.05 and 0.133 on the mean",
        "paper: 48.7 ± 1.8 %",
    ),
    "mini-imagenet-5way-5shot": Preset(
        _mini_imagenet(5, meta_batch_size=2),
        "MiniImagenet: tell 5 classes of photographs apart after 5 of each",
        f"{_FINN}, 5.2; inner lr 0.01 and clip 10 of the published loss, a sum, are 0.05 and 0.667 on the mean",
        "paper: 63.1 ± 0.9 %",
    ),
}
