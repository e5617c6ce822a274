"""Settings of supervised experiments by name."""

from dataclasses import replace

from maml_rl.config import Adam
from maml_rl.experiments.presets.preset import Preset
from maml_rl.supervised.settings import (
    LSTMConfig,
    NetworkConfig,
    SupervisedConfig,
    SupervisedEvaluation,
    SupervisedMeta,
    TasksConfig,
)

_FINN = "Finn, Abbeel, Levine 2017"
_RAVI = "Ravi, Larochelle 2017"


# The paper's code (github.com/cbfinn/maml, utils.py and maml.py) sums a task's cross-entropy over its examples and
# divides by the shots: the inner loss over ways x shots examples, the outer one over ways x queries. Here both losses
# are means. The clip acts on each number of the outer gradient, and Adam's step does not depend on its scale.


def inner_lr_of_mean(published: float, ways: int) -> float:
    """Step size on the mean loss that equals a published one: the published inner loss is `ways` times the mean."""
    return published * ways


def clip_of_mean(published: float, tasks: TasksConfig) -> float:
    """Bound on each number of the mean loss's gradient, equivalent to a published bound.

    The published outer loss is ways x queries / shots times the mean.
    """
    return published * tasks.shots / (tasks.ways * tasks.queries)


_SINUSOID = SupervisedConfig(
    tasks=TasksConfig("sinusoid", shots=10, queries=10),
    iterations=70_000,
    checkpoint_every=5000,
    meta=SupervisedMeta(meta_batch_size=25, inner_steps=1, inner_lr=0.01),
    network=NetworkConfig("mlp"),
    evaluation=SupervisedEvaluation(gradient_steps=10, shots=(10, 5, 20), queries=100),
)
_OMNIGLOT = SupervisedConfig(
    tasks=TasksConfig("omniglot", ways=5, shots=1, queries=1, rotations=True),
    iterations=60_000,
    meta=SupervisedMeta(meta_batch_size=32, inner_steps=1, inner_lr=inner_lr_of_mean(0.4, 5), chunk_size=8),
    network=NetworkConfig("strided-conv", filters=64),
    evaluation=SupervisedEvaluation(gradient_steps=3),
)
_OMNIGLOT_20 = replace(
    _OMNIGLOT,
    tasks=replace(_OMNIGLOT.tasks, ways=20),
    meta=replace(_OMNIGLOT.meta, meta_batch_size=16, inner_steps=5, inner_lr=inner_lr_of_mean(0.1, 20), chunk_size=2),
    evaluation=SupervisedEvaluation(gradient_steps=5),
)
_CONVERTED = "inner lr 0.4 on a sum over the ways is 2.0 on the mean"
_CONVERTED_20 = "inner lr 0.1 on a sum over the ways is 2.0 on the mean"


def _shots(config: SupervisedConfig, shots: int, queries: int) -> SupervisedConfig:
    return replace(config, tasks=replace(config.tasks, shots=shots, queries=queries))


def _mini_imagenet(shots: int, meta_batch_size: int) -> SupervisedConfig:
    tasks = TasksConfig("mini-imagenet", ways=5, shots=shots, queries=15)
    return SupervisedConfig(
        tasks=tasks,
        iterations=60_000,
        meta=SupervisedMeta(
            meta_batch_size=meta_batch_size,
            inner_steps=5,
            inner_lr=inner_lr_of_mean(0.01, tasks.ways),
            step=Adam(gradient_clip=clip_of_mean(10.0, tasks)),
            chunk_size=1,
        ),
        network=NetworkConfig("pooled-conv", filters=32),
        evaluation=SupervisedEvaluation(gradient_steps=10),
    )


# The meta-learner LSTM. The published settings are those of MiniImagenet. The sinusoid and Omniglot use its LSTM and
# outer step, and take their steps on all support examples with the gradient of the mean loss, whose size does not
# depend on their number.
_LSTM_STEP = Adam(lr=1e-3, norm_clip=0.25)
_MEAN_GRADIENT = LSTMConfig(divided_gradient=False)
_SINUSOID_LSTM = replace(
    _SINUSOID,
    checkpoint_every=500,
    meta=SupervisedMeta(5, inner_steps=5, algorithm="meta-lstm", lstm=_MEAN_GRADIENT, step=_LSTM_STEP),
)
_OMNIGLOT_LSTM = replace(
    _OMNIGLOT,
    tasks=replace(_OMNIGLOT.tasks, queries=5),
    checkpoint_every=500,
    meta=SupervisedMeta(
        meta_batch_size=1,
        inner_steps=5,
        algorithm="meta-lstm",
        lstm=_MEAN_GRADIENT,
        batch_norm="support",
        step=_LSTM_STEP,
        chunk_size=1,  # of an evaluation: the LSTM of a task takes 100 MB a step
    ),
    network=NetworkConfig("strided-conv", filters=32),
    evaluation=SupervisedEvaluation(gradient_steps=5),
)


def _mini_imagenet_lstm(shots: int, steps: int, iterations: int) -> SupervisedConfig:
    maml = _mini_imagenet(shots, meta_batch_size=1)
    meta = SupervisedMeta(
        meta_batch_size=1, inner_steps=steps, algorithm="meta-lstm", batch_norm="support", step=_LSTM_STEP, chunk_size=1
    )
    return replace(maml, iterations=iterations, meta=meta, evaluation=SupervisedEvaluation(gradient_steps=steps))


SUPERVISED_PRESETS = {
    "sinusoid": Preset(
        _SINUSOID,
        "regression of sinusoids of amplitude in [0.1, 5] and phase in [0, pi]",
        f"{_FINN}, 5.1",
        "paper, 5-shot squared error after 1, 5, 10 steps: 0.67, 0.38, 0.35",
    ),
    "sinusoid-pretrained": Preset(
        replace(
            _SINUSOID,
            meta=replace(_SINUSOID.meta, inner_steps=0),
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
            meta=replace(_SINUSOID.meta, inner_steps=0),
        ),
        "the same: trained on all tasks at once, with amplitude and phase as inputs",
        f"{_FINN}, 5.1, oracle",
        "an error near 0 without gradient steps",
    ),
    "sinusoid-cavia": Preset(
        replace(
            _SINUSOID,
            iterations=50_000,
            meta=replace(_SINUSOID.meta, adapted="context", inner_lr=1.0),
            network=NetworkConfig("mlp", context_size=5),
        ),
        "the same: only 5 context numbers are adapted",
        "Zintgraf et al. 2019 (CAVIA), from its code",
        "not measured",
    ),
    "sinusoid-meta-lstm": Preset(
        _SINUSOID_LSTM,
        "the same: an LSTM takes 5 steps instead of gradient descent",
        f"{_RAVI}, with the tasks of {_FINN}, 5.1; the number of steps is this package's",
        "10-shot squared error after 5, 10 steps: 0.09, 0.25 (one seed)",
    ),
    "omniglot-5way-1shot": Preset(
        _OMNIGLOT,
        "Omniglot: distinguish 5 characters after 1 drawing of each",
        f"{_FINN}, 5.2; {_CONVERTED}",
        "paper: 98.7 ± 0.4 %",
    ),
    "omniglot-5way-1shot-meta-lstm": Preset(
        _OMNIGLOT_LSTM,
        "the same: an LSTM takes 5 steps instead of gradient descent",
        f"{_RAVI}, with the tasks of {_FINN}, 5.2; steps and filters are this package's",
        "91.6 ± 0.6 % after 5 steps, 92.9 ± 0.6 % with transductive statistics (one seed)",
    ),
    "omniglot-5way-5shot": Preset(
        _shots(_OMNIGLOT, 5, 5),
        "Omniglot: distinguish 5 characters after 5 drawings of each",
        f"{_FINN}, 5.2; {_CONVERTED}",
        "paper: 99.9 ± 0.1 %",
    ),
    "omniglot-20way-1shot": Preset(
        _OMNIGLOT_20,
        "Omniglot: distinguish 20 characters after 1 drawing of each",
        f"{_FINN}, 5.2; {_CONVERTED_20}",
        "paper: 95.8 ± 0.3 %; other implementations reach 91 to 94",
    ),
    "omniglot-20way-5shot": Preset(
        _shots(_OMNIGLOT_20, 5, 5),
        "Omniglot: distinguish 20 characters after 5 drawings of each",
        f"{_FINN}, 5.2; {_CONVERTED_20}",
        "paper: 98.9 ± 0.2 %",
    ),
    "mini-imagenet-5way-1shot": Preset(
        _mini_imagenet(1, meta_batch_size=4),
        "MiniImagenet: distinguish 5 classes of photographs after 1 of each",
        f"{_FINN}, 5.2; inner lr 0.01 and clip 10 of the published loss, a sum, are 0.05 and 0.133 on the mean",
        "paper: 48.7 ± 1.8 %",
    ),
    "mini-imagenet-5way-5shot": Preset(
        _mini_imagenet(5, meta_batch_size=2),
        "MiniImagenet: distinguish 5 classes of photographs after 5 of each",
        f"{_FINN}, 5.2; inner lr 0.01 and clip 10 of the published loss, a sum, are 0.05 and 0.667 on the mean",
        "paper: 63.1 ± 0.9 %",
    ),
    "mini-imagenet-5way-1shot-meta-lstm": Preset(
        _mini_imagenet_lstm(1, 12, 75_000),
        "MiniImagenet: distinguish 5 classes of photographs after 1 of each, by an LSTM in 12 steps",
        f"{_RAVI}, and its code",
        "paper: 43.44 ± 0.77 %; not measured here, it needs the photographs and a GPU",
    ),
    "mini-imagenet-5way-5shot-meta-lstm": Preset(
        _mini_imagenet_lstm(5, 8, 50_000),
        "MiniImagenet: distinguish 5 classes of photographs after 5 of each, by an LSTM in 8 steps",
        f"{_RAVI}, and its code",
        "paper: 60.60 ± 0.71 %, other implementations 58; not measured here, it needs the photographs and a GPU",
    ),
}
