"""Settings of supervised experiments by name."""

from dataclasses import replace
from typing import NamedTuple

from experiments.supervised.run import EvaluationConfig, SupervisedConfig
from experiments.supervised.sources import TasksConfig
from maml_rl.supervised.config import MethodConfig
from maml_rl.supervised.networks import ModelConfig

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


_SINUSOID = SupervisedConfig(
    TasksConfig("sinusoid", shots=10, queries=10),
    iterations=70_000,
    checkpoint_every=5000,
    method=MethodConfig(meta_batch_size=25, inner_steps=1, inner_lr=0.01),
    model=ModelConfig("mlp", hidden_sizes=(40, 40)),
    evaluation=EvaluationConfig(gradient_steps=10, shots=(10, 5, 20), queries=100),
)
PRESETS = {
    "sinusoid": Preset(
        _SINUSOID,
        "regression of sinusoids of amplitude in [0.1, 5] and phase in [0, pi]",
        f"{_FINN}, 5.1",
        "paper, 5-shot squared error after 1, 5, 10 steps: 0.67, 0.38, 0.35",
    ),
    "sinusoid-pretrained": Preset(
        replace(_SINUSOID, method=replace(_SINUSOID.method, inner_steps=0)),
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
}


